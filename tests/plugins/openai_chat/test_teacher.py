from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import ConfigError
from mmrec_bench.plugins import installed
from mmrec_bench.teaching import Teacher, WritingRequest
from mmrec_bench.types import Message, Text
from mmrec_plugins.models.openai_chat.teacher import OpenAITeacher
from tests.plugins.openai_chat.faults import Answer, prompt_of, say, served
from tests.plugins.openai_chat.making import FAST, SCHEMA


def make(url: str, folder: Path, **options: Any) -> OpenAITeacher:  # noqa: ANN401 - options of any kind
    config = OpenAITeacher.Config(
        model="toy", base_url=url, request_log=folder / "log.sqlite", **FAST, **options
    )
    return OpenAITeacher(config)


def wish(text: str, schema: dict[str, Any] | None = None) -> WritingRequest:
    return WritingRequest((Message("user", (Text(text),)),), schema, draft="", max_tokens=33)


def test_it_writes_in_order_and_asks_nothing_twice(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], _n: int) -> Answer:
        assert body["max_tokens"] == 33
        return f"wrote {prompt_of(body)}"

    with served(rule) as server:
        teacher = make(server.url, tmp_path)
        assert isinstance(teacher, Teacher)
        wishes = [wish(f"{i}") for i in range(9)]
        written = teacher.write(wishes)
        assert [one.text for one in written] == [f"wrote {i}" for i in range(9)]
        assert (written[0].prompt_tokens, written[0].answer_tokens) == (100, 10)
        assert make(server.url, tmp_path).write(wishes) == written or written[0].cost != 0
        assert server.n_asked == 9


def test_a_refusal_has_no_text(tmp_path: Path) -> None:
    with served(lambda *_: say(None, refusal="no")) as server:
        [written] = make(server.url, tmp_path).write([wish("x")])
    assert (written.text, written.refused) == ("", True)


def test_bad_json_is_asked_for_again(tmp_path: Path) -> None:
    with served(lambda body, _n: "{}" if "must be JSON" in prompt_of(body) else "{") as server:
        [written] = make(server.url, tmp_path).write([wish("x", SCHEMA)])
        assert server.n_asked == 2
    assert (written.text, written.prompt_tokens) == ("{}", 200)


def test_the_fingerprint_names_model_and_settings_but_not_how_it_is_asked(tmp_path: Path) -> None:
    one = make("http://127.0.0.1:1/v1", tmp_path)
    assert '"model": "toy"' in one.fingerprint()
    assert one.fingerprint() == make("http://127.0.0.1:2/v1", tmp_path / "x").fingerprint()
    other = make("http://127.0.0.1:1/v1", tmp_path, temperature=0.5)
    assert one.fingerprint() != other.fingerprint()


def test_it_is_registered_and_takes_the_name_behind_the_colon() -> None:
    config = installed()["teacher"].configure("openai", {"model": "gpt-4o"}, "teacher")
    assert '"model": "gpt-4o"' in installed()["teacher"].create("openai", config).fingerprint()


def test_a_server_of_ones_own_needs_the_name_of_a_model() -> None:
    with pytest.raises(ConfigError, match="openai:NAME"):
        OpenAITeacher(OpenAITeacher.Config(base_url="http://127.0.0.1:1/v1"))
