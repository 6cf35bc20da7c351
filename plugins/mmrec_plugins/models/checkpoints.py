"""Checkpoints of an unfinished fit: whole or not there, checked on reading.

A file is the SHA-256 of what follows, then `torch.save`'s bytes. It is written beside and renamed;
the last two are kept, so that a torn one costs only the steps since the one before.
"""

import hashlib
import io
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from mmrec_bench.files import atomic_write

log = logging.getLogger("mmrec_bench")

_NAME = re.compile(r"tuning-(\d+)\.ckpt$")
_DIGEST_BYTES = 32
_KEPT = 2


def write_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step`; older files than the last two go.

    Args:
        folder: made when absent.
        step: optimiser steps done.
        state: tensors, numbers, strings, and lists and dicts of them.

    Raises:
        StorageError: e.g. the disk is full; the files before are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / f"tuning-{step:08d}.ckpt"
    atomic_write(path, hashlib.sha256(payload).digest() + payload)
    for old in _files(folder)[_KEPT:]:
        old.unlink(missing_ok=True)


def read_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the newest whole state that a fit with the same fingerprint left, or None.

    Torn files and those of another fit are named in the log and passed over.
    """
    for path in _files(folder):
        try:
            raw = path.read_bytes()
            digest, payload = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
            if hashlib.sha256(payload).digest() != digest:
                log.warning("checkpoint %s is torn; going back to the one before", path.name)
                continue
            state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            log.warning("checkpoint %s cannot be read (%s); passed over", path.name, error)
            continue
        if isinstance(state, dict) and state.get("fingerprint") == fingerprint:
            return state
        log.warning("checkpoint %s belongs to a fit with other settings; passed over", path.name)
    return None


def _files(folder: Path) -> list[Path]:
    """Whole-looking checkpoints, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.search(path.name)]
    return sorted(found, key=lambda path: path.name, reverse=True)
