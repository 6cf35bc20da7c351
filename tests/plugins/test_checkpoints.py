import os
import tracemalloc
from pathlib import Path

import pytest
import torch

from mmrec_bench.errors import StorageError
from mmrec_plugins.models.checkpoints import read_checkpoint, write_checkpoint


def step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    state = {"fingerprint": "f", "step": 3, "tensor": torch.arange(4), "rows": [[1, 0.5]]}
    write_checkpoint(tmp_path, 3, state)
    found = read_checkpoint(tmp_path, "f")
    assert found is not None
    assert torch.equal(found.pop("tensor"), torch.arange(4))
    assert found == {"fingerprint": "f", "step": 3, "rows": [[1, 0.5]]}


def test_without_a_folder_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "nowhere", "f") is None


def test_a_checkpoint_of_other_settings_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, 3, {"fingerprint": "one", "step": 3})
    assert read_checkpoint(tmp_path, "other") is None
    assert "other settings" in caplog.text
    found = read_checkpoint(tmp_path, "one")
    assert found is not None
    assert found["step"] == 3


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        write_checkpoint(tmp_path, step, {"fingerprint": "f", "step": step})
    assert [step_of(path) for path in sorted(tmp_path.iterdir())] == [3, 4]


def test_what_another_fit_left_behind_is_neither_counted_nor_removed(tmp_path: Path) -> None:
    for step in (70, 80):
        write_checkpoint(tmp_path, step, {"fingerprint": "before", "step": step})
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, {"fingerprint": "f", "step": step})
        found = read_checkpoint(tmp_path, "f")
        assert found is not None
        assert found["step"] == step
    assert sorted(step_of(path) for path in tmp_path.iterdir()) == [2, 3, 70, 80]
    assert read_checkpoint(tmp_path, "before") is not None


def test_a_state_is_held_once_more_while_it_is_written(tmp_path: Path) -> None:
    weights = torch.zeros(5 << 20)  # 20 MiB
    tracemalloc.start()  # sees Python's own buffers, not torch's
    try:
        write_checkpoint(tmp_path, 1, {"fingerprint": "f", "weights": weights})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * weights.nbytes


@pytest.mark.parametrize("size", [0, 10, 40, 300])
def test_a_torn_file_is_passed_over_for_the_one_before(
    size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, {"fingerprint": "f", "step": step})
    newest = max(tmp_path.iterdir(), key=step_of)
    newest.write_bytes(newest.read_bytes()[:size])
    found = read_checkpoint(tmp_path, "f")
    assert found is not None
    assert found["step"] == 1
    assert newest.name in caplog.text


def test_a_full_disk_is_one_line_and_keeps_the_files_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, 1, {"fingerprint": "f", "step": 1})

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_checkpoint(tmp_path, 2, {"fingerprint": "f", "step": 2})
    assert [step_of(path) for path in tmp_path.iterdir()] == [1]
