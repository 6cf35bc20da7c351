"""The teacher `openai`: a chat model writes the answers of an instruction corpus."""

import json
from collections.abc import Sequence

from pydantic import Field

from mmrec_bench.config import identity
from mmrec_bench.teaching import WritingRequest, Written
from mmrec_plugins.models.openai_chat.answering import malformed
from mmrec_plugins.models.openai_chat.asking import ChatRequest
from mmrec_plugins.models.openai_chat.client import ChatClient
from mmrec_plugins.models.openai_chat.estimating import estimate
from mmrec_plugins.models.openai_chat.options import ServerConfig, chosen_model, resolved
from mmrec_plugins.models.openai_chat.pictures import Pictures


class OpenAITeacher:
    """Writes by asking a chat model; with the request log of the recommenders, so nothing twice."""

    class Config(ServerConfig):
        """Options of the teacher `openai`."""

        model: str | None = Field(
            None,
            min_length=1,
            description="model as the server names it; left out: gpt-4o-mini at api.openai.com",
        )
        form_retries: int = Field(
            1,
            ge=0,
            le=5,
            description="how often is asked again after an empty answer or one that is not the "
            "JSON asked for",
        )
        sampling_seed: int | None = Field(0, ge=0, description="seed sent where temperature > 0")

    def __init__(self, config: Config) -> None:
        """Take the options.

        Raises:
            ConfigError: an address that cannot be used, or max_cost without a price.
        """
        self.config = resolved(config)
        self._model = chosen_model(config.model, self.config, "openai:NAME")
        self._client = ChatClient(self.config, self._model, seed=self.config.sampling_seed or 0)
        off = self.config.pictures == "off"
        self._pictures = None if off else Pictures(self.config.picture_side)

    @property
    def looks_at_pictures(self) -> bool:
        """Whether pictures are sent."""
        return self._pictures is not None

    def estimate_writing(self, requests: Sequence[WritingRequest]) -> dict[str, str | int | float]:
        """Return the requests, tokens and dollars that `write(requests)` would still take."""
        return estimate(self._client, self._asked(requests))

    def _asked(self, requests: Sequence[WritingRequest]) -> list[ChatRequest]:
        return [
            ChatRequest.make(one.messages, one.schema, one.max_tokens, self._pictures)
            for one in requests
        ]

    def write(self, requests: Sequence[WritingRequest]) -> list[Written]:
        """Answer each request, in order.

        Raises:
            ModelError: the server cannot be used, max_cost is near, or a batch is not done; what
                was answered is kept, and the same command goes on from there.
        """
        asked = self._asked(requests)
        tries = [[reply] for reply in self._client.ask(asked, batch=self.config.batch)]
        for _ in range(self.config.form_retries):
            again = [i for i, each in enumerate(tries) if malformed(each[-1])]
            if not again:
                break
            for i in again:
                asked[i] = asked[i].reminded()
            answers = self._client.ask([asked[i] for i in again])
            for i, reply in zip(again, answers, strict=True):
                tries[i].append(reply)
        return [
            Written(
                text="" if each[-1].refused else each[-1].text,
                refused=each[-1].refused,
                prompt_tokens=sum(reply.prompt_tokens for reply in each),
                answer_tokens=sum(reply.answer_tokens for reply in each),
                cost=sum(reply.cost for reply in each),
            )
            for each in tries
        ]

    def fingerprint(self) -> str:
        """Return the identity options as JSON, the model's name spelled out."""
        return json.dumps(identity(self.config) | {"model": self._model}, sort_keys=True)
