import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import StorageError
from mmrec_plugins.models.openai_chat import log_file
from mmrec_plugins.models.openai_chat.log import ANSWERED, Attempt, Held, Kept, RequestLog
from mmrec_plugins.models.openai_chat.owners import Owner, this_process

DESCRIBED: dict[str, Any] = {"provider": "p", "model": "m", "revision": "", "messages": []}
ANSWER = Attempt(
    ANSWERED,
    {"choices": [{"message": {"content": "hi \udc00 é"}}]},
    started=1.0,
    seconds=0.5,
    prompt_tokens=3,
    cached_tokens=1,
    answer_tokens=2,
)


def claim(log: RequestLog, key: str = "k", lease: float = 0.0) -> Kept | Held | None:
    return log.claim(key, DESCRIBED, 10, lease)


def test_an_answer_outlives_the_process(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "a" / "log.sqlite") as log:
        assert claim(log) is None
        log.record("k", ANSWER, release=True)
    with RequestLog(tmp_path / "a" / "log.sqlite") as log:
        assert log.find("k") == Kept(ANSWER, 0)
        assert claim(log) == Kept(ANSWER, 0)


def test_failures_are_kept_and_counted(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        claim(log)
        for _ in range(3):
            log.record("k", Attempt("HTTP 500", {"said": "no"}), release=False)
        assert log.find("k") is None
        log.record("k", ANSWER, release=True)
        assert log.find("k") == Kept(ANSWER, 3)


def test_a_claimed_request_is_held_until_it_is_released(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log, RequestLog(tmp_path / "log.sqlite") as other:
        assert claim(log) is None
        held = claim(other)
        assert isinstance(held, Held)
        assert held.owner == this_process()
        log.release("k")
        assert claim(other) is None


def test_a_dead_process_loses_its_claim_and_its_attempt_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    code = (
        "import os, pathlib\n"
        "from mmrec_plugins.models.openai_chat.log import RequestLog\n"
        f"log = RequestLog(pathlib.Path({str(path)!r}))\n"
        "log.claim('k', {'provider': 'p', 'model': 'm', 'revision': ''}, 10, 9e12)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with RequestLog(path) as log:
        assert claim(log) is None
        [row] = log.account()
        assert row[4] == "lost"
        log.record("k", ANSWER, release=True)
        assert log.find("k") == Kept(ANSWER, 1)


def test_a_process_number_that_is_used_again_is_not_the_owner() -> None:
    mine = this_process()
    assert mine.lives(0.0)
    assert not Owner(mine.host, mine.pid, mine.started + 1).lives(9e12)


def test_of_another_machine_the_lease_is_believed() -> None:
    elsewhere = Owner("elsewhere/0/0", 1, 1)
    assert elsewhere.lives(time.time() + 10)
    assert not elsewhere.lives(time.time() - 10)


def test_a_second_answer_is_noted_but_never_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        claim(log)
        log.record("k", ANSWER, release=True)
        later = Attempt(ANSWERED, {"other": 1}, 2.0, 0.1)
        assert log.record("k", later, release=True) == Kept(ANSWER, 0)
        assert {row[4]: row[6] for row in log.account()} == {"answered": 1, "answered again": 1}


@pytest.mark.parametrize("table", ["requests", "attempts"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET key = 'x'"])
def test_requests_and_attempts_only_grow(table: str, statement: str, tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        claim(log)
        log.record("k", ANSWER, release=True)
    db = sqlite3.connect(tmp_path / "log.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="only grow"):
        db.execute(statement.format(table))
    db.close()


def test_the_file_is_the_users_alone_and_a_write_ahead_log(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RequestLog(path) as log:
        claim(log)
        for file in tmp_path.glob("log.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert (tmp_path / "log.sqlite-wal").exists()


def test_what_a_server_wants_is_kept_by_model(tmp_path: Path) -> None:
    with RequestLog(tmp_path / "log.sqlite") as log:
        log.set_feature(("p", "m", ""), "structured", "none")
        assert log.feature(("p", "m", ""), "structured") == "none"
        assert log.feature(("p", "other", ""), "structured") is None


def test_many_threads_claim_a_request_once(tmp_path: Path) -> None:
    won: list[int] = []
    with RequestLog(tmp_path / "log.sqlite") as log:
        gate = threading.Barrier(8)

        def work(number: int) -> None:
            gate.wait()
            if claim(log) is None:
                won.append(number)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(won) == 1


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 99, b"SQLite format 3\0" + b"x" * 99]
)
def test_a_file_that_is_no_database_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged: file is not a database; move it away"):
        RequestLog(path)
    assert path.read_bytes() == content


def test_a_torn_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RequestLog(path) as log:
        for number in range(200):
            claim(log, f"k{number}")
            log.record(f"k{number}", ANSWER, release=True)
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)
    with (
        pytest.raises(StorageError, match=r"the request log .* is damaged: .*; move it away"),
        RequestLog(path) as log,
    ):
        log.find("k7")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mine(x)")
    db.close()
    with pytest.raises(StorageError, match="another program's database"):
        RequestLog(path)


def test_a_log_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    RequestLog(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match="version 99, this program reads 1"):
        RequestLog(path)


def test_a_locked_database_is_waited_for_and_then_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "BUSY_SECONDS", 0.3)
    path = tmp_path / "log.sqlite"
    with RequestLog(path) as log:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StorageError, match="was locked by another program"):
            claim(log)
        assert time.monotonic() - started >= 0.3
        timer = threading.Timer(0.1, other.execute, ("ROLLBACK",))
        timer.start()
        assert claim(log) is None
        timer.join()
        other.close()


_FILL = """
import json, pathlib, resource, sys
from mmrec_bench.errors import StorageError
from mmrec_plugins.models.openai_chat.log import Attempt, RequestLog
path = pathlib.Path(sys.argv[1])
with RequestLog(path) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, 800_000))
    kept = 0
    try:
        while True:
            key = f"k{kept}"
            log.claim(key, {"provider": "p", "model": "m", "revision": ""}, 1, 0.0)
            log.record(key, Attempt("answered", {"text": "x" * 5000}), release=True)
            kept += 1
    except StorageError as error:
        print(json.dumps([kept, str(error)]))
        sys.stdout.flush()
        import os
        os._exit(0)
"""


def test_a_full_disk_is_one_line_and_what_was_kept_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True, check=True
    )
    kept, line = json.loads(done.stdout)
    assert kept > 5
    assert "no room to write the request log" in line
    assert "\n" not in line
    with RequestLog(path) as log:
        assert len(log.find_all([f"k{i}" for i in range(kept + 1)])) == kept


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot open the request log .*model.request_log=FILE"):
        RequestLog(tmp_path / "file" / "log.sqlite")


def test_forked_children_are_owners_of_their_own() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(this_process().pid).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert int(os.read(read, 20)) == pid != this_process().pid
    os.close(read)
    os.close(write)
