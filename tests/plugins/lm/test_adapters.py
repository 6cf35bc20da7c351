import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.checkpoint import load_original
from mmrec_plugins.models.lm import adapters
from mmrec_plugins.models.lm.encoding import Tokens
from mmrec_plugins.models.lm.losses import answer_loss

IDS = list(range(5, 45))


def prefix(folder: Path, *, seed: int = 0, dropout: float = 0.0, init: str = "normal") -> PeftModel:
    model = load_original(folder)
    return adapters.attach_prefix(
        model, length=6, dropout=dropout, seed=seed, init=init, prompt_ids=IDS
    ).eval()


def lora(folder: Path, *, seed: int = 0) -> PeftModel:
    model = load_original(folder)
    return adapters.attach_lora(model, rank=4, alpha=16, dropout=0.0, seed=seed).eval()


def logits(model: torch.nn.Module, ids: list[int] = IDS) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(input_ids=torch.tensor([ids])).logits
    return output


def disturb(model: PeftModel) -> PeftModel:
    """Give LoRA, which starts as no change at all, an effect."""
    with torch.no_grad():
        for value in adapters.trainable(model).values():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    return model


def test_only_the_prefix_is_trainable_and_it_is_one_fp32_tensor(tiny_backbone: Path) -> None:
    model = load_original(tiny_backbone, dtype=torch.bfloat16)
    wrapped = adapters.attach_prefix(model, length=6, dropout=0.1, seed=0)
    tuned = adapters.trainable(wrapped)
    # V x (2 layers x keys and values x 2 heads x width 8)
    assert [tuple(value.shape) for value in tuned.values()] == [(6, 2 * 2 * 2 * 8)]
    assert {value.dtype for value in tuned.values()} == {torch.float32}


def test_only_lora_matrices_are_trainable(tiny_backbone: Path) -> None:
    tuned = adapters.trainable(lora(tiny_backbone))
    assert tuned
    assert all("lora_" in name for name in tuned)
    assert {name.split(".")[-4] for name in tuned} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_the_seed_decides_the_prefix(tiny_backbone: Path) -> None:
    state = torch.get_rng_state()
    one, two, other = (
        next(iter(adapters.snapshot(prefix(tiny_backbone, seed=seed)).values()))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_prefix_of_a_prompt_equals_the_prompt_before_the_text(tiny_backbone: Path) -> None:
    wrapped = prefix(tiny_backbone, init="prompt")
    plain = load_original(tiny_backbone)
    expected = logits(plain, IDS[:6] + IDS)[:, 6:]
    assert torch.allclose(logits(wrapped), expected, atol=1e-5)


def test_dropout_acts_while_training_only(tiny_backbone: Path) -> None:
    wrapped = prefix(tiny_backbone, dropout=0.5)
    assert torch.equal(logits(wrapped), logits(wrapped))
    wrapped.train()
    assert not torch.equal(logits(wrapped), logits(wrapped))


@pytest.mark.parametrize("make", [prefix, lora])
def test_left_padding_changes_no_loss(make: Callable[..., PeftModel], tiny_backbone: Path) -> None:
    model = disturb(make(tiny_backbone))
    rows = [Tokens(IDS[:9], 2), Tokens(IDS[5:], 4), Tokens(IDS, 3)]
    device = torch.device("cpu")
    with torch.no_grad():
        together = answer_loss(model, rows, device, pad_id=0)
        alone = sum(answer_loss(model, [row], device, pad_id=0) for row in rows)
    assert float(together) == pytest.approx(float(alone), rel=1e-5)


def test_loss_is_that_of_the_answer_alone(tiny_backbone: Path) -> None:
    model = disturb(prefix(tiny_backbone))
    expected = torch.nn.functional.cross_entropy(
        logits(model)[0, -4:-1], torch.tensor(IDS[-3:]), reduction="sum"
    )
    with torch.no_grad():
        found = answer_loss(model, [Tokens(IDS, 3)], torch.device("cpu"), pad_id=0)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("make", [prefix, lora])
def test_gradient_checkpointing_changes_no_gradient(
    make: Callable[..., PeftModel], tiny_backbone: Path
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = disturb(make(tiny_backbone))
        if checkpointing:
            adapters.enable_checkpointing(model)
        model.train()
        loss = answer_loss(model, [Tokens(IDS, 3)], torch.device("cpu"), pad_id=0)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append([value.grad for value in adapters.trainable(model).values()])
        if checkpointing:
            adapters.disable_checkpointing(model)
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain is not None
        assert checkpointed is not None
        assert float(plain.abs().sum()) > 0
        assert torch.allclose(plain, checkpointed, atol=1e-6)


@pytest.mark.parametrize("make", [prefix, lora])
def test_a_saved_adapter_comes_back_exactly_and_alone(
    make: Callable[..., PeftModel], tiny_backbone: Path, tmp_path: Path
) -> None:
    model = disturb(make(tiny_backbone))
    adapters.save_adapter(model, tmp_path, backbone="tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tuned = sum(value.numel() for value in adapters.trainable(model).values())
    stored = load_file(tmp_path / adapters.WEIGHTS_FILE)
    assert sum(value.numel() for value in stored.values()) == tuned
    again = make(tiny_backbone, seed=9)
    adapters.load_adapter(again, tmp_path)
    assert torch.equal(logits(again), logits(model))
    settings = json.loads((tmp_path / adapters.SETTINGS_FILE).read_text())
    assert settings["base_model_name_or_path"] == "tiny"


def test_peft_itself_reads_a_saved_prefix(tiny_backbone: Path, tmp_path: Path) -> None:
    model = prefix(tiny_backbone)
    adapters.save_adapter(model, tmp_path, backbone="tiny")
    with adapters._quiet():
        again = PeftModel.from_pretrained(load_original(tiny_backbone), str(tmp_path)).eval()
    assert torch.allclose(logits(again), logits(model), atol=1e-6)


def test_a_torn_adapter_is_one_clear_error(tiny_backbone: Path, tmp_path: Path) -> None:
    model = prefix(tiny_backbone)
    adapters.save_adapter(model, tmp_path, backbone="tiny")
    path = tmp_path / adapters.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read as an adapter"):
        adapters.load_adapter(model, tmp_path)


def test_an_adapter_of_another_size_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    adapters.save_adapter(prefix(tiny_backbone), tmp_path, backbone="tiny")
    longer = adapters.attach_prefix(load_original(tiny_backbone), length=7, dropout=0.0, seed=0)
    with pytest.raises(ModelError, match=r"\(6, 64\).*\(7, 64\)"):
        adapters.load_adapter(longer, tmp_path)
