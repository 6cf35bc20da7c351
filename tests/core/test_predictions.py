import logging
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrec_bench.counting import rank
from mmrec_bench.errors import StorageError
from mmrec_bench.files import remove_temporary
from mmrec_bench.predictions import MANIFEST, PredictionStore
from mmrec_bench.types import Answers, Cases, Int64Array, Outcome, Queries, Ragged, Ranks, Scores

N = 12


def all_cases() -> tuple[Cases, Scores]:
    """Twelve cases of five candidates with one to three targets, tied scores and answers."""
    rng = np.random.default_rng(0)
    candidates = np.stack([rng.permutation(30)[:5] for _ in range(N)]).astype(np.int32)
    targets = [candidates[i, : 1 + i % 3].tolist() for i in range(N)]
    queries = Queries(np.arange(N, dtype=np.int32), Ragged.from_rows([[]] * N), candidates)
    outcomes: tuple[Outcome, ...] = ("ok", "repaired", "invalid", "refused")
    values = rng.integers(0, 4, (N, 5)).astype(np.float32)
    values[3, 0] = np.nan
    answers = Answers(
        tuple(f"answer {i} 你好" for i in range(N)),
        tuple(outcomes[i % 4] for i in range(N)),
        rng.integers(0, 3, N).astype(np.int32),
        rng.integers(0, 300, N).astype(np.int32),
        rng.integers(0, 30, N).astype(np.int32),
    )
    return Cases(queries, Ragged.from_rows(targets)), Scores(values, answers)


CASES, SCORES = all_cases()


def chosen(rows: Int64Array, *, answers: bool = True) -> tuple[Scores, Ranks]:
    assert SCORES.answers is not None
    a = SCORES.answers
    picked = Answers(
        tuple(a.text[i] for i in rows),
        tuple(a.outcome[i] for i in rows),
        a.hallucinated[rows],
        a.prompt_tokens[rows],
        a.answer_tokens[rows],
    )
    values = SCORES.values[rows]
    return Scores(values, picked if answers else None), rank(values, CASES.take(rows))


def append(store: PredictionStore, rows: list[int], *, answers: bool = True) -> None:
    at = np.array(rows, np.int64)
    store.append(at, *chosen(at, answers=answers))


def assert_whole(store: PredictionStore) -> None:
    found = store.read()
    want = rank(SCORES.values, CASES)
    for name in ("n_better", "n_tied", "ranked", "case", "n_targets", "n_candidates", "top"):
        np.testing.assert_array_equal(getattr(found.ranks, name), getattr(want, name), name)
    assert found.scores is not None
    np.testing.assert_array_equal(found.scores, SCORES.values)
    assert found.answers is not None
    assert SCORES.answers is not None
    assert found.answers.text == SCORES.answers.text
    assert found.answers.outcome == SCORES.answers.outcome
    np.testing.assert_array_equal(found.answers.prompt_tokens, SCORES.answers.prompt_tokens)


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    return PredictionStore(tmp_path / "predictions", "spec-a", N)


def test_parts_come_back_in_case_order(store: PredictionStore) -> None:
    for rows in ([7, 2, 11], [0, 1], [3, 4, 5, 6, 8, 9, 10]):
        append(store, rows)

    assert_whole(store)
    assert_whole(PredictionStore(store.folder, "spec-a", N))


def test_missing_rows_are_those_that_no_part_holds(store: PredictionStore) -> None:
    assert store.missing().tolist() == list(range(N))
    assert not store.folder.exists()

    append(store, [1, 4])

    assert store.missing().tolist() == [0, 2, 3, *range(5, N)]


def test_reading_an_unfinished_run_is_an_error_that_says_how_much_is_missing(
    store: PredictionStore,
) -> None:
    append(store, [1, 4])

    with pytest.raises(StorageError, match=r"lacks predictions of 10 of 12 cases"):
        store.read()


def test_a_row_that_two_parts_hold_counts_once(store: PredictionStore) -> None:
    append(store, list(range(8)))
    append(store, list(range(4, N)))

    assert_whole(store)


def test_scores_over_the_whole_catalog_are_not_kept(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path, "spec-a", N, keep_scores=False)
    append(store, list(range(N)), answers=False)
    found = store.read()

    assert found.scores is None
    assert found.answers is None
    assert len(found.ranks) == N


def test_a_folder_of_another_spec_is_refused_with_both_hashes(store: PredictionStore) -> None:
    append(store, [0])

    with pytest.raises(StorageError, match=r"spec spec-a .*not of spec-b"):
        PredictionStore(store.folder, "spec-b", N)
    with pytest.raises(StorageError, match=r"12 cases.*13 cases"):
        PredictionStore(store.folder, "spec-a", N + 1)


