"""Write checkpoints in the original layout, as each of the published file forms."""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.plugins.chatglm2.reference import Reference

Form = Literal["bin", "bin-shards", "safetensors", "safetensors-shards"]
FORMS: tuple[Form, ...] = ("bin", "bin-shards", "safetensors", "safetensors-shards")


def write_checkpoint(
    folder: Path, model: Reference, form: Form = "bin-shards", *, name: str = "chatglm2-tiny"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = model.shape.original_config(name)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_weights(folder, dict(model.state_dict()), form)
    return folder


def write_weights(folder: Path, state: dict[str, Tensor], form: Form, shards: int = 3) -> None:
    kind, _, sharded = form.partition("-")
    stem, suffix = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
    names = list(state)
    groups = [names[at::shards] for at in range(shards)] if sharded else [names]
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = f"{stem}.{suffix}"
        if sharded:
            file = f"{stem}-{number:05d}-of-{shards:05d}.{suffix}"
        part = {name: state[name].contiguous() for name in group}
        if kind == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file)
        weight_map |= dict.fromkeys(group, file)
    if sharded:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
