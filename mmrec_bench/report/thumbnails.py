"""Small pictures of items, decoded and encoded anew: nothing of the original bytes gets out."""

import hashlib
import io
from pathlib import Path

from mmrec_bench.errors import DataFormatError
from mmrec_bench.images import open_image

SIDE = 144
"""Pixels of a thumbnail's longer side: 72 on a screen with two a point."""


class Thumbnails:
    """Writes each picture once; files are named by their content.

    Attributes:
        broken: pictures that could not be read, with the reason of the first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, str] = {}
        self.broken = 0
        self.reason = ""

    def __len__(self) -> int:
        return len({name for name in self._known.values() if name})

    def name(self, path: Path) -> str:
        """Return the thumbnail's name without its ending; "" where there is none to see."""
        if path not in self._known:
            self._known[path] = self._make(path)
        return self._known[path]

    def _make(self, path: Path) -> str:
        try:
            picture = open_image(path)
        except DataFormatError as error:
            self.broken += 1
            self.reason = self.reason or str(error)
            return ""
        picture.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80, optimize=True)
        name = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
        target = self._folder / f"{name}.jpg"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(buffer.getvalue())
        return name
