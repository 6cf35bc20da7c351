"""Layers laid out for oneDNN: the same values, and given back."""

import pytest
import torch
from transformers import T5ForConditionalGeneration

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.p5.decoding import beam_search, encode_sources
from mmrec_plugins.models.p5.likelihood import score_candidates
from mmrec_plugins.models.p5.packing import packed_linears
from mmrec_plugins.models.p5.trie import ItemTrie
from tests.plugins.p5.plain_decoding import END, VARIABLE, sources, tiny_t5


@pytest.fixture(scope="module", params=[False, True], ids=["T5", "T5 v1.1"])
def model(request: pytest.FixtureRequest) -> T5ForConditionalGeneration:
    return tiny_t5(v1_1=request.param)


def test_packed_layers_find_the_same_and_are_given_back(model: T5ForConditionalGeneration) -> None:
    inputs = sources(4, 8)
    trie = ItemTrie.build(VARIABLE, END)
    plain = beam_search(encode_sources(model, *inputs), trie, beams=5)
    with packed_linears(model):
        packed = any("forward" in vars(module) for module in model.modules())
        found = beam_search(encode_sources(model, *inputs), trie, beams=5)
    assert packed == torch._C._has_mkldnn
    assert found.items.tolist() == plain.items.tolist()
    torch.testing.assert_close(found.scores, plain.scores, atol=1e-5, rtol=0)
    assert not any("forward" in vars(module) for module in model.modules())


def test_packed_layers_are_given_back_after_an_error() -> None:
    model = tiny_t5()
    with pytest.raises(ModelError), packed_linears(model):
        encode_sources(model)
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad():
        model.lm_head.weight.zero_()
    read = encode_sources(model, *sources(1, 5))
    score = score_candidates(read, ItemTrie.build([[5]]), torch.tensor([[0]]))
    torch.testing.assert_close(score, torch.tensor([[1 / 60]]).log())


def test_the_relu_within_the_product_gives_the_layers_values() -> None:
    dense = tiny_t5().decoder.block[0].layer[2].DenseReluDense
    states = torch.randn(3, 5, 16)
    with torch.no_grad():
        expected = dense(states)
        with packed_linears(dense):
            found = dense(states)
    torch.testing.assert_close(found, expected)
    assert not any("forward" in vars(module) for module in dense.modules())


@pytest.mark.parametrize("name", ["wi", "act"])
def test_a_hook_within_the_feed_forward_layer_is_called_all_the_same(name: str) -> None:
    dense = tiny_t5().decoder.block[0].layer[2].DenseReluDense
    called: list[str] = []
    getattr(dense, name).register_forward_hook(lambda *_: called.append(name))
    with torch.no_grad(), packed_linears(dense):
        dense(torch.randn(3, 5, 16))
    assert called == [name]
