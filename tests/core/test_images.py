"""Pictures of unknown origin: a fault is one error with its reason, and nothing else gets out."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrec_bench.errors import DataFormatError
from mmrec_bench.images import check_image, open_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """Begin a PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def write(folder: Path, content: bytes, name: str = "a.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_photo_opens_whatever_its_format_and_ending(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, encoded(photo(), kind), "a.txt")
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert check_image(path) is None


def test_pixels_of_a_lossless_photo_are_unchanged(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(photo(), "PNG"))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(photo()))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"<html><body>Not Found</body></html>", "not a picture"),
        (b"\xff\xd8\xff", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
        (png_header(60_000, 60_000), "decompression bomb|60000 x 60000"),
        (png_header(9_000, 9_000), "9000 x 9000"),
        (png_header(40_000, 1), "40000 x 1"),
        (b"P6\n4 4\n255\n" + b"\0" * 48, "not a picture"),
    ],
)
def test_a_hostile_file_is_refused_by_its_header(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataFormatError, match=reason) as refused:
        open_image(path)
    assert "\n" not in str(refused.value)
    found = check_image(path)
    assert found is not None
    assert str(refused.value) == f"{path}: {found}"


def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_: object) -> None:
        pytest.fail("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(DataFormatError):
        open_image(write(tmp_path, png_header(20_000, 20_000)))


def test_the_limit_of_pixels_is_an_argument(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(photo(), "PNG"))
    assert check_image(path, max_pixels=2400) is None
    assert "60 x 40" in str(check_image(path, max_pixels=2399))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert check_image(tmp_path / "none.jpg") == "missing"
    assert check_image(tmp_path) == "not a file"
    assert "cannot be read" in str(check_image(Path("a\0b.jpg")))


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert check_image(tmp_path / "pipe.jpg") == "not a file"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_photo_is_refused_when_decoded(tmp_path: Path, kind: str) -> None:
    content = encoded(photo(), kind)
    with pytest.raises(DataFormatError):
        open_image(write(tmp_path, content[: len(content) * 2 // 3]))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    image = open_image(write(tmp_path, encoded(photo(), "PNG", exif=exif)))
    assert image.size == (40, 60)
    assert np.array_equal(np.asarray(image), np.rot90(np.asarray(photo()), -1))


def test_broken_exif_does_not_spoil_the_photo(tmp_path: Path) -> None:
    content = encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x99" * 40)
    assert open_image(write(tmp_path, content)).size == (60, 40)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    image = open_image(write(tmp_path, encoded(clear, "PNG")))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_a_transparent_palette_is_laid_over_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    image = open_image(write(tmp_path, encoded(palette, "PNG", transparency=b"\xff\x00")))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 32_768, 65_535]], np.uint16))
    image = open_image(write(tmp_path, encoded(deep, "PNG")))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (127,) * 3, (255,) * 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    kind = "PNG" if mode in ("1", "L", "LA", "P") else "TIFF"
    assert open_image(write(tmp_path, encoded(photo().convert(mode), kind))).mode == "RGB"


CONTENTS = [encoded(photo(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.sampled_from(CONTENTS),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=6)), max_size=6),
    cut=st.integers(0, 9000),
)
def test_damaged_bytes_give_a_picture_or_one_error(
    tmp_path: Path, content: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    damaged = bytearray(content)
    for at, new in changes:
        damaged[at % len(damaged) : at % len(damaged) + len(new)] = new
    path = write(tmp_path, bytes(damaged[:cut]))
    with contextlib.suppress(DataFormatError):
        assert open_image(path, max_pixels=10_000).mode == "RGB"


def test_warnings_filters_are_as_before_after_many_threads(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(photo(), "JPEG"))
    before = warnings.filters[:]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_image, [path] * 64))
    assert warnings.filters[:] == before


def pillow_asked(monkeypatch: pytest.MonkeyPatch, path: Path) -> bool:
    """Tell whether `check_image` had to open a good picture with Pillow."""
    asked: list[int] = []
    real = Image.open

    def counted(*args: Any, **more: Any) -> Image.Image:  # noqa: ANN401 - as Pillow's own
        asked.append(1)
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", counted)
        assert check_image(path) is None
    return bool(asked)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("L", {}),
        ("RGB", {"progressive": True, "quality": 95, "subsampling": 0}),
        ("RGB", {"comment": b"hello"}),
    ],
)
def test_a_usual_jpeg_is_checked_without_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, options: dict[str, object]
) -> None:
    path = write(tmp_path, encoded(photo().convert(mode), "JPEG", **options))
    assert not pillow_asked(monkeypatch, path)
    assert check_image(path, max_pixels=60 * 40) is None
    assert "60 x 40 pixels" in str(check_image(path, max_pixels=60 * 40 - 1))


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "RGB")])
def test_pillow_is_asked_about_all_other_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str
) -> None:
    path = write(tmp_path, encoded(photo().convert(mode), kind))
    assert pillow_asked(monkeypatch, path)


@given(place=st.integers(0, 700), byte=st.integers(0, 255), cut=st.none() | st.integers(0, 700))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_jpeg_header_that_passes_would_pass_pillow_too(
    tmp_path: Path, place: int, byte: int, cut: int | None
) -> None:
    content = bytearray(encoded(photo(), "JPEG"))
    content[place] = byte
    path = write(tmp_path, bytes(content[:cut]))
    if check_image(path) is None:
        with Image.open(path) as image:
            assert min(image.size) > 0
