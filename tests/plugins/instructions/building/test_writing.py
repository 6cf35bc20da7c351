"""Whole builds: files, journal, resume."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from mmrec_bench.errors import StorageError
from mmrec_bench.teaching import WritingRequest, Written
from mmrec_plugins.instructions.building.estimating import estimate
from mmrec_plugins.instructions.building.journal import Journal, request_key
from mmrec_plugins.instructions.building.outputs import read_folder, read_report
from mmrec_plugins.instructions.building.writing import build
from mmrec_plugins.instructions.corpus import KINDS, Kind
from tests.plugins.instructions.building.making import Saying, make_data, make_workshop

PAPERS: tuple[Kind, ...] = ("profile", "attributes")


def corpus_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))
            if path.name != "answers.jsonl"}  # fmt: skip


def drafting() -> Saying:
    return Saying(lambda request: Written(request.draft, False, 10, 5, 0.25))


def test_a_build_leaves_all_kinds_with_provenance_and_splits(tmp_path: Path) -> None:
    report = build(make_workshop(make_data()), tmp_path)
    entries = read_folder(tmp_path)
    assert {entry.kind for entry in entries} == set(KINDS)
    assert {entry.split for entry in entries} == {"train", "validation"}
    assert len(entries) == report.n_kept
    assert all(len(entry.prompt_hash) == 64 and entry.template for entry in entries)
    assert len({entry.id for entry in entries}) == len(entries)
    by_user = {(entry.user, entry.split) for entry in entries if entry.user}
    assert len(by_user) == len({user for user, _ in by_user})  # a user is in one part


def test_the_same_build_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(make_workshop(make_data(), seed=seed), tmp_path / name)
    first, again, other = (corpus_files(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


def test_a_finished_build_asks_nothing_again(tmp_path: Path) -> None:
    first, second = drafting(), drafting()
    one = build(make_workshop(make_data(), first, kinds=PAPERS), tmp_path)
    files = corpus_files(tmp_path)
    two = build(make_workshop(make_data(), second, kinds=PAPERS), tmp_path)
    assert first.asked
    assert not second.asked
    assert corpus_files(tmp_path) == files
    assert one.account.cost == two.account.cost == 0.25 * len(first.asked)
    assert two.account.remembered == two.account.requests == len(first.asked)
    assert two.account.prompt_tokens == 10 * len(first.asked)


def test_a_build_that_died_goes_on_and_asks_no_answer_twice(tmp_path: Path) -> None:
    asked: list[str] = []

    def say(request: WritingRequest) -> str:
        asked.append(request_key("", request))
        return request.draft

    class Dying(Saying):
        def write(self, requests: Sequence[WritingRequest]) -> list[Written]:
            if len(self.asked) >= 12:
                raise KeyboardInterrupt
            return super().write(requests)

    whole = tmp_path / "whole"
    build(make_workshop(make_data(), Saying(say), kinds=PAPERS, batch_size=4, chunk=3), whole)
    everything = sorted(asked)
    asked.clear()
    torn = tmp_path / "torn"
    with pytest.raises(KeyboardInterrupt):
        build(make_workshop(make_data(), Dying(say), kinds=PAPERS, batch_size=4, chunk=3), torn)
    assert 0 < len(asked) < len(everything)
    with (torn / "answers.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    build(make_workshop(make_data(), Saying(say), kinds=PAPERS, batch_size=4, chunk=3), torn)
    assert sorted(asked) == everything
    assert corpus_files(torn) == corpus_files(whole)


def test_a_journal_line_that_is_no_answer_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "a"}\n')
    with pytest.raises(StorageError, match=r"answers\.jsonl, line 1 is not an answer"):
        Journal(path)


def test_an_unknown_cost_stays_unknown(tmp_path: Path) -> None:
    teacher = Saying(lambda request: Written(request.draft, cost=float("nan")))
    for _ in range(2):
        report = build(make_workshop(make_data(), teacher, kinds=("attributes",)), tmp_path)
        assert report.account.cost is None
    assert (
        json.loads((tmp_path / "report.json").read_text())["kinds"]["attributes"]["account"]["cost"]
        is None
    )
    assert "cost not known" in (tmp_path / "report.md").read_text()


def test_kinds_built_one_after_another_share_a_folder_under_the_same_options(
    tmp_path: Path,
) -> None:
    build(make_workshop(make_data(), kinds=("profile",)), tmp_path)
    build(make_workshop(make_data(), kinds=("attributes",)), tmp_path)
    assert list(read_report(tmp_path).kinds) == ["profile", "attributes"]
    with pytest.raises(StorageError, match="holds profile, attributes of another build"):
        build(make_workshop(make_data(), kinds=("zero-shot",), seed=3), tmp_path)


def test_rejections_are_counted_with_examples_in_the_report(tmp_path: Path) -> None:
    answers: Iterator[str] = iter(["", "no", "I'm sorry, I can't help with that."] * 100)
    report = build(
        make_workshop(make_data(), Saying(lambda _: next(answers)), kinds=("attributes",)), tmp_path
    )
    kind = report.kinds["attributes"]
    assert set(kind.rejected) == {"empty", "no JSON object", "refused"}
    assert sum(kind.rejected.values()) == kind.tried > 12
    assert kind.kept == 0
    assert "no JSON object" in (tmp_path / "report.md").read_text()


def test_the_card_has_the_hubs_header_and_names_the_licence(tmp_path: Path) -> None:
    build(make_workshop(make_data()), tmp_path)
    _, header, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["language"] == ["en"]
    assert [one["config_name"] for one in values["configs"]] == list(KINDS)
    assert all((tmp_path / one["data_files"]).exists() for one in values["configs"])
    assert "none needed" in body
    assert "Generated by mmrec-bench" in body


def test_an_estimate_asks_nobody_and_counts_what_a_build_asks(tmp_path: Path) -> None:
    teacher = drafting()
    workshop = make_workshop(make_data(), teacher, chunk=3)
    found = estimate(workshop)
    assert not teacher.asked
    report = build(workshop, tmp_path)
    assert found.requests == report.account.requests == len(teacher.asked)
    assert dict(found.entries) == {kind: one.tried for kind, one in report.kinds.items()}
    assert found.prompt_tokens > found.requests


def test_a_limit_builds_so_many_users_and_items(tmp_path: Path) -> None:
    report = build(make_workshop(make_data(), limit=4), tmp_path)
    assert report.kinds["profile"].tried == 4
    assert report.kinds["attributes"].tried == 4
    assert len({entry.user for entry in read_folder(tmp_path) if entry.user}) == 4
