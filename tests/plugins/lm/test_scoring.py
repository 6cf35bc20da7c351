"""Scores of answers behind a shared prompt equal those of one plain forward pass an answer."""

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import nn
from transformers import MambaConfig, MambaForCausalLM

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm import scoring
from mmrec_plugins.models.lm.prefill import Prefilled, extend, length_batches
from mmrec_plugins.models.lm.scoring import ScoringRequest, score_answers, score_labels
from tests.plugins.lm.random_models import (
    ADAPTERS,
    FAMILIES,
    make_model,
    naive_scores,
    random_request,
    random_tokens,
)

TOLERANCE = 1e-4

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def check(model: nn.Module, requests: list[ScoringRequest], **options: int) -> None:
    found = score_answers(model, requests, pad_id=0, **options)
    assert len(found) == len(requests)
    for scores, request in zip(found, requests, strict=True):
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, naive_scores(model, request), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_scores_equal_one_pass_an_answer(
    family: str, adapter: str, rng: np.random.Generator
) -> None:
    check(make_model(family, adapter), [random_request(rng, 23, 9)])


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_prompts_of_different_lengths_share_a_batch(adapter: str, rng: np.random.Generator) -> None:
    requests = [random_request(rng, length, 4) for length in (31, 2, 17, 1, 17)]
    check(make_model("glm", adapter), requests, prompts_per_batch=5)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_hundred_answers_in_one_row_and_in_chunks(adapter: str, rng: np.random.Generator) -> None:
    model = make_model("llama", adapter)
    request = random_request(rng, 40, 100)
    check(model, [request])
    check(model, [request], candidates_per_row=100)
    check(model, [request], candidates_per_row=7)
    check(model, [request], candidates_per_row=1)


def test_prompts_with_different_numbers_of_answers_share_a_batch(
    rng: np.random.Generator,
) -> None:
    requests = [random_request(rng, 12, n_answers) for n_answers in (1, 30, 2)]
    check(make_model("glm"), requests, prompts_per_batch=3, candidates_per_row=8)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_answers_that_start_alike_and_answers_that_contain_others(
    adapter: str, rng: np.random.Generator
) -> None:
    start = random_tokens(rng, 5)
    longer = [[*start, 4, 5], [*start, 4, 6], [*start, 4]]
    answers = [start, *longer, start[:2], [9], start[:1], start]
    check(make_model("glm", adapter), [ScoringRequest(random_tokens(rng, 15), answers)])


def test_a_token_that_answers_share_is_read_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counting(model: nn.Module, prompts: Prefilled, *rest: torch.Tensor) -> torch.Tensor:
        read.append(rest[0].numel())
        return extend(model, prompts, *rest)

    monkeypatch.setattr(scoring, "extend", counting)
    start = random_tokens(rng, 5)
    answers = [[*start, last] for last in range(10, 40)]
    score_answers(make_model("glm"), [ScoringRequest([7, 8], answers)], pad_id=0)
    assert read == [5]


def test_answers_of_one_token_need_no_second_pass(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(scoring, "extend")
    model = make_model("glm", "prefix")
    check(model, [ScoringRequest(random_tokens(rng, n), [[5], [6], [5]]) for n in (3, 11)])


def test_labels_score_as_answers_of_one_token(rng: np.random.Generator) -> None:
    model = make_model("glm", "prefix")
    prompts = [random_tokens(rng, n) for n in (9, 4)]
    found = score_labels(model, prompts, [[10, 11, 12], [13, 14]], pad_id=0)
    wanted = [
        naive_scores(model, ScoringRequest(prompts[0], [[10], [11], [12]])),
        naive_scores(model, ScoringRequest(prompts[1], [[13], [14]])),
    ]
    for scores, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


def test_probabilities_over_the_whole_vocabulary_sum_to_one(rng: np.random.Generator) -> None:
    model = make_model("glm")
    (scores,) = score_labels(model, [random_tokens(rng, 9)], [range(97)], pad_id=0)
    assert np.exp(scores.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_score_does_not_depend_on_neighbours_or_on_order(
    adapter: str, rng: np.random.Generator
) -> None:
    model = make_model("glm", adapter)
    requests = [random_request(rng, length, 6) for length in (5, 29, 14)]
    alone = [score_answers(model, [request], pad_id=0)[0] for request in requests]
    together = score_answers(model, requests[::-1], pad_id=0, prompts_per_batch=3)[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)
    turned = ScoringRequest(requests[0].prompt_ids, requests[0].answer_ids[::-1])
    np.testing.assert_array_equal(score_answers(model, [turned], pad_id=0)[0][::-1], alone[0])


@pytest.mark.parametrize("pad_id", [0, 2, 50])
def test_padding_with_a_real_token_changes_nothing(pad_id: int, rng: np.random.Generator) -> None:
    model = make_model("glm", "prefix")
    requests = [random_request(rng, length, 5) for length in (20, 3)]
    for scores, request in zip(
        score_answers(model, requests, pad_id=pad_id), requests, strict=True
    ):
        np.testing.assert_allclose(scores, naive_scores(model, request), rtol=0, atol=TOLERANCE)


def test_eager_attention_gives_the_same(rng: np.random.Generator) -> None:
    requests = [random_request(rng, length, 5) for length in (20, 3)]
    check(make_model("glm", "prefix", attention="eager"), requests)


def test_attention_without_free_masks_is_replaced_while_scoring(rng: np.random.Generator) -> None:
    model = make_model("glm")
    request = random_request(rng, 8, 3)
    expected = naive_scores(model, request)
    model.set_attn_implementation("flex_attention")  # type: ignore[operator]
    (scores,) = score_answers(model, [request], pad_id=0)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)
    assert model.config._attn_implementation == "flex_attention"  # type: ignore[union-attr]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_half_precision_is_near(adapter: str, rng: np.random.Generator) -> None:
    model = make_model("glm", adapter)
    requests = [random_request(rng, length, 5) for length in (20, 3)]
    exact = score_answers(model, requests, pad_id=0)
    for scores, expected in zip(
        score_answers(model.to(torch.bfloat16), requests, pad_id=0), exact, strict=True
    ):
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores, expected, rtol=0.1, atol=1)


