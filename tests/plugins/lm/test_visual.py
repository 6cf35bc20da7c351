from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm.adapters import (
    disable_checkpointing,
    enable_checkpointing,
    put_back,
    snapshot,
    trainable,
)
from mmrec_plugins.models.lm.encoding import Tokens
from mmrec_plugins.models.lm.generation import generate
from mmrec_plugins.models.lm.losses import Choice, answer_loss, choice_scores, ranking_loss
from mmrec_plugins.models.lm.prefill import causal_model, inference, prefill, visual_tokens
from mmrec_plugins.models.lm.scoring import AnswerTree, ScoringRequest, score_answers
from mmrec_plugins.models.lm.visual import (
    PictureIds,
    VisualTokens,
    load_visual,
    picture_ids,
    save_visual,
)
from tests.plugins.lm.pictured import (
    BLIND,
    N_ITEMS,
    make_seeing,
    pictured_request,
    plain_embeddings,
    plain_score,
    vectors,
)
from tests.plugins.lm.random_models import ADAPTERS, FAMILIES, random_tokens

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def some_requests(pictures: PictureIds) -> list[ScoringRequest]:
    rng = np.random.default_rng(3)
    shapes = [([0, 1, 2], [3, BLIND, 5, 6]), ([], [0, BLIND, 1]), ([6], [2, 3, 6, 0, 1])]
    return [pictured_request(rng, pictures, shown, answers) for shown, answers in shapes]


def choices(requests: list[ScoringRequest]) -> list[Choice]:
    rows = []
    for request in requests:
        tree = AnswerTree()
        for number, answer in enumerate(request.answer_ids):
            tree.add(number, answer)
        offsets = np.zeros(len(request.answer_ids), np.float32)
        rows.append(Choice(request.prompt_ids, tree, 1, offsets))
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_scores_with_a_shared_prompt_are_those_of_one_pass_an_answer(
    family: str, adapter: str
) -> None:
    model, visual, pictures = make_seeing(family, adapter)
    requests = some_requests(pictures)
    together = score_answers(model, requests, pad_id=0)
    with torch.no_grad():
        for request, row in zip(requests, together, strict=True):
            plain = [
                float(plain_score(model, visual, request.prompt_ids, answer))
                for answer in request.answer_ids
            ]
            np.testing.assert_allclose(row, plain, atol=2e-4)


def test_a_batch_of_one_scores_like_a_batch_of_many() -> None:
    model, _, pictures = make_seeing()
    requests = some_requests(pictures)
    together = score_answers(model, requests, pad_id=0, prompts_per_batch=3)
    for request, row in zip(requests, together, strict=True):
        alone = score_answers(model, [request], pad_id=0, candidates_per_row=1)[0]
        np.testing.assert_allclose(row, alone, atol=1e-4)


@pytest.mark.parametrize("adapter", ["prefix", "lora"])
def test_training_scores_are_those_of_scoring(adapter: str) -> None:
    model, _, pictures = make_seeing(adapter=adapter)
    requests = some_requests(pictures)
    with torch.no_grad():
        trained = choice_scores(model, choices(requests), CPU, pad_id=0)
    for row, scored in zip(trained, score_answers(model, requests, pad_id=0), strict=True):
        np.testing.assert_allclose(row[: len(scored)], scored, atol=1e-4)
        assert torch.isneginf(row[len(scored) :]).all()


