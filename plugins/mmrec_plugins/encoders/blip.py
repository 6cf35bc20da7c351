"""Encoder `blip`: a caption of the picture by a BLIP model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import DataFormatError, ModelError
from mmrec_bench.images import open_image
from mmrec_bench.types import FloatArray, Item


class Blip:
    """Captions by BLIP (Li et al., ICML 2022), through transformers; meant for a GPU.

    `describe` gives the caption as one phrase; `encode` the vision model's pooled output.
    """

    class Config(ComponentConfig):
        """Options of the `blip` encoder."""

        model: str = Field("Salesforce/blip-image-captioning-base", description="hub id or folder")
        device: str = Field("auto", description="auto | cpu | cuda ...")
        max_new_tokens: int = Field(20, ge=1, description="tokens of a caption at most")
        batch_size: int = Field(16, ge=1, description="pictures in one forward pass")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._loaded: tuple[Any, Any] | None = None

    def fingerprint(self) -> str:
        """Name the model and the caption's length."""
        return f"blip {self.config.model} {self.config.max_new_tokens}"

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Return one caption per item, () where there is no usable picture."""
        processor, model = self._load()
        captions: list[tuple[str, ...]] = [()] * len(items)
        for rows, pictures in self._batches(items):
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
        import torch  # noqa: PLC0415 - loaded by then

        for rows, pictures in self._batches(items):
            inputs = processor(images=pictures, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                pooled = model.vision_model(inputs["pixel_values"]).pooler_output
            vectors[rows] = pooled.float().cpu().numpy()
        return vectors

    def _batches(self, items: Sequence[Item]) -> list[tuple[list[int], list[Any]]]:
        usable = []
        for row, item in enumerate(items):
            try:
                usable.append((row, open_image(item.images[0])) if item.images else None)
            except DataFormatError:
                continue  # counted by the data set's loader
        kept = [one for one in usable if one is not None]
        size = self.config.batch_size
        return [
            ([row for row, _ in kept[i : i + size]], [picture for _, picture in kept[i : i + size]])
            for i in range(0, len(kept), size)
        ]

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch  # noqa: PLC0415 - seconds to import
            from transformers import (  # noqa: PLC0415 - seconds to import
                BlipForConditionalGeneration,
                BlipProcessor,
            )

            from mmrec_plugins.models.lm.backbones import quiet_loading  # noqa: PLC0415 - as above

            device = self.config.device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
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
