"""Linear layers in the layout that oneDNN computes fastest on a CPU.

The matrix products are nearly all of a beam search's time on a CPU, and torch lays the weights out
anew in each of them. Within `packed_linears` that is done once. The kernel is the one that
`torch.compile` puts into frozen graphs; it is no part of torch's documented interface, so a torch
that lacks it, another device and another dtype leave the layers as they are: the same values but
for rounding, in more time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeGuard, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5DenseActDense

Linear = Callable[[Tensor], Tensor]

_ROWS = 512  # the layout is chosen for a number of rows; any number can be multiplied
_HEAD_BLOCK = 2048  # words whose logits for some hundred rows stay in a core's cache
_HEADS: "WeakKeyDictionary[nn.Linear, list[Linear]]" = WeakKeyDictionary()


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """Hold a second copy of every linear layer's weight, laid out for oneDNN, and use it.

    The weights must not change within. Gradients are not taken through these layers: this is for
    scoring. A feed-forward layer's ReLU is taken within its first product. The copies are as large
    as the model's linear layers and are given back at the end.

    Args:
        model: a T5, or a module that holds one; the `nn.Linear` layers in float32 on the CPU are
            packed.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and _can_pack(m)]
    owners = (m for m in model.modules() if isinstance(m, T5ForConditionalGeneration))
    heads = {id(owner.lm_head) for owner in owners}
    between = [m for m in model.modules() if _is_relu_layer(m) and _can_pack(m.wi)]
    firsts = {id(dense.wi) for dense in between}
    try:
        for layer in layers:
            if id(layer) in firsts:
                continue
            if id(layer) in heads:
                _HEADS[layer] = [_pack(*rows) for rows in _head_rows(layer)]
            else:
                # An attribute of the instance stands before the class's method.
                object.__setattr__(layer, "forward", _pack(layer.weight, layer.bias))
        for dense in between:
            object.__setattr__(dense, "forward", _feed_forward(dense))
        yield
    finally:
        for layer in layers:
            _HEADS.pop(layer, [])
        for module in (*layers, *between):
            vars(module).pop("forward", None)


def head_blocks(head: nn.Linear) -> list[Linear]:
    """Return the head as layers of some words each, packed where `packed_linears` holds it."""
    return _HEADS.get(head) or [partial(F.linear, weight=w, bias=b) for w, b in _head_rows(head)]


def _head_rows(head: nn.Linear) -> list[tuple[Tensor, Tensor | None]]:
    blocks = [slice(n, n + _HEAD_BLOCK) for n in range(0, len(head.weight), _HEAD_BLOCK)]
    return [(head.weight[i], None if head.bias is None else head.bias[i]) for i in blocks]


def _can_pack(module: nn.Linear) -> bool:
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and "forward" not in vars(module)
    )


def _pack(weight: Tensor, bias: Tensor | None, then: str = "none") -> Linear:
    operations = torch.ops.mkldnn
    laid_out = operations._reorder_linear_weight(weight.detach(), _ROWS)

    def forward(states: Tensor) -> Tensor:
        return cast("Tensor", operations._linear_pointwise(states, laid_out, bias, then, [], ""))

    return forward


def _is_relu_layer(module: nn.Module) -> TypeGuard[T5DenseActDense]:
    return (
        type(module) is T5DenseActDense
        and type(module.wi) is nn.Linear
        and isinstance(module.act, nn.ReLU)
        and not any(part._forward_hooks for part in module.children())
        and "forward" not in vars(module)
    )


def _feed_forward(dense: T5DenseActDense) -> Linear:
    """Return the layer with its ReLU within the first product; dropout is off when scoring."""
    first = _pack(dense.wi.weight, dense.wi.bias, "relu")
    return lambda states: cast("Tensor", dense.wo(first(states)))
