"""The embedded Amazon sample: a small shop generated from a seed, as raw Amazon 2018 files.

Generative model, all draws from one seeded generator:

- **Items.** Each has a brand (8), a material (8) and a noun (10), which make its title and
  metadata, and a colour (7), a shape (5) and a pattern (4), which are drawn in its JPEG and
  written nowhere else. All are uniform and independent; no two items share a title. Popularity is
  log-normal (sigma 0.6). 5 % of the items have no picture.
- **Backdrops** (an option). Every photo has one of 4 tinted backdrops, which users prefer like any
  other attribute, and which no words of an encoder name: what only a picture itself can tell.
- **Users.** Each prefers one value of every attribute but the noun, and three nouns. User u takes
  items one by one without replacement, P(i) proportional to popularity(i) x exp(sum of `STRENGTH`
  over the attributes where i has u's preferred value), 8 to 18 items a user.
- **Reviews.** Ratings rise with the match; texts speak of the brand, the material and the use,
  never of the look. Times are whole days from 2014 to 2018 in the order of the draws, so some are
  tied.
- **5-core.** Users and items with fewer than 5 interactions are dropped from the review file, as
  in the real `_5` files; the metadata keeps all items.
- **Flaws of the real data.** A few rows are repeated, some reviews lack a text or a name, some
  metadata lack price, brand or description.

About half of what a user's taste is worth is visible in the pictures only, so a recommender that
looks at them must beat one that does not.
"""

import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.errors import DataFormatError
from mmrec_plugins.datasets.sample_photos import BACKDROPS, COLOURS, PATTERNS, SHAPES, draw_picture

# Reserved: no other text of this project may use them (the pretraining corpus leaves them out).
BRANDS = ("Lunor", "Kovex", "Tadan", "Sezor", "Povel", "Hegan", "Zutek", "Bodan")
MATERIALS = ("ceramic", "glass", "steel", "cotton", "leather", "bamboo", "marble", "copper")
NOUNS = ("mug", "lamp", "bowl", "box", "clock", "plate", "bag", "cushion", "vase", "bottle")
BACKDROP_STRENGTH = 3.5
SLOTS = ("brand", "material", "noun", "colour", "shape", "pattern")
# Log-odds of an item per matching attribute, in the order of `SLOTS`.
STRENGTH = (2.0, 3.0, 0.5, 3.5, 2.0, 2.5)

Values = tuple[str, str, str, str, str, str]

CATEGORY = "Sample"
GENERATOR = 2  # raised whenever the same seed would give other files
_SIZES = (len(BRANDS), len(MATERIALS), len(NOUNS), len(COLOURS), len(SHAPES), len(PATTERNS))
_DAY = 86_400
_FIRST_DAY = 1_388_534_400 // _DAY  # 2014-01-01
_NAMES = ("Alex", "Chris", "Dana", "Jo", "Kim", "Lee", "Pat", "Robin", "Sam", "Terry")
_GOOD = (
    "I like this {noun}, and {brand} never lets me down.",
    "Well made, the {material} feels good. I would buy it again.",
    "A lovely {noun}. It came quickly and works as it should.",
    "Bought it for my sister, she loves it.",
    "Exactly as in the picture. {brand} does {material} well.",
)
_POOR = (
    "The {noun} is fine, but not quite what I had in mind.",
    "It broke after a month. I expected more of {brand}.",
    "The {material} feels cheap.",
)


