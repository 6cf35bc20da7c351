import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.openai_chat.client import ChatClient
from mmrec_plugins.models.openai_chat.log import RequestLog
from mmrec_plugins.models.openai_chat.server import retry_after
from tests.plugins.openai_chat.faults import Answer, Fault, prompt_of, say, served
from tests.plugins.openai_chat.making import SCHEMA, ask, make_client, questions


def echo(body: dict[str, Any], _n: int) -> Answer:
    return f"answer to {prompt_of(body)}"


def first(*faults: Answer) -> Any:  # noqa: ANN401 - options of any kind
    """Fail in turn, then echo."""
    return lambda body, n: faults[n] if n < len(faults) else echo(body, n)


def test_answers_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    with served(echo) as server:
        replies = make_client(server.url, tmp_path).ask(questions(20))
    assert [reply.text for reply in replies] == [f"answer to question {i}" for i in range(20)]
    assert {reply.model for reply in replies} == {"served-2024"}
    assert all((reply.prompt_tokens, reply.answer_tokens) == (100, 10) for reply in replies)


def test_equal_requests_are_asked_once(tmp_path: Path) -> None:
    with served(echo) as server:
        replies = make_client(server.url, tmp_path).ask([ask("same")] * 5)
        assert server.n_asked == 1
    assert len({reply.text for reply in replies}) == 1


def test_a_second_run_asks_nothing_and_needs_no_server(tmp_path: Path) -> None:
    with served(echo) as server:
        before = make_client(server.url, tmp_path).ask(questions(5))
    after = make_client("http://127.0.0.1:9/v1", tmp_path).ask(questions(5))
    assert after == before


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(429, {"error": {"message": "slow down"}}), "HTTP 429"),
        (Fault(429, {}, {"Retry-After": "0.05"}), "HTTP 429"),
        (Fault(500, "oh"), "HTTP 500"),
        (Fault(502, "<html>"), "HTTP 502"),
        (Fault(503, {}), "HTTP 503"),
        (Fault(529, {}), "HTTP 529"),
        (Fault(0), "cut connection"),
        (Fault(cut=True), "cut connection"),
        (Fault(500, "an answer that ends early", cut=True), "cut connection"),
        (Fault(500, "not packed", {"Content-Encoding": "gzip"}), "cut connection"),
        (Fault(body='{"choices": [{"mess'), "half answer"),
        (Fault(body={"error": "busy"}), "no choices"),
        (Fault(body={"choices": []}), "no choices"),
        (Fault(body={"choices": [{"message": {"content": 7}}]}), "no choices"),
    ],
)
def test_what_may_pass_is_tried_again_and_every_attempt_is_kept(
    fault: Fault, status: str, tmp_path: Path
) -> None:
    with served(first(fault, fault)) as server:
        client = make_client(server.url, tmp_path)
        replies = client.ask(questions(4))
        assert server.n_asked == 12
        assert not server.twice()
    assert [reply.retries for reply in replies] == [2] * 4
    assert [reply.text for reply in replies] == [f"answer to question {i}" for i in range(4)]
    with RequestLog(client.config.log_path) as log:
        counted = {row[4]: row[6] for row in log.account()}
    assert counted == {"answered": 4, status: 8}


def test_a_server_that_hangs_is_asked_again_after_the_timeout(tmp_path: Path) -> None:
    with served(first(Fault(body=say("late"), hang=1.0))) as server:
        started = time.monotonic()
        [reply] = make_client(server.url, tmp_path, timeout=0.2).ask([ask("hello")])
        assert 0.2 <= time.monotonic() - started < 1.0
    assert (reply.text, reply.retries) == ("answer to hello", 1)


def test_retry_after_in_seconds_is_kept(tmp_path: Path) -> None:
    with served(first(Fault(429, {}, {"Retry-After": "0.4"}))) as server:
        make_client(server.url, tmp_path).ask([ask("hello")])
        assert server.times[1] - server.times[0] >= 0.4


def test_retry_after_holds_back_the_other_requests_too(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], n: int) -> Answer:
        limited = n == 0 and prompt_of(body) == "question 0"
        return Fault(429, {}, {"Retry-After": "0.4"}) if limited else echo(body, n)

    with served(rule) as server:
        make_client(server.url, tmp_path, concurrency=1).ask(questions(3))
        assert server.times[1] - server.times[0] >= 0.4


def test_retry_after_is_read_as_seconds_milliseconds_and_date() -> None:
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(10, abs=1.5)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for text in ("", "soon", "nan", "inf"):
        assert retry_after({"retry-after": text}) is None


def test_a_server_that_wants_us_to_wait_for_hours_ends_the_call(tmp_path: Path) -> None:
    with served(first(Fault(429, {}, {"Retry-After": "7200"}))) as server:
        client = make_client(server.url, tmp_path)
        with pytest.raises(ModelError, match=r"asks to wait 7200 s more.*same command again later"):
            client.ask([ask("hello")])


