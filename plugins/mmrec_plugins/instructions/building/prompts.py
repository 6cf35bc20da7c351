"""The wordings of profile and attribute requests, from a data file, in English and Chinese."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import cast

from mmrec_plugins.instructions.building.config import Language


@cache
def wording(kind: str, language: Language) -> Mapping[str, str]:
    """Return the pieces of one kind of request."""
    raw = json.loads(files(__package__).joinpath("prompts.json").read_text(encoding="utf-8"))
    return cast("Mapping[str, str]", raw[kind][language])
