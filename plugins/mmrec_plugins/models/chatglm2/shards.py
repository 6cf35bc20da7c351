"""Read tensors from `.bin` and safetensors files, safely and with little memory."""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.original import read_json_object

Shape = tuple[int, ...]

# Pages of a mapped file count as resident until it is unmapped, so a file is opened anew after this
# many bytes: peak memory is the model's plus this window, however large a shard is.
_WINDOW_BYTES = 64 * 1024**2

# In the order of preference; an index goes before the single file of its kind.
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLES = ("model.safetensors", "pytorch_model.bin")


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights, safetensors before `.bin`.

    Raises:
        ModelError: there are none, the index is broken, or a shard that it names is missing.
    """
    for index_name, single in zip(_INDEXES, _SINGLES, strict=True):
        index = folder / index_name
        if index.exists():
            return _indexed(index)
        if (folder / single).exists():
            return [folder / single]
    raise ModelError(f"{folder} holds no weights: expected one of {', '.join(_INDEXES + _SINGLES)}")


def _indexed(index: Path) -> list[Path]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{index}: shard {name!r} is not a plain file name")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index.parent}: {len(missing)} of {len(names)} shards are missing: "
            f"{', '.join(missing)}; download them again"
        )
    return [index.parent / name for name in names]


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield `(name, tensor)` of one file; a tensor may be a view of the file, so copy it at once.

    `.bin` files go through `torch.load(weights_only=True)`, which runs nothing that they contain.

    Raises:
        ModelError: the file is torn, is no such file, or holds anything but tensors by name.
    """
    if path.suffix == ".safetensors":
        yield from _read_safetensors(path)
    else:
        yield from _read_pickled(path)


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        while names:
            with safe_open(path, framework="pt") as file:
                read = 0
                while names and read < _WINDOW_BYTES:
                    name = names.pop(0)
                    tensor = file.get_tensor(name)
                    read += tensor.nbytes
                    yield name, tensor
                    del tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}; download it again") from error


def _read_pickled(path: Path) -> Iterator[tuple[str, Tensor]]:
    state = _load_pickled(path)
    read = 0
    for name in list(state):
        if read >= _WINDOW_BYTES:
            state = {}  # unmap before mapping again
            state = _load_pickled(path)
            read = 0
        tensor = state[name]
        read += tensor.nbytes
        yield name, tensor
        del tensor


def _load_pickled(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            # Files from before PyTorch 1.6 are no zip archives and cannot be mapped.
            mapped = file.read(4) == b"PK\x03\x04"
        with warnings.catch_warnings():
            # It warns of pickle protocols that it may not know; the result is checked below.
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{path} is refused: it is damaged or holds more than tensors ({reason})"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(f"{path} cannot be read: {reason}; download it again") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ModelError(f"{path} does not hold tensors by name; expected a saved state dict")
    return state
