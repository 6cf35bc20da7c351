"""Asks a chat model for many answers: from the log where they are, from the server where not."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from mmrec_bench.errors import ConfigError, ModelError
from mmrec_plugins.models.openai_chat.asking import ChatRequest, Settings, Wire, request_key
from mmrec_plugins.models.openai_chat.batches import bring_in, hand_in
from mmrec_plugins.models.openai_chat.calling import FORMS, LIMITS, Call
from mmrec_plugins.models.openai_chat.log import BATCH, Attempt, Kept, RequestLog
from mmrec_plugins.models.openai_chat.options import OPENAI, ServerConfig, endpoint
from mmrec_plugins.models.openai_chat.pacing import Budget, Pace
from mmrec_plugins.models.openai_chat.prices import Prices, find_prices
from mmrec_plugins.models.openai_chat.replies import Reply

log = logging.getLogger("mmrec_bench")

CHARACTERS_PER_TOKEN = 4
"""Where nobody has counted yet; of English text."""
_TOKENS_PER_MESSAGE = 8


class ChatClient:
    """A model behind a server, with its log, its pace and its budget."""

    def __init__(self, config: ServerConfig, model: str, *, seed: int) -> None:
        """Take resolved options (`options.resolved`); nothing is opened yet.

        Raises:
            ConfigError: the options name no usable address, or max_cost without a price.
        """
        self.config, self.model, self.seed = config, model, seed
        self.where = endpoint(config)
        self.settings = Settings.of(config, model, seed)
        self.prices = find_prices(model, config.provider or "", config.prices)
        self.pace = Pace(config.concurrency)
        self.budget = Budget(config.max_cost)
        self.reported: set[str] = set()
        self.forms: set[bool] = set()
        self._warned: set[str] = set()
        check_budget(config, self.prices)

    @property
    def who(self) -> tuple[str, str, str]:
        """What the log keeps a server's peculiarities by."""
        return self.settings.provider, self.model, self.config.revision

    def wire(self, store: RequestLog) -> Wire:
        """Return how the server wants to be asked, as far as it is known."""
        form = "none"
        if self.config.structured != "off":
            form = store.feature(self.who, "structured") or FORMS[0]
        default = LIMITS[1] if self.settings.provider == OPENAI else LIMITS[0]
        return Wire(form, store.feature(self.who, "limit") or default)

    def key(self, request: ChatRequest, wire: Wire) -> tuple[str, dict[str, Any]]:
        """Return the key of a request and what it is made from."""
        described = request.described(self.settings, structured=wire.form != "none")
        return request_key(described), described

    def ask(self, requests: Sequence[ChatRequest], *, batch: bool = False) -> list[Reply]:
        """Answer each request, in order; equal ones are asked once.

        Args:
            requests: what is asked.
            batch: hand what is missing in as a batch, instead of asking one by one.

        Raises:
            ModelError: the server cannot be used, the budget is spent, or a batch is not done;
                what was answered is kept.
            ConfigError: there is no key.
            StorageError: the log cannot be used.
        """
        with RequestLog(self.config.log_path) as store, ExitStack() as stack:
            call = Call(self, store, stack)
            bring_in(call, requests)
            if batch:
                hand_in(call, requests)
            call.answer(requests)
            found = self.find(store, requests)
            if None in found:  # a server that takes back what it could do, while it is asked
                raise ModelError(
                    f"{self.model!r} at {self.where.host} changed what it accepts during the call; "
                    "run the same command again"
                )
            return [
                self._read(*one, request)
                for one, request in zip(found, requests, strict=True)
                if one is not None
            ]

    def find(
        self, store: RequestLog, requests: Sequence[ChatRequest]
    ) -> list[tuple[Kept, bool] | None]:
        """Return the answers that are there, and whether they were asked for as JSON.

        With structured=auto either form is taken: an answer is not paid for again because the
        server was found to want another form meanwhile.
        """
        forms = [self._forms(request) for request in requests]
        found = store.find_all({key for each in forms for key, _ in each})
        return [
            next(((found[key], as_json) for key, as_json in each if key in found), None)
            for each in forms
        ]

    def plain_key(self, request: ChatRequest) -> str:
        """Return a request's key as plain text, whatever form it will be asked in."""
        return request_key(request.described(self.settings, structured=False))

    def _forms(self, request: ChatRequest) -> list[tuple[str, bool]]:
        plain = self.plain_key(request)
        if request.schema is None or self.config.structured == "off":
            return [(plain, False)]
        as_json = request_key(request.described(self.settings, structured=True))
        if self.config.structured == "on":
            return [(as_json, True)]
        return [(as_json, True), (plain, False)]

    def worst_cost(self, request: ChatRequest, *, batch: bool = False) -> float:
        """Return the most dollars that one sending can cost; NaN where no price is known."""
        return self.prices.cost(self.most_tokens(request), 0, request.max_tokens, batch=batch)

    def most_tokens(self, request: ChatRequest) -> int:
        """Return a bound on the prompt's tokens: one a byte of UTF-8, and the pictures' own."""
        return (
            request.n_bytes
            + _TOKENS_PER_MESSAGE * (len(request.messages) + 1)
            + self.picture_tokens(request)
        )

    def picture_tokens(self, request: ChatRequest) -> int:
        """Return the most tokens that a request's pictures count as."""
        low = self.config.pictures == "low"
        return sum(
            self.prices.picture_tokens(one.width, one.height, low=low) for one in request.shown
        )

    def warn_once(self, what: str, text: str, *values: object) -> None:
        """Say something once a client."""
        if what not in self._warned:
            self._warned.add(what)
            log.warning(text, *values)

    def _read(self, kept: Kept, structured: bool, request: ChatRequest) -> Reply:
        attempt, answer = kept.attempt, kept.attempt.answer or {}
        choice = answer["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        finish = choice.get("finish_reason")
        text = refusal or message.get("content") or ""
        counted = attempt.prompt_tokens is not None and attempt.answer_tokens is not None
        prompt, written = attempt.prompt_tokens or 0, attempt.answer_tokens or 0
        if not counted:
            prompt = request.n_characters // CHARACTERS_PER_TOKEN + self.picture_tokens(request)
            written = math.ceil(len(text) / CHARACTERS_PER_TOKEN)
            self.warn_once(
                "uncounted", "%s counts no tokens; they are estimated from characters", self.model
            )
        model = str(answer.get("model") or "")
        self.reported.add(model)
        self.forms.add(structured)
        return Reply(
            text=text,
            refused=bool(refusal) or finish == "content_filter",
            cut=finish == "length",
            structured=structured,
            model=model,
            prompt_tokens=prompt,
            answer_tokens=written,
            counted=counted,
            retries=kept.failures,
            seconds=math.nan if attempt.seconds is None else attempt.seconds,
            cost=self.cost_of(attempt) if counted else math.nan,
        )

    def cost_of(self, attempt: Attempt) -> float:
        """Return what an answered attempt cost, by the table of prices that is in use."""
        if attempt.prompt_tokens is None or attempt.answer_tokens is None:
            return math.nan
        return self.prices.cost(
            attempt.prompt_tokens,
            attempt.cached_tokens or 0,
            attempt.answer_tokens,
            batch=attempt.channel == BATCH,
        )


def check_budget(config: ServerConfig, prices: Prices) -> None:
    """Refuse a budget that nobody can watch.

    Raises:
        ConfigError: max_cost is set and the model's price is not known.
    """
    if config.max_cost is not None and prices.price is None:
        raise ConfigError(
            f"model.max_cost={config.max_cost:g} cannot be kept: the price of {prices.model!r} is "
            f"not in {config.prices or 'the table of prices'}; give a table with "
            "-o model.prices=FILE"
        )
