"""Tune an adapter on instructions: one loop, which goes on where a killed one stopped.

The loss (see `losses`) is averaged over all answer tokens, or choices, of an optimiser step; where
a step holds several kinds of instructions, kind by kind (see `mixing`). A fit
that was killed at any point ends with the same adapter, bit for bit, as one that was not (on one
machine with the same number of threads; GPU kernels may differ in the last bits from run to run).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_bench.progress import progress
from mmrec_plugins.models.checkpoints import read_checkpoint, write_checkpoint
from mmrec_plugins.models.lm.adapters import (
    disable_checkpointing,
    enable_checkpointing,
    put_back,
    snapshot,
    trainable,
    untuned,
)
from mmrec_plugins.models.lm.encoding import R, micro_batches
from mmrec_plugins.models.lm.losses import LossFunction
from mmrec_plugins.models.lm.visual import ATTRIBUTE

log = logging.getLogger("mmrec_bench")


@dataclass(frozen=True, slots=True)
class TuningSettings:
    """How to tune; see `LanguageModelConfig` for the meaning of each.

    Attributes:
        n_steps: optimiser steps at most.
        visual_learning_rate: of the projector for pictures, where there is one.
        token_budget: padded tokens in one forward pass at most.
        checkpoint_seconds: a checkpoint is written when the last is older, and after each
            validation.
    """

    n_steps: int
    learning_rate: float
    batch_size: int
    warmup_ratio: float
    max_grad_norm: float
    weight_decay: float
    evaluate_every: int
    patience: int
    gradient_checkpointing: bool
    token_budget: int
    checkpoint_seconds: float = 15.0
    visual_learning_rate: float | None = None


@dataclass(slots=True)
class History:
    """How a fit went; all of it is part of a checkpoint.

    Attributes:
        step: optimiser steps done.
        validations: (step, mean loss since the one before, ndcg@10) each.
        best_step: step whose adapter is kept.
        best_ndcg: its validation ndcg@10; -1 before the first validation.
        n_tokens: padded tokens trained on.
        n_shortened: examples whose history was cut to fit.
        losses: of the steps since the last validation.
        observed: step of a validation -> validation loss of each kind of instruction, nats per
            answer token; step 0 is the backbone without its adapter. {} where nothing is observed.
    """

    step: int = 0
    validations: list[tuple[int, float, float]] = field(default_factory=list)
    best_step: int = 0
    best_ndcg: float = -1.0
    n_tokens: int = 0
    n_shortened: int = 0
    losses: list[float] = field(default_factory=list)
    observed: dict[int, dict[str, float]] = field(default_factory=dict)

    def waited(self) -> int:
        """Return how many validations brought nothing better."""
        return sum(step > self.best_step for step, _, _ in self.validations)


def tune(
    model: nn.Module,
    steps: Callable[[int], Iterator[list[R]]],
    settings: TuningSettings,
    *,
    loss: LossFunction[R],
    validate: Callable[[], float],
    scratch: Path,
    seed: int,
    fingerprint: str,
    observe: Callable[[], dict[str, float]] | None = None,
) -> History:
    """Tune the adapter and leave the best one, by validation ndcg@10, in the model.

    Args:
        model: a backbone with a fresh adapter, or a projector for pictures, or both; only their
            parameters change.
        steps: yields the examples of each step, from the given step on.
        settings: how.
        loss: what is minimised.
        validate: ndcg@10 of the model as it is now.
        scratch: where checkpoints are kept and looked for.
        seed: of dropout.
        fingerprint: of everything that the result depends on; other fits' checkpoints are ignored.
        observe: validation loss of each kind of instruction; decides nothing, goes into the
            history.

    Returns:
        How it went.

    Raises:
        ModelError: loss or gradients are not finite, or the GPU's memory is too small.
        StorageError: a checkpoint cannot be written.
    """
    device = next(iter(trainable(model).values())).device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _ready(model, settings):
        torch.manual_seed(seed)
        fit = _Fit(model, settings, loss, device, scratch, fingerprint)
        return fit.run(steps, validate, observe)


@contextmanager
def _ready(model: nn.Module, settings: TuningSettings) -> Iterator[None]:
    """Put the model into training; back into evaluation whatever happens."""
    if settings.gradient_checkpointing:
        enable_checkpointing(model)
    model.train()
    try:
        yield
    finally:
        model.eval()
        if settings.gradient_checkpointing:
            disable_checkpointing(model)


class _Fit(Generic[R]):
    """One fit: the loop, and what of it survives a kill."""

    def __init__(
        self,
        model: nn.Module,
        settings: TuningSettings,
        loss: LossFunction[R],
        device: torch.device,
        scratch: Path,
        fingerprint: str,
    ) -> None:
        self.model, self.settings, self.loss, self.device = model, settings, loss, device
        self.scratch, self.fingerprint = scratch, fingerprint
        self.tuned = trainable(model)
        groups: list[dict[str, Any]] = [
            {"params": self._part(visual=False), "lr": settings.learning_rate}
        ]
        if projector := self._part(visual=True):
            rate = settings.visual_learning_rate or settings.learning_rate
            groups.append({"params": projector, "lr": rate})
        groups = [group for group in groups if group["params"]]
        self.rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self.history = History()
        self.best = snapshot(model)
        self.saved_at = time.monotonic()

    def run(
        self,
        steps: Callable[[int], Iterator[list[R]]],
        validate: Callable[[], float],
        observe: Callable[[], dict[str, float]] | None,
    ) -> History:
        settings, history = self.settings, self.history
        self.resume()
        if observe is not None and not history.observed:
            with untuned(self.model):
                history.observed[0] = observe()
        source = steps(history.step)
        total = settings.n_steps
        with progress("tuning", total=total, unit="steps", done=history.step) as bar:
            while not self.finished():
                loss = self.step(next(source))
                history.losses.append(loss)
                history.step += 1
                last = history.step == settings.n_steps
                if last or history.step % settings.evaluate_every == 0:
                    self.judge(validate)
                    if observe is not None:
                        history.observed[history.step] = observe()
                    self.save()
                elif time.monotonic() - self.saved_at >= settings.checkpoint_seconds:
                    self.save()
                ndcg = {"ndcg": history.validations[-1][2]} if history.validations else {}
                bar.advance(1, loss=loss, **ndcg)
        put_back(self.model, self.best)
        return history

    def _part(self, *, visual: bool) -> list[nn.Parameter]:
        """Return the parameters of the projector for pictures, or the others."""
        mark = f"{ATTRIBUTE}."
        return [value for name, value in self.tuned.items() if (mark in name) == visual]

    def finished(self) -> bool:
        history, settings = self.history, self.settings
        return history.step >= settings.n_steps or history.waited() >= settings.patience

    def step(self, rows: Sequence[R]) -> float:
        """Do one optimiser step and return its loss, nats per answer token or choice; see `mixing`.

        Each kind's mean over its own terms counts by the kind's share of the step's examples.
        """
        settings = self.settings
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * schedule(
                self.history.step, settings.n_steps, settings.warmup_ratio
            )
        self.optimizer.zero_grad(set_to_none=True)
        batches: list[list[R]] = []
        loss = torch.zeros((), device=self.device)
        for kind in _by_kind(rows):
            share, n_terms = len(kind) / len(rows), sum(row.n_terms for row in kind)
            parts = micro_batches(
                kind, batch_size=settings.batch_size, token_budget=settings.token_budget
            )
            for batch in parts:
                loss += self.descend(batch, share, n_terms)
            batches += parts
        self.history.n_tokens += sum(len(batch) * max(map(len, batch)) for batch in batches)
        self.history.n_shortened += sum(row.shortened for row in rows)
        norm = nn.utils.clip_grad_norm_(self.tuned.values(), settings.max_grad_norm)
        value = float(loss)
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise ModelError(
                f"tuning went astray at step {self.history.step + 1}: loss {value:g}, gradient "
                f"norm {float(norm):g}; lower model.learning_rate ({settings.learning_rate:g}), or "
                "take model.dtype=float32"
            )
        self.optimizer.step()
        return value

    def descend(self, batch: list[R], share: float, n_terms: int) -> Tensor:
        """Add a batch's part of the loss to the gradients; return () the part."""
        try:
            part = self.loss(self.model, batch, self.device) * share / n_terms
            part.backward()  # type: ignore[no-untyped-call]
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(
                _out_of_memory(len(batch), max(map(len, batch)), self.settings)
            ) from error
        return part.detach()

    def judge(self, validate: Callable[[], float]) -> None:
        """Validate; keep the adapter when it is the best so far, or nothing can be measured."""
        history = self.history
        ndcg = float(validate())
        loss = sum(history.losses) / len(history.losses)
        history.losses = []
        history.validations.append((history.step, loss, ndcg))
        if not ndcg <= history.best_ndcg:  # NaN: nothing to compare by, so the latest is kept
            history.best_step, history.best_ndcg = history.step, ndcg
            self.best = snapshot(self.model)

    def save(self) -> None:
        history = self.history
        state: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "adapter": snapshot(self.model),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "rng": torch.get_rng_state(),
            "cuda_rng": self._cuda_rng(),
            "step": history.step,
            "validations": [list(row) for row in history.validations],
            "best_step": history.best_step,
            "best_ndcg": history.best_ndcg,
            "n_tokens": history.n_tokens,
            "n_shortened": history.n_shortened,
            "losses": list(history.losses),
            "observed": history.observed,
        }
        write_checkpoint(self.scratch, history.step, state)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Take over the newest whole checkpoint, where there is one."""
        state = read_checkpoint(self.scratch, self.fingerprint)
        if state is None:
            return
        put_back(self.model, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        history = self.history
        history.step = state["step"]
        history.validations = [(int(s), float(x), float(y)) for s, x, y in state["validations"]]
        history.best_step, history.best_ndcg = state["best_step"], state["best_ndcg"]
        history.n_tokens, history.n_shortened = state["n_tokens"], state["n_shortened"]
        history.losses, history.observed = state["losses"], state.get("observed", {})
        log.info("tuning goes on from step %d of %d", history.step, self.settings.n_steps)

    def _cuda_rng(self) -> Tensor | None:
        if self.device.type != "cuda":
            return None
        return torch.cuda.get_rng_state(self.device)


def _by_kind(rows: Sequence[R]) -> list[list[R]]:
    groups: dict[str, list[R]] = {}
    for row in rows:
        groups.setdefault(row.kind, []).append(row)
    return list(groups.values())


def schedule(step: int, n_steps: int, warmup_ratio: float) -> float:
    """Return the share of the peak rate at a 0-based step: linear up, then linear down to 0."""
    warmup = max(1, round(n_steps * warmup_ratio))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (n_steps - step) / max(1, n_steps - warmup + 1)


def _out_of_memory(rows: int, length: int, settings: TuningSettings) -> str:
    hints = [f"lower model.max_length (this batch is {length} tokens long)"]
    if rows > 1:
        hints.insert(0, f"lower model.batch_size ({rows} here) and raise model.accumulation")
    if not settings.gradient_checkpointing:
        hints.insert(0, "set model.gradient_checkpointing=true")
    return f"out of GPU memory while tuning on {rows} x {length} tokens: {', or '.join(hints)}"
