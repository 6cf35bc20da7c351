"""Adam for one training loop, without what `torch.optim` brings along.

`torch.optim.Adam` imports torch's compiler when it is built, which costs more than a second of CPU:
more than some of our models take to train. The arithmetic is torch's own functional form, so that
the weights come out the same to the last bit.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """Adam with an L2 penalty inside (Kingma and Ba, ICLR 2015, algorithm 1 and its constants).

    Args:
        parameters: what is trained.
        learning_rate: alpha of the paper.
        weight_decay: this times the weight is added to each gradient.
    """

    def __init__(
        self, parameters: Iterable[Tensor], learning_rate: float, weight_decay: float = 0.0
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        # Named as torch.optim.Adam names them, so that either reads the other's checkpoints.
        self._state = [
            {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for parameter in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter that has a gradient."""
        moved, gradients, states = [], [], []
        for parameter, state in zip(self.parameters, self._state, strict=True):
            if parameter.grad is not None:
                moved.append(parameter)
                gradients.append(parameter.grad)
                states.append(state)
        if not moved:
            return
        adam(
            moved,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=_EPSILON,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the moments and numbers of steps, by the place of their parameter."""
        return {"state": dict(enumerate(self._state))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; a parameter that is not in it was never moved."""
        for place, own in enumerate(self._state):
            for name, value in state["state"].get(place, {}).items():
                own[name].copy_(value)
