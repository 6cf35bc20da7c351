"""Losses over the positions of histories.

Letters: n positions, N items, S negatives of a batch, D size of a vector.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Pairwise = Literal["bpr", "top1", "bpr-max", "top1-max"]

_ROWS = 128
"""Positions whose scores of the whole catalog are held at once: they stay in the cache."""


def catalog_cross_entropy(
    rows: Tensor, items: Tensor, target: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Return the () mean of -log softmax(rows @ items.T + bias)[target].

    The (n, N) scores are never held: each block of positions gives its part of the loss and, at
    once, of the gradients, so that no score is computed twice.

    Args:
        rows: (n, D), n >= 1.
        items: (N, D).
        target: (n,) int64.
        bias: (N,), or None.
    """
    loss: Tensor = _CatalogCrossEntropy.apply(rows, items, target, bias)  # type: ignore[no-untyped-call]
    return loss


class _CatalogCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own, untyped
        rows: Tensor,
        items: Tensor,
        target: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        device = rows.device.type
        half = torch.is_autocast_enabled(device)
        low = torch.get_autocast_dtype(device) if half else rows.dtype
        with torch.autocast(device, enabled=False):
            rows, items = rows.to(low), items.to(low)
            total = torch.zeros((), device=rows.device)
            d_rows = torch.empty(rows.shape, device=rows.device)
            d_items = torch.zeros(items.shape, device=rows.device)
            d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            for start in range(0, len(rows), _ROWS):
                block, wanted = rows[start : start + _ROWS], target[start : start + _ROWS, None]
                scores = block @ items.T  # (b, N)
                scores = scores if bias is None else scores.add_(bias.to(low))
                aimed, top = scores.gather(1, wanted), scores.amax(1, keepdim=True)
                share = torch.softmax(scores, 1)
                # The largest share is 1 / sum(exp(score - top)).
                largest = share.amax(1, keepdim=True).float()
                total += (top.float() - largest.log() - aimed.float()).sum()
                share.scatter_add_(1, wanted, -torch.ones_like(aimed))
                if d_bias is not None:
                    d_bias += share.sum(0)
                d_rows[start : start + _ROWS] = share @ items
                d_items += share.T @ block
        ctx.save_for_backward(d_rows, d_items, d_bias)
        ctx.n = len(rows)
        return total / len(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        d_rows, d_items, d_bias = ctx.saved_tensors
        scale = grad / ctx.n
        return d_rows * scale, d_items * scale, None, None if d_bias is None else d_bias * scale


def binary_cross_entropy(rows: Tensor, items: Tensor, target: Tensor, negative: Tensor) -> Tensor:
    """Return the () mean of -log s(r . target) - mean of log(1 - s(r . negative)).

    Kang & McAuley, ICDM 2018, section III.E, with one negative a position; s is the sigmoid.

    Args:
        rows: (n, D).
        items: (N, D).
        target: (n,) int64.
        negative: (n, m) int64, m drawn items for each position.
    """
    aimed = (rows * functional.embedding(target, items)).sum(1)
    others = torch.einsum("nd,nmd->nm", rows, functional.embedding(negative, items))
    losses = functional.softplus(-aimed) + functional.softplus(others).mean(1)
    return losses.mean()


def pairwise(
    kind: Pairwise,
    rows: Tensor,
    items: Tensor,
    target: Tensor,
    negative: Tensor,
    *,
    regularisation: float = 0.0,
) -> Tensor:
    """Return GRU4Rec's ranking losses, the () mean over positions.

    With r_t the target's score and r_j those of the negatives, s the sigmoid:

    - "bpr": mean_j of -log s(r_t - r_j); "top1": mean_j of s(r_j - r_t) + s(r_j^2) (Hidasi et al.,
      ICLR 2016, section 3.2.2).
    - "bpr-max": -log sum_j w_j s(r_t - r_j) + regularisation * sum_j w_j r_j^2; "top1-max": sum_j
      w_j (s(r_j - r_t) + s(r_j^2)); w = softmax of the r_j (Hidasi & Karatzoglou, CIKM 2018,
      equations 4 to 8).

    Args:
        kind: which one.
        rows: (n, D).
        items: (N, D).
        target: (n,) int64.
        negative: (S,) int64, shared by all positions; where one is a position's own target it
            does not count there.
        regularisation: of "bpr-max".
    """
    aimed = (rows * functional.embedding(target, items)).sum(1, keepdim=True)  # (n, 1)
    others = rows @ functional.embedding(negative, items).T  # (n, S)
    own = negative == target[:, None]
    if kind in {"bpr-max", "top1-max"}:
        # A position all of whose negatives are its target has weights of 0, not NaN.
        weights = torch.softmax(others.masked_fill(own, -1e9), 1).masked_fill(own, 0.0)
    else:
        weights = (~own).float() / (~own).sum(1, keepdim=True).clamp(min=1)
    if kind == "bpr":
        losses = (weights * functional.softplus(others - aimed)).sum(1)
    elif kind == "bpr-max":
        won = (weights * torch.sigmoid(aimed - others)).sum(1)
        size = (weights * others.square()).sum(1)
        losses = -torch.log(won + 1e-24) + regularisation * size
    else:
        terms = torch.sigmoid(others - aimed) + torch.sigmoid(others.square())
        losses = (weights * terms).sum(1)
    return losses.mean()
