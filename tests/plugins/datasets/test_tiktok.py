"""TikTok's tables: the published split, broken files, and the real set."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench import protocol
from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import DataFormatError, DataMissingError
from mmrec_bench.testing import DatasetTests
from mmrec_bench.types import RecData
from mmrec_plugins.datasets.tiktok import PARTS, TikTok
from mmrec_plugins.encoders.features import Features

GIVEN = ProtocolConfig(split="given", k_core=0, candidates="full")
TABLES = {
    "train": "user\titem\n0\t3\n0\t10\n2\t3\n2\t5\n",
    "validation": "user\titem\n2\t10\n",
    "test": "user\titem\n0\t5\n2\t7\n2\t0\n",
}


def write(root: Path, tables: dict[str, str], *, packed: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        content = text.encode()
        ending = ".tsv.gz" if packed else ".tsv"
        (root / f"{name}{ending}").write_bytes(gzip.compress(content) if packed else content)
    return root


def load(root: Path, *, strict: bool = False) -> RecData:
    return TikTok(TikTok.Config(strict=strict)).load(root)


class TestContract(DatasetTests):
    def make(self) -> TikTok:
        return TikTok(TikTok.Config())

    def load(self, tmp_path: Path) -> RecData:
        return load(write(tmp_path, TABLES))


def by_part(data: RecData) -> dict[str, set[tuple[str, str]]]:
    rows = data.interactions
    assert rows.part is not None
    triples = zip(rows.user.tolist(), rows.item.tolist(), rows.part.tolist(), strict=True)
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in PARTS}
    for user, item, part in triples:
        found[PARTS[part]].add((data.users[user], data.catalog.items[item]))
    return found


def test_ids_are_the_numbers_of_the_files(tmp_path: Path) -> None:
    data = load(write(tmp_path, TABLES))
    assert data.users.ids == ("0", "2")
    assert data.catalog.items.ids == ("0", "3", "5", "7", "10")
    assert by_part(data) == {
        "train": {("0", "3"), ("0", "10"), ("2", "3"), ("2", "5")},
        "validation": {("2", "10")},
        "test": {("0", "5"), ("2", "7"), ("2", "0")},
    }
    assert data.interactions.timestamp.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


def test_files_may_be_unpacked_and_in_a_folder_of_the_root(tmp_path: Path) -> None:
    packed = load(write(tmp_path / "a", TABLES))
    plain = load(write(tmp_path / "b" / "tiktok", TABLES, packed=False).parent)
    assert plain.version == packed.version


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    turned = {**TABLES, "validation": "item\tuser\n10\t2\n"}
    assert by_part(load(write(tmp_path, turned)))["validation"] == {("2", "10")}


def test_an_item_in_another_part_is_another_version(tmp_path: Path) -> None:
    moved = {**TABLES, "train": TABLES["test"], "test": TABLES["train"]}
    assert load(write(tmp_path / "a", TABLES)).version != load(write(tmp_path / "b", moved)).version


def test_the_published_split_is_kept(tmp_path: Path) -> None:
    data = load(write(tmp_path, TABLES))
    split = protocol.make_split(data, GIVEN)
    expected = by_part(data)
    name = split.users.ids, split.catalog.items.ids
    train = zip(split.train.user.tolist(), split.train.item.tolist(), strict=True)
    assert {(name[0][u], name[1][i]) for u, i in train} == expected["train"]
    for part in ("validation", "test"):
        cases = getattr(split, part)
        users = cases.queries.user[cases.targets.row_ids].tolist()
        pairs = zip(users, cases.targets.values.tolist(), strict=True)
        assert {(name[0][u], name[1][i]) for u, i in pairs} == expected[part]


def test_broken_lines_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    broken = "user\titem\n0\t3\nx\t4\n5\n\n1\t2\t3\n-1\t2\n2\t3\n" + "9" * 30 + "\t1\n"
    data = load(write(tmp_path, {**TABLES, "train": broken}))
    assert data.card.counts["broken_lines"] == 5
    assert data.card.counts["rows_train"] == 2


def test_strict_names_the_line(tmp_path: Path) -> None:
    write(tmp_path, {**TABLES, "test": "user\titem\n0\t3\nx\t4\n"})
    with pytest.raises(DataFormatError, match=r"test\.tsv\.gz, line 3: the line does not have"):
        load(tmp_path, strict=True)


def test_a_torn_file_gives_what_it_still_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{user}\t{item}\n" for user, item in rng.integers(0, 9999, (4000, 2)).tolist()]
    write(tmp_path, {**TABLES, "train": "user\titem\n" + "".join(lines)})
    path = tmp_path / "train.tsv.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    data = load(tmp_path)
    assert data.card.counts["truncated_files"] == 1
    assert 1000 < data.card.counts["rows_train"] < 4000


@pytest.mark.parametrize("text", ["", "0\t3\n0\t4\n", "user\tmovie\n0\t3\n", "\x00\x01"])
def test_other_columns_are_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path, {**TABLES, "validation": text})
    with pytest.raises(DataFormatError, match=r"validation\.tsv\.gz has the columns \[.*expected"):
        load(tmp_path)


def test_a_table_without_a_usable_line_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {**TABLES, "test": "user\titem\nnobody\tnothing\n"})
    with pytest.raises(DataFormatError, match=r"test\.tsv\.gz holds no line of a user and an item"):
        load(tmp_path)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"no TikTok files in .*expected train\.tsv\.gz"):
        load(tmp_path / "nothing")
    write(tmp_path, {"train": TABLES["train"]})
    with pytest.raises(
        DataMissingError, match=r"has train\.tsv\.gz, but no validation\.tsv\.gz and no test"
    ):
        load(tmp_path)


def test_a_pair_in_two_parts_is_told(tmp_path: Path) -> None:
    twice = {**TABLES, "test": "user\titem\n0\t3\n0\t5\n"}
    data = load(write(tmp_path, twice))
    assert data.card.counts["repeated_pairs"] == 1
    split = protocol.make_split(data, GIVEN)
    assert split.counts["dropped_repeats"] == 1
    assert split.counts["n_test_targets"] == 1


def test_the_real_set_has_its_published_size_and_split(shared_data: Path) -> None:
    data = load(shared_data)
    split = protocol.make_split(data, GIVEN)
    sizes = ("n_users", "n_items", "n_train", "n_validation_targets", "n_test_targets")
    assert [split.counts[name] for name in sizes] == [9308, 6710, 59541, 3051, 6130]
    assert split.counts["n_test_cases"] == 6130
    assert data.card.counts["broken_lines"] == 0
    assert {name: len(rows) for name, rows in by_part(data).items()} == {
        "train": 59541,
        "validation": 3051,
        "test": 6130,
    }


def test_the_real_features_belong_to_the_items_by_number(shared_data: Path) -> None:
    data = load(shared_data)
    path = shared_data / "tiktok" / "image_feat.npy"
    vectors = Features(Features.Config(file=path)).encode(data.catalog[5:8])
    rows = np.load(path).astype(np.float32)
    np.testing.assert_array_equal(vectors, rows[[int(i) for i in data.catalog.items.ids[5:8]]])
