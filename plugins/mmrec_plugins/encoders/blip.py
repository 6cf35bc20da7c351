"""Encoder `blip`: a caption of the picture by a BLIP model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from transformers import BlipForConditionalGeneration, BlipProcessor

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.errors import ModelError
from mmrec_bench.types import FloatArray, Item
from mmrec_plugins.devices import pick_device
from mmrec_plugins.encoders.pictures import picture_batches
from mmrec_plugins.models.lm.backbones import quiet_loading
from mmrec_plugins.models.lm.locating import Place
from mmrec_plugins.models.lm.locating import fingerprint as hash_folder


class Blip:
    """Captions by BLIP (Li et al., ICML 2022), through transformers; meant for a GPU.

    `describe` gives the caption as one phrase; `encode` the vision model's pooled output.
    """

    encodes: ClassVar[str] = "picture"

    class Config(ComponentConfig):
        """Options of the `blip` encoder."""

        model: str = Field("Salesforce/blip-image-captioning-base", description="hub id or folder")
        device: str = operational("auto", description="auto | cpu | cuda ...")
        max_new_tokens: int = Field(20, ge=1, description="tokens of a caption at most")
        batch_size: int = operational(16, ge=1, description="pictures in one forward pass")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._loaded: tuple[Any, Any] | None = None

    def fingerprint(self) -> str:
        """Name the model (of a folder, the content) and the caption's length."""
        folder = Path(self.config.model).expanduser()
        model = hash_folder(Place(folder, "")) if folder.is_dir() else self.config.model
        return f"blip {model} {self.config.max_new_tokens}"

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Return one caption per item, () where there is no usable picture."""
        processor, model = self._load()
        captions: list[tuple[str, ...]] = [()] * len(items)
        for rows, pictures in picture_batches(items, self.config.batch_size):
            inputs = processor(images=pictures, return_tensors="pt").to(model.device)
            written = model.generate(**inputs, max_new_tokens=self.config.max_new_tokens)
            texts = processor.batch_decode(written, skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                captions[row] = (text.strip(),)
        return captions

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n_items, D) float32; a row of NaN where there is no usable picture."""
        processor, model = self._load()
        width = model.config.vision_config.hidden_size
        vectors = np.full((len(items), width), np.nan, np.float32)
        for rows, pictures in picture_batches(items, self.config.batch_size):
            inputs = processor(images=pictures, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                pooled = model.vision_model(inputs["pixel_values"]).pooler_output
            vectors[rows] = pooled.float().cpu().numpy()
        return vectors

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            device = pick_device(self.config.device)
            try:
                with quiet_loading():
                    processor = BlipProcessor.from_pretrained(self.config.model)
                    model = BlipForConditionalGeneration.from_pretrained(self.config.model)
            except (OSError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ModelError(
                    f"the BLIP model {self.config.model!r} is neither a folder nor to be had from "
                    f"the hub: {reason}; use -o encoder.name=image-tags or -o encoder.model=FOLDER"
                ) from None
            self._loaded = processor, model.eval().to(device)
        return self._loaded
