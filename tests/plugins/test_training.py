import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import toy_split, toy_training_data
from mmrec_bench.types import Queries, Ragged, Scores
from mmrec_plugins.models.bpr_mf import BPRMF
from mmrec_plugins.models.lightgcn import LightGCN
from mmrec_plugins.models.neural import NeuralRecommender
from mmrec_plugins.models.training import History, TrainingConfig, snapshot, train

CONFIG = TrainingConfig(
    learning_rate=0.05, epochs=6, batch_size=8, patience=0, checkpoint_seconds=0.0
)


class KilledError(Exception):
    """Stands for the end of the process."""


class Line:
    """Learns y = 2 x_0 - x_1; dropout and the order of batches make each epoch random."""

    def __init__(self, batch_size: int = 8, *, kill_at_step: int = -1) -> None:
        draw = torch.Generator().manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 1))
        for value in self.module.parameters():
            nn.init.zeros_(value)
        self.x = torch.randn(32, 2, generator=draw)
        self.y = self.x @ torch.tensor([[2.0], [-1.0]])
        self.batch_size, self.kill_at_step = batch_size, kill_at_step
        self.steps = self.changes = 0
        self.computed_in: set[torch.dtype] = set()
        self.scale = 1.0

    def n_batches(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        order = torch.from_numpy(rng.permutation(len(self.x)))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def loss(self, batch: Tensor) -> Tensor:
        if self.steps == self.kill_at_step:
            raise KilledError
        self.steps += 1
        found = self.module(self.x[batch])
        self.computed_in.add(found.dtype)
        error: Tensor = (found.float() - self.y[batch]).square().mean()
        return self.scale * error

    def weights_changed(self) -> None:
        self.changes += 1

    def score(self, queries: Queries) -> Scores:
        return Scores(np.zeros((len(queries), 3), np.float32))


class Judge:
    """Gives the next of `values` at each validation, and is killed at the n-th one."""

    def __init__(self, values: Sequence[float] = (), *, kill_at: int = -1) -> None:
        self.values, self.kill_at, self.calls = values, kill_at, 0
        self.learner: Line | None = None
        self.seen: list[dict[str, Tensor]] = []

    def __call__(self, _score: Callable[[Queries], Scores]) -> float:
        if self.calls == self.kill_at:
            raise KilledError
        assert self.learner is not None
        assert not self.learner.module.training
        self.calls += 1
        self.seen.append(snapshot(self.learner.module))
        return self.values[self.calls - 1] if self.values else 0.1 * self.calls


def data_of(folder: Path, judge: Judge | None, *, n_validation: int = 4) -> TrainingData:
    data = toy_training_data(toy_split(), folder)
    users = np.arange(n_validation, dtype=np.int32)
    asked = Queries(users, Ragged.from_rows([[]] * n_validation))
    return replace(data, validation=asked, validate_by=judge or data.validate_by)


def fit(
    folder: Path,
    judge: Judge | None = None,
    config: TrainingConfig = CONFIG,
    *,
    learner: Line | None = None,
    fingerprint: str = "this",
    n_validation: int = 4,
) -> tuple[Line, History]:
    learner, judge = learner or Line(config.batch_size), judge or Judge()
    judge.learner = learner
    data = data_of(folder, judge, n_validation=n_validation)
    history = train(learner, config, data, seed=3, fingerprint=fingerprint, title="training")
    return learner, history


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 40})
    learner, history = fit(tmp_path, config=config)
    losses = [loss for _, loss, _ in history.validations]
    assert history.epoch == len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]
    assert not learner.module.training


@pytest.mark.parametrize("killed_in", ["validation", "step"])
@pytest.mark.parametrize("epoch", [1, 2, 3, 4, 5, 6])
def test_a_fit_that_was_killed_and_goes_on_ends_bit_for_bit_like_a_whole_one(
    epoch: int, killed_in: str, tmp_path: Path
) -> None:
    whole, history = fit(tmp_path / "whole")
    judge = Judge(kill_at=epoch - 1 if killed_in == "validation" else -1)
    steps = Line(kill_at_step=4 * (epoch - 1) + 2 if killed_in == "step" else -1)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", judge, learner=steps)

    again = Line()
    # The judge counts validations, and the resumed fit asks from the killed epoch on.
    judge = Judge([0.1 * n for n in range(epoch, 7)])
    resumed, found = fit(tmp_path / "killed", judge, learner=again)
    assert again.steps == 4 * (6 - (epoch - 1))
    assert same(whole.module, resumed.module)
    assert [v[:2] for v in found.validations] == [v[:2] for v in history.validations]
    assert found.best_epoch == history.best_epoch == 6


