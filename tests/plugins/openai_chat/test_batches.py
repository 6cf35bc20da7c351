import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.openai_chat.log import RequestLog
from tests.plugins.openai_chat.faults import (
    Answer,
    Body,
    Fault,
    FaultServer,
    complete_batch,
    prompt_of,
    served,
)
from tests.plugins.openai_chat.making import SCHEMA, ask, make_client, prices, questions


def echo(body: dict[str, Any], _n: int) -> Answer:
    return f"answer to {prompt_of(body)}"


def later(batch: Body) -> None:
    batch["status"] = "in_progress"


def finish(server: FaultServer) -> None:
    """Let every batch be done at its next poll."""
    server.batch_rule = complete_batch(server)


def texts(n: int) -> list[str]:
    return [f"answer to question {i}" for i in range(n)]


def test_a_batch_is_handed_in_left_and_come_back_for(tmp_path: Path) -> None:
    with served(echo) as server:
        server.batch_rule = later
        for _ in range(3):
            with pytest.raises(ModelError, match=r"batch batch_0 with 5 requests is on its way"):
                make_client(server.url, tmp_path).ask(questions(5), batch=True)
        assert len(server.batches) == 1
        assert server.n_asked == 0
        finish(server)
        replies = make_client(server.url, tmp_path).ask(questions(5), batch=True)
        assert [reply.text for reply in replies] == texts(5)
        assert (server.n_asked, len(server.batches)) == (5, 1)
        again = make_client(server.url, tmp_path).ask(questions(5))
        assert [reply.text for reply in again] == texts(5)
        assert server.n_asked == 5


def test_a_batch_may_be_waited_for(tmp_path: Path) -> None:
    polls: list[int] = []

    with served(echo) as server:
        done = server.batch_rule

        def third_time(batch: Body) -> None:
            polls.append(1)
            (done if len(polls) == 3 else later)(batch)

        server.batch_rule = third_time
        replies = make_client(server.url, tmp_path, batch_wait=20.0).ask(questions(3), batch=True)
        assert [reply.text for reply in replies] == texts(3)


def test_without_the_option_a_pending_batch_is_not_asked_again(tmp_path: Path) -> None:
    with served(echo) as server:
        server.batch_rule = later
        with pytest.raises(ModelError, match="on its way"):
            make_client(server.url, tmp_path).ask(questions(3), batch=True)
        with pytest.raises(ModelError, match="on its way"):
            make_client(server.url, tmp_path).ask(questions(3))
        other = make_client(server.url, tmp_path).ask([ask("another")])
        assert other[0].text == "answer to another"
        assert server.n_asked == 1


def test_only_what_has_no_answer_is_handed_in(tmp_path: Path) -> None:
    with served(echo) as server:
        make_client(server.url, tmp_path).ask(questions(2))
        make_client(server.url, tmp_path).ask(questions(5), batch=True)
        assert server.n_asked == 5
        assert not server.twice()


def test_lines_that_failed_are_handed_in_again(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], n: int) -> Answer:
        failed = n == 0 and prompt_of(body) == "question 1"
        return Fault(500, {"error": {"message": "oh"}}) if failed else echo(body, n)

    with served(rule) as server:
        replies = make_client(server.url, tmp_path).ask(questions(3), batch=True)
        assert [reply.text for reply in replies] == texts(3)
        assert [reply.retries for reply in replies] == [0, 1, 0]
        assert len(server.batches) == 2
        assert not server.twice()


def test_an_expired_batch_keeps_its_answers_and_the_rest_is_handed_in_again(
    tmp_path: Path,
) -> None:
    with served(echo) as server:
        done = server.batch_rule

        def expire(batch: Body) -> None:
            done(batch)
            if batch["id"] == "batch_0":
                batch["status"] = "expired"
                name = batch["output_file_id"]
                server.files[name] = server.files[name].splitlines()[0] + "\n{torn"

        server.batch_rule = expire
        replies = make_client(server.url, tmp_path).ask(questions(3), batch=True)
        assert [reply.text for reply in replies] == texts(3)
        lines = server.files[server.batches["batch_1"]["input_file_id"]].splitlines()
        assert len(lines) == 2


def test_a_batch_that_the_server_refuses_is_one_line_and_gives_up_its_claims(
    tmp_path: Path,
) -> None:
    def fail(batch: Body) -> None:
        batch.update(status="failed", errors={"data": [{"message": "no such model"}]})

    with served(echo) as server:
        done, server.batch_rule = server.batch_rule, fail
        with pytest.raises(ModelError, match="refuses batch batch_0: no such model"):
            make_client(server.url, tmp_path).ask(questions(2), batch=True)
        server.batch_rule = done
        assert len(make_client(server.url, tmp_path).ask(questions(2), batch=True)) == 2


