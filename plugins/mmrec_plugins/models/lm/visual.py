"""Soft visual tokens: pictures as embeddings in the prompt, and as entries that can be foretold.

A picture is a vector of a frozen image encoder. A trained projector turns it into n embeddings,
which stand in the prompt where the instruction shows the picture, as in Frozen (Tsimpoukelli et
al., NeurIPS 2021) and LLaVA (Liu et al., NeurIPS 2023); the language model stays frozen.

Where the candidates are not listed in the prompt, they are judged by how likely they are as its
continuation, and their pictures must count there too. As in FROMAGe (Koh, Salakhutdinov and Fried,
ICML 2023) a picture is an entry of an open vocabulary, whose logit is an energy between the model's
last hidden states and a projection of the picture. A candidate c with the picture v scores

    log p(title of c | prompt) + energy,    energy = h_end . o(v) + g * mean_j(h_j) . e(v) / |e(v)|

with h_end the state at the prompt's end, h_j those at the soft tokens of the pictures that the
prompt shows, e(v) the candidate's own soft token (the tied projection) and o(v) an output
projection that starts at 0. It is log p(title, picture | prompt) up to a constant of the prompt, if
title and picture are independent of one another given the prompt. The ranking loss normalises the
scores over the candidates and trains both projections through the frozen model.

The first term is FROMAGe's. The second is ours, after late interaction (ColBERT: Khattab and
Zaharia, SIGIR 2020) and copying from what was read (pointer networks: See et al., ACL 2017): on
the embedded sample the first alone learnt nothing of use in some hundred steps. So is the length
of a soft token ours: it is that of the states that the model's own layers write, since one as short
as a token embedding is drowned by them (by a factor of hundreds in the micro backbone).

Token ids carry pictures as negative numbers: -1 - (item * n + slot). So a list of ids remains a
list of ids through padding, trees and batches; `embed` is where it becomes embeddings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmrec_bench.errors import ModelError
from mmrec_bench.files import atomic_write
from mmrec_bench.types import BoolArray, FloatArray
from mmrec_plugins.models.item_vectors import have_vectors
from mmrec_plugins.models.tensors import read_tensors, take_rows

VISUAL_FILE = "visual_tokens.safetensors"

ATTRIBUTE = "visual_tokens"
"""Where a transformers model holds the projector: it travels and trains with the model."""


# The second term of the energy lies between minus and plus this before training: some nats, like
# the likelihoods of titles beside it.
_SHARPNESS = 5.0


@dataclass(frozen=True)
class PictureIds:
    """Which items have a picture that the model can see, and the ids that stand for it.

    Attributes:
        n_tokens: n, embeddings of one picture.
        seen: (N,) bool.
    """

    n_tokens: int
    seen: BoolArray

    def shown(self, item: int) -> list[int]:
        """Return the n ids of an item's picture in a prompt; [] where it has none."""
        if not self.seen[item]:
            return []
        first = item * self.n_tokens
        return [-1 - at for at in range(first, first + self.n_tokens)]

    def foretold(self, item: int) -> int:
        """Return the id of an item's picture in an answer; one id for all that have none."""
        return -1 - (item if self.seen[item] else len(self.seen)) * self.n_tokens


def picture_ids(n_tokens: int, vectors: FloatArray | None) -> PictureIds | None:
    """Return the ids of a catalog's pictures; None where the model shall see, or has, none."""
    if not n_tokens or vectors is None:
        return None
    seen = have_vectors(vectors)
    return PictureIds(n_tokens, seen) if seen.any() else None


