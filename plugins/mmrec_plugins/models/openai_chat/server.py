"""One exchange with a server: what is sent, what came back, and what a failure means."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import openai

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.openai_chat.options import Endpoint, ServerConfig, read_key

log = logging.getLogger("mmrec_bench")

T = TypeVar("T")

# Not a key: servers on this machine want none, and the client refuses to go without.
_NO_KEY = "none"
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_CONNECTING = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
_SHOWN = 300

Trouble = Literal["structured", "limit", "pictures", "sampling", "context", "content", "other"]

_ABOUT: tuple[tuple[Trouble, tuple[str, ...]], ...] = (
    ("structured", ("response_format", "json_schema", "json_object", "grammar")),
    ("limit", ("max_tokens", "max_completion_tokens")),
    ("pictures", ("image_url", "image input", "images", "multimodal", "vision")),
    ("sampling", ("temperature", "top_p", "reasoning_effort", "seed")),
)
"""Words in the name of the field at fault, or else in the message; the first hit counts."""


class PassingError(Exception):
    """An exchange failed in a way that may pass.

    Attributes:
        status: one or two words for the log, e.g. "HTTP 429".
        detail: what the server said, without secrets.
        wait: seconds that the server asks to wait; None = it does not say.
        limited: the server says that it is asked too often.
        may_cost: an answer may have been written, and billed, that did not arrive.
    """

    def __init__(
        self,
        status: str,
        detail: str = "",
        *,
        wait: float | None = None,
        limited: bool = False,
        may_cost: bool = False,
    ) -> None:
        super().__init__(status)
        self.status, self.detail = status, detail
        self.wait, self.limited, self.may_cost = wait, limited, may_cost


class RefusedError(Exception):
    """The server will not take the request as it is (HTTP 400, 422 ...).

    Attributes:
        status: for the log, e.g. "HTTP 400".
        trouble: what the refusal is about.
        detail: what the server said, without secrets.
    """

    def __init__(self, status: str, trouble: Trouble, detail: str) -> None:
        super().__init__(status)
        self.status, self.trouble, self.detail = status, trouble, detail


class Server:
    """A connection to one server; `with Server(...) as server`. Threads may share one."""

    def __init__(self, config: ServerConfig, where: Endpoint, model: str) -> None:
        self._key = read_key(config, where)
        self._where, self._model = where, model
        self._variable = config.key_variable
        self.client = openai.OpenAI(
            api_key=self._key or _NO_KEY,
            base_url=where.url,
            timeout=config.timeout,
            max_retries=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one chat request; return the server's JSON with at least one choice.

        Raises:
            PassingError, RefusedError: see there.
            ModelError: nothing will help but another key, model or address.
        """
        rest = {name: value for name, value in body.items() if name not in {"model", "messages"}}

        def send() -> str:
            # Through `extra_body`, since old versions of the package lack the newer arguments.
            raw = self.client.chat.completions.with_raw_response.create(
                model=body["model"], messages=body["messages"], extra_body=rest
            )
            return str(raw.text)

        return self.read_answer(self.call(send))

    def read_answer(self, text: str) -> dict[str, Any]:
        """Check an answer's JSON; a half one, or one without choices, may be whole next time."""
        text = self.scrub(text)
        try:
            answer = json.loads(text)
        except ValueError:
            raise PassingError("half answer", text[:_SHOWN], may_cost=True) from None
        if not isinstance(answer, dict) or not _has_message(answer):
            raise PassingError("no choices", text[:_SHOWN], may_cost=True)
        return answer

    def call(self, exchange: Callable[[], T]) -> T:
        """Run an exchange and sort its failures; no exception of the package gets out."""
        try:
            return exchange()
        except openai.APITimeoutError as error:
            connecting = type(error.__cause__).__name__ in _CONNECTING
            raise PassingError("timeout", may_cost=not connecting) from None
        except openai.APIStatusError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            failure = self.sort(error.status_code, self.scrub(error.response.text), headers)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            connecting = cause in _CONNECTING
            raise PassingError(
                "no connection" if connecting else "cut connection",
                self.scrub(str(error.__cause__ or error))[:_SHOWN],
                may_cost=not connecting,
            ) from None
        except openai.OpenAIError as error:
            raise PassingError("half answer", self.scrub(str(error))[:_SHOWN], may_cost=True) from (
                None
            )
        raise failure from None

    def scrub(self, text: str) -> str:
        """Take the key out of what a server said: some repeat it in their errors."""
        return text.replace(self._key, "***") if self._key else text

    def sort(
        self, code: int, text: str, headers: Mapping[str, str]
    ) -> PassingError | RefusedError | ModelError:
        """Say what an HTTP status means: it may pass, the request is at fault, or all is.

        Args:
            code: the status.
            text: the body, scrubbed.
            headers: with lower-case names.
        """
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        status = f"HTTP {code}"
        said = _said(text, body)
        error_code = str(_field(body, "code") or "")
        if code == 429 and error_code in {"insufficient_quota", "billing_hard_limit_reached"}:
            return ModelError(f"{self._who()} says that the account has no credit left: {said}")
        trouble = _trouble(text.lower(), str(_field(body, "param") or ""), error_code)
        # llama-cpp-python says so of a request that it cannot read
        wrapped = code == 500 and trouble == "structured" and "validation error" in text.lower()
        if code in _PASSING and not wrapped:
            wait = retry_after(headers)
            return PassingError(status, said, wait=wait, limited=code == 429)
        if code in {400, 413, 415, 422, 501} or wrapped:
            return RefusedError(status, trouble, said)
        hint = {
            401: f"check the key in the environment variable {self._variable}",
            403: "the key may not use this model or server",
            404: "check model.chat_model (of a teacher, its model) and model.base_url",
        }.get(code, "check model.base_url")
        return ModelError(f"{self._who()} answered {status}: {said}; {hint}")

    def _who(self) -> str:
        return f"chat model {self._model!r} at {self._where.host}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that lower-case headers ask to wait; None where they do not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())


def _has_message(answer: Mapping[str, Any]) -> bool:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return False
    return all(isinstance(message.get(name), str | type(None)) for name in ("content", "refusal"))


def _trouble(text: str, param: str, code: str) -> Trouble:
    """Say what a refusal is about: the field that it names, else the words that it uses."""
    if code in {"content_filter", "content_policy_violation", "invalid_prompt"}:
        return "content"
    if code == "context_length_exceeded" or "context length" in text or "context window" in text:
        return "context"
    about = param.lower() or text
    for trouble, words in _ABOUT:
        if any(word in about for word in words):
            return trouble
    return "other"


def _field(body: object, name: str) -> object:
    """Return a field of an error's JSON, in it or below `error`."""
    if not isinstance(body, dict):
        return None
    inner = body.get("error")
    return body.get(name) or (inner.get(name) if isinstance(inner, dict) else None)


def _said(text: str, body: object) -> str:
    message = _field(body, "message")
    shown = message if isinstance(message, str) else text
    return " ".join(shown.split())[:_SHOWN] or "(nothing said)"
