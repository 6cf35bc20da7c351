"""Encoders `clip` and `siglip`: image embeddings of two-tower models from a folder or the hub."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub import snapshot_download
from pydantic import Field
from safetensors import SafetensorError
from transformers import AutoModel

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.errors import ModelError
from mmrec_bench.types import FloatArray, Item
from mmrec_plugins.devices import pick_device
from mmrec_plugins.encoders.pictures import picture_batches
from mmrec_plugins.encoders.preprocessing import FILES, Preprocessing
from mmrec_plugins.models.chatglm2.hub import HUB_ERRORS
from mmrec_plugins.models.lm.backbones import quiet_loading
from mmrec_plugins.models.lm.locating import hash_file

_VERSION = 1  # raised whenever a vector of some picture changes
_WEIGHTS = "model*.safetensors"
_INDEX = "model.safetensors.index.json"
_PATTERNS = ["config.json", *FILES, _INDEX, _WEIGHTS]
# What loading raises on files that are missing, torn, or of a kind that is not known.
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)


class HubVision:
    """Image embeddings in the space that the model shares with text, not normalised.

    Weights are read from safetensors only, and no code of a repository is run. A complete copy in
    the local hub cache is taken without asking the network; `HF_HUB_OFFLINE=1` never asks it.
    """

    encodes: ClassVar[str] = "picture"
    entry: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]

    class Config(ComponentConfig):
        """Options of `clip` and `siglip`."""

        weights: str = Field(description="hub id or folder with safetensors")
        revision: str | None = Field(None, description="branch, tag or commit of a hub id")
        device: str = operational("auto", description="auto | cpu | cuda ...")
        batch_size: int = operational(16, ge=1, description="pictures in one forward pass")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._found: Path | None = None
        self._loaded: _Tower | None = None

    def fingerprint(self) -> str:
        """Name the version and a hash of settings and weights, wherever they lie."""
        folder = self._folder()
        digest = hashlib.sha256()
        for path in sorted({path for name in _PATTERNS for path in folder.glob(name)}):
            digest.update(f"{path.name} {hash_file(path)}\n".encode())
        return f"{self.entry} {_VERSION} {digest.hexdigest()[:16]}"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n_items, D) float32, D the model's; a row of NaN without a usable picture."""
        tower = self._load()
        vectors = np.full((len(items), tower.width), np.nan, np.float32)
        for rows, pictures in picture_batches(items, self.config.batch_size):
            batch = np.stack([tower.preprocessing.pixels(picture) for picture in pictures])
            vectors[rows] = tower.embed(batch)
        return vectors

    def _folder(self) -> Path:
        if self._found is None:
            self._found = _find(self.entry, self.config.weights, self.config.revision)
        return self._found

    def _load(self) -> "_Tower":
        if self._loaded is None:
            folder = self._folder()
            self._check_type(folder)
            device = pick_device(self.config.device)
            preprocessing = Preprocessing.read(folder)
            try:
                with quiet_loading():
                    model, told = AutoModel.from_pretrained(
                        folder,
                        use_safetensors=True,
                        local_files_only=True,
                        trust_remote_code=False,
                        dtype=torch.float32,
                        output_loading_info=True,
                    )
            except _LOAD_ERRORS as error:
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise ModelError(f"{self.config.weights} cannot be loaded: {reason}") from None
            # transformers draws at random what a checkpoint lacks.
            if lacks := [name for name in told["missing_keys"] if name.startswith("vis")]:
                raise ModelError(
                    f"{self.config.weights} lacks {len(lacks)} tensors of the image side, e.g. "
                    f"{lacks[0]}; take a complete checkpoint"
                )
            self._loaded = _Tower(model.eval().to(device), preprocessing, device)
        return self._loaded

    def _check_type(self, folder: Path) -> None:
        try:
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder / 'config.json'} names no model_type: {error!r}") from None
        if kind not in self.model_types:
            raise ModelError(
                f"{self.config.weights} is a model of type {kind!r}, and the encoder {self.entry} "
                f"reads {' and '.join(self.model_types)}"
            )


class Clip(HubVision):
    """CLIP's image embeddings (Radford et al., ICML 2021), through transformers."""

    entry = "clip"
    model_types = ("clip",)

    class Config(HubVision.Config):
        """Options of the `clip` encoder."""

        # OpenAI's own ViT-B/32 has no safetensors on its main branch.
        weights: str = Field(
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            description="hub id or folder with safetensors",
        )


class Siglip(HubVision):
    """SigLIP's image embeddings (Zhai et al., ICCV 2023), through transformers.

    Reads SigLIP 2 (Tschannen et al., 2025) of fixed resolution as well, whose type is `siglip` too.
    """

    entry = "siglip"
    model_types = ("siglip",)

    class Config(HubVision.Config):
        """Options of the `siglip` encoder."""

        weights: str = Field(
            "google/siglip-base-patch16-224", description="hub id or folder with safetensors"
        )


@dataclass(frozen=True)
class _Tower:
    """The loaded model and what its pictures go through first."""

    model: Any
    preprocessing: Preprocessing
    device: torch.device

    @property
    def width(self) -> int:
        """Columns of an embedding: CLIP projects, SigLIP pools by attention."""
        settings = self.model.config
        return int(getattr(settings, "projection_dim", 0) or settings.vision_config.hidden_size)

    def embed(self, batch: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> FloatArray:
        """(B, 3, H, W) -> (B, D)."""
        with torch.inference_mode():
            found = self.model.get_image_features(torch.from_numpy(batch).to(self.device))
        # A tensor before transformers 5.0, an output with the projection in `pooler_output` since.
        embedded = found if isinstance(found, torch.Tensor) else found.pooler_output
        values: FloatArray = embedded.float().cpu().numpy()
        return values


def _find(entry: str, weights: str, revision: str | None) -> Path:
    """Return the folder of the model, fetched where a hub id asks for it."""
    folder = Path(weights).expanduser()
    if folder.is_dir():
        if reason := _missing(folder):
            raise ModelError(f"the {entry} model {weights} cannot be used: {reason}")
        return folder
    reason = ""
    for local in (True, False):
        try:
            found = snapshot_download(
                weights, revision=revision, allow_patterns=_PATTERNS, local_files_only=local
            )
        except HUB_ERRORS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            continue
        if not (reason := _missing(Path(found))):
            return Path(found)
    raise ModelError(
        f"the {entry} model {weights!r} is neither a folder nor to be had from the hub: {reason}; "
        f"use -o vectors.weights=FOLDER, another hub id, or -o vectors.name=efficientnet"
    )


def _missing(folder: Path) -> str:
    """Return what a folder lacks, or "" where it is complete."""
    if not (folder / "config.json").is_file():
        return "no config.json"
    if not any((folder / name).is_file() for name in FILES):
        return f"none of {', '.join(FILES)}"
    if (folder / _INDEX).is_file():
        try:
            shards = set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{_INDEX} is not an index of shards"
        lacking = sorted(str(name) for name in shards if not (folder / str(name)).is_file())
        return f"no {lacking[0]}" if lacking else ""
    if not (folder / "model.safetensors").is_file():
        return (
            "no model.safetensors (other formats are not read; some repositories have it under "
            "another revision, e.g. -o vectors.revision=refs/pr/1)"
        )
    return ""
