from pathlib import Path

import pytest

from tests.core.report.toys import report, run, write_data


@pytest.fixture(scope="package")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and results/ of two models, one with two seeds."""
    folder = tmp_path_factory.mktemp("toy")
    root = write_data(folder / "data")
    run(root, folder / "results", "popularity")
    run(root, folder / "results", "random")
    run(root, folder / "results", "random", "--seed", "1")
    return folder


@pytest.fixture(scope="package")
def site(toy: Path) -> Path:
    """The report of the toy runs."""
    done = report(toy / "results", "-o", toy / "site", "--title", "Toys & <b>more</b>")
    assert done.exit_code == 0, done.output
    return toy / "site"
