import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub.constants
import pytest

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2 import hub
from mmrec_plugins.models.chatglm2.checkpoint import resolve
from tests.plugins.chatglm2.making import Form, write_checkpoint
from tests.plugins.chatglm2.reference import Reference, Shape

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def put_into_cache(cache: Path, form: Form) -> Path:
    repository = cache / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    write_checkpoint(folder, Reference(Shape()), form)
    (folder / "tokenizer.model").write_bytes(b"pieces")
    return folder


@pytest.mark.parametrize("form", ["bin-shards", "safetensors"])
def test_a_complete_copy_in_the_cache_needs_no_network(cache: Path, form: Form) -> None:
    folder = put_into_cache(cache, form)
    assert resolve("owner/tiny").resolve() == folder.resolve()


def test_the_tokenizer_of_a_t5_counts_as_one(cache: Path) -> None:
    folder = put_into_cache(cache, "safetensors")
    (folder / "tokenizer.model").rename(folder / "spiece.model")
    assert resolve("owner/tiny").resolve() == folder.resolve()


@pytest.mark.parametrize(
    "gone", ["tokenizer.model", "config.json", "pytorch_model-00002-of-00003.bin"]
)
def test_an_incomplete_copy_that_cannot_be_completed_is_one_clear_error(
    cache: Path, gone: str
) -> None:
    (put_into_cache(cache, "bin-shards") / gone).unlink()
    with pytest.raises(ModelError, match="owner/tiny is not a folder here, not complete"):
        resolve("owner/tiny")


@pytest.mark.usefixtures("cache")
def test_an_unknown_hub_id_without_network_is_one_clear_error() -> None:
    with pytest.raises(ModelError, match="give the path of a folder") as caught:
        resolve("owner/nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "../x", "owner/", "https://x.y/z"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        resolve(name)


@pytest.mark.parametrize("form", ["bin", "bin-shards", "safetensors", "safetensors-shards"])
def test_only_settings_tokenizer_and_one_form_of_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    write_checkpoint(remote, Reference(Shape()), form)
    if form.startswith("safetensors"):
        write_checkpoint(remote, Reference(Shape()), "bin")
    (remote / "modeling_chatglm.py").write_text("raise SystemExit")
    (remote / "tokenizer.model").write_bytes(b"pieces")

    def copy(
        _name: str,
        *,
        revision: str | None,
        local_files_only: bool = False,
        allow_patterns: list[str] | None = None,
    ) -> str:
        assert revision is None
        if local_files_only:
            raise FileNotFoundError("not cached")
        local.mkdir(exist_ok=True)
        for file in remote.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns or ["*"]):
                shutil.copy(file, local)
        return str(local)

    monkeypatch.setattr(hub, "snapshot_download", copy)
    assert resolve("owner/tiny") == local
    names = {file.name for file in local.iterdir()}
    assert {"config.json", "tokenizer.model"} < names
    kinds = {Path(name).suffix for name in names} - {".json", ".model"}
    assert kinds == ({".bin"} if form.startswith("bin") else {".safetensors"})
