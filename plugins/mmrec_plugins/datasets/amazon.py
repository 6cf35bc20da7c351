"""Amazon reviews: reviews, product texts and product photos, in the publishers' raw files.

Raw files are streamed: memory grows with the rows and items that are kept, not with the files. The
version is a SHA-256 over the unpacked content of the files read and over name, size and first 64 KB
of each picture used.
"""

import logging
import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig, added
from mmrec_bench.download import DownloadError, download
from mmrec_bench.errors import ConfigError, DataFormatError, StorageError
from mmrec_bench.images import check_image
from mmrec_bench.interfaces import FetchProgress
from mmrec_bench.paths import cache_dir
from mmrec_bench.types import BoolArray, Catalog, DataCard, Interactions, RecData, Vocabulary
from mmrec_plugins.datasets import pictures
from mmrec_plugins.datasets.amazon_files import PAGES, Source, choose, find
from mmrec_plugins.datasets.amazon_meta import META_FAULTS, Meta, read_meta
from mmrec_plugins.datasets.amazon_raw import (
    FIELDS,
    REVIEW_FAULTS,
    Columns,
    Format,
    read_reviews,
)
from mmrec_plugins.datasets.raw import Digest, Tally, check_gzip, same_time_rows, slug

log = logging.getLogger("mmrec_bench")

URLS: dict[Format, tuple[str, ...]] = {
    "2014": (
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{category}_5.json.gz",
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{category}.json.gz",
    ),
    "2018": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/{category}_5.json.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_{category}.json.gz",
    ),
    "2023": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/{category}.jsonl.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_{category}.jsonl.gz",
    ),
}
_PAPERS = {
    "2014": "McAuley et al., Image-based recommendations on styles and substitutes, SIGIR 2015",
    "2018": "Ni, Li, McAuley, Justifying recommendations, EMNLP 2019",
    "2023": "Hou et al., Bridging language and items for retrieval and recommendation, 2024",
}
_LARGEST_PHOTO_BYTES = 20_000_000
_PHOTO_FAILURES_IN_A_ROW = 20


