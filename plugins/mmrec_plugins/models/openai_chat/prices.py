"""What tokens cost: a dated table in a file; what is not in it is unknown, never free."""

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmrec_bench.errors import ConfigError

_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{4})$")
_TILE, _PATCH, _MOST_PATCHES = 512, 32, 1536


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PicturePrice(_Strict):
    """Tokens that a picture counts as; either by tiles or by patches."""

    base: int = Field(0, ge=0)
    tile: int = Field(0, ge=0)
    patch: float = Field(0.0, ge=0)

    def tokens(self, width: int, height: int, *, low: bool) -> int:
        """Return the most input tokens that a picture of this size counts as."""
        if self.patch:
            patches = math.ceil(width / _PATCH) * math.ceil(height / _PATCH)
            return math.ceil(self.patch * min(patches, _MOST_PATCHES))
        tiles = 0 if low else math.ceil(width / _TILE) * math.ceil(height / _TILE)
        return self.base + self.tile * tiles


class Price(_Strict):
    """US dollars per 1,000,000 tokens of one model."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)
    pictures: PicturePrice | None = None


class _Table(_Strict):
    date: str
    source: str
    currency: str
    batch: float = Field(1.0, gt=0, le=1)
    models: dict[str, Price]


@dataclass(frozen=True)
class Prices:
    """Prices of one model; `price` None = not known.

    Attributes:
        model: as the server names it.
        price: per 1,000,000 tokens.
        batch: share of the price that the Batch API takes.
        date: when the table was right.
        source: who published it.
    """

    model: str
    price: Price | None
    batch: float = 1.0
    date: str = ""
    source: str = ""

    def cost(
        self, prompt_tokens: int, cached_tokens: int, answer_tokens: int, *, batch: bool
    ) -> float:
        """Return US dollars; NaN where the price is not known."""
        if self.price is None:
            return math.nan
        cached_price = self.price.input if self.price.cached is None else self.price.cached
        cached = min(cached_tokens, prompt_tokens)
        dollars = (
            (prompt_tokens - cached) * self.price.input
            + cached * cached_price
            + answer_tokens * self.price.output
        ) / 1e6
        return dollars * (self.batch if batch else 1.0)

    def picture_tokens(self, width: int, height: int, *, low: bool) -> int:
        """Return the most input tokens of a picture; OpenAI's dearest count where not known."""
        known = None if self.price is None else self.price.pictures
        return (known or PicturePrice(base=2833, tile=5667)).tokens(width, height, low=low)


def find_prices(model: str, provider: str, path: Path | None) -> Prices:
    """Look a model up in the user's table, or in the package's where OpenAI serves it.

    Raises:
        ConfigError: the user's file cannot be read, or is not a table of prices.
    """
    if path is None and provider != "openai":
        return Prices(model, None)
    if path is None:
        text, name = files(__package__).joinpath("prices.yaml").read_text("utf-8"), "prices.yaml"
    else:
        try:
            text, name = path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read model.prices={path}: {error}") from None
    table = _parse(text, name)
    price = table.models.get(model) or table.models.get(_SNAPSHOT.sub("", model))
    return Prices(model, price, table.batch, table.date, table.source)


def _parse(text: str, name: str) -> _Table:
    try:
        values: Any = yaml.safe_load(text)
        table = _Table.model_validate(values)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name} is not YAML: {reason}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name} is not a table of prices: {where}: {first['msg']}") from None
    if table.currency != "USD":
        raise ConfigError(f"{name} has currency {table.currency}; costs are counted in USD")
    return table
