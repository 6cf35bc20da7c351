import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmrec_bench.config import build_config
from mmrec_bench.errors import ConfigError, ModelError
from mmrec_bench.interfaces import Recommender, ReportsParameters, ResolvesOptions
from mmrec_bench.types import Queries, Ragged, Scores
from mmrec_plugins.models.lm import answering
from mmrec_plugins.models.lm import recommender as module
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.recommender import LanguageModelRecommender
from tests.plugins.lm.tiny import (
    FAVOURITE,
    KilledError,
    Shop,
    killing,
    ndcg,
    training_data,
)

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "max_length": 400,
    "pre_seq_len": 8,
    "learning_rate": 0.1,
    "batch_size": 8,
    "accumulation": 1,
    "max_steps": 6,
    "evaluate_every": 2,
    "validation_cases": 8,
}


def make(backbone: Path, **options: object) -> LanguageModelRecommender:
    return LanguageModelRecommender(
        LanguageModelConfig.model_validate({"backbone": str(backbone), **QUICK, **options})
    )


def fitted(backbone: Path, scratch: Path, **options: object) -> LanguageModelRecommender:
    model = make(backbone, **options)
    model.fit(training_data(scratch), seed=3)
    return model


@pytest.fixture
def queries() -> Queries:
    return Shop(longest=9).queries(6)[0]


def test_it_is_a_recommender(tiny_backbone: Path) -> None:
    model = make(tiny_backbone)
    assert isinstance(model, Recommender)
    assert isinstance(model, ReportsParameters)
    assert issubclass(LanguageModelRecommender, ResolvesOptions)