def test_a_fit_killed_after_a_longer_fit_of_other_settings_goes_on_all_the_same(
    tmp_path: Path,
) -> None:
    fit(tmp_path, fingerprint="before")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(KilledError):
        fit(tmp_path, learner=Line(kill_at_step=4 * 3))
    again, _ = fit(tmp_path, Judge([0.4, 0.5, 0.6]))
    assert again.steps == 4 * 3


def test_a_fit_killed_between_validations_keeps_their_mean_loss(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"evaluate_every": 3})
    _, history = fit(tmp_path / "whole", config=config)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", config=config, learner=Line(kill_at_step=4 * 5))
    _, found = fit(tmp_path / "killed", Judge([0.2]), config)
    assert found.validations == history.validations


def test_the_best_weights_outlive_a_kill(tmp_path: Path) -> None:
    judge = Judge([0.1, 0.9, 0.3, 0.2], kill_at=4)
    with pytest.raises(KilledError):
        fit(tmp_path, judge)
    resumed, history = fit(tmp_path, Judge([0.4, 0.5]))
    assert (history.best_epoch, history.best_ndcg) == (2, 0.9)
    kept = resumed.module.state_dict()
    assert all(torch.equal(kept[name], judge.seen[1][name]) for name in kept)


@pytest.mark.parametrize(
    "make",
    [
        lambda epochs: BPRMF(BPRMF.Config(epochs=epochs, batch_size=32, checkpoint_seconds=0)),
        lambda epochs: LightGCN(LightGCN.Config(epochs=epochs, checkpoint_seconds=0)),
    ],
    ids=["bpr-mf", "lightgcn"],
)
def test_real_models_go_on_bit_for_bit(
    make: Callable[[int], NeuralRecommender], tmp_path: Path
) -> None:
    data = toy_training_data(toy_split(), tmp_path / "whole")
    whole, killed, resumed = make(5), make(5), make(5)
    whole.fit(data, seed=1)
    calls = 0

    def validate_by(score: Callable[[Queries], Scores]) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KilledError
        return data.validate_by(score)

    scratch = tmp_path / "killed"
    with pytest.raises(KilledError):
        killed.fit(replace(data, scratch=scratch, validate_by=validate_by), seed=1)
    resumed.fit(replace(data, scratch=scratch), seed=1)
    assert same(whole.module, resumed.module)
    assert whole.facts() == resumed.facts()


def test_training_stops_when_validation_no_longer_gains_and_keeps_the_best(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"patience": 2, "epochs": 50})
    judge = Judge([0.3, 0.6, 0.5, 0.6, 0.9])
    learner, history = fit(tmp_path, judge, config)
    # An equal value is no gain.
    assert judge.calls == history.epoch == 4
    assert (history.best_epoch, history.best_ndcg) == (2, 0.6)
    kept = learner.module.state_dict()
    assert all(torch.equal(kept[name], judge.seen[1][name]) for name in kept)
    assert any(not torch.equal(kept[name], judge.seen[3][name]) for name in kept)


def test_a_fit_that_stopped_is_not_taken_up_again(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"patience": 2, "epochs": 50})
    whole, history = fit(tmp_path, Judge([0.3, 0.6, 0.5, 0.6]), config)
    judge = Judge(kill_at=0)
    again, found = fit(tmp_path, judge, config, learner=Line(kill_at_step=0))
    assert same(whole.module, again.module)
    assert found == history


def test_patience_0_never_stops_early(tmp_path: Path) -> None:
    judge = Judge([0.9] + [0.1] * 5)
    _, history = fit(tmp_path, judge)
    assert (history.epoch, history.best_epoch) == (6, 1)


def test_validation_comes_every_few_epochs_and_after_the_last(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"evaluate_every": 4})
    _, history = fit(tmp_path, config=config)
    assert [epoch for epoch, _, _ in history.validations] == [4, 6]
    facts = history.facts()
    assert facts["training_ndcg_0004"] == pytest.approx(0.1)
    assert facts["training_loss_0006"] == history.validations[1][1]
    assert facts["training_epochs"] == 6


def test_without_validation_cases_the_last_weights_are_kept(tmp_path: Path) -> None:
    judge = Judge(kill_at=0)
    config = CONFIG.model_copy(update={"patience": 1})
    learner, history = fit(tmp_path / "none", judge, config, n_validation=0)
    measured, _ = fit(tmp_path / "some")  # gains at each validation, so that the last is the best
    assert same(learner.module, measured.module)
    assert (history.epoch, history.best_epoch) == (6, 6)
    assert all(math.isnan(ndcg) for _, _, ndcg in history.validations)
    assert not [name for name in history.facts() if "ndcg" in name]


