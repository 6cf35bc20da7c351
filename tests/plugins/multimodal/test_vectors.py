"""How the items' vectors are read."""

from pathlib import Path

import numpy as np
import torch

from mmrec_bench.testing import toy_split, toy_training_data
from mmrec_plugins.models.multimodal.base import read_modalities


def read(vectors: np.ndarray, scratch: Path, *, centre: bool) -> np.ndarray:
    rows = np.full((len(toy_split().catalog), vectors.shape[1]), np.nan, np.float32)
    rows[: len(vectors)] = vectors
    data = toy_training_data(toy_split(), scratch, modalities={"image": rows})
    found = read_modalities(data, torch.device("cpu"), centre=centre)["image"]
    assert found.known.tolist() == [i < len(vectors) for i in range(len(rows))]
    return found.vectors.numpy()


def test_an_item_without_a_vector_gets_the_mean(tmp_path: Path) -> None:
    vectors = np.array([[1.0, 2.0], [3.0, 8.0]], np.float32)
    found = read(vectors, tmp_path, centre=False)
    np.testing.assert_array_equal(found[:2], vectors)
    np.testing.assert_array_equal(found[2:], [[2.0, 5.0]] * (len(found) - 2))


def test_centred_vectors_have_mean_zero_and_unit_size(tmp_path: Path) -> None:
    # Less their mean (2, 5): (-1, -3) and (1, 3), whose mean square is (1 + 9) / 2 = 5.
    found = read(np.array([[1.0, 2.0], [3.0, 8.0]], np.float32), tmp_path, centre=True)
    np.testing.assert_allclose(found[:2] * 5**0.5, [[-1, -3], [1, 3]], rtol=1e-6)
    np.testing.assert_array_equal(found[2:], 0)


def test_equal_vectors_are_zero_after_centring(tmp_path: Path) -> None:
    found = read(np.full((4, 3), 7.0, np.float32), tmp_path, centre=True)
    np.testing.assert_array_equal(found, 0)