@pytest.mark.parametrize(
    ("adapter", "rate", "objective"),
    [
        ("prefix", 0.1, "answer"),
        pytest.param("lora", 0.02, "answer", marks=pytest.mark.slow),
        pytest.param("lora", 0.02, "ranking", marks=pytest.mark.slow),
    ],
)
def test_tuning_learns_what_everyone_buys(
    adapter: str, rate: float, objective: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    options = {"adapter": adapter, "learning_rate": rate, "objective": objective}
    model = fitted(tiny_backbone, tmp_path, evaluate_every=30, max_steps=120, **options)
    unseen, targets = Shop(seed=5).queries(20, seed=55)
    scores = model.score(unseen)
    assert ndcg(scores, targets) == 1.0
    assert scores.values.shape == (20, 5)
    assert scores.values.dtype == np.float32
    facts = model.facts()
    assert facts["tuning_loss_00120"] < facts["tuning_loss_00030"]  # type: ignore[operator]


def test_a_killed_fit_gives_the_same_adapter_facts_and_scores(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    whole = fitted(tiny_backbone, tmp_path / "whole")
    data = training_data(tmp_path / "killed")
    for at in (2, 1):
        with pytest.raises(KilledError):
            make(tiny_backbone).fit(killing(data, at), seed=3)
    resumed = make(tiny_backbone)
    resumed.fit(data, seed=3)
    assert resumed.facts() == whole.facts()
    assert np.array_equal(resumed.score(queries).values, whole.score(queries).values)


def test_another_seed_does_not_go_on_from_the_checkpoint(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    data = training_data(tmp_path)
    with pytest.raises(KilledError):
        make(tiny_backbone).fit(killing(data, 2), seed=3)
    mixed, clean = make(tiny_backbone), make(tiny_backbone)
    mixed.fit(data, seed=4)
    clean.fit(training_data(tmp_path / "clean"), seed=4)
    assert mixed.facts() == clean.facts()


@pytest.mark.parametrize("adapter", ["prefix", "lora", "none"])
def test_a_restored_recommender_scores_the_same(
    adapter: str, tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    model = fitted(tiny_backbone, tmp_path / "scratch", adapter=adapter)
    model.save(tmp_path / "model")
    again = make(tiny_backbone, adapter=adapter)
    again.restore(tmp_path / "model", training_data(tmp_path / "scratch"))
    assert np.array_equal(again.score(queries).values, model.score(queries).values)
    suffixes = {path.suffix for path in (tmp_path / "model").iterdir()}
    assert suffixes == ({".json"} if adapter == "none" else {".json", ".safetensors"})
    size = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    assert size < 100_000


def test_a_model_saved_under_other_options_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    fitted(tiny_backbone, tmp_path / "scratch").save(tmp_path / "model")
    other = make(tiny_backbone, pre_seq_len=9)
    with pytest.raises(ModelError, match=r"model\.pre_seq_len=8, but 9 is asked for"):
        other.restore(tmp_path / "model", training_data(tmp_path / "scratch"))


def test_a_broken_saved_model_is_one_clear_error(tiny_backbone: Path, tmp_path: Path) -> None:
    (tmp_path / module.SETTINGS_FILE).write_text('{"config": {"backb', encoding="utf-8")
    with pytest.raises(ModelError, match="is not a saved language model"):
        make(tiny_backbone).restore(tmp_path, training_data(tmp_path))


@pytest.mark.parametrize("answer", ["likelihood", "letter"])
@pytest.mark.parametrize("adapter", ["prefix", "none"])
def test_scores_do_not_depend_on_neighbours(
    adapter: str, answer: str, tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    model = fitted(tiny_backbone, tmp_path, adapter=adapter, answer=answer)
    together = model.score(queries).values
    alone = np.concatenate([model.score(queries[i : i + 1]).values for i in range(len(queries))])
    assert np.allclose(together, alone, atol=1e-4)
    assert np.allclose(model.score(queries[::-1]).values[::-1], together, atol=1e-4)


def test_a_mean_likelihood_is_the_sum_over_the_length(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    sums = fitted(tiny_backbone, tmp_path, adapter="none")
    means = fitted(tiny_backbone, tmp_path, adapter="none", normalise="mean")
    encoder = sums._encoder
    lengths = [
        [len(ids) for ids in encoder.answers(encoder.encode(query).instruction)]
        for query in queries
    ]
    expected = sums.score(queries).values / np.array(lengths, np.float32)
    assert np.allclose(means.score(queries).values, expected, atol=1e-5)


def test_a_lift_is_the_likelihood_less_that_without_history(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    sums = fitted(tiny_backbone, tmp_path, adapter="none", normalise="sum")
    lifts = fitted(tiny_backbone, tmp_path, adapter="none", normalise="lift")
    blank = replace(queries, history=Ragged.from_rows([[]] * len(queries)))
    expected = sums.score(queries).values - sums.score(blank).values
    assert np.allclose(lifts.score(queries).values, expected, atol=1e-5)
    assert np.allclose(lifts.score(blank).values, 0, atol=1e-5)


def test_a_ranking_fit_resumes_and_restores_exactly(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    options = {"objective": "ranking", "normalise": "lift", "max_steps": 4}
    whole = fitted(tiny_backbone, tmp_path / "whole", **options)
    data = training_data(tmp_path / "killed")
    with pytest.raises(KilledError):
        make(tiny_backbone, **options).fit(killing(data, 2), seed=3)
    resumed = make(tiny_backbone, **options)
    resumed.fit(data, seed=3)
    assert resumed.facts() == whole.facts()
    resumed.save(tmp_path / "model")
    again = make(tiny_backbone, **options)
    again.restore(tmp_path / "model", data)
    assert np.array_equal(again.score(queries).values, whole.score(queries).values)


def test_likelihoods_are_those_of_the_naive_way(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    model = fitted(tiny_backbone, tmp_path)
    query = queries[0]
    encoded = model._encoder.encode(query)
    expected = []
    for ids in model._encoder.answers(encoded.instruction):
        tokens = torch.tensor([[*encoded.prompt_ids, *ids]])
        with torch.no_grad():
            logits = model._ready()(input_ids=tokens).logits[0, -len(ids) - 1 : -1]
        chosen = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
        expected.append(float(chosen.sum()))
    assert np.allclose(model.score(queries[:1]).values[0], expected, atol=1e-4)


def test_zero_shot_tunes_nothing(tiny_backbone: Path, tmp_path: Path) -> None:
    model = fitted(tiny_backbone, tmp_path, adapter="none")
    facts = model.facts()
    assert facts["n_tuned_parameters"] == 0
    assert not any(name.startswith("tuning") for name in facts)
    assert not list(tmp_path.iterdir())


def test_facts_name_backbone_sizes_and_the_validation_curve(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    facts = fitted(tiny_backbone, tmp_path).facts()
    assert facts["n_tuned_parameters"] == 8 * 2 * 2 * 2 * 8
    assert facts["adapter"] == "prefix"
    assert {"tuning_ndcg_00002", "tuning_ndcg_00004", "tuning_ndcg_00006"} <= set(facts)
    assert all(isinstance(value, (str, int, float)) for value in facts.values())
    json.dumps(facts)


def test_the_whole_catalog_is_refused_with_advice(tiny_backbone: Path, tmp_path: Path) -> None:
    data = training_data(tmp_path)
    whole = replace(data, validation=replace(data.validation, candidates=None))
    with pytest.raises(ModelError, match=r"protocol\.candidates=uniform"):
        make(tiny_backbone).fit(whole, seed=0)


@pytest.mark.parametrize(
    ("text", "place", "outcome", "hallucinated"),
    [
        ("{favourite}", 0, "ok", 0),
        ("{other}\n{favourite}", 1, "ok", 0),
        ("I would say:\n{favourite}", 0, "repaired", 0),
        ("1. {outsider}\n2. {favourite}", 0, "repaired", 1),
        ("{outsider}", None, "invalid", 1),
        ("golden teapot", None, "invalid", 1),
        ("", None, "refused", 0),
        ("Sorry, I cannot help with that.", None, "refused", 0),
        ("\ufffd\x00 ((((", None, "invalid", 1),
    ],
)
def test_a_written_answer_is_read_by_the_builder(
    text: str,
    place: int | None,
    outcome: str,
    hallucinated: int,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = training_data(tmp_path)
    queries, targets = Shop().queries(1)
    model = fitted(tiny_backbone, tmp_path, adapter="none", answer="generate")
    candidates = queries[0].candidates
    assert candidates is not None
    other = next(i for i in candidates.tolist() if i != FAVOURITE)
    outsider = next(i for i in range(len(data.catalog)) if i not in candidates)
    titles = data.catalog.title
    written = text.format(
        favourite=titles[FAVOURITE], other=titles[other], outsider=titles[outsider]
    )
    monkeypatch.setattr(answering, "generate", lambda *_args, **_options: [[7, 8, 9]])
    monkeypatch.setattr(model._backbone.tokenizer, "decode", lambda _ids: written, raising=False)
    scores = model.score(queries)
    answers = scores.answers
    assert answers is not None
    assert answers.text == (written.strip(),)
    assert answers.outcome == (outcome,)
    assert answers.hallucinated.tolist() == [hallucinated]
    assert answers.answer_tokens.tolist() == [3]
    value = float(scores.values[0, targets[0]])
    assert np.isnan(value) if place is None else value == -place


def test_generation_runs_on_random_weights(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    model = fitted(tiny_backbone, tmp_path, answer="generate", max_new_tokens=6, max_steps=2)
    scores = model.score(queries)
    assert scores.values.shape == (6, 5)
    assert scores.answers is not None
    assert (scores.answers.answer_tokens <= 6).all()
    assert (scores.answers.prompt_tokens > 50).all()


def test_an_original_prefix_is_imported_and_tuned_on(
    tiny_backbone: Path, tmp_path: Path, queries: Queries
) -> None:
    prefix = torch.randn(5, 2 * 2 * 2 * 8, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "prefix.safetensors"
    save_file({"transformer.prefix_encoder.embedding.weight": prefix}, path)
    options = {"import_prefix": path, "pre_seq_len": None}
    kept = fitted(tiny_backbone, tmp_path / "0", max_steps=0, **options)
    assert kept.facts()["n_tuned_parameters"] == prefix.numel()
    tuned = fitted(tiny_backbone, tmp_path / "1", **options)
    assert tuned.facts()["tuning_steps"] == 6
    assert not np.allclose(kept.score(queries).values, tuned.score(queries).values)
    tuned.save(tmp_path / "model")
    path.unlink()
    again = make(tiny_backbone, **options)
    again.restore(tmp_path / "model", training_data(tmp_path / "1"))
    assert np.array_equal(again.score(queries).values, tuned.score(queries).values)


def test_resolving_fills_what_has_a_meaning_and_nothing_else(tiny_backbone: Path) -> None:
    config = LanguageModelConfig(backbone=str(tiny_backbone))
    prefix, _ = LanguageModelRecommender.resolve(config, device="cpu")
    assert (prefix.dtype, prefix.attention) == ("float32", "sdpa")
    assert prefix.lora_r is None
    assert prefix.learning_rate is not None
    lora, _ = LanguageModelRecommender.resolve(
        config.model_copy(update={"adapter": "lora"}), device="cpu"
    )
    assert lora.pre_seq_len is None
    assert lora.lora_r is not None
    plain, _ = LanguageModelRecommender.resolve(
        config.model_copy(update={"adapter": "none"}), device="cpu"
    )
    assert plain.learning_rate is None
    assert plain.batch_size is None
    assert plain.max_length is not None


def test_resolving_twice_changes_nothing(tiny_backbone: Path) -> None:
    once, _ = LanguageModelRecommender.resolve(
        LanguageModelConfig(backbone=str(tiny_backbone)), device="cpu"
    )
    twice, notices = LanguageModelRecommender.resolve(once, device="cpu")
    assert twice == once
    assert notices == []


def test_what_the_user_sets_is_kept(tiny_backbone: Path) -> None:
    config = LanguageModelConfig(backbone=str(tiny_backbone), learning_rate=0.3, epochs=2)
    filled, _ = LanguageModelRecommender.resolve(config, device="cpu")
    assert filled.learning_rate == 0.3
    assert filled.epochs == 2
    assert filled.max_steps is None


def test_an_imported_prefix_goes_with_no_other_adapter(tiny_backbone: Path) -> None:
    config = LanguageModelConfig(
        backbone=str(tiny_backbone), adapter="lora", import_prefix=Path("prefix.bin")
    )
    with pytest.raises(ModelError, match=r"goes with model\.adapter=prefix"):
        LanguageModelRecommender.resolve(config, device="cpu")


def test_options_are_strict() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        build_config(LanguageModelConfig, {"learning_rat": 1}, "model")


def test_no_validation_cases_are_survived(tiny_backbone: Path, tmp_path: Path) -> None:
    data = training_data(tmp_path)
    none = replace(data, validation=data.validation[:0])
    model = make(tiny_backbone)
    model.fit(none, seed=0)
    assert model.facts()["tuning_best_step"] == 6


def test_empty_queries_give_empty_scores(tiny_backbone: Path, tmp_path: Path) -> None:
    model = fitted(tiny_backbone, tmp_path, adapter="none")
    scores = model.score(Shop().queries(1)[0][:0])
    assert isinstance(scores, Scores)
    assert scores.values.shape == (0, 5)
