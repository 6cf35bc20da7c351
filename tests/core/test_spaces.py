from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from mmrec_bench.config import ComponentConfig, RunConfig, identity, operational, searched
from mmrec_bench.errors import ConfigError
from mmrec_bench.plugins import installed
from mmrec_bench.spaces import (
    Choices,
    Range,
    Space,
    build_space,
    declared,
    grid,
    parse_domain,
    with_settings,
)


class Options(ComponentConfig):
    rate: float = searched(0.01, low=1e-4, high=1e-1, log=True, gt=0, description="rate")
    size: int = searched(64, choices=[32, 64, 128], description="size")
    k: int = Field(100, ge=1, le=500, description="k")
    share: float | None = Field(None, ge=0, lt=1, description="share")
    kind: Literal["a", "b"] = Field("a", description="kind")
    flag: bool = Field(default=False, description="flag")
    threads: int = operational(1, description="threads")


class Plain(ComponentConfig):
    rate: float = Field(0.01, gt=0, description="rate")
    size: int = Field(64, description="size")


CONFIG = RunConfig.parse({"model": "m", "dataset": "d"})


def build(*texts: str, fixed: tuple[str, ...] = (), file: Path | None = None) -> Space:
    return build_space(CONFIG, {"model": (Options, {})}, fixed=fixed, file=file, texts=texts)


def domain(key: str, text: object) -> Range | Choices:
    return parse_domain(f"model.{key}", text, Options)


def test_a_config_declares_what_is_searched_beside_its_fields() -> None:
    assert declared(Options) == {
        "model.rate": Range(1e-4, 1e-1, log=True),
        "model.size": Choices((32, 64, 128)),
    }


def test_what_a_field_declares_for_the_search_changes_no_identity() -> None:
    values: dict[str, Any] = {"rate": 0.5, "size": 3}
    assert {key: identity(Options(**values))[key] for key in values} == identity(Plain(**values))


@pytest.mark.parametrize(
    "marks", [{}, {"low": 1}, {"high": 1}, {"low": 1, "high": 2, "choices": [1, 2]}]
)
def test_a_searched_field_needs_a_range_or_choices_and_not_both(marks: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="low and high, or choices"):
        searched(1, **marks)


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("rate", "log:1e-4..1e-1", Range(1e-4, 0.1, log=True)),
        ("share", "0..0.5", Range(0.0, 0.5)),
        ("share", ".1...5", Range(0.1, 0.5)),
        ("k", "10..200", Range(10, 200, whole=True)),
        ("k", "10..205/10", Range(10, 200, step=10, whole=True)),
        ("k", "log:1..500", Range(1, 500, log=True, whole=True)),
        ("share", "0..0.5/0.25", Range(0.0, 0.5, step=0.25)),
        ("size", "16,32", Choices((16, 32))),
        ("rate", "1e-3,1e-2", Choices((0.001, 0.01))),
        ("rate", "1,2", Choices((1.0, 2.0))),
        ("share", "null,0", Choices((None, 0.0))),
        ("kind", "a,b", Choices(("a", "b"))),
        ("flag", "true,false", Choices((True, False))),
        ("k", [5, 6], Choices((5, 6))),
        ("rate", {"low": "1e-4", "high": 0.1, "log": True}, Range(1e-4, 0.1, log=True)),
        ("k", {"choices": [1, 2]}, Choices((1, 2))),
    ],
)
def test_domains_are_read(key: str, text: object, found: Range | Choices) -> None:
    assert domain(key, text) == found


@pytest.mark.parametrize("key", ["rate", "share", "k", "size"])
@pytest.mark.parametrize("text", ["log:1..400", "2..400", "2..400/2", "32,64"])
def test_a_domain_is_written_as_it_is_read(key: str, text: str) -> None:
    found = domain(key, text)
    assert domain(key, str(found)) == found


