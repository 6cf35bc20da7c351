import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GlmForCausalLM

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.checkpoint import (
    OriginalConfig,
    empty_model,
    fill,
    glm_config,
    is_original,
    load_original,
    read_config,
    resolve,
    save_original,
)
from mmrec_plugins.models.chatglm2.original import detect_version
from tests.plugins.chatglm2.making import FORMS, Form, write_checkpoint
from tests.plugins.chatglm2.reference import FULL_SIZE, Reference, Shape, published_shapes

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def reference() -> Reference:
    return Reference(Shape())


def ids(batch: int, length: int, vocab: int = 96) -> torch.Tensor:
    return torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(1))


def furthest(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max())


@pytest.mark.parametrize("form", FORMS)
def test_every_file_form_gives_the_reference_logits(
    tmp_path: Path, reference: Reference, form: Form
) -> None:
    model = load_original(write_checkpoint(tmp_path, reference, form))
    tokens = ids(2, 37)
    expected, _ = reference(tokens)
    assert expected.std() > 0.3  # the tolerance would mean nothing on logits near 0
    assert furthest(model(tokens).logits, expected) < TOLERANCE


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_long_text_gives_the_reference_logits(
    tmp_path: Path, reference: Reference, attention: str
) -> None:
    model = load_original(write_checkpoint(tmp_path, reference), attention=attention)
    tokens = ids(1, 400)
    assert furthest(model(tokens).logits, reference(tokens)[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("THUDM/chatglm2-6b-32k", Shape(rope="positions", rope_ratio=50.0)),
        ("THUDM/chatglm3-6b", Shape()),
        ("THUDM/chatglm3-6b-32k", Shape(rope="base", rope_ratio=50.0)),
        ("codegeex2-6b", Shape(groups=4)),
        ("one-group-narrow-heads", Shape(groups=1, width=8)),
    ],
)
def test_variants_give_the_reference_logits(tmp_path: Path, name: str, shape: Shape) -> None:
    reference = Reference(shape)
    model = load_original(write_checkpoint(tmp_path, reference, name=name))
    tokens = ids(2, 120)
    assert furthest(model(tokens).logits, reference(tokens)[0]) < TOLERANCE


def test_the_two_ways_of_stretching_differ(tmp_path: Path) -> None:
    reference = Reference(Shape(rope="base", rope_ratio=50.0))
    write_checkpoint(tmp_path, reference, name="unknown")
    tokens = ids(1, 64)
    expected, _ = reference(tokens)
    right = load_original(tmp_path, version=3)(tokens).logits
    wrong = load_original(tmp_path, version=2)(tokens).logits
    assert furthest(right, expected) < TOLERANCE
    assert furthest(wrong, expected) > 0.01


def test_left_padding_leaves_real_tokens_as_they_are(tmp_path: Path, reference: Reference) -> None:
    model = load_original(write_checkpoint(tmp_path, reference))
    tokens = ids(3, 21)
    mask = torch.ones(3, 21, dtype=torch.bool)
    mask[0, :9] = False
    mask[1, :20] = False
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    found = model(tokens, attention_mask=mask.long(), position_ids=positions).logits
    expected, _ = reference(tokens, mask)
    assert furthest(found[mask], expected[mask]) < TOLERANCE
    alone, _ = reference(tokens[:1, 9:])
    assert furthest(found[0, 9:], alone[0]) < TOLERANCE


def test_the_cache_gives_the_reference_logits_step_by_step(
    tmp_path: Path, reference: Reference
) -> None:
    model = load_original(write_checkpoint(tmp_path, reference))
    tokens = ids(2, 24)
    cached = model(tokens[:, :10], use_cache=True)
    ours, kept = reference(tokens[:, :10])
    assert furthest(cached.logits, ours) < TOLERANCE
    for at in range(10, 24):
        step = tokens[:, at : at + 1]
        cached = model(step, past_key_values=cached.past_key_values, use_cache=True)
        ours, kept = reference(step, past=kept)
        assert furthest(cached.logits, ours) < TOLERANCE


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_generation_gives_the_reference_tokens(
    tmp_path: Path, reference: Reference, use_cache: bool
) -> None:
    model = load_original(write_checkpoint(tmp_path, reference))
    tokens = ids(2, 12)
    found = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=30,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
    )
    assert torch.equal(found[:, 12:], reference.greedy(tokens, 30))


