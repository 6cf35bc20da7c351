from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec_bench.errors import ModelError
from mmrec_bench.types import Example, Query
from mmrec_plugins.instructions.ranking import Ranking
from mmrec_plugins.models.chatglm2.tokenizer import ChatGLMTokenizer
from mmrec_plugins.models.lm.encoding import (
    IGNORED,
    PromptEncoder,
    Tokens,
    micro_batches,
    pad_left,
    steps_per_epoch,
    training_steps,
)
from mmrec_plugins.models.lm.presets import Answer
from tests.plugins.lm.tiny import TITLES, Shop, catalog


@pytest.fixture
def tokenizer(tiny_backbone: Path) -> ChatGLMTokenizer:
    return ChatGLMTokenizer.from_folder(tiny_backbone)


def make_encoder(
    tokenizer: ChatGLMTokenizer, *, max_length: int = 400, answer: Answer = "likelihood"
) -> PromptEncoder:
    builder = Ranking(Ranking.Config(history_length=50))
    return PromptEncoder(
        tokenizer,
        builder,
        catalog(),
        max_length=max_length,
        answer=answer,
        max_new_tokens=10,
    )


def query(n_history: int = 3) -> Query:
    history = (np.arange(n_history) % 10).astype(np.int32)
    return Query(0, history, np.array([12, 13, 14], np.int32))


def test_a_prompt_is_the_chat_form_of_the_instruction(tokenizer: ChatGLMTokenizer) -> None:
    encoded = make_encoder(tokenizer).encode(query())
    assert tuple(encoded.prompt_ids[:2]) == tokenizer.prefix_ids
    text = tokenizer.decode(encoded.prompt_ids)
    assert text.startswith("[Round 1]")
    assert text.endswith("答：")
    assert all(TITLES[i] in text for i in (0, 1, 2, 12, 13, 14))
    assert encoded.dropped == 0


def test_answers_are_tokenised_apart_and_end_with_the_end_token(
    tokenizer: ChatGLMTokenizer,
) -> None:
    encoder = make_encoder(tokenizer)
    answers = encoder.answers(encoder.encode(query()).instruction)
    assert answers == [[*tokenizer.encode(TITLES[i]), tokenizer.eos_id] for i in (12, 13, 14)]


def test_letters_are_bare_while_none_begins_another(tokenizer: ChatGLMTokenizer) -> None:
    encoder = make_encoder(tokenizer, answer="letter")
    answers = encoder.answers(encoder.encode(query()).instruction)
    assert answers == [tokenizer.encode(name) for name in "ABC"]


def test_letters_get_the_end_token_when_one_begins_another(tokenizer: ChatGLMTokenizer) -> None:
    encoder = make_encoder(tokenizer, answer="letter", max_length=4000)
    many = Query(0, np.zeros(1, np.int32), np.arange(30, dtype=np.int32) % 20)
    answers = encoder.answers(encoder.encode(many).instruction)
    assert all(ids[-1] == tokenizer.eos_id for ids in answers)


def test_letters_have_no_end_token_for_26_candidates(tokenizer: ChatGLMTokenizer) -> None:
    encoder = make_encoder(tokenizer, answer="letter", max_length=4000)
    all_labels = Query(0, np.zeros(1, np.int32), np.arange(26, dtype=np.int32) % 20)
    answers = encoder.answers(encoder.encode(all_labels).instruction)
    assert not any(tokenizer.eos_id in ids for ids in answers)


