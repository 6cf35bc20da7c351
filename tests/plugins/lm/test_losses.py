from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from mmrec_plugins.models.chatglm2.checkpoint import load_original
from mmrec_plugins.models.lm import adapters
from mmrec_plugins.models.lm.losses import Choice, choice_scores, ranking_loss
from mmrec_plugins.models.lm.scoring import AnswerTree, ScoringRequest, score_answers

CPU = torch.device("cpu")
ANSWERS = [
    [[7, 8, 2], [7, 9, 2], [7, 8, 11, 2], [12, 2]],
    [[30, 2], [31, 32, 33, 34, 2], [30, 31, 2]],
    [[5], [6]],
]
PROMPTS = [list(range(40, 60)), list(range(50, 58)), list(range(70, 101))]


def prefix(folder: Path) -> PeftModel:
    return adapters.attach_prefix(load_original(folder), length=5, dropout=0.0, seed=0).eval()


def lora(folder: Path) -> PeftModel:
    model = adapters.attach_lora(load_original(folder), rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for value in adapters.trainable(model).values():
            value.add_(0.1)
    return model.eval()


def choices() -> list[Choice]:
    rows = []
    for prompt, answers in zip(PROMPTS, ANSWERS, strict=True):
        tree = AnswerTree()
        for number, answer in enumerate(answers):
            tree.add(number, answer)
        offsets = np.arange(len(answers), dtype=np.float32)
        rows.append(Choice(prompt, tree, len(answers) - 1, offsets))
    return rows


@pytest.mark.parametrize("make", [prefix, lora])
def test_trained_scores_are_those_that_candidates_are_ranked_by(
    make: Callable[[Path], PeftModel], tiny_backbone: Path
) -> None:
    model = make(tiny_backbone)
    requests = [ScoringRequest(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    expected = score_answers(model, requests, pad_id=0)
    with torch.no_grad():
        found = choice_scores(model, choices(), CPU, pad_id=0).numpy()
    assert found.shape == (3, 4)
    for row, scores in zip(found, expected, strict=True):
        assert np.allclose(row[: len(scores)], scores - np.arange(len(scores)), atol=1e-4)
        assert np.isneginf(row[len(scores) :]).all()


@pytest.mark.parametrize("make", [prefix, lora])
def test_the_ranking_loss_is_the_cross_entropy_of_the_target(
    make: Callable[[Path], PeftModel], tiny_backbone: Path
) -> None:
    model, rows = make(tiny_backbone), choices()
    with torch.no_grad():
        together = float(ranking_loss(model, rows, CPU, pad_id=0))
        scores = choice_scores(model, rows, CPU, pad_id=0)
        alone = sum(float(ranking_loss(model, [row], CPU, pad_id=0)) for row in rows)
    targets = torch.tensor([row.target for row in rows])
    expected = -scores.log_softmax(-1)[torch.arange(3), targets].sum()
    assert together == pytest.approx(float(expected), rel=1e-5)
    assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("make", [prefix, lora])
def test_checkpointing_changes_no_gradient_of_the_ranking_loss(
    make: Callable[[Path], PeftModel], tiny_backbone: Path
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make(tiny_backbone)
        if checkpointing:
            adapters.enable_checkpointing(model)
        model.train()
        ranking_loss(model, choices(), CPU, pad_id=0).backward()  # type: ignore[no-untyped-call]
        gradients.append([value.grad for value in adapters.trainable(model).values()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain is not None
        assert checkpointed is not None
        assert torch.isfinite(plain).all()
        assert float(plain.abs().sum()) > 0
        assert torch.allclose(plain, checkpointed, atol=1e-6)