class VisualTokens(nn.Module):
    """Projects pictures into a language model's input embeddings and its last hidden state.

    Vectors are standardised by the mean and deviation of the catalog that the projector was trained
    on, scaled to length sqrt(D), and projected to a normalised code of R numbers; from the code
    come n embeddings of one length, and one vector for the last hidden state. All in fp32, whatever
    the backbone's dtype.
    """

    mean: Tensor
    deviation: Tensor
    length: Tensor
    vectors: Tensor
    known: Tensor

    def __init__(
        self, width: int, hidden_size: int, *, n_tokens: int, code_size: int, dropout: float
    ) -> None:
        """Make a projector with untrained weights.

        Args:
            width: D, numbers of an encoder's vector.
            hidden_size: H, of the language model.
            n_tokens: n, embeddings of one picture.
            code_size: R.
            dropout: on the code, while training.
        """
        super().__init__()
        self.n_tokens = n_tokens
        self.dropout = dropout
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("length", torch.ones(()))
        # The catalog's vectors are its own, not the adapter's: they are not saved.
        self.register_buffer("vectors", torch.zeros(0, width), persistent=False)
        self.register_buffer("known", torch.zeros(0, dtype=torch.bool), persistent=False)
        self.encode = nn.Linear(width, code_size)
        self.embed = nn.Linear(code_size, n_tokens * hidden_size)
        self.foretell = nn.Linear(code_size, hidden_size)
        nn.init.zeros_(self.foretell.weight)
        nn.init.zeros_(self.foretell.bias)
        self.closeness = nn.Parameter(torch.ones(()))
        self.without = nn.Parameter(torch.zeros(2, hidden_size))

    def learn_scale(self, vectors: FloatArray, length: float) -> None:
        """Set mean and deviation from (N, D) vectors, and the length of the embeddings."""
        rows = vectors[have_vectors(vectors)].astype(np.float64)
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
            self.deviation.copy_(torch.from_numpy(np.maximum(rows.std(axis=0), 1e-6)))
            self.length.fill_(length)

    def show(self, vectors: FloatArray) -> None:
        """Take the pictures of a catalog; NaN rows have none.

        Raises:
            ModelError: vectors of another width than the projector's.
        """
        width = len(self.mean)
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise ModelError(
                f"the visual tokens were made for vectors of {width} numbers, but the encoder "
                f"gives {vectors.shape}; use the encoder that they were tuned with"
            )
        device = self.mean.device
        known = have_vectors(vectors)
        self.known = torch.from_numpy(known).to(device)
        raw = torch.from_numpy(np.where(known[:, None], vectors, 0).astype(np.float32)).to(device)
        scaled = (raw - self.mean) / self.deviation
        self.vectors = nn.functional.normalize(scaled, dim=1) * math.sqrt(width)

    def codes(self, items: Tensor) -> Tensor:
        """(m,) item numbers -> (m, R)."""
        code = self.encode(self.vectors[items])
        code = nn.functional.layer_norm(code, code.shape[-1:])
        return nn.functional.dropout(code, self.dropout, training=self.training)

    def embeddings(self, ids: Tensor) -> Tensor:
        """(m,) negative ids -> (m, H) fp32."""
        items, places = torch.unique((-1 - ids) // self.n_tokens, return_inverse=True)
        soft = self.directions(self.codes(items)) * self.length  # (items, n, H)
        at = places * self.n_tokens + (-1 - ids) % self.n_tokens
        return take_rows(soft.flatten(0, 1), at)

    def read(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Return (B, 2, H) fp32 states: at the prompt's end, and the mean over its pictures.

        The second is 0 where the prompt shows none.

        Args:
            hidden: (B, P, H) last hidden states of prompts, padded on the left.
            ids: (B, P) their ids.
        """
        shown = (ids < 0).float()[..., None]
        pictures = (hidden.float() * shown).sum(1) / shown.sum(1).clamp(min=1)
        return torch.stack([hidden[:, -1].float(), pictures], dim=1)

    def energies(self, states: Tensor, ids: Tensor) -> Tensor:
        """Return how well pictures fit: (m, 2, H) states and (m,) ids -> (m,) fp32."""
        items, places = torch.unique((-1 - ids) // self.n_tokens, return_inverse=True)
        n_items = len(self.known)
        codes = self.codes(items.clamp(max=n_items - 1))
        tied = self.closeness * self.directions(codes).mean(1)
        entries = torch.stack([self.foretell(codes), tied], dim=1)  # (items, 2, H)
        entries = torch.where((items < n_items)[:, None, None], entries, self.without)
        return (states * take_rows(entries, places)).sum((-2, -1))

    def directions(self, codes: Tensor) -> Tensor:
        """(m, R) codes -> (m, n, H) of length 1: where a picture's soft tokens point."""
        soft = self.embed(codes).view(len(codes), self.n_tokens, -1)
        return nn.functional.normalize(soft, dim=-1)


def attach_visual(
    base: PreTrainedModel,
    vectors: FloatArray,
    *,
    n_tokens: int,
    code_size: int,
    dropout: float,
    seed: int,
    prompt_ids: Sequence[int] = (),
) -> VisualTokens:
    """Give a language model a projector for pictures and show it a catalog's.

    Args:
        base: a transformers causal model, without PEFT's wrapper, which may be around it already.
        vectors: (N, D) float32, NaN rows = no picture.
        n_tokens: n, embeddings of one picture.
        code_size: R.
        dropout: on the code, while training.
        seed: of the weights.
        prompt_ids: a text by which the soft tokens' length is measured; () = the length is about to
            be read from a file.
    """
    embeddings = base.get_input_embeddings().weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        visual = VisualTokens(
            vectors.shape[1],
            embeddings.shape[1],
            n_tokens=n_tokens,
            code_size=code_size,
            dropout=dropout,
        )
    written, last = state_lengths(base, prompt_ids) if len(prompt_ids) else (1.0, 1.0)
    visual.learn_scale(vectors, written)
    with torch.no_grad():
        visual.closeness.fill_(_SHARPNESS / last)
    visual.to(embeddings.device)
    visual.show(vectors)
    setattr(base, ATTRIBUTE, visual)
    return visual


def state_lengths(base: PreTrainedModel, prompt_ids: Sequence[int]) -> tuple[float, float]:
    """Return the median length, over a prompt's tokens, of what the last layer reads and writes."""
    training = base.training
    base.eval()
    with torch.no_grad():
        tokens = torch.tensor([list(prompt_ids)], device=base.get_input_embeddings().weight.device)
        states = base(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states
    base.train(training)
    lengths = [float(state[0].float().norm(dim=-1).median()) for state in states[-2:]]
    return lengths[0], lengths[1]


def save_visual(visual: VisualTokens, folder: Path) -> None:
    """Write the projector and its scale, none of the catalog's vectors.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors = {name: value.cpu().contiguous() for name, value in visual.state_dict().items()}
    atomic_write(folder / VISUAL_FILE, save(tensors, metadata={"format": "pt"}))


def load_visual(visual: VisualTokens, folder: Path, vectors: FloatArray) -> None:
    """Fill a projector from `save_visual`'s file and show it the catalog again.

    Raises:
        ModelError: missing, torn, or of another shape.
    """
    state = read_tensors(folder / VISUAL_FILE, visual.state_dict(), "visual tokens")
    visual.load_state_dict(state)
    visual.show(vectors)
