"""Constrained beams against transformers' `generate`."""

from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.p5.decoding import (
    Beams,
    beam_search,
    encode_sources,
)
from mmrec_plugins.models.p5.likelihood import Normalise, score_candidates, score_catalog
from mmrec_plugins.models.p5.trie import ItemTrie
from tests.plugins.p5.plain_decoding import (
    END,
    FIXED,
    TRIES,
    VARIABLE,
    Codes,
    Named,
    allowed_tokens,
    generate,
    log_likelihood,
    sources,
    tiny_t5,
)


@pytest.fixture(scope="module", params=[False, True], ids=["T5", "T5 v1.1"])
def model(request: pytest.FixtureRequest) -> T5ForConditionalGeneration:
    return tiny_t5(v1_1=request.param)


def assert_same(found: Beams, expected: list[Named], tolerance: float = 2e-5) -> None:
    """Compare items in order and scores; ours end in -1 where `generate` has no more."""
    assert len(found.items) == len(expected)
    for items, scores, named in zip(found.items, found.scores, expected, strict=True):
        n = len(named.items)
        assert items.tolist() == named.items + [-1] * (len(items) - n)
        assert scores[:n].tolist() == pytest.approx(named.scores, abs=tolerance)
        assert scores[n:].tolist() == [-torch.inf] * (len(items) - n)


def padded(excluded: Sequence[Sequence[int]]) -> Tensor:
    width = max(len(row) for row in excluded)
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in excluded])


@pytest.mark.parametrize(("codes", "end"), TRIES)
@pytest.mark.parametrize("beams", [2, 4, 9])
def test_beams_are_those_of_generate(
    model: T5ForConditionalGeneration, codes: Codes, end: int | None, beams: int
) -> None:
    inputs = sources(5, 9)
    found = beam_search(encode_sources(model, *inputs), ItemTrie.build(codes, end), beams=beams)
    assert_same(found, generate(model, inputs, codes, end, beams))


@pytest.mark.parametrize(("codes", "end"), TRIES)
def test_one_beam_takes_the_likeliest_token_each_time(
    model: T5ForConditionalGeneration, codes: Codes, end: int | None
) -> None:
    ids, mask = sources(4, 9)
    allowed = allowed_tokens(codes, end)
    found = beam_search(encode_sources(model, ids, mask), ItemTrie.build(codes, end), beams=1)
    for b, item in enumerate(found.items[:, 0].tolist()):
        tokens: list[int] = []
        for token in [*codes[item], *([] if end is None else [end])]:
            rivals = allowed(0, torch.tensor([0, *tokens]))
            likely = [log_likelihood(model, ids[b], mask[b], [*tokens, rival]) for rival in rivals]
            assert rivals[likely.index(max(likely))] == token
            tokens.append(token)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("beams", [3, 8])
def test_length_penalty_is_that_of_generate(
    model: T5ForConditionalGeneration, penalty: float, beams: int
) -> None:
    inputs = sources(6, 9, seed=1)
    found = beam_search(
        encode_sources(model, *inputs),
        ItemTrie.build(VARIABLE, END),
        beams=beams,
        length_penalty=penalty,
    )
    expected = generate(model, inputs, VARIABLE, END, beams, length_penalty=penalty)
    assert_same(found, expected)


def test_the_default_early_stopping_of_generate_finds_the_same_items(
    model: T5ForConditionalGeneration,
) -> None:
    inputs = sources(6, 9, seed=2)
    found = beam_search(encode_sources(model, *inputs), ItemTrie.build(VARIABLE, END), beams=5)
    assert_same(found, generate(model, inputs, VARIABLE, END, 5, early_stopping=False))


@pytest.mark.parametrize(("codes", "end"), TRIES)
def test_shares_of_the_allowed_tokens_are_those_of_generate(
    model: T5ForConditionalGeneration, codes: Codes, end: int | None
) -> None:
    inputs = sources(4, 7)
    found = beam_search(
        encode_sources(model, *inputs), ItemTrie.build(codes, end), beams=6, normalise="allowed"
    )
    assert_same(found, generate(model, inputs, codes, end, 6, renormalize_logits=True))


