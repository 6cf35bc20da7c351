"""Metrics of lists: ours beside RecTools, pytrec-eval, RecBole, ranx and LensKit, on one workload.

    python benchmarks/metrics.py [--users 100000] [--repeats 3] [--only ours lenskit]

100,000 users, 100 different items each out of 20,000, one to ten targets a user, of which a
third are listed. Everybody gets the same arrays (lists, best first, and pairs of user and target)
and returns HR@1,5,10,20, NDCG@5,10,20, Recall@5,10,20, MRR@100 and MAP@100; numbers that are not
equal end the run. Building what a library wants (dictionaries, frames, its own classes) is counted
and shown apart; what is compiled or imported once is not. Each repeat is a process of its own with
threads pinned, the systems taking turns; printed are medians of CPU seconds, and the peak memory of
a process. LensKit differs from the others by default: its NDCG is told to discount the first
two places differently, and its Recall to divide by all targets.

Peers are used where they are installed. All in one environment (Python 3.11):

    pip install torch==2.13.0 ranx rectools pytrec-eval-terrier recbole==1.2.1 lenskit \\
        'numpy<2' 'pandas<3' 'pyarrow<24' 'setuptools<81'
    pip install -e .
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = THREADS

import numpy as np

K, N_ITEMS = 100, 20_000
METRICS = [
    *(("hit_rate", k) for k in (1, 5, 10, 20)),
    *((name, k) for name in ("ndcg", "recall") for k in (5, 10, 20)),
    *(("mrr", K), ("map", K)),
]
CLOSE = 1e-6
"""Values that differ by less are equal: some peers sum in 32 bits."""

Steps = Iterator[list[float] | None]
"""A system: imports and warms up, then builds what it wants, then yields METRICS in order."""


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


def our_metrics() -> list[Any]:
    from mmrec_plugins.metrics.ranking import MAP, MRR, NDCG, CutConfig, HitRate, Recall

    classes = {"hit_rate": HitRate, "ndcg": NDCG, "recall": Recall, "mrr": MRR, "map": MAP}
    return [classes[name](CutConfig(k=k)) for name, k in METRICS]


def ours(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    from mmrec_bench.evaluation import measurements
    from mmrec_bench.ranks import rank_lists
    from mmrec_bench.types import Catalog, Outcomes, Ragged, Vocabulary

    metrics = our_metrics()
    catalog = Catalog(Vocabulary([]), [])
    yield None
    targets = Ragged.from_lengths(item, np.bincount(user, minlength=len(lists)))
    ranks = rank_lists(lists, targets, N_ITEMS)
    yield None
    found = measurements(metrics, Outcomes(ranks, catalog, np.zeros(0, np.int64)))
    yield [one.value for one in found.values()]


def ranx(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    from ranx import Qrels, Run, evaluate

    names = [f"{name}@{k}" for name, k in METRICS]
    evaluate(Qrels({"a": {"x": 1}}), Run({"a": {"x": 1.0}}), names)
    yield None
    truth, run = _dictionaries(lists, user, item)
    qrels, made = Qrels(truth), Run(run)
    yield None
    found = evaluate(qrels, made, names)
    yield [float(found[name]) for name in names]


def pytrec_eval(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    import pytrec_eval as trec

    theirs = {"hit_rate": "success", "ndcg": "ndcg_cut", "mrr": "recip_rank"}
    cuts = [(theirs.get(name, name), "" if k == K else str(k)) for name, k in METRICS]
    measures = {".".join(filter(None, cut)) for cut in cuts}
    names = ["_".join(filter(None, cut)) for cut in cuts]
    yield None
    truth, run = _dictionaries(lists, user, item)
    yield None
    rows = list(trec.RelevanceEvaluator(truth, measures).evaluate(run).values())
    yield [float(np.mean([row[name] for row in rows])) for name in names]


def _dictionaries(
    lists: np.ndarray, user: np.ndarray, item: np.ndarray
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Return {user: {item: relevance}} of targets and {user: {item: score}} of lists."""
    truth: dict[str, dict[str, int]] = {}
    for u, i in zip(user.tolist(), item.tolist(), strict=True):
        truth.setdefault(str(u), {})[str(i)] = 1
    scores = [float(K - j) for j in range(K)]
    run = {
        str(u): dict(zip(map(str, row), scores, strict=True))
        for u, row in enumerate(lists.tolist())
    }
    return truth, run


def rectools(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    import pandas as pd
    from rectools import Columns
    from rectools.metrics import MAP, MRR, NDCG, HitRate, Recall, calc_metrics

    classes = {
        "hit_rate": HitRate,
        "ndcg": partial(NDCG, divide_by_achievable=True),
        "recall": Recall,
        "mrr": MRR,
        "map": MAP,
    }
    metrics = {f"{name}@{k}": classes[name](k=k) for name, k in METRICS}
    yield None
    reco = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(lists)), K),
            Columns.Item: lists.ravel(),
            Columns.Rank: np.tile(np.arange(1, K + 1), len(lists)),
        }
    )
    truth = pd.DataFrame({Columns.User: user, Columns.Item: item})
    yield None
    found = calc_metrics(metrics, reco=reco, interactions=truth)
    yield [float(found[name]) for name in metrics]


