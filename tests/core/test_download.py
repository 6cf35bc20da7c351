"""Downloads over a loopback server that misbehaves on purpose."""

import hashlib
import json
import resource
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmrec_bench.download import DownloadError, download
from mmrec_bench.errors import StorageError

CONTENT = bytes(range(256)) * 2000
OTHER = CONTENT[::-1]


class Server:
    """Serves `content`; each field says how it misbehaves."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.cut_after: list[int] = []  # bytes sent before the connection is cut, one a request
        self.statuses: list[int] = []  # answered instead of the content, one a request
        self.knows_range = True
        self.length_off_by = 0
        self.chunked = False
        self.redirect = ""
        self.after_request: Callable[[], None] = lambda: None
        self.ranges: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)
                server.after_request()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Stay silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data.bin"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        request.close_connection = True
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.end_headers()
            return
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        same = self.etag is not None and request.headers.get("If-Range") == self.etag
        if asked and same and self.knows_range:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            end, total = len(self.content) - 1, len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        if self.etag:
            request.send_header("ETag", self.etag)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(len(body) + self.length_off_by))
        request.end_headers()
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
        if self.chunked:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            if len(body) == len(self.content) - start:
                request.wfile.write(b"0\r\n\r\n")
        else:
            request.wfile.write(body)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.close()


def get(server: Server, path: Path, *, retries: int = 3, sha256: str | None = None) -> Path:
    return download(server.url, path, retries=retries, backoff_seconds=0.001, sha256=sha256)


def test_a_file_arrives_whole_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "deep" / "data.bin")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["data.bin"]


def test_cut_connections_are_resumed_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 150_000, 10]
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=250000-", "bytes=250010-"]


def test_a_later_call_goes_on_from_what_is_kept(server: Server, tmp_path: Path) -> None:
    server.cut_after = [200_000] + [0] * 9
    with pytest.raises(DownloadError, match=r"200000 of 512000 bytes.*200000 bytes are kept"):
        get(server, tmp_path / "data.bin")
    assert not (tmp_path / "data.bin").exists()
    server.cut_after, server.ranges = [], []
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-"]


def test_a_cut_chunked_answer_is_noticed(server: Server, tmp_path: Path) -> None:
    server.chunked, server.cut_after = True, [100_000]
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_for_all_of_it(server: Server, tmp_path: Path) -> None:
    server.knows_range, server.cut_after = False, [300_000, 200_000]
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_never_gets_further_is_given_up(server: Server, tmp_path: Path) -> None:
    server.knows_range, server.cut_after = False, [1000] * 50
    with pytest.raises(DownloadError, match="gave up after 4 attempts"):
        get(server, tmp_path / "data.bin")
    assert len(server.ranges) <= 6


def test_content_that_changes_midway_is_not_mixed(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000]

    def change() -> None:
        server.content, server.etag = OTHER, '"two"'

    server.after_request = change
    assert get(server, tmp_path / "data.bin").read_bytes() == OTHER


def test_nothing_is_resumed_without_a_validator(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut_after = None, [300_000]
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_part_of_another_address_is_not_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(OTHER[:1000])
    note = {"url": "http://elsewhere/data.bin", "validator": '"one"'}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(note))
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_torn_note_means_a_fresh_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(OTHER[:1000])
    (tmp_path / "data.bin.part.json").write_text('{"url": ')
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_complete_part_needs_no_second_download(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    note = {"url": server.url, "validator": '"one"'}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(note))
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == ["bytes=512000-"]


def test_a_promise_of_too_much_ends_where_the_server_says(server: Server, tmp_path: Path) -> None:
    server.length_off_by = 7
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=512000-"]


def test_a_promise_of_too_much_without_ranges_is_an_error(server: Server, tmp_path: Path) -> None:
    server.length_off_by, server.knows_range = 7, False
    with pytest.raises(DownloadError, match="512000 of 512007 bytes"):
        get(server, tmp_path / "data.bin", retries=1)
    assert not (tmp_path / "data.bin").exists()


def test_a_promise_of_too_little_is_caught_by_the_checksum(server: Server, tmp_path: Path) -> None:
    server.length_off_by = -7
    with pytest.raises(DownloadError, match="sha256"):
        get(server, tmp_path / "data.bin", sha256=hashlib.sha256(CONTENT).hexdigest())
    assert list(tmp_path.iterdir()) == []


def test_a_right_checksum_passes_in_either_case(server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest().upper()
    assert get(server, tmp_path / "data.bin", sha256=digest).read_bytes() == CONTENT


def test_a_wrong_part_gets_one_fresh_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(OTHER[:1000])
    note = {"url": server.url, "validator": '"one"'}
    (tmp_path / "data.bin.part.json").write_text(json.dumps(note))
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert get(server, tmp_path / "data.bin", sha256=digest).read_bytes() == CONTENT


def test_a_missing_file_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(DownloadError, match="server answered 404") as missing:
        get(server, tmp_path / "data.bin")
    assert server.url in str(missing.value)
    assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT


def test_no_server_at_all_is_a_clear_error(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(DownloadError, match="cannot connect"):
        get(server, tmp_path / "data.bin", retries=1)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a/b", "data:,x", "a/b", "http://", "http://[::1", "http://a b/"],
)
def test_only_http_is_opened(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="not an http or https address"):
        download(url, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_a_file_is_refused(server: Server, tmp_path: Path) -> None:
    server.redirect = "file:///etc/passwd"
    with pytest.raises(DownloadError, match=r"[Rr]edirect"):
        get(server, tmp_path / "data.bin")
    assert not (tmp_path / "data.bin").exists()


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "data.bin")
    get(server, tmp_path / "data.bin")
    assert len(server.ranges) == 1


def test_more_than_allowed_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="more than 1000"):
        download(server.url, tmp_path / "data.bin", max_bytes=1000)
    server.chunked = True
    with pytest.raises(DownloadError, match="more than 1000"):
        download(server.url, tmp_path / "data.bin", max_bytes=1000)


def test_a_check_decides_before_the_file_takes_its_place(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no good"):
        download(server.url, tmp_path / "data.bin", check=lambda _: "no good")
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(server.url, tmp_path / "data.bin", on_progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen, key=lambda at: at[0])


def test_a_second_download_of_the_same_file_is_refused(server: Server, tmp_path: Path) -> None:
    def again(_: int, __: int | None) -> None:
        with pytest.raises(StorageError, match="another process"):
            get(server, tmp_path / "data.bin")

    path = download(server.url, tmp_path / "data.bin", on_progress=again)
    assert path.read_bytes() == CONTENT


def test_a_full_disk_is_one_clear_line_and_what_came_is_kept(
    server: Server, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*data\.bin: File too large"):
            get(server, tmp_path / "data.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert get(server, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=200000-"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        get(server, tmp_path / "file" / "data.bin")
