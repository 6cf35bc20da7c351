import json
from pathlib import Path

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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small `user item item ...` file."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [f"u{u} " + " ".join(f"i{(u * 3 + j * j) % 17}" for j in range(6)) for u in range(30)]
    (folder / "toy.txt").write_text("\n".join(lines) + "\n")
    return folder


def written(folder: Path, **sections: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": BASE, **sections}))
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
    ],
)
def test_a_sweep_that_cannot_be_is_one_clear_line(
    sections: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        read_sweep(written(tmp_path, **sections))
    assert "\n" not in str(caught.value)
