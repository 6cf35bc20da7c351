"""Chat models behind a server as recommenders, zero-shot and few-shot."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrec_bench.config import identity, operational
from mmrec_bench.errors import ModelError
from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Answers, Catalog, Instruction, Queries, Scores
from mmrec_plugins.instructions.reading import Reading, normal
from mmrec_plugins.models.openai_chat.answering import malformed, read_reply
from mmrec_plugins.models.openai_chat.asking import ChatRequest
from mmrec_plugins.models.openai_chat.client import ChatClient, check_budget
from mmrec_plugins.models.openai_chat.estimating import estimate
from mmrec_plugins.models.openai_chat.options import ServerConfig, chosen_model, endpoint, resolved
from mmrec_plugins.models.openai_chat.pictures import Pictures
from mmrec_plugins.models.openai_chat.prices import find_prices
from mmrec_plugins.models.openai_chat.replies import Reply

log = logging.getLogger("mmrec_bench")

SETTINGS_FILE = "settings.json"


class ChatConfig(ServerConfig):
    """Options of `gpt-zero-shot` and `gpt-few-shot`."""

    chat_model: str | None = Field(
        None,
        min_length=1,
        description="model as the server names it; left out: gpt-4o-mini at api.openai.com",
    )
    instructions: Literal["zero-shot", "few-shot"] = operational(
        "zero-shot",
        description="the instruction builder where the run names none; the builder that was used "
        "stands in the record",
    )
    max_tokens: int = Field(512, ge=1, description="most tokens of an answer")
    form_retries: int = Field(
        1,
        ge=0,
        le=5,
        description="how often is asked again, with a reminder, after an empty answer or one that "
        "is not the JSON asked for",
    )


class ChatRecommender:
    """Asks a chat model which candidates come next; nothing is learned.

    The task form is that of zero-shot rankers such as LLMRank (Hou et al., ECIR 2024); Hao et al.
    (2024) report ChatGPT and GPT-4 so, and leave open what is asked: the wording is the
    instruction builder's. Answers come from the request log where it has them.
    """

    reads_instructions: ClassVar[bool] = True
    Config = ChatConfig

    def __init__(self, config: ChatConfig) -> None:
        self.config = config
        self._data: TrainingData | None = None
        self._announced: list[ChatRequest] = []

    @classmethod
    def resolve(cls, config: ChatConfig, *, device: str) -> tuple[ChatConfig, list[str]]:  # noqa: ARG003 - the server has one
        """Name the provider and the model; nothing is sent.

        Raises:
            ConfigError: no model named for a server of one's own, an address that cannot be used,
                a price table that cannot be read, or max_cost without a price.
        """
        config = resolved(config)
        model = chosen_model(config.chat_model, config, "-o model.chat_model=NAME")
        prices = find_prices(model, config.provider or "", config.prices)
        check_budget(config, prices)
        known = "cost unknown: its price is in no table"
        if prices.price is not None:
            known = (
                f"${prices.price.input:g} / ${prices.price.output:g} per million tokens read / "
                f"written ({prices.date})"
            )
        notice = f"asking {model} at {endpoint(config).host}; {known}"
        return config.model_copy(update={"chat_model": model}), [notice]

    @classmethod
    def choose_instructions(cls, config: ChatConfig) -> str:
        """Return the builder of the same name."""
        return config.instructions

    def fit(self, data: TrainingData, *, seed: int) -> None:
        """Keep the data; a chat model is not tuned.

        Raises:
            ModelError: no instruction builder, or a protocol that ranks the whole catalog.
        """
        if data.builder is None:
            raise ModelError("a chat model needs an instruction builder, and there is none")
        if data.validation.candidates is None:
            raise ModelError(
                "a chat model reads its candidates in the prompt, but the protocol ranks the whole "
                "catalog; use -o protocol.candidates=uniform"
            )
        self._take(data, seed)

    def transfer(self, data: TrainingData) -> None:
        """Ask about another catalog and other users from now on."""
        self._take(data, self._client.seed)

    def announce(self, queries: Queries) -> None:
        """Say what will be scored later, so that one batch can hold it all (`batch`)."""
        if self.config.batch:
            self._announced += self._requests(self._build(queries))

    def score(self, queries: Queries) -> Scores:
        """Ask for each query.

        Returns:
            (B, C) float32: minus the place in the answer, NaN for candidates that it does not name.

        Raises:
            ModelError: the server cannot be used, max_cost is near, or a batch is not done; what
                was answered is kept, and the same command goes on from there.
        """
        instructions = self._build(queries)
        requests = self._requests(instructions)
        tries = self._ask(requests)
        readings = [
            read_reply(each[-1], instruction, self._builder, self._titles)
            for each, instruction in zip(tries, instructions, strict=True)
        ]
        width = 0 if queries.candidates is None else queries.candidates.shape[1]
        values = np.full((len(queries), width), np.nan, np.float32)
        for row, reading in zip(values, readings, strict=True):
            row[reading.order] = -np.arange(len(reading.order), dtype=np.float32)
        return Scores(values, _answers(tries, readings))

    def estimate(self, data: TrainingData, queries: Queries) -> dict[str, str | int | float]:
        """Return the requests, tokens and dollars that `score(queries)` would still take.

        Without the data's builder prepared and the options resolved this cannot be told.
        """
        other = type(self)(self.config)
        other.fit(data, seed=self._client.seed if self._data is not None else 0)
        return estimate(other._client, other._requests(other._build(queries)))

    def save(self, folder: Path) -> None:
        """Write the settings; there is nothing else to keep."""
        stored = {"config": identity(self.config), "seed": self._client.seed}
        text = json.dumps(stored, indent=2, sort_keys=True)
        atomic_write(folder / SETTINGS_FILE, (text + "\n").encode())

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Come back to the state after `fit`.

        Raises:
            ModelError: the file is missing or torn, or of another model.
        """
        path = folder / SETTINGS_FILE
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            saved, seed = stored["config"], int(stored["seed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is not a saved chat model: {error}") from None
        self.fit(data, seed=seed)
        asked = identity(self.config)
        if saved != asked:
            changed = sorted(name for name in asked if saved.get(name) != asked[name])
            raise ModelError(
                f"{folder} was saved with other values of {', '.join(changed)}; use --fresh"
            )

    def facts(self) -> dict[str, str | int | float]:
        """Return what answers: model, revision, what the server reports, and how it is asked."""
        config, client = self.config, self._client
        revision = f"@{config.revision}" if config.revision else ""
        facts: dict[str, str | int | float] = {
            "backbone": f"{client.model}{revision}",
            "provider": config.provider or "",
            "device": "server",
            "pictures_broken": len(self._pictures.broken) if self._pictures else 0,
        }
        if reported := sorted(client.reported - {""}):
            facts["reported_model"] = ", ".join(reported)
        if client.forms:
            facts["structured"] = "/".join(
                sorted("json" if one else "text" for one in client.forms)
            )
        if client.prices.price is not None:
            facts["prices"] = f"{client.prices.source} ({client.prices.date})"
        return facts

    def _take(self, data: TrainingData, seed: int) -> None:
        self.config, _ = self.resolve(self.config, device=data.device)
        if data.builder is None:
            raise ModelError("a chat model needs an instruction builder, and there is none")
        self._data, self._builder = data, data.builder
        self._client = ChatClient(self.config, self.config.chat_model or "", seed=seed)
        self._pictures = (
            None if self.config.pictures == "off" else Pictures(self.config.picture_side)
        )
        self._titles = _titles(data.catalog)
        self._announced = []

    def _build(self, queries: Queries) -> list[Instruction]:
        if self._data is None:
            raise ModelError("the recommender was neither fitted nor restored")
        return [self._builder.build(query, self._data.catalog) for query in queries]

    def _requests(self, instructions: Sequence[Instruction]) -> list[ChatRequest]:
        before = 0 if self._pictures is None else len(self._pictures.broken)
        requests = [
            ChatRequest.make(one.messages, one.schema, self.config.max_tokens, self._pictures)
            for one in instructions
        ]
        if self._pictures is not None and len(self._pictures.broken) > before:
            log.warning(
                "%d pictures cannot be read and are left out, the last: %s",
                *(len(self._pictures.broken), list(self._pictures.broken.values())[-1]),
            )
        return requests

    def _ask(self, requests: list[ChatRequest]) -> list[list[Reply]]:
        """Return the replies of each request: the first, and one for each retry of its form."""
        announced, self._announced = self._announced, []
        batch = self.config.batch
        replies = self._client.ask([*requests, *announced], batch=batch)[: len(requests)]
        tries = [[reply] for reply in replies]
        for _ in range(self.config.form_retries):
            again = [i for i, each in enumerate(tries) if malformed(each[-1])]
            if not again:
                break
            for i in again:
                requests[i] = requests[i].reminded()
            answered = self._client.ask([requests[i] for i in again])
            for i, reply in zip(again, answered, strict=True):
                tries[i].append(reply)
        return tries


def _titles(catalog: Catalog) -> frozenset[str]:
    return frozenset(name for title in catalog.title if (name := normal(title)))


def _answers(tries: Sequence[Sequence[Reply]], readings: Sequence[Reading]) -> Answers:
    """Put the replies of each case together: tokens, seconds and dollars of all its tries."""
    return Answers(
        text=tuple(each[-1].text for each in tries),
        outcome=tuple(reading.outcome for reading in readings),
        hallucinated=np.array([reading.hallucinated for reading in readings], np.int32),
        prompt_tokens=np.array([sum(r.prompt_tokens for r in each) for each in tries], np.int32),
        answer_tokens=np.array([sum(r.answer_tokens for r in each) for each in tries], np.int32),
        retries=np.array(
            [sum(r.retries for r in each) + len(each) - 1 for each in tries], np.int32
        ),
        seconds=np.array([sum(r.seconds for r in each) for each in tries], np.float32),
        cost=np.array([sum(r.cost for r in each) for each in tries], np.float64),
    )