@dataclass(frozen=True, slots=True)
class PlantedItem:
    """An item and the truth about it.

    Attributes:
        asin: the item's id.
        values: one word for each of `SLOTS`; the last three are in the picture only.
        has_picture: whether a JPEG is written.
        backdrop: number in `BACKDROPS`; None = a plain pale ground.
    """

    asin: str
    values: Values
    has_picture: bool
    backdrop: int | None = None

    @property
    def title(self) -> str:
        """Brand, material and noun."""
        return " ".join(self.values[:3])


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn, before it is written.

    Attributes:
        items: all items.
        codes: (n_items, 6) value numbers of each item, in the order of `SLOTS`.
        tastes: (n_users, 6) preferred value numbers; the noun is the first of three.
        histories: item numbers of each user in the order taken; () for users outside the 5-core.
    """

    items: tuple[PlantedItem, ...]
    codes: NDArray[np.int64]
    tastes: NDArray[np.int64]
    histories: tuple[tuple[int, ...], ...]


def draw_sample(*, seed: int, n_users: int, n_items: int, backdrops: bool = False) -> Sample:
    """Draw items, tastes and histories; see the module's docstring.

    Raises:
        ValueError: sizes for which no 5-core with distinct titles can be drawn.
    """
    n_titles = len(BRANDS) * len(MATERIALS) * len(NOUNS)
    if not 20 <= n_items <= n_titles or n_users < 20:
        raise ValueError(
            f"n_users {n_users}, n_items {n_items}: 20 of each at least, {n_titles} items at most"
        )
    rng = np.random.default_rng([seed, GENERATOR])
    titles = rng.permutation(n_titles)[:n_items]
    text = np.stack(np.unravel_index(titles, _SIZES[:3]), axis=1)
    look = np.stack([rng.integers(0, size, n_items) for size in _SIZES[3:]], axis=1)
    codes = np.concatenate([text, look], axis=1)
    has_picture = rng.random(n_items) >= 0.05
    numbers = rng.permutation(10**6)[:n_items]
    # Drawn from a stream of its own, so that all else is the same with and without.
    extra = np.random.default_rng([seed, GENERATOR, 2])
    backdrop = extra.integers(0, len(BACKDROPS), n_items)
    preferred = extra.integers(0, len(BACKDROPS), n_users)
    items = tuple(
        PlantedItem(f"BS{number:08d}", _values(row), bool(seen), ground if backdrops else None)
        for number, row, seen, ground in zip(
            numbers, codes, has_picture, backdrop.tolist(), strict=True
        )
    )
    popularity = rng.normal(0, 0.6, n_items)
    tastes = np.stack([rng.integers(0, size, n_users) for size in _SIZES], axis=1)
    matches = codes[None] == tastes[:, None]  # (users, items, 6)
    nouns = (codes[None, :, 2] - tastes[:, None, 2]) % len(NOUNS) < 3
    matches[:, :, 2] = nouns
    logits = popularity + matches @ np.array(STRENGTH)
    if backdrops:
        logits += BACKDROP_STRENGTH * (backdrop[None] == preferred[:, None])
    # Gumbel top-k: the best perturbed logits are a draw without replacement. Their order is
    # shuffled, else the last items, which are the test cases, would be what the taste left over.
    order = np.argsort(-(logits + rng.gumbel(size=logits.shape)), axis=1)
    lengths = 8 + rng.binomial(10, 0.35, n_users)
    drawn = [
        rng.permutation(order[u, : min(int(n), n_items // 2)]).tolist()
        for u, n in enumerate(lengths)
    ]
    histories = _five_core(drawn, n_items)
    if not any(histories):
        raise ValueError(
            f"{n_users} users and {n_items} items leave no 5-core; take more users or fewer items"
        )
    return Sample(items, codes, tastes, histories)


def _values(row: NDArray[np.int64]) -> Values:
    brand, material, noun, colour, shape, pattern = row.tolist()
    return (
        *(BRANDS[brand], MATERIALS[material], NOUNS[noun]),
        *(COLOURS[colour], SHAPES[shape], PATTERNS[pattern]),
    )


def _five_core(histories: list[list[int]], n_items: int) -> tuple[tuple[int, ...], ...]:
    while True:
        flat = [i for history in histories for i in history]
        rare = np.bincount(np.array(flat, np.int64), minlength=n_items) < 5
        kept = [[i for i in history if not rare[i]] for history in histories]
        kept = [history if len(history) >= 5 else [] for history in kept]
        if kept == histories:
            return tuple(tuple(history) for history in kept)
        histories = kept


def write_sample(
    folder: Path, *, seed: int, n_users: int = 400, n_items: int = 300, backdrops: bool = False
) -> None:
    """Write `Sample_5.json.gz`, `meta_Sample.json.gz` and `images/<asin>.jpg` into a new folder.

    The folder appears at once, by a rename, or not at all. The same arguments give the same bytes
    (JPEGs: under the same Pillow). A folder that holds this sample already is left as it is.

    Raises:
        DataFormatError: the folder exists and holds something else.
        ValueError: see `draw_sample`.
    """
    mark = {"generator": GENERATOR, "seed": seed, "n_users": n_users, "n_items": n_items}
    mark |= {"backdrops": 1} if backdrops else {}
    if _is_there(folder, mark):
        return
    sample = draw_sample(seed=seed, n_users=n_users, n_items=n_items, backdrops=backdrops)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        rng = np.random.default_rng([seed, GENERATOR, 1])
        _write_lines(new / f"{CATEGORY}_5.json.gz", _reviews(sample, rng))
        _write_lines(new / f"meta_{CATEGORY}.json.gz", _metadata(sample, rng))
        (new / "images").mkdir()
        for item in sample.items:
            picture = draw_picture(*item.values[3:], rng=rng, backdrop=item.backdrop)
            if item.has_picture:
                (new / "images" / f"{item.asin}.jpg").write_bytes(picture)
        (new / "sample.json").write_text(json.dumps(mark) + "\n", encoding="utf-8")
        new.chmod(0o755)
        try:
            new.rename(folder)
        except OSError:
            if not _is_there(folder, mark):  # another process may have been faster
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _is_there(folder: Path, mark: dict[str, int]) -> bool:
    if not folder.exists() or (folder.is_dir() and not os.listdir(folder)):  # noqa: PTH208
        return False
    try:
        found = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = "something else"
    if found != mark:
        raise DataFormatError(
            f"{folder} holds {found}, not the sample {mark}; choose another folder or remove it"
        )
    return True


def _write_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(text.encode())
    path.write_bytes(buffer.getvalue())


def _reviews(sample: Sample, rng: np.random.Generator) -> Iterable[dict[str, object]]:
    """Rows in the order of the items, as in the real files; a few of them twice."""
    rows: list[tuple[str, dict[str, object]]] = []
    for user, history in enumerate(sample.histories):
        days = np.sort(rng.integers(0, 1700, len(history))) + _FIRST_DAY
        for item, day in zip(history, days.tolist(), strict=True):
            row = _review(sample, user, item, day * _DAY, rng)
            rows += [(sample.items[item].asin, row)] * (2 if rng.random() < 0.004 else 1)
    rows.sort(key=lambda pair: pair[0])
    return [row for _, row in rows]


def _review(
    sample: Sample, user: int, item: int, time: int, rng: np.random.Generator
) -> dict[str, object]:
    product = sample.items[item]
    match = float((sample.codes[item] == sample.tastes[user]) @ np.array(STRENGTH))
    rating = int(np.clip(round(3.2 + match / 4 + rng.normal(0, 0.9)), 1, 5))
    texts = _GOOD if rating >= 4 else _POOR
    text = texts[rng.integers(len(texts))]
    when = datetime.fromtimestamp(time, UTC)
    row: dict[str, object] = {
        "overall": float(rating),
        "verified": bool(rng.random() < 0.9),
        "reviewTime": f"{when:%m} {when.day}, {when.year}",
        "reviewerID": f"AS{user:06d}",
        "asin": product.asin,
        "reviewerName": _NAMES[user % len(_NAMES)],
        "reviewText": text.format(**dict(zip(SLOTS[:3], product.values[:3], strict=True))),
        "summary": ("One Star", "Two Stars", "Three Stars", "Four Stars", "Five Stars")[rating - 1],
        "unixReviewTime": time,
    }
    for name in ("reviewText", "reviewerName", "summary"):
        if rng.random() < 0.02:
            del row[name]
    return row


def _metadata(sample: Sample, rng: np.random.Generator) -> Iterable[dict[str, object]]:
    asins = [item.asin for item in sample.items]
    for item in sorted(sample.items, key=lambda item: item.asin):
        brand, material, noun = item.values[:3]
        url = f"https://images.invalid/{item.asin}.jpg"
        row: dict[str, object] = {
            "category": ["Home & Kitchen", "Sample", noun.title()],
            "description": [f"This {noun} by {brand} is made of {material}."],
            "title": item.title,
            "image": [url] if item.has_picture else [],
            "brand": brand,
            "feature": [f"Material: {material}", "Gift wrap available"],
            "rank": f"{rng.integers(100, 90_000):,} in Home & Kitchen (",
            "price": f"${rng.integers(4, 60)}.99",
            "also_buy": [asins[i] for i in rng.integers(0, len(asins), 3)],
            "asin": item.asin,
        }
        for name in ("price", "description", "brand", "also_buy"):
            if rng.random() < 0.05:
                del row[name]
        yield row
