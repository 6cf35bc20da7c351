import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from mmrec_bench.config import identity
from mmrec_bench.errors import ConfigError, ModelError
from mmrec_bench.interfaces import (
    ChoosesInstructions,
    EstimatesCost,
    InstructionBuilder,
    ResolvesOptions,
    TrainingData,
    Transfers,
)
from mmrec_bench.plugins import installed
from mmrec_bench.testing import (
    RecommenderTests,
    check_config_round_trip,
    toy_split,
    toy_training_data,
)
from mmrec_bench.types import Catalog, Image, Instruction, Message, Queries, Query, Split, Text
from mmrec_plugins.instructions.ranking import Ranking
from mmrec_plugins.models.openai_chat.recommender import ChatConfig, ChatRecommender
from tests.plugins.openai_chat.faults import Answer, Fault, FaultServer, prompt_of, say, served
from tests.plugins.openai_chat.making import FAST, SCHEMA, prices


class JsonRanking(Ranking):
    """The builder `ranking` with an answer in JSON and, where there are files, pictures."""

    pictures: tuple[Path, ...] = ()

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        plain = super().build(query, catalog)
        parts = (*plain.messages[0].parts, *(Image(path, 0) for path in self.pictures))
        return Instruction((Message("user", parts),), plain.labels, plain.answers, SCHEMA)

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        try:
            names = json.loads(text)["ranking"]
        except (ValueError, KeyError, TypeError):
            return super().parse(text, instruction)
        return super().parse("\n".join(map(str, names)), instruction)


def choose_last(body: dict[str, Any], _n: int) -> Answer:
    """Name the last two candidates, best first."""
    labels = [line[0] for line in prompt_of(body).splitlines() if line[1:3] == ". "]
    letters = [label for label in labels if label.isalpha()]
    return "\n".join(reversed(letters[-2:]))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with served(choose_last) as state:
        yield state


def make(server: FaultServer, folder: Path, **options: Any) -> ChatRecommender:  # noqa: ANN401 - options of any kind
    values = {"chat_model": "toy", **FAST, **options}
    return ChatRecommender(
        ChatConfig(base_url=server.url, request_log=folder / "log.sqlite", **values)
    )


def fitted(
    server: FaultServer,
    folder: Path,
    builder: InstructionBuilder | None = None,
    **options: Any,  # noqa: ANN401 - options of any kind
) -> tuple[ChatRecommender, Split]:
    split = toy_split()
    data = toy_training_data(
        split, folder / "scratch", builder=builder or Ranking(Ranking.Config())
    )
    recommender = make(server, folder, **options)
    recommender.fit(data, seed=0)
    return recommender, split


class TestChatRecommender(RecommenderTests):
    @pytest.fixture(autouse=True)
    def _served(self, server: FaultServer, tmp_path: Path) -> None:
        self.server, self.folder = server, tmp_path

    def make(self) -> ChatRecommender:
        return make(self.server, self.folder)

    def builder(self) -> InstructionBuilder:
        return Ranking(Ranking.Config())

    def test_config_is_strict_and_survives_json(self) -> None:
        check_config_round_trip(ChatRecommender(ChatConfig()))


def test_scores_are_minus_the_place_in_the_answer(server: FaultServer, tmp_path: Path) -> None:
    recommender, split = fitted(server, tmp_path)
    scores = recommender.score(split.test.queries[:3])
    np.testing.assert_array_equal(scores.values[:, -2:], [[-1, 0]] * 3)
    assert np.isnan(scores.values[:, :-2]).all()
    answers = scores.answers
    assert answers is not None
    assert answers.outcome == ("ok",) * 3
    assert answers.prompt_tokens.tolist() == [100] * 3
    assert answers.cost is not None
    assert np.isnan(answers.cost).all()  # nobody knows the price of `toy`


@pytest.mark.parametrize(
    ("answer", "outcome", "hallucinated"),
    [
        ("A", "ok", 0),
        ("The best one:\nA", "repaired", 0),
        ("1. a mug that is not there\nA", "repaired", 1),
        ("a mug that is not there", "invalid", 1),
        ("I am sorry, I cannot.", "refused", 0),
        (say(None, refusal="no"), "refused", 0),
        (say("A", finish="content_filter"), "refused", 0),
        (say("What a long story that", finish="length"), "invalid", 1),
        (say("", finish="length"), "invalid", 0),
    ],
)
def test_plain_answers_are_classed_by_their_form(
    answer: Answer, outcome: str, hallucinated: int, server: FaultServer, tmp_path: Path
) -> None:
    server.rule = lambda *_: answer
    recommender, split = fitted(server, tmp_path, form_retries=0)
    answers = recommender.score(split.test.queries[:1]).answers
    assert answers is not None
    assert answers.outcome == (outcome,)
    assert answers.hallucinated.tolist() == [hallucinated]


