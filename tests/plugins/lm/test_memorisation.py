import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmrec_bench.config import identity
from mmrec_bench.interfaces import ProbesMemory
from mmrec_bench.types import Catalog, Vocabulary
from mmrec_plugins.models.lm import memorisation
from mmrec_plugins.models.lm.backbones import load_backbone
from mmrec_plugins.models.lm.memorisation import (
    N_CHOICES,
    Question,
    answer,
    exchanged,
    in_file_order,
    kinds,
    probe,
    questions,
)
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.recommender import LanguageModelRecommender
from tests.plugins.lm.tiny import training_data

pytestmark = pytest.mark.usefixtures("one_thread")

N_TITLES = 40
_PIECE = re.compile(r"\n|::|[^\s:]+")


class Words:
    """A tokenizer whose tokens are words; it knows the texts that it was made from."""

    prefix_ids = ()
    eos_id = 0
    stop_ids = (0,)
    pad_id = 0

    def __init__(self, texts: Sequence[str]) -> None:
        words = dict.fromkeys(piece for text in texts for piece in _PIECE.findall(text))
        self._ids = {word: i for i, word in enumerate(words, start=1)}
        self._words = ["", *words]
        self.vocab_size = len(self._words)

    def encode(self, text: str) -> list[int]:
        return [self._ids[piece] for piece in _PIECE.findall(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._words[i] for i in ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.encode(messages[-1]["content"])

    def chat_around(
        self, messages: Sequence[Mapping[str, str]], gap: str | None
    ) -> list[list[int]]:
        assert gap is None
        return [self.chat(messages)]

    def chat_prompt(self, text: str) -> list[int]:
        return self.encode(text)


def film_catalog(n: int = N_TITLES) -> Catalog:
    """Titles of four words that begin alike, numbered in an order that is not the strings'."""
    rng = np.random.default_rng(5)
    names = [f"{a}{b}" for a in ("Ba", "Do", "Ki", "Lu", "Mo", "Sa") for b in ("na", "ri", "tel")]
    titles = [
        f"The {names[i % 18]} {names[rng.integers(18)]} of {names[rng.integers(18)]}"
        f" {names[i // 18]} ({1990 + i % 7})"
        for i in range(n)
    ]
    order = rng.permutation(n).tolist()
    return Catalog(Vocabulary([str(i + 1) for i in order]), [titles[i] for i in order])


def file_texts(lines: Sequence[tuple[str, str]]) -> list[str]:
    """What a model that has read the file and its titles has read."""
    texts = [title for _, title in lines]
    texts += [f"{a[1]}\n{b[1]}" for a, b in pairwise(lines)]
    numbered = [f"{name}::{title}" for name, title in lines]
    rng = np.random.default_rng(7)
    for line in numbered * 2:  # whatever stands before it
        before = [numbered[i] for i in rng.permutation(len(lines))[:3].tolist()]
        texts.append("\n".join([*before, line]))
    return texts


def tiny(vocab_size: int) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=128,
                pad_token_id=0,
                bos_token_id=0,
                eos_token_id=0,
            )
        ).eval()


