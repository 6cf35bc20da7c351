"""Align a projector of pictures before the language model is tuned with it.

LLaVA (Liu et al., NeurIPS 2023) trains its projector alone first, on captions, so that tuning
starts from soft tokens that mean something. Here there are no captions but purchases: the soft
tokens of what one user took shall point the same way. With d(v) the direction of a picture's soft
token, the loss of an example is the cross-entropy of the target's picture under

    softmax over the pictures x of a batch of  t * d(x) . mean over the history's pictures j of d(j)

(sampled softmax with the items of the batch; t is learnt), which is the second term of the energy
in `visual` with the language model left out: minutes of tuning become seconds. Using purchases for
this is our own. Only train interactions are seen.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.interfaces import ExampleSource
from mmrec_bench.types import Example
from mmrec_plugins.models.lm.visual import VisualTokens

log = logging.getLogger("mmrec_bench")

_BATCH = 32
_RATE = 3e-3
_SHARPNESS = 5.0
_WARM_UP_STEPS = 20


def align(visual: VisualTokens, examples: ExampleSource, *, n_steps: int, seed: int) -> None:
    """Train a projector's soft tokens on purchases; the language model is not asked.

    Args:
        visual: an untrained projector that was shown a catalog.
        examples: draws training examples by epoch.
        n_steps: optimiser steps; 0 does nothing. Ends early, with a warning, where no example has
            pictures on both sides.
        seed: of dropout.
    """
    if not n_steps:
        return
    sharpness = nn.Parameter(visual.mean.new_tensor(_SHARPNESS))
    tuned = [*visual.encode.parameters(), *visual.embed.parameters(), sharpness]
    optimizer = torch.optim.AdamW(tuned, lr=_RATE, weight_decay=0.0)
    batches = _batches(examples, visual.known.cpu().numpy())
    device = visual.mean.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        visual.train()
        for step, batch in enumerate(islice(batches, n_steps)):
            for group in optimizer.param_groups:
                warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
                group["lr"] = _RATE * warm * (1 - step / n_steps)
            optimizer.zero_grad(set_to_none=True)
            _loss(visual, sharpness, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        visual.eval()
    with torch.no_grad():
        visual.closeness.mul_(sharpness / _SHARPNESS)


def _batches(examples: ExampleSource, known: np.ndarray) -> Iterator[list[Example]]:
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


def _loss(visual: VisualTokens, sharpness: Tensor, batch: Sequence[Example]) -> Tensor:
    """Return () the mean cross-entropy of the targets' pictures among those of the batch."""
    known = visual.known.cpu().numpy()
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
