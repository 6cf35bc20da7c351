"""Entries that say the same: exactly after normalisation, or nearly, found by MinHash.

Broder, "On the resemblance and containment of documents", 1997: two sets' minima under a random
hash agree with a probability that is their Jaccard similarity. Signatures are cut into bands, and
entries that share a band are compared exactly, so that nothing is dropped by chance.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from mmrec_plugins.instructions.building.describing import words_of

_SHINGLE = 3
_HASHES, _ROWS = 96, 4
_HIGH_BITS = np.uint64(32)


class Duplicates:
    """Remembers what was kept, and finds the entry that a new one repeats."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        rng = np.random.default_rng(1997)
        # multiply-shift (Dietzfelbinger et al., 1997) modulo 2**64, which is how uint64 overflows
        self._factor = rng.integers(0, 1 << 63, _HASHES, dtype=np.uint64) * 2 + 1
        self._offset = rng.integers(0, 1 << 63, _HASHES, dtype=np.uint64)
        self._exact: dict[str, str] = {}
        self._bands: dict[tuple[int, bytes], list[int]] = {}
        self._kept: list[tuple[str, NDArray[np.uint64]]] = []

    def find(self, name: str, text: str) -> tuple[str, str] | None:
        """Return ("duplicate" | "near duplicate", name of the earlier entry), or keep this one."""
        words = words_of(text)
        key = " ".join(words)
        if key in self._exact:
            return "duplicate", self._exact[key]
        shingles = _shingles(words)
        bands = self._signature(shingles)
        for at in sorted({i for band in bands for i in self._bands.get(band, ())}):
            earlier, other = self._kept[at]
            if _jaccard(shingles, other) >= self.threshold:
                return "near duplicate", earlier
        self._exact[key] = name
        for band in bands:
            self._bands.setdefault(band, []).append(len(self._kept))
        self._kept.append((name, shingles))
        return None

    def _signature(self, shingles: NDArray[np.uint64]) -> list[tuple[int, bytes]]:
        if not len(shingles):
            return []
        hashed = (shingles[:, None] * self._factor + self._offset) >> _HIGH_BITS  # (n, _HASHES)
        minima = hashed.min(axis=0)
        return [(row, minima[row : row + _ROWS].tobytes()) for row in range(0, _HASHES, _ROWS)]


def _shingles(words: list[str]) -> NDArray[np.uint64]:
    """Return sorted 32-bit hashes of all runs of words, (n,) uint64."""
    runs = {" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}
    hashes = {
        int.from_bytes(hashlib.blake2b(run.encode(), digest_size=4).digest(), "big") for run in runs
    }
    return np.array(sorted(hashes), np.uint64)


def _jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)
