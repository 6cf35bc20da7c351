from pathlib import Path

import pytest

from mmrec_bench.cli.options import resolve_config
from mmrec_bench.config import (
    ComponentConfig,
    ProtocolConfig,
    RunConfig,
    build_config,
    parse_override,
    read_yaml,
)
from mmrec_bench.errors import ConfigError

BASE = {"model": "popularity", "dataset": "amazon"}


class Options(ComponentConfig):
    learning_rate: float = 0.1
    epochs: int = 3


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"model\.epoch; did you mean 'epochs'"):
        build_config(Options, {"epoch": 1}, "model")


def test_a_value_of_the_wrong_type_names_section_key_and_value() -> None:
    with pytest.raises(ConfigError, match=r"model\.epochs: .*'many'"):
        build_config(Options, {"epochs": "many"}, "model")


def test_override_values_are_typed() -> None:
    assert parse_override("model.epochs=3") == ("model", "epochs", 3)
    assert parse_override("model.flag=true") == ("model", "flag", True)
    assert parse_override("instructions.attributes=[brand, price]")[2] == ["brand", "price"]
    assert parse_override("encoder.labels=off")[2] == "off"
    assert parse_override("model.path=a=b") == ("model", "path", "a=b")


@pytest.mark.parametrize("text", ["epochs=3", "model.epochs", ".x=1", "model.=1", ""])
def test_an_override_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_override(text)


def test_overrides_reach_every_section_and_lie_over_the_file() -> None:
    values = {**BASE, "model": {"name": "x", "epochs": 1}}
    config = RunConfig.parse(
        values,
        ["model.epochs=2", "dataset.category=Gift_Cards", "protocol.n_candidates=50"],
    )
    assert config.model.name == "x"
    assert config.model.options == {"epochs": 2}
    assert config.dataset.options == {"category": "Gift_Cards"}
    assert config.protocol.n_candidates == 50


def test_an_override_keeps_a_default_component() -> None:
    config = RunConfig.parse(BASE, ["encoder.labels=off", "instructions.history_length=3"])
    assert config.encoder is not None
    assert config.encoder.name == "image-tags"
    assert config.instructions.name == ""  # the model's choice
    assert config.instructions.options == {"history_length": 3}


def test_an_unknown_section_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'protocol'"):
        RunConfig.parse(BASE, ["protcol.split=user-ratio"])


def test_an_unknown_protocol_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"protocol\.n_candidate; did you mean 'n_candidates'"):
        RunConfig.parse(BASE, ["protocol.n_candidate=5"])


def test_a_run_config_survives_json() -> None:
    config = RunConfig.parse(BASE, ["model.epochs=2", "protocol.split=global-time"])
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_ratios_that_leave_no_test_share_are_refused() -> None:
    with pytest.raises(ConfigError, match="ratios"):
        build_config(ProtocolConfig, {"ratios": (0.9, 0.1, 0.0)}, "protocol")


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- b", b"a: [", b"\xff\xfe\x00", b"!!python/object/apply:os.getcwd []"]
)
def test_a_configuration_that_is_no_mapping_is_one_clear_line(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2024-13-45", "month must be in"),
        ("9" * 5000, "4300"),
        ("9" * 400, "more than 300 digits"),
        (f"0x{'f' * 5000}", "more than 300 digits"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_a_value_that_cannot_be_is_one_clear_line(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"option model\.k .*{reason}") as caught:
        parse_override(f"model.k={text}")
    assert "\n" not in str(caught.value)
    path = tmp_path / "odd.yaml"
    path.write_text(f"model: {{name: x, k: {text}}}")
    with pytest.raises(ConfigError, match=rf"odd\.yaml .*{reason}"):
        read_yaml(path)


def test_a_key_that_is_no_name_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="configuration: the key 1 is no name"):
        RunConfig.parse({**BASE, 1: 2})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"protocol\.1"):
        RunConfig.parse({**BASE, "protocol": {1: 2}})


@pytest.mark.parametrize(
    ("section", "value", "override"), [("protocol", [1], "split=given"), ("model", 3, "k=1")]
)
def test_an_override_of_a_section_that_is_no_mapping_is_one_clear_line(
    section: str, value: object, override: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{section} is .*, expected .*mapping of options"):
        RunConfig.parse({**BASE, section: value}, [f"{section}.{override}"])


def test_a_split_from_the_command_line_needs_a_protocol_that_is_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("{model: popularity, dataset: amazon, protocol: [1]}")
    with pytest.raises(ConfigError, match=r"protocol is \[1\], expected a mapping"):
        resolve_config(path, {"protocol": "given"}, ())


def test_an_override_reaches_options_that_are_written_out() -> None:
    values = {**BASE, "model": {"name": "x", "options": {"epochs": 1, "size": 2}}}
    config = RunConfig.parse(values, ["model.epochs=3"])
    assert config.model.options == {"epochs": 3, "size": 2}


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan"])
def test_what_is_no_finite_number_is_refused_since_json_has_none(text: str) -> None:
    value = parse_override(f"model.learning_rate={text}")[2]
    with pytest.raises(ConfigError, match=r"model\.learning_rate: .*finite number"):
        build_config(Options, {"learning_rate": value}, "model")
    with pytest.raises(ConfigError, match=r"protocol\.min_rating: .*finite number"):
        RunConfig.parse(BASE, [f"protocol.min_rating={text}"])
