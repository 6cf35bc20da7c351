"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

from mmrec_bench.paths import use_data_root

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is imported
# Tests that run beside each other (`-n auto`) share the processors; libraries read it once, too.
_BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
if _BESIDE > 1:
    _MINE = max(1, len(os.sched_getaffinity(0)) // _BESIDE)
    os.environ.setdefault("OMP_NUM_THREADS", str(_MINE))

_SHARED = Path(os.environ.get("MMREC_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    if not _SHARED.is_dir():
        pytest.skip(f"real data is not at {_SHARED}; set MMREC_TEST_DATA")
    return _SHARED


@pytest.fixture(autouse=True)
def no_data_root_of_another_test() -> None:
    """A run made in this process keeps its `--data-root`; the next test starts without."""
    use_data_root(None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache, data and hub out of every test; one cache for the whole session."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("MMREC_CACHE", str(cache))
    monkeypatch.delenv("MMREC_DATA", raising=False)
    monkeypatch.delenv("MMREC_CHATGLM2", raising=False)
    monkeypatch.setenv("HF_HOME", str(cache / "huggingface"))
    return cache
