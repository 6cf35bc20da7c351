"""Opening the pictures that an encoder looks at, a batch at a time."""

from collections.abc import Iterator, Sequence

from PIL import Image

from mmrec_bench.errors import DataFormatError
from mmrec_bench.images import open_image
from mmrec_bench.types import Item


def open_first(item: Item) -> Image.Image | None:
    """The first picture as RGB; None where there is none, or it cannot be decoded."""
    if not item.images:
        return None
    try:
        return open_image(item.images[0])
    except DataFormatError:
        return None  # counted by whoever asked for the whole catalog


def picture_batches(
    items: Sequence[Item], size: int
) -> Iterator[tuple[list[int], list[Image.Image]]]:
    """Yield (positions in `items`, their pictures), at most `size` decoded at a time."""
    rows: list[int] = []
    pictures: list[Image.Image] = []
    for row, item in enumerate(items):
        picture = open_first(item)
        if picture is None:
            continue
        rows.append(row)
        pictures.append(picture)
        if len(rows) == size:
            yield rows, pictures
            rows, pictures = [], []
    if rows:
        yield rows, pictures
