"""Metrics of lists: ours beside ranx, RecTools, pytrec-eval and RecBole, on one workload.

    pip install ranx rectools pytrec-eval-terrier recbole      # those that are absent are left out
    python benchmarks/metrics.py [--users 100000] [--repeats 3]

100,000 users, 100 different items each out of 20,000, one to ten targets a user, of which a third
are listed. Everybody gets the same two arrays (lists, best first, and pairs of user and target) and
returns HR@1,5,10,20, NDCG@5,10,20, Recall@5,10,20, MRR and MAP; building what a library wants
(dictionaries, frames, its own Run) is counted and shown apart. Each repeat is a process of its own
with threads pinned, the systems taking turns; printed are medians of CPU seconds, and the peak
memory of a process. Compilation (ranx) is warmed up before.

With `--scores`, the second workload: 20,000 users x 20,000 items of scores, 10 to 100 items of a
history masked, exact ranks with ties and all metrics, beside `torch.topk` alone on the same scores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = THREADS

import numpy as np

K, N_ITEMS = 100, 20_000
NAMES = [
    *(f"hit_rate@{k}" for k in (1, 5, 10, 20)),
    *(f"ndcg@{k}" for k in (5, 10, 20)),
    *(f"recall@{k}" for k in (5, 10, 20)),
    *("mrr", "map"),
]


Steps = Iterator[dict[str, float] | None]
"""A system: imports and warms up, then builds what it wants, then yields its metrics."""


def workload(n_users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lists (B, K) int32, and the users and items (T,) of the targets, by user."""
    rng = np.random.default_rng(0)
    start = rng.integers(N_ITEMS, size=n_users)
    stride = rng.integers(1, N_ITEMS // 2, size=n_users) * 2 + 1
    stride -= 2 * (stride % 5 == 0)  # coprime to 20,000, so that no item comes twice
    lists = ((start[:, None] + stride[:, None] * np.arange(K)) % N_ITEMS).astype(np.int32)
    user = np.repeat(np.arange(n_users), rng.integers(1, 11, size=n_users))
    listed = rng.random(len(user)) < 1 / 3
    item = np.where(
        listed, lists[user, rng.integers(K, size=len(user))], rng.integers(N_ITEMS, size=len(user))
    )
    keys = np.unique(user * N_ITEMS + item)
    return lists, keys // N_ITEMS, keys % N_ITEMS


def ours(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    from mmrec_bench.evaluation import measurements
    from mmrec_bench.ranks import rank_lists
    from mmrec_bench.types import Catalog, Outcomes, Ragged, Vocabulary
    from mmrec_plugins.metrics.ranking import MAP, MRR, NDCG, CutConfig, HitRate, Recall

    metrics = [
        *(HitRate(CutConfig(k=k)) for k in (1, 5, 10, 20)),
        *(cls(CutConfig(k=k)) for cls in (NDCG, Recall) for k in (5, 10, 20)),
        *(MRR(CutConfig(k=K)), MAP(CutConfig(k=K))),
    ]
    catalog = Catalog(Vocabulary([]), [])
    yield
    targets = Ragged.from_lengths(item, np.bincount(user, minlength=len(lists)))
    ranks = rank_lists(lists, targets, N_ITEMS)
    yield
    found = measurements(metrics, Outcomes(ranks, catalog, np.zeros(0, np.int64)))
    values = [one.value for one in found.values()]
    yield dict(zip(NAMES, values, strict=True))


def ranx(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    from ranx import Qrels, Run, evaluate

    names = [*NAMES[:-2], "mrr", "map"]
    warm = Qrels({"a": {"x": 1}}), Run({"a": {"x": 1.0}})
    evaluate(*warm, names, make_comparable=True)
    yield
    truth, run = _dictionaries(lists, user, item, float)
    qrels, made = Qrels(truth), Run(run)
    yield
    found = evaluate(qrels, made, names)
    yield {name: float(found[name]) for name in NAMES}


def pytrec_eval(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    import pytrec_eval as trec

    measures = {"success.1,5,10,20", "ndcg_cut.5,10,20", "recall.5,10,20", "recip_rank", "map"}
    yield
    truth, run = _dictionaries(lists, user, item, float)
    yield
    rows = list(trec.RelevanceEvaluator(truth, measures).evaluate(run).values())
    theirs = [
        *(f"success_{k}" for k in (1, 5, 10, 20)),
        *(f"ndcg_cut_{k}" for k in (5, 10, 20)),
        *(f"recall_{k}" for k in (5, 10, 20)),
        *("recip_rank", "map"),
    ]
    yield {
        name: float(np.mean([row[other] for row in rows]))
        for name, other in zip(NAMES, theirs, strict=True)
    }


def _dictionaries(
    lists: np.ndarray, user: np.ndarray, item: np.ndarray, kind: type
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Return {user: {item: relevance}} of targets and of lists, as both libraries want them."""
    truth: dict[str, dict[str, int]] = {}
    for u, i in zip(user.tolist(), item.tolist(), strict=True):
        truth.setdefault(str(u), {})[str(i)] = 1
    scores = [kind(K - j) for j in range(K)]
    run = {
        str(u): dict(zip(map(str, row), scores, strict=True))
        for u, row in enumerate(lists.tolist())
    }
    return truth, {u: run[u] for u in truth}


def rectools(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    import inspect

    import pandas as pd
    from rectools import Columns
    from rectools.metrics import MAP, MRR, NDCG, HitRate, Recall, calc_metrics

    fair = (
        {"divide_by_achievable": True}
        if "divide_by_achievable" in inspect.signature(NDCG).parameters
        else {}
    )
    metrics = {
        **{f"hit_rate@{k}": HitRate(k=k) for k in (1, 5, 10, 20)},
        **{f"ndcg@{k}": NDCG(k=k, **fair) for k in (5, 10, 20)},
        **{f"recall@{k}": Recall(k=k) for k in (5, 10, 20)},
        "mrr": MRR(k=K),
        "map": MAP(k=K),
    }
    yield
    reco = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(lists)), K),
            Columns.Item: lists.ravel(),
            Columns.Rank: np.tile(np.arange(1, K + 1), len(lists)),
        }
    )
    truth = pd.DataFrame({Columns.User: user, Columns.Item: item})
    yield
    found = calc_metrics(metrics, reco=reco, interactions=truth)
    yield {name: float(found[name]) for name in NAMES}


def recbole(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    import torch
    from recbole.evaluator.metrics import MAP, MRR, NDCG, Hit, Recall

    for name, kind in (("float", float), ("int", int), ("bool", bool)):
        if name not in vars(np):  # names that RecBole 1.2.1 still uses
            setattr(np, name, kind)
    torch.set_num_threads(int(THREADS))
    ks = [1, 5, 10, 20, K]
    config = {"topk": ks, "metric_decimal_place": 9}
    yield
    # What its collector leaves behind: a row of hits by place, and the number of targets.
    length = np.bincount(user, minlength=len(lists))
    hits = torch.zeros((len(lists), K), dtype=torch.int)
    shown, step = torch.from_numpy(lists).long(), 2048
    bounds = np.searchsorted(user, np.arange(0, len(lists) + step, step))
    for block, start in enumerate(range(0, len(lists), step)):
        rows = slice(bounds[block], bounds[block + 1])
        truth = torch.zeros((min(step, len(lists) - start), N_ITEMS), dtype=torch.int)
        truth[torch.from_numpy(user[rows] - start), torch.from_numpy(item[rows])] = 1
        hits[start : start + step] = torch.gather(truth, 1, shown[start : start + step])
    held = {"rec.topk": torch.cat((hits, torch.from_numpy(length)[:, None].int()), dim=1)}
    data = SimpleNamespace(get=held.__getitem__)
    yield
    found = {}
    for cls in (Hit, NDCG, Recall, MRR, MAP):
        found |= cls(config).calculate_metric(data)
    yield {
        **{f"hit_rate@{k}": found[f"hit@{k}"] for k in (1, 5, 10, 20)},
        **{f"ndcg@{k}": found[f"ndcg@{k}"] for k in (5, 10, 20)},
        **{f"recall@{k}": found[f"recall@{k}"] for k in (5, 10, 20)},
        "mrr": found[f"mrr@{K}"],
        "map": found[f"map@{K}"],
    }


SYSTEMS = {f.__name__: f for f in (ours, rectools, pytrec_eval, ranx, recbole)}


def one(name: str, n_users: int) -> None:
    """Measure one system in this process and print JSON."""
    arrays = workload(n_users)
    steps = SYSTEMS[name](*arrays)
    next(steps)
    before = time.process_time()
    next(steps)
    built = time.process_time()
    values = next(steps)
    done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"build": built - before, "metrics": done - built, "peak": peak, "values": values}
        )
    )


def lists_beside_peers(n_users: int, repeats: int) -> None:
    found: dict[str, list[dict]] = {name: [] for name in SYSTEMS}
    for _ in range(repeats):
        for name in SYSTEMS:
            command = [sys.executable, __file__, "--one", name, "--users", str(n_users)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1:]
                print(f"{name} is left out: {' '.join(reason)}", file=sys.stderr)
            else:
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    mine = found["ours"]
    base = float(np.median([each["build"] + each["metrics"] for each in mine]))
    print(f"{n_users} users x {K} items, {THREADS} thread(s), CPU seconds, median of {repeats}\n")
    print("system       build  metrics   total   ratio  peak MB  largest difference")
    for name, rows in found.items():
        if not rows:
            continue
        build, metrics = (
            float(np.median([each[part] for each in rows])) for part in ("build", "metrics")
        )
        worst = max(NAMES, key=lambda n: abs(rows[0]["values"][n] - mine[0]["values"][n]))
        gap = abs(rows[0]["values"][worst] - mine[0]["values"][worst])
        told = "-" if name == "ours" else f"{gap:.1e} ({worst})"
        total = build + metrics
        print(
            f"{name:<12} {build:5.2f}  {metrics:7.2f}  {total:6.2f}  {total / base:5.1f}x"
            f"  {np.median([each['peak'] for each in rows]):7.0f}  {told}"
        )


def scores_beside_topk(repeats: int) -> None:
    import torch

    from mmrec_bench.evaluation import measurements, rank
    from mmrec_bench.ranks import concat
    from mmrec_bench.types import Cases, Catalog, Outcomes, Queries, Ragged, Vocabulary
    from mmrec_plugins.metrics.ranking import MAP, MRR, NDCG, CutConfig, HitRate, Recall

    torch.set_num_threads(int(THREADS))
    n_users, block = 20_000, 1024
    rng = np.random.default_rng(0)
    base = rng.random((block, N_ITEMS), dtype=np.float32)
    lengths = rng.integers(10, 101, size=block)
    taken = Ragged.from_rows([rng.choice(N_ITEMS, n + 1, False).tolist() for n in lengths])
    first = taken.offsets[:-1]
    targets = Ragged.from_lengths(taken.values[first], np.ones(block, np.int64))
    keep = np.ones(len(taken.values), np.bool_)
    keep[first] = False
    masked = Ragged.from_lengths(taken.values[keep], lengths)
    queries = Queries(np.arange(block, dtype=np.int32), Ragged.from_rows([[]] * block))
    cases = Cases(queries, targets, masked)
    metrics = [
        *(HitRate(CutConfig(k=k)) for k in (1, 5, 10, 20)),
        *(cls(CutConfig(k=k)) for cls in (NDCG, Recall) for k in (5, 10, 20)),
        *(MRR(CutConfig(k=20)), MAP(CutConfig(k=20))),
    ]
    seconds: dict[str, list[float]] = {"ours": [], "torch.topk": []}
    for _ in range(repeats):
        spent = {"ours": 0.0, "torch.topk": 0.0}
        parts = []
        for start in range(0, n_users, block):
            scores = base + np.float32(start)  # another array each time, as a model would give
            begun = time.process_time()
            parts.append(rank(scores, cases))
            middle = time.process_time()
            for row in range(0, block, 256):
                torch.topk(torch.from_numpy(scores[row : row + 256]), 20)
            spent["torch.topk"] += time.process_time() - middle
            spent["ours"] += middle - begun
        begun = time.process_time()
        ranks = concat(parts)
        measurements(metrics, Outcomes(ranks, Catalog(Vocabulary([]), []), np.zeros(0, np.int64)))
        spent["ours"] += time.process_time() - begun
        for name, value in spent.items():
            seconds[name].append(value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours_s, theirs = (float(np.median(seconds[name])) for name in ("ours", "torch.topk"))
    print(
        f"{n_users} users x {N_ITEMS} items, {THREADS} thread(s), CPU seconds, median of {repeats}"
    )
    print(f"ours, history masked, exact ranks, top 20, all metrics  {ours_s:.2f}")
    print(f"torch.topk(20) alone on the same scores, no mask         {theirs:.2f}")
    print(f"ratio {theirs / ours_s:.2f}x; peak of the process {peak:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scores", action="store_true")
    parser.add_argument("--one", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.users)
    elif args.scores:
        scores_beside_topk(args.repeats)
    else:
        lists_beside_peers(args.users, args.repeats)


if __name__ == "__main__":
    main()