@pytest.mark.parametrize(
    ("answer", "outcome", "hallucinated"),
    [
        ('{"ranking": ["A", "B"]}', "ok", 0),
        ('{\n  "ranking": [\n    "A"\n  ]\n}', "ok", 0),
        ('{"ranking": ["A", "no such thing"]}', "repaired", 1),
        ('{"ranking": ["Z9"]}', "invalid", 1),
        ('{"ranking": []}', "invalid", 0),
        ('{"other": "A"}', "invalid", 0),
        ("A", "repaired", 0),  # JSON was asked for
        ('{"ranking": ["A"', "invalid", 0),
    ],
)
def test_json_answers_are_classed_by_their_form(
    answer: str, outcome: str, hallucinated: int, server: FaultServer, tmp_path: Path
) -> None:
    server.rule = lambda *_: answer
    recommender, split = fitted(server, tmp_path, JsonRanking(Ranking.Config()), form_retries=0)
    answers = recommender.score(split.test.queries[:1]).answers
    assert answers is not None
    assert answers.outcome == (outcome,)
    assert answers.hallucinated.tolist() == [hallucinated]


def test_an_answer_of_no_use_is_asked_for_again_with_a_reminder(
    server: FaultServer, tmp_path: Path
) -> None:
    server.rule = lambda body, _n: (
        '{"ranking": ["A"]}' if "must be JSON" in prompt_of(body) else "hm {"
    )
    builder = JsonRanking(Ranking.Config())
    recommender, split = fitted(server, tmp_path, builder)
    for _ in range(2):  # the second time from the log
        answers = recommender.score(split.test.queries[:2]).answers
        assert answers is not None
        assert answers.outcome == ("ok", "ok")
        assert answers.retries is not None
        assert answers.retries.tolist() == [1, 1]
        assert answers.prompt_tokens.tolist() == [200, 200]
        assert server.n_asked == 4


def test_a_wrong_answer_in_good_form_is_never_asked_for_again(
    server: FaultServer, tmp_path: Path
) -> None:
    server.rule = lambda *_: '{"ranking": ["no such thing"]}'
    recommender, split = fitted(server, tmp_path, JsonRanking(Ranking.Config()), form_retries=5)
    recommender.score(split.test.queries[:3])
    assert server.n_asked == 3


def test_a_refusal_and_a_cut_answer_are_never_asked_for_again(
    server: FaultServer, tmp_path: Path
) -> None:
    for answer in (say(None, refusal="no"), say('{"rank', finish="length")):
        server.rule = lambda *_, answer=answer: answer
        before = server.n_asked
        folder = tmp_path / str(before)
        recommender, split = fitted(server, folder, JsonRanking(Ranking.Config()))
        recommender.score(split.test.queries[:1])
        assert server.n_asked == before + 1


