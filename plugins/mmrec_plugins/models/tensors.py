"""Reading tensors back, with one line when they are not those that were expected."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmrec_bench.errors import ModelError


def read_tensors(path: Path, expected: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Read a safetensors file that holds tensors of the same names and shapes as `expected`.

    Raises:
        ModelError: missing, torn, or of another shape; says `what` it should have been.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as {what}: {error}") from error
    if _shapes_of(state) != _shapes_of(expected):
        raise ModelError(
            f"{path} holds {shapes(state)}, but {what} asked for here would hold {shapes(expected)}"
        )
    return state


def shapes(state: Mapping[str, Tensor]) -> str:
    """Return names and shapes of tensors in a line, the first few of them."""
    shown = [f"{name} {tuple(value.shape)}" for name, value in sorted(state.items())]
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "")


def _shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
