"""Runs for reports: a tiny data set, two plain models and one that answers with its prompt."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mmrec_bench.cli.report import command as report_command
from mmrec_bench.cli.run import command as run_command

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>\u2028'
N_USERS, N_ITEMS = 30, 17

PARROT = """
import numpy as np
from mmrec_bench.config import ComponentConfig
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_bench.types import Answers, Scores

class Parrot:
    '''Says what it was asked, and ranks the candidates as they were shown.'''
    reads_instructions = True
    class Config(ComponentConfig): pass
    def __init__(self, config): pass
    def fit(self, data, *, seed): self.data = data
    def score(self, queries):
        texts = tuple(
            "|".join(m.text for m in self.data.builder.build(q, self.data.catalog).messages)
            for q in queries
        )
        n, width = queries.candidates.shape
        none = np.zeros(n, np.int32)
        values = np.tile(-np.arange(width, dtype=np.float32), (n, 1))
        values[:, -1] = np.nan
        return Scores(values, Answers(texts, ("ok",) * n, none, none + 7, none + 3))
    def save(self, folder): pass
    def restore(self, folder, data): self.data = data

@hookimpl
def mmrec_register_models():
    return [Entry("parrot", f"{__name__}:Parrot", "says what it was asked")]
"""


def write_data(root: Path, *, n_users: int = N_USERS, title: str = HOSTILE) -> Path:
    """Write `user item item ...` lines and titles, the first of which is hostile."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        f"u{u} " + " ".join(f"i{(u * 3 + j * j) % N_ITEMS}" for j in range(6))
        for u in range(n_users)
    ]
    (root / "toy.txt").write_text("\n".join(lines) + "\n")
    with (root / "titles.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "title"])
        for i in range(N_ITEMS):
            writer.writerow([f"i{i}", title if i == 0 else f"Thing {i}"])
    return root


def run(root: Path, results: Path, model: str, *more: str) -> None:
    """Run a model on the toy data."""
    arguments = ["--model", model, "--dataset", "sequences", "--data-root", str(root)]
    arguments += ["--results", str(results), "--no-baselines", "--metrics", "ndcg@5,hit_rate@1"]
    arguments += ["-o", "protocol.k_core=2", "-o", "protocol.n_candidates=5", *more]
    done = CliRunner().invoke(run_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def report(*arguments: str | Path) -> Result:
    """Call `mmrec-bench report`."""
    return CliRunner().invoke(report_command, [str(one) for one in arguments])


def data_of(path: Path) -> Any:  # noqa: ANN401 - anything JSON can hold
    """Read a file of data back as the browser does."""
    text = path.read_text(encoding="ascii")
    found = re.fullmatch(r"mmrecData\(\"(\w+)\",'(.*)'\);\n", text, re.DOTALL)
    assert found, text[:80]
    literal = re.sub(r"\\(.)", r"\1", found[2])  # the literal has only \\ and \' escaped
    return json.loads(literal)


@contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """Forget modules of one-file plugins in a folder afterwards."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
