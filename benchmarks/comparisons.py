"""Does `mmrec-bench compare` find a planted difference, and leave a planted equality alone?

    python benchmarks/comparisons.py [--comparisons 200] [--cases 400] [--few 2000]

Per-case values are drawn as ndcg@10 of one target among 20 candidates: each case has a difficulty
that both runs share, and each run noise of its own. In the unequal pairs one run is better by
`--gain` on the scale of its scores. Reported: how often each test calls a difference at level 0.05,
alone and after Holm's correction over a leaderboard of `--rows` runs, and how often the 95 %
interval holds the true difference (its mean over 400,000 cases); then the same for few cases, from
`--few` comparisons each. The permutation test decides; the others are shown beside it.
"""

import argparse
import time

import numpy as np

from mmrec_bench.statistics import PairedTest, holm, paired_test, paired_tests

N_CANDIDATES = 20
LEVEL = 0.05
FEW = (3, 5, 8, 10, 15, 30)
Runs = tuple[np.ndarray, np.ndarray]


def ndcg(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (B,) ndcg@10 of targets that score `scores` above 19 standard normal negatives."""
    better = (rng.normal(size=(len(scores), N_CANDIDATES - 1)) > scores[:, None]).sum(axis=1)
    return np.where(better < 10, 1 / np.log2(better + 2), 0.0)


def pair(rng: np.random.Generator, n: int, gain: float) -> Runs:
    """Return per-case values of two runs, the first better by `gain`."""
    difficulty = rng.normal(0.8, 1.0, n)
    first, second = (difficulty + rng.normal(0, 0.5, n) for _ in range(2))
    return ndcg(first + gain, rng), ndcg(second, rng)


def line(tests: list[PairedTest], truth: float) -> str:
    """Return how often each test calls a difference, and how often the interval holds."""
    called = [
        np.mean([p < LEVEL for p in found])
        for found in (
            [one.p_permutation for one in tests],
            [one.p_wilcoxon for one in tests],
            [one.p_bootstrap for one in tests],
        )
    ]
    holds = np.mean([one.low <= truth <= one.high for one in tests])
    return f"{called[0]:>11.4f}  {called[1]:>8.4f}  {called[2]:>9.4f}  {holds:>17.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--few", type=int, default=2000)
    parser.add_argument("--gain", type=float, default=0.3)
    parser.add_argument("--rows", type=int, default=8)
    args = parser.parse_args()
    started = time.process_time()
    rng = np.random.default_rng(0)
    truths = {}
    for name, gain in (("equality", 0.0), ("difference", args.gain)):
        a, b = pair(np.random.default_rng(1), 400_000, gain)
        truths[name] = gain, float((a - b).mean()) if gain else 0.0
    print(f"level {LEVEL}; planted difference {truths['difference'][1]:.4f}\n")
    print("planted     cases     of  permutation  Wilcoxon  bootstrap  interval holds it")
    for n, many in ((args.cases, args.comparisons), *((n, args.few) for n in FEW)):
        for name, (gain, truth) in truths.items():
            # A seed each: pairs of one call share their resamples and flips.
            tests = [paired_test(*pair(rng, n, gain), seed=number) for number in range(many)]
            print(f"{name:<10} {n:>6} {many:>6}  {line(tests, truth)}", flush=True)
    tables = []
    for number in range(args.comparisons):
        pairs = [pair(rng, args.cases, 0.0) for _ in range(args.rows - 1)]
        p = [one.p_permutation for one in paired_tests(pairs, seed=number)]
        tables.append((min(p) < LEVEL, min(holm(p)) < LEVEL))
    alone, corrected = np.mean(tables, axis=0)
    print(
        f"\n{args.rows - 1} pairs of equal runs: any called different in {alone:.3f} of "
        f"{args.comparisons} tables uncorrected, {corrected:.3f} after Holm"
    )
    print(f"{time.process_time() - started:.0f} s of CPU")


if __name__ == "__main__":
    main()
