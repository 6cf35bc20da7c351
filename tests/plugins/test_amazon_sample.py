import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrec_bench.errors import DataFormatError
from mmrec_plugins.datasets.amazon import Amazon
from mmrec_plugins.datasets.amazon_sample import STRENGTH, draw_sample, write_sample
from mmrec_plugins.datasets.sample_photos import BACKDROPS, COLOURS, PATTERNS, SHAPES, draw_picture

SIZES: dict[str, Any] = {"n_users": 400, "n_items": 300}


def read(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "seed-0"
    write_sample(path, seed=0)
    return path


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", seed=0)
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(
        p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()
    )
    assert all((folder / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in names)


def test_another_seed_writes_other_reviews(folder: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "other", seed=1)
    assert read(tmp_path / "other" / "Sample_5.json.gz") != read(folder / "Sample_5.json.gz")


def test_every_reviewed_user_and_item_has_five_distinct_interactions(folder: Path) -> None:
    pairs = {(r["reviewerID"], r["asin"]) for r in read(folder / "Sample_5.json.gz")}
    for side in (0, 1):
        _, counts = np.unique([str(pair[side]) for pair in pairs], return_counts=True)
        assert counts.min() >= 5


def test_reviews_have_flaws_of_the_real_data(folder: Path) -> None:
    rows = read(folder / "Sample_5.json.gz")
    pairs = [(r["reviewerID"], r["asin"]) for r in rows]
    assert len(set(pairs)) < len(pairs)
    assert any("reviewText" not in r for r in rows)
    metadata = read(folder / "meta_Sample.json.gz")
    assert any("price" not in r for r in metadata)
    pictures = {p.stem for p in (folder / "images").iterdir()}
    assert 0 < len(metadata) - len(pictures) < len(metadata) // 5


def test_what_the_picture_shows_is_written_nowhere(folder: Path) -> None:
    for name in ("Sample_5.json.gz", "meta_Sample.json.gz"):
        text = gzip.decompress((folder / name).read_bytes()).decode().lower()
        for word in (*COLOURS, *SHAPES, *PATTERNS):
            assert word not in text, word


def test_titles_are_distinct() -> None:
    items = draw_sample(seed=3, **SIZES).items
    assert len({item.title for item in items}) == len({item.asin for item in items}) == len(items)


def test_users_take_what_they_prefer() -> None:
    sample = draw_sample(seed=4, **SIZES)
    strength = np.array(STRENGTH)
    everywhere = (sample.codes[None] == sample.tastes[:, None]) @ strength
    taken = [everywhere[u, list(h)].mean() for u, h in enumerate(sample.histories) if h]
    assert np.mean(taken) > 3 * everywhere.mean()


def test_the_last_item_is_as_typical_as_the_first() -> None:
    sample = draw_sample(seed=5, **SIZES)
    match = (sample.codes[None] == sample.tastes[:, None]) @ np.array(STRENGTH)
    users = [(u, h) for u, h in enumerate(sample.histories) if h]
    first = np.mean([match[u, h[0]] for u, h in users])
    last = np.mean([match[u, h[-1]] for u, h in users])
    assert abs(first - last) < 0.12 * (first + last)


def test_a_tenth_of_the_items_takes_far_more_than_its_share() -> None:
    histories = draw_sample(seed=6, **SIZES).histories
    counts = np.sort(np.bincount([i for h in histories for i in h]))[::-1]
    assert counts[:30].sum() > 0.17 * counts.sum()


def test_a_finished_sample_is_left_as_it_is(folder: Path) -> None:
    before = (folder / "Sample_5.json.gz").stat().st_mtime_ns
    write_sample(folder, seed=0)
    assert (folder / "Sample_5.json.gz").stat().st_mtime_ns == before


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(DataFormatError, match="choose another folder"):
        write_sample(tmp_path / "own", seed=0)
    assert [p.name for p in tmp_path.rglob("*")] == ["own", "notes.txt"]


def test_nothing_is_left_behind_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmrec_plugins.datasets.amazon_sample.draw_picture", fail)
    with pytest.raises(OSError, match="No space left"):
        write_sample(tmp_path / "sample", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="n_items 5"):
        draw_sample(seed=0, n_users=100, n_items=5)


def test_sizes_that_leave_no_five_core_are_named() -> None:
    with pytest.raises(ValueError, match="60 users and 300 items leave no 5-core"):
        draw_sample(seed=0, n_users=60, n_items=300)


def test_a_number_of_users_and_one_of_items_are_two_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path))
    for size in ("sample_users", "sample_items"):
        assert len(Amazon(Amazon.Config.model_validate({size: 200})).load(tmp_path).catalog)


def test_backdrops_change_tastes_and_nothing_else_of_an_item() -> None:
    plain = draw_sample(seed=3, n_users=200, n_items=150)
    tinted = draw_sample(seed=3, n_users=200, n_items=150, backdrops=True)
    assert [item.values for item in plain.items] == [item.values for item in tinted.items]
    assert all(item.backdrop is None for item in plain.items)
    backdrop = np.array([item.backdrop for item in tinted.items])
    taken = [np.bincount(backdrop[list(row)]) for row in tinted.histories if row]
    # Of what one user took, the commonest backdrop has far more than its quarter.
    assert np.mean([counts.max() / counts.sum() for counts in taken]) > 0.6


@pytest.mark.parametrize("number", range(len(BACKDROPS)))
def test_a_backdrop_is_the_ground_of_the_picture(number: int) -> None:
    rng = np.random.default_rng(0)
    drawn = draw_picture("red", "round", "plain", rng=rng, backdrop=number)
    corner = np.asarray(PIL.Image.open(io.BytesIO(drawn)))[3, 3].astype(int)
    assert np.abs(corner - BACKDROPS[number]).max() < 16
