"""The contract of a `Dataset`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand
from mmrec_bench.errors import ConfigError, DataMissingError
from mmrec_bench.interfaces import Dataset
from mmrec_bench.registry import NAME_RULE, is_name
from mmrec_bench.types import DataCard, RecData


@dataclass
class DatasetSubject:
    """A data set, and files for it.

    Attributes:
        make: returns a new one with its options.
        load: reads its files, which it may first write below the folder that it is given.
        folder: an empty folder.
    """

    make: Callable[[], Dataset]
    load: Callable[[Path], RecData]
    folder: Path

    @cached_property
    def data(self) -> RecData:
        """What was loaded."""
        try:
            return self.load(self.folder)
        except DataMissingError as error:
            raise DoesNotApplyError(f"its files are not here: {error}") from None


def check_missing(subject: DatasetSubject) -> None:
    """Where there are no files, DataMissingError says where to put them."""
    empty = subject.folder / "empty"
    empty.mkdir(parents=True, exist_ok=True)
    mend = "raise DataMissingError with where to get the files and where to put them"
    try:
        subject.make().load(empty)
    except DataMissingError as error:
        demand(
            str(empty) in str(error), f"the message {error}", "the path of what is missing", mend
        )
    except ConfigError as error:
        raise DoesNotApplyError(f"its options do not say what to read: {error}") from None
    except OSError as error:
        demand(False, f"{type(error).__name__} where there are no files", "DataMissingError", mend)
    else:
        raise DoesNotApplyError("it brings its files along")


def check_columns(subject: DatasetSubject) -> None:
    """RecData whose interactions are sorted, typed, and inside the vocabularies."""
    data = subject.data
    demand(
        isinstance(data, RecData),
        f"a {type(data).__name__}",
        "RecData",
        "return RecData(...) from `load`",
    )
    rows = data.interactions
    demand(len(rows) > 0, "no interaction", "at least one", "check the file's format")
    build = "make the columns with Interactions.build(user, item, timestamp, rating)"
    columns = {"user": np.int32, "item": np.int32, "timestamp": np.int64, "rating": np.float32}
    for name, dtype in columns.items():
        column = getattr(rows, name)
        demand(
            column.dtype == dtype and column.shape == (len(rows),),
            f"interactions.{name} {column.dtype} {column.shape}",
            f"{np.dtype(dtype)} ({len(rows)},)",
            build,
        )
    demand(
        bool(np.isfinite(rows.rating).all()),
        f"{int((~np.isfinite(rows.rating)).sum())} ratings that are NaN or infinite",
        "finite ratings, 1.0 where there is none",
        "leave out such rows, or give Interactions.build no ratings",
    )
    for name, size in (("user", len(data.users)), ("item", len(data.catalog))):
        column = getattr(rows, name)
        demand(
            0 <= int(column.min()) <= int(column.max()) < size,
            f"{name} numbers {column.min()} to {column.max()}",
            f"numbers 0 to {size - 1} of the vocabulary",
            f"number {name}s by Vocabulary.index",
        )
    order = np.lexsort((rows.timestamp, rows.user))
    demand(
        bool((order == np.arange(len(rows))).all()),
        "interactions in another order",
        "that they are sorted by (user, timestamp), equal times in file order",
        build,
    )


def check_version(subject: DatasetSubject) -> None:
    """The same files give the same version and content; it is not empty."""
    subject.data  # noqa: B018 - skips where there are no files
    first, again = subject.load(subject.folder / "a"), subject.load(subject.folder / "b")
    demand(
        isinstance(first.version, str) and bool(first.version),
        f"version {first.version!r}",
        "a hash of the content",
        "hash the bytes of the files, e.g. hashlib.sha256(content).hexdigest()",
    )
    same = (
        first.version == again.version
        and first.users.ids == again.users.ids
        and first.catalog.items.ids == again.catalog.items.ids
        and np.array_equal(first.interactions.item, again.interactions.item)
    )
    demand(
        same,
        f"versions {first.version!r} and {again.version!r}, or another order, from the same files",
        "the same data set: its version and the order of its rows are part of a run's identity",
        "hash content, not paths or times; keep the order of the file, not of a set",
    )


def check_card(subject: DatasetSubject) -> None:
    """A reader learns where the data came from and under which licence."""
    card = subject.data.card
    demand(
        isinstance(card, DataCard) and bool(card.source) and bool(card.licence),
        f"card {card!r}",
        "source and licence",
        'fill in DataCard(source=..., licence=...); "none stated" where the publisher is silent',
    )
    odd = [f"{name} = {n!r}" for name, n in card.counts.items() if type(n) is not int]
    demand(
        not odd,
        f"counts {', '.join(odd)}",
        "an int for each count: they are written as JSON",
        "write int(...)",
    )


def check_name(subject: DatasetSubject) -> None:
    """The name in records is fit for a folder."""
    name = subject.data.name
    demand(
        is_name(name),
        f"name {name!r}",
        f"{NAME_RULE}: records lie in a folder of this name",
        "rename it; `run` refuses such a data set",
    )


CHECKS: tuple[Check[DatasetSubject], ...] = (
    Check("missing", "missing files are told with their place", check_missing),
    Check("columns", "interactions are sorted, typed and in range", check_columns),
    Check("version", "the same files give the same version", check_version),
    Check("card", "the card names source and licence", check_card),
    Check("name", "the name is fit for a folder", check_name),
)
