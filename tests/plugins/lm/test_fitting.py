from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrec_bench.errors import ConfigError
from mmrec_plugins.instructions.corpus import CorpusEntry
from mmrec_plugins.models.lm import adapters
from mmrec_plugins.models.lm.corpora import messages_of
from mmrec_plugins.models.lm.losses import answer_loss
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.recommender import LanguageModelRecommender
from tests.plugins.lm.entries import ANSWERS, entries, entry, shop_data, user_turn, write
from tests.plugins.lm.tiny import KilledError, Shop, killing, ndcg

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "max_length": 400,
    "pre_seq_len": 8,
    "prefix_dropout": 0.2,
    "learning_rate": 0.1,
    "batch_size": 4,
    "accumulation": 2,
    "max_steps": 6,
    "evaluate_every": 2,
    "validation_cases": 8,
}


def make(backbone: Path, corpus: Path | None, **options: object) -> LanguageModelRecommender:
    given = {} if corpus is None else {"corpus": corpus}
    return LanguageModelRecommender(
        LanguageModelConfig.model_validate({"backbone": str(backbone), **QUICK, **given, **options})
    )


def fitted(
    backbone: Path,
    folder: Path,
    rows: list[CorpusEntry] | None = None,
    **options: object,
) -> LanguageModelRecommender:
    folder.mkdir(parents=True, exist_ok=True)
    model = make(backbone, write(folder, rows), **options)
    model.fit(shop_data(folder / "scratch"), seed=3)
    return model


