import os
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import GlmForCausalLM

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.checkpoint import load_original
from mmrec_plugins.models.chatglm2.prefix_import import import_prefix, read_prefix, to_peft
from mmrec_plugins.models.lm.prefix_cache import mask_positions
from tests.plugins.chatglm2.making import write_checkpoint
from tests.plugins.chatglm2.reference import Reference, Shape

# PEFT asks for a property of transformers under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

TOLERANCE = 1e-4
V = 7
NAME = "transformer.prefix_encoder.embedding.weight"
SHAPES = {
    "THUDM/chatglm2-6b": Shape(),
    "THUDM/chatglm2-6b-32k": Shape(rope="positions", rope_ratio=50.0),
    "THUDM/chatglm3-6b-32k": Shape(rope="base", rope_ratio=50.0),
}


def columns(shape: Shape) -> int:
    return shape.layers * 2 * shape.groups * shape.width


def random_prefix(shape: Shape) -> Tensor:
    return torch.randn(V, columns(shape), generator=torch.Generator().manual_seed(3))


def for_reference(prefix: Tensor, shape: Shape) -> Tensor:
    return prefix.reshape(V, shape.layers, 2, shape.groups, shape.width)


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 96, (batch, length), generator=torch.Generator().manual_seed(4))


def furthest(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


@pytest.fixture
def reference() -> Reference:
    return Reference(Shape())


@pytest.fixture
def model(tmp_path: Path, reference: Reference) -> GlmForCausalLM:
    return load_original(write_checkpoint(tmp_path / "backbone", reference))


@pytest.fixture
def imported(tmp_path: Path, model: GlmForCausalLM) -> PeftModel:
    folder = tmp_path / "checkpoint-3000"
    folder.mkdir()
    torch.save({NAME: random_prefix(Shape())}, folder / "pytorch_model.bin")
    return import_prefix(model, folder).eval()


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_an_imported_prefix_gives_the_reference_logits(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    reference = Reference(shape)
    model = load_original(write_checkpoint(tmp_path / "backbone", reference, name=name))
    prefix = random_prefix(shape)
    torch.save({NAME: prefix}, tmp_path / "pytorch_model.bin")
    wrapped = import_prefix(model, tmp_path / "pytorch_model.bin").eval()
    tokens = ids(2, 33)
    expected, _ = reference(tokens, prefix=for_reference(prefix, shape))
    without, _ = reference(tokens)
    assert furthest(expected, without) > 0.1  # the prefix matters
    found = wrapped(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    assert furthest(found, expected) < TOLERANCE


@torch.no_grad()
def test_a_raw_copy_of_the_prefix_would_be_wrong(imported: PeftModel, reference: Reference) -> None:
    prefix = random_prefix(Shape())
    imported.prompt_encoder["default"].load_prompt_embeddings(prefix)
    tokens = ids(1, 20)
    expected, _ = reference(tokens, prefix=for_reference(prefix, Shape()))
    found = imported(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    assert furthest(found, expected) > 0.01


@torch.no_grad()
def test_left_padding_behind_an_imported_prefix_gives_the_reference_logits(
    imported: PeftModel, reference: Reference
) -> None:
    tokens = ids(2, 15)
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[0, :6] = False
    found = imported(
        input_ids=tokens, attention_mask=mask.long(), position_ids=mask_positions(mask)
    ).logits
    expected, _ = reference(tokens, mask, prefix=for_reference(random_prefix(Shape()), Shape()))
    assert furthest(found[mask], expected[mask]) < TOLERANCE


@torch.no_grad()
def test_greedy_generation_behind_an_imported_prefix_gives_the_reference_tokens(
    imported: PeftModel, reference: Reference
) -> None:
    tokens = ids(2, 8)
    found = imported.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
    )
    prefix = for_reference(random_prefix(Shape()), Shape())
    assert torch.equal(found[:, 8:], reference.greedy(tokens, 20, prefix=prefix))


def test_only_the_prefix_is_trainable_and_has_the_original_size(imported: PeftModel) -> None:
    trainable, _ = imported.get_nb_trainable_parameters()
    assert trainable == V * columns(Shape())


@torch.no_grad()
def test_an_imported_prefix_survives_saving(tmp_path: Path, imported: PeftModel) -> None:
    imported.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    tokens = ids(1, 11)
    mask = torch.ones_like(tokens)
    before = imported(input_ids=tokens, attention_mask=mask).logits
    base = load_original(tmp_path / "backbone")
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.equal(again(input_ids=tokens, attention_mask=mask).logits, before)


@torch.no_grad()
def test_a_projected_prefix_is_flattened(tmp_path: Path, model: GlmForCausalLM) -> None:
    size, hidden = columns(Shape()), 64
    generator = torch.Generator().manual_seed(5)
    embedding = torch.nn.Embedding(V, size)
    trans = torch.nn.Sequential(
        torch.nn.Linear(size, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, size)
    )
    for weight in [*embedding.parameters(), *trans.parameters()]:
        weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    state = {NAME: embedding.weight.data} | {
        f"transformer.prefix_encoder.trans.{name}": weight.data
        for name, weight in trans.named_parameters()
    }
    save_file(state, tmp_path / "model.safetensors")
    expected = trans(embedding.weight)
    assert furthest(read_prefix(tmp_path / "model.safetensors"), expected) < 1e-6
    wrapped = import_prefix(model, tmp_path / "model.safetensors")
    assert (
        furthest(wrapped.prompt_encoder["default"].embedding.weight, to_peft(expected, model))
        < 1e-5
    )


def test_half_precision_files_and_bare_names_are_read(tmp_path: Path) -> None:
    prefix = random_prefix(Shape()).half()
    torch.save({"embedding.weight": prefix}, tmp_path / "prefix.bin")
    read = read_prefix(tmp_path / "prefix.bin")
    assert read.dtype == torch.float32
    assert torch.equal(read, prefix.float())


def test_a_prefix_for_another_backbone_is_refused(tmp_path: Path, model: GlmForCausalLM) -> None:
    torch.save({NAME: torch.zeros(V, 100)}, tmp_path / "prefix.bin")
    with pytest.raises(ModelError, match=r"\(7, 100\).*needs \(V, 288\)"):
        import_prefix(model, tmp_path / "prefix.bin")


def test_a_checkpoint_without_a_prefix_is_refused(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(3)}, tmp_path / "prefix.bin")
    with pytest.raises(ModelError, match="not a P-tuning v2 checkpoint"):
        read_prefix(tmp_path / "prefix.bin")


def test_half_a_projection_is_refused(tmp_path: Path) -> None:
    state = {
        NAME: torch.zeros(V, 4),
        "transformer.prefix_encoder.trans.0.weight": torch.zeros(4, 4),
    }
    torch.save(state, tmp_path / "prefix.bin")
    with pytest.raises(ModelError, match=r"only trans\.0\.weight is there"):
        read_prefix(tmp_path / "prefix.bin")


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_malicious_prefix_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    state = {NAME: torch.zeros(V, 4), "bomb": _Bomb(tmp_path / "ran")}
    torch.save(state, tmp_path / "prefix.bin")
    with pytest.raises(ModelError, match="is refused"):
        read_prefix(tmp_path / "prefix.bin")
    assert not (tmp_path / "ran").exists()


def test_a_missing_prefix_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.bin is missing"):
        read_prefix(tmp_path / "nothing.bin")
