from pathlib import Path

import pytest

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
