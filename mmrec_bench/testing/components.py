"""What tests of every kind share."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from mmrec_bench.contract import common
from mmrec_bench.contract.findings import DoesNotApplyError

S = TypeVar("S")


def check_config_round_trip(component: Any) -> None:  # noqa: ANN401 - any component
    """Check that a component's Config is strict and survives JSON.

    Options without a default are taken from the component: from its `config`, or from its attribute
    of the option's name.
    """
    cls = type(component).Config
    required = [name for name, field in cls.model_fields.items() if field.is_required()]
    source = getattr(component, "config", component)
    common.check_config(cls(**{name: getattr(source, name) for name in required}))


def keep(check: Callable[[S], None], subject: S) -> None:
    """Run a check as a test: skipped where it does not apply."""
    try:
        check(subject)
    except DoesNotApplyError as reason:
        pytest.skip(str(reason))


class ComponentTests:
    """What every component keeps."""

    def make(self) -> Any:  # noqa: ANN401 - of any kind
        """Return a new component."""
        raise NotImplementedError

    def test_config_is_strict_and_survives_json(self) -> None:
        """Unknown keys are refused, values round-trip."""
        check_config_round_trip(self.make())

    def test_every_option_is_described(self) -> None:
        """`mmrec-bench list` shows what each option does."""
        common.check_options(type(self.make()).Config)