def test_left_padded_generation_gives_the_reference_tokens(
    tmp_path: Path, reference: Reference
) -> None:
    model = load_original(write_checkpoint(tmp_path, reference))
    tokens = ids(2, 12)
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    found = model.generate(
        tokens, attention_mask=mask, max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    assert torch.equal(found[:1, 12:], reference.greedy(tokens[:1, 5:], 20))
    assert torch.equal(found[1:, 12:], reference.greedy(tokens[1:], 20))


def test_generation_stops_at_the_original_end_token(tmp_path: Path, reference: Reference) -> None:
    model = load_original(write_checkpoint(tmp_path, reference))
    settings = model.generation_config
    assert (settings.pad_token_id, settings.bos_token_id, settings.eos_token_id) == (0, 1, 2)


def test_all_original_tensors_fill_the_whole_model_at_full_size() -> None:
    original = OriginalConfig.model_validate(FULL_SIZE.original_config("THUDM/chatglm2-6b"))
    model = empty_model(glm_config(original, 2), torch.float16, torch.device("cpu"))
    published = published_shapes(FULL_SIZE)
    assert len(published) == 200  # 7 in each of 28 layers, 2 embeddings, the last norm, inv_freq
    handed_out: list[str] = []

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in published.items():
            handed_out.append(name)
            yield name, torch.empty(shape, dtype=torch.float16, device="meta")

    before = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    fill(model, original, tensors(), device=torch.device("meta"), source="published")
    after = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert set(handed_out) == set(published)
    assert after == before
    n_parameters = sum(weight.numel() for weight in model.parameters())
    stored = sum(
        torch.Size(shape).numel() for name, shape in published.items() if "inv_freq" not in name
    )
    assert n_parameters == stored == 6_243_584_000


def test_rotary_frequencies_stay_fp32_in_half_precision(
    tmp_path: Path, reference: Reference
) -> None:
    model = load_original(write_checkpoint(tmp_path, reference), dtype=torch.float16)
    expected = 10000.0 ** -(torch.arange(0, 12, 2) / 12)
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)


def test_a_prefix_encoder_in_the_checkpoint_is_passed_over(
    tmp_path: Path, reference: Reference
) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    state = dict(reference.state_dict())
    state["transformer.prefix_encoder.embedding.weight"] = torch.zeros(8, 288)
    torch.save(state, tmp_path / "pytorch_model.bin")
    tokens = ids(1, 9)
    assert furthest(load_original(tmp_path)(tokens).logits, reference(tokens)[0]) < TOLERANCE


def test_files_from_before_zip_archives_load_too(tmp_path: Path, reference: Reference) -> None:
    write_checkpoint(tmp_path, reference, "bin")
    state = dict(reference.state_dict())
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    tokens = ids(1, 9)
    assert furthest(load_original(tmp_path)(tokens).logits, reference(tokens)[0]) < TOLERANCE


def test_saving_is_the_inverse_of_loading(tmp_path: Path, reference: Reference) -> None:
    first = write_checkpoint(tmp_path / "first", reference)
    model = load_original(first)
    save_original(model, read_config(first), tmp_path / "second")
    again = load_original(tmp_path / "second")
    for (name, left), (_, right) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(left, right), name
    assert read_config(tmp_path / "second").model_dump(exclude={"torch_dtype"}) == read_config(
        first
    ).model_dump(exclude={"torch_dtype"})