def drill(
    model: LlamaForCausalLM, tokenizer: Words, texts: Sequence[str], steps: int = 150
) -> None:
    rows = [[0, *tokenizer.encode(text)] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    labels = torch.tensor([[*row, *[-100] * (longest - len(row))] for row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.0)
    for _ in range(steps):
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return film_catalog()


@pytest.fixture(scope="module")
def tokenizer(catalog: Catalog) -> Words:
    return Words(file_texts(in_file_order(catalog)))


@pytest.mark.slow
def test_a_model_that_learned_the_file_by_heart_is_found_out(
    catalog: Catalog, tokenizer: Words
) -> None:
    model = tiny(tokenizer.vocab_size)
    drill(model, tokenizer, file_texts(in_file_order(catalog)), steps=100)
    facts = probe(model, tokenizer, catalog, n_items=30, seed=0)
    for kind in ("title", "neighbour", "id"):
        assert facts[f"memory_{kind}_n"] == 30
        assert facts[f"memory_{kind}_chance"] == 1 / 20
        assert facts[f"memory_{kind}_gain_low"] > 0.25
        assert facts[f"memory_{kind}_mrr"] > facts[f"memory_{kind}_mrr_control"] + 0.25
    assert facts["memory_title_accuracy"] > 0.9
    assert facts["memory_title_exact"] > 0.9
    assert facts["memory_title_exact_control"] < 0.1


def test_a_model_that_never_read_it_is_at_chance(catalog: Catalog, tokenizer: Words) -> None:
    facts = probe(tiny(tokenizer.vocab_size), tokenizer, catalog, n_items=40, seed=0)
    for kind in ("title", "neighbour", "id"):
        assert facts[f"memory_{kind}_accuracy"] <= 0.2
        assert facts[f"memory_{kind}_exact"] == 0
        assert facts[f"memory_{kind}_gain_low"] <= 0 <= facts[f"memory_{kind}_gain_high"]


def test_ten_learned_titles_among_forty_are_told_from_the_others(
    catalog: Catalog, tokenizer: Words
) -> None:
    lines = in_file_order(catalog)
    model = tiny(tokenizer.vocab_size)
    drill(model, tokenizer, [title for _, title in lines[:10]])
    kind = kinds(lines)["title"]
    control = exchanged(lines, np.random.default_rng(0))

    def accuracy(asked: range) -> float:
        some = replace(kind, asked=asked)
        real, _ = questions(some, lines, control, 40, np.random.default_rng(1))
        return float(answer(model, tokenizer, real).first.mean())

    assert accuracy(range(10)) == 1.0
    assert accuracy(range(10, 40)) < 0.35


def test_lines_are_in_the_order_of_the_data_sets_own_ids() -> None:
    numbers = Catalog(Vocabulary(["10", "9", "2", "1"]), ["ten", "nine", "", "  one  x "])
    assert in_file_order(numbers) == [("1", "one x"), ("9", "nine"), ("10", "ten")]
    strings = Catalog(Vocabulary(["B2", "B10", "9"]), ["two", "ten", "nine"])
    assert [name for name, _ in in_file_order(strings)] == ["9", "B10", "B2"]


def test_the_exchange_moves_words_and_keeps_form_years_and_vocabulary() -> None:
    lines = [("1", "Godfather, The (1972)"), ("2", "Toy Story (1995)"), ("3", "2001"),
             ("4", "Four Rooms of (Marvin's) Desire"), ("5", "a lower case title")]  # fmt: skip
    swapped = exchanged(lines, np.random.default_rng(1))
    assert swapped != lines
    assert [name for name, _ in swapped] == [name for name, _ in lines]
    form = [re.sub(r"[A-Z][\w']*", "X", title.replace("The", "the")) for _, title in lines]
    assert [
        re.sub(r"[A-Z][\w']*", "X", title.replace("The", "the")) for _, title in swapped
    ] == form
    assert sorted(re.findall(r"[\w']+", " ".join(t for _, t in swapped))) == sorted(
        re.findall(r"[\w']+", " ".join(t for _, t in lines))
    )
    assert swapped[2] == lines[2]


def test_every_question_has_twenty_different_endings_of_one_length_and_a_twin(
    catalog: Catalog,
) -> None:
    lines = in_file_order(catalog)
    control = exchanged(lines, np.random.default_rng(0))
    for kind in kinds(lines).values():
        real, twins = questions(kind, lines, control, 25, np.random.default_rng(1))
        assert len(real) == len(twins) == 25
        for one in (*real, *twins):
            assert len(set(one.endings)) == N_CHOICES
            assert len({len(ending.split()) for ending in one.endings}) == 1
            assert one.endings[0] not in one.text
        assert all(a != b for a, b in zip(real, twins, strict=True))


def test_the_true_ending_is_what_the_file_says(catalog: Catalog) -> None:
    lines = in_file_order(catalog)
    control = exchanged(lines, np.random.default_rng(0))
    by_title = {title: i for i, (_, title) in enumerate(lines)}
    made = {
        name: questions(kind, lines, control, 10, np.random.default_rng(1))[0]
        for name, kind in kinds(lines).items()
    }
    for one in made["title"]:
        assert one.text + one.endings[0] in by_title
    for one in made["neighbour"]:
        assert by_title[one.endings[0]] == by_title[one.text.removesuffix("\n")] + 1
    for one in made["id"]:
        *shown, asked = one.text.split("\n")
        assert len(shown) == 3
        assert f"{by_title[one.endings[0]] + 1}::" == asked
        assert not {line.partition("::")[2] for line in shown} & set(one.endings)


def test_the_seed_decides_all_of_it(catalog: Catalog, tokenizer: Words) -> None:
    model = tiny(tokenizer.vocab_size)
    first, again, other = (
        probe(model, tokenizer, catalog, n_items=10, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_what_cannot_be_asked_is_counted_as_none_and_not_as_zero_accuracy(
    tokenizer: Words,
) -> None:
    few = Catalog(Vocabulary(["a", "b"]), ["The Bana", "The Dori"])
    facts = probe(tiny(tokenizer.vocab_size), tokenizer, few, n_items=5, seed=0)
    assert facts == {"memory_title_n": 0, "memory_neighbour_n": 0, "memory_id_n": 0}


def test_endings_that_the_model_cannot_tell_apart_share_their_rank(tokenizer: Words) -> None:
    model = tiny(tokenizer.vocab_size)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    asked = Question("The Bana", tuple(f" {word}" for word in ("Dori", "Kitel", "Luna", "Mori")))
    answered = answer(model, tokenizer, [asked])
    assert answered.first.tolist() == [1 / 4]
    assert answered.reciprocal_rank.tolist() == [1 / 2.5]


@pytest.mark.parametrize("adapter", ["prefix", "lora", "none"])
def test_a_tuned_recommender_is_probed_without_its_adapter(
    adapter: str, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorisation, "N_CHOICES", 4)  # the shop has twenty titles
    data = training_data(tmp_path)
    options = {"max_length": 400, "max_steps": 2, "batch_size": 4, "accumulation": 1}
    tuning = {} if adapter == "none" else {**options, "learning_rate": 0.1}
    model = LanguageModelRecommender(
        LanguageModelConfig.model_validate(
            {"backbone": str(tiny_backbone), "adapter": adapter, "probe_items": 6, **tuning}
        )
    )
    assert isinstance(model, ProbesMemory)
    model.fit(data, seed=0)
    titles = [title.title() for title in data.catalog.title]
    shop = replace(data.catalog, title=titles)
    bare = load_backbone(str(tiny_backbone), device="cpu", dtype="float32", attention="sdpa")
    expected = probe(bare.model.eval(), bare.tokenizer, shop, n_items=6, seed=3)
    assert expected["memory_title_n"] == 6
    assert model.probe_memory(shop, seed=3) == pytest.approx(expected)


def test_the_number_of_questions_is_no_part_of_a_runs_identity() -> None:
    first, second = (LanguageModelConfig.model_validate({"probe_items": n}) for n in (5, 500))
    assert identity(first) == identity(second)
