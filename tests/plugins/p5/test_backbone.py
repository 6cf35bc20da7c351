"""T5 under P5: random sizes, folders with weights, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmrec_bench.errors import ModelError
from mmrec_bench.testing import toy_split, toy_training_data
from mmrec_bench.types import Queries
from mmrec_plugins.models.p5 import backbone
from mmrec_plugins.models.p5.options import P5Config
from mmrec_plugins.models.p5.recommender import P5
from mmrec_plugins.models.p5.tokens import make_tokens
from mmrec_plugins.models.p5.vip5 import VIP5

TINY: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def write_t5(folder: Path, *, v1_1: bool = False) -> Path:
    """Write a T5 with random weights in safetensors, as the hub has them; v1.1 has its own head."""
    torch.manual_seed(0)
    tokens = make_tokens(["user_ took item next", "yes no"])
    model = backbone.build_t5(P5Config(**TINY), tokens)
    if v1_1:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight))
    model.save_pretrained(folder, safe_serialization=True)
    if v1_1:
        file = folder / "config.json"
        settings = json.loads(file.read_text()) | {"tie_word_embeddings": False}
        del settings["scale_decoder_outputs"]  # which no published file has
        file.write_text(json.dumps(settings))
    tokens.tokenizer.save_pretrained(folder)
    return folder


def test_the_small_size_is_t5_smalls() -> None:
    with torch.device("meta"):
        tokens = make_tokens([])
        model = backbone.build_t5(P5Config(backbone="random-small"), tokens)
    n_blocks = sum(value.numel() for value in model.parameters()) - len(tokens) * 512
    # 60,506,624 parameters of google-t5/t5-small less its 32,128 embeddings.
    assert n_blocks == 60_506_624 - 32_128 * 512


@pytest.mark.parametrize("new_tokens", [0, 5])
def test_a_head_of_its_own_is_kept(tmp_path: Path, new_tokens: int) -> None:
    folder = write_t5(tmp_path / "t5", v1_1=True)
    held = load_file(folder / "model.safetensors")["lm_head.weight"]
    config = P5Config(backbone=str(folder))
    tokens = backbone.load_tokens(config, [])
    tokens.add([f"<item_{number}>" for number in range(new_tokens)])
    model = backbone.build_t5(config, tokens)
    for one in (model, backbone.rebuild_t5(backbone.shape_of(model))):
        assert one.lm_head.weight is not one.shared.weight
        assert one.lm_head.weight.shape == (len(held) + new_tokens, 16)
        assert not one.config.scale_decoder_outputs
    torch.testing.assert_close(model.lm_head.weight[: len(held)], held, rtol=0, atol=0)


@pytest.mark.parametrize("v1_1", [False, True], ids=["T5", "T5 v1.1"])
@pytest.mark.parametrize("ids", ["sequential", "independent"])
def test_a_folder_with_weights_is_taken_over_and_restored_without_it(
    tmp_path: Path, ids: str, v1_1: bool
) -> None:
    folder = write_t5(tmp_path / "t5", v1_1=v1_1)
    options = {"backbone": str(folder), "epochs": 1, "ids": ids, "ranking": "exact"}
    config = P5Config.model_validate(options)
    data = toy_training_data(toy_split(), tmp_path)
    recommender = P5(config)
    recommender.fit(data, seed=0)
    assert recommender.facts()["n_tuned_parameters"] == recommender.facts()["n_parameters"]
    scores = recommender.score(data.validation).values
    recommender.save(tmp_path / "saved")
    for file in folder.iterdir():
        file.unlink()
    again = P5(config)
    again.restore(tmp_path / "saved", data)
    np.testing.assert_array_equal(again.score(data.validation).values, scores)


def test_fitting_starts_from_the_weights_of_the_folder(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    config = P5Config(backbone=str(folder))
    tokens = backbone.load_tokens(config, [])
    torch.manual_seed(0)
    drawn = backbone.build_t5(P5Config(**TINY), make_tokens(["user_ took item next", "yes no"]))
    loaded = backbone.build_t5(config, tokens)
    torch.testing.assert_close(
        loaded.encoder.block[0].layer[0].SelfAttention.q.weight,
        drawn.encoder.block[0].layer[0].SelfAttention.q.weight,
    )


def test_adapters_alone_learn_on_given_weights(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    split = toy_split()
    vectors = np.random.default_rng(0).normal(size=(len(split.catalog), 4)).astype(np.float32)
    data = toy_training_data(split, tmp_path, modalities={"image": vectors})
    recommender = VIP5(VIP5.Config(backbone=str(folder), epochs=1, tune_embeddings=False))
    recommender.fit(data, seed=0)
    learning = {name for name, v in recommender.module.named_parameters() if v.requires_grad}
    assert not any("SelfAttention.q" in name or "shared" in name for name in learning)


def test_changed_weights_are_another_run(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    config = P5Config(backbone=str(folder))
    before = P5.fingerprint(config)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert P5.fingerprint(config) != before
    assert P5.fingerprint(P5Config()) == ""


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only safetensors are read"):
        backbone.locate(str(folder))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    (folder / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(ModelError, match="holds a bart"):
        backbone.locate(str(folder))


def test_a_name_that_is_nothing_lists_the_random_sizes() -> None:
    with pytest.raises(ModelError, match="random-tiny, random-small"):
        backbone.locate("random-huge")


def test_sizes_are_not_taken_for_given_weights(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    config = P5Config(backbone=str(folder), d_model=32)
    with pytest.raises(ModelError, match=r"model\.d_model is for random weights"):
        backbone.build_t5(config, backbone.load_tokens(config, []))


def test_torn_weights_are_one_clear_line(tmp_path: Path) -> None:
    folder = write_t5(tmp_path / "t5")
    (folder / "model.safetensors").write_bytes(b"torn")
    config = P5Config(backbone=str(folder))
    with pytest.raises(ModelError, match="cannot be loaded"):
        backbone.build_t5(config, backbone.load_tokens(config, []))


def test_the_catalog_is_scored_with_any_number_of_queries_at_once(tmp_path: Path) -> None:
    data = toy_training_data(toy_split(), tmp_path)
    recommender = P5(P5Config(**TINY, epochs=1, score_batch=3))
    recommender.fit(data, seed=0)
    queries = Queries(data.validation.user, data.validation.history)
    assert recommender.score(queries).values.shape == (len(queries), data.n_items)