def test_saving_writes_the_original_names_and_half_precision(
    tmp_path: Path, reference: Reference
) -> None:
    folder = write_checkpoint(tmp_path / "first", reference)
    model = load_original(folder)
    save_original(model, read_config(folder), tmp_path / "half", dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    expected = published_shapes(Shape())
    del expected["transformer.rotary_pos_emb.inv_freq"]
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == expected
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    config = json.loads((tmp_path / "half" / "config.json").read_text(encoding="utf-8"))
    assert config["torch_dtype"] == "float16"
    assert config["original_rope"] is True  # unknown fields survive


def test_a_model_of_another_shape_is_not_saved(tmp_path: Path) -> None:
    small = OriginalConfig.model_validate(Shape(layers=1).original_config("x"))
    large = OriginalConfig.model_validate(Shape(layers=2).original_config("x"))
    model = GlmForCausalLM(glm_config(small, 2))
    with pytest.raises(ModelError, match=r"no parameter model\.layers\.1"):
        save_original(model, large, tmp_path)
    wide = OriginalConfig.model_validate(Shape(layers=1, inner=64).original_config("x"))
    with pytest.raises(ModelError, match="dense_h_to_4h"):
        save_original(model, wide, tmp_path)


def test_an_original_folder_is_recognised(tmp_path: Path, reference: Reference) -> None:
    assert is_original(write_checkpoint(tmp_path / "a", reference))
    assert not is_original(tmp_path / "nowhere")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text('{"model_type": "glm"}')
    assert not is_original(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text("[")
    assert not is_original(tmp_path / "b")


def _config(**fields: object) -> OriginalConfig:
    return OriginalConfig.model_validate(Shape().original_config("") | fields)


def test_the_version_is_read_from_name_then_tokenizer_then_default(tmp_path: Path) -> None:
    assert detect_version(_config(_name_or_path="THUDM/chatglm3-6b-base")) == 3
    assert detect_version(_config(_name_or_path="THUDM/chatglm2-6b-32k", rope_ratio=50)) == 2
    assert detect_version(_config()) == 2
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "<|{{ message['role'] }}|>"})
    )
    assert detect_version(_config(rope_ratio=50), tmp_path) == 3
    assert detect_version(_config(_name_or_path="THUDM/chatglm3-6b"), override=2) == 2


def test_a_stretched_context_of_unknown_version_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"rope_ratio is 50.*give the version"):
        detect_version(_config(rope_ratio=50))


def test_a_folder_resolves_to_itself(tmp_path: Path) -> None:
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder here nor a hub id"):
        resolve(tmp_path / "nowhere")


_MEASURE = """
import sys
from pathlib import Path
import torch
from mmrec_plugins.models.chatglm2.checkpoint import load_original

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

torch.set_num_threads(1)
load_original(Path(sys.argv[2]))  # warm-up: whatever is imported late
before = status("VmRSS")
model = load_original(Path(sys.argv[1]), dtype=getattr(torch, sys.argv[3]))
weights = sum(weight.nbytes for weight in model.parameters())
print(weights, status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(("form", "dtype"), [("bin", "float32"), ("safetensors", "float16")])
def test_peak_memory_stays_near_the_size_of_the_weights(
    tmp_path: Path, reference: Reference, form: Form, dtype: str
) -> None:
    shape = Shape(vocab=8000, hidden=1024, inner=3072, layers=12, heads=8, groups=2, width=128)
    large = Reference(shape, seed=None).half()
    write_checkpoint(tmp_path / "large", large, form)
    write_checkpoint(tmp_path / "tiny", reference, form)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, tmp_path / "large", tmp_path / "tiny", dtype],
        check=True,
        capture_output=True,
        text=True,
    )
    weights, peak = map(int, done.stdout.split())
    assert weights > 300e6
    # One window of the mapped file, and the largest tensor beyond it.
    assert peak < 1.1 * weights + 128e6
