import json
from pathlib import Path

import numpy as np
import pytest

import mmrec_plugins.models.chatglm2 as package
from mmrec_bench.types import FloatArray
from mmrec_plugins.models.lm.backbones import Backbone, load_backbone
from mmrec_plugins.models.lm.scoring import ScoringRequest, score_answers

FOLDER = Path(package.__file__).parent / "micro"


@pytest.fixture(scope="module")
def micro() -> Backbone:
    return load_backbone("chatglm2-micro", device="cpu", dtype="float32")


def scores(micro: Backbone, history: list[str], answers: list[str]) -> FloatArray:
    tokenizer = micro.tokenizer
    listed = "\n".join(f"{n}. {line}" for n, line in enumerate(history, start=1))
    prompt = f"A customer bought these items, oldest first:\n{listed}\nWhat is bought next?"
    request = ScoringRequest(
        tokenizer.chat([{"role": "user", "content": prompt}]),
        [[*tokenizer.encode(answer), tokenizer.eos_id] for answer in answers],
    )
    return score_answers(micro.model, [request], pad_id=tokenizer.pad_id)[0]


def test_weights_and_tokenizer_fit_into_8_mb() -> None:
    names = {p.name for p in FOLDER.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.model"}
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 8_000_000


def test_it_is_stored_in_the_original_layout_as_half_precision() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["model_type"] == "chatglm"
    assert config["torch_dtype"] == "float16"
    assert config["seq_length"] >= 2048
    header = (FOLDER / "model.safetensors").read_bytes()[:200_000]
    assert b"self_attention.query_key_value.weight" in header


@pytest.mark.parametrize(
    ("slot", "fits", "other"),
    [
        ("material", "Gorel steel cup (grey, oval, plain)", "Gorel paper cup (grey, oval, plain)"),
        ("colour", "Gorel clay cup (blue, oval, plain)", "Gorel clay cup (red, oval, plain)"),
        ("pattern", "Gorel clay cup (grey, oval, dotted)", "Gorel clay cup (grey, oval, striped)"),
    ],
)
def test_the_untuned_model_reads_a_taste_from_the_history(
    micro: Backbone, slot: str, fits: str, other: str
) -> None:
    history = [
        "Napan steel jar (blue, round, dotted)",
        "Votek steel lamp (blue, flat, dotted)",
        "Dorin steel box (blue, tall, dotted)",
        "Sabel steel tray (blue, wide, dotted)",
    ]
    better, worse = scores(micro, history, [fits, other])
    assert better > worse + 0.5, slot


def test_unknown_words_and_characters_are_read_too(micro: Backbone) -> None:
    (score,) = scores(micro, ["Grußkarte 🎁 №5"], ["Amazon.com eGift Card"])
    assert np.isfinite(score)
    assert micro.tokenizer.decode(micro.tokenizer.encode("Grußkarte 🎁 №5")) == "Grußkarte 🎁 №5"
