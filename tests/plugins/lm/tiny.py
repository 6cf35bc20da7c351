"""A tiny shop, and a tiny random ChatGLM2 checkpoint in the original layout to recommend in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from transformers import GlmForCausalLM

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import (
    Catalog,
    Example,
    Interactions,
    Queries,
    Query,
    Ragged,
    Scores,
    Vocabulary,
)
from mmrec_plugins.instructions.ranking import Ranking
from mmrec_plugins.models.chatglm2.checkpoint import OriginalConfig, glm_config, save_original

COLOURS = ("red", "blue", "green", "black")
THINGS = ("mug", "lamp", "scarf", "chair", "clock")
TITLES = [f"{colour} {thing}" for thing in THINGS for colour in COLOURS]
FAVOURITE = 6
"""The item that everyone in this shop wants next."""

N_CANDIDATES = 5
N_PIECES = 340


def train_tokenizer(path: Path) -> None:
    """Train a sentencepiece model with ChatGLM2's settings on the shop's few words."""
    lines = [
        f"{n}. {title} {label}. {title}" for n, title in enumerate(TITLES) for label in "ABCDE"
    ]
    lines += ["A shopper bought these items, oldest first: (nothing yet)", "Candidates:"] * 5
    lines += ["Which candidate does the shopper buy next?", "[Round 1] 问：答："] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_prefix=str(path.with_suffix("")),
        vocab_size=N_PIECES,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        pad_id=-1,
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.with_suffix(".vocab").unlink()


def make_backbone(folder: Path) -> Path:
    """Write a random checkpoint of about 60,000 parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(folder / "tokenizer.model")
    original = OriginalConfig(
        name_or_path="tiny-chatglm2",
        padded_vocab_size=N_PIECES + 12,
        hidden_size=32,
        ffn_hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        multi_query_group_num=2,
        kv_channels=8,
        seq_length=1024,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = GlmForCausalLM(glm_config(original, 2))
        with torch.no_grad():
            for value in model.parameters():
                if value.ndim == 2:
                    value.normal_(std=0.1)
    save_original(model, original, folder)
    return folder


@dataclass
class Shop:
    """Examples in which everyone buys `FAVOURITE` next, whatever came before."""

    per_epoch: int = 32
    seed: int = 0
    longest: int = 5

    def __call__(self, epoch: int) -> Iterator[Example]:
        rng = np.random.default_rng((self.seed, epoch))
        for _ in range(self.per_epoch):
            yield self.draw(rng)

    def draw(self, rng: np.random.Generator) -> Example:
        others = [i for i in range(len(TITLES)) if i != FAVOURITE]
        drawn = rng.permutation(others).astype(np.int32)
        place = int(rng.integers(N_CANDIDATES))
        candidates = np.insert(drawn[: N_CANDIDATES - 1], place, FAVOURITE).astype(np.int32)
        length = int(rng.integers(1, self.longest + 1))
        return Example(Query(0, drawn[N_CANDIDATES:][:length], candidates), place)

    def queries(self, n: int, seed: int = 100) -> tuple[Queries, list[int]]:
        """Return n queries and where their targets are."""
        rng = np.random.default_rng(seed)
        examples = [self.draw(rng) for _ in range(n)]
        return (
            Queries(
                np.zeros(n, np.int32),
                Ragged.from_rows([e.query.history.tolist() for e in examples]),
                np.stack([e.query.candidates for e in examples if e.query.candidates is not None]),
            ),
            [e.target for e in examples],
        )


def ndcg(scores: Scores, targets: list[int]) -> float:
    """Return the mean ndcg of the first rows' targets; NaN scores rank last."""
    values = np.nan_to_num(scores.values, nan=-np.inf)
    rows = np.arange(len(values))
    target = values[rows, targets[: len(values)]]
    rank = (values > target[:, None]).sum(axis=1)
    return float((1 / np.log2(rank + 2)).mean())


def catalog() -> Catalog:
    """Return the shop's items."""
    return Catalog(Vocabulary([f"i{n}" for n in range(len(TITLES))]), TITLES)


def training_data(
    scratch: Path, shop: Shop | None = None, *, n_validation: int = 8
) -> TrainingData:
    """Return the shop as a recommender sees it."""
    shop = shop or Shop()
    queries, targets = shop.queries(n_validation)
    return TrainingData(
        interactions=Interactions.build(np.zeros(3, np.int32), np.arange(3, dtype=np.int32)),
        n_users=1,
        catalog=catalog(),
        validation=queries,
        validate=lambda scores: ndcg(scores, targets),
        validate_by=lambda score: ndcg(score(queries), targets),
        examples=shop,
        n_examples=shop.per_epoch,
        builder=Ranking(Ranking.Config()),
        users=Vocabulary(["u0"]),
        device="cpu",
        scratch=scratch,
    )


class KilledError(Exception):
    """Stands for a kill: nothing catches it."""


def killing(data: TrainingData, at_validation: int) -> TrainingData:
    """Return data whose n-th validation (from 1) is never answered."""
    calls = iter(range(1, 1_000_000))
    validate: Callable[[Scores], float] = data.validate

    def maybe(scores: Scores) -> float:
        if next(calls) == at_validation:
            raise KilledError
        return validate(scores)

    return replace(data, validate=maybe)
