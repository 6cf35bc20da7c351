"""Opening pictures of unknown origin.

The files beside a data set were scraped: some are empty, cut short, web pages named `.jpg`, or
bombs that unpack to gigabytes. Here each of these is one `DataFormatError` with its reason; nothing
else gets out, no warning either, so that a run that counts broken pictures never stops at one.
"""

import hashlib
import logging
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mmrec_bench.errors import DataFormatError
from mmrec_bench.types import Catalog

if TYPE_CHECKING:
    import PIL.Image

log = logging.getLogger("mmrec_bench")
MAX_PIXELS = 50_000_000
"""Pixels of the largest picture that is decoded: 150 MB as RGB."""
MAX_SIDE = 32_768
MAX_BYTES = 128 * 1024 * 1024

# Formats that photos come in. The rest stays shut: Pillow would start Ghostscript for an EPS.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# All that Pillow's decoders were seen to raise on bytes that are not what they claim.
_DECODER_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
_ORIENTATION_TAG = 0x0112
_HEADER_BYTES = 1 << 12
# ITU-T T.81, table B.1: baseline, extended and progressive frames, SOS, DQT, APP0; DHT, comment.
_JPEG_BEGINS = b"\xff\xd8"
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_SCAN, _JPEG_QUANTISATION, _JPEG_JFIF = 0xDA, 0xDB, 0xE0
_JPEG_PLAIN = (0xC4, 0xFE)


def check_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> str | None:
    """Return why a picture cannot be used, or None; reads the header only.

    A file that is cut short after its header passes: only decoding can tell.
    """
    try:
        with _open_file(path) as file:
            size = _plain_jpeg_size(file.read(_HEADER_BYTES))
        # True of most; to import Pillow and ask it would take ten times as long.
        if size is not None and min(size) > 0 and _fits(size, max_pixels):
            return None
        with _opened(path, max_pixels):
            return None
    except DataFormatError as error:
        return str(error).removeprefix(f"{path}: ")


def open_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> "PIL.Image.Image":
    """Decode a picture to RGB: upright by its EXIF orientation, transparency over white.

    The format is told from the content, so a PNG named `.jpg` opens. Of an animation, the first
    frame.

    Raises:
        DataFormatError: missing, empty, cut short, not a picture, or more than `max_pixels`; the
            size is read from the header before anything is decoded.
    """
    with _opened(path, max_pixels) as image:
        try:
            image.load()
            return _upright(_to_rgb(image), _orientation(image))
        except _DECODER_FAULTS as error:
            raise DataFormatError(f"{path}: {_reason(error)}") from None


def content_keys(catalog: Catalog) -> dict[int, str]:
    """Return item number -> hash of the bytes of its first picture, for the items that have one.

    Pictures that cannot be read are left out and told in one warning.
    """
    keys: dict[int, str] = {}
    failed: list[str] = []
    for index, images in enumerate(catalog.images):
        if not images:
            continue
        try:
            with _open_file(images[0]) as file:
                keys[index] = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            failed.append(f"{images[0]}: {_reason(error)}")
        except DataFormatError as error:
            failed.append(str(error))
    if failed:
        log.warning(
            "%d of %d pictures cannot be read and are left out; the first: %s",
            *(len(failed), len(failed) + len(keys), failed[0]),
        )
    return keys


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator["PIL.Image.Image"]:
    """Open a picture's header and check its size, with warnings silent to the end."""
    import PIL.Image  # noqa: PLC0415  (50 ms that `--help` must not pay)

    with _open_file(path) as file, _quiet:
        PIL.Image.init()
        formats = [name for name in _FORMATS if name in PIL.Image.OPEN]
        try:
            image = PIL.Image.open(file, formats=formats)
        except PIL.Image.DecompressionBombError:
            raise DataFormatError(f"{path}: a decompression bomb by its header") from None
        except PIL.UnidentifiedImageError:
            file.seek(0)
            raise DataFormatError(f"{path}: not a picture (begins with {file.read(8)!r})") from None
        except _DECODER_FAULTS as error:
            raise DataFormatError(f"{path}: {_reason(error)}") from None
        with image:
            _check_size(path, image.size, max_pixels)
            yield image


