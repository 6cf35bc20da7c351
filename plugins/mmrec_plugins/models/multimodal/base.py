"""What the multimodal models share: vectors of the items by modality, and their options.

Letters: U users, N items, V = U + N nodes (users first), B pairs of a batch, D size of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import added, searched
from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import BoolArray
from mmrec_plugins.models.factors import FactorRecommender
from mmrec_plugins.models.graphs import layer_mean
from mmrec_plugins.models.item_vectors import filled, have_vectors
from mmrec_plugins.models.training import TrainingConfig


class MultimodalConfig(TrainingConfig):
    """Options of every multimodal model."""

    embedding_size: int = searched(
        64, choices=[32, 64, 128], ge=1, description="D, numbers in a user's or item's vector"
    )
    centre: bool = Field(
        default=True,
        description="items' vectors less their mean, over their root mean square; false = as given",
    )


class MappedConfig(MultimodalConfig):
    """Options of the models that map an item's vectors into the space of its own one."""

    train_vectors: bool = added(
        default=False,
        description="train the items' vectors too, as the authors' code does; false = as given",
    )


@dataclass(frozen=True)
class Modality:
    """The items' vectors of one modality.

    Attributes:
        vectors: (N, D) float32, finite: an item without a vector has the mean of those with one.
        known: (N,) bool, True = the encoder gave a vector.
        told: (N,) bool on the device, True = the row is not all 0. Through a map without bias yet,
            a row of 0 stays 0, where lengths and cosines have gradients without bound.
    """

    vectors: Tensor
    known: BoolArray
    told: Tensor


class MultimodalRecommender(FactorRecommender):
    """Learns from interactions and from the items' vectors in every modality that the run has.

    An item without a vector gets the mean vector of the items that have one (0 with `centre`), so
    that its score then comes from what its interactions told; in graphs of like items it has no
    neighbour. A modality without any vector is 0 throughout, and then tells nothing.

    A model says what its module is in `create`.
    """

    reads_modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio")
    default_vectors: ClassVar[Mapping[str, str]] = {
        "vectors": "efficientnet",
        "text_vectors": "minilm",
    }

    modalities: dict[str, Modality]

    def build(self, data: TrainingData) -> nn.Module:
        """Take over the vectors, and return the untrained module.

        Raises:
            ModelError: there are no vectors.
        """
        self.know_users(data)
        self.modalities = read_modalities(data, self.device, centre=self.config.centre)
        return self.create(data)

    def create(self, data: TrainingData) -> nn.Module:
        """Return the untrained module; `self.modalities` holds the items' vectors."""
        raise NotImplementedError

    def facts(self) -> dict[str, str | int | float]:
        """Return how many parameters there are, how the fit went, and which items had vectors."""
        known = {f"n_items_with_{name}": int(m.known.sum()) for name, m in self.modalities.items()}
        return {**super().facts(), **known}


class MappedItems(nn.Module):
    """(U, D) users, (N, D) items, and a map for each modality.

    Args:
        n_users: U.
        n_items: N.
        size: D.
        modalities: the items' vectors.
        mapped_size: size of what they are mapped to.
        train_vectors: they are parameters as well.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        size: int,
        modalities: Mapping[str, Modality],
        mapped_size: int,
        *,
        train_vectors: bool,
    ) -> None:
        super().__init__()
        self.maps = nn.ModuleDict(
            {name: projection(m.vectors.shape[1], mapped_size) for name, m in modalities.items()}
        )
        self.users = embedding(n_users, size)
        self.items = embedding(n_items, size)
        given = {name: m.vectors for name, m in modalities.items()}
        self._given = {} if train_vectors else given
        self.trained = nn.ParameterDict(
            {name: vectors.clone() for name, vectors in given.items()} if train_vectors else {}
        )

    def vectors(self, modality: str) -> Tensor:
        """Return the (N, D') vectors that are mapped: as given, or as trained so far."""
        return self.trained[modality] if modality in self.trained else self._given[modality]

    def smoothed(self, adjacency: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
        """Return (U, D) users and (N, D) items: the mean of LightGCN's layers."""
        nodes = layer_mean(adjacency, torch.cat((self.users, self.items)), n_layers)
        return nodes[: len(self.users)], nodes[len(self.users) :]


def read_modalities(
    data: TrainingData, device: torch.device, *, centre: bool
) -> dict[str, Modality]:
    """Return the vectors of `data` by modality, in the order of their names.

    Raises:
        ModelError: there are none, or they are not of these items.
    """
    if not data.modalities:
        raise ModelError(
            "there are no vectors of the items to learn from; name an encoder, e.g. -o "
            "vectors.name=efficientnet"
        )
    found = {}
    for name, vectors in sorted(data.modalities.items()):
        if vectors.ndim != 2 or len(vectors) != data.n_items:
            raise ModelError(
                f"modality {name!r} has vectors of shape {vectors.shape}; expected one row for "
                f"each of {data.n_items} items"
            )
        known = have_vectors(vectors)
        rows = torch.from_numpy(filled(vectors, known, centre=centre)).to(device)
        found[name] = Modality(rows, known, rows.any(dim=1))
    return found


def projection(size_in: int, size_out: int) -> nn.Linear:
    """Return a linear map with weights of Xavier's normal draws and no bias yet."""
    linear = nn.Linear(size_in, size_out)
    nn.init.xavier_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def embedding(n_rows: int, size: int) -> nn.Parameter:
    """Return (n_rows, size) of Xavier's uniform draws."""
    weights = torch.empty(n_rows, size)
    nn.init.xavier_uniform_(weights)
    return nn.Parameter(weights)
