"""Find a checkpoint: a folder as it is, else a Hugging Face hub id, local cache first.

Nothing but settings, tokenizer and weight files is fetched; above all no `*.py`.
"""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.shards import weight_files

_SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_TOKENIZERS = ("tokenizer.model", "tokenizer.json", "vocab.json", "spiece.model")
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
# What the hub client raises: its own errors, and those of the HTTP library beneath it (requests in
# some releases, httpx in others), which is reached through the class that derives from both.
HUB_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    *(
        base
        for base in HfHubHTTPError.__mro__
        if issubclass(base, Exception) and base is not Exception
    ),
)


def resolve(name_or_path: str | Path, *, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint.

    Args:
        name_or_path: a folder, or a hub id such as "THUDM/chatglm2-6b". A complete copy in the
            local hub cache is taken without asking the network.
        revision: branch, tag or commit of a hub id.

    Raises:
        ModelError: neither a folder nor a hub id, or it cannot be had; says what to do.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_path)
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name!r} is neither a folder here nor a hub id of the form owner/name")
    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if not _missing(cached):
            return cached
    except HUB_ERRORS:
        pass  # not in the cache: ask the hub
    try:
        fetched = _download(name, revision)
        # Without a network the client hands out whatever part of it is in the cache.
        reason = _missing(fetched)
        cause: Exception | None = None
    except HUB_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        cause = error
    if not reason:
        return fetched
    raise ModelError(
        f"{name} is not a folder here, not complete in the local hub cache, and cannot be had from "
        f"the hub ({reason}); give the path of a folder that holds it, or connect to the hub"
    ) from cause


def _download(name: str, revision: str | None) -> Path:
    """Fetch the small files, then the weights that they name: never both formats."""
    folder = Path(snapshot_download(name, revision=revision, allow_patterns=_SMALL_FILES))
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).exists():
            wanted = [Path(index).name.replace(".index.json", "").replace(".", "*.")]
            snapshot_download(name, revision=revision, allow_patterns=wanted)
            break
    else:
        for single in ("model.safetensors", "pytorch_model.bin"):
            snapshot_download(name, revision=revision, allow_patterns=[single])
            if (folder / single).exists():
                break
    return folder


def _missing(folder: Path) -> str:
    """Return what a checkpoint's folder lacks, or "" where it is complete."""
    try:
        weight_files(folder)
    except ModelError as error:
        return str(error)
    if not (folder / "config.json").exists():
        return "no config.json"
    if not any((folder / name).exists() for name in _TOKENIZERS):
        return f"none of {', '.join(_TOKENIZERS)}"
    return ""