@pytest.mark.parametrize(("codes", "end"), TRIES)
def test_more_beams_than_items_name_every_item_once_and_then_none(
    model: T5ForConditionalGeneration, codes: Codes, end: int | None
) -> None:
    read = encode_sources(model, *sources(3, 6))
    trie = ItemTrie.build(codes, end)
    found = beam_search(read, trie, beams=len(codes) + 3)
    catalog = score_catalog(read, trie)
    best, order = catalog.sort(dim=1, descending=True)
    torch.testing.assert_close(found.scores[:, :-3], best, atol=1e-5, rtol=0)
    assert found.items[:, :-3].tolist() == order.tolist()
    assert (found.items[:, -3:] == -1).all()
    assert (found.scores[:, -3:] == -torch.inf).all()


@pytest.mark.parametrize(("codes", "end"), TRIES)
def test_excluded_items_are_left_out_as_if_they_were_not_in_the_trie(
    model: T5ForConditionalGeneration, codes: Codes, end: int | None
) -> None:
    inputs = sources(4, 8, seed=3)
    branch = [item for item, code in enumerate(codes) if code[0] == codes[0][0]]
    excluded = [[*branch, 9], [3], [], [7, 7, 2]]
    read = encode_sources(model, *inputs)
    found = beam_search(read, ItemTrie.build(codes, end), beams=6, excluded=padded(excluded))
    assert_same(found, generate(model, inputs, codes, end, 6, excluded))
    for items, out in zip(found.items.tolist(), excluded, strict=True):
        assert not set(items) & set(out)


def test_excluding_all_items_but_one_leaves_that_one(model: T5ForConditionalGeneration) -> None:
    read = encode_sources(model, *sources(2, 5))
    excluded = torch.tensor([[i for i in range(len(VARIABLE)) if i != 10]] * 2)
    found = beam_search(read, ItemTrie.build(VARIABLE, END), beams=2, excluded=excluded)
    assert found.items.tolist() == [[10, -1], [10, -1]]
    expected = score_candidates(read, ItemTrie.build(VARIABLE, END), torch.tensor([[10], [10]]))
    torch.testing.assert_close(found.scores[:, :1], expected, atol=1e-5, rtol=0)


def test_excluding_every_item_leaves_none(model: T5ForConditionalGeneration) -> None:
    read = encode_sources(model, *sources(2, 5))
    everything = torch.arange(len(VARIABLE)).expand(2, -1)
    found = beam_search(read, ItemTrie.build(VARIABLE, END), beams=2, excluded=everything)
    assert found.items.tolist() == [[-1, -1], [-1, -1]]


def test_padding_on_either_side_and_its_amount_change_nothing(
    model: T5ForConditionalGeneration,
) -> None:
    ids, mask = sources(1, 6)
    alone = beam_search(encode_sources(model, ids, mask), ItemTrie.build(VARIABLE, END), beams=5)
    for left, right in ((0, 4), (3, 0)):
        wide = [nn.functional.pad(value, (left, right)) for value in (ids, mask)]
        found = beam_search(encode_sources(model, *wide), ItemTrie.build(VARIABLE, END), beams=5)
        if left:  # T5's positions are relative, so a shift is none
            assert found.items.tolist() == alone.items.tolist()
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_sources_are_read_as_generate_reads_them(
    model: T5ForConditionalGeneration, side: str
) -> None:
    inputs = sources(6, 9, seed=5, side=side)
    found = beam_search(encode_sources(model, *inputs), ItemTrie.build(VARIABLE, END), beams=4)
    assert_same(found, generate(model, inputs, VARIABLE, END, 4))


