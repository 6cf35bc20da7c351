import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn

from mmrec_bench.errors import ModelError
from mmrec_plugins.instructions.ranking import Ranking
from mmrec_plugins.models.chatglm2.checkpoint import load_original
from mmrec_plugins.models.chatglm2.tokenizer import ChatGLMTokenizer
from mmrec_plugins.models.lm import adapters
from mmrec_plugins.models.lm.encoding import PromptEncoder, Tokens, training_steps
from mmrec_plugins.models.lm.losses import answer_loss
from mmrec_plugins.models.lm.tuning import History, TuningSettings, schedule, tune
from tests.plugins.lm.tiny import KilledError, Shop, catalog

pytestmark = pytest.mark.usefixtures("one_thread")

LOSS = partial(answer_loss, pad_id=0)
SETTINGS = TuningSettings(
    n_steps=12,
    learning_rate=0.05,
    batch_size=2,
    warmup_ratio=0.1,
    max_grad_norm=1.0,
    weight_decay=0.01,
    evaluate_every=4,
    patience=9,
    gradient_checkpointing=False,
    token_budget=4096,
    checkpoint_seconds=0.0,
)


def make_model(folder: Path, kind: str = "prefix") -> PeftModel:
    model = load_original(folder)
    if kind == "lora":
        return adapters.attach_lora(model, rank=4, alpha=16, dropout=0.2, seed=1)
    return adapters.attach_prefix(model, length=6, dropout=0.2, seed=1)


def steps_of(folder: Path) -> Callable[[int], Iterator[list[Tokens]]]:
    encoder = PromptEncoder(
        ChatGLMTokenizer.from_folder(folder),
        Ranking(Ranking.Config()),
        catalog(),
        max_length=400,
        answer="likelihood",
        max_new_tokens=8,
    )
    return lambda skip: training_steps(
        Shop(per_epoch=20), encoder.example, step_size=4, limit=None, seed=7, skip=skip
    )


class Validator:
    """Answers validations with given numbers, or with one that the adapter decides."""

    def __init__(self, model: PeftModel, values: list[float] | None = None) -> None:
        self.model, self.values, self.calls = model, values, 0
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self) -> float:
        self.seen.append(adapters.snapshot(self.model))
        self.calls += 1
        if self.values is not None:
            return self.values[self.calls - 1]
        return math.sin(sum(float(value.double().sum()) for value in self.seen[-1].values()))


def fit(
    folder: Path,
    scratch: Path,
    *,
    settings: TuningSettings = SETTINGS,
    kind: str = "prefix",
    values: list[float] | None = None,
    stop_at: int | None = None,
    seed: int = 7,
    observe: Callable[[], dict[str, float]] | None = None,
    fingerprint: str = "a fit",
) -> tuple[PeftModel, History, Validator]:
    """Tune once; with `stop_at`, die when that step's examples are asked for."""
    model = make_model(folder, kind)
    validator = Validator(model, values)
    source = steps_of(folder)

    def dying(skip: int) -> Iterator[list[Tokens]]:
        for number, rows in enumerate(source(skip), start=skip):
            if number == stop_at:
                raise KilledError
            yield rows

    history = tune(
        model,
        dying,
        settings,
        loss=LOSS,
        validate=validator,
        scratch=scratch,
        seed=seed,
        fingerprint=fingerprint,
        observe=observe,
    )
    return model, history, validator


def same(one: PeftModel, other: PeftModel) -> bool:
    first, second = adapters.snapshot(one), adapters.snapshot(other)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_the_loss_falls_and_the_backbone_stays_as_it_was(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, n_steps=40, evaluate_every=10)
    model, history, _ = fit(tiny_backbone, tmp_path, settings=settings)
    losses = [loss for _, loss, _ in history.validations]
    assert losses == sorted(losses, reverse=True)
    fresh = load_original(tiny_backbone).state_dict()
    tuned = model.get_base_model().state_dict()
    assert all(torch.equal(fresh[name], tuned[name]) for name in fresh)


