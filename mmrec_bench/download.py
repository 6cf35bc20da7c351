"""Downloading a file so that a cut connection costs only what was not yet there.

What has come so far lies beside the target as `<name>.part`, with the address and the server's
validator in `<name>.part.json`. A later call goes on from there if the server says that the content
is still the same (`If-Range`), and else begins anew. The target appears only when it is complete.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from mmrec_bench.errors import DataMissingError, StorageError

log = logging.getLogger("mmrec_bench")

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes in all, None while unknown."""

_BLOCK = 1 << 16
_USER_AGENT = "mmrec-bench (+research data download)"
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 60.0
_RANGE_REFUSED = 416


class DownloadError(DataMissingError):
    """A file could not be downloaded; names the address, the reason and what is kept."""


class _CutError(Exception):
    """The connection ended too early, or the server asked to come back; worth another try."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class _Part:
    """What has come so far of one file."""

    path: Path
    url: str
    validator: str | None = None
    total: int | None = None
    note: Path = field(init=False)

    def __post_init__(self) -> None:
        self.note = self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def recall(self) -> None:
        """Read the note of an earlier call; what cannot be trusted to be the same is dropped."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            known = note["url"] == self.url and isinstance(note["validator"], str)
            self.validator = note["validator"] if known else None
        except (OSError, ValueError, KeyError, TypeError):
            self.validator = None
        if self.validator is None:
            self.clear()

    def remember(self) -> None:
        note = {"url": self.url, "validator": self.validator}
        self.note.write_text(json.dumps(note), encoding="utf-8")

    def clear(self) -> None:
        """Empty the part; the file itself stays, because the lock is on it."""
        os.truncate(self.path, 0)
        self.validator = self.total = None


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], str | None] | None = None,
    max_bytes: int | None = None,
    retries: int = 5,
    timeout_seconds: float = 30.0,
    backoff_seconds: float = 1.0,
    on_progress: Progress | None = None,
) -> Path:
    """Download `url` to `path`, going on from an earlier attempt; return `path`.

    A file that is already at `path` is kept, unless `sha256` is given and differs.

    Args:
        url: http or https.
        path: the target; its folder is made.
        sha256: hex digest that the content must have.
        check: looks at the complete file before it takes its place; returns what is wrong, or None.
        max_bytes: refuse more than this.
        retries: attempts in a row that may bring nothing new; the count starts again with each
            attempt that gets further than any before.
        timeout_seconds: longest silence of the server.
        backoff_seconds: wait before the second attempt, doubled for each further one.
        on_progress: told of every block.

    Raises:
        DownloadError: the address is no http(s) address, the server refuses it, the connection
            keeps breaking, or the content is not what `sha256` and `check` ask for.
        StorageError: the disk is full, the folder cannot be written, or another process is
            downloading the same file.
    """
    _check_address(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".part")) as part_path:
            if path.exists() and (sha256 is None or _digest(path) == sha256.lower()):
                return path
            part = _Part(part_path, url)
            part.recall()
            job = _Job(part, max_bytes, retries, timeout_seconds, backoff_seconds, on_progress)
            _fetch_checked(job, sha256, check)
            part.path.replace(path)
            part.note.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or any(c <= " " or c == "\x7f" for c in url):
        raise DownloadError(f"cannot download {url!r}: not an http or https address")


@dataclass
class _Job:
    part: _Part
    max_bytes: int | None
    retries: int
    timeout_seconds: float
    backoff_seconds: float
    on_progress: Progress | None


def _fetch_checked(
    job: _Job, sha256: str | None, check: Callable[[Path], str | None] | None
) -> None:
    """Fetch until the content is right; a wrong one after a resume gets one fresh start."""
    part = job.part
    resumed = part.size > 0
    _fetch(job)
    wrong = check(part.path) if check is not None else None
    if sha256 is not None and (found := _digest(part.path)) != sha256.lower():
        wrong = f"the content has sha256 {found}, expected {sha256.lower()}"
    if wrong is None:
        return
    part.clear()
    if not resumed:
        raise DownloadError(f"{part.url}: {wrong}")
    log.warning("%s: what was resumed is wrong (%s); starting again", part.url, wrong)
    _fetch_checked(job, sha256, check)


def _fetch(job: _Job) -> None:
    """Attempt until complete; only attempts that get no further count as failures."""
    part, failures, best = job.part, 0, job.part.size
    while True:
        try:
            _attempt(job)
            return
        except _CutError as cut:
            reason, asked = str(cut), cut.wait
        failures = 0 if part.size > best else failures + 1
        best = max(best, part.size)
        if failures > job.retries:
            raise DownloadError(
                f"{part.url}: {reason}; gave up after {failures} attempts without progress, "
                f"{part.size} bytes are kept in {part.path}: the same call goes on from there"
            )
        wait = job.backoff_seconds * 2 ** max(0, failures - 1)
        wait = min(_LONGEST_WAIT_SECONDS, wait if asked is None else max(asked, wait))
        log.info("%s: %s; trying again in %.1f s", part.url, reason, wait)
        time.sleep(wait)