@pytest.mark.parametrize("side", ["left", "right"])
def test_reading_sources_of_like_lengths_together_changes_nothing(
    model: T5ForConditionalGeneration, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, mask = sources(7, 9, seed=5, side=side)
    mask[3] = 0  # a source without a token is read as its padding, as T5 does
    trie = ItemTrie.build(VARIABLE, END)
    expected = generate(model, (ids, mask), VARIABLE, END, 4)
    read_tokens = []
    for together in (7, 2):
        monkeypatch.setattr("mmrec_plugins.models.p5.decoding._GROUP_TOKENS", together * 9)
        rows: list[int] = []
        first = model.encoder.block[0].layer[0].SelfAttention.q
        handle = first.register_forward_hook(
            lambda *args, rows=rows: rows.append(args[2].shape[:2].numel())
        )
        read = encode_sources(model, ids, mask)
        handle.remove()
        assert_same(beam_search(read, trie, beams=4), expected)
        read_tokens.append(sum(rows))
    assert read_tokens[0] == 7 * 9
    assert read_tokens[1] < 0.8 * 7 * 9


def test_one_source_alone_is_answered_as_among_others(model: T5ForConditionalGeneration) -> None:
    ids, mask = sources(7, 9)
    trie = ItemTrie.build(VARIABLE, END)
    excluded = padded([[i, 13 - i] for i in range(7)])
    together = beam_search(encode_sources(model, ids, mask), trie, beams=4, excluded=excluded)
    for i in range(7):
        row = slice(i, i + 1)
        read = encode_sources(model, ids[row], mask[row])
        alone = beam_search(read, trie, beams=4, excluded=excluded[row])
        assert alone.items.tolist() == together.items[row].tolist()
        torch.testing.assert_close(alone.scores, together.scores[row], atol=1e-5, rtol=1e-6)


def test_embeddings_are_read_like_their_tokens(model: T5ForConditionalGeneration) -> None:
    ids, mask = sources(3, 6)
    trie = ItemTrie.build(FIXED)
    by_ids = beam_search(encode_sources(model, ids, mask), trie, beams=4)
    read = encode_sources(model, attention_mask=mask, inputs_embeds=model.shared(ids))
    by_embeddings = beam_search(read, trie, beams=4)
    assert by_ids.items.tolist() == by_embeddings.items.tolist()
    assert by_ids.scores.tolist() == by_embeddings.scores.tolist()


@pytest.mark.parametrize(("codes", "end"), TRIES)
def test_bfloat16_finds_what_generate_finds_in_it(codes: Codes, end: int | None) -> None:
    model = tiny_t5(seed=4).to(torch.bfloat16)
    inputs = sources(3, 8)
    found = beam_search(encode_sources(model, *inputs), ItemTrie.build(codes, end), beams=3)
    assert found.scores.dtype == torch.float32
    for items, scores, named in zip(
        found.items, found.scores, generate(model, inputs, codes, end, 3), strict=True
    ):
        # Three digits are left: neighbours in rank may change places.
        assert scores.tolist() == pytest.approx(named.scores, abs=0.1)
        assert len(set(items.tolist()) & set(named.items)) >= 2


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's
def test_lora_on_the_projections_is_read() -> None:
    base = tiny_t5(seed=6)
    inputs = sources(3, 8)
    plain = beam_search(encode_sources(base, *inputs), ItemTrie.build(FIXED), beams=4)
    config = LoraConfig(r=2, target_modules=["q", "v", "o", "wi", "wo"], init_lora_weights=False)
    tuned = get_peft_model(base, config).eval()
    found = beam_search(encode_sources(tuned, *inputs), ItemTrie.build(FIXED), beams=4)
    assert_same(found, generate(tuned, inputs, FIXED, None, 4))
    assert found.scores.tolist() != plain.scores.tolist()


def test_sources_are_read_without_dropout_and_the_mode_is_put_back() -> None:
    model = tiny_t5(dropout_rate=0.5).train()
    model.encoder.eval()
    trie = ItemTrie.build(FIXED)
    first, second = (
        beam_search(encode_sources(model, *sources(2, 6)), trie, beams=3) for _ in range(2)
    )
    assert first.scores.tolist() == second.scores.tolist()
    assert model.training
    assert model.decoder.training
    assert not model.encoder.training


def test_a_source_is_projected_once_for_all_beams_and_never_copied() -> None:
    model = tiny_t5()
    rows: list[int] = []
    for block in model.decoder.block:
        attention = block.layer[1].EncDecAttention
        attention.k.register_forward_hook(lambda *args: rows.append(args[2].shape[:2].numel()))
    read = encode_sources(model, *sources(4, 9))
    beam_search(read, ItemTrie.build(FIXED), beams=12)
    score_candidates(read, ItemTrie.build(FIXED), torch.arange(20).expand(4, -1))
    assert rows == [4 * 9] * 2
    assert all(keys.shape == (4, 3, 9, 6) for keys in read.keys)


@pytest.mark.parametrize("beams", [4, 6, 9])
def test_a_beam_that_cannot_come_among_the_best_is_read_no_further(beams: int) -> None:
    model = tiny_t5()
    read_nodes: list[int] = []
    first = model.decoder.block[0].layer[0].SelfAttention.q
    first.register_forward_hook(lambda *args: read_nodes.append(args[2].shape[1]))
    # 24 items of two tokens, which are found before the 6 of four are half read.
    short = [[10 + i % 6, 20 + i // 6] for i in range(24)]
    codes = [*short, *([10 + i, 30 + i, 40, 41] for i in range(6))]
    inputs = sources(4, 9)
    found = beam_search(encode_sources(model, *inputs), ItemTrie.build(codes, END), beams=beams)
    assert read_nodes[:3] == [1, min(beams, 6), beams]
    assert read_nodes[3:] == [1, 1]
    assert_same(found, generate(model, inputs, codes, END, beams))


def test_what_is_certain_is_not_read_where_shares_are_of_the_allowed_tokens() -> None:
    model = tiny_t5()
    rows: list[int] = []
    first = model.decoder.block[0].layer[0].SelfAttention.q
    first.register_forward_hook(lambda *args: rows.append(args[2].shape[1]))
    # 11-* leads to one item, 12-* to three behind a second token, 13-* to two behind a third.
    codes = [[11, 21, 31, 41], [12, 21], [12, 22, 31], [12, 23, 31, 41, 51]]
    codes += [[13, 21, 31, 41], [13, 21, 32, 41]]
    trie = ItemTrie.build(codes, END)
    inputs = sources(3, 9)
    read = encode_sources(model, *inputs)
    found = beam_search(read, trie, beams=6, normalise="allowed")
    assert rows == [1, 2, 1]
    assert_same(found, generate(model, inputs, codes, END, 6, renormalize_logits=True))
    rows.clear()
    scores = score_candidates(read, trie, found.items, normalise="allowed")
    assert rows == [1, 2, 1]
    torch.testing.assert_close(scores, found.scores, atol=1e-5, rtol=0)
    rows.clear()
    beam_search(read, trie, beams=6)
    assert rows[:3] == [1, 3, 5]


def test_a_single_item_is_certain() -> None:
    trie = ItemTrie.build([[11, 21]], END)
    read = encode_sources(tiny_t5(), *sources(2, 5))
    found = beam_search(read, trie, beams=2, normalise="allowed")
    assert found.items.tolist() == [[0, -1]] * 2
    assert found.scores[:, 0].tolist() == [0.0, 0.0]
    items = torch.zeros(2, 1, dtype=torch.int64)
    assert score_candidates(read, trie, items, normalise="allowed").tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("beams", [2, 4, 9])
def test_excluded_items_keep_their_share_of_the_allowed_tokens(beams: int) -> None:
    read = encode_sources(tiny_t5(), *sources(3, 8, seed=3))
    trie = ItemTrie.build(VARIABLE, END)
    excluded = padded([[0, 4, 9], [12], []])
    found = beam_search(read, trie, beams=beams, excluded=excluded, normalise="allowed")
    scores = score_candidates(read, trie, found.items, normalise="allowed")
    assert (found.items >= 0).all()
    torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)
    for items, out in zip(found.items.tolist(), excluded.tolist(), strict=True):
        assert not set(items) & {item for item in out if item >= 0}


def test_half_precision_that_overflows_is_refused() -> None:
    with pytest.raises(ModelError, match="overflows in float16"):
        encode_sources(tiny_t5().half(), *sources(2, 5))


def test_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="reads a T5ForConditionalGeneration, not a Linear"):
        encode_sources(nn.Linear(2, 2), *sources(2, 5))


def test_a_head_that_is_no_linear_layer_is_refused() -> None:
    model = tiny_t5()
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(ModelError, match="head of the T5 is a Sequential"):
        encode_sources(model, *sources(2, 5))


@pytest.mark.parametrize("normalise", ["vocabulary", "allowed"])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_source_whose_beams_have_ended_goes_on_beside_others(
    beams: int, normalise: Normalise
) -> None:
    model = tiny_t5(v1_1=True)
    codes = [[10, 40], [12, 20, 30, 31, 32], [11]]  # one token at most levels
    inputs, trie = sources(24, 6), ItemTrie.build(codes, END)
    encoded = encode_sources(model, *inputs)
    found = beam_search(encoded, trie, beams=beams, normalise=normalise)
    assert len({int(item) for item in found.items[:, 0]}) > 1  # of different lengths
    for row in range(24):
        alone = beam_search(encoded[row : row + 1], trie, beams=beams, normalise=normalise)
        assert alone.items.tolist() == found.items[row : row + 1].tolist()
        torch.testing.assert_close(alone.scores, found.scores[row : row + 1])


def test_what_hangs_on_the_head_is_refused() -> None:
    model = tiny_t5()
    model.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match="head of the T5 has a hook"):
        encode_sources(model, *sources(2, 5))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's
