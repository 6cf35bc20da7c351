"""Exact ranks and metrics of scores beside torch.topk alone on the same scores.

    python benchmarks/rank_scores.py [--users 20000] [--repeats 5]

20,000 users x 20,000 items of float32 scores, 10 to 100 items of a history masked, one target a
user. Ours leaves the history out, counts for each target who stands above and who level, lists the
best k items and gives HR@1,5,10,20, NDCG@5,10,20, Recall@5,10,20, MRR@100 and MAP@100. torch.topk,
in blocks of 256 users, gives the k best items and nothing else; the metrics want k = 20, their
largest cut but for MRR and MAP.

Scores are products of factors, as models give them, drawn anew for each block of 1,000 users
outside of the timing; fifty pairs of items score the same. Both work in one process with threads
pinned, and each goes first on every other block. Printed are medians of CPU seconds, with wall
seconds, and by how much a block raises the peak memory of a process.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from metrics import N_ITEMS, THREADS, child, our_metrics

from mmrec_bench.counting import rank
from mmrec_bench.evaluation import measurements
from mmrec_bench.ranks import concat
from mmrec_bench.types import (
    Cases,
    Catalog,
    FloatArray,
    Outcomes,
    Queries,
    Ragged,
    Ranks,
    Vocabulary,
)


@dataclass
class ScoredBlocks:
    """Blocks of (block, N_ITEMS) scores, drawn when asked for, with their cases."""

    n_users: int
    block: int = 1000
    factors: int = 32

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.items = rng.standard_normal((N_ITEMS, self.factors), dtype=np.float32)
        self.items[:, 0] = rng.exponential(size=N_ITEMS)  # how popular
        self.items[50:100] = self.items[:50]
        lengths = rng.integers(10, 101, size=self.n_users)
        rows = [rng.choice(N_ITEMS, n + 1, False) for n in lengths]
        targets = Ragged.from_lengths(np.array([r[0] for r in rows]), np.ones_like(lengths))
        masked = Ragged.from_lengths(np.concatenate([np.sort(r[1:]) for r in rows]), lengths)
        nothing = Ragged.from_lengths(np.zeros(0, np.int32), np.zeros_like(lengths))
        queries = Queries(np.arange(self.n_users, dtype=np.int32), nothing)
        self.cases = Cases(queries, targets, masked)

    def __iter__(self) -> Iterator[tuple[FloatArray, Cases]]:
        for start in range(0, self.n_users, self.block):
            stop = min(start + self.block, self.n_users)
            rng = np.random.default_rng(start)
            users = rng.standard_normal((stop - start, self.factors), dtype=np.float32)
            users[:, 0] = np.abs(users[:, 0])  # everybody likes what is popular
            yield users @ self.items.T, self.cases.slice(start, stop)


def best_of_torch(scores: FloatArray, k: int) -> None:
    for rows in torch.from_numpy(scores).split(256):
        torch.topk(rows, k)


def measure_ranks(parts: list[Ranks]) -> list[float]:
    outcomes = Outcomes(concat(parts), Catalog(Vocabulary([]), []), np.zeros(0, np.int64))
    return [one.value for one in measurements(our_metrics(), outcomes).values()]


def check(scores: FloatArray, cases: Cases, ranks: Ranks) -> None:
    """Compare a block's ranks with plain comparisons."""
    for row, target in enumerate(cases.targets.values):
        left = np.delete(scores[row], cases.masked[row])
        above, level = (left > scores[row, target]).sum(), (left == scores[row, target]).sum() - 1
        assert (ranks.n_better[row], ranks.n_tied[row]) == (above, level)


class Stopwatch:
    """Adds up CPU and wall seconds of what runs within it."""

    def __init__(self) -> None:
        self.spent = np.zeros(2)

    def __enter__(self) -> None:
        self.spent -= (time.process_time(), time.perf_counter())

    def __exit__(self, *_: object) -> None:
        self.spent += (time.process_time(), time.perf_counter())


def scores_beside_topk(n_users: int, repeats: int) -> None:
    torch.set_num_threads(int(THREADS))
    blocks = ScoredBlocks(n_users)
    scores, cases = next(iter(blocks))
    ranks = rank(scores, cases)
    check(scores, cases, ranks)
    distinct = np.mean([len(np.unique(row)) for row in scores[:100]]) / N_ITEMS
    print(
        f"{n_users} users x {N_ITEMS} items, {THREADS} thread(s), CPU seconds (wall seconds), "
        f"median of {repeats}; ranks of the first {len(cases)} users are those of plain "
        f"comparisons; {distinct:.1%} of a user's scores are distinct; "
        f"{(ranks.n_tied > 0).mean():.1%} of the targets are tied\n"
    )
    print("  k  ours: mask, ranks, top k, metrics   torch.topk(k) alone   ratio")
    for k in (10, 20, 100):
        spent = []
        for _ in range(repeats):
            mine, theirs, parts = Stopwatch(), Stopwatch(), []
            for number, (scores, cases) in enumerate(blocks):
                for turn in (number, number + 1):  # each goes first on every other block
                    if turn % 2:
                        with theirs:
                            best_of_torch(scores, k)
                    else:
                        with mine:
                            parts.append(rank(scores, cases, top_k=k))
            with mine:
                measure_ranks(parts)
            spent.append((mine.spent, theirs.spent))
        (a, wall_a), (b, wall_b) = np.median(spent, axis=0)
        print(f"{k:3}  {a:20.2f} ({wall_a:.2f}) {b:20.2f} ({wall_b:.2f})  {b / a:13.2f}x")
    grown = [child(__file__, "--grown", name)["grown"] for name in ("ours", "topk")]
    print(f"\npeak memory above that of one block's scores, MB: {grown[0]:.0f}, {grown[1]:.0f}")


def resident_mb(field: str) -> float:
    """Read VmRSS, what this process holds, or VmHWM, the most that it held (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure_memory(name: str) -> None:
    """Print by how much a block's work raises this process's peak memory."""
    scores, cases = next(iter(ScoredBlocks(1000)))
    work = {
        "ours": lambda rows: measure_ranks([rank(scores[:rows], cases.slice(0, rows))]),
        "topk": lambda rows: best_of_torch(scores[:rows], 20),
    }[name]
    work(1)  # imports
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = resident_mb("VmRSS")
    work(len(cases))
    print(json.dumps({"grown": resident_mb("VmHWM") - before}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grown", choices=["ours", "topk"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.grown:
        measure_memory(args.grown)
    else:
        scores_beside_topk(args.users, args.repeats)


if __name__ == "__main__":
    main()
