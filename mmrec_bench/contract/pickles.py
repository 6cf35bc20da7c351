"""Tells whether a file holds a pickle, which runs code when it is loaded."""

import pickletools
import zipfile
from pathlib import Path


def is_pickled(path: Path) -> bool:
    """Say whether a file is, or holds, a pickle: pickle, torch.save, joblib, object arrays."""
    if path.suffix in {".pkl", ".pickle", ".joblib"}:
        return True
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = [archive.read(name) for name in archive.namelist()]
    else:
        parts = [content]
    return any(_is_pickle(part) for part in parts)


def _is_pickle(content: bytes) -> bool:
    if content.startswith(b"\x93NUMPY"):
        return b"'descr': '|O'" in content[:256]
    if content[:1] != b"\x80" or content[1:2] not in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return False
    try:
        return next(iter(pickletools.genops(content)))[0].name == "PROTO"
    except (ValueError, StopIteration):
        return False
