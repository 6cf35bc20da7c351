import math
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmrec_plugins.models.sequential.losses import (
    Pairwise,
    binary_cross_entropy,
    catalog_cross_entropy,
    pairwise,
)


def drawn(n: int = 300, n_items: int = 40, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(n, size, generator=random, requires_grad=True)
    items = torch.randn(n_items, size, generator=random, requires_grad=True)
    return rows, items, torch.randint(0, n_items, (n,), generator=random)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_cross_entropy_of_equal_scores_is_the_logarithm_of_the_catalog() -> None:
    loss = catalog_cross_entropy(torch.zeros(3, 2), torch.ones(7, 2), torch.tensor([0, 3, 6]))
    assert loss.item() == pytest.approx(math.log(7))


@pytest.mark.parametrize("with_bias", [False, True])
def test_cross_entropy_in_blocks_has_torchs_loss_and_gradients(with_bias: bool) -> None:
    rows, items, target = drawn()
    bias = torch.linspace(-2, 2, len(items), requires_grad=True) if with_bias else None
    asked = [rows, items] if bias is None else [rows, items, bias]
    scores = rows @ items.T if bias is None else rows @ items.T + bias
    expected = 3 * functional.cross_entropy(scores, target)
    wanted = torch.autograd.grad(expected, asked)
    found = 3 * catalog_cross_entropy(rows, items, target, bias)
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, asked), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_cross_entropy_stays_finite_where_scores_are_huge() -> None:
    rows, items, target = drawn()
    loss = catalog_cross_entropy(rows * 1e4, items * 1e2, target)
    expected = functional.cross_entropy((rows * 1e4) @ (items * 1e2).T, target)
    torch.testing.assert_close(loss, expected)


def test_cross_entropy_under_autocast_is_near_and_gives_float32_gradients() -> None:
    rows, items, target = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        loss = catalog_cross_entropy(rows, items, target)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(
        functional.cross_entropy(rows @ items.T, target).item(), rel=0.02
    )
    assert items.grad is not None
    assert items.grad.dtype == torch.float32


def test_one_negative_is_the_papers_binary_cross_entropy() -> None:
    rows, items = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.5], [1.0, -1.0]])
    loss = binary_cross_entropy(rows, items, torch.tensor([0]), torch.tensor([[1]]))
    expected = -math.log(sigmoid(1.5)) - math.log(1 - sigmoid(-1.0))
    assert loss.item() == pytest.approx(expected)


def test_several_negatives_are_averaged() -> None:
    rows, items, target = drawn()
    negative = torch.stack([(target + 1) % 40, (target + 5) % 40], 1)
    both = binary_cross_entropy(rows, items, target, negative)
    each = [binary_cross_entropy(rows, items, target, negative[:, i : i + 1]) for i in (0, 1)]
    assert both.item() == pytest.approx((each[0].item() + each[1].item()) / 2, rel=1e-5)


def naive(kind: str, aimed: float, others: list[float], regularisation: float) -> float:
    total = sum(math.exp(r) for r in others)
    weights = [math.exp(r) / total for r in others]
    if kind == "bpr":
        return -sum(math.log(sigmoid(aimed - r)) for r in others) / len(others)
    if kind == "top1":
        return sum(sigmoid(r - aimed) + sigmoid(r * r) for r in others) / len(others)
    if kind == "top1-max":
        return sum(
            w * (sigmoid(r - aimed) + sigmoid(r * r)) for w, r in zip(weights, others, strict=True)
        )
    won = sum(w * sigmoid(aimed - r) for w, r in zip(weights, others, strict=True))
    size = sum(w * r * r for w, r in zip(weights, others, strict=True))
    return -math.log(won) + regularisation * size


@pytest.mark.parametrize("kind", ["bpr", "top1", "bpr-max", "top1-max"])
def test_ranking_losses_follow_the_papers_formulas(kind: str) -> None:
    rows, items, target = drawn(n=6)
    negative = torch.tensor([3, 8, 8, int(target[0]), 21])
    found = pairwise(cast("Pairwise", kind), rows, items, target, negative, regularisation=0.3)
    scores = (rows @ items.T).tolist()
    losses = []
    for row, own in zip(scores, target.tolist(), strict=True):
        others = [row[j] for j in negative.tolist() if j != own]
        losses.append(naive(kind, row[own], others, 0.3))
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("kind", ["bpr", "top1", "bpr-max", "top1-max"])
def test_a_position_whose_negatives_are_all_its_target_gives_no_nan(kind: str) -> None:
    rows, items, _ = drawn(n=2)
    target = torch.tensor([4, 4])
    loss = pairwise(cast("Pairwise", kind), rows, items, target, torch.tensor([4, 4]))
    gradient = torch.autograd.grad(loss, rows)[0]
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