def test_many_429s_halve_the_requests_under_way_and_answers_bring_them_back(
    tmp_path: Path,
) -> None:
    def rule(body: dict[str, Any], n: int) -> Answer:
        time.sleep(0.01)
        return Fault(429, {}) if n == 0 and "question 0" in prompt_of(body) else echo(body, n)

    with served(rule) as server:
        client = make_client(server.url, tmp_path, concurrency=8)
        client.ask(questions(60))
        assert server.most_under_way <= 8
    assert client.pace.lowest <= 4
    assert client.pace.limit > client.pace.lowest


def test_no_more_requests_are_under_way_than_allowed(tmp_path: Path) -> None:
    def slow(body: dict[str, Any], n: int) -> Answer:
        time.sleep(0.02)
        return echo(body, n)

    with served(slow) as server:
        make_client(server.url, tmp_path, concurrency=3).ask(questions(15))
        assert server.most_under_way == 3


def test_after_the_last_retry_one_line_says_what_happened(tmp_path: Path) -> None:
    with served(lambda _body, _n: Fault(500, {"error": {"message": "on fire"}})) as server:
        client = make_client(server.url, tmp_path, retries=2)
        with pytest.raises(ModelError, match=r"'toy' at 127.0.0.1:\d+ gave no answer in 3 attemp"):
            client.ask([ask("hello")])
        assert server.n_asked == 3


def test_answers_are_kept_when_another_request_fails(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], n: int) -> Answer:
        return Fault(500, {}) if "question 7" in prompt_of(body) else echo(body, n)

    with served(rule) as server:
        with pytest.raises(ModelError, match="gave no answer"):
            make_client(server.url, tmp_path, retries=1, concurrency=2).ask(questions(8))
        server.rule = echo
        make_client(server.url, tmp_path).ask(questions(8))
        assert not server.twice()
        assert len(server.answered) == 8


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "check the key in the environment variable OPENAI_API_KEY"),
        (403, "may not use this model"),
        (404, "check model.chat_model"),
        (400, "refuses a request"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(status: int, hint: str, tmp_path: Path) -> None:
    fault = Fault(status, {"error": {"message": "no\nsuch thing"}})
    with served(lambda _body, _n: fault) as server:
        with pytest.raises(ModelError, match=hint) as error:
            make_client(server.url, tmp_path, concurrency=1).ask(questions(5))
        assert server.n_asked == 1
    assert "\n" not in str(error.value)
    assert "'toy'" in str(error.value)
    assert "no such thing" in str(error.value)


def test_an_account_without_credit_is_not_asked_again(tmp_path: Path) -> None:
    fault = Fault(429, {"error": {"message": "pay first", "code": "insufficient_quota"}})
    with served(lambda _body, _n: fault) as server:
        with pytest.raises(ModelError, match="no credit left: pay first"):
            make_client(server.url, tmp_path, concurrency=1).ask(questions(3))
        assert server.n_asked == 1


def test_no_server_at_the_address_is_one_line(tmp_path: Path) -> None:
    client = make_client("http://127.0.0.1:9/v1", tmp_path, retries=1)
    with pytest.raises(ModelError, match=r"127.0.0.1:9 gave no answer.*no connection"):
        client.ask([ask("hello")])


def test_a_schema_is_asked_for_strictly(tmp_path: Path) -> None:
    with served(lambda _body, _n: '{"ranking": []}') as server:
        [reply] = make_client(server.url, tmp_path).ask([ask("rank", schema=SCHEMA)])
        sent = server.bodies[0]["response_format"]
    assert reply.structured
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["strict"] is True
    assert sent["json_schema"]["schema"]["additionalProperties"] is False
    assert sent["json_schema"]["schema"]["required"] == ["ranking"]


def _no_schema(body: dict[str, Any], n: int) -> Answer:
    if "response_format" in body:
        return Fault(400, {"error": {"message": "response_format is not supported"}})
    return echo(body, n)


def test_a_server_without_structured_outputs_is_asked_in_plain_text_and_it_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served(_no_schema) as server:
        wanted = [ask(f"rank {i}", schema=SCHEMA) for i in range(6)]
        replies = make_client(server.url, tmp_path, concurrency=1).ask(wanted)
        refused = server.n_asked - 6
        assert refused == 2  # json_schema, json_object
        again = [ask(f"more {i}", schema=SCHEMA) for i in range(3)]
        make_client(server.url, tmp_path).ask(again)
        assert server.n_asked == 6 + refused + 3
        assert make_client(server.url, tmp_path).ask(wanted) == replies
        assert server.n_asked == 6 + refused + 3
    assert not any(reply.structured for reply in replies)
    assert caplog.text.count("asked in plain text") == 1


def test_structured_on_makes_a_refusal_of_the_schema_an_error(tmp_path: Path) -> None:
    with served(_no_schema) as server:
        client = make_client(server.url, tmp_path, structured="on")
        with pytest.raises(ModelError, match="refuses structured outputs"):
            client.ask([ask("rank", schema=SCHEMA)])


def test_json_objects_with_a_schema_are_tried_before_plain_text(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], _n: int) -> Answer:
        if body["response_format"]["type"] != "json_object":
            return Fault(422, {"detail": [{"loc": ["body", "response_format", "type"]}]})
        return '{"ranking": ["A"]}'

    with served(rule) as server:
        [reply] = make_client(server.url, tmp_path).ask([ask("rank", schema=SCHEMA)])
        assert server.bodies[-1]["response_format"]["schema"]["type"] == "object"
    assert reply.structured


