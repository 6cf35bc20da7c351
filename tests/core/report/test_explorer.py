import io
import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mmrec_bench.cli import run as run_module
from mmrec_bench.errors import StorageError
from mmrec_bench.leaderboard import build
from mmrec_bench.plugins import find_entry_points, load, load_file
from mmrec_bench.predictions import PredictionStore
from mmrec_bench.records import read_records
from mmrec_bench.report.explorer import _places
from mmrec_bench.report.gathering import Sheet
from mmrec_bench.report.site import ReportOptions, build_report
from mmrec_bench.report.sources import explore
from mmrec_bench.report.thumbnails import SIDE, Thumbnails
from tests.core.report.toys import N_USERS, PARROT, data_of, own_modules, report, run, write_data


def folder_of(site: Path) -> Path:
    return next(site.glob("data/*/index.js")).parent


def test_a_case_shows_the_candidates_and_what_each_run_made_of_them(toy: Path, site: Path) -> None:
    index = data_of(folder_of(site) / "index.js")
    items = data_of(folder_of(site) / "items.js")
    _, cases = data_of(folder_of(site) / "c0.js")
    assert len(cases) == len(index["users"]) == N_USERS
    assert [run["label"] for run in index["runs"]] == [
        row.label for row in build(read_records(toy / "results"))[0].rows
    ]
    sequences = dict(
        line.split(" ", 1) for line in (toy / "data" / "toy.txt").read_text().splitlines()
    )
    for row, case in enumerate(cases):
        taken = list(dict.fromkeys(sequences[index["users"][row]].split()))
        assert [items["id"][i] for i in case["h"]] == taken[:-1]
        assert [items["id"][i] for i in case["t"]] == taken[-1:]
        assert index["target"][row] == case["t"][0]
        assert index["length"][row] == len(case["h"])
        assert case["t"][0] in case["c"]
        place = case["c"].index(case["t"][0])
        for run_, outcome in zip(index["runs"], case["r"], strict=True):
            assert outcome["k"][place] == run_["ranks"][row]


def test_ranks_are_those_of_the_stored_predictions(toy: Path, site: Path) -> None:
    index = data_of(folder_of(site) / "index.js")
    for one in index["runs"]:
        folder = toy / "results" / "runs" / one["id"] / "predictions"
        stored = next(
            each.record for each in read_records(toy / "results") if each.record.run_id == one["id"]
        )
        ranks = PredictionStore(folder, stored.spec.hash, N_USERS).read().ranks
        assert one["ranks"] == (ranks.n_better + 1 + ranks.n_tied / 2).tolist()


def test_places_share_ties_and_leave_out_what_was_left_out() -> None:
    scores = np.array([[0.5, np.nan, 0.9, 0.5, -1.0], [-np.inf, np.inf, 0, 1, np.nan]], np.float32)
    assert _places(scores) == [[2.5, None, 1.0, 2.5, 4.0], [4.0, 1.0, 3.0, 2.0, None]]
    assert _places(np.full((1, 3), np.nan, np.float32)) == [[None] * 3]


@pytest.mark.parametrize("permutations", [1, 3])
def test_the_prompt_shown_is_the_one_that_the_model_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permutations: int
) -> None:
    plugins = load(find_entry_points())
    (tmp_path / "parrot_plugin.py").write_text(PARROT)
    with own_modules(tmp_path):
        load_file(plugins, tmp_path / "parrot_plugin.py")
        monkeypatch.setattr(run_module, "installed", lambda: plugins)
        root = write_data(tmp_path / "data")
        run(root, tmp_path / "results", "parrot", "--permutations", str(permutations))
        options = ReportOptions()
        written = build_report([tmp_path / "results"], tmp_path / "site", options, plugins)
    assert written.notes == ()
    folder = folder_of(tmp_path / "site")
    index = data_of(folder / "index.js")
    assert index["orders"] == [permutations]
    group, number, prompts = data_of(folder / "p0-0.js")
    _, cases = data_of(folder / "c0.js")
    assert (group, number, len(prompts)) == (0, 0, N_USERS)
    # the orders really differ, at least in some cases
    assert any(len({str(m) for m in orders}) == permutations for orders in prompts)
    for case, orders in zip(cases, prompts, strict=True):
        text, outcome, read, said, invented = case["r"][0]["a"]
        assert (outcome, read, said, invented) == ("ok", 7 * permutations, 3 * permutations, 0)
        shown = [
            "|".join("".join(p for p in parts if isinstance(p, str)) for _, parts in messages)
            for messages in orders
        ]
        answers = [text] if permutations == 1 else json.loads(text)
        assert shown == answers


