"""Pictures as a chat model gets them: small JPEGs in `data:` addresses."""

import base64
import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from mmrec_bench.errors import DataFormatError
from mmrec_bench.images import open_image

_KEPT = 2048


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be sent.

    Attributes:
        sha256: of the file's bytes, for the key of a request.
        url: the picture as a `data:` address.
        width: pixels that are sent.
        height: pixels that are sent.
    """

    sha256: str
    url: str
    width: int
    height: int


class Pictures:
    """Reads and shrinks pictures; remembers the newest ones, and which files are broken."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._kept: OrderedDict[Path, Picture] = OrderedDict()
        self._lock = threading.Lock()
        self.broken: dict[Path, str] = {}

    def get(self, path: Path) -> Picture | None:
        """Return the picture, or None where the file is broken or missing; then it is counted."""
        with self._lock:
            if path in self.broken:
                return None
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        try:
            picture = self._read(path)
        except DataFormatError as error:
            with self._lock:
                self.broken[path] = str(error)
            return None
        with self._lock:
            self._kept[path] = picture
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return picture

    def _read(self, path: Path) -> Picture:
        image = open_image(path)
        image.thumbnail((self._side, self._side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataFormatError(f"{path}: cannot be read: {error.strerror}") from None
        text = base64.b64encode(buffer.getvalue()).decode("ascii")
        return Picture(digest, f"data:image/jpeg;base64,{text}", *image.size)
