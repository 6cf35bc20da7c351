import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mmrec_bench.cli.sweep import command
from mmrec_bench.errors import ConfigError
from mmrec_bench.sweeps import read_sweep

BASE = {
    "protocol": {"k_core": 2, "n_candidates": 5},
    "metrics": ["ndcg@5"],
    "encoder": None,
}


GRID = {"models": ["random"], "datasets": ["sequences"]}


def written(folder: Path, **sections: object) -> Path:
    return written_as(folder, sections)


def written_as(folder: Path, sections: Mapping[Any, object]) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": BASE, **sections}, sort_keys=False))
    return path


def swept(path: Path, root: Path, *more: str) -> tuple[int, list[dict[str, object]]]:
    results = str(root.parent / "results")
    arguments = [str(path), "--data-root", str(root), "--results", results, "--json", *more]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    steps: list[dict[str, object]] = json.loads(done.stdout)
    return done.exit_code, steps


def test_every_model_meets_every_seed_and_variant(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        models=["popularity", {"name": "item-knn", "k": 3}],
        datasets=["sequences", "movielens"],
        seeds=[0, 1],
        variants=[{}, {"limit_cases": 5}],
    )
    runs = read_sweep(path)
    assert len(runs) == 2 * 2 * 2 * 2
    assert "item-knn (k=3) on sequences seed 1 {'limit_cases': 5}" in [title for title, _ in runs]
    # runs that share a data set and protocol are neighbours: it is read once
    shown = [(config.dataset.name, config.limit_cases) for _, config in runs]
    assert len({*shown}) == sum(a != b for a, b in zip(shown, [None, *shown], strict=False))


def test_variants_are_laid_over_key_by_key(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        models=["popularity"],
        datasets=["sequences"],
        variants=[{"protocol": {"n_candidates": 9}}],
    )
    [(_, config)] = read_sweep(path)
    assert (config.protocol.n_candidates, config.protocol.k_core) == (9, 2)


def test_what_is_done_is_not_run_again(tmp_path: Path, root: Path) -> None:
    path = written(tmp_path, models=["popularity", "random"], datasets=["sequences"], seeds=[0, 1])
    code, steps = swept(path, root)
    assert (code, [step["outcome"] for step in steps]) == (0, ["done"] * 4)
    code, steps = swept(path, root)
    assert (code, [step["outcome"] for step in steps]) == (0, ["was there"] * 4)
    assert [step["outcome"] for step in swept(path, root, "--fresh")[1]] == ["done"] * 4


def test_a_run_with_a_metric_more_is_measured_again(tmp_path: Path, root: Path) -> None:
    swept(written(tmp_path, models=["popularity"], datasets=["sequences"]), root)
    more = {**BASE, "metrics": ["ndcg@5", "auc"]}
    path = written(tmp_path, base=more, models=["popularity"], datasets=["sequences"])
    assert swept(path, root)[1][0]["outcome"] == "done"


def test_a_failure_is_named_and_the_rest_goes_on(tmp_path: Path, root: Path) -> None:
    path = written(
        tmp_path,
        models=["popularity"],
        datasets=[{"name": "sequences", "file": "absent.txt"}, "sequences"],
    )
    code, steps = swept(path, root)
    assert code == 1
    outcomes = {str(step["title"]): step for step in steps}
    assert outcomes["popularity on sequences seed 0"]["outcome"] == "done"
    [failed] = [step for step in steps if step["outcome"] == "failed"]
    assert "absent.txt" in str(failed["reason"])


def test_whole_configurations_are_swept_too(tmp_path: Path, root: Path) -> None:
    for model in ("popularity", "random"):
        values = {"model": model, "dataset": "sequences", **BASE}
        (tmp_path / f"one-{model}.yaml").write_text(yaml.safe_dump(values))
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"configs": ["one-*.yaml"], "seeds": [0, 1]}))
    code, steps = swept(path, root)
    assert (code, len(steps)) == (0, 4)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"models": ["popularity"]}, "go together"),
        ({}, "runs nothing"),
        ({"model": ["popularity"]}, "did you mean 'models'"),
        ({"models": ["random"] * 2, "datasets": ["sequences"]}, "twice"),
        ({"configs": ["absent*.yaml"]}, "no configuration matches"),
        ({"models": ["random"], "datasets": ["sequences"], "seeds": []}, "seeds"),
        ({**GRID, "variants": [{"seed": 3}]}, "write seeds:"),
        ({**GRID, "variants": [{"model": {"name": "bm25"}}]}, "names stand in models"),
        ({**GRID, "base": {"dataset": "movielens"}}, "names stand in datasets"),
        ({**GRID, "variants": [{"protocol": [1]}]}, "protocol"),
        ({"configs": ["/etc/*.yaml"]}, "no pattern relative to"),
        ({"configs": [""]}, "no pattern relative to"),
        ({1: 2}, "the key 1 is no name"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_clear_line(
    sections: dict[Any, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        read_sweep(written_as(tmp_path, sections))
    assert "\n" not in str(caught.value)


def test_options_of_models_and_data_sets_are_laid_over_those_of_the_grid(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        base={**BASE, "model": {"shrink": 3}},
        models=["item-knn", {"name": "bm25", "k": 7}],
        datasets=["sequences"],
        variants=[{"model": {"k": 5}, "dataset": {"label": "mine"}}, {}],
    )
    shown = [
        (title, one.model.name, one.model.options, one.dataset.options)
        for title, one in read_sweep(path)
    ]
    mine = {"label": "mine"}
    on = "on sequences (label=mine) seed 0"
    assert sorted(shown, key=str) == sorted(
        [
            (f"item-knn (shrink=3 k=5) {on}", "item-knn", {"shrink": 3, "k": 5}, mine),
            (f"bm25 (k=5 shrink=3) {on}", "bm25", {"k": 5, "shrink": 3}, mine),
            ("item-knn (shrink=3) on sequences seed 0", "item-knn", {"shrink": 3}, {}),
            ("bm25 (k=7 shrink=3) on sequences seed 0", "bm25", {"k": 7, "shrink": 3}, {}),
        ],
        key=str,
    )


def test_options_are_laid_over_the_model_of_a_whole_configuration(tmp_path: Path) -> None:
    values = {"model": "item-knn", "dataset": "sequences", **BASE}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(values))
    path = written(tmp_path, configs=["one.yaml"], variants=[{"model": {"k": 5}}])
    [(_, config)] = read_sweep(path)
    assert (config.model.name, config.model.options) == ("item-knn", {"k": 5})


def test_a_committed_record_is_enough_and_torn_per_case_values_are_not(
    tmp_path: Path, root: Path
) -> None:
    path = written(tmp_path, models=["popularity"], datasets=["sequences"])
    swept(path, root)
    results = root.parent / "results"
    (cases,) = (results / "records").rglob("*.cases.npz")
    whole = cases.read_bytes()
    cases.unlink()
    assert swept(path, root)[1][0]["outcome"] == "done"
    assert cases.read_bytes() == whole
    (other,) = (results / "records").rglob("*.json")
    swept(written(tmp_path, models=["random"], datasets=["sequences"]), root)
    cases.write_bytes(next((other.parents[1] / "random").glob("*.npz")).read_bytes())
    path = written(tmp_path, models=["popularity"], datasets=["sequences"])
    assert swept(path, root)[1][0]["outcome"] == "done"  # those of another run
    shutil.rmtree(results / "runs")
    assert swept(path, root)[1][0]["outcome"] == "was there"
