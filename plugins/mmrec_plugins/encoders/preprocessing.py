"""What a vision model wants done to a picture, as its `preprocessor_config.json` says.

Done here with Pillow and NumPy and not by transformers, whose processors give other pixels where
torchvision is installed: the same file and picture shall give the same vector on every machine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmrec_bench.errors import ModelError

FILES = ("preprocessor_config.json", "processor_config.json")
"""Where the settings are; in the second, which transformers 5 writes, below `image_processor`."""

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale, normalise.

    Attributes:
        resize: (height, width), the shorter side alone, or None = as it is.
        resample: Pillow's number of the filter.
        crop: (height, width) around the centre, black beyond the edges, or None.
        scale: factor to the 8-bit values.
        mean: (3,) taken off each channel.
        std: (3,) each channel is divided by.
    """

    resize: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the settings that lie beside a model's weights.

        Raises:
            ModelError: missing, not JSON, or settings that mean something else.
        """
        path = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if path is None:
            raise ModelError(
                f"{folder} holds none of {', '.join(FILES)}, which say how pictures are prepared"
            )
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            settings = raw["image_processor"] if path.name == FILES[1] else raw
            return cls._from_settings(settings)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path} is not understood ({type(error).__name__}: {error}); expected the "
                "settings of a CLIP or SigLIP image processor"
            ) from None

    @classmethod
    def _from_settings(cls, raw: Mapping[str, Any]) -> Self:
        """Absent keys mean what they mean in the first CLIP files."""
        normalise = raw.get("do_normalize", True)
        if raw.get("do_pad"):
            raise ValueError("do_pad is not known here")
        return cls(
            resize=_sides(raw.get("size", 224)) if raw.get("do_resize", True) else None,
            resample=int(Image.Resampling(raw.get("resample", Image.Resampling.BICUBIC))),
            crop=_square(raw.get("crop_size", 224)) if raw.get("do_center_crop", False) else None,
            scale=float(raw.get("rescale_factor", 1 / 255)) if raw.get("do_rescale", True) else 1.0,
            mean=_channels(raw.get("image_mean", _CLIP_MEAN)) if normalise else (0.0, 0.0, 0.0),
            std=_channels(raw.get("image_std", _CLIP_STD)) if normalise else (1.0, 1.0, 1.0),
        )

    def pixels(self, picture: Image.Image) -> NDArray[np.float32]:
        """RGB picture -> (3, H, W) float32."""
        if self.resize is not None:
            width, height = _target(picture.size, self.resize)
            picture = picture.resize((width, height), Image.Resampling(self.resample))
        if self.crop is not None:
            height, width = self.crop
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        values = np.asarray(picture, np.float32) * np.float32(self.scale)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))


def _target(size: tuple[int, int], resize: tuple[int, int] | int) -> tuple[int, int]:
    """(width, height) after the resize."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def _sides(size: int | Mapping[str, int]) -> tuple[int, int] | int:
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return _positive(size["shortest_edge"])
    return _positive(size) if isinstance(size, int) else _square(size)


def _square(size: int | Mapping[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return (_positive(size),) * 2
    if set(size) != {"height", "width"}:
        raise ValueError(f"a size of {sorted(size)}")
    return _positive(size["height"]), _positive(size["width"])


def _positive(side: int) -> int:
    if not isinstance(side, int) or not 1 <= side <= 4096:
        raise ValueError(f"a side of {side!r} pixels")
    return side


def _channels(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - read from JSON
    channels = tuple(float(value) for value in values)
    if len(channels) != 3 or not np.isfinite(channels).all():
        raise ValueError(f"{channels} for three channels")
    return channels
