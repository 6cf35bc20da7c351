"""Align a projector of pictures before the language model is tuned with it.

LLaVA (Liu et al., NeurIPS 2023) trains its projector alone first, on captions, so that tuning
starts from soft tokens that mean something. Here there are no captions but purchases: the soft
tokens of what one user took shall point the same way. With d(v) the direction of a picture's soft
token, the loss of an example is the cross-entropy of the target's picture under

    softmax over the pictures x of a batch of  t * d(x) . mean over the history's pictures j of d(j)

(sampled softmax with the items of the batch; t is learnt), which is the second term of the energy
in `visual` with the language model left out: minutes of tuning become seconds. Using purchases for
this is our own. Only train interactions are seen.

A projector can also learn each picture by heart, as a number of its item, and would do so even
where pictures say nothing. So a trial comes first, on a part of the pictures: where it does not
carry over to the others, pictures are not aligned.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.interfaces import ExampleSource
from mmrec_bench.types import BoolArray, Example
from mmrec_plugins.models.lm.visual import VisualTokens

log = logging.getLogger("mmrec_bench")

_BATCH = 32
_RATE = 3e-3
_SHARPNESS = 5.0
_WARM_UP_STEPS = 20
_SHARE_SET_ASIDE = 0.25
_MIN_SET_ASIDE = 10
_TRIED_EXAMPLES = 2000
_STANDARD_ERRORS = 2.0


def align(
    visual: VisualTokens, examples: ExampleSource, *, n_steps: int, seed: int
) -> float | None:
    """Train a projector's soft tokens on purchases; the language model is not asked.

    Args:
        visual: an untrained projector that was shown a catalog.
        examples: draws training examples by epoch.
        n_steps: optimiser steps; 0 does nothing. Ends early, with a warning, where no example has
            pictures on both sides.
        seed: of dropout, and of the pictures that the trial sets aside.

    Returns:
        What the trial gave (see `carry_over`); None without one: fewer than 40 pictures.
    """
    if not n_steps:
        return None
    known = visual.known.cpu().numpy()
    found: float | None = None
    if known.sum() * _SHARE_SET_ASIDE >= _MIN_SET_ASIDE:
        found, low = carry_over(visual, examples, n_steps=n_steps, seed=seed)
        if not low > 0.5:
            log.warning(
                "pictures are not aligned: what users took together foretells pictures that were "
                "set aside no better than chance (area under the curve %.3f)",
                found,
            )
            return found
    _fit(visual, examples, known, n_steps=n_steps, seed=seed)
    return found


def carry_over(
    visual: VisualTokens, examples: ExampleSource, *, n_steps: int, seed: int
) -> tuple[float, float]:
    """Align a copy on three quarters of the pictures and test it on the others.

    Returns:
        Among the pictures that were set aside, how often the target's lies nearer to the taste of
        the user than another (area under the curve, averaged by target item), and the lower end of
        its interval, two standard errors over items; 0.5 is chance.
    """
    known = visual.known.cpu().numpy()
    rng = np.random.default_rng([seed, n_steps])
    aside = np.zeros_like(known)
    pictured = np.flatnonzero(known)
    aside[rng.choice(pictured, round(len(pictured) * _SHARE_SET_ASIDE), replace=False)] = True
    tried = copy.deepcopy(visual)
    _fit(tried, examples, known & ~aside, n_steps=n_steps, seed=seed)
    items = np.flatnonzero(aside)
    with torch.no_grad():
        codes = tried.codes(torch.from_numpy(pictured).to(tried.mean.device))
        found = tried.directions(codes).mean(1).float().cpu().numpy()
    towards = np.zeros((len(known), found.shape[1]), np.float32)
    towards[pictured] = found
    areas: dict[int, list[float]] = {}
    for example in islice(examples(0), _TRIED_EXAMPLES):
        query = example.query
        history = query.history[(known & ~aside)[query.history]]
        target = -1 if query.candidates is None else int(query.candidates[example.target])
        if target < 0 or not aside[target] or not len(history):
            continue
        others = np.setdiff1d(items, [*query.history, target])
        scores = towards @ towards[history].mean(0)
        better = (scores[target] > scores[others]).mean() + (
            scores[target] == scores[others]
        ).mean() / 2
        areas.setdefault(target, []).append(float(better))
    means = np.array([np.mean(each) for each in areas.values()])
    if len(means) < 2:
        return 0.5, 0.5
    error = means.std(ddof=1) / np.sqrt(len(means))
    return float(means.mean()), float(means.mean() - _STANDARD_ERRORS * error)


def _fit(
    visual: VisualTokens, examples: ExampleSource, known: BoolArray, *, n_steps: int, seed: int
) -> None:
    """Do `n_steps` steps on examples of the items that are `known`, (N,) bool."""
    sharpness = nn.Parameter(visual.mean.new_tensor(_SHARPNESS))
    tuned = [*visual.encode.parameters(), *visual.embed.parameters(), sharpness]
    optimizer = torch.optim.AdamW(tuned, lr=_RATE, weight_decay=0.0)
    batches = _batches(examples, known)
    device = visual.mean.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        visual.train()
        for step, batch in enumerate(islice(batches, n_steps)):
            for group in optimizer.param_groups:
                warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
                group["lr"] = _RATE * warm * (1 - step / n_steps)
            optimizer.zero_grad(set_to_none=True)
            _loss(visual, sharpness, batch, known).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        visual.eval()
    with torch.no_grad():
        visual.closeness.mul_(sharpness / _SHARPNESS)


def _batches(examples: ExampleSource, known: BoolArray) -> Iterator[list[Example]]:
    """Yield examples whose target and history have pictures, epoch after epoch."""
    for epoch in count():
        batch: list[Example] = []
        n_usable = 0
        for example in examples(epoch):
            query = example.query
            if query.candidates is None or not known[query.candidates[example.target]]:
                continue
            if not known[query.history].any():
                continue
            n_usable += 1
            batch.append(example)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch
        if not n_usable:
            log.warning("no training example has pictures of history and target: not aligned")
            return


def _loss(
    visual: VisualTokens, sharpness: Tensor, batch: Sequence[Example], known: BoolArray
) -> Tensor:
    """Return () the mean cross-entropy of the targets' pictures among those of the batch."""
    histories = [each.query.history[known[each.query.history]] for each in batch]
    drawn = [each.query.candidates for each in batch if each.query.candidates is not None]
    targets = [int(row[each.target]) for row, each in zip(drawn, batch, strict=True)]
    everything = np.concatenate([*histories, *drawn])
    items = np.unique(everything[known[everything]])  # (n,)
    weights = np.zeros((len(batch), len(items)), np.float32)
    hidden = np.zeros((len(batch), len(items)), np.bool_)
    places = np.searchsorted(items, targets)
    for row, history in enumerate(histories):
        at = np.searchsorted(items, history)
        np.add.at(weights[row], at, 1 / len(history))
        hidden[row, at] = True  # what was taken already is not asked for
        hidden[row, places[row]] = False
    device = visual.mean.device
    codes = visual.codes(torch.from_numpy(items.astype(np.int64)).to(device))
    towards = visual.directions(codes).mean(1)  # (n, H)
    taste = torch.from_numpy(weights).to(device) @ towards
    logits = (sharpness * taste @ towards.T).masked_fill(torch.from_numpy(hidden).to(device), -1e9)
    return nn.functional.cross_entropy(logits, torch.from_numpy(places).to(device))
