"""Answers written in batches are, token for token, those of one prompt at a time."""

import numpy as np
import pytest

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm.scoring import generate
from tests.plugins.lm.random_models import (
    ADAPTERS,
    FAMILIES,
    make_model,
    naive_answer,
    random_tokens,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = (19, 3, 8, 8, 1, 30)


@pytest.fixture
def prompts() -> list[list[int]]:
    rng = np.random.default_rng(2)
    return [random_tokens(rng, length) for length in LENGTHS]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_writes_what_each_prompt_alone_gets(
    family: str, adapter: str, prompts: list[list[int]]
) -> None:
    model = make_model(family, adapter)
    expected = [naive_answer(model, prompt, set(), 12) for prompt in prompts]
    found = generate(model, prompts, eos_id=-1, pad_id=0, max_new_tokens=12)
    assert found == expected


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_rows_that_ended_leave_the_others_alone(adapter: str, prompts: list[list[int]]) -> None:
    model = make_model("glm", adapter)
    free = [naive_answer(model, prompt, set(), 12) for prompt in prompts]
    # Tokens that end some rows early, each at another step.
    stops = {free[0][2], free[3][5], free[5][0]}
    expected = [naive_answer(model, prompt, stops, 12) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 2
    found = generate(
        model, prompts, eos_id=sorted(stops), pad_id=0, max_new_tokens=12, prompts_per_batch=6
    )
    assert found == expected


def test_small_batches_write_the_same(prompts: list[list[int]]) -> None:
    model = make_model("glm", "prefix")
    whole = generate(model, prompts, eos_id=2, pad_id=0, max_new_tokens=9)
    for size in (1, 4):
        assert whole == generate(
            model, prompts, eos_id=2, pad_id=0, max_new_tokens=9, prompts_per_batch=size
        )


def test_the_end_token_is_not_returned() -> None:
    model = make_model("glm")
    first = naive_answer(model, [5, 6, 7], set(), 1)[0]
    assert generate(model, [[5, 6, 7]], eos_id=first, pad_id=0, max_new_tokens=5) == [[]]


def test_no_prompts_and_no_new_tokens_give_nothing() -> None:
    model = make_model("glm")
    assert generate(model, [], eos_id=2, pad_id=0, max_new_tokens=5) == []
    assert generate(model, [[5]], eos_id=2, pad_id=0, max_new_tokens=0) == [[]]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ModelError, match="a prompt has no tokens"):
        generate(make_model("glm"), [[5], []], eos_id=2, pad_id=0, max_new_tokens=5)


def test_a_model_in_training_writes_without_dropout(prompts: list[list[int]]) -> None:
    model = make_model("glm", "prefix")
    expected = generate(model, prompts, eos_id=2, pad_id=0, max_new_tokens=6)
    assert generate(model.train(), prompts, eos_id=2, pad_id=0, max_new_tokens=6) == expected
    assert model.training
