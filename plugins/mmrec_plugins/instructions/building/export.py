"""A corpus in the two forms that LLaMA-Factory reads, with its `dataset_info.json`.

`alpaca` has instruction, output, system and history columns; `sharegpt` a list of turns. Where an
entry shows pictures, each is a `<image>` in the text and a path, in the same order, in the column
`images`; a `<image>` that stands in the data set's own text is written `< image>`.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.files import atomic_write
from mmrec_plugins.instructions.building.outputs import read_folder, read_items
from mmrec_plugins.instructions.corpus import KINDS, CorpusEntry, Turn

Form = Literal["alpaca", "sharegpt"]
Row = dict[str, Any]

_PLACE = "<image>"
_ROLES = {"user": "human", "assistant": "gpt"}
_COLUMNS: Mapping[Form, dict[str, str]] = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
        "images": "images",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "images": "images"},
}


def export(folder: Path, output: Path, form: Form, *, pictures: bool) -> dict[str, int]:
    """Write one file a kind and split, the pictures, and `dataset_info.json`.

    Args:
        folder: of `instructions build`.
        output: made where it is missing; may be LLaMA-Factory's `dataset_dir`.
        form: which form.
        pictures: copy the pictures and name them; without, the text stands alone.

    Returns:
        Data set name -> rows.

    Raises:
        DataFormatError: no corpus is there.
        StorageError: the files cannot be written.
    """
    entries = read_folder(folder)
    shelf = Shelf(read_items(folder), output / "images") if pictures else None
    make: Callable[[CorpusEntry, Shelf | None], Row] = _alpaca if form == "alpaca" else _sharegpt
    info = _known_info(output / "dataset_info.json")
    counts: dict[str, int] = {}
    for kind in KINDS:
        for split in ("train", "validation"):
            own = [entry for entry in entries if (entry.kind, entry.split) == (kind, split)]
            if not own:
                continue
            name = f"{own[0].dataset}-{kind}-{split}"
            rows = [make(entry, shelf) for entry in own]
            text = json.dumps(rows, ensure_ascii=False, indent=1)
            atomic_write(output / f"{name}.json", text.encode())
            info[name] = _info(name, form, rows)
            counts[name] = len(rows)
    atomic_write(
        output / "dataset_info.json", json.dumps(info, ensure_ascii=False, indent=2).encode()
    )
    return counts


class Shelf:
    """Copies of the pictures beside the exported files, named by their content."""

    def __init__(self, items: Mapping[str, Mapping[str, str]], folder: Path) -> None:
        self.items, self.folder = items, folder
        self._kept: dict[str, str | None] = {}

    def path(self, name: str) -> str | None:
        """Return the picture's path below the output folder; None where it cannot be read.

        Raises:
            StorageError: the copy cannot be written.
        """
        if name not in self._kept:
            self._kept[name] = self._copy(self.items.get(name, {}).get("image", ""))
        return self._kept[name]

    def _copy(self, source: str) -> str | None:
        if not source:
            return None
        try:
            mark = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:24]
        except OSError:
            return None
        target = self.folder / f"{mark}{Path(source).suffix.lower()}"
        if not target.exists():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            except OSError as error:
                raise StorageError(f"cannot write {target}: {error.strerror}") from None
        return f"{self.folder.name}/{target.name}"


def _known_info(path: Path) -> dict[str, Any]:
    """Return what a `dataset_info.json` says already; other data sets in it stay.

    Raises:
        ConfigError: the file is there and is not one.
    """
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read, so nothing can be added to it: {error}"
        ) from None
    if not isinstance(info, dict):
        raise ConfigError(f"{path} holds a {type(info).__name__}, expected data set names")
    return info


def _info(name: str, form: Form, rows: Sequence[Row]) -> dict[str, Any]:
    known = {key for row in rows for key in row}
    columns = {role: column for role, column in _COLUMNS[form].items() if column in known}
    return {"file_name": f"{name}.json", "formatting": form, "columns": columns}


def _content(turn: Turn, shelf: Shelf | None, images: list[str]) -> str:
    text = ""
    for part in turn.parts:
        if part.text is not None:
            text += _neutral(part.text)
        elif part.image is not None and shelf is not None and (path := shelf.path(part.image)):
            images.append(path)
            text += _PLACE
    return text


def _neutral(text: str) -> str:
    """Return a text of the data set or a teacher in which nothing asks for a picture."""
    return text.replace(_PLACE, "< image>")


def _alpaca(entry: CorpusEntry, shelf: Shelf | None) -> Row:
    images: list[str] = []
    system, turns = _divided(entry, shelf, images)
    *earlier, question = [text for _, text in turns]
    row: Row = {"instruction": question, "input": "", "output": _neutral(entry.answer)}
    if earlier:
        pairs = zip(earlier[::2], earlier[1::2], strict=True)
        row["history"] = [list(pair) for pair in pairs]
    return _finished(row, system, images, shelf)


def _sharegpt(entry: CorpusEntry, shelf: Shelf | None) -> Row:
    images: list[str] = []
    system, turns = _divided(entry, shelf, images)
    said = [{"from": _ROLES[role], "value": text} for role, text in turns]
    row: Row = {"conversations": [*said, {"from": "gpt", "value": _neutral(entry.answer)}]}
    return _finished(row, system, images, shelf)


def _finished(row: Row, system: str, images: list[str], shelf: Shelf | None) -> Row:
    if system:
        row["system"] = system
    if shelf is not None:
        row["images"] = images
    return row


def _divided(
    entry: CorpusEntry, shelf: Shelf | None, images: list[str]
) -> tuple[str, list[tuple[str, str]]]:
    """Return the system text and the other turns, user and assistant by turns, a user's last."""
    system = "\n".join(
        _content(turn, None, images) for turn in entry.turns if turn.role == "system"
    )
    turns: list[tuple[str, str]] = []
    for turn in entry.turns:
        if turn.role == "system":
            continue
        text = _content(turn, shelf, images)
        if turns and turns[-1][0] == turn.role:
            turns[-1] = (turn.role, f"{turns[-1][1]}\n{text}")
        else:
            turns.append((turn.role, text))
    return system, turns