def test_a_server_without_structured_outputs_gets_the_batch_in_plain_text(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], n: int) -> Answer:
        if "response_format" in body:
            return Fault(400, {"error": {"message": "response_format is unknown"}})
        return echo(body, n)

    with served(rule) as server:
        replies = make_client(server.url, tmp_path).ask([ask("rank", schema=SCHEMA)], batch=True)
        assert [reply.structured for reply in replies] == [False]
        assert len(server.batches) == 3


@pytest.mark.parametrize("fault", [Fault(500, {}), Fault(0), Fault(cut=True)])
def test_a_batch_whose_creation_is_unclear_is_looked_for_before_another_is_made(
    fault: Fault, tmp_path: Path
) -> None:
    with served(echo) as server:
        server.batch_rule = later
        server.batch_faults = [fault]
        with pytest.raises(ModelError, match="looks whether the batch exists"):
            make_client(server.url, tmp_path).ask(questions(4), batch=True)
        finish(server)
        replies = make_client(server.url, tmp_path).ask(questions(4), batch=True)
        assert [reply.text for reply in replies] == texts(4)
        assert len(server.batches) == 1
        assert server.n_asked == 4


_DIE = """
import os, sys
from pathlib import Path
from mmrec_plugins.models.openai_chat.log import RequestLog
from tests.plugins.openai_chat.making import make_client, questions
state, when = sys.argv[3].split("-")
plain = RequestLog.set_batch
def die(self, ref, to, **columns):
    if to == state and when == "before":
        os.kill(os.getpid(), 9)
    plain(self, ref, to, **columns)
    if to == state:
        os.kill(os.getpid(), 9)
RequestLog.set_batch = die
make_client(sys.argv[1], Path(sys.argv[2])).ask(questions(4), batch=True)
"""


@pytest.mark.parametrize(
    "moment", ["creating-before", "creating-after", "submitted-before", "submitted-after"]
)
def test_a_process_killed_at_any_moment_hands_nothing_in_twice(moment: str, tmp_path: Path) -> None:
    with served(echo) as server:
        server.batch_rule = later
        done = subprocess.run(
            [sys.executable, "-c", _DIE, server.url, str(tmp_path), moment],
            cwd=Path(__file__).resolve().parents[3],
            check=False,
        )
        assert done.returncode == -9
        finish(server)
        replies = make_client(server.url, tmp_path).ask(questions(4), batch=True)
        assert [reply.text for reply in replies] == texts(4)
        assert len(server.batches) == 1
        assert server.n_asked == 4


def test_answers_of_a_batch_cost_less(tmp_path: Path) -> None:
    with served(echo) as server:
        client = make_client(server.url, tmp_path, prices=prices(tmp_path))
        [reply] = client.ask(questions(1), batch=True)
    assert reply.cost == pytest.approx(0.1)
    assert reply.seconds != reply.seconds


def test_max_cost_bounds_a_batch_by_its_worst_case(tmp_path: Path) -> None:
    with served(echo) as server:
        server.batch_rule = later
        options: dict[str, Any] = {"prices": prices(tmp_path), "max_cost": 0.6}
        client = make_client(server.url, tmp_path, **options)
        worst = client.worst_cost(questions(1)[0], batch=True)
        with pytest.raises(ModelError, match="on its way"):
            client.ask(questions(5), batch=True)
        lines = server.files[server.batches["batch_0"]["input_file_id"]].splitlines()
        assert len(lines) == int(0.6 / worst)
        assert 0 < len(lines) < 5
        poor = make_client(server.url, tmp_path / "b", **{**options, "max_cost": 0.01})
        with pytest.raises(ModelError, match=r"stopped before model.max_cost=0.01"):
            poor.ask(questions(5), batch=True)


def test_results_are_brought_in_once_by_two_that_come_back(tmp_path: Path) -> None:
    with served(echo) as server:
        server.batch_rule = later
        with pytest.raises(ModelError):
            make_client(server.url, tmp_path).ask(questions(2), batch=True)
        with RequestLog(tmp_path / "log.sqlite") as log:
            [row] = log.open_batches("compatible")
            finish(server)
            make_client(server.url, tmp_path).ask(questions(2), batch=True)
            log.end_batch(row.ref, {})
            assert {one[4]: one[6] for one in log.account()} == {"answered": 2}
