import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Image, Message, Text
from mmrec_plugins.instructions.ranking import Ranking
from mmrec_plugins.models.lm.encoding import PromptEncoder
from mmrec_plugins.models.lm.presets import LanguageModelConfig
from mmrec_plugins.models.lm.recommender import LanguageModelRecommender
from mmrec_plugins.models.lm.visual import VISUAL_FILE, PictureIds
from tests.plugins.lm.tiny import TITLES, KilledError, Shop, killing, training_data

pytestmark = pytest.mark.usefixtures("one_thread")

BLIND = 3
QUICK: dict[str, Any] = {
    "max_length": 400,
    "pre_seq_len": 8,
    "learning_rate": 0.05,
    "visual_learning_rate": 0.05,
    "visual_tokens": 2,
    "visual_hidden": 6,
    "visual_dropout": 0.2,
    "visual_alignment_steps": 4,
    "objective": "ranking",
    "batch_size": 8,
    "accumulation": 1,
    "max_steps": 6,
    "evaluate_every": 2,
    "validation_cases": 8,
}
QUERIES = Shop(longest=9).queries(6)[0]


def pictures() -> FloatArray:
    found = np.random.default_rng(4).normal(size=(len(TITLES), 8)).astype(np.float32)
    found[BLIND] = np.nan
    return found


def data(scratch: Path, *, listed: bool = False, vectors: FloatArray | None = None) -> TrainingData:
    plain = training_data(scratch)
    paths = [(Path(f"{i}.jpg"),) for i in range(len(TITLES))]
    return replace(
        plain,
        catalog=replace(plain.catalog, images=paths),
        builder=Ranking(Ranking.Config(list_candidates=listed, pictures="images")),
        item_vectors=pictures() if vectors is None else vectors,
    )


def make(backbone: Path, **options: object) -> LanguageModelRecommender:
    return LanguageModelRecommender(
        LanguageModelConfig.model_validate({"backbone": str(backbone), **QUICK, **options})
    )


KINDS = [
    ({"adapter": "prefix"}, False),
    ({"adapter": "prefix", "objective": "answer"}, False),
    ({"adapter": "prefix", "normalise": "lift"}, False),
    ({"adapter": "prefix"}, True),
    ({"adapter": "lora"}, False),
    ({"adapter": "none"}, False),
]


@pytest.mark.parametrize(("options", "listed"), KINDS)
def test_a_killed_fit_and_a_restored_model_score_as_if_nothing_had_happened(
    options: dict[str, str], listed: bool, tiny_backbone: Path, tmp_path: Path
) -> None:
    whole = make(tiny_backbone, **options)
    whole.fit(data(tmp_path / "whole", listed=listed), seed=3)
    scores = whole.score(QUERIES).values
    again = data(tmp_path / "killed", listed=listed)
    with pytest.raises(KilledError):
        make(tiny_backbone, **options).fit(killing(again, 2), seed=3)
    resumed = make(tiny_backbone, **options)
    resumed.fit(again, seed=3)
    np.testing.assert_array_equal(scores, resumed.score(QUERIES).values)
    assert whole.facts() == resumed.facts()
    whole.save(tmp_path / "saved")
    restored = make(tiny_backbone, **options)
    restored.restore(tmp_path / "saved", data(tmp_path, listed=listed))
    np.testing.assert_array_equal(scores, restored.score(QUERIES).values)


def test_a_fit_on_other_pictures_does_not_go_on_from_the_checkpoint(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KilledError):
        make(tiny_backbone).fit(killing(data(tmp_path), 2), seed=3)
    make(tiny_backbone).fit(data(tmp_path, vectors=pictures() * 2 + 1), seed=3)
    assert "belongs to a fit with other settings" in caplog.text


def test_tuning_moves_projector_and_prefix(tiny_backbone: Path, tmp_path: Path) -> None:
    model = make(tiny_backbone)
    model.fit(data(tmp_path), seed=3)
    tuned = dict(model._ready().named_parameters())
    other = make(tiny_backbone, max_steps=0)
    other.fit(data(tmp_path / "other"), seed=3)
    for name, value in other._ready().named_parameters():
        changed = not torch.equal(value, tuned[name])
        assert changed == ("prompt_encoder" in name or "visual_tokens" in name), name


@pytest.mark.slow
def test_taste_that_only_pictures_tell_is_learnt(tiny_backbone: Path, tmp_path: Path) -> None:
    looks = np.zeros((len(TITLES), 4), np.float32)
    kind = np.random.default_rng(0).permutation(len(TITLES)) % 4
    looks[np.arange(len(TITLES)), kind] = 1
    # everyone stays with the look of what was bought last
    source = _LookAlikes(kind)
    queries, targets = source.queries(24)
    learnt = {}
    for name, vectors in {"real": looks, "blind": np.full_like(looks, np.nan)}.items():
        model = make(tiny_backbone, max_steps=80, evaluate_every=80, visual_dropout=0.0)
        given = data(tmp_path / name, vectors=vectors)
        model.fit(replace(given, examples=source), seed=1)
        learnt[name] = float((model.score(queries).values.argmax(1) == targets).mean())
    assert learnt["real"] > 0.8
    assert learnt["blind"] < 0.5