@pytest.mark.parametrize("kind", ["prefix", "lora"])
@pytest.mark.parametrize("stops", [(1,), (4,), (5,), (11,), (3, 4, 9, 10)])
def test_a_killed_fit_ends_bit_for_bit_as_one_that_was_not(
    kind: str, stops: tuple[int, ...], tiny_backbone: Path, tmp_path: Path
) -> None:
    whole, history, _ = fit(tiny_backbone, tmp_path / "whole", kind=kind)
    for stop in stops:
        with pytest.raises(KilledError):
            fit(tiny_backbone, tmp_path / "killed", kind=kind, stop_at=stop)
    resumed, again, _ = fit(tiny_backbone, tmp_path / "killed", kind=kind)
    assert same(whole, resumed)
    assert again == history


def test_a_fit_killed_after_a_longer_one_of_other_settings_goes_on_all_the_same(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    fit(tiny_backbone, tmp_path, fingerprint="before")
    settings = replace(SETTINGS, n_steps=8)
    with pytest.raises(KilledError):
        fit(tiny_backbone, tmp_path, settings=settings, stop_at=5)
    _, history, validator = fit(tiny_backbone, tmp_path, settings=settings)
    assert history.step == 8
    assert validator.calls == 1  # the one after step 4 was not asked for again


def test_a_finished_fit_is_not_done_again(tiny_backbone: Path, tmp_path: Path) -> None:
    whole, history, _ = fit(tiny_backbone, tmp_path)
    again, found, validator = fit(tiny_backbone, tmp_path, stop_at=SETTINGS.n_steps)
    assert same(whole, again)
    assert found == history
    assert not validator.calls


def test_a_torn_checkpoint_is_noticed_and_the_one_before_is_used(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, history, _ = fit(tiny_backbone, tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(tiny_backbone, tmp_path / "killed", stop_at=6)
    newest = max((tmp_path / "killed").iterdir())
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)
    resumed, again, _ = fit(tiny_backbone, tmp_path / "killed")
    assert "torn" in caplog.text
    assert same(whole, resumed)
    assert again == history


@pytest.mark.parametrize("size", [0, 10, 500])
def test_with_only_torn_checkpoints_the_fit_starts_anew(
    size: int, tiny_backbone: Path, tmp_path: Path
) -> None:
    whole, history, _ = fit(tiny_backbone, tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(tiny_backbone, tmp_path / "killed", stop_at=6)
    for path in (tmp_path / "killed").iterdir():
        path.write_bytes(path.read_bytes()[:size])
    resumed, again, _ = fit(tiny_backbone, tmp_path / "killed")
    assert same(whole, resumed)
    assert again == history


def test_the_best_adapter_on_validation_is_kept(tiny_backbone: Path, tmp_path: Path) -> None:
    model, history, validator = fit(tiny_backbone, tmp_path, values=[0.2, 0.5, 0.4])
    assert (history.best_step, history.best_ndcg) == (8, 0.5)
    kept = adapters.snapshot(model)
    assert all(torch.equal(kept[name], validator.seen[1][name]) for name in kept)


def test_tuning_stops_when_validation_no_longer_improves(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, n_steps=40, patience=2)
    _, history, validator = fit(
        tiny_backbone, tmp_path, settings=settings, values=[0.3, 0.6, 0.5, 0.6]
    )
    assert validator.calls == 4
    assert history.step == 16
    assert history.best_step == 8


def test_without_validation_the_last_adapter_is_kept(tiny_backbone: Path, tmp_path: Path) -> None:
    model, history, validator = fit(tiny_backbone, tmp_path, values=[float("nan")] * 3)
    assert history.step == history.best_step == 12
    kept = adapters.snapshot(model)
    assert all(torch.equal(kept[name], validator.seen[2][name]) for name in kept)


def test_seeds_decide_the_result(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, n_steps=3)
    one, _, _ = fit(tiny_backbone, tmp_path / "1", settings=settings, seed=1)
    two, _, _ = fit(tiny_backbone, tmp_path / "2", settings=settings, seed=1)
    other, _, _ = fit(tiny_backbone, tmp_path / "3", settings=settings, seed=2)
    assert same(one, two)
    assert not same(one, other)


def test_the_global_random_state_is_left_alone(tiny_backbone: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    model, _, _ = fit(tiny_backbone, tmp_path, settings=replace(SETTINGS, n_steps=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_micro_batches_do_not_change_the_step(tiny_backbone: Path, tmp_path: Path) -> None:
    losses = []
    for size in (1, 4):
        settings = replace(SETTINGS, n_steps=3, batch_size=size, evaluate_every=1)
        model = make_model(tiny_backbone)
        model.prompt_encoder["default"]._forward_hooks.clear()  # no dropout
        history = tune(
            model,
            steps_of(tiny_backbone),
            settings,
            loss=LOSS,
            validate=lambda: 0.5,
            scratch=tmp_path / str(size),
            seed=0,
            fingerprint="f",
        )
        losses.append([loss for _, loss, _ in history.validations])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_kinds_are_averaged_alone_so_that_long_answers_do_not_drown_short_ones(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    model = make_model(tiny_backbone)
    weight = next(iter(adapters.trainable(model).values()))
    per_term = {"profile": 2.0, "ranking": 4.0}

    def loss(model: nn.Module, rows: Sequence[Tokens], device: torch.device) -> torch.Tensor:  # noqa: ARG001
        return 0 * weight.sum() + sum(per_term[row.kind] * row.n_terms for row in rows)

    rows = [Tokens([3] * 120, n, kind="profile") for n in (100, 90, 10)]
    rows.append(Tokens([3, 4, 5], 1, kind="ranking"))
    history = tune(
        model,
        lambda _skip: iter([rows]),
        replace(SETTINGS, n_steps=1, evaluate_every=1),
        loss=loss,
        validate=lambda: 0.5,
        scratch=tmp_path,
        seed=0,
        fingerprint="f",
    )
    # three of four examples are profiles: 3/4 * 2 + 1/4 * 4, whatever the tokens
    [(_, value, _)] = history.validations
    assert value == pytest.approx(2.5)


def test_what_is_observed_decides_nothing_and_survives_a_kill(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    plain, history, _ = fit(tiny_backbone, tmp_path / "plain")
    asked: list[bool] = []

    def observe() -> dict[str, float]:
        asked.append(True)
        return {"profile": float(len(asked))}

    with pytest.raises(KilledError):
        fit(tiny_backbone, tmp_path / "seen", stop_at=6, observe=observe)
    seen, again, _ = fit(tiny_backbone, tmp_path / "seen", observe=observe)
    assert same(plain, seen)
    assert again.validations == history.validations
    assert again.observed == {step: {"profile": 1.0 + step / 4} for step in (0, 4, 8, 12)}


def test_gradient_checkpointing_leaves_the_model_as_it_was(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    plain = fit(tiny_backbone, tmp_path / "1", settings=replace(SETTINGS, n_steps=4))
    less = fit(
        tiny_backbone,
        tmp_path / "2",
        settings=replace(SETTINGS, n_steps=4, gradient_checkpointing=True),
    )
    assert plain[1].validations[0][1] == pytest.approx(less[1].validations[0][1], rel=1e-4)
    assert "get_prompt" not in vars(less[0])


def test_a_loss_that_is_not_finite_is_a_clear_error(tiny_backbone: Path, tmp_path: Path) -> None:
    model = make_model(tiny_backbone)
    with torch.no_grad():
        next(iter(adapters.trainable(model).values())).fill_(float("inf"))
    with pytest.raises(ModelError, match=r"astray at step 1: loss nan.*lower model\.learning_rate"):
        tune(
            model,
            steps_of(tiny_backbone),
            SETTINGS,
            loss=LOSS,
            validate=lambda: 0.0,
            scratch=tmp_path,
            seed=0,
            fingerprint="f",
        )


def test_too_little_gpu_memory_says_what_to_lower(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_args: object, **_options: object) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(sys.modules[__name__], "LOSS", exhausted)
    with pytest.raises(ModelError, match=r"gradient_checkpointing=true.*lower model\.batch_size"):
        fit(tiny_backbone, tmp_path)


def test_the_rate_rises_and_falls_linearly() -> None:
    rates = [schedule(step, 10, 0.2) for step in range(10)]
    # two steps of warm-up, then 9 equal steps down from the peak to nothing
    assert rates == pytest.approx([1 / 3, 2 / 3, *[(10 - step) / 9 for step in range(2, 10)]])
    assert schedule(0, 1, 0.0) > 0
