import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import StorageError
from mmrec_bench.files import locked
from mmrec_bench.leaderboard import Board, build
from mmrec_bench.plugins import find_entry_points, load
from mmrec_bench.records import Stored
from mmrec_bench.report import site
from mmrec_bench.report.live import runs_under_way
from mmrec_bench.report.serving import Keeper, make_server
from mmrec_bench.report.site import ReportOptions
from tests.core.report.toys import N_USERS, run


@pytest.fixture
def results(toy: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy / "results", tmp_path / "results")
    return tmp_path / "results"


def keeper_of(results: Path) -> Keeper:
    options = ReportOptions(max_cases=0)
    return Keeper([results], results.parent / "site", options, load(find_entry_points()))


@contextmanager
def served(keeper: Keeper) -> Iterator[int]:
    server = make_server(keeper, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(port: int, path: str, *, method: str = "GET", host: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_pages_are_served_and_folders_are_not_listed(results: Path) -> None:
    keeper = keeper_of(results)
    assert keeper.look()
    (results.parent / "secret.txt").write_text("not in the report")
    with served(keeper) as port:
        status, body = ask(port, "/index.html")
        assert status == 200
        assert b"Leaderboards" in body
        assert ask(port, "/")[0] == 200
        assert ask(port, "/static/style.css")[0] == 200
        for path in ("/static/", "/../secret.txt", "/%2e%2e/secret.txt", "/nothing.html"):
            assert ask(port, path)[0] == 404, path
        assert ask(port, "/index.html", method="POST")[0] == 501
        assert ask(port, "/index.html", method="DELETE")[0] == 501


@pytest.mark.parametrize("path", ["/index.html", "/live.json"])
def test_a_page_of_the_web_cannot_read_it_under_another_name(results: Path, path: str) -> None:
    keeper = keeper_of(results)
    keeper.look()
    with served(keeper) as port:
        assert ask(port, path, host=f"evil.example:{port}")[0] == 403
        assert ask(port, path, host="evil.example")[0] == 403
        assert ask(port, path, host=f"localhost:{port}")[0] == 200


def test_a_new_record_makes_new_pages(toy: Path, results: Path) -> None:
    keeper = keeper_of(results)
    assert keeper.look()
    assert not keeper.look()
    run(toy / "data", results, "markov-1")
    assert keeper.look()
    assert "markov-1" in (keeper.target / "index.html").read_text(encoding="utf-8")
    with served(keeper) as port:
        assert json.loads(ask(port, "/live.json")[1]) == {"version": 2, "failure": "", "runs": []}


def test_a_record_that_cannot_be_believed_keeps_the_old_pages_and_is_told(results: Path) -> None:
    keeper = keeper_of(results)
    assert keeper.look()
    before = (keeper.target / "index.html").read_bytes()
    path = next((results / "records").rglob("popularity*.json"))
    path.write_text(path.read_text().replace('"n_users"', '"n_userz"'))
    assert not keeper.look()
    assert "was changed after it was written" in keeper.state()["failure"]
    assert (keeper.target / "index.html").read_bytes() == before


def test_a_board_whose_records_stayed_is_not_tested_anew(
    toy: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_of(results)
    assert keeper.look()
    built: list[int] = []

    def counted(group: Sequence[Stored], **more: Any) -> list[Board]:  # noqa: ANN401
        built.append(len(group))
        return build(group, **more)

    monkeypatch.setattr(site, "build", counted)
    run(toy / "data", results, "popularity", "-o", "protocol.n_candidates=4")
    assert keeper.look()
    assert built == [1]


def test_a_run_under_way_is_told_with_its_cases_and_rate(results: Path) -> None:
    assert runs_under_way([results]) == []
    folder = next((results / "runs").glob("popularity-*"))
    (folder / "timing.json").write_text(json.dumps({"seconds": 2.0, "cases": 10}))
    with locked(folder):
        (told,) = runs_under_way([results])
        assert (told["done"], told["total"]) == (N_USERS, N_USERS)
        assert told["title"] == f"{folder.name} on toy"
        assert told["words"] == f"{N_USERS} of {N_USERS} cases, measuring"
        for part in (folder / "predictions").glob("part-*"):
            part.unlink()
        (told,) = runs_under_way([results])
        assert told["words"] == f"0 of {N_USERS} cases, 5/s, 0:06 left"
        shutil.rmtree(folder / "model")
        assert runs_under_way([results])[0]["words"] == "fitting"
    assert runs_under_way([results]) == []


def test_a_run_whose_process_died_is_not_under_way(results: Path) -> None:
    folder = next((results / "runs").glob("popularity-*"))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    holder = {"pid": child.pid, "host": socket.gethostname(), "since": 0.0}
    (folder / "lock").write_text(json.dumps(holder))
    assert runs_under_way([results]) == []


@pytest.mark.parametrize(
    ("host", "words"),
    [("far-away", "may be running on far-away"), ("", "may be running on an unknown machine")],
)
def test_a_run_of_another_machine_is_never_called_dead(
    results: Path, host: str, words: str
) -> None:
    folder = next((results / "runs").glob("popularity-*"))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    # a number that no process here has, and one that this very process has
    for pid in (child.pid, os.getpid()):
        (folder / "lock").write_text(json.dumps({"pid": pid, "host": host, "since": 0.0}))
        (told,) = runs_under_way([results])
        assert told["words"].endswith(f", {words}")


@pytest.mark.parametrize("pid", [-1, 10**30])
def test_a_number_that_no_process_can_have_is_not_under_way(results: Path, pid: int) -> None:
    folder = next((results / "runs").glob("popularity-*"))
    holder = {"pid": pid, "host": socket.gethostname(), "since": 0.0}
    (folder / "lock").write_text(json.dumps(holder))
    assert runs_under_way([results]) == []


def test_a_torn_run_folder_does_not_stop_the_server(results: Path) -> None:
    folder = next((results / "runs").glob("popularity-*"))
    with locked(folder):
        (folder / "spec.json").write_text("{")
        (folder / "timing.json").write_text("[]")
        (folder / "predictions" / "predictions.json").write_text("")
        next((folder / "predictions").glob("part-*")).write_bytes(b"PK")
        (told,) = runs_under_way([results])
        assert (told["done"], told["total"]) == (0, 0)


def test_a_port_that_is_taken_is_one_clear_line(results: Path) -> None:
    keeper = keeper_of(results)
    with served(keeper) as port, pytest.raises(StorageError, match=r"choose another --port"):
        make_server(keeper, port)


def test_the_command_shows_the_report_until_it_is_interrupted(results: Path) -> None:
    # a shell that starts this in the background may have it ignore the signal
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "from mmrec_bench.cli import main; main()"
    command = [sys.executable, "-c", start, "report", str(results), "--serve"]
    command += ["-o", str(results.parent / "site"), "--port", "0", "--max-cases", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            port = int(line.split(":")[2].split("/")[0])
            assert ask(port, "/index.html")[0] == 200
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
