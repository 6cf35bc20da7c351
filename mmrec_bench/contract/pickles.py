"""Tells whether a file holds a pickle, which runs code when it is loaded."""

import bz2
import gzip
import io
import lzma
import pickletools
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

_DEPTH = 3
"""How deep archives within archives are opened."""

_NPY = b"\x93NUMPY"
_OPENERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00\x00": lzma.decompress,
    b"\x78\x01": zlib.decompress,
    b"\x78\x5e": zlib.decompress,
    b"\x78\x9c": zlib.decompress,
    b"\x78\xda": zlib.decompress,
}
"""First bytes of what joblib and others compress with -> what reads it."""


def is_pickled(path: Path) -> bool:
    """Say whether a file is, or holds, a pickle: pickle, torch.save, joblib, object arrays."""
    if path.suffix in {".pkl", ".pickle", ".joblib"}:
        return True
    return _holds(path.read_bytes(), _DEPTH)


def _holds(content: bytes, depth: int) -> bool:
    if _is_pickle(content):
        return True
    return depth > 0 and any(_holds(part, depth - 1) for part in _parts(content))


def _parts(content: bytes) -> list[bytes]:
    """Return what an archive or a compressed file holds; nothing of others."""
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return [archive.read(name) for name in archive.namelist()]
    for start, decompress in _OPENERS.items():
        if content.startswith(start):
            try:
                return [decompress(content)]
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
                return []
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            files = [archive.extractfile(member) for member in archive if member.isfile()]
            return [one.read() for one in files if one is not None]
    except tarfile.TarError:
        return []


def _is_pickle(content: bytes) -> bool:
    if content.startswith(_NPY):
        header = content[: 12 + int.from_bytes(content[8:10], "little")]
        return b"'|O'" in header
    framed = content[:1] == b"\x80" and content[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}
    file = io.BytesIO(content)
    try:
        if framed:  # arrays may stand between what follows
            return len(list(islice(pickletools.genops(file), 3))) > 1
        # Protocols 0 and 1 have no mark of their own: one is read to its end, with its stack.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in what is no pickle
            pickletools.dis(file, out=io.StringIO())
        return file.tell() == len(content) > 2
    except (ValueError, IndexError, UnicodeError):
        return False