def test_the_padding_id_changes_nothing_whatever_stands_beside_it() -> None:
    model, _, pictures = make_seeing()
    prompts = [request.prompt_ids for request in some_requests(pictures)]
    with inference(model):
        zero, other = (prefill(model, prompts, pad_id=pad) for pad in (0, 11))
        for at, prompt in enumerate(prompts):
            alone = prefill(model, [prompt], pad_id=0)
            torch.testing.assert_close(zero.logits[at], alone.logits[0], atol=1e-4, rtol=1e-4)
            assert zero.states is not None
            assert alone.states is not None
            torch.testing.assert_close(zero.states[at], alone.states[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(zero.logits, other.logits)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_generation_is_the_naive_greedy_one(adapter: str) -> None:
    model, visual, pictures = make_seeing(adapter=adapter)
    prompts = [request.prompt_ids for request in some_requests(pictures)]
    written = generate(model, prompts, eos_id=2, pad_id=0, max_new_tokens=6)
    with torch.no_grad():
        for prompt, answer in zip(prompts, written, strict=True):
            ids = list(prompt)
            while len(ids) < len(prompt) + 6:
                logits = model(inputs_embeds=plain_embeddings(model, visual, ids)).logits
                token = int(logits[0, -1].argmax())
                if token == 2:
                    break
                ids.append(token)
            assert answer == ids[len(prompt) :]


def answer_rows(pictures: PictureIds) -> list[Tokens]:
    rng = np.random.default_rng(1)
    return [
        Tokens([*request.prompt_ids, *random_tokens(rng, n)], n)
        for n, request in enumerate(some_requests(pictures), start=2)
    ]


Loss = Callable[[nn.Module, PictureIds], Tensor]
LOSSES: dict[str, Loss] = {
    "answer": lambda model, ids: answer_loss(model, answer_rows(ids), CPU, pad_id=0),
    "ranking": lambda model, ids: ranking_loss(model, choices(some_requests(ids)), CPU, pad_id=0),
}


def _tuned_and_exact(adapter: str) -> tuple[nn.Module, VisualTokens, PictureIds]:
    model, visual, pictures = make_seeing(adapter=adapter)
    model.double()
    causal_model(model).requires_grad_(requires_grad=False)
    for name, value in model.named_parameters():
        value.requires_grad_("lora_" in name or "prompt_encoder" in name or "visual_tokens" in name)
    return model, visual, pictures


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("adapter", ["prefix", "lora"])
def test_gradients_of_projector_and_adapter_are_finite_differences(loss: str, adapter: str) -> None:
    model, _, pictures = _tuned_and_exact(adapter)
    LOSSES[loss](model, pictures).backward()  # type: ignore[no-untyped-call]
    silent = {"answer": ("foretell", "without", "closeness"), "ranking": ()}[loss]
    step = 1e-3
    for name, value in trainable(model).items():
        if any(part in name for part in silent):
            assert value.grad is None or not value.grad.any()
            continue
        assert value.grad is not None, name
        at = int(value.grad.abs().argmax())
        assert value.grad.view(-1)[at] != 0, name
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                value.view(-1)[at] += sign * step
                ends.append(float(LOSSES[loss](model, pictures)))
                value.view(-1)[at] -= sign * step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float(value.grad.view(-1)[at]), rel=2e-2, abs=2e-3), name


@pytest.mark.parametrize("adapter", ["plain", "prefix", "lora"])
@pytest.mark.parametrize("loss", LOSSES)
def test_checkpointing_changes_no_gradient(adapter: str, loss: str) -> None:
    found = []
    for checkpointing in (False, True):
        model, visual, pictures = make_seeing(adapter=adapter)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        if checkpointing:
            enable_checkpointing(model)
        model.train()
        # the prefix's dropout is a hook of the encoder
        if adapter == "prefix":
            model.get_submodule("prompt_encoder").eval()
        LOSSES[loss](model, pictures).backward()  # type: ignore[no-untyped-call]
        if checkpointing:
            disable_checkpointing(model)
        assert visual.embed.weight.grad is not None
        found.append(visual.embed.weight.grad.clone())
    torch.testing.assert_close(found[0], found[1])
    assert found[0].any()


def test_a_model_in_half_precision_scores_and_trains() -> None:
    model, visual, pictures = make_seeing()
    causal_model(model).to(torch.bfloat16)
    visual.float()
    requests = some_requests(pictures)
    assert all(np.isfinite(row).all() for row in score_answers(model, requests, pad_id=0))
    for loss in LOSSES.values():
        loss(model, pictures).backward()  # type: ignore[no-untyped-call]
    assert visual.embed.weight.grad is not None
    assert visual.embed.weight.grad.isfinite().all()


def test_a_snapshot_put_back_restores_the_projector() -> None:
    model, visual, pictures = make_seeing()
    before, kept = score_answers(model, some_requests(pictures), pad_id=0), snapshot(model)
    with torch.no_grad():
        visual.embed.weight.add_(0.5)
    put_back(model, kept)
    after = score_answers(model, some_requests(pictures), pad_id=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_saved_projector_is_restored_equal(tmp_path: Path) -> None:
    model, visual, pictures = make_seeing()
    before = score_answers(model, some_requests(pictures), pad_id=0)
    save_visual(visual, tmp_path)
    other, _, _ = make_seeing()
    projector = visual_tokens(other)
    assert projector is not None
    with torch.no_grad():
        for value in projector.state_dict().values():
            value.add_(1.0)
    load_visual(projector, tmp_path, vectors())
    after = score_answers(other, some_requests(pictures), pad_id=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_saved_projector_holds_none_of_the_catalog() -> None:
    _, visual, _ = make_seeing()
    assert N_ITEMS not in {len(value) for value in visual.state_dict().values() if value.ndim}


def test_a_projector_of_another_shape_is_refused(tmp_path: Path) -> None:
    _, visual, _ = make_seeing(n_tokens=2)
    save_visual(visual, tmp_path)
    _, other, _ = make_seeing(n_tokens=1)
    with pytest.raises(ModelError, match="visual tokens asked for"):
        load_visual(other, tmp_path, vectors())


def test_vectors_of_another_encoder_are_refused() -> None:
    _, visual, _ = make_seeing()
    with pytest.raises(ModelError, match="vectors of 9 numbers"):
        visual.show(np.zeros((3, 4), np.float32))


def test_an_item_without_a_vector_has_no_place_in_a_prompt() -> None:
    pictures = picture_ids(2, vectors())
    assert pictures is not None
    assert pictures.shown(BLIND) == []
    assert pictures.shown(3) == [-7, -8]
    assert pictures.foretold(BLIND) == -1 - 2 * N_ITEMS


def test_there_are_no_ids_where_there_is_nothing_to_see() -> None:
    assert picture_ids(0, vectors()) is None
    assert picture_ids(2, None) is None
    assert picture_ids(2, np.full((3, 4), np.nan, np.float32)) is None
