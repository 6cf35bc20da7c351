"""Fetching Amazon files and photos from a loopback server that cuts connections."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmrec_bench.download import DownloadError
from mmrec_bench.errors import ConfigError
from mmrec_bench.interfaces import Fetches
from mmrec_plugins.datasets.amazon import URLS, Amazon
from tests.plugins.datasets.making import lines, meta_2018, pack, picture, review_2018


class Publisher:
    """Serves a folder and cuts the first answers of each file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cuts = folder, 2
        self.asked: list[str] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Stay silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = self.folder / request.path.lstrip("/")
        self.asked.append(request.path)
        if not path.is_file():
            request.send_error(404)
            return
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = request.headers.get("Range")
        start = int(asked[6:-1]) if asked and request.headers.get("If-Range") == tag else 0
        request.send_response(206 if start else 200)
        request.send_header("ETag", tag)
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        cut = self.asked.count(request.path) <= self.cuts
        request.wfile.write(content[start : start + len(content) // 3] if cut else content[start:])

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def ignore(name: str, done: int, total: int | None) -> None:
    """Take progress and do nothing."""


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda _: None)
    publisher = Publisher(tmp_path / "published")
    yield publisher
    publisher.close()


def amazon(publisher: Publisher, **options: object) -> Amazon:
    urls = [
        f"{publisher.base}/{{category}}_5.json.gz",
        f"{publisher.base}/meta_{{category}}.json.gz",
    ]
    return Amazon(Amazon.Config.model_validate({"category": "Gift Cards", "urls": urls, **options}))


def publish(publisher: Publisher) -> None:
    rows = [review_2018(f"A{i}", reviewText="long " * 50) for i in range(300)]
    pack(publisher.folder / "Gift_Cards_5.json.gz", lines(rows))
    url = f"{publisher.base}/photo.jpg"
    meta = meta_2018(imageURLHighRes=[url])
    pack(publisher.folder / "meta_Gift_Cards.json.gz", lines([meta]))


def test_amazon_offers_to_fetch() -> None:
    assert isinstance(Amazon(Amazon.Config()), Fetches)


def test_what_was_fetched_over_cut_connections_loads(publisher: Publisher, tmp_path: Path) -> None:
    publish(publisher)
    root = tmp_path / "root"
    seen: dict[str, tuple[int, int | None]] = {}

    def on_progress(name: str, done: int, total: int | None) -> None:
        seen[name] = (done, total)

    paths = amazon(publisher).fetch(root, on_progress)
    assert [path.name for path in paths] == ["Gift_Cards_5.json.gz", "meta_Gift_Cards.json.gz"]
    for path in paths:
        assert path.read_bytes() == (publisher.folder / path.name).read_bytes()
    assert seen == {path.name: (path.stat().st_size,) * 2 for path in paths}
    assert sorted(path.name for path in root.iterdir()) == sorted(path.name for path in paths)
    data = Amazon(Amazon.Config(strict=True)).load(root)
    assert (data.name, len(data.users)) == ("amazon-2018-gift-cards", 300)


def test_a_damaged_packed_file_does_not_take_its_place(
    publisher: Publisher, tmp_path: Path
) -> None:
    publish(publisher)
    path = publisher.folder / "Gift_Cards_5.json.gz"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DownloadError, match="compressed content is damaged"):
        amazon(publisher).fetch(tmp_path / "root", ignore)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_checksum_that_was_given_is_checked(publisher: Publisher, tmp_path: Path) -> None:
    publish(publisher)
    wrong = {"Gift_Cards_5.json.gz": hashlib.sha256(b"").hexdigest()}
    with pytest.raises(DownloadError, match="expected e3b0c442"):
        amazon(publisher, sha256=wrong).fetch(tmp_path / "root", ignore)


def test_a_category_that_the_publisher_lacks_is_named(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"Gift_Cards_5.json.gz: server answered 404"):
        amazon(publisher).fetch(tmp_path / "root", ignore)


def test_photos_are_fetched_when_asked_for(publisher: Publisher, tmp_path: Path) -> None:
    publish(publisher)
    publisher.cuts = 0
    picture(publisher.folder / "photo.jpg")
    paths = amazon(publisher, fetch_images=True).fetch(tmp_path / "root", ignore)
    assert paths[-1] == tmp_path / "root" / "images" / "B000000001.jpg"
    data = Amazon(Amazon.Config()).load(tmp_path / "root")
    assert data.catalog.images[0] == (paths[-1],)


def test_photos_that_are_none_or_missing_are_left_out(publisher: Publisher, tmp_path: Path) -> None:
    publish(publisher)
    publisher.cuts = 0
    assert len(amazon(publisher, fetch_images=True).fetch(tmp_path / "a", ignore)) == 2
    (publisher.folder / "photo.jpg").write_bytes(b"<html>")
    assert len(amazon(publisher, fetch_images=True).fetch(tmp_path / "b", ignore)) == 2
    assert list((tmp_path / "b" / "images").iterdir()) == []


def test_a_fetch_without_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--category"):
        Amazon(Amazon.Config()).fetch(tmp_path, ignore)


@pytest.mark.parametrize("url", ["http://h/", "http://h/..", "http://h/%2e%2e%2fx", "http://h/.a"])
def test_an_address_cannot_choose_a_place_outside_the_root(tmp_path: Path, url: str) -> None:
    config = Amazon.Config(category="X", urls=(url,))
    with pytest.raises(ConfigError, match="does not end in the name of a file"):
        Amazon(config).fetch(tmp_path, ignore)


def test_a_category_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    config = Amazon.Config(category="../../etc/x", urls=("http://h/{category}.json.gz",))
    with pytest.raises(ConfigError, match="does not end in the name of a file"):
        Amazon(config).fetch(tmp_path, ignore)


@pytest.mark.parametrize("layout", URLS)
def test_every_layout_has_the_publishers_addresses(layout: str) -> None:
    assert all(url.startswith("https://") and "{category}" in url for url in URLS[layout])  # type: ignore[index]
