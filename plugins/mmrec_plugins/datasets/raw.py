"""Reading raw files that may be damaged: lines, counts of what was lost, and content hashes."""

import hashlib
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmrec_bench.errors import DataFormatError
from mmrec_bench.types import Interactions

if TYPE_CHECKING:
    from hashlib import _Hash

log = logging.getLogger("mmrec_bench")

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is cut here, so that a file without line ends cannot fill the memory."""
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 20
_PACKED_BYTES = 1 << 16
"""Read at a time of a packed file: what is not unpacked yet is copied again and again."""
_UNPACKED_BYTES = 1 << 20


class Tally:
    """Counts what was read and what was left out, and why.

    Args:
        strict: raise at the first fault instead of counting it.
        reasons: count -> what is wrong, in words, for strict errors.
    """

    def __init__(self, *, strict: bool, reasons: Mapping[str, str]) -> None:
        self.strict = strict
        self.reasons = reasons
        self.counts: Counter[str] = Counter(dict.fromkeys(reasons, 0))

    def fault(
        self, name: str, path: Path, line: int | None = None, detail: str | None = None
    ) -> None:
        """Count one fault; `detail` replaces the reason in the message.

        Raises:
            DataFormatError: `strict`; names the file and the line.
        """
        self.counts[name] += 1
        if self.strict:
            where = f"{path}, line {line}" if line is not None else f"{path}"
            raise DataFormatError(f"{where}: {detail or self.reasons[name]} (strict)")

    def report(self, name: str) -> None:
        """Log one line of all faults that occurred."""
        found = [f"{self.counts[key]} {key}" for key in self.reasons if self.counts[key]]
        if found:
            log.warning("%s: left out or repaired while reading: %s", name, ", ".join(found))


class Digest:
    """A hash over everything that a data set was read from, in the order of reading."""

    def __init__(self) -> None:
        self._hash: _Hash = hashlib.sha256()

    def update(self, content: bytes) -> None:
        """Add content as it passes."""
        self._hash.update(content)

    def mark(self, *words: object) -> None:
        """Add words with their lengths, so that neighbours cannot be confused."""
        for word in words:
            text = str(word).encode("utf-8", "surrogateescape")
            self._hash.update(b"%d:" % len(text) + text)

    def version(self) -> str:
        """Return 16 hex digits of the SHA-256."""
        return self._hash.hexdigest()[:16]


def read_lines(
    path: Path, tally: Tally | None = None, digest: Digest | None = None
) -> Iterator[bytes]:
    r"""Yield the lines of a plain or gzipped file without their ends; 1 MB in memory at a time.

    What a damaged gzip file still gives is yielded, and `truncated_files` counted. The hash is of
    the unpacked content, so that packing it again does not make it another data set.

    Raises:
        DataFormatError: the file cannot be opened or read at all.
    """
    for block in read_blocks(path, tally, digest):
        yield from block.split(b"\n")


def read_blocks(
    path: Path, tally: Tally | None = None, digest: Digest | None = None
) -> Iterator[bytes]:
    r"""Yield a file as `read_lines` does, but many whole lines at once, joined by `\n`.

    Raises:
        DataFormatError: the file cannot be opened or read at all.
    """
    tail, begun = b"", False
    for chunk in _chunks(path, tally):
        if digest is not None:
            digest.update(chunk)
        content = chunk if begun else chunk.removeprefix(_BYTE_ORDER_MARK)
        begun = True
        lines, end, rest = content.rpartition(b"\n")
        # The tail is joined only where a line ends: a giant line is not copied at each chunk.
        if not end:
            if len(tail) < MAX_LINE_BYTES:
                tail += rest
            continue
        yield tail + lines
        tail = rest
    if tail:
        yield tail


def check_gzip(path: Path) -> str | None:
    """Return why a packed file cannot be unpacked to its end, checksum included; or None."""
    tally = Tally(strict=False, reasons={"truncated_files": ""})
    for _ in _chunks(path, tally):
        pass
    return "the compressed content is damaged" if tally.counts["truncated_files"] else None


def _chunks(path: Path, tally: Tally | None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            first = file.read(_PACKED_BYTES)
            if first.startswith(_GZIP_MAGIC):
                yield from _unpack(path, _blocks(file, first, _PACKED_BYTES), tally)
            else:
                yield from _blocks(file, first, _READ_BYTES)
    except OSError as error:
        raise DataFormatError(f"cannot read {path}: {error.strerror or error}") from None


def _blocks(
    file: Any,  # noqa: ANN401 - an open binary file
    first: bytes,
    size: int,
) -> Iterator[bytes]:
    block = first
    while block:
        yield block
        block = file.read(size)


def _unpack(path: Path, blocks: Iterable[bytes], tally: Tally | None) -> Iterator[bytes]:
    """Unpack gzip members one after another, at most `_UNPACKED_BYTES` at a time.

    Not the gzip module: where a file is damaged, that one drops the line it was in.
    """
    unpacker: Any = zlib.decompressobj(wbits=31)
    whole = False
    for packed in blocks:
        rest = packed
        while rest:
            if whole:
                rest = rest.lstrip(b"\0")  # padding after a member is allowed
                if not rest:
                    break
                unpacker, whole = zlib.decompressobj(wbits=31), False
            try:
                unpacked = unpacker.decompress(rest, _UNPACKED_BYTES)
            except zlib.error:
                _truncated(path, tally)
                return
            if unpacked:
                yield unpacked
            whole = unpacker.eof
            rest = unpacker.unused_data if whole else unpacker.unconsumed_tail
    if not whole:
        if left := unpacker.flush():
            yield left
        _truncated(path, tally)


def _truncated(path: Path, tally: Tally | None) -> None:
    if tally is not None:
        tally.fault("truncated_files", path)


def same_time_rows(interactions: Interactions) -> int:
    """Count rows whose user has another row at the same time: their order is not known."""
    if len(interactions) < 2:
        return 0
    same = (np.diff(interactions.user) == 0) & (np.diff(interactions.timestamp) == 0)
    tied = np.zeros(len(interactions), np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    return int(tied.sum())


def slug(text: str) -> str:
    """Return a name in lower case with `-` between words: `Gift_Cards` -> `gift-cards`."""
    words = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    return "-".join(words)
