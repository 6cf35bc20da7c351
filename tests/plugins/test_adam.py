"""Adam without torch.optim: the same weights, to the bit."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmrec_plugins.models.adam import Adam


def torch_adam(parameters: list[Tensor]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1, fused=True)


def our_adam(parameters: list[Tensor]) -> Adam:
    return Adam(parameters, learning_rate=0.01, weight_decay=0.1)


def trained(
    make: Callable[[list[Tensor]], Any], n_steps: int, change: Callable[[Any], Any] | None = None
) -> list[Tensor]:
    """Train three weights, one of which has a gradient at each other step only."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 4), (4,))]
    seldom = nn.Parameter(torch.ones(3))
    parameters: list[Tensor] = [*weights, seldom]
    x = torch.randn(16, 5, generator=generator)
    optimizer = make(parameters)
    for step in range(n_steps):
        optimizer.zero_grad()
        loss = (x @ weights[0] + weights[1]).square().mean()
        if step % 2:
            loss = loss + seldom.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if change is not None and step == n_steps // 2:
            state = optimizer.state_dict()
            optimizer = change(parameters)
            optimizer.load_state_dict(state)
    return [parameter.detach() for parameter in parameters]


def test_weights_are_those_of_torch_to_the_bit() -> None:
    ours, theirs = trained(our_adam, 21), trained(torch_adam, 21)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_one_step_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = Adam([weight], learning_rate=0.5)
    (3 * weight).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    # Both moments are corrected to g and g^2, so that the first step is alpha * g / |g|.
    assert weight.item() == pytest.approx(2.0 - 0.5)


def test_a_state_taken_over_goes_on_as_if_nothing_had_happened() -> None:
    whole, broken = trained(our_adam, 20), trained(our_adam, 20, our_adam)
    assert all(torch.equal(a, b) for a, b in zip(whole, broken, strict=True))


def test_a_checkpoint_of_torch_is_taken_over() -> None:
    optimizer = torch_adam([nn.Parameter(torch.ones(2))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    ours = our_adam([torch.ones(2)])
    ours.load_state_dict(optimizer.state_dict())
    assert ours.state_dict()["state"][0]["step"].item() == 1


def test_training_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from mmrec_plugins.models.adam import Adam\n"
        "w = torch.nn.Parameter(torch.ones(2)); a = Adam([w], 0.1); w.sum().backward(); a.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