def test_virtual_tokens_of_peft_are_refused() -> None:
    config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2)
    model = get_peft_model(tiny_t5(), config)
    with pytest.raises(ModelError, match="no virtual tokens"):
        encode_sources(model, *sources(2, 5))


def test_a_hook_that_would_be_left_out_is_named() -> None:
    model = tiny_t5()
    model.decoder.block[1].layer[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match=r"decoder\.block\.1\.layer\.0 has a forward pass of its"):
        encode_sources(model, *sources(2, 5))


def test_both_and_neither_kind_of_input_are_refused(model: T5ForConditionalGeneration) -> None:
    ids, mask = sources(2, 5)
    with pytest.raises(ModelError, match="either input_ids or inputs_embeds"):
        encode_sources(model, ids, mask, inputs_embeds=model.shared(ids))
    with pytest.raises(ModelError, match="either input_ids or inputs_embeds"):
        encode_sources(model, attention_mask=mask)


def test_arguments_out_of_their_range_are_named(model: T5ForConditionalGeneration) -> None:
    read = encode_sources(model, *sources(2, 5))
    trie = ItemTrie.build(FIXED)
    with pytest.raises(ModelError, match="at least 1 beam; found 0"):
        beam_search(read, trie, beams=0)
    with pytest.raises(ModelError, match="length_penalty is 0 or more; found -1"):
        beam_search(read, trie, beams=1, length_penalty=-1)
    with pytest.raises(ModelError, match="candidate 20 is not in the trie of 20 items"):
        score_candidates(read, trie, torch.tensor([[20], [1]]))
    with pytest.raises(ModelError, match="token 99, but the model's vocabulary has 60"):
        beam_search(read, ItemTrie.build([[5], [99]]), beams=1)


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(model: T5ForConditionalGeneration) -> None:
    ids, mask = sources(4, 8)
    trie = ItemTrie.build(VARIABLE, END)
    excluded = torch.tensor([[1], [2], [-1], [3]])
    expected = beam_search(encode_sources(model, ids, mask), trie, beams=5, excluded=excluded)
    read = encode_sources(model.to("cuda"), ids.cuda(), mask.cuda())
    found = beam_search(read, trie.to("cuda"), beams=5, excluded=excluded.cuda())
    model.to("cpu")
    assert found.items.tolist() == expected.items.tolist()
    torch.testing.assert_close(found.scores.cpu(), expected.scores, atol=1e-4, rtol=0)
