"""A report on 127.0.0.1 that is written anew when a record appears, with runs under way."""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mmrec_bench.errors import MMRecError, StorageError
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import record_files
from mmrec_bench.report.live import runs_under_way
from mmrec_bench.report.site import Known, ReportOptions, build_report

log = logging.getLogger("mmrec_bench")
_LOOK_EVERY_SECONDS = 2.0
HOST = "127.0.0.1"


def serve(
    folders: Sequence[Path],
    target: Path,
    options: ReportOptions,
    plugins: Plugins,
    port: int,
    say: Callable[[str], object],
) -> None:
    """Write the report and show it until the process is interrupted.

    Args:
        folders: results folders.
        target: the report's folder.
        options: what it shows.
        plugins: for data sets and builders.
        port: 0 = one that is free.
        say: told the address.

    Raises:
        StorageError: the port is taken.
    """
    keeper = Keeper(folders, target, options, plugins)
    keeper.look()
    if keeper.failure and not (target / "index.html").exists():
        raise StorageError(keeper.failure)
    server = make_server(keeper, port)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(keeper, stop), daemon=True)
    watcher.start()
    say(f"http://{HOST}:{server.server_address[1]}/index.html  (Ctrl-C ends)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        log.info("ended")
    finally:
        stop.set()
        server.server_close()
        watcher.join(timeout=10)


class Keeper:
    """Keeps a report up to date with the records.

    Attributes:
        target: its folder.
        version: of the pages, counted up with each writing.
        failure: why the pages are not up to date; "" = they are.
    """

    def __init__(
        self, folders: Sequence[Path], target: Path, options: ReportOptions, plugins: Plugins
    ) -> None:
        self.folders, self.target = tuple(folders), target
        self.version, self.failure = 0, ""
        self._options, self._plugins = options, plugins
        self._known: Known = {}
        self._seen: list[tuple[str, int, int]] | None = None

    def look(self) -> bool:
        """Write the pages where records changed; return whether they were written."""
        found = self._records()
        if found == self._seen:
            return False
        self._seen = found
        try:
            build_report(self.folders, self.target, self._options, self._plugins, self._known)
        except MMRecError as error:
            self.failure = str(error)
            log.warning("the report was not written: %s", error)
            return False
        self.version, self.failure = self.version + 1, ""
        return True

    def state(self) -> dict[str, Any]:
        """Return what a page asks for while it is open."""
        runs = runs_under_way(self.folders)
        return {"version": self.version, "failure": self.failure, "runs": runs}

    def _records(self) -> list[tuple[str, int, int]]:
        found = []
        for folder in self.folders:
            for path in record_files(folder):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                found.append((str(path), status.st_mtime_ns, status.st_size))
        return found


def make_server(keeper: Keeper, port: int) -> ThreadingHTTPServer:
    """Return a server of the report alone, for this machine alone.

    Raises:
        StorageError: the port is taken.
    """
    handler = partial(_Handler, keeper, directory=str(keeper.target.absolute()))
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise StorageError(
            f"cannot listen on {HOST}:{port}: {error.strerror}; choose another --port, 0 = any"
        ) from None


def _watch(keeper: Keeper, stop: threading.Event) -> None:
    while not stop.wait(_LOOK_EVERY_SECONDS):
        if keeper.look():
            log.info("records changed: the report was written anew")


class _Handler(SimpleHTTPRequestHandler):
    """Reads files of the report; lists no folder, and answers only to its own name."""

    def __init__(self, keeper: Keeper, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        self._keeper = keeper
        super().__init__(*args, **kwargs)

    def send_head(self) -> Any:  # noqa: ANN401 - as the base class
        """Refuse other names: a page of the web must not read this through a rebound name."""
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, "ask 127.0.0.1")
            return None
        return super().send_head()

    def do_GET(self) -> None:
        """Answer live.json from memory and the rest from disk."""
        name = self.headers.get("Host", "").rpartition(":")[0]
        if self.path.partition("?")[0] != "/live.json" or name not in (HOST, "localhost"):
            super().do_GET()
            return
        body = json.dumps(self._keeper.state()).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def list_directory(self, path: Any) -> None:  # noqa: ANN401
        """Never list a folder."""
        self.send_error(HTTPStatus.NOT_FOUND, f"no page at {self.path!r}")
        del path

    def end_headers(self) -> None:
        """Let nothing be kept by the browser: the pages change."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Keep requests out of the terminal."""
        log.debug(format, *args)
