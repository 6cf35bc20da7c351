"""Training of the torch models that are not language models: one loop for all.

Each epoch draws from its own stream of the seed, so that a fit that was killed goes on from its
last checkpoint and ends with the same weights, bit for bit (on one machine with the same number of
threads; GPU kernels may differ in the last bits from run to run).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import ComponentConfig, operational, searched
from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.progress import progress
from mmrec_bench.types import Queries, Scores
from mmrec_plugins.models.adam import Adam
from mmrec_plugins.models.checkpoints import read_checkpoint, write_checkpoint

log = logging.getLogger("mmrec_bench")

B = TypeVar("B")


class TrainingConfig(ComponentConfig):
    """How a torch model is trained; a model's Config derives from it and sets its own defaults."""

    learning_rate: float = searched(
        1e-3, low=1e-4, high=3e-2, log=True, gt=0, description="of Adam"
    )
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on all weights, inside Adam")
    epochs: int = Field(200, ge=1, description="at most so many passes over the train data")
    batch_size: int = Field(1024, ge=1, description="examples a step")
    evaluate_every: int = Field(1, ge=1, description="epochs between two validations")
    patience: int = Field(
        10, ge=0, description="validations without a gain in ndcg@10 before it stops; 0 = never"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16 trains under autocast; weights stay float32"
    )
    checkpoint_seconds: float = operational(
        30.0, ge=0, description="a killed fit loses about so much, and at most an epoch more"
    )


class Learner(Protocol[B]):
    """What the loop asks of a model."""

    module: nn.Module

    def n_batches(self) -> int:
        """Return the steps of one epoch."""
        ...

    def batches(self, rng: np.random.Generator) -> Iterator[B]:
        """Yield one epoch's batches; all draws come from `rng`."""
        ...

    def loss(self, batch: B) -> Tensor:
        """Return the () mean loss of a batch, with its gradient graph."""
        ...

    def weights_changed(self) -> None:
        """Forget what was computed from the weights; called before scores are asked for."""
        ...

    def score(self, queries: Queries) -> Scores:
        """Score validation queries with the weights as they are."""
        ...


