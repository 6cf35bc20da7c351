import contextvars
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mmrec_bench.config import identity
from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError, MMRecError
from mmrec_bench.paths import use_data_root
from mmrec_bench.types import Catalog, Item, Vocabulary
from mmrec_bench.vectors import encode_catalog
from mmrec_plugins.encoders.features import Features

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def features(folder: Path, table: object = TABLE, **options: object) -> Features:
    if isinstance(table, np.ndarray):
        np.save(folder / "table.npy", table)
    return Features(Features.Config.model_validate({"file": folder / "table.npy", **options}))


def named(*ids: str) -> list[Item]:
    return [Item(i, name, "x") for i, name in enumerate(ids)]


def ids_file(folder: Path, ids: Sequence[object], name: str = "ids.txt") -> Path:
    path = folder / name
    text = json.dumps(ids) if path.suffix == ".json" else "\n".join(map(str, ids)) + "\n"
    path.write_text(text)
    return path


def test_the_row_of_a_numbered_item_is_its_number(tmp_path: Path) -> None:
    found = features(tmp_path).encode(named("2", "0"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, TABLE[[2, 0]])


def test_numbers_may_start_at_one(tmp_path: Path) -> None:
    found = features(tmp_path, first_id=1).encode(named("1", "4", "0", "5"))
    np.testing.assert_array_equal(found[:2], TABLE[[0, 3]])
    assert np.isnan(found[2:]).all()


@pytest.mark.parametrize("name", ["ids.txt", "ids.json"])
def test_rows_follow_the_ids_where_they_are_given(tmp_path: Path, name: str) -> None:
    path = ids_file(tmp_path, ["B2", "B1", 7, "B0"], name)
    found = features(tmp_path, ids=path).encode(named("B0", "7", "unknown", "B2"))
    np.testing.assert_array_equal(found[[0, 1, 3]], TABLE[[3, 2, 0]])
    assert np.isnan(found[2]).all()


def test_an_item_without_a_picture_has_its_vector(tmp_path: Path) -> None:
    catalog = Catalog(Vocabulary(["1", "3"]), title=["a", "b"])
    found = encode_catalog(catalog, features(tmp_path), "features")
    np.testing.assert_array_equal(found, TABLE[[1, 3]])


def test_items_that_the_file_lacks_are_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Catalog(Vocabulary(["1", "8", "9"]), title=["a", "b", "c"])
    encode_catalog(catalog, features(tmp_path), "features")
    (record,) = caplog.records
    assert record.getMessage() == "2 of 3 items have no vector from features; the first is '8'"


def test_a_file_for_other_items_is_refused(tmp_path: Path) -> None:
    catalog = Catalog(Vocabulary(["8", "9"]), title=["a", "b"])
    with pytest.raises(ConfigError, match=r"no vector for any of the 2 items.*'8'"):
        encode_catalog(catalog, features(tmp_path), "features")


def test_a_row_of_nan_is_no_vector(tmp_path: Path) -> None:
    table = TABLE.copy()
    table[1] = np.nan
    assert np.isnan(features(tmp_path, table).encode(named("1"))).all()


def test_float16_is_float32_before_anything_is_summed(tmp_path: Path) -> None:
    table = np.full((200, 2), 60000, np.float16)
    found = features(tmp_path, table).encode(named(*map(str, range(200))))
    assert found.dtype == np.float32
    assert found.sum() == 200 * 2 * 60000


@pytest.mark.parametrize("dtype", [">f4", np.float64, np.int16, np.uint8])
def test_other_numbers_are_converted(tmp_path: Path, dtype: str) -> None:
    found = features(tmp_path, TABLE.astype(dtype)).encode(named("2"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, TABLE[[2]])


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_a_row_that_float32_cannot_hold_is_named(tmp_path: Path, value: float) -> None:
    table = TABLE.astype(np.float64)
    table[2, 1] = value
    encoder = features(tmp_path, table)
    encoder.encode(named("1"))
    with pytest.raises(DataFormatError, match=r"table.npy: row 2 \(item '2'\)"):
        encoder.encode(named("1", "2"))


def test_the_table_is_mapped_and_not_read_whole(tmp_path: Path) -> None:
    assert isinstance(features(tmp_path)._table, np.memmap)


@pytest.mark.parametrize(
    "table",
    [
        np.zeros(3),
        np.zeros((0, 3)),
        np.zeros((2, 0)),
        np.zeros((2, 3, 4)),
        np.zeros((2, 2), complex),
        np.zeros((2, 2), bool),
        np.array([["a", "b"]]),
    ],
    ids=["one axis", "no rows", "no columns", "three axes", "complex", "bool", "text"],
)
def test_what_is_no_table_of_numbers_is_one_clear_line(tmp_path: Path, table: object) -> None:
    with pytest.raises(DataFormatError, match=r"expected numbers of shape \(rows, columns\)"):
        features(tmp_path, table)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


@pytest.mark.parametrize("kind", ["objects", "pickle", "npz", "torn", "text", "empty"])
def test_files_that_are_not_npy_are_one_clear_line(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.npy"
    if kind == "objects":
        np.save(path, np.array([[Bomb()]], object), allow_pickle=True)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, a=TABLE)
    elif kind == "torn":
        np.save(path, TABLE)
        path.write_bytes(path.read_bytes()[:150])
    else:
        path.write_bytes({"pickle": pickle.dumps(Bomb()), "text": b"1 2\n", "empty": b""}[kind])
    with pytest.raises(DataFormatError) as caught:
        features(tmp_path, None)
    assert "\n" not in str(caught.value)
    assert "table.npy" in str(caught.value)
    assert "unpickled" not in capsys.readouterr().out


def test_items_without_numbers_need_ids(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"item 'B00A' has no number.*vectors.ids=FILE"):
        features(tmp_path).encode(named("B00A"))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "c"], "3 ids, 3 of them different; .* the 4 rows"),
        (["a", "b", "c", "c"], "4 ids, 3 of them different"),
        (["a", "b", "c", None], "not a JSON list of item ids"),
        (["a", "b", "c", True], "not a JSON list of item ids"),
    ],
)
def test_ids_that_do_not_fit_the_rows_are_refused(
    tmp_path: Path, ids: list[object], message: str
) -> None:
    with pytest.raises(DataFormatError, match=message):
        features(tmp_path, ids=ids_file(tmp_path, ids, "ids.json"))


