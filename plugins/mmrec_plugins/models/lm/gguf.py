"""Unpack a GGUF file once, into a folder that loads in a second like any other checkpoint.

transformers reads GGUF, but parses the file three times and turns each block of weights in Python,
so that a model of 135 million parameters takes most of a minute on a slow CPU.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    modeling_gguf_pytorch_utils,
)

from mmrec_bench.errors import ModelError
from mmrec_bench.paths import cache_dir

log = logging.getLogger("mmrec_bench")


def unpacked(path: Path) -> Path:
    """Return a folder with the model (fp32 safetensors) and tokenizer of a GGUF file.

    It lies in the cache folder, named by the file's content, and is made when absent.

    Raises:
        ModelError: the reader is not installed, or the cache cannot be written.
        OSError, ValueError, KeyError: the file cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = cache_dir() / "gguf" / f"{path.stem}-{digest[:12]}-{version('transformers')}"
    if target.is_dir():
        return target
    if find_spec("gguf") is None:
        raise ModelError(
            f"{path} needs a reader that is not installed: pip install 'mmrec-bench[gguf]'"
        )
    log.info("unpacking %s into %s, once", path.name, target)
    with _no_bar():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = _plain(
            AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32
            )
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            try:
                Path(folder).rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
            else:
                Path(folder).mkdir()  # for TemporaryDirectory to remove
    except OSError as error:
        raise ModelError(
            f"{path} cannot be unpacked into {target.parent} ({error}); MMREC_CACHE names another "
            "folder"
        ) from error
    return target


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Move unpacked weights into a model that does not count as quantised, and so can be saved."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


@contextmanager
def _no_bar() -> Iterator[None]:
    """Switch the reader's progress bar off; it knows no switch of its own."""
    bar = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = _silent
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar


def _silent(iterable: Iterable[Any], **_: object) -> Iterable[Any]:
    return iterable
