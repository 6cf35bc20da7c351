"""Rules for every kind are broken here, and found."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ConfigDict, Field, ValidationError, field_serializer

from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import common, datasets, encoders, instructions, metrics, recommenders
from mmrec_bench.contract.findings import BrokenContractError, Check
from mmrec_bench.plugins import KINDS, installed


class Undescribed(ComponentConfig):
    mystery: int = 1


class Lax(ComponentConfig):
    model_config = ConfigDict(extra="ignore")


class TakesTheName(ComponentConfig):
    name: str = Field("x", description="the component's own key")


class Hides(ComponentConfig):
    power: int = Field(1, exclude=True, description="not part of what is written")


class ForgetsInJson(ComponentConfig):
    values: Any = Field((1, 2), description="a tuple that JSON turns into a list")


class Rounds(ComponentConfig):
    rate: float = Field(0.5, description="written with two digits")

    @field_serializer("rate")
    def _round(self, rate: float) -> float:
        return round(rate, 2)


class Lowers(ComponentConfig):
    variant: str = Field("small", description="written in small letters")

    @field_serializer("variant")
    def _lower(self, variant: str) -> str:
        return variant.lower()


class WellKept(ComponentConfig):
    rate: float = Field(0.5, gt=0, lt=1, description="a share")
    loss: Literal["bce", "ce"] = Field("bce", description="what is minimised")
    sizes: tuple[int, ...] = Field((1, 2), description="of layers")
    file: Path | None = Field(None, description="of features")
    words: frozenset[str] = Field(frozenset(), description="looked for")
    table: dict[str, int] = Field({}, description="of numbers")


@pytest.mark.parametrize("config", [Undescribed, TakesTheName])
def test_options_are_described_and_leave_the_name_alone(config: type[ComponentConfig]) -> None:
    with pytest.raises(BrokenContractError):
        common.check_options(config)


@pytest.mark.parametrize("config", [Lax, ForgetsInJson, Hides, Rounds, Lowers])
def test_options_are_strict_and_survive_json(config: type[ComponentConfig]) -> None:
    with pytest.raises(BrokenContractError):
        common.check_config(config())


def test_options_of_usual_types_survive_json() -> None:
    common.check_config(WellKept())


@pytest.mark.parametrize("kind", KINDS)
def test_the_options_of_every_built_in_component_survive_json(kind: str) -> None:
    for one in installed()[kind]:
        config = installed()[kind].load(one.entry.name).Config
        with contextlib.suppress(ValidationError):  # one that has no defaults
            common.check_config(config())


def test_a_heavy_import_at_the_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "heavy_hooks.py").write_text("import torch\n")
    (tmp_path / "light_hooks.py").write_text("import json\n")
    hook = "def mmrec_register_models():\n    import torch\n    return []\n"
    (tmp_path / "late_hooks.py").write_text(hook)
    with pytest.raises(BrokenContractError, match="imports torch"):
        common.check_light_import("late_hooks")
    (tmp_path / "torn_hooks.py").write_text("1 / 0\n")
    common.check_light_import("light_hooks")
    with pytest.raises(BrokenContractError, match="imports torch"):
        common.check_light_import("heavy_hooks")
    with pytest.raises(BrokenContractError, match="ZeroDivisionError"):
        common.check_light_import("torn_hooks")


def test_files_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    common.check_light_import("mmrec_plugins.metrics")


def test_what_a_plugin_prints_on_import_and_at_the_end_is_no_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "import atexit, sys; sys.stdout.write('hello'); atexit.register(print, 'bye')\n"
    (tmp_path / "talking_hooks.py").write_text(source)
    common.check_light_import("talking_hooks")


def test_a_module_that_ends_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ending_hooks.py").write_text("import os; os._exit(0)\n")
    with pytest.raises(BrokenContractError, match="Python ended with 0"):
        common.check_light_import("ending_hooks")


def test_every_check_has_its_own_name() -> None:
    kinds: list[Sequence[Check[Any]]] = [
        recommenders.CHECKS, datasets.CHECKS, instructions.CHECKS, encoders.CHECKS, metrics.CHECKS,
    ]  # fmt: skip
    for checks in kinds:
        names = [one.name for one in (*common.CHECKS, *checks)]
        assert len(names) == len(set(names))
