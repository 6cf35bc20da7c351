"""Checkpoints of an unfinished fit: whole or not there, checked on reading.

A file is the SHA-256 of what follows, then `torch.save`'s bytes. It is written beside and renamed;
the last two of a fit are kept, so that a torn one costs only the steps since the one before. A name
holds a piece of the fit's fingerprint: what another fit left behind is neither read nor counted.
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

_NAME = re.compile(r"tuning-([0-9a-f]{8}-)?\d+\.ckpt")
_OTHER = "checkpoint %s belongs to a fit with other settings; passed over"
_DIGEST_BYTES = 32
_KEPT = 2


def write_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step`; older files of this fit than the last two go.

    Args:
        folder: made when absent.
        step: optimiser steps done.
        state: tensors, numbers, strings, and lists and dicts of them; "fingerprint" names the fit.

    Raises:
        StorageError: e.g. the disk is full; the files before are untouched.
    """
    own = _start(state["fingerprint"])
    buffer = io.BytesIO(bytes(_DIGEST_BYTES))
    buffer.seek(_DIGEST_BYTES)
    torch.save(state, buffer)
    # One buffer of the whole file: weights and moments are not held a second time.
    with buffer.getbuffer() as whole:
        whole[:_DIGEST_BYTES] = hashlib.sha256(whole[_DIGEST_BYTES:]).digest()
        atomic_write(folder / f"{own}{step:08d}.ckpt", whole)
    for old in [path for path in _files(folder) if path.name.startswith(own)][_KEPT:]:
        old.unlink(missing_ok=True)


def read_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the newest whole state that a fit with the same fingerprint left, or None.

    Torn files and those of another fit are named in the log and passed over.
    """
    own = _start(fingerprint)
    for path in _files(folder):
        if not path.name.startswith(own):
            log.warning(_OTHER, path.name)
            continue
        try:
            with path.open("rb") as file:
                digest, payload = file.read(_DIGEST_BYTES), file.read()
            if hashlib.sha256(payload).digest() != digest:
                log.warning("checkpoint %s is torn; going back to the one before", path.name)
                continue
            state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            log.warning("checkpoint %s cannot be read (%s); passed over", path.name, error)
            continue
        if isinstance(state, dict) and state.get("fingerprint") == fingerprint:
            return state
        log.warning(_OTHER, path.name)
    return None


def _start(fingerprint: str) -> str:
    """How the names of a fit's files begin."""
    return f"tuning-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}-"


def _files(folder: Path) -> list[Path]:
    """Whole-looking checkpoints; those of one fit newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.name, reverse=True)
