import math
from pathlib import Path

import pytest

from mmrec_bench.errors import ConfigError
from mmrec_plugins.models.openai_chat.prices import PicturePrice, find_prices
from tests.plugins.openai_chat.making import prices


def test_cost_follows_the_table() -> None:
    known = find_prices("gpt-4o", "openai", None)
    # 2.5 and 10 dollars a million, cached input 1.25
    assert known.cost(1_000_000, 0, 100_000, batch=False) == pytest.approx(2.5 + 1.0)
    assert known.cost(1_000_000, 400_000, 0, batch=False) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25)
    assert known.cost(1_000_000, 0, 100_000, batch=True) == pytest.approx(3.5 / 2)
    assert known.date
    assert known.source.startswith("https://")


def test_a_dated_snapshot_has_its_models_price_unless_it_has_its_own() -> None:
    assert find_prices("gpt-4o-2024-08-06", "openai", None).cost(10**6, 0, 0, batch=False) == 2.5
    assert find_prices("gpt-4o-2024-05-13", "openai", None).cost(10**6, 0, 0, batch=False) == 5.0


@pytest.mark.parametrize(
    ("model", "provider"),
    [("gpt-99", "openai"), ("gpt-4o-search", "openai"), ("gpt-4o", "compatible")],
)
def test_an_unknown_price_is_not_zero(model: str, provider: str) -> None:
    assert math.isnan(find_prices(model, provider, None).cost(1, 0, 1, batch=False))


def test_a_table_of_ones_own_counts_for_any_server(tmp_path: Path) -> None:
    known = find_prices("toy", "compatible", prices(tmp_path))
    assert known.cost(100, 50, 10, batch=False) == pytest.approx(0.05 + 0.025 + 0.1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "is not a table of prices"),
        ("date: x\nsource: y\ncurrency: EUR\nmodels: {}", "costs are counted in USD"),
        ("date: x\nsource: y\ncurrency: USD\nmodels: {m: {input: -1, output: 1}}", "models.m.inpu"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        find_prices("m", "openai", path)
    with pytest.raises(ConfigError, match="cannot read"):
        find_prices("m", "openai", tmp_path / "missing.yaml")


def test_pictures_count_by_tiles_or_patches() -> None:
    tiles = PicturePrice(base=85, tile=170)
    assert tiles.tokens(512, 300, low=True) == 85
    assert tiles.tokens(512, 300, low=False) == 255
    assert tiles.tokens(1024, 1024, low=False) == 85 + 4 * 170
    assert PicturePrice(patch=1.62).tokens(64, 33, low=False) == 7  # 4 patches