def test_an_answer_in_either_form_is_not_asked_for_again(tmp_path: Path) -> None:
    wanted = [ask(f"rank {i}", schema=SCHEMA) for i in range(2)]
    with served(lambda _body, _n: '{"ranking": ["A"]}') as server:
        before = make_client(server.url, tmp_path).ask(wanted[:1])
        server.rule = _no_schema
        after = make_client(server.url, tmp_path).ask(wanted)
        assert after[:1] == before
        assert not server.twice()


@pytest.mark.parametrize("right", ["max_tokens", "max_completion_tokens"])
def test_the_name_of_the_limit_is_found_out(right: str, tmp_path: Path) -> None:
    def rule(body: dict[str, Any], _n: int) -> Answer:
        wrong = {"max_tokens", "max_completion_tokens"} - {right}
        if wrong & body.keys():
            error = {"message": "Unsupported parameter", "param": wrong.pop()}
            return Fault(400, {"error": error})
        return str(body[right])

    with served(rule) as server:
        replies = make_client(server.url, tmp_path).ask(questions(6))
        assert [reply.text for reply in replies] == ["50"] * 6
        n = server.n_asked
        make_client(server.url, tmp_path).ask([ask("one more")])
        assert server.n_asked == n + 1


def test_a_model_that_takes_neither_limit_is_an_error(tmp_path: Path) -> None:
    fault = Fault(400, {"error": {"message": "max_tokens is too large"}})
    with (
        served(lambda _body, _n: fault) as server,
        pytest.raises(ModelError, match="max_tokens is too large"),
    ):
        make_client(server.url, tmp_path).ask([ask("hello")])


def test_openai_models_get_the_newer_name(tmp_path: Path) -> None:
    with served(echo) as server:
        make_client(server.url, tmp_path, provider="openai").ask([ask("hello")])
        assert server.bodies[0]["max_completion_tokens"] == 50
        assert "max_tokens" not in server.bodies[0]


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("temperature does not support 0", "model.temperature=null"),
        ("This model's maximum context length is 10", "instructions.history_length"),
        ("image_url is only supported by vision models", "model.pictures=off"),
    ],
)
def test_a_refusal_names_the_option_that_helps(message: str, hint: str, tmp_path: Path) -> None:
    fault = Fault(400, {"error": {"message": message}})
    with (
        served(lambda _body, _n: fault) as server,
        pytest.raises(ModelError, match=hint),
    ):
        make_client(server.url, tmp_path).ask([ask("hello")])


def test_a_content_filter_is_an_answer(tmp_path: Path) -> None:
    fault = Fault(400, {"error": {"message": "we do not talk so", "code": "content_filter"}})
    with served(lambda _body, _n: fault) as server:
        for _ in range(2):
            [reply] = make_client(server.url, tmp_path).ask([ask("hello")])
            assert (reply.refused, reply.text) == (True, "we do not talk so")
        assert server.n_asked == 1


def test_a_refusal_field_is_an_answer(tmp_path: Path) -> None:
    with served(lambda _body, _n: say(None, refusal="I will not")) as server:
        [reply] = make_client(server.url, tmp_path).ask([ask("hello")])
    assert (reply.refused, reply.text) == (True, "I will not")


def test_tokens_that_nobody_counted_are_estimated_and_cost_nobody_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = say("four and four more..")
    del body["usage"]
    with served(lambda *_: body) as server:
        [reply] = make_client(server.url, tmp_path).ask([ask("x" * 40)])
    assert (reply.counted, reply.prompt_tokens, reply.answer_tokens) == (False, 10, 5)
    assert reply.cost != reply.cost
    assert "counts no tokens" in caplog.text


def test_sampling_seeds_tell_runs_apart_only_where_answers_are_sampled(tmp_path: Path) -> None:
    def key(seed: int, **options: Any) -> str:  # noqa: ANN401 - options of any kind
        client = make_client("http://127.0.0.1:9/v1", tmp_path, **options)
        return ChatClient(client.config, "toy", seed=seed).plain_key(ask("hello"))

    assert key(0) == key(1)
    assert key(0, temperature=1.0) != key(1, temperature=1.0)
    assert key(0) != key(0, top_p=0.5)
    assert key(0) != key(0, revision="b")
    assert key(0) != key(0, provider="other")
    assert key(0) == key(0, concurrency=2, timeout=1.0, max_cost=None)
