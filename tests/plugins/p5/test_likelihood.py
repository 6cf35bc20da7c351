"""Likelihoods of given items against one pass an item, and the log-sum-exp that they need."""

import pytest
import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from mmrec_plugins.models.p5.decoder import log_partition
from mmrec_plugins.models.p5.decoding import encode_sources
from mmrec_plugins.models.p5.likelihood import Normalise, score_candidates, score_catalog
from mmrec_plugins.models.p5.trie import ItemTrie
from tests.plugins.p5.plain_decoding import (
    END,
    FIXED,
    TRIES,
    VARIABLE,
    Codes,
    allowed_tokens,
    log_likelihood,
    sources,
    tiny_t5,
)

NORMALISE: tuple[Normalise, ...] = ("vocabulary", "allowed")


@pytest.fixture(scope="module", params=[False, True], ids=["T5", "T5 v1.1"])
def model(request: pytest.FixtureRequest) -> T5ForConditionalGeneration:
    return tiny_t5(v1_1=request.param)


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize(("codes", "end"), TRIES)
def test_candidates_score_what_one_pass_an_item_scores(
    model: T5ForConditionalGeneration, codes: Codes, end: int | None, normalise: Normalise
) -> None:
    ids, mask = sources(3, 8)
    # Repeats, no order, and a source that lacks candidates.
    candidates = torch.tensor([[3, 0, 3, 9, 13], [8, 1, -1, 12, -1], [-1, -1, -1, -1, -1]])
    found = score_candidates(
        encode_sources(model, ids, mask),
        ItemTrie.build(codes, end),
        candidates,
        normalise=normalise,
    )
    allowed = allowed_tokens(codes, end) if normalise == "allowed" else None
    for b in range(3):
        for c, item in enumerate(candidates[b].tolist()):
            if item < 0:
                assert found[b, c].isnan()
                continue
            tokens = [*codes[item], *([] if end is None else [end])]
            expected = log_likelihood(model, ids[b], mask[b], tokens, allowed)
            assert float(found[b, c]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("normalise", NORMALISE)
def test_the_catalog_scores_what_its_items_score_as_candidates(
    model: T5ForConditionalGeneration, normalise: Normalise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrec_plugins.models.p5.likelihood._PASS_NODES", 5)
    read = encode_sources(model, *sources(4, 8))
    trie = ItemTrie.build(VARIABLE, END)
    catalog = score_catalog(read, trie, normalise=normalise)
    assert catalog.shape == (4, len(VARIABLE))
    shuffled = torch.stack([torch.randperm(len(VARIABLE)) for _ in range(4)])
    found = score_candidates(read, trie, shuffled, normalise=normalise)
    torch.testing.assert_close(found, catalog.gather(1, shuffled), atol=1e-5, rtol=0)


def test_shares_of_the_allowed_tokens_sum_to_one_over_the_catalog(
    model: T5ForConditionalGeneration,
) -> None:
    read = encode_sources(model, *sources(4, 8))
    catalog = score_catalog(read, ItemTrie.build(VARIABLE, END), normalise="allowed")
    torch.testing.assert_close(catalog.exp().sum(1), torch.ones(4))
    shares = score_catalog(read, ItemTrie.build(VARIABLE, END)).exp().sum(1)
    assert (shares < 0.9).all()


def test_no_candidates_give_no_scores(model: T5ForConditionalGeneration) -> None:
    read = encode_sources(model, *sources(2, 5))
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert score_candidates(read, ItemTrie.build(FIXED), none).shape == (2, 0)


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_partition_of_far_apart_logits_neither_overflows_nor_vanishes(
    scale: float, bias: bool
) -> None:
    model = tiny_t5()
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(60))
    states = scale * torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.lm_head(states).double().logsumexp(-1).float()
        found = log_partition(model, states)
    torch.testing.assert_close(found, expected)


def test_a_start_that_candidates_share_is_read_once() -> None:
    model = tiny_t5()
    rows: list[int] = []
    first = model.decoder.block[0].layer[0].SelfAttention.q
    first.register_forward_hook(lambda *args: rows.append(args[2].shape[1]))
    read = encode_sources(model, *sources(2, 9))
    # 11-21-31, 11-21-... : items of FIXED by their tokens; 5 first tokens, 4 second ones.
    score_candidates(read, ItemTrie.build(FIXED), torch.arange(20).expand(2, -1))
    assert rows == [1, 5, 20]
