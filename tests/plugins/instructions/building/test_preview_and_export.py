import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmrec_bench.errors import ConfigError, DataFormatError
from mmrec_plugins.instructions.building.export import export
from mmrec_plugins.instructions.building.outputs import read_folder
from mmrec_plugins.instructions.building.preview import preview
from mmrec_plugins.instructions.building.writing import build
from tests.plugins.instructions.building.making import make_data, make_workshop, with_pictures

EVIL = '<script>alert("x")</script> "><img src=http://evil.example/x.png onerror=y> $title <image>'


class Tags(HTMLParser):
    """Collects elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    data = with_pictures(make_data(), root / "pictures")
    titles = [f"{EVIL} {title}" for title in data.catalog.title]
    data = replace(data, catalog=replace(data.catalog, title=titles))
    (root / "pictures" / "3.png").write_bytes(b"not a picture")
    build(make_workshop(data), root / "out")
    return root / "out"


def test_the_page_shows_each_kind_with_pictures_inside(folder: Path) -> None:
    page = preview(folder, per_kind=3, seed=0)
    tags = Tags()
    tags.feed(page)
    articles = [attrs["class"] for tag, attrs in tags.seen if tag == "article"]
    assert articles == [kind for kind in ("profile", "attributes", "zero-shot", "few-shot")
                        for _ in range(3)]  # fmt: skip
    pictures = [attrs for _, attrs in tags.seen if (attrs.get("class") or "").startswith("pic ")]
    assert len(pictures) > 12
    assert page.count("data:image/jpeg;base64,") <= 20  # each once, however often it is shown
    assert "[picture]" in page  # the broken one


def test_what_stands_in_a_title_is_text(folder: Path) -> None:
    page = preview(folder, per_kind=5, seed=0)
    tags = Tags()
    tags.feed(page)
    assert sum(tag == "script" for tag, _ in tags.seen) == 1
    assert not any(tag == "img" for tag, _ in tags.seen)
    assert not any(name.startswith("on") for _, attrs in tags.seen for name in attrs)
    assert "&lt;script&gt;alert(&quot;x&quot;)" in page
    assert "$title" in page


def test_the_page_asks_no_outside_host(folder: Path) -> None:
    page = preview(folder, per_kind=5, seed=0)
    tags = Tags()
    tags.feed(page)
    assert not any({"src", "href"} & set(attrs) for _, attrs in tags.seen)
    assert set(re.findall(r"url\((\w+):", page)) == {"data"}
    assert "default-src 'none'" in page


def test_a_folder_without_a_corpus_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="holds no instruction corpus"):
        preview(tmp_path, per_kind=1, seed=0)


def test_sharegpt_has_a_picture_for_each_place_and_ends_with_the_answer(
    folder: Path, tmp_path: Path
) -> None:
    counts = export(folder, tmp_path, "sharegpt", pictures=True)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == set(counts)
    assert sum(counts.values()) == len(read_folder(folder))
    for name, one in info.items():
        assert one["formatting"] == "sharegpt"
        assert one["columns"] == {"messages": "conversations", "images": "images"}
        rows = json.loads((tmp_path / one["file_name"]).read_text())
        assert len(rows) == counts[name]
        for row in rows:
            said = row["conversations"]
            assert [turn["from"] for turn in said] == ["human", "gpt"] * (len(said) // 2)
            assert sum(turn["value"].count("<image>") for turn in said) == len(row["images"])
            assert all((tmp_path / path).is_file() for path in row["images"])


def test_alpaca_has_demonstrations_as_history(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path, "alpaca", pictures=False)
    (path,) = tmp_path.glob("*few-shot-train.json")
    rows = json.loads(path.read_text())
    entries = [e for e in read_folder(folder) if e.kind == "few-shot" and e.split == "train"]
    for row, entry in zip(rows, entries, strict=True):
        assert set(row) == {"instruction", "input", "output", "history"}
        assert row["output"] == entry.answer.replace("<image>", "< image>")
        assert len(row["history"]) == 4
        assert "<image>" not in json.dumps(row)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info[path.stem]["columns"] == {
        "prompt": "instruction", "query": "input", "response": "output", "history": "history",
    }  # fmt: skip


def test_other_data_sets_of_a_dataset_info_stay(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text('{"mine": {"file_name": "mine.json"}}')
    export(folder, tmp_path, "alpaca", pictures=False)
    assert json.loads(path.read_text())["mine"] == {"file_name": "mine.json"}
    path.write_text("not json")
    with pytest.raises(ConfigError, match="nothing can be added"):
        export(folder, tmp_path, "alpaca", pictures=False)
