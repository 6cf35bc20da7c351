import json
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import StorageError
from mmrec_bench.records import (
    ComponentSpec,
    DatasetSpec,
    Interval,
    RunRecord,
    RunSpec,
    digest,
    read_record,
    read_records,
    write_record,
)


def make_spec(
    model: str = "popularity", *, seed: int = 0, n_candidates: int = 20, dataset: str = "toy"
) -> RunSpec:
    return RunSpec(
        dataset=DatasetSpec(name=dataset, version="v1"),
        protocol={
            "split": "leave-one-out", "candidates": "uniform", "n_candidates": n_candidates,
        },
        candidates_hash="c1",
        model=ComponentSpec(name=model),
        instructions=None,
        encoder=None,
        seed=seed,
        limit_cases=None,
    )  # fmt: skip


def make_record(spec: RunSpec, value: float | None = 0.5, backbone: str = "") -> RunRecord:
    metrics = {"ndcg@10": Interval(value=value, n=9, low=0.4, high=0.6)}
    counts = {"n_cases": 10, "n_items": 30}
    return RunRecord(
        run_id=spec.run_id,
        created="2026-01-01T00:00:00Z",
        spec=spec,
        counts=counts,
        card={},
        facts={"backbone": backbone} if backbone else {},
        metrics=metrics,
        resources={"fit_seconds": 1.5},
        environment={"device": "cpu", "mmrec-bench": "0"},
        digest=digest(spec, counts, metrics),
    )


def test_a_record_is_read_back_equal(tmp_path: Path) -> None:
    record = make_record(make_spec())
    path = write_record(tmp_path, record)
    assert path == tmp_path / "records" / "toy" / "popularity" / f"{record.run_id}.json"
    assert read_record(path) == record


def test_run_id_follows_every_part_of_the_spec() -> None:
    specs = [make_spec(), make_spec("random"), make_spec(seed=1), make_spec(n_candidates=50)]
    assert len({spec.hash for spec in specs}) == 4
    assert make_spec().run_id == make_spec().run_id


def test_the_title_names_the_backbone_that_ran() -> None:
    record = make_record(make_spec("chatglm2-ptv2"), backbone="chatglm2-micro")
    assert record.title == "chatglm2-ptv2 [chatglm2-micro]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw["metrics"]["ndcg@10"].update(value=0.99), "changed after"),
        (lambda raw: raw["counts"].update(n_cases=99), "changed after"),
        (lambda raw: raw["spec"].update(seed=7), "changed after"),
        (lambda raw: raw.update(schema_version=0), "schema_version 0"),
        (lambda raw: raw.update(surprise=1), "not a record: surprise"),
        (lambda raw: raw.pop("digest"), "not a record: digest"),
    ],
)
def test_a_record_that_was_changed_is_refused(change: object, reason: str, tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record(make_spec()))
    raw = json.loads(path.read_text())
    change(raw)  # type: ignore[operator]
    path.write_text(json.dumps(raw))
    with pytest.raises(StorageError, match=reason):
        read_record(path)


def rehashed(raw: dict[str, Any]) -> None:
    """Compute the hashes of a changed record anew, as anybody can."""
    spec = RunSpec.model_validate(raw["spec"])
    metrics = {name: Interval.model_validate(one) for name, one in raw["metrics"].items()}
    raw.update(run_id=spec.run_id, digest=digest(spec, raw["counts"], metrics))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw["spec"]["dataset"].update(name="../x"), "dataset is called"),
        (lambda raw: raw["spec"]["dataset"].update(name="/tmp/x"), "dataset is called"),
        (lambda raw: raw["spec"]["model"].update(name="<b>"), "model is called"),
        (lambda raw: raw["spec"]["protocol"].pop("candidates"), "no spec.protocol.candidates"),
        (lambda raw: raw["spec"].update(transfer={"x": 1}), "spec.transfer"),
        (lambda raw: raw["counts"].pop("n_items"), "no counts.n_items"),
        (lambda raw: raw["counts"].update(n_cases=-1), "counts.n_cases is -1"),
        (lambda raw: raw["resources"].update(fit_seconds=-1), "resources.fit_seconds is -1"),
        (lambda raw: raw["metrics"]["ndcg@10"].update(low=0.7), r"interval \[0.7, 0.6\]"),
        (lambda raw: raw["metrics"]["ndcg@10"].update(n=-1), "over -1 cases"),
        (lambda raw: raw.update(positions={"hit_rate@1": [0.5]}), "expected n"),
        (lambda raw: raw.update(positions={"n": [1, 2], "hit_rate@1": [0.5]}), "as many values"),
    ],
)
def test_what_no_run_writes_is_refused_whatever_its_hash(
    change: object, reason: str, tmp_path: Path
) -> None:
    path = write_record(tmp_path, make_record(make_spec()))
    raw = json.loads(path.read_text())
    change(raw)  # type: ignore[operator]
    rehashed(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(StorageError, match=reason):
        read_record(path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1.5", "1e999", "too large"),
        ('"options": {}', '"options": {"x": "\\ud800"}', "hash is not defined"),
        ('"options": {}', f'"options": {{"x": {"[" * 400}{"]" * 400}}}', "hash is not defined"),
    ],
)
def test_values_that_no_json_holds_are_refused(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    path = write_record(tmp_path, make_record(make_spec()))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(StorageError, match=reason):
        read_record(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"schema_version": NaN}']
)
def test_a_file_that_is_no_record_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"x\.json") as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_records_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no records below"):
        read_records(tmp_path)


def test_a_record_in_two_folders_counts_once(tmp_path: Path) -> None:
    record = make_record(make_spec())
    for name in ("a", "b"):
        write_record(tmp_path / name, record)
    assert [one.record for one in read_records(tmp_path / "a", tmp_path / "b")] == [record]


def test_two_records_of_one_run_with_other_numbers_are_refused(tmp_path: Path) -> None:
    write_record(tmp_path / "a", make_record(make_spec(), 0.5))
    write_record(tmp_path / "b", make_record(make_spec(), 0.6))
    with pytest.raises(StorageError, match="records of one run with other numbers"):
        read_records(tmp_path / "a", tmp_path / "b")


def test_records_of_one_run_may_differ_in_the_last_digits(tmp_path: Path) -> None:
    write_record(tmp_path / "a", make_record(make_spec(), 0.5))
    write_record(tmp_path / "b", make_record(make_spec(), 0.5 + 1e-15))
    assert len(read_records(tmp_path / "a", tmp_path / "b")) == 1
