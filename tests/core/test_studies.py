from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmrec_bench.files import RunLock
from mmrec_bench.spaces import Choices, Range, Space
from mmrec_bench.studies import Study

SPACE: Space = {"model.rate": Range(1e-4, 1.0, log=True), "model.size": Choices((8, 16))}


@contextmanager
def study(folder: Path, *, space: Space = SPACE, seed: int = 0) -> Iterator[Study]:
    with Study.open(folder, space, seed=seed, higher_is_better=True, start=None) as one:
        yield one


def test_a_trial_whose_process_died_is_put_back_with_its_settings_and_files(tmp_path: Path) -> None:
    with study(tmp_path / "s") as one:
        claim = one.claim(5)
        assert claim is not None
        (claim.folder / "checkpoint").write_text("half")
        claim.note(values={"0": 0.5})
        claim.release()  # what the kernel does for a process that dies
    with study(tmp_path / "s") as one:
        again = one.claim(5)
        assert again is not None
        assert (again.number, again.settings) == (claim.number, claim.settings)
        assert (again.folder / "checkpoint").read_text() == "half"
        assert again.noted("values") == {"0": 0.5}
        one.complete(again, 0.5)
        assert not again.folder.exists()
        assert [trial.state for trial in one.trials()] == ["complete"]


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path: Path) -> None:
    with study(tmp_path / "s") as one, study(tmp_path / "s") as other:
        first, second = one.claim(2), other.claim(2)
        assert first is not None
        assert second is not None
        assert {first.number, second.number} == {0, 1}
        assert other.claim(2, wait=False) is None
        one.complete(first, 0.1)
        other.complete(second, 0.2)
        assert one.claim(2) is None
        assert [trial.value for trial in other.trials()] == [0.1, 0.2]


def test_a_trial_is_drawn_alike_whoever_asks_for_it(tmp_path: Path) -> None:
    def walk(folder: Path, *, reopen: bool) -> list[object]:
        settings: list[object] = []
        while len(settings) < 12:
            with study(folder) as one:
                while claim := one.claim(12):
                    settings.append(claim.settings)
                    one.complete(claim, float(str(claim.settings["model.rate"])))
                    if reopen:
                        break
        return settings

    assert walk(tmp_path / "a", reopen=True) == walk(tmp_path / "b", reopen=False)


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    with study(tmp_path / "s") as one:
        for _ in range(5):
            claim = one.claim(1)
            assert claim is not None
            claim.release()
        assert one.claim(1) is None
        (trial,) = one.trials()
        assert (trial.state, trial.reason) == (
            "failed",
            "its process died 5 times (out of memory?)",
        )


def test_a_trial_that_was_stopped_on_purpose_has_not_died(tmp_path: Path) -> None:
    with study(tmp_path / "s") as one:
        for _ in range(6):
            claim = one.claim(1)
            assert claim is not None
            assert not claim.noted("deaths")
            one.put_back(claim)


def test_folders_of_settled_trials_are_swept_away(tmp_path: Path) -> None:
    with study(tmp_path / "s") as one:
        claim = one.claim(2)
        assert claim is not None
        one.fail(claim, "no use")
    left = tmp_path / "s" / "trials" / "0000" / "scratch"
    left.mkdir(parents=True)  # its process died between the last word and the sweeping
    with study(tmp_path / "s") as one:
        assert not left.parent.exists()
        assert one.trials()[0].reason == "no use"


def test_the_first_trial_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    start = {"model.rate": 0.25, "model.size": 16}
    for _ in range(2):
        with Study.open(tmp_path / "s", SPACE, seed=0, higher_is_better=True, start=start) as one:
            claim = one.claim(2)
            assert claim is not None
            if claim.number == 0:
                assert claim.settings == start
            one.complete(claim, 1.0)
    with study(tmp_path / "s") as one:
        assert [trial.settings == start for trial in one.trials()] == [True, False]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_point_of_a_small_space_is_drawn_once(seed: int, tmp_path: Path) -> None:
    space: Space = {"model.a": Range(1, 3, whole=True), "model.b": Choices((True, None))}
    drawn = []
    with study(tmp_path / "s", space=space, seed=seed) as one:
        while claim := one.claim(20):
            drawn.append(tuple(claim.settings.values()))
            one.complete(claim, 0.0)
    assert len(drawn) == len(set(drawn)) == 6


def test_the_lock_of_a_study_is_held_for_moments_only(tmp_path: Path) -> None:
    with study(tmp_path / "s") as one:
        claim = one.claim(1)
        assert claim is not None
        lock = RunLock(tmp_path / "s")
        lock.acquire(wait=False)
        lock.release()
        one.complete(claim, 1.0)


@pytest.mark.parametrize("name", ["a?b", "100%25", "{SCHEMA_VERSION}", "a#b c"])
def test_a_study_lies_in_its_own_folder_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    with study(tmp_path / name / "s") as one:
        claim = one.claim(1)
        assert claim is not None
        one.complete(claim, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "s" / "study.db").stat().st_size > 0


def test_what_was_asked_for_is_tried_to_the_last_digit(tmp_path: Path) -> None:
    start = {"model.rate": 0.1234567, "model.size": 16}
    with Study.open(tmp_path / "s", SPACE, seed=0, higher_is_better=True, start=start) as one:
        claim = one.claim(1)
        assert claim is not None
        assert claim.settings == start
        claim.release()  # its process dies
        claim = one.claim(1)
        assert claim is not None
        assert claim.settings == start
        one.complete(claim, 1.0)
        assert one.trials()[0].settings == start