@pytest.mark.parametrize("text", ["100..400.00001", "2.1234567,2.1234568"])
def test_a_domain_is_written_with_all_its_digits(text: str) -> None:
    assert str(domain("rate", text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model.rate=log:0..1", "begins above 0"),
        ("model.rate=log:1..2/1", "has no step"),
        ("model.rate=1..1", "empty or a single value"),
        ("model.rate=2..1", "empty or a single value"),
        ("model.rate=1..x", "high is 'x', not a number"),
        ("model.rate=1..inf", "two finite ends"),
        ("model.rate=0.1..0.2/3", "step 3 does not fit"),
        ("model.rate=0.5", "two or more different values"),
        ("model.rate=0.5,0.5", "two or more different values"),
        ("model.rate=-1..1", r"model.rate: -1 cannot be tried: .*greater than 0"),
        ("model.k=1..600", "model.k: 600 cannot be tried: .*less than or equal to 500"),
        ("model.k=1..2.5", "takes whole numbers"),
        ("model.kind=1..2", "takes no numbers"),
        ("model.kind=a,c", "c cannot be tried: Input should be 'a' or 'b'"),
        ("model.kind=[a],[b]", "is not a single value"),
        ("model.raet=1..2", "unknown option model.raet; did you mean 'rate'"),
        ("modle.rate=1..2", "unknown section 'modle'.*did you mean 'model'"),
        ("model.threads=1,2", "says how m works, and not what comes out"),
        ("protocol.k_core=1,2", "changes the cases or the question"),
        ("dataset.min=1,2", "changes the cases or the question"),
        ("vectors.size=1,2", "the run names no vectors"),
        ("rate=1..2", "not of the form section.key=value"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        build(text)
    assert "\n" not in str(error.value)


def test_the_command_line_goes_before_a_file_and_a_file_before_what_is_declared(
    tmp_path: Path,
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("model:\n  k: 10..20\n  size: [1, 2]\nmodel.share: 0..0.5\n")
    space = build("model.k=1,2", file=file)
    assert {key: str(one) for key, one in space.items()} == {
        "model.k": "1,2",
        "model.rate": "log:0.0001..0.1",
        "model.share": "0..0.5",
        "model.size": "1,2",
    }


def test_what_is_set_to_one_value_is_not_searched() -> None:
    assert set(build(fixed=("model.rate", "protocol.k_core"))) == {"model.size"}
    with pytest.raises(ConfigError, match="both set with -o and searched with -s"):
        build("model.rate=1,2", fixed=("model.rate",))
    with pytest.raises(ConfigError, match="declares only options that -o sets"):
        build(fixed=("model.rate", "model.size"))


def test_a_model_that_declares_nothing_says_so_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"declares no option to search; .*-s model.rate=log:1e-4\.\.1e-2"
    ):
        build_space(CONFIG, {"model": (Plain, {})})
    with pytest.raises(ConfigError, match="has no options"):
        build_space(CONFIG, {"model": (ComponentConfig, {})})


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.booleans(), st.floats(0, 1, allow_nan=False))
def test_tidied_values_stay_inside_and_near(a: float, b: float, log: bool, at: float) -> None:
    low, high = min(a, b), max(a, b)
    if high - low <= 1e-6 * high:
        return
    one = Range(low, high, log=log)
    value = low + at * (high - low)
    tidy = one.tidy(value)
    assert tidy in one
    assert abs(tidy - value) <= (0.006 * value if log else 0.0006 * (high - low))


def test_a_range_knows_what_lies_in_it() -> None:
    steps = domain("share", "0.1..0.7/0.2")
    assert [value in steps for value in (0.1, 0.3, 0.5, 0.4, 0.9, True, "0.1", None)] == [
        True, True, True, False, False, False, False, False,
    ]  # fmt: skip
    assert 1.5 not in domain("k", "1..3")
    assert 2 in domain("k", "1..3")


def test_a_small_space_is_laid_out_whole_and_a_large_one_is_not() -> None:
    space = {"model.k": domain("k", "10..30/10"), "model.kind": domain("kind", "a,b")}
    points = grid(space, 6)
    assert points is not None
    assert [tuple(one.values()) for one in points] == [
        (10, "a"), (10, "b"), (20, "a"), (20, "b"), (30, "a"), (30, "b"),
    ]  # fmt: skip
    assert grid(space, 5) is None
    assert grid({"model.share": domain("share", "0..1")}, 10**9) is None
    assert grid({"model.k": Range(1, 1e15, whole=True)}, 100) is None


def test_settings_are_laid_over_a_configuration() -> None:
    config = RunConfig.parse({"model": {"name": "m", "a": 1, "b": 2}, "dataset": "d"})
    changed = with_settings(config, {"model.b": 3, "model.c": 4})
    assert changed.model.options == {"a": 1, "b": 3, "c": 4}
    assert config.model.options == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "model", [one.entry.name for one in installed()["model"] if one.owner == "mmrec-bench"]
)
def test_what_a_model_declares_is_taken_by_its_options_and_holds_its_defaults(model: str) -> None:
    cls = installed()["model"].load(model).Config
    for key, one in declared(cls).items():
        name = key.removeprefix("model.")
        assert cls.model_fields[name].get_default() in one, key
        ends = (one.low, one.high) if isinstance(one, Range) else one.values
        for end in ends:
            cls(**{name: one.tidy(end)})  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["no", "off", "yes", "0"])
def test_a_word_is_no_answer_to_whether_a_range_is_logarithmic(word: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"model.rate: {{low: 0.1, high: 0.9, log: {word}}}")
    with pytest.raises(ConfigError, match=r"model\.rate: log is .*, expected true or false"):
        build(file=file)


@pytest.mark.parametrize("high", [10**400, 1e308])
def test_a_range_wider_than_numbers_go_is_one_clear_line(high: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.rate: .*(larger than|too many)"):
        domain("rate", {"low": -1e308, "high": high})