def test_a_model_in_training_is_scored_without_dropout_and_stays_in_training(
    rng: np.random.Generator,
) -> None:
    model = make_model("glm", "prefix")
    request = random_request(rng, 10, 4)
    expected = naive_scores(model, request)
    model.train()
    model.get_submodule("base_model.model.layers.1").eval()
    modes = [module.training for module in model.modules()]
    (scores,) = score_answers(model, [request], pad_id=0)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("adapter", ["prefix", "lora"])
def test_a_disabled_adapter_is_left_out(adapter: str, rng: np.random.Generator) -> None:
    model = make_model("glm", adapter)
    request = random_request(rng, 10, 4)
    with model.disable_adapter():  # type: ignore[operator]
        (scores,) = score_answers(model, [request], pad_id=0)
    tuned = score_answers(model, [request], pad_id=0)[0]
    np.testing.assert_allclose(
        scores, naive_scores(make_model("glm"), request), rtol=0, atol=TOLERANCE
    )
    assert np.abs(scores - tuned).max() > 0.1


def test_no_requests_and_no_answers_give_nothing() -> None:
    model = make_model("glm")
    assert score_answers(model, [], pad_id=0) == []
    assert [len(row) for row in score_answers(model, [ScoringRequest([5], [])], pad_id=0)] == [0]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ScoringRequest([], [[4]]), "a prompt has no tokens"),
        (ScoringRequest([4], [[4], []]), "an answer has no tokens"),
    ],
)
def test_empty_prompts_and_answers_are_refused(request_: ScoringRequest, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        score_answers(make_model("glm"), [request_], pad_id=0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_that_changes_the_input_is_refused() -> None:
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)
    model = get_peft_model(make_model("glm"), config)
    with pytest.raises(ModelError, match="the adapter is PROMPT_TUNING"):
        score_answers(model, [ScoringRequest([4], [[4]])], pad_id=0)


def test_a_recurrent_backbone_is_refused() -> None:
    config = MambaConfig(vocab_size=97, hidden_size=8, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="does not keep keys and values"):
        score_answers(MambaForCausalLM(config), [ScoringRequest([4], [[4]])], pad_id=0)


def test_a_batch_that_memory_does_not_hold_is_halved(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def small(model: nn.Module, read: Prefilled, *rest: torch.Tensor) -> torch.Tensor:
        if rest[0].numel() > 12:
            raise torch.cuda.OutOfMemoryError
        return extend(model, read, *rest)

    monkeypatch.setattr(scoring, "extend", small)
    check(make_model("glm"), [random_request(rng, 9, 5, longest=4) for _ in range(4)])
    assert "out of memory with 4 prompts" in caplog.text
    long = ScoringRequest(random_tokens(rng, 9), [random_tokens(rng, 20)])
    with pytest.raises(ModelError, match="does not hold a prompt of 9 tokens"):
        score_answers(make_model("glm"), [long], pad_id=0)


def test_batches_cover_all_prompts_once_within_their_limits() -> None:
    lengths = [2, 2, 3, 10, 10, 40]
    assert list(length_batches(lengths, 4, 1)) == [slice(0, 4), slice(4, 6)]
    assert list(length_batches(lengths, None, 20)) == [
        slice(0, 3),
        slice(3, 5),
        slice(5, 6),
    ]
    assert list(length_batches([], None, 20)) == []
