"""Photos of the embedded Amazon sample's products, drawn from a seed."""

import io

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
SHAPES = ("round", "square", "triangular", "tall", "wide")
PATTERNS = ("plain", "striped", "dotted", "checked")
# The ground of a picture, where backdrops are asked for.
BACKDROPS = ((247, 239, 224), (228, 237, 247), (231, 245, 228), (240, 240, 240))
_RGB = {
    "red": (200, 30, 38),
    "orange": (240, 130, 20),
    "yellow": (242, 210, 45),
    "green": (50, 150, 65),
    "blue": (40, 85, 200),
    "purple": (120, 50, 160),
    "pink": (240, 130, 180),
}
_SIDE = 128


def draw_picture(
    colour: str,
    shape: str,
    pattern: str,
    *,
    rng: np.random.Generator,
    backdrop: int | None = None,
) -> bytes:
    """Draw one product photo: a shape of one colour with a darker pattern on a pale ground.

    Args:
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        pattern: one of `PATTERNS`.
        rng: of what differs between two photos of the same.
        backdrop: number in `BACKDROPS`; None = a plain pale ground.

    Returns:
        A JPEG of 128 x 128 pixels.
    """
    scale = 2  # drawn large and shrunk, for smooth edges
    side = _SIDE * scale
    base = np.clip(np.array(_RGB[colour]) + rng.integers(-9, 10, 3), 0, 255)
    dark = (base * 0.5).astype(int)
    tint = rng.integers(238, 252) + rng.integers(-3, 4, 3)
    if backdrop is not None:
        tint = np.array(BACKDROPS[backdrop]) + (tint - 245) // 2
    ground = tuple(int(v) for v in tint)
    mask = Image.new("L", (side, side), 0)
    _draw_shape(ImageDraw.Draw(mask), shape, side, rng)
    mask = mask.rotate(float(rng.uniform(-6, 6)), Image.Resampling.BILINEAR)
    paint = Image.new("RGB", (side, side), tuple(base.tolist()))
    _draw_pattern(ImageDraw.Draw(paint), pattern, side, tuple(dark.tolist()), rng)
    picture = Image.new("RGB", (side, side), ground)
    picture.paste(paint, (0, 0), mask)
    small = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    grain = rng.normal(0, 2.0, (_SIDE, _SIDE, 1))
    light = np.linspace(rng.uniform(0.97, 1.03), rng.uniform(0.97, 1.03), _SIDE)[None, :, None]
    final = Image.fromarray(np.clip(small * light + grain, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    final.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, side: int, rng: np.random.Generator) -> None:
    x, y = side / 2 + rng.uniform(-0.05, 0.05, 2) * side
    half = side * rng.uniform(0.30, 0.38)
    match shape:
        case "round":
            draw.ellipse((x - half, y - half, x + half, y + half), fill=255)
        case "triangular":
            low = y + half * 0.8
            draw.polygon([(x, y - half), (x - half * 1.1, low), (x + half * 1.1, low)], fill=255)
        case _:
            thin = half * rng.uniform(0.38, 0.48)
            w, h = {"square": (half * 0.9,) * 2, "tall": (thin, half * 1.1)}.get(
                shape, (half * 1.1, thin)
            )
            draw.rounded_rectangle((x - w, y - h, x + w, y + h), radius=side * 0.02, fill=255)


def _draw_pattern(
    draw: ImageDraw.ImageDraw,
    pattern: str,
    side: int,
    ink: tuple[int, ...],
    rng: np.random.Generator,
) -> None:
    step = side * rng.uniform(0.095, 0.12)
    start = rng.uniform(0, step)
    marks = np.arange(start - step, side + step, step)
    match pattern:
        case "striped":
            for y in marks:
                draw.rectangle((0, y, side, y + step * 0.45), fill=ink)
        case "dotted":
            r = step * 0.3
            for x in marks:
                for y in marks:
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        case "checked":
            for row, y in enumerate(marks):
                for x in marks[row % 2 :: 2]:
                    draw.rectangle((x, y, x + step, y + step), fill=ink)