def lenskit(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    from lenskit.data import ItemList, ItemListCollection
    from lenskit.metrics import NDCG, Hit, LogRankWeight, Recall, RecipRank, RunAnalysis
    from lenskit.metrics.ranking import AveragePrecision

    class PlainRecall(Recall):
        def measure_list(self, recs: ItemList, test: ItemList) -> float:
            return float(self.truncate(recs).isin(test).sum() / len(test))

    classes = {
        "hit_rate": Hit,
        "ndcg": partial(NDCG, weight=LogRankWeight(offset=1)),
        "recall": PlainRecall,
        "mrr": RecipRank,
        "map": AveragePrecision,
    }
    analysis = RunAnalysis()
    for name, k in METRICS:
        analysis.add_metric(classes[name](n=k), f"{name}@{k}")
    yield None
    # Lists one by one: its own `from_df` takes thirty times as long.
    run, truth = (ItemListCollection.empty(["user_id"]) for _ in range(2))
    bounds = np.searchsorted(user, np.arange(len(lists) + 1))
    for u, row in enumerate(lists):
        run.add(ItemList(item_ids=row, ordered=True), user_id=u)
        truth.add(ItemList(item_ids=item[bounds[u] : bounds[u + 1]]), user_id=u)
    yield None
    means = analysis.measure(run, truth).list_metrics().mean()
    yield [float(means[f"{name}@{k}"]) for name, k in METRICS]


def recbole(lists: np.ndarray, user: np.ndarray, item: np.ndarray) -> Steps:
    import torch
    from recbole.evaluator.metrics import MAP, MRR, NDCG, Hit, Recall

    for name, kind in (("float", float), ("int", int), ("bool", bool)):
        if name not in vars(np):  # names that RecBole 1.2.1 still uses
            setattr(np, name, kind)
    torch.set_num_threads(int(THREADS))
    ks = [1, 5, 10, 20, K]
    config = {"topk": ks, "metric_decimal_place": 9}
    yield None
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
    yield None
    found = {}
    for cls in (Hit, NDCG, Recall, MRR, MAP):
        found |= cls(config).calculate_metric(data)
    yield [float(found[f"{name.replace('hit_rate', 'hit')}@{k}"]) for name, k in METRICS]


SYSTEMS = {f.__name__: f for f in (ours, rectools, pytrec_eval, recbole, ranx, lenskit)}


def measure_one(name: str, n_users: int) -> None:
    """Measure one system in this process and print JSON."""
    steps = SYSTEMS[name](*workload(n_users))
    next(steps)
    before = time.process_time()
    next(steps)
    built = time.process_time()
    values = next(steps)
    done = time.process_time()
    seconds = {"build": built - before, "metrics": done - built}
    print(json.dumps(seconds | {"peak": peak_mb(), "values": values}))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script in a process of its own and return the JSON of its last line."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def lists_beside_peers(n_users: int, repeats: int, names: list[str]) -> None:
    absent = [name for name in names if name != "ours" and find_spec(name) is None]
    if absent:
        print(f"not installed, see --help: {', '.join(absent)}", file=sys.stderr)
    found: dict[str, list[dict[str, Any]]] = {n: [] for n in ("ours", *names) if n not in absent}
    for _ in range(repeats):
        for name, rows in found.items():
            rows.append(child(__file__, "--one", name, "--users", str(n_users)))
    base = float(np.median([row["build"] + row["metrics"] for row in found["ours"]]))
    mine = np.array(found["ours"][0]["values"])
    print(f"{n_users} users x {K} items, {THREADS} thread(s), CPU seconds, median of {repeats}\n")
    print("system        build  metrics   total    ratio  peak MB  largest difference")
    for name, rows in found.items():
        build, metrics, peak = (
            float(np.median([row[part] for row in rows])) for part in ("build", "metrics", "peak")
        )
        gaps = np.abs(np.array(rows[0]["values"]) - mine)
        print(
            f"{name:<12} {build:6.2f}  {metrics:7.2f}  {build + metrics:6.2f}"
            f"  {(build + metrics) / base:6.1f}x  {peak:7.0f}  {gaps.max():.1e}"
        )
        if not gaps.max() < CLOSE:
            metric, k = METRICS[int(gaps.argmax())]
            raise SystemExit(f"{metric}@{k} of {name} is not ours")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--one", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure_one(args.one, args.users)
    else:
        lists_beside_peers(args.users, args.repeats, args.only)


if __name__ == "__main__":
    main()
