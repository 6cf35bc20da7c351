"""Fixtures of the tests of the core."""

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small `user item item ...` file."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [f"u{u} " + " ".join(f"i{(u * 3 + j * j) % 17}" for j in range(6)) for u in range(30)]
    (folder / "toy.txt").write_text("\n".join(lines) + "\n")
    return folder