def test_an_unreadable_manifest_is_one_clear_error(store: PredictionStore) -> None:
    append(store, [0])
    (store.folder / MANIFEST).write_bytes(b'{"spec_')

    with pytest.raises(StorageError, match="cannot read"):
        PredictionStore(store.folder, "spec-a", N)


def test_a_part_of_another_spec_is_not_believed(store: PredictionStore, tmp_path: Path) -> None:
    other = PredictionStore(tmp_path / "other", "spec-b", N)
    append(store, [0])
    append(other, [1])
    for path in other.folder.glob("part-*"):
        (store.folder / path.name).write_bytes(path.read_bytes())

    assert store.missing().tolist() == list(range(1, N))
    assert len(store.damaged) == 1


def test_a_truncated_part_is_reported_missing_and_replaced(
    store: PredictionStore, caplog: pytest.LogCaptureFixture
) -> None:
    append(store, [0, 1])
    append(store, list(range(2, N)))
    torn = sorted(store.folder.glob("part-*"))[0]
    torn.write_bytes(torn.read_bytes()[:200])

    with caplog.at_level(logging.WARNING):
        assert store.missing().tolist() == [0, 1]
    assert "is damaged" in caplog.text
    with pytest.raises(StorageError, match=r"2 of 12 cases, 1 parts are damaged"):
        store.read()

    append(store, [1])
    assert not torn.exists()
    append(store, [0])
    assert_whole(store)
    assert store.damaged == []


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10_000_000), st.integers(0, 7), st.sampled_from(["flip", "cut", "grow"]))
def test_any_damage_is_noticed_and_never_crashes(
    tmp_path: Path, position: int, bit: int, damage: str
) -> None:
    store = PredictionStore(tmp_path / f"{position}-{bit}-{damage}", "spec-a", N)
    append(store, list(range(N)))
    (path,) = store.folder.glob("part-*")
    data = bytearray(path.read_bytes())
    at = position % len(data)
    if damage == "flip":
        data[at] ^= 1 << bit
    data = data[:at] if damage == "cut" else data
    path.write_bytes(bytes(data) + (b"x" * bit if damage == "grow" else b""))

    # A flip in unused zip fields may leave the content whole; wrong content never passes.
    if not len(store.missing()):
        assert_whole(store)


def test_rows_and_predictions_that_do_not_match_are_refused(store: PredictionStore) -> None:
    scores, ranks = chosen(np.array([0, 1]))

    with pytest.raises(ValueError, match="must match"):
        store.append(np.array([0]), scores, ranks)
    with pytest.raises(ValueError, match="must be different"):
        store.append(np.array([1, 1]), scores, ranks)
    with pytest.raises(ValueError, match="must be different"):
        store.append(np.array([0, N]), scores, ranks)


def test_clearing_lets_another_spec_in(store: PredictionStore) -> None:
    append(store, [0])
    store.clear()

    assert len(PredictionStore(store.folder, "spec-b", N).missing()) == N


def test_text_that_utf8_cannot_hold_is_stored_with_question_marks(store: PredictionStore) -> None:
    scores, ranks = chosen(np.arange(N))
    assert scores.answers is not None
    zeros = np.zeros(N, np.int32)
    odd = Answers(("\ud800 x",) * N, scores.answers.outcome, zeros, zeros, zeros)

    store.append(np.arange(N), Scores(scores.values, odd), ranks)

    found = store.read().answers
    assert found is not None
    assert found.text[0] == "? x"


def test_temporary_files_of_a_killed_process_are_removed(store: PredictionStore) -> None:
    append(store, [0])
    (store.folder / ".part-1.npz.123.tmp").write_bytes(b"torn")

    again = PredictionStore(store.folder, "spec-a", N)
    append(again, [1])

    assert remove_temporary(store.folder) == 0
    assert again.missing().tolist() == list(range(2, N))


WRITER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    import numpy as np
    from tests.core.test_predictions import N, append
    from mmrec_bench.predictions import PredictionStore
    store = PredictionStore(Path(sys.argv[1]), "spec-a", N)
    print("ready", flush=True)
    for row in store.missing().tolist():
        append(store, [row])
"""


def test_a_writer_killed_at_any_point_loses_at_most_the_part_in_hand(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    folder = tmp_path / "predictions"
    draw = random.Random(0)
    n_kills = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), root],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(draw.uniform(0, 0.012))
        n_kills += writer.poll() is None
        writer.kill()
        writer.wait()
        writer.stdout.close()
        store = PredictionStore(folder, "spec-a", N)
        store.missing()
        assert store.damaged == []
    for row in store.missing().tolist():
        append(store, [row])

    assert n_kills > 0
    assert_whole(store)
    assert remove_temporary(folder) == 0 or not len(store.missing())
