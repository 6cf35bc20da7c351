"""Files that are whole or not there, links and devices, and locks."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmrec_bench.errors import StorageError
from mmrec_bench.files import LockHolder, RunLock, atomic_write, locked


def test_writing_replaces_a_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    atomic_write(path, b"one")
    atomic_write(path, b"two")

    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_writing_to_a_link_writes_what_it_names(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("there")
    for content in (b"one", b"two"):
        atomic_write(link, content)
        assert link.is_symlink()
        assert (tmp_path / "there").read_bytes() == content


def test_an_open_file_of_a_process_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"before ")
        atomic_write(Path(f"/dev/fd/{file.fileno()}"), b"text")
    assert path.read_bytes() == b"before text"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_a_device_or_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic_write(pipe, b"text")
        assert os.read(reader, 9) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StorageError, match=r"^no room to write .*file \(3 bytes\)[^\n]*$"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_file_larger_than_allowed_is_one_line_and_leaves_nothing_torn(tmp_path: Path) -> None:
    # The operating system's own limit on file sizes, which a full disk is like.
    code = """
        import resource, sys
        from pathlib import Path
        from mmrec_bench.errors import StorageError
        from mmrec_bench.files import atomic_write
        folder = Path(sys.argv[1])
        atomic_write(folder / "part", b"kept")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            atomic_write(folder / "part", b"x" * 100_000)
        except StorageError as error:
            print(error)
    """
    found = run(code, tmp_path)

    assert found.stdout.startswith("no room to write")
    assert found.stdout.count("\n") == 1
    assert (tmp_path / "part").read_bytes() == b"kept"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot write"):
        atomic_write(tmp_path / "file" / "below", b"x")


HOLDER = """
    import sys, time
    from pathlib import Path
    from mmrec_bench.files import RunLock
    lock = RunLock(Path(sys.argv[1]))
    lock.acquire()
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    lock.release()
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder), str(seconds)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def test_a_lock_that_is_held_names_its_holder(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    try:
        with pytest.raises(StorageError, match=f"in use by process {process.pid} on "):
            RunLock(tmp_path).acquire(wait=False)
    finally:
        process.kill()
        process.wait()


def test_a_killed_process_loses_its_lock(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()

    with locked(tmp_path, wait=False) as lock:
        assert lock.held
        assert lock.holder().pid == os.getpid()
    assert not lock.held


def test_waiting_for_a_lock_tells_once_whom_for(tmp_path: Path) -> None:
    process = holder(tmp_path, 0.3)
    told: list[LockHolder] = []
    lock = RunLock(tmp_path)

    lock.acquire(on_wait=told.append)
    process.wait()

    assert [holder.pid for holder in told] == [process.pid]
    assert lock.held
    lock.release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    for _ in range(2):
        with lock:
            with pytest.raises(StorageError, match="by this object already"):
                lock.acquire()
            with pytest.raises(StorageError, match="in use"):
                RunLock(tmp_path).acquire(wait=False)
