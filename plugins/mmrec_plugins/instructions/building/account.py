"""What a teacher's answers took."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict

from mmrec_bench.teaching import Written


class Account(BaseModel):
    """What a corpus rests on, over all processes that worked on it.

    Attributes:
        requests: answered.
        remembered: of these, answered before this process began.
        prompt_tokens: read by the teacher.
        answer_tokens: written by it.
        cost: US dollars; None = not known.
        seconds: spent waiting for the teacher.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int = 0
    remembered: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, written: Written, seconds: float, *, remembered: bool) -> Self:
        """Count one answer."""
        return cls(
            requests=1,
            remembered=int(remembered),
            prompt_tokens=written.prompt_tokens,
            answer_tokens=written.answer_tokens,
            cost=None if math.isnan(written.cost) else written.cost,
            seconds=seconds,
        )

    def __add__(self, other: "Account") -> "Account":
        known = self.cost is not None and other.cost is not None
        return Account(
            requests=self.requests + other.requests,
            remembered=self.remembered + other.remembered,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            answer_tokens=self.answer_tokens + other.answer_tokens,
            cost=(self.cost or 0.0) + (other.cost or 0.0) if known else None,
            seconds=self.seconds + other.seconds,
        )
