"""Encoders' vectors of the items as models take them.

Letters: N items, D size of a vector.
"""

import numpy as np

from mmrec_bench.types import BoolArray, FloatArray


def have_vectors(vectors: FloatArray) -> BoolArray:
    """Return (N,) bool of (N, D) vectors: an item whose row is not finite has none."""
    return np.asarray(np.isfinite(vectors).all(axis=1), np.bool_)


def filled(vectors: FloatArray, known: BoolArray, *, centre: bool) -> FloatArray:
    """Return (N, D) float32, finite: an item without a vector gets the mean of those with one.

    Args:
        vectors: (N, D).
        known: (N,) bool, which rows are vectors; where none is, all rows are 0.
        centre: the rows less their mean, over the root mean square of those known.
    """
    if not known.any():
        return np.zeros(vectors.shape, np.float32)
    mean = vectors[known].mean(axis=0, dtype=np.float64)
    found = np.where(known[:, None], vectors, mean)
    if centre:
        found -= mean
        size = np.sqrt(np.square(found[known]).mean())
        found /= size if size > 0 else 1.0
    return found.astype(np.float32)
