"""Fixtures of the language-model tests; each model is small and random."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.plugins.lm.tiny import make_backbone


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random checkpoint in the original ChatGLM2 layout."""
    return make_backbone(tmp_path_factory.mktemp("backbone") / "tiny-chatglm2")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models are fastest on one thread, whatever else the machine does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