def _open_file(path: Path) -> BinaryIO:
    try:
        status = path.stat()
        # A pipe or a device would block or never end.
        if not stat.S_ISREG(status.st_mode):
            raise DataFormatError(f"{path}: not a file")
        if status.st_size == 0:
            raise DataFormatError(f"{path}: zero bytes")
        if status.st_size > MAX_BYTES:
            raise DataFormatError(f"{path}: {status.st_size} bytes, more than {MAX_BYTES}")
        return path.open("rb")
    except FileNotFoundError:
        raise DataFormatError(f"{path}: missing") from None
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{path}: cannot be read: {_reason(error)}") from None


def _plain_jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG in whose header all is usual, None of anything else.

    Usual = JFIF, nothing but tables, comments and one frame of 8 bits and 1 or 3 components before
    the scan, each segment whole: what Pillow opens without a word.
    """
    size, at = None, len(_JPEG_BEGINS)
    if not head.startswith(_JPEG_BEGINS):
        return None
    while head[at : at + 1] == b"\xff" and at + 4 <= len(head):
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        body = head[at + 4 : at + 2 + length]
        if len(body) != length - 2:
            return None
        if marker == _JPEG_SCAN:
            return size
        if not _is_usual(marker, body):
            return None
        if marker in _JPEG_FRAMES:
            if size is not None:
                return None
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        at += 2 + length
    return None


def _is_usual(marker: int, body: bytes) -> bool:
    if marker in _JPEG_FRAMES:  # precision, height (2), width (2), components, 3 bytes of each
        return len(body) in (9, 15) and body[0] == 8 and len(body) == 6 + 3 * body[5]
    if marker == _JPEG_QUANTISATION:  # tables of 64 bytes, each behind its precision and number
        return len(body) % 65 == 0 and all(first <= 3 for first in body[::65])
    if marker == _JPEG_JFIF:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    return marker in _JPEG_PLAIN


def _check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DataFormatError(f"{path}: {width} x {height} pixels, nothing to see")
    if not _fits(size, max_pixels):
        raise DataFormatError(
            f"{path}: {width} x {height} pixels by its header, more than {max_pixels} in all or "
            f"{MAX_SIDE} a side"
        )


def _fits(size: tuple[int, int], max_pixels: int) -> bool:
    return size[0] * size[1] <= max_pixels and max(size) <= MAX_SIDE


def _orientation(image: "PIL.Image.Image") -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_FAULTS:
        return 1  # broken EXIF says nothing about the pixels
    return value if isinstance(value, int) else 1


def _upright(image: "PIL.Image.Image", orientation: int) -> "PIL.Image.Image":
    from PIL.Image import Transpose  # noqa: PLC0415

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _to_rgb(image: "PIL.Image.Image") -> "PIL.Image.Image":
    import PIL.Image  # noqa: PLC0415

    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = PIL.Image.new("RGBA", clear.size, "white")
        return PIL.Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Scale 16-bit, 32-bit or float grey to 8 bits; Pillow's own conversion clips it to white."""
    import numpy as np  # noqa: PLC0415
    import PIL.Image  # noqa: PLC0415

    with np.errstate(all="ignore"):
        grey = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
        top = 255.0 if grey.max() <= 255 else max(65535.0, float(grey.max()))
        scaled = np.clip(grey / top * 255, 0, 255).astype(np.uint8)
    return PIL.Image.fromarray(scaled).convert("RGB")


def _reason(error: BaseException) -> str:
    """Return an exception as one short line."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return (text or type(error).__name__)[:200]


class _Quiet:
    """Silence warnings while any thread is inside.

    `warnings.catch_warnings` restores the filters that it found, so that two threads that overlap
    may leave the silence on for good; here only the first in and the last out touch them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()
