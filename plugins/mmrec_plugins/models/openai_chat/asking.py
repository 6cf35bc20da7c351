"""A request before it is sent: what is asked, the key that it is kept by, its form on the wire."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmrec_bench.types import Message, Text
from mmrec_plugins.models.openai_chat.options import ServerConfig
from mmrec_plugins.models.openai_chat.pictures import Picture, Pictures

_REMINDER = (
    "Your answer must be JSON by the schema and nothing else.",
    "Please answer; an empty answer is of no use.",
)
# What strict structured outputs do not take; the builder's parser checks the answer anyway.
_NOT_STRICT = ("uniqueItems", "minLength", "maxLength", "minProperties", "maxProperties")
KEY_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What decides an answer beside the messages.

    Attributes:
        provider: who serves the model.
        model: as the server names it.
        revision: which weights.
        generation: temperature and the like, as sent; what is None is not sent.
        detail: of pictures, with their side in pixels.
        salt: told apart only where answers are sampled: temperature > 0.
    """

    provider: str
    model: str
    revision: str
    generation: Mapping[str, Any]
    detail: tuple[str, int]
    salt: int | None

    @classmethod
    def of(cls, config: ServerConfig, model: str, run_seed: int) -> "Settings":
        """Collect the settings that the options mean."""
        sampled = config.temperature is None or config.temperature > 0
        seed = config.sampling_seed
        if seed is None and sampled:
            seed = run_seed
        generation = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "reasoning_effort": config.reasoning_effort,
            "seed": seed,
        }
        return cls(
            provider=config.provider or "",
            model=model,
            revision=config.revision,
            generation={name: value for name, value in generation.items() if value is not None},
            detail=(config.pictures, config.picture_side),
            salt=run_seed if sampled else None,
        )


@dataclass(frozen=True)
class Wire:
    """How a server wants to be asked; found out by its refusals.

    Attributes:
        form: of structured outputs: "json_schema" (OpenAI, vLLM), "json_object" with the schema
            beside it (llama-cpp-python), or "none" = plain text.
        limit: name of the most tokens of an answer.
    """

    form: str
    limit: str


@dataclass(frozen=True)
class ChatRequest:
    """One request.

    Attributes:
        messages: role and parts: `{"text": ...}` or `{"picture": sha256}`.
        schema: JSON schema of the answer, or None.
        max_tokens: of the answer.
        pictures: sha256 -> what is sent.
        attempt: how often the form of the answer was at fault before.
    """

    messages: tuple[tuple[str, tuple[Mapping[str, str], ...]], ...]
    schema: Mapping[str, Any] | None
    max_tokens: int
    pictures: Mapping[str, Picture] = field(default_factory=dict, repr=False)
    attempt: int = 0

    @classmethod
    def make(
        cls,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        pictures: Pictures | None,
    ) -> "ChatRequest":
        """Take messages over; pictures that cannot be read are left out (`Pictures.broken`)."""
        used: dict[str, Picture] = {}
        turns = []
        for message in messages:
            parts: list[Mapping[str, str]] = []
            for part in message.parts:
                if isinstance(part, Text):
                    parts.append({"text": part.text})
                elif pictures is not None and part.path is not None:
                    picture = pictures.get(part.path)
                    if picture is not None:
                        used[picture.sha256] = picture
                        parts.append({"picture": picture.sha256})
            turns.append((message.role, tuple(parts)))
        return cls(tuple(turns), schema, max_tokens, used)

    def reminded(self) -> "ChatRequest":
        """Return the request that is sent when the answer to this one had no usable form."""
        role, parts = self.messages[-1]
        reminder = _REMINDER[0 if self.schema is not None else 1]
        last = (role, (*parts, {"text": f"\n{reminder}"}))
        return replace(self, messages=(*self.messages[:-1], last), attempt=self.attempt + 1)

    def described(self, settings: Settings, *, structured: bool) -> dict[str, Any]:
        """Return all that decides the answer, as JSON values; pictures by their hash."""
        generation = dict(settings.generation)
        if "seed" in generation:
            generation["seed"] += self.attempt
        return {
            "version": KEY_VERSION,
            "provider": settings.provider,
            "model": settings.model,
            "revision": settings.revision,
            "messages": [[role, [dict(part) for part in parts]] for role, parts in self.messages],
            "schema": dict(self.schema) if structured and self.schema is not None else None,
            "generation": {**generation, "max_tokens": self.max_tokens},
            "detail": list(settings.detail) if self.pictures else None,
            "salt": settings.salt,
        }

    def body(self, settings: Settings, wire: Wire) -> dict[str, Any]:
        """Return the request as the server reads it."""
        generation = self.described(settings, structured=False)["generation"]
        limit = generation.pop("max_tokens")
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [
                {"role": role, "content": self._content(parts, settings.detail[0])}
                for role, parts in self.messages
            ],
            wire.limit: limit,
            **generation,
        }
        if self.schema is not None and wire.form != "none":
            body["response_format"] = response_format(self.schema, wire.form)
        return body

    def _content(self, parts: Sequence[Mapping[str, str]], detail: str) -> str | list[Any]:
        """Return one string where there are no pictures: some servers know nothing else."""
        if all("text" in part for part in parts):
            return "".join(part["text"] for part in parts)
        return [
            {"type": "text", "text": part["text"]}
            if "text" in part
            else {
                "type": "image_url",
                "image_url": {"url": self.pictures[part["picture"]].url, "detail": detail},
            }
            for part in parts
        ]

    @property
    def n_characters(self) -> int:
        """Characters of all text parts and of the schema."""
        text = sum(len(part.get("text", "")) for _, parts in self.messages for part in parts)
        return text + (len(json.dumps(self.schema)) if self.schema is not None else 0)

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the same: no tokenizer makes more tokens of them."""
        text = "".join(part.get("text", "") for _, parts in self.messages for part in parts)
        schema = json.dumps(self.schema) if self.schema is not None else ""
        return len((text + schema).encode("utf-8", "surrogatepass"))

    @property
    def shown(self) -> list[Picture]:
        """The pictures in the order and number in which they are sent."""
        return [
            self.pictures[part["picture"]]
            for _, parts in self.messages
            for part in parts
            if "picture" in part
        ]


def request_key(described: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 that a request is kept by."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def response_format(schema: Mapping[str, Any], form: str) -> dict[str, Any]:
    """Return the field that asks for JSON by a schema."""
    strict = _strict(dict(schema))
    if form == "json_object":
        return {"type": "json_object", "schema": strict}
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": strict},
    }


def _strict(node: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Close every object and require all its fields, as strict structured outputs demand."""
    if isinstance(node, list | tuple):
        return [_strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "properties" in node and isinstance(node["properties"], dict):
        properties = {name: _strict(one) for name, one in node["properties"].items()}
        rest = {name: _strict(one) for name, one in node.items() if name not in _NOT_STRICT}
        return {
            **rest,
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    return {name: _strict(one) for name, one in node.items() if name not in _NOT_STRICT}