def test_a_run_over_the_whole_catalog_shows_its_first_items(toy: Path, tmp_path: Path) -> None:
    run(toy / "data", tmp_path, "popularity", "-o", "protocol.candidates=full")
    assert report(tmp_path, "-o", tmp_path / "site").exit_code == 0
    index = data_of(folder_of(tmp_path / "site") / "index.js")
    _, cases = data_of(folder_of(tmp_path / "site") / "c0.js")
    assert index["listed"] is False
    for row, case in enumerate(cases):
        assert case["c"] is None
        top = case["r"][0]["top"]
        assert not set(top) & set(case["h"])
        rank = index["runs"][0]["ranks"][row]
        if rank == 1:
            assert case["t"][0] == top[0]


def test_a_data_set_that_is_elsewhere_is_found_by_data_root(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    run(root, tmp_path / "results", "popularity")
    root.rename(tmp_path / "moved")
    done = report(tmp_path / "results", "-o", tmp_path / "site")
    assert done.exit_code == 0
    assert "name the data set's folder with --data-root" in done.stderr
    done = report(tmp_path / "results", "-o", tmp_path / "site", "--data-root", tmp_path / "moved")
    assert done.stderr == ""
    assert len(data_of(folder_of(tmp_path / "site") / "index.js")["users"]) == N_USERS
    write_data(tmp_path / "moved", title="another")
    done = report(tmp_path / "results", "-o", tmp_path / "site", "--data-root", tmp_path / "moved")
    assert "other cases" in done.stderr


def test_a_run_that_is_not_finished_is_named_and_left_out(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "results", tmp_path / "results")
    folder = next((tmp_path / "results" / "runs").glob("popularity-*")) / "predictions"
    for part in folder.glob("part-*.npz"):
        part.unlink()
    stored = read_records(tmp_path / "results")
    one = Sheet(build(stored)[0])
    found, notes = explore(one, [tmp_path / "results"], [], 99, load(find_entry_points()))
    assert found is not None
    assert [shown.record.spec.model.name for shown in found.runs] == ["random"]
    assert len(notes) == 1
    assert f"lacks predictions of {N_USERS} of {N_USERS} cases" in notes[0]


def test_a_thumbnail_is_small_and_holds_nothing_of_the_file_but_its_pixels(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (900, 300), (200, 30, 30))
    exif = PIL.Image.Exif()
    exif[0x010E] = "secret words"
    picture.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"<script>")
    (tmp_path / "c.jpg").write_text("<html>not found</html>")
    (tmp_path / "d.jpg").write_bytes(b"")
    made = Thumbnails(tmp_path / "pictures")
    name = made.name(tmp_path / "a.jpg")
    assert made.name(tmp_path / "b.jpg") == name
    assert [made.name(tmp_path / n) for n in ("c.jpg", "d.jpg", "e.jpg")] == ["", "", ""]
    assert (len(made), made.broken) == (1, 3)
    assert "c.jpg" in made.reason
    raw = (tmp_path / "pictures" / f"{name}.jpg").read_bytes()
    assert b"secret" not in raw
    assert b"script" not in raw
    with PIL.Image.open(io.BytesIO(raw)) as small:
        assert small.size == (SIDE, SIDE // 3)


def test_a_torn_run_folder_is_a_note(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "results", tmp_path / "results")
    for path in (tmp_path / "results" / "runs").glob("*/request.json"):
        path.write_text("{")
    done = report(tmp_path / "results", "-o", tmp_path / "site")
    assert done.exit_code == 0
    assert "is torn" in done.stderr
    assert not list((tmp_path / "site").glob("*-cases.html"))


def test_per_case_values_of_another_record_are_refused(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "results" / "records", tmp_path / "records")
    one, other = sorted(tmp_path.rglob("random*.cases.npz"))
    one.write_bytes(other.read_bytes())
    done = report(tmp_path, "-o", tmp_path / "site")
    assert isinstance(done.exception, StorageError)
    assert "is not what its record was made with" in str(done.exception)
