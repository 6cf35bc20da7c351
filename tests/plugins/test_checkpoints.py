import os
from pathlib import Path

import pytest
import torch

from mmrec_bench.errors import StorageError
from mmrec_plugins.models.checkpoints import read_checkpoint, write_checkpoint


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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tuning-00000003.ckpt",
        "tuning-00000004.ckpt",
    ]


@pytest.mark.parametrize("size", [0, 10, 40, 300])
def test_a_torn_file_is_passed_over_for_the_one_before(
    size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, {"fingerprint": "f", "step": step})
    newest = max(tmp_path.iterdir())
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
    assert [path.name for path in tmp_path.iterdir()] == ["tuning-00000001.ckpt"]