def test_a_loss_that_is_no_number_is_one_clear_error(tmp_path: Path) -> None:
    learner = Line()
    learner.scale = math.nan
    with pytest.raises(
        ModelError,
        match=r"astray in epoch 1: the loss is nan; lower model\.learning_rate \(0\.05\)$",
    ):
        fit(tmp_path, learner=learner)


def test_a_loss_that_overflows_in_bfloat16_is_told_of_float32(tmp_path: Path) -> None:
    learner = Line()
    learner.scale = math.inf
    config = CONFIG.model_copy(update={"dtype": "bfloat16"})
    with pytest.raises(ModelError, match=r"loss is (inf|nan).* or take model\.dtype=float32"):
        fit(tmp_path, config=config, learner=learner)


def test_a_full_gpu_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_batch: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    learner = Line()
    monkeypatch.setattr(learner, "loss", full)
    with pytest.raises(ModelError, match=r"lower model\.batch_size \(8\)"):
        fit(tmp_path, learner=learner)


def test_global_random_states_are_left_alone(tmp_path: Path) -> None:
    learner = Line()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is what is looked at
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    fit(tmp_path, learner=learner)
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_global_random_states_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, _ = fit(tmp_path / "one")
    torch.manual_seed(2)
    other, _ = fit(tmp_path / "other")
    assert same(one.module, other.module)


def test_another_seed_is_another_fit(tmp_path: Path) -> None:
    one, _ = fit(tmp_path / "one")
    other, judge = Line(), Judge()
    judge.learner = other
    train(other, CONFIG, data_of(tmp_path / "b", judge), seed=4, fingerprint="", title="training")
    assert not same(one.module, other.module)


def test_the_weight_decay_shrinks_the_weights(tmp_path: Path) -> None:
    free, _ = fit(tmp_path / "free")
    config = CONFIG.model_copy(update={"weight_decay": 10.0})
    held, _ = fit(tmp_path / "held", config=config)
    lengths = [
        torch.cat([value.flatten() for value in learner.module.parameters()]).norm()
        for learner in (held, free)
    ]
    assert lengths[0] < 0.8 * lengths[1]


def test_a_weight_with_two_names_is_kept_once() -> None:
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    other.weight = one.weight
    module = nn.ModuleDict({"one": one, "other": other})
    kept = snapshot(module)
    assert set(kept) == {"one.weight", "one.bias", "other.weight", "other.bias"}
    assert kept["one.weight"] is kept["other.weight"]
    assert kept["one.bias"] is not kept["other.bias"]
    assert kept["one.weight"].data_ptr() != one.weight.data_ptr()
    module.load_state_dict(kept)


def test_bfloat16_computes_in_half_and_keeps_whole_weights(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"dtype": "bfloat16", "epochs": 40})
    learner, history = fit(tmp_path, config=config)
    assert learner.computed_in == {torch.bfloat16}
    assert {value.dtype for value in learner.module.parameters()} == {torch.float32}
    assert history.validations[-1][1] < 0.5 * history.validations[0][1]


def test_weights_are_said_to_have_changed_before_each_validation_and_at_the_end(
    tmp_path: Path,
) -> None:
    learner, history = fit(tmp_path)
    assert learner.changes == len(history.validations) + 1


def test_a_torn_checkpoint_costs_only_the_epochs_since_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", Judge(kill_at=4))
    newest = max((tmp_path / "killed").iterdir())
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw)

    resumed, history = fit(tmp_path / "killed", Judge([0.4, 0.5, 0.6]))
    assert "torn" in caplog.text
    assert resumed.steps == 4 * 3
    assert history.epoch == 6
    assert same(whole.module, resumed.module)


def test_with_only_torn_checkpoints_the_fit_starts_anew(tmp_path: Path) -> None:
    whole, history = fit(tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", Judge(kill_at=4))
    for path in (tmp_path / "killed").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    resumed, again = fit(tmp_path / "killed")
    assert resumed.steps == 4 * 6
    assert same(whole.module, resumed.module)
    assert again == history


def test_the_checkpoint_of_another_fit_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KilledError):
        fit(tmp_path, Judge(kill_at=4), fingerprint="other")
    learner, _ = fit(tmp_path)
    assert "other settings" in caplog.text
    assert learner.steps == 4 * 6


def test_checkpoints_are_written_no_more_often_than_asked_for(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"checkpoint_seconds": 3600.0})
    fit(tmp_path / "scratch", config=config)
    assert not (tmp_path / "scratch").exists()
