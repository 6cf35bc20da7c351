"""Ranks and metrics of popularity over all items of Amazon Beauty, beside a plain torch.topk.

    python benchmarks/full_ranking.py ../shared/data/amazon-beauty-p5/Beauty.txt

The file has a line `user item item ...` a user, in time order; the last item is the test target.
Both sides read the same scores: our ranks count every candidate exactly (ties included) and keep
the top 20; torch.topk only finds the top 20. `dense` scores are random float32 without ties.
"""

import argparse
import os
import resource
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.counting import rank
from mmrec_bench.evaluation import Interval, measure
from mmrec_bench.protocol import make_split
from mmrec_bench.types import (
    Catalog,
    DataCard,
    FloatArray,
    Interactions,
    Outcomes,
    RecData,
    Split,
    Vocabulary,
)
from mmrec_plugins.metrics.ranking import MAP, MRR, NDCG, CutConfig, HitRate, Precision, Recall

METRICS = [
    cls(CutConfig(k=k)) for cls in (HitRate, NDCG, Recall, MRR, MAP, Precision) for k in (5, 10, 20)
]


def read(path: Path) -> RecData:
    """Read the S3-Rec / P5 sequence file."""
    rows = [[int(word) for word in line.split()] for line in path.read_text().splitlines()]
    users = Vocabulary([str(row[0]) for row in rows])
    n_items = max(max(row[1:]) for row in rows)
    items = Vocabulary([str(i + 1) for i in range(n_items)])
    lengths = [len(row) - 1 for row in rows]
    interactions = Interactions.build(
        np.repeat(np.arange(len(rows)), lengths),
        np.array([item - 1 for row in rows for item in row[1:]]),
    )
    catalog = Catalog(items=items, title=items.ids)
    return RecData("beauty", "local", users, catalog, interactions, DataCard("S3-Rec", "none"))


def ours(
    scores: FloatArray, split: Split, counts: np.ndarray
) -> tuple[float, float, dict[str, Interval]]:
    """Return seconds of ranks, seconds of metrics with intervals, and the metrics."""
    start = time.perf_counter()
    ranks = rank(scores, split.test)
    ranked = time.perf_counter()
    found = measure(METRICS, Outcomes(ranks, split.catalog, counts))
    return ranked - start, time.perf_counter() - ranked, found


def topk(scores: FloatArray, split: Split, k: int = 20, step: int = 256) -> float:
    """Return seconds of torch.topk over the same masked scores in blocks."""
    masked = split.test.masked
    assert masked is not None
    start = time.perf_counter()
    for first in range(0, len(scores), step):
        block = torch.from_numpy(np.array(scores[first : first + step]))
        rows = masked.take(np.arange(first, min(first + step, len(scores))))
        block[
            torch.from_numpy(rows.row_ids), torch.from_numpy(rows.values.astype(np.int64))
        ] = -torch.inf
        torch.topk(block, k)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = read(options.file)
    start = time.perf_counter()
    split = make_split(data, ProtocolConfig(candidates="full"))
    print(f"split: {time.perf_counter() - start:.2f} s, {dict(split.counts)}")
    counts = np.bincount(split.train.item, minlength=len(split.catalog))
    n_cases, n_items = len(split.test), len(split.catalog)
    popular = np.broadcast_to(counts.astype(np.float32), (n_cases, n_items))
    dense = np.random.default_rng(0).random((n_cases, n_items), np.float32)
    print(f"{n_cases} cases x {n_items} items, 1 thread, best of {options.repeats}")
    for name, scores in (("popularity", popular), ("dense", dense)):
        runs = [ours(scores, split, counts) for _ in range(options.repeats)]
        seconds = min(run[0] for run in runs)
        plain = min(topk(scores, split) for _ in range(options.repeats))
        metrics = min(run[1] for run in runs)
        print(
            f"{name:12} ranks {seconds:.2f} s  {len(METRICS)} metrics + intervals {metrics:.2f} s"
            f"  torch.topk alone {plain:.2f} s  ratio {plain / seconds:.2f}"
        )
        if name == "popularity":
            for metric, value in runs[0][2].items():
                if metric.endswith(("@5", "@10")):
                    print(f"  {metric:14} {value.value:.4f} [{value.low:.4f}, {value.high:.4f}]")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"peak memory {peak:.2f} GiB (dense scores alone {dense.nbytes / 2**30:.2f} GiB)")


if __name__ == "__main__":
    main()
