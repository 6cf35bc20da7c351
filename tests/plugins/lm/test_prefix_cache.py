import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm.prefix_cache import (
    ReadOnlyCache,
    disable_prefix_checkpointing,
    enable_prefix_checkpointing,
    mask_positions,
)

# PEFT asks for a property of transformers under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "eos_token_id": 2,
}


def backbone(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "glm":
            return GlmForCausalLM(GlmConfig(**SIZES))
        return LlamaForCausalLM(LlamaConfig(**SIZES))


def prefix_tuned(kind: str) -> PeftModel:
    settings = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5)
    model = get_peft_model(backbone(kind), settings)
    weight = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(6)))
    return model


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(3, 96, (batch, length), generator=torch.Generator().manual_seed(7))


def padded_batch() -> dict[str, Tensor]:
    tokens = ids(3, 17)
    mask = torch.ones_like(tokens)
    mask[0, :6] = 0
    mask[1, :11] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    labels[:, :12] = -100
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "position_ids": mask_positions(mask),
        "labels": labels,
    }


def loss_and_gradient(model: PeftModel) -> tuple[Tensor, Tensor]:
    model.train()
    model.zero_grad()
    loss = model(**padded_batch(), use_cache=False).loss
    loss.backward()
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    assert gradient is not None
    return loss.detach(), gradient.clone()


@pytest.mark.parametrize("kind", ["glm", "llama"])
def test_loss_and_gradient_are_those_without_checkpointing(kind: str) -> None:
    model = prefix_tuned(kind)
    loss, gradient = loss_and_gradient(model)
    enable_prefix_checkpointing(model)
    checked_loss, checked_gradient = loss_and_gradient(model)
    assert gradient.abs().max() > 1e-4
    assert (checked_loss - loss).abs() < 1e-6
    assert (checked_gradient - gradient).abs().max() < 1e-6


def test_layers_really_run_again_in_the_backward_pass() -> None:
    model = prefix_tuned("glm")
    enable_prefix_checkpointing(model)
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.input_layernorm.register_forward_hook(count)
    loss_and_gradient(model)
    assert runs == 2 * len(layers)


def test_fewer_activations_are_kept() -> None:
    def kept_bytes(model: PeftModel) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(**padded_batch(), use_cache=False).loss
        del loss
        return sum(sizes.values())

    model = prefix_tuned("glm")
    without = kept_bytes(model)
    enable_prefix_checkpointing(model)
    assert kept_bytes(model) < without / 2


@pytest.mark.parametrize("kind", ["glm", "llama"])
def test_left_padding_gives_the_loss_of_each_text_alone(kind: str) -> None:
    model = prefix_tuned(kind)
    enable_prefix_checkpointing(model)
    model.train()
    batch = padded_batch()
    together = model(**batch, use_cache=False).logits
    for row, start in enumerate([6, 11, 0]):
        alone = model(
            input_ids=batch["input_ids"][row : row + 1, start:],
            attention_mask=batch["attention_mask"][row : row + 1, start:],
            use_cache=False,
        ).logits
        assert (together[row, start:] - alone[0]).abs().max() < 1e-5


def test_generation_in_eval_mode_is_unchanged() -> None:
    model = prefix_tuned("glm").eval()
    tokens = ids(2, 6)
    mask = torch.ones_like(tokens)
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    before = model.generate(input_ids=tokens, attention_mask=mask, **options)
    enable_prefix_checkpointing(model)
    loss_and_gradient(model)
    model.eval()
    after = model.generate(input_ids=tokens, attention_mask=mask, **options)
    assert torch.equal(before, after)


def test_enabling_twice_and_disabling_restore_the_model() -> None:
    model = prefix_tuned("glm")
    loss, gradient = loss_and_gradient(model)
    enable_prefix_checkpointing(model)
    enable_prefix_checkpointing(model)
    assert isinstance(model.get_prompt(1), ReadOnlyCache)
    disable_prefix_checkpointing(model)
    disable_prefix_checkpointing(model)
    assert not isinstance(model.get_prompt(1), ReadOnlyCache)
    again_loss, again_gradient = loss_and_gradient(model)
    assert torch.equal(again_loss, loss)
    assert torch.equal(again_gradient, gradient)


def test_a_read_only_cache_stays_as_it_was() -> None:
    cache = ReadOnlyCache(prefix_tuned("glm").get_prompt(2))
    new = torch.ones(2, 2, 4, 16)
    keys, values = cache.update(new, 2 * new, 1)
    assert keys.shape == values.shape == (2, 2, 9, 16)
    assert torch.equal(keys[:, :, 5:], new)
    assert torch.equal(values[:, :, 5:], 2 * new)
    assert cache.get_seq_length() == 5


def test_another_kind_of_adapter_is_refused() -> None:
    settings = LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=["q_proj"])
    with pytest.raises(ModelError, match="LORA"):
        enable_prefix_checkpointing(get_peft_model(backbone("glm"), settings))


def test_positions_count_real_tokens_only() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    expected = [[0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 0, 0]]
    assert mask_positions(mask).tolist() == expected
