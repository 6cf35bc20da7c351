"""A classic run starts without the libraries of the language models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUN = """
import atexit, sys
from mmrec_bench.cli import main
heavy = {"torch", "transformers", "openai", "peft"}
atexit.register(lambda: print("loaded:", sorted(heavy & set(sys.modules))))
main()
"""


@pytest.mark.parametrize("model", ["markov-1", "item-knn-recency", "ease", "bm25", "id-successor"])
def test_a_whole_run_loads_no_torch(model: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(15)[: rng.integers(5, 9)] for _ in range(40)]
    lines = [" ".join([f"u{user}", *(f"i{i}" for i in row)]) for user, row in enumerate(rows)]
    (tmp_path / "toy.txt").write_text("\n".join(lines))
    (tmp_path / "titles.csv").write_text(
        "item,title\n" + "\n".join(f"i{i},thing {i % 4}" for i in range(15))
    )
    options = ["run", "--model", model, "--dataset", "sequences", "--data-root", str(tmp_path)]
    options += ["--results", str(tmp_path / "results"), "-o", "protocol.candidates=full"]
    command = [sys.executable, "-c", RUN, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"