def _attempt(job: _Job) -> None:
    """Ask once and append what comes; returns when the file is complete."""
    part = job.part
    start = part.size
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if start and part.validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": part.validator}
    request = urllib.request.Request(part.url, headers=headers)  # noqa: S310  (scheme checked)
    response = _open(job, request)
    if response is None:
        return
    with response:
        _begin(job, response, start)
        _copy(job, response)
    if part.total is not None and part.size != part.total:
        reason = f"connection cut at {part.size} of {part.total} bytes"
        if part.size > part.total:
            part.clear()
            reason = "the server sent more than it promised; starting again"
        raise _CutError(reason)


def _open(job: _Job, request: urllib.request.Request) -> HTTPResponse | None:
    """Return the response; None when the server says that all of it is here already."""
    try:
        response: HTTPResponse = _opener().open(request, timeout=job.timeout_seconds)
        return response
    except urllib.error.HTTPError as error:
        with error:
            _judge(job, error)
        return None
    except (http.client.InvalidURL, ssl.SSLCertVerificationError, ValueError) as error:
        raise DownloadError(f"cannot download {request.full_url!r}: {_line(error)}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{request.full_url}: {_line(error.reason)}") from None
        raise _CutError(f"cannot connect ({_line(error.reason)})") from None
    except (http.client.HTTPException, OSError) as error:
        raise _CutError(f"connection lost ({_line(error)})") from None


def _judge(job: _Job, error: urllib.error.HTTPError) -> None:
    """Turn a status that is no success into another try or an error; returns when complete."""
    part = job.part
    if error.code == _RANGE_REFUSED and part.size:
        if _content_range(error.headers.get("Content-Range", ""))[1] == part.size:
            return
        part.clear()
        raise _CutError("the server has less than what is here; starting again")
    if error.code in _TRY_AGAIN:
        wait = error.headers.get("Retry-After", "")
        raise _CutError(
            f"server answered {error.code} {error.reason}", float(wait) if wait.isdigit() else None
        )
    raise DownloadError(f"{part.url}: server answered {error.code} {error.reason}")


def _begin(job: _Job, response: HTTPResponse, start: int) -> None:
    """Compare the answer's headers with what is here; empties the part where they disagree."""
    part = job.part
    validator = _validator(response)
    length = response.headers.get("Content-Length", "")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        first, total = _content_range(response.headers.get("Content-Range", ""))
        changed = validator not in (None, part.validator)
        if first != start or changed or (part.total and total not in (None, part.total)):
            part.clear()
            raise _CutError("the server's part does not fit what is here; starting again")
        part.total = total if total is not None else part.total
    else:
        part.clear()
        part.validator = validator
        part.total = int(length) if length.isdigit() else None
        part.remember()
    if job.max_bytes is not None and (part.total or 0) > job.max_bytes:
        raise DownloadError(f"{part.url}: {part.total} bytes, more than {job.max_bytes}")


def _copy(job: _Job, response: HTTPResponse) -> None:
    part, done = job.part, job.part.size
    with part.path.open("ab") as file:
        for block in _blocks(response):
            file.write(block)
            done += len(block)
            if job.max_bytes is not None and done > job.max_bytes:
                raise DownloadError(f"{part.url}: more than {job.max_bytes} bytes")
            if job.on_progress is not None:
                job.on_progress(done, part.total)
        file.flush()
        os.fsync(file.fileno())


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield what comes; faults of the connection are kept apart from faults of the disk."""
    while True:
        try:
            block = response.read(_BLOCK)
        except http.client.IncompleteRead as error:
            yield error.partial
            # Reading on would look like a proper end.
            raise _CutError("connection cut") from None
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(f"connection lost ({_line(error)})") from None
        if not block:
            return
        yield block


def _validator(response: HTTPResponse) -> str | None:
    """Return what `If-Range` accepts: a strong ETag, else the date of the last change."""
    tag: str | None = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    date: str | None = response.headers.get("Last-Modified")
    return date


def _content_range(value: str) -> tuple[int | None, int | None]:
    """Read `bytes 5-99/100` as (5, 100)."""
    span, _, total = value.removeprefix("bytes ").partition("/")
    first = span.partition("-")[0].strip()
    return (
        int(first) if first.isdigit() else None,
        int(total) if total.strip().isdigit() else None,
    )


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, and never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise DownloadError(f"{req.full_url}: refused a redirect to {newurl!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    # Not build_opener: that one also opens file:, ftp: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _SafeRedirect(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Hold the part file's lock; the kernel drops it when the process dies."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise StorageError(f"{path} is being downloaded by another process")
        try:
            yield path
        finally:
            # Nothing was kept: leave no empty file behind. Still locked, so it is ours to remove.
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
                    path.with_name(path.name + ".json").unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