@pytest.mark.parametrize("content", ["{", "{}", '"a"'])
def test_json_that_is_no_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids.json").write_text(content)
    with pytest.raises(DataFormatError, match=r"ids\.json"):
        features(tmp_path, ids=tmp_path / "ids.json")


def test_first_id_and_ids_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        features(tmp_path, ids=ids_file(tmp_path, "abcd"), first_id=1)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"table\.npy is not there"):
        features(tmp_path, None)
    with pytest.raises(DataMissingError, match=r"ids\.txt is not there"):
        features(tmp_path, ids=tmp_path / "ids.txt")


def test_a_file_is_also_looked_for_in_the_folder_of_the_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MMREC_DATA", str(tmp_path / "data"))
    np.save(tmp_path / "data" / "set" / "table.npy", np.ones((2, 3), np.float32))
    found = Features(Features.Config(file=Path("set/table.npy")))
    assert found.encode([Item(0, "1", "")]).shape == (1, 3)
    assert found.fingerprint()
    with pytest.raises(DataMissingError, match=r"other\.npy or .*data/other\.npy is not there"):
        Features(Features.Config(file=Path("other.npy")))


def test_a_relative_file_is_looked_for_below_the_data_root_of_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.ones((2, 3), np.float32))
    context = contextvars.copy_context()
    context.run(use_data_root, tmp_path)
    found = context.run(lambda: Features(Features.Config(file=Path("table.npy"))).fingerprint())
    assert found
    with pytest.raises(DataMissingError):  # no other run hears of it
        Features(Features.Config(file=Path("table.npy")))


def test_the_file_must_be_named() -> None:
    with pytest.raises(ValidationError, match="file"):
        Features.Config.model_validate({})


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    first, second = features(tmp_path / "a"), features(tmp_path / "b")
    assert first.fingerprint() == second.fingerprint()
    assert identity(first.config) == identity(second.config) == {"first_id": 0}
    others = [
        features(tmp_path / "c", TABLE + 1),
        features(tmp_path / "a", first_id=1),
        features(tmp_path / "a", ids=ids_file(tmp_path, "abcd")),
        features(tmp_path / "a", ids=ids_file(tmp_path, "abdc", "other.txt")),
    ]
    assert len({one.fingerprint() for one in [first, *others]}) == 5


def test_the_published_features_of_tiktok_are_read(shared_data: Path) -> None:
    path = shared_data / "tiktok" / "image_feat.npy"
    encoder = Features(Features.Config(file=path))
    found = encoder.encode(named("0", "6709", "6710"))
    raw = np.load(path)
    np.testing.assert_array_equal(found[:2], raw[[0, 6709]].astype(np.float32))
    assert np.isnan(found[2]).all()


def test_every_error_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(MMRecError):
        features(tmp_path, np.zeros(1))