def test_pictures_are_sent_small_and_broken_ones_are_left_out_and_counted(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, broken = tmp_path / "good.png", tmp_path / "broken.jpg"
    PillowImage.new("RGB", (300, 600), "red").save(good)
    broken.write_bytes(b"<html>")
    builder = JsonRanking(Ranking.Config())
    builder.pictures = (good, broken, tmp_path / "missing.jpg")
    server.rule = lambda *_: '{"ranking": ["A"]}'
    recommender, split = fitted(server, tmp_path, builder, picture_side=64)
    recommender.score(split.test.queries[:1])
    content = server.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert content[1]["image_url"]["detail"] == "low"
    assert len(content[1]["image_url"]["url"]) < 2000
    assert recommender.facts()["pictures_broken"] == 2
    assert "2 pictures cannot be read" in caplog.text


def test_another_picture_is_another_request(server: FaultServer, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    builder = JsonRanking(Ranking.Config())
    builder.pictures = (picture,)
    server.rule = lambda *_: '{"ranking": ["A"]}'
    for number, colour in enumerate(("red", "blue", "red"), start=1):
        PillowImage.new("RGB", (30, 30), colour).save(picture)
        recommender, split = fitted(server, tmp_path, builder)
        recommender.score(split.test.queries[:1])
        assert server.n_asked == min(number, 2)


def test_pictures_can_be_switched_off(server: FaultServer, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    PillowImage.new("RGB", (30, 30), "red").save(picture)
    builder = JsonRanking(Ranking.Config())
    builder.pictures = (picture,)
    recommender, split = fitted(server, tmp_path, builder, pictures="off")
    recommender.score(split.test.queries[:1])
    assert isinstance(server.bodies[0]["messages"][0]["content"], str)


def test_the_cost_of_each_case_is_in_the_answers_also_from_the_log(
    server: FaultServer, tmp_path: Path
) -> None:
    for _ in range(2):
        recommender, split = fitted(server, tmp_path, prices=prices(tmp_path))
        answers = recommender.score(split.test.queries[:3]).answers
        assert answers is not None
        assert answers.cost is not None
        np.testing.assert_allclose(answers.cost, 0.1 + 0.1)  # 100 and 10 tokens
    assert server.n_asked == 3


def test_an_estimate_asks_nothing_and_counts_what_is_in_the_log(
    server: FaultServer, tmp_path: Path
) -> None:
    recommender, split = fitted(server, tmp_path, prices=prices(tmp_path))
    data = toy_training_data(split, tmp_path, builder=Ranking(Ranking.Config()))
    before = recommender.estimate(data, split.test.queries)
    assert server.n_asked == 0
    assert before["requests"] == before["requests_to_send"] == len(split.test)
    assert "rule of thumb" in str(before["tokens_estimated_by"])
    recommender.score(split.test.queries[:10])
    after = make(server, tmp_path, prices=prices(tmp_path)).estimate(data, split.test.queries)
    assert after["requests_in_log"] == 10
    assert "request log" in str(after["tokens_estimated_by"])
    # the fault server counts 100 + 10 tokens for every prompt
    assert after["prompt_tokens"] == pytest.approx(100 * (len(split.test) - 10), rel=0.1)
    assert after["answer_tokens"] == 10 * (len(split.test) - 10)
    recommender.score(split.test.queries)
    done = recommender.estimate(data, split.test.queries)
    assert (done["requests_to_send"], done["cost_usd"]) == (0, 0.0)


def test_an_unknown_price_is_said_to_be_unknown(server: FaultServer, tmp_path: Path) -> None:
    recommender, split = fitted(server, tmp_path)
    data = toy_training_data(split, tmp_path, builder=Ranking(Ranking.Config()))
    assert recommender.estimate(data, split.test.queries)["cost_usd"] == "unknown"


def test_max_cost_without_a_price_is_an_error(server: FaultServer, tmp_path: Path) -> None:
    recommender = make(server, tmp_path, max_cost=1.0)
    with pytest.raises(ConfigError, match=r"price of 'toy' is not in.*model.prices=FILE"):
        recommender.resolve(recommender.config, device="cpu")


def test_max_cost_stops_before_the_limit_and_the_same_command_goes_on(
    server: FaultServer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "prices": prices(tmp_path),
        "max_cost": 5.0,
        "max_tokens": 20,
        "concurrency": 4,
    }
    stops = 0
    for _ in range(10):
        recommender, split = fitted(server, tmp_path, **options)
        before = server.n_asked
        with contextlib.suppress(ModelError):
            recommender.score(split.test.queries)
            break
        with pytest.raises(ModelError, match=r"the same command goes on") as error:
            fitted(server, tmp_path, **{**options, "max_cost": 1e-6})[0].score(split.test.queries)
        assert "stopped before model.max_cost=1e-06: $0.000000 spent" in str(error.value)
        assert 2.0 < 0.2 * (server.n_asked - before) <= 5.0
        stops += 1
    assert stops >= 1
    assert server.n_asked == len(split.test)
    assert not server.twice()


def test_the_worst_case_bounds_what_is_under_way(server: FaultServer, tmp_path: Path) -> None:
    recommender, split = fitted(
        server, tmp_path, prices=prices(tmp_path), max_cost=0.05, max_tokens=20
    )
    with pytest.raises(ModelError, match=r"\$0.000000 spent in this call"):
        recommender.score(split.test.queries)
    assert server.n_asked == 0


def test_operational_options_are_no_part_of_a_run() -> None:
    one = ChatConfig()
    other = ChatConfig(
        base_url="http://127.0.0.1:1/v1", concurrency=1, timeout=3, max_cost=1, batch=True,
        request_log=Path("x"), key_variable="OTHER", retries=1, prices=Path("y"), backoff=0,
    )  # fmt: skip
    assert identity(one) == identity(other)
    assert "chat_model" in identity(one)


def test_facts_name_what_answered(server: FaultServer, tmp_path: Path) -> None:
    recommender, split = fitted(server, tmp_path, revision="r7")
    recommender.score(split.test.queries[:1])
    facts = recommender.facts()
    assert facts["backbone"] == "toy@r7"
    assert facts["reported_model"] == "served-2024"
    assert facts["provider"] == "compatible"
    assert facts["device"] == "server"
    assert facts["structured"] == "text"


def test_a_server_of_ones_own_needs_the_name_of_a_model(
    server: FaultServer, tmp_path: Path
) -> None:
    recommender = make(server, tmp_path, chat_model=None)
    with pytest.raises(ConfigError, match=r"name the model that 127.0.0.1:\d+ serves"):
        recommender.resolve(recommender.config, device="cpu")


def test_openai_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    config, [notice] = ChatRecommender.resolve(ChatConfig(), device="cpu")
    assert (config.chat_model, config.provider) == ("gpt-4o-mini", "openai")
    assert "gpt-4o-mini at api.openai.com; $0.15 / $0.6 per million" in notice


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:7/v1/")
    config, [notice] = ChatRecommender.resolve(ChatConfig(chat_model="x"), device="cpu")
    assert config.provider == "compatible"
    assert "asking x at 127.0.0.1:7; cost unknown" in notice


@pytest.mark.parametrize("name", ["zero-shot", "few-shot"])
def test_the_entry_chooses_the_instructions(name: str) -> None:
    models = installed()["model"]
    config = models.configure(f"gpt-{name}", {}, "model")
    cls = models.load(f"gpt-{name}")
    assert issubclass(cls, ResolvesOptions)
    assert issubclass(cls, ChoosesInstructions)
    assert cls.choose_instructions(config) == name


def test_it_offers_what_the_runner_looks_for(server: FaultServer, tmp_path: Path) -> None:
    recommender, _ = fitted(server, tmp_path)
    assert isinstance(recommender, EstimatesCost)
    assert isinstance(recommender, Transfers)


def test_a_protocol_without_candidates_is_refused(server: FaultServer, tmp_path: Path) -> None:
    split = toy_split()
    data = toy_training_data(split, tmp_path, builder=Ranking(Ranking.Config()))
    queries = split.validation.queries
    whole = TrainingData(
        **{**vars(data), "validation": Queries(queries.user, queries.history, None)}
    )
    with pytest.raises(ModelError, match="ranks the whole catalog"):
        make(server, tmp_path).fit(whole, seed=0)


def test_settings_of_another_model_are_refused(server: FaultServer, tmp_path: Path) -> None:
    recommender, split = fitted(server, tmp_path)
    recommender.save(tmp_path)
    data = toy_training_data(split, tmp_path, builder=Ranking(Ranking.Config()))
    with pytest.raises(ModelError, match=r"other values of chat_model"):
        make(server, tmp_path, chat_model="other").restore(tmp_path, data)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ModelError, match="is not a saved chat model"):
        make(server, tmp_path).restore(tmp_path, data)


def test_text_and_pictures_keep_their_order(server: FaultServer, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    PillowImage.new("RGB", (30, 30), "red").save(picture)

    class Mixed(JsonRanking):
        def build(self, query: Query, catalog: Catalog) -> Instruction:
            plain = super().build(query, catalog)
            parts = (Text("one"), Image(picture, 0), Text("two"), Image(None, 1), Text("three"))
            return Instruction((Message("user", parts),), plain.labels, plain.answers)

    recommender, split = fitted(server, tmp_path, Mixed(Ranking.Config()))
    recommender.score(split.test.queries[:1])
    content = server.bodies[0]["messages"][0]["content"]
    assert [part.get("text", "picture") for part in content] == ["one", "picture", "two", "three"]


def test_a_text_only_server_is_told_by_one_line(server: FaultServer, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    PillowImage.new("RGB", (30, 30), "red").save(picture)
    builder = JsonRanking(Ranking.Config())
    builder.pictures = (picture,)
    server.rule = lambda *_: Fault(400, {"error": {"message": "this model has no image input"}})
    recommender, split = fitted(server, tmp_path, builder)
    with pytest.raises(ModelError, match=r"model.pictures=off"):
        recommender.score(split.test.queries[:1])