class _LookAlikes(Shop):
    """Histories of one look; one candidate has it."""

    def __init__(self, kind: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.kind = kind

    def draw(self, rng: np.random.Generator) -> Any:  # noqa: ANN401
        example = super().draw(rng)
        look = int(rng.integers(4))
        same = rng.permutation(np.flatnonzero(self.kind == look)).astype(np.int32)
        others = rng.permutation(np.flatnonzero(self.kind != look)).astype(np.int32)
        candidates = np.insert(others[:4], example.target, same[0]).astype(np.int32)
        return replace(
            example, query=replace(example.query, history=same[1:], candidates=candidates)
        )


def test_without_vectors_the_model_reads_text_and_says_so(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blind = replace(data(tmp_path), item_vectors=None)
    with caplog.at_level(logging.WARNING, logger="mmrec_bench"):
        model = make(tiny_backbone)
        model.fit(blind, seed=3)
    assert "there is no picture's vector" in caplog.text
    assert "this model reads text only" in caplog.text
    model.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / VISUAL_FILE).exists()
    restored = make(tiny_backbone)
    restored.restore(tmp_path / "saved", blind)
    np.testing.assert_array_equal(model.score(QUERIES).values, restored.score(QUERIES).values)


def test_a_model_that_saw_pictures_needs_them_again(tiny_backbone: Path, tmp_path: Path) -> None:
    model = make(tiny_backbone)
    model.fit(data(tmp_path), seed=3)
    model.save(tmp_path / "saved")
    with pytest.raises(ModelError, match="needs their vectors"):
        make(tiny_backbone).restore(tmp_path / "saved", replace(data(tmp_path), item_vectors=None))


def test_another_catalog_is_seen_after_a_transfer(tiny_backbone: Path, tmp_path: Path) -> None:
    model = make(tiny_backbone)
    model.fit(data(tmp_path), seed=3)
    before = model.score(QUERIES).values
    model.transfer(data(tmp_path, vectors=pictures()[::-1].copy()))
    assert not np.array_equal(before, model.score(QUERIES).values)
    model.transfer(data(tmp_path))
    np.testing.assert_array_equal(before, model.score(QUERIES).values)
    with pytest.raises(ModelError, match="needs their vectors"):
        model.transfer(replace(data(tmp_path), item_vectors=None))


def test_a_text_model_tunes_as_if_there_were_no_pictures(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    scores = []
    for vectors in (pictures(), None):
        model = make(tiny_backbone, visual_tokens=0, visual_hidden=None)
        model.fit(replace(data(tmp_path), item_vectors=vectors), seed=3)
        scores.append(model.score(QUERIES).values)
    np.testing.assert_array_equal(scores[0], scores[1])


def encoder_of(backbone: Path, scratch: Path) -> PromptEncoder:
    model = make(backbone, max_steps=0)
    model.fit(data(scratch), seed=0)
    return model._encoder


def test_a_picture_stands_at_its_place_and_a_missing_one_leaves_no_seam(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    encoder = encoder_of(tiny_backbone, tmp_path)
    assert isinstance(encoder.pictures, PictureIds)
    image: Callable[[int], Image] = lambda item: Image(None, item)  # noqa: E731
    shown = Message("user", (Text("1. "), image(1), Text("red mug"), image(BLIND), Text(" end")))
    gap = encoder.tokenizer.chat_around([{"role": "user", "content": "1. |red mug end"}], "|")
    assert encoder.tokens_of_messages([shown]) == [*gap[0], -3, -4, *gap[1]]
    text = Message("user", (Text("1. red"), image(BLIND), Text(" mug")))
    assert encoder.tokens_of_messages([text]) == encoder.tokenizer.chat_prompt("1. red mug")


def test_pictures_are_foretold_where_candidates_are_not_listed(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    encoder = encoder_of(tiny_backbone, tmp_path)
    query = QUERIES[0]
    assert query.candidates is not None
    encoded = encoder.encode(query)
    first = [ids[0] for ids in encoded.answer_ids]
    assert encoder.pictures is not None
    assert first == [encoder.pictures.foretold(i) for i in query.candidates.tolist()]
    assert all(token >= 0 for ids in encoded.answer_ids for token in ids[1:])
    listed = Ranking(Ranking.Config(pictures="images"))
    encoder.builder = listed
    assert all(token >= 0 for ids in encoder.encode(query).answer_ids for token in ids)
