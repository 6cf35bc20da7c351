"""Losses and scores against formulas written out pair by pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec_bench.testing import toy_split, toy_vectors
from mmrec_bench.types import FloatArray, Split
from mmrec_plugins.models.multimodal.base import MultimodalRecommender
from mmrec_plugins.models.multimodal.bm3 import BM3
from mmrec_plugins.models.multimodal.freedom import FREEDOM
from mmrec_plugins.models.multimodal.lattice import LATTICE
from mmrec_plugins.models.multimodal.mmgcn import MMGCN
from mmrec_plugins.models.multimodal.vbpr import VBPR
from mmrec_plugins.models.sampling import Pairs
from tests.plugins.multimodal.making import training

Weights = dict[str, Tensor]


@pytest.fixture
def split() -> Split:
    return toy_split()


def built(
    cls: type[MultimodalRecommender],
    split: Split,
    scratch: Path,
    modalities: dict[str, FloatArray] | None = None,
    /,
    **options: float,
) -> tuple[Any, Weights, Pairs]:
    """Return an untrained model, its weights and a batch."""
    modalities = modalities or {
        "audio": toy_vectors(split.catalog, size=6),
        "image": toy_vectors(split.catalog, size=5, seed=1),
    }
    model = cls(cls.Config.model_validate({"embedding_size": 4, **options}))
    model.device = torch.device("cpu")
    data = training(split, modalities, scratch)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.module = model.build(data)
    model.prepare(data)
    batch = next(iter(model.batches(np.random.default_rng(5))))
    weights = {name: value.detach().double() for name, value in model.module.state_dict().items()}
    return model, weights, batch


def with_biases(model: MultimodalRecommender, weights: Weights) -> None:
    """Give the maps biases, as training does, so that a map of 0 is not 0."""
    for name in weights:
        if name.split(".")[0] in {"maps", "networks"} and name.endswith("bias"):
            weights[name] += torch.linspace(-1, 1, len(weights[name]))
    model.module.load_state_dict(weights)


def features(model: MultimodalRecommender, name: str) -> Tensor:
    return model.modalities[name].vectors.double()


def neighbours(split: Split) -> Tensor:
    """(V, V) of ones, users first."""
    n_users, n_items = len(split.users), len(split.catalog)
    matrix = torch.zeros(n_users + n_items, n_users + n_items, dtype=torch.float64)
    for user, item in zip(split.train.user.tolist(), split.train.item.tolist(), strict=True):
        matrix[user, n_users + item] = matrix[n_users + item, user] = 1
    return matrix


def symmetric(matrix: Tensor) -> Tensor:
    degree = matrix.sum(1)
    scale = torch.where(degree > 0, degree, 1.0) ** -0.5
    return scale[:, None] * matrix * scale


def lightgcn(matrix: Tensor, nodes: Tensor, n_layers: int) -> Tensor:
    layers = [nodes]
    for _ in range(n_layers):
        layers.append(symmetric(matrix) @ layers[-1])
    return sum(layers, torch.zeros_like(nodes)) / len(layers)


def bpr(users: Tensor, items: Tensor, batch: Pairs) -> Tensor:
    losses = [
        -torch.log(torch.sigmoid(users[u] @ items[i] - users[u] @ items[j]))
        for u, i, j in zip(*(column.tolist() for column in batch), strict=True)
    ]
    return torch.stack(losses).mean()


def nearest_graph(vectors: Tensor, known: np.ndarray, k: int, *, binary: bool) -> Tensor:
    unit = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosine = unit @ unit.T
    cosine[:, ~torch.from_numpy(known)] = -9
    matrix = torch.zeros_like(cosine)
    for i in np.flatnonzero(known).tolist():
        for j in sorted(range(len(cosine)), key=lambda j: -float(cosine[i, j]))[:k]:
            matrix[i, j] = 1.0 if binary else max(0.0, float(cosine[i, j]))
    return matrix


def squares(*rows: Tensor) -> Tensor:
    return torch.stack([row.square().sum() for row in rows]).sum()


def agree(model: MultimodalRecommender, batch: Pairs, expected: Tensor) -> None:
    assert model.loss(batch).item() == pytest.approx(float(expected), rel=1e-4)


def test_vbpr(split: Split, tmp_path: Path) -> None:
    options = {"visual_size": 3, "regularisation": 0.3, "visual_regularisation": 0.2}
    model, w, batch = built(VBPR, split, tmp_path, **options)
    w["bias"] += torch.linspace(-1, 1, len(split.catalog))[:, None]
    w["visual_bias"] += torch.linspace(-1, 1, 11)[:, None]
    model.module.load_state_dict(w)
    f = torch.cat((features(model, "audio"), features(model, "image")), dim=1)
    f = f / f.square().sum(1).mean().sqrt()
    gamma, theta = w["users"][:, :4], w["users"][:, 4:]

    def x(u: int, i: int) -> Tensor:
        seen = theta[u] @ (w["map"].T @ f[i]) + w["visual_bias"][:, 0] @ f[i]
        return w["bias"][i, 0] + gamma[u] @ w["items"][i] + seen

    losses = []
    for u, i, j in zip(*(column.tolist() for column in batch), strict=True):
        touched = (w["users"][u], w["items"][i], w["items"][j], w["bias"][i], w["bias"][j])
        losses.append(-torch.log(torch.sigmoid(x(u, i) - x(u, j))) + 0.15 * squares(*touched))
    visual = 0.1 * squares(w["map"], w["visual_bias"])
    agree(model, batch, torch.stack(losses).mean() + visual)
    scores = model.score(split.test.queries).values
    query = split.test.queries[2]
    assert query.candidates is not None
    expected = [float(x(query.user, i)) for i in query.candidates.tolist()]
    np.testing.assert_allclose(scores[2], expected, rtol=1e-4)


def mmgcn_nodes(model: MMGCN, w: Weights, matrix: Tensor) -> Tensor:
    mean = matrix / matrix.sum(1, keepdim=True).clamp_min(1)
    leaky = torch.nn.functional.leaky_relu
    found = []
    for m in ("audio", "image"):
        at = f"networks.{m}."
        items = features(model, m) @ w[at + "map.weight"].T + w[at + "map.bias"]
        items[~model.modalities[m].known] = 0
        x = torch.cat((w[at + "preference"], items))
        x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)
        for layer in range(2):
            one = f"{at}layers.{layer}."
            # The mean of linear maps, bias included, is 0 for a node without neighbours.
            mapped = x @ w[one + "gather.weight"].T + w[one + "gather.bias"]
            h = leaky(mean @ mapped)
            own = leaky(x @ w[one + "own.weight"].T + w[one + "own.bias"]) + w["ids"]
            x = leaky(h @ w[one + "combine.weight"].T + w[one + "combine.bias"] + own)
        found.append(x)
    return (found[0] + found[1]) / 2


def test_mmgcn(split: Split, tmp_path: Path) -> None:
    model, w, batch = built(MMGCN, split, tmp_path, latent_size=3, regularisation=0.4)
    with_biases(model, w)
    nodes = mmgcn_nodes(model, w, neighbours(split))
    n_users = len(split.users)
    penalty = []
    for u, i, j in zip(*(column.tolist() for column in batch), strict=True):
        ids = [w["ids"][u], w["ids"][n_users + i], w["ids"][n_users + j]]
        preferences = [w[f"networks.{m}.preference"][u] for m in ("audio", "image")]
        penalty.append(0.2 * squares(*ids, *preferences))
    expected = bpr(nodes[:n_users], nodes[n_users:], batch) + torch.stack(penalty).mean()
    agree(model, batch, expected)


def lattice_vectors(model: LATTICE, w: Weights, split: Split) -> tuple[Tensor, Tensor]:
    n_users = len(split.users)
    weight = w["modality_weight"].softmax(0)
    given, learned = [], []
    for m in ("audio", "image"):
        known = model.modalities[m].known
        f = features(model, m)
        given.append(symmetric(nearest_graph(f, known, 3, binary=False)))
        mapped = f @ w[f"maps.{m}.weight"].T + w[f"maps.{m}.bias"]
        learned.append(nearest_graph(mapped, known, 3, binary=False))
    graph = 0.7 * (weight[0] * given[0] + weight[1] * given[1])
    graph = graph + 0.3 * symmetric(weight[0] * learned[0] + weight[1] * learned[1])
    h = graph @ (graph @ w["items"])
    nodes = lightgcn(neighbours(split), torch.cat((w["users"], w["items"])), 2)
    h = h / h.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return nodes[:n_users], nodes[n_users:] + h


LATTICE_OPTIONS: dict[str, float] = {"feature_size": 3, "k": 3, "skip": 0.7, "n_item_layers": 2}


def test_lattice(split: Split, tmp_path: Path) -> None:
    model, w, batch = built(LATTICE, split, tmp_path, regularisation=0.4, **LATTICE_OPTIONS)
    w["modality_weight"] += torch.tensor([0.5, -0.5])
    model.module.load_state_dict(w)
    users, items = lattice_vectors(model, w, split)
    penalty = [
        0.2 * squares(users[u], items[i], items[j])
        for u, i, j in zip(*(column.tolist() for column in batch), strict=True)
    ]
    agree(model, batch, bpr(users, items, batch) + torch.stack(penalty).mean())
    np.testing.assert_allclose(model.items().numpy(), items.numpy(), rtol=1e-3, atol=1e-5)


def test_lattice_learns_its_graph_from_the_first_batch_of_an_epoch(
    split: Split, tmp_path: Path
) -> None:
    model, _, batch = built(LATTICE, split, tmp_path, **LATTICE_OPTIONS)
    graph = [model.module.maps["audio"].weight, model.module.modality_weight]

    def learned() -> list[bool]:
        model.module.zero_grad()
        model.loss(batch).backward()
        return [one.grad is not None and bool(one.grad.any()) for one in graph]

    assert learned() == [True, True]
    assert learned() == [False, False]
    next(iter(model.batches(np.random.default_rng(0))))
    assert learned() == [True, True]


def test_bm3(split: Split, tmp_path: Path) -> None:
    options = {"dropout": 0.0, "cl_weight": 1.5, "regularisation": 0.7, "n_layers": 2}
    model, w, batch = built(BM3, split, tmp_path, **options)
    with_biases(model, w)
    n_users, n_items = len(split.users), len(split.catalog)
    nodes = lightgcn(neighbours(split), torch.cat((w["users"], w["items"])), 2)
    users, items = nodes[:n_users], nodes[n_users:] + w["items"]

    def c(a: Tensor, b: Tensor) -> Tensor:
        predicted = w["predictor.weight"] @ a + w["predictor.bias"]
        cosine: Tensor = predicted @ b / predicted.norm() / b.norm()
        return 1 - cosine

    losses = []
    for u, i, _ in zip(*(column.tolist() for column in batch), strict=True):
        loss = c(users[u], items[i]) + c(items[i], users[u])
        for m in ("audio", "image"):
            if model.modalities[m].known[i]:
                e = w[f"maps.{m}.weight"] @ features(model, m)[i] + w[f"maps.{m}.bias"]
                loss = loss + 1.5 * (c(e, items[i]) + c(e, e))
        losses.append(loss)
    norms = 0.7 * (users.norm() + items.norm()) / n_items
    agree(model, batch, torch.stack(losses).mean() + norms)


@pytest.mark.parametrize("cls", [BM3, MMGCN, VBPR, LATTICE, FREEDOM])
@pytest.mark.parametrize("missing", ["some", "all"])
def test_first_gradients_are_small_where_items_have_no_vector(
    cls: type[MultimodalRecommender], missing: str, split: Split, tmp_path: Path
) -> None:
    vectors = toy_vectors(split.catalog, size=6)
    vectors[: len(vectors) // 2 if missing == "some" else None] = np.nan
    model, _, batch = built(cls, split, tmp_path, {"image": vectors})
    model.loss(batch).backward()
    found = {name: one.grad for name, one in model.module.named_parameters()}
    assert max(float(one.abs().max()) for one in found.values() if one is not None) < 100


def test_bm3_targets_have_no_gradient_and_are_dropped_out(split: Split, tmp_path: Path) -> None:
    model, _, _ = built(BM3, split, tmp_path, dropout=0.5)
    view = torch.ones(50, 4, requires_grad=True)
    target = model._target(view)
    assert not target.requires_grad
    assert set(target.unique().tolist()) == {0.0, 2.0}


def test_freedom(split: Split, tmp_path: Path) -> None:
    options = {"dropout": 0.0, "k": 3, "image_weight": 0.2, "feature_weight": 0.6}
    model, w, batch = built(FREEDOM, split, tmp_path, n_item_layers=2, **options)
    n_users = len(split.users)
    graph = torch.zeros(len(split.catalog), len(split.catalog), dtype=torch.float64)
    for m, weight in (("audio", 0.8), ("image", 0.2)):
        known = model.modalities[m].known
        graph += weight * symmetric(nearest_graph(features(model, m), known, 3, binary=True))
    nodes = lightgcn(neighbours(split), torch.cat((w["users"], w["items"])), 2)
    users, items = nodes[:n_users], nodes[n_users:] + graph @ (graph @ w["items"])
    expected = bpr(users, items, batch)
    for m in ("audio", "image"):
        mapped = features(model, m) @ w[f"maps.{m}.weight"].T + w[f"maps.{m}.bias"]
        expected = expected + 0.6 * bpr(users, mapped, batch)
    agree(model, batch, expected)
    np.testing.assert_allclose(model.items().numpy(), items.numpy(), rtol=1e-3, atol=1e-5)


def test_freedom_trains_on_a_part_of_the_graph_and_ranks_by_all_of_it(
    split: Split, tmp_path: Path
) -> None:
    model, _, batch = built(FREEDOM, split, tmp_path, dropout=0.75, k=3)
    n_edges = model._in_epoch.values().numel()
    assert n_edges == 2 * round(0.25 * len(split.train))
    assert model._adjacency.values().numel() == 2 * len(split.train)
    before = model.items().clone()
    list(model.batches(np.random.default_rng(1)))
    model.weights_changed()
    torch.testing.assert_close(model.items(), before)
    assert torch.isfinite(model.loss(batch))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("image",), [1.0]),
        (("audio",), [1.0]),
        (("image", "text"), [0.1, 0.9]),
        (("audio", "image", "text"), [0.45, 0.1, 0.45]),
        (("audio", "text"), [0.5, 0.5]),
    ],
)
def test_freedom_weighs_pictures_and_the_rest(
    names: tuple[str, ...], expected: list[float]
) -> None:
    model: Any = FREEDOM(FREEDOM.Config())
    model.modalities = dict.fromkeys(names)
    assert [model._weight(name) for name in names] == pytest.approx(expected)
