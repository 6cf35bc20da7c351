import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench import hookspecs
from mmrec_bench.interfaces import (
    Describer,
    Encoder,
    InstructionBuilder,
    Metric,
    Recommender,
    Teacher,
    WritingRequest,
    Written,
)
from mmrec_bench.plugins import installed
from mmrec_bench.testing import (
    DatasetTests,
    InstructionBuilderTests,
    MetricTests,
    RecommenderTests,
    toy_data,
)
from mmrec_bench.types import RecData

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def class_of(heading: str, page: str = CONTRIBUTING) -> Any:  # noqa: ANN401 - as the docs define
    """Run the first code block under a heading and return the class that it defines."""
    section = re.split(rf"\n##+ {re.escape(heading)}\n", page, maxsplit=1)[1]
    source = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert source is not None
    space: dict[str, Any] = {"__name__": f"docs_{heading.replace(' ', '_')}"}
    exec(compile(source[1], heading, "exec"), space)  # our own documentation
    return [v for v in space.values() if isinstance(v, type) and v.__module__ == space["__name__"]][
        -1
    ]


class TestModelInTheDocs(RecommenderTests):
    def make(self) -> Recommender:
        cls = class_of("A model")
        recommender: Recommender = cls(cls.Config())
        return recommender


class TestModelInTheReadme(RecommenderTests):
    def make(self) -> Recommender:
        cls = class_of("Add your own in 20 lines", README)
        recommender: Recommender = cls(cls.Config())
        return recommender


class TestDatasetInTheDocs(DatasetTests):
    def make(self) -> Any:  # noqa: ANN401 - a class of the docs
        cls = class_of("A data set")
        return cls(cls.Config())

    def load(self, tmp_path: Path) -> RecData:
        tmp_path.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pairs.tsv").write_text("u\ta\nu\tb\nv\ta\n")
        data: RecData = self.make().load(tmp_path)
        return data


class TestBuilderInTheDocs(InstructionBuilderTests):
    def make(self) -> InstructionBuilder:
        cls = class_of("An instruction builder")
        builder: InstructionBuilder = cls(cls.Config())
        return builder


class TestMetricInTheDocs(MetricTests):
    def make(self) -> Metric:
        cls = class_of("A metric")
        metric: Metric = cls(cls.Config())
        return metric


def test_the_encoder_in_the_docs_encodes_and_describes() -> None:
    cls = class_of("An encoder")
    encoder = cls(cls.Config())
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, Describer)
    items = toy_data().catalog[:3]
    assert encoder.encode(items).shape == (3, 1)
    assert len(encoder.describe(items)) == 3


def test_the_teacher_in_the_docs_writes_one_answer_a_request() -> None:
    cls = class_of("A teacher")
    teacher = cls(cls.Config())
    assert isinstance(teacher, Teacher)
    assert teacher.write([WritingRequest((), None, "yes")]) == [Written("YES")]


@pytest.mark.parametrize(
    "hook", [name for name in vars(hookspecs) if name.startswith("mmrec_register")]
)
def test_every_hook_is_documented_with_its_arguments(hook: str) -> None:
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in CONTRIBUTING
    assert inspect.getdoc(getattr(hookspecs, hook))


@pytest.mark.parametrize(
    "kind", ["dataset", "instructions", "encoder", "model", "metric", "teacher"]
)
def test_every_registered_name_is_in_the_readme(kind: str) -> None:
    missing = [
        owned.entry.name
        for owned in installed()[kind]
        if owned.owner == "mmrec-bench" and f"`{owned.entry.name}" not in README
    ]
    assert not missing


@pytest.mark.parametrize("kind", ["dataset", "instructions", "encoder", "model", "teacher"])
def test_no_option_is_called_name_which_names_the_component(kind: str) -> None:
    registry = installed()[kind]
    assert not [
        owned.entry.name
        for owned in registry
        if "name" in registry.load(owned.entry.name).Config.model_fields
    ]


@pytest.mark.parametrize("kind", ["dataset", "instructions", "encoder", "model", "teacher"])
def test_every_option_of_every_component_is_described(kind: str) -> None:
    registry = installed()[kind]
    missing = [
        f"{owned.entry.name}.{key}"
        for owned in registry
        if owned.owner == "mmrec-bench"
        for key, field in registry.load(owned.entry.name).Config.model_fields.items()
        if not field.description
    ]
    assert not missing
