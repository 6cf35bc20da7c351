import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mmrec_plugins.models.openai_chat.log import RequestLog
from tests.plugins.openai_chat.faults import Answer, Fault, prompt_of, say, served
from tests.plugins.openai_chat.making import make_client, questions

ROOT = Path(__file__).resolve().parents[3]


def start(url: str, folder: Path, n: int, **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401 - options of any kind
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.plugins.openai_chat.asking_process"),
            *(url, str(folder), str(n), json.dumps(options)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def slowly(body: dict[str, Any], _n: int) -> Answer:
    time.sleep(0.05)
    return f"answer to {prompt_of(body)}"


def test_a_killed_run_asks_again_only_what_had_no_answer(tmp_path: Path) -> None:
    n = 40
    enough = threading.Event()

    def rule(body: dict[str, Any], count: int) -> Answer:
        if sum(server.answered.values()) >= 12:
            enough.set()
        return slowly(body, count)

    with served(rule) as server:
        process = start(server.url, tmp_path, n, concurrency=3)
        assert enough.wait(60)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        time.sleep(0.2)  # the server finishes what it had begun
        with RequestLog(tmp_path / "log.sqlite") as log:
            kept = sum(row[6] for row in log.account() if row[4] == "answered")
        before = server.n_asked
        assert 9 <= kept <= before < n
        # answers that were on their way when the process died never arrived
        assert before - kept <= 3
        replies = make_client(server.url, tmp_path, concurrency=3).ask(questions(n))
        assert server.n_asked == before + n - kept
    assert [reply.text for reply in replies] == [f"answer to question {i}" for i in range(n)]
    assert len(server.twice()) == before - kept
    # what was claimed and perhaps not yet sent counts as lost, too
    assert before - kept <= sum(reply.retries for reply in replies) <= 3


def test_two_processes_on_one_log_ask_each_question_once(tmp_path: Path) -> None:
    n = 30
    with served(slowly) as server:
        processes = [start(server.url, tmp_path, n, concurrency=3) for _ in range(2)]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert server.n_asked == n
        assert not server.twice()
        assert server.most_under_way > 3  # both worked
    expected = [f"answer to question {i}" for i in range(n)]
    assert [json.loads(output.splitlines()[-1]) for output in outputs] == [expected] * 2


def test_a_waiting_process_takes_over_from_one_that_is_killed(tmp_path: Path) -> None:
    holding = threading.Event()

    def rule(body: dict[str, Any], n: int) -> Answer:
        if n == 0:
            holding.set()
            time.sleep(1.0)
        return f"answer to {prompt_of(body)}"

    with served(rule) as server:
        process = start(server.url, tmp_path, 1)
        assert holding.wait(60)
        killer = threading.Timer(0.2, process.kill)
        killer.start()
        [reply] = make_client(server.url, tmp_path).ask(questions(1))
        killer.join()
        process.communicate()
    assert (reply.text, reply.retries) == ("answer to question 0", 1)


def test_two_clients_of_one_process_share_what_is_under_way(tmp_path: Path) -> None:
    with served(slowly) as server:
        texts: list[list[str]] = []

        def work() -> None:
            replies = make_client(server.url, tmp_path).ask(questions(10))
            texts.append([reply.text for reply in replies])

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.n_asked == 10
    assert len(texts) == 3
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("faults", [0.3])
def test_under_a_storm_of_faults_nothing_is_lost_and_nothing_answered_is_asked_again(
    faults: float, tmp_path: Path
) -> None:
    dice, lock = random.Random(0), threading.Lock()
    kinds = [
        Fault(429, {}, {"Retry-After": "0.01"}),
        Fault(500, {}),
        Fault(503, "busy"),
        Fault(0),
        Fault(cut=True),
        Fault(body='{"choi'),
        Fault(body=say("late"), hang=0.4),
    ]

    def rule(body: dict[str, Any], _n: int) -> Answer:
        with lock:
            if dice.random() < faults:
                return dice.choice(kinds)
        return f"answer to {prompt_of(body)}"

    with served(rule) as server:
        client = make_client(server.url, tmp_path, timeout=0.3, retries=20, concurrency=8)
        replies = client.ask(questions(80))
        assert [reply.text for reply in replies] == [f"answer to question {i}" for i in range(80)]
        assert not server.twice()
        assert server.n_asked == 80 + sum(reply.retries for reply in replies)
