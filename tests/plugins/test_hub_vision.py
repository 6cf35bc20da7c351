import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from mmrec_bench.errors import ModelError
from mmrec_bench.images import open_image
from mmrec_bench.types import Item
from mmrec_plugins.encoders.hub_vision import Clip, HubVision, Siglip
from mmrec_plugins.encoders.preprocessing import Preprocessing

Make = Callable[[Path], None]

# The settings as the publishers' files have them, at a smaller size.
CLIP_SETTINGS = {
    "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 32,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
SIGLIP_SETTINGS = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"height": 32, "width": 32},
}  # fmt: skip
TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def make_clip(folder: Path) -> None:
    torch.manual_seed(0)
    text = CLIPTextConfig(**TOWER, vocab_size=64, max_position_embeddings=8)
    vision = CLIPVisionConfig(**TOWER, image_size=32, patch_size=16)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_SETTINGS))


def make_siglip(folder: Path) -> None:
    torch.manual_seed(0)
    text = SiglipTextConfig(**TOWER, vocab_size=64, max_position_embeddings=8)
    vision = SiglipVisionConfig(**TOWER, image_size=32, patch_size=16)
    SiglipModel(
        SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SIGLIP_SETTINGS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of random weights, as the hub has them."""
    root = tmp_path_factory.mktemp("models")
    for name, make in (("clip", make_clip), ("siglip", make_siglip)):
        make(root / name)
    return {"clip": root / "clip", "siglip": root / "siglip"}


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """A picture, a broken one, none, and another picture."""
    rng = np.random.default_rng(0)
    for name, size in (("a", (60, 41)), ("b", (30, 45))):
        noise = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).resize((90, 70)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [("a.png",), ("broken.jpg",), (), ("b.png",)]
    return [
        Item(i, str(i), "x", images=tuple(tmp_path / name for name in names))
        for i, names in enumerate(paths)
    ]


def encoder(name: str, weights: Path | str, **options: object) -> HubVision:
    cls: type[HubVision] = {"clip": Clip, "siglip": Siglip}[name]
    return cls(cls.Config.model_validate({"weights": str(weights), "device": "cpu", **options}))


@pytest.mark.parametrize(("name", "width"), [("clip", 12), ("siglip", 16)])
def test_vectors_are_one_row_an_item_and_nan_without_a_picture(
    folders: dict[str, Path], items: list[Item], name: str, width: int
) -> None:
    vectors = encoder(name, folders[name]).encode(items)
    assert vectors.shape == (4, width)
    assert vectors.dtype == np.float32
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, False]
    assert not np.allclose(vectors[0], vectors[3])


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_vectors_are_those_of_transformers_own_processor_and_model(
    folders: dict[str, Path], items: list[Item], name: str
) -> None:
    processor = AutoImageProcessor.from_pretrained(folders[name])
    model = {"clip": CLIPModel, "siglip": SiglipModel}[name].from_pretrained(folders[name])
    picture = open_image(items[3].images[0])
    with torch.inference_mode():
        inputs = processor(images=[picture], return_tensors="pt")
        expected = model.get_image_features(**inputs).pooler_output
    found = encoder(name, folders[name]).encode(items[3:])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (32, 32), (7, 100), (33, 32)])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_pixels_are_those_of_transformers_own_processor(
    folders: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(noise)
    processor = AutoImageProcessor.from_pretrained(folders[name])
    expected = processor(images=picture, return_tensors="np")["pixel_values"][0]
    found = Preprocessing.read(folders[name]).pixels(picture)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_settings_as_transformers_5_writes_them_are_read(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    nested = {"image_processor": SIGLIP_SETTINGS, "processor_class": "SiglipProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert Preprocessing.read(tmp_path) == Preprocessing.read(folders["siglip"])


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"longest_edge": 32}},
        {"size": 0},
        {"size": "big"},
        {"image_mean": [0.5]},
        {"resample": 77},
        {"do_pad": True},
        [],
        "{",
    ],
)
def test_settings_that_mean_something_else_are_one_clear_line(
    tmp_path: Path, settings: object
) -> None:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelError, match="expected the settings of a CLIP or SigLIP") as caught:
        Preprocessing.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_vector_does_not_depend_on_the_rest_of_its_batch(
    folders: dict[str, Path], items: list[Item], name: str
) -> None:
    together = encoder(name, folders[name]).encode(items)
    alone = encoder(name, folders[name], batch_size=1).encode(items)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_fingerprint_follows_the_content_and_not_the_place(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    before = encoder("clip", folders["clip"]).fingerprint()
    copy = shutil.copytree(folders["clip"], tmp_path / "copy")
    assert encoder("clip", copy, batch_size=3).fingerprint() == before
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert encoder("clip", copy).fingerprint() != before


def test_another_resize_is_another_fingerprint(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["clip"], tmp_path / "copy")
    (copy / "preprocessor_config.json").write_text(json.dumps({**CLIP_SETTINGS, "resample": 2}))
    found = encoder("clip", copy).fingerprint()
    assert found != encoder("clip", folders["clip"]).fingerprint()


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_hub_id_that_is_not_to_be_had_is_one_clear_line(name: str) -> None:
    with pytest.raises(
        ModelError, match=f"the {name} model 'nobody/no-such'.*vectors.weights="
    ) as e:
        encoder(name, "nobody/no-such").encode([])
    assert "\n" not in str(e.value)


def test_a_hub_id_in_the_local_cache_is_read_without_the_network(
    folders: dict[str, Path], items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--tiny-clip"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folders["clip"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    from_hub = encoder("clip", "someone/tiny-clip")
    from_folder = encoder("clip", folders["clip"])
    assert from_hub.fingerprint() == from_folder.fingerprint()
    np.testing.assert_array_equal(from_hub.encode(items), from_folder.encode(items))


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_torn_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def without_settings(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def with_a_missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def of_another_type(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))


def with_half_the_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "vision_model" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_weights, "no model.safetensors"),
        (with_torn_weights, "cannot be loaded"),
        (without_settings, "preprocessor_config.json"),
        (with_a_missing_shard, "no model-00001-of-00002.safetensors"),
        (of_another_type, "a model of type 'bert'.*reads clip"),
        (with_half_the_weights, r"lacks \d+ tensors of the image side"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_clear_line(
    folders: dict[str, Path], tmp_path: Path, spoil: Make, reason: str
) -> None:
    copy = shutil.copytree(folders["clip"], tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ModelError, match=reason) as caught:
        encoder("clip", copy).encode([])
    assert "\n" not in str(caught.value)
