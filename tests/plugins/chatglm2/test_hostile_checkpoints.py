"""Damaged and malicious checkpoints: each gives one clear error, and nothing in them is run."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.checkpoint import load_original, read_config
from tests.plugins.chatglm2.making import FORMS, Form, write_checkpoint, write_weights
from tests.plugins.chatglm2.reference import Reference, Shape

FIRST_LAYER = "transformer.encoder.layers.0"


@pytest.fixture
def reference() -> Reference:
    return Reference(Shape())


def refuse(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_original(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def weights(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.bin"), *folder.glob("*.safetensors")])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_shard_is_named(
    tmp_path: Path, reference: Reference, form: Form, kept: float
) -> None:
    file = weights(write_checkpoint(tmp_path, reference, form))[-1]
    os.truncate(file, int(kept * file.stat().st_size))
    assert file.name in refuse(tmp_path)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_a_shard_of_junk_is_named(tmp_path: Path, reference: Reference, form: Form) -> None:
    file = weights(write_checkpoint(tmp_path, reference, form))[0]
    file.write_bytes(b"<html>404: not found</html>" * 40)
    assert file.name in refuse(tmp_path)


@pytest.mark.parametrize("form", ["bin-shards", "safetensors-shards"])
def test_a_missing_shard_is_named(tmp_path: Path, reference: Reference, form: Form) -> None:
    gone = weights(write_checkpoint(tmp_path, reference, form))[1]
    gone.unlink()
    message = refuse(tmp_path)
    assert gone.name in message
    assert "1 of 3 shards" in message


def test_a_folder_without_weights_says_what_was_expected(
    tmp_path: Path, reference: Reference
) -> None:
    for file in weights(write_checkpoint(tmp_path, reference, "bin")):
        file.unlink()
    assert "expected one of model.safetensors.index.json" in refuse(tmp_path)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(
    tmp_path: Path, reference: Reference, zipped: bool
) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    state: dict[str, object] = dict(reference.state_dict())
    state["bomb"] = _Bomb(tmp_path / "ran")
    file = tmp_path / "pytorch_model.bin"
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    message = refuse(tmp_path)
    assert "pytorch_model.bin is refused" in message
    file.write_bytes(pickle.dumps(state["bomb"]))
    refuse(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {3: torch.zeros(2)}, torch.zeros(3)])
def test_a_pickle_of_anything_but_named_tensors_is_refused(
    tmp_path: Path, reference: Reference, content: object
) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    torch.save(content, tmp_path / "pytorch_model.bin")
    assert "does not hold tensors by name" in refuse(tmp_path)


@pytest.mark.parametrize("form", ["bin-shards", "safetensors"])
def test_a_wrong_shape_is_named_with_both_shapes(
    tmp_path: Path, reference: Reference, form: Form
) -> None:
    write_checkpoint(tmp_path, reference, form)
    state = dict(reference.state_dict())
    state[f"{FIRST_LAYER}.mlp.dense_4h_to_h.weight"] = torch.zeros(64, 111)
    write_weights(tmp_path, state, form)
    message = refuse(tmp_path)
    assert f"{FIRST_LAYER}.mlp.dense_4h_to_h.weight" in message
    assert "(64, 111)" in message
    assert "(64, 112)" in message


def test_a_small_file_cannot_claim_a_huge_tensor(tmp_path: Path, reference: Reference) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    state = dict(reference.state_dict())
    state["transformer.output_layer.weight"] = torch.zeros(1).expand(1_000_000_000_000)
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert "shape (1000000000000,), expected (96, 64)" in refuse(tmp_path)


def test_unknown_tensors_are_listed(tmp_path: Path, reference: Reference) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    state = dict(reference.state_dict())
    state |= {f"transformer.extra.{at}": torch.zeros(1) for at in range(12)}
    write_weights(tmp_path, state, "bin")
    message = refuse(tmp_path)
    assert "12 unknown tensors: transformer.extra.0, transformer.extra.1" in message
    assert "and 4 more" in message


def test_missing_tensors_are_listed(tmp_path: Path, reference: Reference) -> None:
    write_checkpoint(tmp_path, reference, "safetensors")
    state = dict(reference.state_dict())
    del state[f"{FIRST_LAYER}.self_attention.query_key_value.bias"]
    write_weights(tmp_path, state, "safetensors")
    message = refuse(tmp_path)
    assert f"1 tensors are missing: {FIRST_LAYER}.self_attention.query_key_value.bias" in message


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path, reference: Reference) -> None:
    write_checkpoint(tmp_path, reference, "bin-shards")
    last = weights(tmp_path)[-1]
    part = torch.load(last, weights_only=True)
    part["transformer.embedding.word_embeddings.weight"] = torch.zeros(96, 64)
    torch.save(part, last)
    assert "word_embeddings.weight is stored twice" in refuse(tmp_path)


def test_quantised_tensors_are_refused(tmp_path: Path, reference: Reference) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    state = dict(reference.state_dict())
    name = f"{FIRST_LAYER}.mlp.dense_4h_to_h.weight"
    state[name] = torch.zeros(64, 112, dtype=torch.int8)
    write_weights(tmp_path, state, "bin")
    assert "int8" in refuse(tmp_path)


@pytest.mark.parametrize("shard", ["../outside.bin", "/etc/passwd", "sub/a.bin", ".."])
def test_an_index_cannot_point_outside_the_folder(
    tmp_path: Path, reference: Reference, shard: str
) -> None:
    write_checkpoint(tmp_path, reference, "bin-shards")
    index = {"weight_map": {"transformer.output_layer.weight": shard}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    message = refuse(tmp_path)
    assert "is not a plain file name" in message or "missing" in message


@pytest.mark.parametrize("content", ["", "[]", "{", '{"weight_map": {}}', '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path: Path, reference: Reference, content: str) -> None:
    write_checkpoint(tmp_path, reference, "bin-shards")
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    assert "pytorch_model.bin.index.json" in refuse(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\ufeff", "[" * 100_000])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert "config.json" in refuse(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    assert "config.json is missing" in refuse(tmp_path)


def _refuse_config(folder: Path, **fields: object) -> str:
    config = Shape().original_config("chatglm2") | fields
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        read_config(folder)
    return str(caught.value)


def test_another_model_type_is_refused(tmp_path: Path) -> None:
    message = _refuse_config(tmp_path, model_type="llama")
    assert "model_type is 'llama', expected 'chatglm'" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("add_bias_linear", True),
        ("apply_residual_connection_post_layernorm", True),
        ("fp32_residual_connection", True),
        ("hidden_dropout", 0.1),
        ("interleaved_qkv", True),
        ("multi_query_attention", False),
        ("post_layer_norm", False),
        ("quantization_bit", 4),
        ("quantization_config", {"bits": 4}),
        ("rmsnorm", False),
        ("tie_word_embeddings", True),
        ("kv_channels", 10),
        ("multi_query_group_num", 3),
        ("num_layers", "28"),
        ("num_layers", -1),
        ("num_layers", 1.5),
        ("hidden_size", 0),
        ("layernorm_epsilon", 0),
        ("rope_ratio", -1),
        ("hidden_size", None),
    ],
)
def test_a_variant_that_is_not_exact_is_refused_by_its_field(
    tmp_path: Path, field: str, value: object
) -> None:
    message = _refuse_config(tmp_path, **{field: value})
    assert field in message
    assert "\n" not in message


def test_the_first_chatglm_is_told_apart(tmp_path: Path) -> None:
    first = {"model_type": "chatglm", "vocab_size": 130528, "inner_hidden_size": 16384}
    (tmp_path / "config.json").write_text(json.dumps(first))
    with pytest.raises(ModelError, match=r"padded_vocab_size.*the first ChatGLM-6B"):
        read_config(tmp_path)