@dataclass
class History:
    """How a fit went.

    Attributes:
        epoch: epochs done.
        validations: (epoch, mean loss since the validation before, ndcg@10); NaN = no cases.
        best_epoch: whose weights are kept.
        best_ndcg: their ndcg@10 on validation.
        losses: mean losses of the epochs since the last validation.
    """

    epoch: int = 0
    validations: list[tuple[int, float, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_ndcg: float = -math.inf
    losses: list[float] = field(default_factory=list)

    def waited(self) -> int:
        """Return the validations since the best one."""
        return sum(epoch > self.best_epoch for epoch, _, _ in self.validations)

    def facts(self) -> dict[str, str | int | float]:
        """Return flat values for the record; {} where no fit is known, as after restoring."""
        if not self.epoch:
            return {}
        facts: dict[str, str | int | float] = {
            "training_epochs": self.epoch,
            "training_best_epoch": self.best_epoch,
        }
        for epoch, loss, ndcg in self.validations:
            facts[f"training_loss_{epoch:04d}"] = loss
            if not math.isnan(ndcg):
                facts[f"training_ndcg_{epoch:04d}"] = ndcg
        return facts


def train(
    learner: Learner[B],
    config: TrainingConfig,
    data: TrainingData,
    *,
    seed: int,
    fingerprint: str,
    title: str,
) -> History:
    """Train until validation no longer gains, and leave the best weights in the module.

    Args:
        learner: the model; its module is on its device.
        config: the settings.
        data: whose validation decides, and whose scratch folder holds checkpoints.
        seed: of batches, negatives and dropout.
        fingerprint: names what the fit depends on; other fits' checkpoints are passed over.
        title: for the progress line, e.g. "training sasrec".

    Raises:
        ModelError: the loss is no longer finite, or the device's memory is full.
    """
    module = learner.module
    state = _State(module, config, data.scratch, fingerprint)
    history = state.resume()
    n_batches = learner.n_batches()
    done, all_steps = history.epoch * n_batches, config.epochs * n_batches
    with progress(title, total=all_steps, unit="steps", done=done) as bar:
        while history.epoch < config.epochs and not _given_up(history, config):
            epoch = history.epoch + 1
            total = torch.zeros((), device=state.device)
            module.train()
            with seeded(seed, epoch, device=state.device):
                for batch in learner.batches(np.random.default_rng([seed, epoch])):
                    total += state.step(learner, batch)
                    bar.advance(1)
            history.losses.append(_finite(float(total) / n_batches, epoch, config))
            history.epoch = epoch
            if epoch % config.evaluate_every == 0 or epoch == config.epochs:
                _validate(learner, data, history, state)
                bar.advance(0, loss=history.validations[-1][1], ndcg=history.validations[-1][2])
            state.save_now_and_then(history)
    module.load_state_dict(state.best)
    module.eval()
    learner.weights_changed()
    return history


@contextmanager
def seeded(*seed: int, device: torch.device) -> Iterator[None]:
    """Let torch draw from a stream of its own inside; its global state is as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        drawn = int(np.random.default_rng(seed).integers(2**63))
        torch.default_generator.manual_seed(drawn)
        if devices:  # torch.manual_seed would seed all of them, and put none back
            with torch.cuda.device(device):
                torch.cuda.manual_seed(drawn)
        yield


class _State:
    """Weights, optimiser and checkpoints of one fit."""

    def __init__(
        self, module: nn.Module, config: TrainingConfig, scratch: Path, fingerprint: str
    ) -> None:
        self.module, self.config = module, config
        self.scratch, self.fingerprint = scratch, fingerprint
        tuned = [value for value in module.parameters() if value.requires_grad]
        self.device = tuned[0].device
        self.optimizer = Adam(tuned, config.learning_rate, config.weight_decay)
        self.best = snapshot(module)
        self.saved_at = time.monotonic()

    def step(self, learner: Learner[B], batch: B) -> Tensor:
        """Do one optimiser step; return () its loss."""
        self.optimizer.zero_grad()
        half = self.config.dtype == "bfloat16"
        try:
            with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
                loss = learner.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(
                f"out of GPU memory in training: lower model.batch_size ({self.config.batch_size})"
            ) from error
        return loss.detach()

    def save_now_and_then(self, history: History) -> None:
        if time.monotonic() - self.saved_at < self.config.checkpoint_seconds:
            return
        state: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "module": self.module.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "epoch": history.epoch,
            "validations": [list(row) for row in history.validations],
            "best_epoch": history.best_epoch,
            "best_ndcg": history.best_ndcg,
            "losses": list(history.losses),
        }
        write_checkpoint(self.scratch, history.epoch, state)
        self.saved_at = time.monotonic()

    def resume(self) -> History:
        """Take over the newest whole checkpoint, where there is one."""
        state = read_checkpoint(self.scratch, self.fingerprint)
        if state is None:
            return History()
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = _each_once(state["best"], lambda value: value.to(self.device))
        rows = [
            (int(epoch), float(loss), float(ndcg)) for epoch, loss, ndcg in state["validations"]
        ]
        log.info("training goes on after epoch %d", state["epoch"])
        return History(
            state["epoch"], rows, state["best_epoch"], state["best_ndcg"], state["losses"]
        )


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the module's weights; those that have several names are copied once."""
    return _each_once(module.state_dict(), lambda value: value.detach().clone())


def _each_once(
    state: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the changed tensors; names of one tensor stay names of one tensor."""
    made: dict[tuple[object, ...], Tensor] = {}
    found = {}
    for name, value in state.items():
        place = value.data_ptr(), value.dtype, value.shape, value.stride()
        if place not in made:
            made[place] = change(value)
        found[name] = made[place]
    return found


def _validate(learner: Learner[Any], data: TrainingData, history: History, state: _State) -> None:
    """Measure; keep the weights that are the best so far, or the last where nothing is measured."""
    learner.module.eval()
    learner.weights_changed()
    ndcg = float(data.validate_by(learner.score)) if len(data.validation) else math.nan
    loss = sum(history.losses) / len(history.losses)
    history.losses = []
    history.validations.append((history.epoch, loss, ndcg))
    if not ndcg <= history.best_ndcg:
        history.best_epoch, history.best_ndcg = history.epoch, ndcg
        state.best = snapshot(learner.module)


def _given_up(history: History, config: TrainingConfig) -> bool:
    return config.patience > 0 and history.waited() >= config.patience


def _finite(loss: float, epoch: int, config: TrainingConfig) -> float:
    if not math.isfinite(loss):
        raise ModelError(
            f"training went astray in epoch {epoch}: the loss is {loss:g}; lower "
            f"model.learning_rate ({config.learning_rate:g})"
            + (" or take model.dtype=float32" if config.dtype != "float32" else "")
        )
    return loss
