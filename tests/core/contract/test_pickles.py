"""A pickle is found whatever it is packed into, and what is none is not taken for one."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.contract.pickles import is_pickled

VALUE = {"a": [1, 2, 3], "b": ("x", None)}


def in_tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("inside")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def in_zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside", content)
    return file.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "tar": in_tar,
    "zip": in_zip,
    "tar.gz": lambda content: gzip.compress(in_tar(content)),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("packed", PACKED)
def test_a_pickle_is_found_in_whatever_it_is_packed(
    packed: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(PACKED[packed](pickle.dumps(VALUE, protocol)))
    assert is_pickled(path)


@pytest.mark.parametrize("dtype", ["O", [("a", "O"), ("b", "f4")]])
def test_arrays_of_objects_are_pickles(dtype: object, tmp_path: Path) -> None:
    array = np.zeros(2, np.dtype(dtype))  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", array)
    assert is_pickled(tmp_path / "a.npy")
    assert is_pickled(tmp_path / "a.npz")


def test_a_file_without_a_pickle_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    numbers = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    for content in (
        b"",
        b"N.",
        bytes(2000),
        b"I am a text.\n",
        json.dumps(VALUE).encode(),
        numbers.tobytes(),
        in_zip(gzip.compress(numbers.tobytes())),
        b"\x1f\x8b torn",
        b"\x78\x9c torn",
    ):
        path.write_bytes(content)
        assert not is_pickled(path), content[:20]
    np.save(tmp_path / "a.npy", numbers)
    assert not is_pickled(tmp_path / "a.npy")
