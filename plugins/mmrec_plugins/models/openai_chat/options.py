"""Options of everything that asks a chat model, and where they lead."""

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.errors import ConfigError
from mmrec_bench.paths import cache_dir

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
OPENAI = "openai"
COMPATIBLE = "compatible"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")

C = TypeVar("C", bound="ServerConfig")


class ServerConfig(ComponentConfig):
    """How a chat model is asked; the operational options never change an answer."""

    provider: str | None = Field(
        None,
        min_length=1,
        description="who serves the model; answers are kept apart by it. Left out: `openai` for "
        "api.openai.com, else `compatible`",
    )
    revision: str = Field(
        "",
        description="which weights stand behind the model's name; for servers of your own, where "
        "one name may mean other weights tomorrow",
    )
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="of sampling; null = not sent, for models that refuse it"
    )
    top_p: float | None = Field(None, gt=0, le=1, description="of sampling; null = not sent")
    reasoning_effort: str | None = Field(
        None, description="for models that reason, e.g. low; null = not sent"
    )
    sampling_seed: int | None = Field(
        None,
        ge=0,
        description="seed sent with each request; null = the run's seed where temperature > 0, "
        "else none is sent",
    )
    structured: Literal["auto", "on", "off"] = Field(
        "auto",
        description="ask for JSON by the instruction's schema; auto falls back to plain text where "
        "the server refuses it, on makes that an error",
    )
    pictures: Literal["low", "high", "auto", "off"] = Field(
        "low", description="detail in which the model looks at pictures; off = none are sent"
    )
    picture_side: int = Field(
        512, ge=16, le=2048, description="pixels of the longer side of a picture that is sent"
    )
    base_url: str | None = operational(
        None,
        description="address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; left "
        "out: OPENAI_BASE_URL, else api.openai.com",
    )
    key_variable: str = operational(
        "OPENAI_API_KEY",
        description="environment variable that holds the key; none is needed on this machine",
    )
    concurrency: int = operational(
        8, ge=1, le=256, description="requests under way at once; halved at each 429, grows again"
    )
    timeout: float = operational(120.0, gt=0, description="seconds to wait for one answer")
    retries: int = operational(
        6, ge=0, le=50, description="how often a request is sent again after a failure"
    )
    backoff: float = operational(
        0.5, ge=0, description="seconds before the first retry; doubled for each further one"
    )
    max_cost: float | None = operational(
        None, gt=0, description="US dollars that one call may spend; it stops cleanly before"
    )
    prices: Path | None = operational(
        None, description="YAML of prices in place of those that come with the package"
    )
    batch: bool = operational(
        default=False,
        description="use the Batch API: submit, leave, and come back with the same command",
    )
    batch_wait: float = operational(
        0.0, ge=0, description="seconds to wait for a batch before leaving"
    )
    request_log: Path | None = operational(
        None,
        description="SQLite file of all requests and answers; left out: requests/openai.sqlite in "
        "the cache folder",
    )

    @property
    def log_path(self) -> Path:
        """Return where requests and answers are kept."""
        return self.request_log or cache_dir() / "requests" / "openai.sqlite"


@dataclass(frozen=True)
class Endpoint:
    """A server as the options name it.

    Attributes:
        url: its base address, without a trailing slash.
        host: host and port, for messages.
        is_openai: it is api.openai.com.
        is_local: it is this machine, so that no key is needed.
    """

    url: str
    host: str
    is_openai: bool
    is_local: bool


def endpoint(config: ServerConfig) -> Endpoint:
    """Find the server; what was given is not repeated in errors, since it may hold a secret.

    Raises:
        ConfigError: not an http(s) address, or one with a user name, a password or a query in it.
    """
    given = config.base_url or os.environ.get("OPENAI_BASE_URL", "").strip()
    url = (given or OPENAI_URL).rstrip("/")
    where = "model.base_url" if config.base_url else "OPENAI_BASE_URL"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"{where} is not an address, e.g. http://127.0.0.1:8000/v1") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{where} is not an http(s) address, e.g. http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"{where} holds a user name, a password or a query, and addresses are written to "
            "files; put the key into the environment variable that model.key_variable names"
        )
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(
        url=url,
        host=shown if port is None else f"{shown}:{port}",
        is_openai=host == "api.openai.com",
        is_local=_is_loopback(host),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def resolved(config: C) -> C:
    """Check the options that lead outside and fill in the provider.

    Raises:
        ConfigError: as `endpoint`, or key_variable is not the name of a variable.
    """
    if not _VARIABLE.fullmatch(config.key_variable):
        raise ConfigError(
            "model.key_variable is the name of an environment variable (capital letters, digits "
            "and _), e.g. OPENAI_API_KEY; what was given is not repeated here: it may be a key"
        )
    provider = config.provider or (OPENAI if endpoint(config).is_openai else COMPATIBLE)
    return config.model_copy(update={"provider": provider})


def chosen_model(model: str | None, config: ServerConfig, option: str) -> str:
    """Return the model's name, by default OpenAI's small one.

    Raises:
        ConfigError: a server of one's own, and no model named.
    """
    if model:
        return model
    server = endpoint(config)
    if not server.is_openai:
        raise ConfigError(
            f"name the model that {server.host} serves with {option} (its {server.url}/models "
            "lists what it has)"
        )
    return OPENAI_MODEL


def read_key(config: ServerConfig, server: Endpoint) -> str:
    """Return the key from the environment; "" where a server on this machine needs none.

    Raises:
        ConfigError: the variable is not set.
    """
    key = os.environ.get(config.key_variable, "").strip()
    if any(not "!" <= character <= "~" for character in key):
        raise ConfigError(
            f"the key in {config.key_variable} holds spaces or characters that no key has; copy it "
            "again"
        )
    if key or server.is_local:
        return key
    raise ConfigError(
        f"requests to {server.host} need a key: set the environment variable "
        f"{config.key_variable} (or name another with model.key_variable); answers that are in "
        f"{config.log_path} need none"
    )
