"""Finding the pictures of items: local files named by item id."""

import os
from pathlib import Path

from mmrec_bench.errors import DataFormatError
from mmrec_bench.images import check_image
from mmrec_plugins.datasets.raw import Digest, Tally

_HASHED_BYTES = 1 << 16
FAULTS = {"broken_images": "a picture that cannot be used"}


class PictureFolder:
    """Files `<item id>.<any ending>` in one folder.

    The folder is listed once and ids are looked up in the list, so that no id, whatever it holds,
    can name a file elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, list[str]] = {}
        if not folder.is_dir():
            return
        try:
            names = sorted(entry.name for entry in os.scandir(folder))
        except OSError as error:
            raise DataFormatError(f"cannot list {folder}: {error.strerror or error}") from None
        for name in names:
            stem, dot, _ = name.partition(".")
            if stem and dot:
                self._names.setdefault(stem, []).append(name)

    def find(self, item: str, tally: Tally, digest: Digest) -> tuple[Path, ...]:
        """Return the usable pictures of one item, by name; broken ones are counted.

        Name, size and the first 64 KB of each go into the hash.
        """
        found = []
        for name in self._names.get(item, ()):
            path = self.folder / name
            reason = check_image(path)
            if reason is not None:
                tally.fault("broken_images", path, detail=reason)
                continue
            with path.open("rb") as file:
                digest.mark(name, path.stat().st_size)
                digest.update(file.read(_HASHED_BYTES))
            found.append(path)
        return tuple(found)


def find_all(
    folders: list[Path], items: list[str], tally: Tally, digest: Digest
) -> list[tuple[Path, ...]]:
    """Return each item's pictures from the first of the folders that exists."""
    folder = next((f for f in folders if f.is_dir()), folders[0])
    pictures = PictureFolder(folder)
    columns = [pictures.find(item, tally, digest) for item in items]
    tally.counts["items_without_image"] = sum(not images for images in columns)
    tally.counts["images"] = sum(map(len, columns))
    return columns
