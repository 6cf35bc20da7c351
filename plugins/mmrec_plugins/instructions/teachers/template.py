"""Teacher `template`: rules alone, the same answer on every machine."""

from collections.abc import Sequence
from typing import ClassVar

from mmrec_bench.config import ComponentConfig
from mmrec_bench.teaching import WritingRequest, Written

_VERSION = 1  # raised whenever it would answer the same draft in another way


class Template:
    """Returns the draft that each kind of instruction writes by rules from the catalog's words.

    It costs nothing and knows no more than the catalog, so that a corpus can be built anywhere; a
    language model adds what rules cannot say.
    """

    answers_with_draft: ClassVar[bool] = True
    """There is nothing to remember between two processes: the draft is there already."""

    class Config(ComponentConfig):
        """Options of `template`: none."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def write(self, requests: Sequence[WritingRequest]) -> list[Written]:
        """Return each request's draft."""
        return [Written(request.draft) for request in requests]

    def fingerprint(self) -> str:
        """Name the version of the rules' carrier; the drafts themselves stand in the corpus."""
        return f"template {_VERSION}"
