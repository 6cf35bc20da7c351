import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

from mmrec_bench.errors import ModelError
from mmrec_bench.types import Item
from mmrec_plugins.encoders.blip import Blip

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "mug", "lamp"]


@pytest.fixture(scope="module")
def tiny_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP model of random weights, saved as the hub has it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("blip")
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab=str(vocab))
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2}
    text = BlipTextConfig(
        **shared, **heads, vocab_size=len(WORDS), encoder_hidden_size=16, projection_dim=16,
        max_position_embeddings=32, bos_token_id=2, eos_token_id=3, sep_token_id=3, pad_token_id=0,
    )  # fmt: skip
    vision = BlipVisionConfig(
        **shared, **heads, image_size=32, patch_size=16, projection_dim=16, initializer_range=0.5
    )  # fmt: skip
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """A picture, a broken one, none, and another picture."""
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [("a.jpg",), ("broken.jpg",), (), ("b.jpg",)]
    return [
        Item(i, str(i), "x", images=tuple(tmp_path / name for name in names))
        for i, names in enumerate(paths)
    ]


def test_pictures_get_a_caption_and_the_rest_nothing(tiny_blip: Path, items: list[Item]) -> None:
    blip = Blip(Blip.Config(model=str(tiny_blip), device="cpu", max_new_tokens=4, batch_size=1))
    captions = blip.describe(items)
    assert [len(words) for words in captions] == [1, 0, 0, 1]
    assert set(" ".join(captions[0]).split()) <= {word.lower() for word in WORDS} | set(WORDS)


def test_vectors_are_one_row_an_item_and_nan_without_a_picture(
    tiny_blip: Path, items: list[Item]
) -> None:
    vectors = Blip(Blip.Config(model=str(tiny_blip), device="cpu")).encode(items)
    assert vectors.shape == (4, 16)
    assert vectors.dtype == np.float32
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, False]
    assert not np.allclose(vectors[0], vectors[3])


def test_the_fingerprint_of_a_folder_follows_its_content(tiny_blip: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_blip, tmp_path / "copy")
    first, second = (Blip(Blip.Config(model=str(folder))) for folder in (tiny_blip, copy))
    assert first.fingerprint() == second.fingerprint()
    (copy / "model.safetensors").write_bytes(b"other")
    assert first.fingerprint() != second.fingerprint()


def test_a_model_that_is_not_to_be_had_is_one_clear_line(items: list[Item]) -> None:
    with pytest.raises(ModelError, match="image-tags") as caught:
        Blip(Blip.Config(model="nobody/no-such-model")).describe(items)
    assert "\n" not in str(caught.value)