def test_a_long_prompt_loses_its_oldest_history_and_nothing_else(
    tokenizer: ChatGLMTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    long = query(30)
    whole = make_encoder(tokenizer, max_length=4000).encode(long)
    encoder = make_encoder(tokenizer, max_length=300)
    encoded = encoder.encode(long)
    assert 0 < encoded.dropped < 30
    kept = long.with_history(30 - encoded.dropped)
    assert encoded.instruction == Ranking(Ranking.Config(history_length=50)).build(kept, catalog())
    longest = max(len(ids) for ids in encoder.answers(encoded.instruction))
    assert len(encoded.prompt_ids) + longest <= 300 < len(whole.prompt_ids)
    one_more = Ranking(Ranking.Config(history_length=50)).build(
        long.with_history(31 - encoded.dropped), catalog()
    )
    assert len(tokenizer.chat_prompt(one_more.messages[0].text)) + longest > 300
    encoder.encode(long)
    assert sum("oldest history" in message for message in caplog.messages) == 1


def test_a_prompt_that_never_fits_is_an_error_that_says_what_to_do(
    tokenizer: ChatGLMTokenizer,
) -> None:
    with pytest.raises(ModelError, match=r"does not fit into \d+ .*raise model\.max_length"):
        make_encoder(tokenizer, max_length=64).encode(query(30))


def test_the_whole_catalog_cannot_be_asked_for(tokenizer: ChatGLMTokenizer) -> None:
    with pytest.raises(ModelError, match=r"protocol\.candidates=uniform"):
        make_encoder(tokenizer).encode(Query(0, np.zeros(1, np.int32)))


def test_padding_is_on_the_left_and_labels_are_the_answers() -> None:
    batch = pad_left([Tokens([5, 6, 7, 8, 2], 2), Tokens([5, 9, 2], 1)], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [0, 0, 5, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert batch.labels.tolist() == [[8, 2], [IGNORED, 2]]


def test_micro_batches_keep_to_size_and_token_budget() -> None:
    rows = [Tokens([1] * length, 1) for length in (50, 10, 20, 30, 40, 100)]
    batches = micro_batches(rows, batch_size=3, token_budget=90)
    assert [[len(row) for row in batch] for batch in batches] == [[10, 20, 30], [40], [50], [100]]


def encode_marker(example: Example) -> Tokens:
    """Stand for an example by its history: enough to tell whether orders agree."""
    return Tokens([*example.query.history.tolist(), example.target], 1)


def steps(shop: Shop, n: int, skip: int = 0, seed: int = 1) -> list[list[Tokens]]:
    source = training_steps(shop, encode_marker, step_size=5, limit=None, seed=seed, skip=skip)
    return list(islice(source, n))


def test_an_epoch_holds_each_example_once() -> None:
    shop = Shop(per_epoch=32)
    assert steps_per_epoch(32, 5, None) == 7
    drawn = [row for step in steps(shop, 7) for row in step]
    expected = [encode_marker(example) for example in shop(0)]
    assert sorted(map(str, drawn)) == sorted(map(str, expected))


@pytest.mark.parametrize("skip", [1, 6, 7, 20, 69, 140])
def test_steps_go_on_where_they_were(skip: int) -> None:
    shop = Shop(per_epoch=343)  # 69 steps an epoch, in windows of 32
    assert steps(shop, 3, skip=skip) == steps(shop, skip + 3)[skip:]


def test_the_order_of_steps_depends_on_the_seed() -> None:
    shop = Shop(per_epoch=100)
    assert steps(shop, 20) == steps(shop, 20)
    assert steps(shop, 20) != steps(shop, 20, seed=2)


def test_a_step_holds_examples_of_similar_length() -> None:
    shop = Shop(per_epoch=160, longest=15)
    spans = [
        max(len(row.ids) for row in step) - min(len(row.ids) for row in step)
        for step in steps(shop, 32)
    ]
    assert np.mean(spans) < 2


def test_a_protocol_without_examples_is_an_error() -> None:
    with pytest.raises(ModelError, match="no training examples"):
        steps(Shop(per_epoch=0), 1)


def test_batches_are_int64() -> None:
    batch = pad_left([Tokens([5, 6, 2], 1)], pad_id=0)
    assert {batch.input_ids.dtype, batch.labels.dtype} == {torch.int64}
