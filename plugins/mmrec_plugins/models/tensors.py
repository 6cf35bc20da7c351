"""Tensors: rows with a repeatable gradient, and reading them back or saying why not in one line."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

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
    held, wanted = _shapes_of(state), _shapes_of(expected)
    if held != wanted:
        differ = {name for name in {**held, **wanted} if held.get(name) != wanted.get(name)}
        there, here = (
            shapes({name: all_of[name] for name in differ & set(all_of)}) or "no such tensor"
            for all_of in (state, expected)
        )
        raise ModelError(f"{path} holds {there}, but {what} asked for here would hold {here}")
    return state


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """(n, ...) table and (...) int64 index -> the rows, as `table[index]`.

    Where a row is taken twice, threads add up the gradient of `table[index]` in any order, and two
    fits differ in the last bits; an embedding's gradient has one order.
    """
    flat = nn.functional.embedding(index, table[:, None].flatten(1))
    return flat.view(*index.shape, *table.shape[1:])


def shapes(state: Mapping[str, Tensor]) -> str:
    """Return names and shapes of tensors in a line, the first few of them."""
    shown = [f"{name} {tuple(value.shape)}" for name, value in sorted(state.items())]
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "")


def _shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