class Amazon:
    """Amazon reviews of one category in the 2014, 2018 or 2023 layout, or the embedded sample.

    The layout is told from the content. Users and items are numbered in the order in which they
    appear in the review file; items nobody interacted with are left out. Rows that agree in user,
    item, time and rating are kept once; other repeats of a pair are left to the protocol.
    """

    class Config(ComponentConfig):
        """Which files to read and how strictly."""

        category: str | None = Field(
            None, description="e.g. Gift_Cards; may be left out where only one is there"
        )
        format: Literal["auto", "2014", "2018", "2023"] = Field(
            "auto", description="layout of the raw files; auto = by content"
        )
        images: Path | None = Field(
            None, description="folder of <asin>.* photos; default: images beside the reviews"
        )
        strict: bool = Field(
            default=False,
            description="stop at the first damaged file, unusable line or broken photo",
        )
        reviews: bool = added(
            default=False,
            description="keep what users wrote, for models that learn from it (families review and "
            "explanation of p5)",
        )
        sample_seed: int = Field(0, ge=0, description="seed of the embedded sample")
        sample_users: int | None = Field(None, ge=1, description="users of the embedded sample")
        sample_items: int | None = Field(None, ge=1, description="items of the embedded sample")
        sample_backdrops: bool = added(
            default=False,
            description="the embedded sample's photos have tinted backdrops, which users prefer "
            "and no encoder's words name",
        )
        urls: tuple[str, ...] = Field(
            (), description="addresses to fetch from, with {category}; default: the publisher's"
        )
        sha256: dict[str, str] = Field(
            default_factory=dict,
            description="file name -> hex digest that a fetched file must have",
        )
        fetch_images: bool = Field(
            default=False, description="fetch the first photo of each item as well"
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def search(cls, root: Path) -> dict[str, str]:
        """Return which Amazon sets lie at `root`, for `doctor`."""
        sources = find(root).sources
        shown = ", ".join(f"{source.category} ({source.layout})" for source in sources)
        nothing = "none: the embedded sample is used"
        return {f"Amazon reviews in {root.absolute()}": shown or nothing}

    def load(self, root: Path) -> RecData:
        """Read the category at `root` or in `root/amazon*`; the sample where there is no data.

        Raises:
            ConfigError: several categories or layouts fit.
            DataMissingError: a category was asked for that is not there.
            DataFormatError: the files hold no usable row, or `strict` and a fault.
        """
        source = choose(root, self.config.category, self.config.format)
        if source is None:
            return self._load_sample(root)
        name = f"amazon-{source.layout}-{slug(source.category)}"
        rows = "5-core file" if source.five_core else "all reviews"
        folders = [source.reviews.parent / "images", root / "images"]
        card = DataCard(
            source=f"{_PAPERS[source.layout]}; {PAGES[source.layout]}",
            licence="none stated (published for research)",
            notes=(f"{source.category}, {rows}, {source.layout} layout",),
        )
        return self._read(
            source, name, [self.config.images] if self.config.images else folders, card
        )

    def _load_sample(self, root: Path) -> RecData:
        # Pillow is needed to draw the sample, not to read data.
        from mmrec_plugins.datasets import amazon_sample  # noqa: PLC0415

        wanted = {"n_users": self.config.sample_users, "n_items": self.config.sample_items}
        sizes = {name: size for name, size in wanted.items() if size is not None}
        seed, backdrops = self.config.sample_seed, self.config.sample_backdrops
        name = "amazon-sample-backdrops" if backdrops else "amazon-sample"
        # "-u40-i60": of users and of items.
        sized = [f"{kind[2]}{size}" for kind, size in sizes.items()]
        key = "-".join([f"g{amazon_sample.GENERATOR}", f"s{seed}", *sized])
        folder = cache_dir() / "datasets" / f"{name}-{key}"
        log.warning(
            "no Amazon data in %s: using the embedded, generated %s (seed %d); for real data: "
            "mmrec-bench data fetch amazon --category Gift_Cards",
            *(root, name, seed),
        )
        try:
            amazon_sample.write_sample(folder, seed=seed, backdrops=backdrops, **sizes)
        except ValueError as error:
            raise ConfigError(f"dataset.sample_*: {error}") from None
        except OSError as error:
            raise StorageError(
                f"cannot write the sample to {folder}: {error.strerror or error}; "
                "set MMREC_CACHE to a folder that can be written"
            ) from None
        source = choose(folder, amazon_sample.CATEGORY, "2018")
        if source is None:
            raise DataFormatError(f"{folder} holds no sample; remove it to have it written again")
        card = DataCard(
            source=f"generated by mmrec-bench, seed {seed}",
            licence="that of mmrec-bench",
            notes=("generated: numbers on it say nothing about real shops",),
        )
        return self._read(source, name, [folder / "images"], card)

    def _read(self, source: Source, name: str, folders: list[Path], card: DataCard) -> RecData:
        reasons = {**REVIEW_FAULTS, **META_FAULTS, **pictures.FAULTS}
        tally = Tally(strict=self.config.strict, reasons=reasons)
        tally.counts["broken_titles"] = 0
        digest = Digest()
        digest.mark("amazon", source.layout)
        if self.config.reviews:
            digest.mark("reviews")
        columns = read_reviews(
            source.reviews, source.layout, tally, digest, texts=self.config.reviews
        )
        if not columns.user:
            faults = {name: n for name, n in tally.counts.items() if n}
            raise DataFormatError(f"{source.reviews} holds no usable row; read: {faults}")
        interactions = _interactions(columns, source.layout, tally)
        items = list(columns.items)
        found: dict[str, Meta] = {}
        if source.meta is not None:
            digest.mark("meta")
            found = read_meta(source.meta, source.layout, columns.items, tally, digest)
        tally.counts["items_without_meta"] = len(items) - len(found)
        nothing = Meta()
        metas = [found.get(item, nothing) for item in items]
        tally.counts["items_without_title"] = sum(not meta.title for meta in metas)
        catalog = Catalog(
            items=Vocabulary(items),
            title=[meta.title for meta in metas],
            text=[meta.text for meta in metas],
            attributes=[meta.attributes for meta in metas],
            images=pictures.find_all(folders, items, tally, digest),
            image_urls=[meta.image_urls for meta in metas],
        )
        tally.counts["same_time_rows"] = same_time_rows(interactions)
        tally.report(name)
        log.info(
            "%s: %d interactions of %d users with %d items, %d of them with a picture",
            name,
            len(interactions),
            len(columns.users),
            len(items),
            len(items) - tally.counts["items_without_image"],
        )
        return RecData(
            name=name,
            version=digest.version(),
            users=Vocabulary(list(columns.users)),
            catalog=catalog,
            interactions=interactions,
            card=DataCard(card.source, card.licence, dict(tally.counts), card.notes),
        )

    def fetch(self, root: Path, on_progress: FetchProgress) -> list[Path]:
        """Download the category's files, and photos if asked for, to `root`.

        A packed file is unpacked once to test its own checksum before it takes its place.

        Raises:
            ConfigError: no category, or an address without a usable file name.
            DownloadError: see `mmrec_bench.download.download`.
            StorageError: likewise.
        """
        if self.config.category is None:
            raise ConfigError("name what to fetch: --category, e.g. Gift_Cards")
        category = self.config.category.replace(" ", "_")
        layout: Format = "2018" if self.config.format == "auto" else self.config.format
        jobs = []
        for template in self.config.urls or URLS[layout]:
            url = template.replace("{category}", quote(category, safe=""))
            name = unquote(PurePosixPath(urlsplit(url).path).name)
            if not re.fullmatch(r"[A-Za-z0-9][\w.&-]*", name):
                raise ConfigError(f"{url!r} does not end in the name of a file")
            jobs.append((url, name))
        paths = [
            download(
                url,
                root / name,
                sha256=self.config.sha256.get(name),
                check=check_gzip,
                on_progress=partial(on_progress, name),
            )
            for url, name in jobs
        ]
        return paths + (self._fetch_images(root, on_progress) if self.config.fetch_images else [])

    def _fetch_images(self, root: Path, on_progress: FetchProgress) -> list[Path]:
        """Fetch the first photo of each item that has none; failures are counted, not raised."""
        data = self.load(root)
        folder = self.config.images or root / "images"
        wanted = [
            (item, urls[0])
            for item, urls, images in zip(
                data.catalog.items.ids, data.catalog.image_urls, data.catalog.images, strict=True
            )
            if urls and not images
        ]
        paths: list[Path] = []
        failed = in_a_row = came_bytes = 0
        for item, url in wanted:
            suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
            suffix = suffix if suffix in (".jpg", ".jpeg", ".png", ".gif", ".webp") else ".jpg"
            try:
                path = download(
                    url,
                    folder / f"{item}{suffix}",
                    check=check_image,
                    max_bytes=_LARGEST_PHOTO_BYTES,
                    retries=1,
                )
                paths.append(path)
                in_a_row = 0
                came_bytes += path.stat().st_size
                on_progress("images", came_bytes, None)
            except DownloadError as error:
                log.info("photo of %s: %s", item, error)
                failed, in_a_row = failed + 1, in_a_row + 1
                if in_a_row >= _PHOTO_FAILURES_IN_A_ROW:
                    log.warning("%d photos in a row failed, the last: %s", in_a_row, error)
                    break
        log.info("%d photos fetched, %d failed, %d wanted", len(paths), failed, len(wanted))
        return paths


def _interactions(columns: Columns, layout: Format, tally: Tally) -> Interactions:
    """Drop exact duplicates, count what is kept, sort by time in the file's own units."""
    user, item = np.frombuffer(columns.user, np.int32), np.frombuffer(columns.item, np.int32)
    time, rating = np.frombuffer(columns.time, np.int64), np.frombuffer(columns.rating, np.float64)
    # Stable: of equal rows the first in the file comes first.
    order = np.lexsort((rating, time, item, user))
    pair = _repeats(user[order]) & _repeats(item[order])
    same = pair & _repeats(time[order]) & _repeats(rating[order])
    keep = np.ones(len(user), np.bool_)
    keep[order[same]] = False
    tally.counts["duplicate_rows"] = int(same.sum())
    tally.counts["repeated_pairs"] = int(pair.sum() - same.sum())
    tally.counts["rows_kept"] = int(keep.sum())
    # 2023 times are in milliseconds: sorting before they are cut keeps the order within a second.
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(time[rows], kind="stable")]
    review = None
    if columns.review:
        review = np.fromiter(columns.review, np.object_, len(user))[rows]
        tally.counts["rows_with_review"] = sum(one is not None for one in review)
    return Interactions.build(
        user[rows],
        item[rows],
        time[rows] // FIELDS[layout].units,
        rating[rows],
        review=review,
    )


def _repeats(column: np.ndarray) -> BoolArray:
    """Tell for each row whether it equals the one before."""
    same = np.zeros(len(column), np.bool_)
    same[1:] = column[1:] == column[:-1]
    return same