def same(one: LanguageModelRecommender, other: LanguageModelRecommender) -> bool:
    first, second = adapters.snapshot(one._ready()), adapters.snapshot(other._ready())
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"adapter": "lora", "pre_seq_len": None, "learning_rate": 0.02}, marks=pytest.mark.slow
        ),
        pytest.param({"objective": "ranking", "normalise": "lift"}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_mix_ends_bit_for_bit_as_one_that_was_not(
    options: dict[str, Any], tiny_backbone: Path, tmp_path: Path
) -> None:
    whole = fitted(tiny_backbone, tmp_path / "whole", **options)
    corpus = write(tmp_path)
    for at in (2, 1):  # the second attempt goes on from the first one's checkpoint
        with pytest.raises(KilledError):
            make(tiny_backbone, corpus, **options).fit(
                killing(shop_data(tmp_path / "killed"), at), seed=3
            )
    resumed = make(tiny_backbone, corpus, **options)
    resumed.fit(shop_data(tmp_path / "killed"), seed=3)
    assert same(whole, resumed)
    assert resumed.facts() == whole.facts()


def test_the_files_order_and_names_do_not_change_the_adapter(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    one = fitted(tiny_backbone, tmp_path / "1")
    other = fitted(tiny_backbone, tmp_path / "2", entries()[::-1])
    assert same(one, other)


def test_another_seed_or_another_mix_is_another_adapter(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    one = fitted(tiny_backbone, tmp_path / "1")
    mixed = fitted(tiny_backbone, tmp_path / "2", mix={"ranking": 0.2, "profile": 0.8})
    assert not same(one, mixed)
    other = make(tiny_backbone, write(tmp_path))
    other.fit(shop_data(tmp_path / "scratch"), seed=4)
    assert not same(one, other)


@pytest.mark.parametrize("objective", ["answer", pytest.param("ranking", marks=pytest.mark.slow)])
def test_every_kind_is_learnt_beside_the_ranking(
    objective: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    model = fitted(
        tiny_backbone,
        tmp_path,
        mix={"ranking": 0.5} | {str(kind): 0.125 for kind in ANSWERS},
        adapter="lora",
        pre_seq_len=None,
        learning_rate=0.02,
        max_steps=60,
        evaluate_every=30,
        objective=objective,
    )
    losses = model._history.observed
    for kind in ANSWERS:
        assert losses[0][kind] > losses[30][kind] > losses[60][kind]
    facts = model.facts()
    assert facts["validation_loss_profile"] == losses[int(facts["tuning_best_step"])]["profile"]
    unseen, targets = Shop(seed=5).queries(20, seed=55)
    assert ndcg(model.score(unseen), targets) > 0.9


def test_a_kind_that_is_not_mixed_in_is_not_learnt_from(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    facts = fitted(tiny_backbone, tmp_path, mix={"ranking": 1, "profile": 1}).facts()
    assert not any(kind in name for kind in ("attributes", "few-shot") for name in facts)
    assert facts["tuning_examples_ranking"] == facts["tuning_examples_profile"] == 6 * 8 // 2


def test_facts_count_what_was_there_and_what_was_drawn(tiny_backbone: Path, tmp_path: Path) -> None:
    rows = [*entries(), entry("profile", 1, user="u9"), entry("profile", 1, answer="mug " * 400)]
    facts = fitted(tiny_backbone, tmp_path, rows, validation_cases=8).facts()
    assert facts["corpus_left_out_leaks"] == 1
    assert facts["corpus_left_out_too_long"] == 1
    assert facts["corpus_entries_profile"] == 12
    assert facts["validation_entries_few-shot"] == 2  # 8 cases, shared by four kinds
    drawn = {kind: facts[f"tuning_examples_{kind}"] for kind in ("ranking", *ANSWERS)}
    assert sum(map(int, drawn.values())) == 6 * 8
    assert abs(int(drawn["ranking"]) - 0.8 * 48) <= 3


def test_the_untuned_loss_is_the_backbones_and_the_loss_the_kept_adapters(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    rows = entries(("profile",))
    model = fitted(tiny_backbone, tmp_path, rows)
    facts = model.facts()
    chosen = sorted((row for row in rows if row.split == "validation"), key=lambda row: row.id)
    encoder = model._encoder
    tokens = [
        encoder.written(
            messages_of(row.turns, encoder.catalog, pictures=False), row.answer, row.kind
        )
        for row in chosen[:8]
    ]
    n_terms = sum(row.n_terms for row in tokens)

    def loss() -> float:
        with torch.no_grad():
            total = sum(
                float(answer_loss(model._ready(), [row], torch.device("cpu"), pad_id=0))
                for row in tokens
            )
        return total / n_terms

    assert facts["validation_loss_profile"] == pytest.approx(loss(), rel=1e-4)
    with model._ready().disable_adapter():
        assert facts["validation_loss_profile_untuned"] == pytest.approx(loss(), rel=1e-4)


def test_a_mix_of_ranking_alone_draws_nothing_else(tiny_backbone: Path, tmp_path: Path) -> None:
    model = fitted(tiny_backbone, tmp_path, mix={"ranking": 1}, max_steps=12)
    facts = model.facts()
    assert facts["tuning_examples_ranking"] == 12 * 8
    assert not any(name.startswith("validation_loss") for name in facts)


def test_a_kind_whose_entries_are_all_too_long_is_an_error(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    rows = [
        row.model_copy(update={"turns": (user_turn("mug " * 500 + str(at)),)})
        for at, row in enumerate(entries(("profile",)))
    ]
    with pytest.raises(ConfigError, match=r"none of the 12 profile entries.*max_length 400"):
        fitted(tiny_backbone, tmp_path, rows)


def test_a_corpus_without_validation_entries_says_so(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row for row in entries() if row.split == "train"]
    facts = fitted(tiny_backbone, tmp_path, rows, max_steps=2).facts()
    assert "no validation entries of profile, attributes, zero-shot, few-shot" in caplog.text
    assert not any(name.startswith("validation_loss") for name in facts)


@pytest.mark.parametrize(
    ("mix", "steps"),
    [
        ({"ranking": 1.0, "profile": 1.0}, 8),  # 32 examples, 4 of them in a step of 8
        ({"profile": 1.0, "few-shot": 1.0}, 3),  # 24 entries in steps of 8
    ],
)
def test_an_epoch_is_a_pass_of_the_ranking_examples_or_else_of_the_entries(
    mix: dict[str, float], steps: int, tiny_backbone: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"mix": mix, "max_steps": None, "epochs": 1, "evaluate_every": 100}
    assert fitted(tiny_backbone, tmp_path, **options).facts()["tuning_steps"] == steps


def test_a_mix_is_saved_and_restored(tiny_backbone: Path, tmp_path: Path) -> None:
    model = fitted(tiny_backbone, tmp_path)
    model.save(tmp_path / "model")
    again = make(tiny_backbone, tmp_path / "corpus.jsonl")
    again.restore(tmp_path / "model", shop_data(tmp_path / "scratch"))
    queries, _ = Shop(longest=9).queries(6)
    assert np.array_equal(again.score(queries).values, model.score(queries).values)
