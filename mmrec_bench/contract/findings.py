"""What a check of the contract finds, and how all checks of a kind are run."""

import logging
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmrec_bench import guard
from mmrec_bench.errors import MMRecError

log = logging.getLogger("mmrec_bench")

S = TypeVar("S")


class BrokenContractError(AssertionError):
    """A component does not keep its contract.

    Attributes:
        found: what it did.
        expected: what the contract says.
        mend: what to do.
    """

    def __init__(self, found: str, expected: str, mend: str) -> None:
        self.found, self.expected, self.mend = found, expected, mend
        super().__init__(f"found {found}; expected {expected}; {mend}")


class DoesNotApplyError(Exception):
    """A check has no meaning for this component; the message says why."""


@dataclass(frozen=True)
class Check(Generic[S]):
    """One rule of a contract.

    Attributes:
        name: short, as in `check-plugin --json`.
        rule: a sentence.
        run: raises BrokenContractError or DoesNotApplyError.
    """

    name: str
    rule: str
    run: Callable[[S], None]


@dataclass(frozen=True)
class Result:
    """What became of one check.

    Attributes:
        check: its name.
        rule: its sentence.
        outcome: ok, failed or skipped.
        found: what the component did, where it failed.
        expected: what the contract says, where it failed.
        mend: what to do, where it failed.
        reason: why it was skipped.
    """

    check: str
    rule: str
    outcome: Literal["ok", "failed", "skipped"]
    found: str = ""
    expected: str = ""
    mend: str = ""
    reason: str = ""


def run_check(check: Check[S], subject: S, part: object = None) -> Result:
    """Run one check; an exception of the component is a failure like any other.

    Args:
        check: what to run.
        subject: what to run it on.
        part: the component's class, so that a failure tells the line in its package.
    """
    name, rule = check.name, check.rule
    whose = f" of {part.__name__} of {guard.owner_of(part)}" if isinstance(part, type) else ""
    try:
        with guard.blaming("it raised", owner=part, step=f"check {name!r}{whose}"):
            try:
                check.run(subject)
            except BrokenContractError as broken:
                found = (broken.found, broken.expected, broken.mend)
                return Result(name, rule, "failed", *found)
            except DoesNotApplyError as reason:
                return Result(name, rule, "skipped", reason=str(reason))
    except MMRecError as error:
        log.debug("check %s of the contract:", name, exc_info=error)
        mend = f"{_advice(error, part)}; --debug prints the traceback"
        return Result(name, rule, "failed", str(error), "no exception", mend)
    return Result(name, rule, "ok")


def _advice(error: BaseException, part: object) -> str:
    """Say what to look at: the component's line, or what it returned where we stumbled over it."""
    package = str(getattr(part, "__module__", "")).partition(".")[0]
    raised = traceback.walk_tb((error.__cause__ or error).__traceback__)
    modules = {str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in raised}
    if not package or package in modules:
        return "mend the line that is named"
    return "offer and return what docs/plugins says of this kind"


def run_checks(checks: Iterable[Check[S]], subject: S, part: object = None) -> list[Result]:
    """Run all checks, whatever the others found."""
    return [run_check(check, subject, part) for check in checks]


def demand(fulfilled: bool, found: str, expected: str, mend: str) -> None:
    """Raise BrokenContractError unless a rule is kept."""
    if not fulfilled:
        raise BrokenContractError(found, expected, mend)


def demand_equal(
    found: NDArray[Any],
    wanted: NDArray[Any],
    expected: str,
    mend: str,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
) -> None:
    """Raise BrokenContractError unless two arrays agree; NaN equals NaN.

    Args:
        found: e.g. scores asked for in another way.
        wanted: the scores that they should equal.
        expected: the rule.
        mend: what to do.
        rtol: relative tolerance.
        atol: absolute tolerance.
    """
    if found.shape != wanted.shape:
        raise BrokenContractError(f"shapes {found.shape} and {wanted.shape}", expected, mend)
    close = np.isclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True)
    if not close.all():
        place = tuple(int(i) for i in np.argwhere(~close)[0])
        raise BrokenContractError(
            f"{int((~close).sum())} of {close.size} values differ, the first at {place}: "
            f"{found[place]!s} and {wanted[place]!s}",
            expected,
            mend,
        )


def size_of(values: NDArray[Any]) -> float:
    """Return the largest absolute value: what rounding is a part of."""
    return float(np.abs(values).max(initial=0.0, where=np.isfinite(values)))
