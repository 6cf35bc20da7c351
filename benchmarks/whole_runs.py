"""Whole runs on MovieLens-100k: ours beside RecBole, RecTools, implicit and cornac.

    python benchmarks/whole_runs.py --data DIR [--peers-python PATH] [--repeats 3]

DIR holds u.data and u.item. Each run is a process of its own, start-up, reading, fitting and
ranking all items for all users included, with threads pinned; the systems take turns. Ours is the
command `mmrec-bench run --config configs/movielens/<model>.yaml --no-baselines` with an empty
results folder and cache: early stopping on validation, checks of the posters, bootstrap intervals
and the record are all in it. RecBole's is `run_recbole` with its own defaults. The others fit once,
without validation, and list the top 10 of all users. Printed are medians of wall and CPU seconds
(user and system, of the process and its children), the peak memory of a process, and HR@10 and
NDCG@10. Each system draws its own random split, so that figures of one model may differ by some
percent; where NDCG@10 is more than 5 % from ours, the row says so.

The general models: 8:1:1 at random by user, all items ranked, train and validation masked.
SASRec: leave-one-out, all items ranked, train and validation masked but by RecBole.

The peers want an environment of their own, which `--peers-python` names (RecBole 1.2.1 fails on
later releases of these); a system that cannot run is left out with its reason:

    pip install recbole==1.2.1 "rectools[torch]" implicit "cornac<2.3" \\
        "setuptools<81" "numpy<2" "pandas<3" "scipy<1.14"
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

K = 10
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "movielens"
RECBOLE = {
    "popularity": "Pop",
    "item-knn": "ItemKNN",
    "ease": "EASE",
    "bpr-mf": "BPR",
    "lightgcn": "LightGCN",
    "sasrec": "SASRec",
}


@dataclass(frozen=True)
class Job:
    """One run of one system.

    Attributes:
        epochs: of RecBole's LightGCN and the peers' SASRec; 0 = as the library has it.
    """

    system: str
    model: str
    data: str
    folder: str
    threads: int
    seed: int
    epochs: int


@dataclass(frozen=True)
class Quality:
    """What a run found, and what kept it from comparison."""

    hit_rate: float
    ndcg: float
    note: str = ""


@dataclass(frozen=True)
class Found:
    """One run: seconds, MB, and its quality."""

    wall: float
    cpu: float
    peak: float
    quality: Quality


def recbole(job: Job) -> Quality:
    """RecBole's own quick start, with its defaults."""
    import torch
    from recbole.quick_start import run_recbole

    torch.set_num_threads(job.threads)
    settings: dict[str, Any] = {
        "data_path": job.folder,
        "checkpoint_dir": f"{job.folder}/saved",
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "eval_args": {
            "split": {"RS": [0.8, 0.1, 0.1]},
            "group_by": "user",
            "order": "RO",
            "mode": "full",
        },
        "metrics": ["Hit", "NDCG"],
        "topk": [K],
        "valid_metric": f"NDCG@{K}",
        "metric_decimal_place": 6,
        "seed": job.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    if job.model == "sasrec":
        settings["eval_args"] |= {"split": {"LS": "valid_and_test"}, "order": "TO"}
        settings["train_neg_sample_args"] = None
    if job.epochs:
        settings["epochs"] = job.epochs
    found = run_recbole(
        model=RECBOLE[job.model], dataset="ml-100k", config_dict=settings, saved=True
    )["test_result"]
    notes = {
        "popularity": "counts an item once a batch: not popularity",
        "sasrec": "seen items are ranked too",
    }
    limit = f"stopped after {job.epochs} epoch(s)" if job.epochs else ""
    return Quality(
        float(found[f"hit@{K}"]),
        float(found[f"ndcg@{K}"]),
        "; ".join(filter(None, (notes.get(job.model), limit))),
    )


def rectools(job: Job) -> Quality:
    """RecTools: fit on train, recommend to everybody from train and validation."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel, ImplicitItemKNNWrapperModel, PopularModel

    train, validation, test = divided(job)
    shown = pd.concat((train, validation)) if job.model == "sasrec" else train
    more = 0 if job.model == "sasrec" else int(validation.groupby("user").size().max())
    model: Any
    if job.model == "popularity":
        model = PopularModel(popularity="n_interactions")
    elif job.model == "ease":
        model = EASEModel(regularization=250.0)
    elif job.model == "item-knn":
        from implicit.nearest_neighbours import CosineRecommender

        model = ImplicitItemKNNWrapperModel(CosineRecommender(K=100, num_threads=job.threads))
    else:
        model = _rectools_sasrec(job)

    def dataset(rows: "pd.DataFrame") -> Any:  # noqa: ANN401
        names = {"user": Columns.User, "item": Columns.Item, "time": Columns.Datetime}
        frame = rows.rename(columns=names).assign(weight=1.0)
        frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
        return Dataset.construct(frame[[*names.values(), Columns.Weight]])

    model.fit(dataset(train))
    found = model.recommend(
        users=test["user"].unique(), dataset=dataset(shown), k=K + more, filter_viewed=True
    )
    lists = {
        user: rows.to_numpy()
        for user, rows in found.sort_values(Columns.Rank).groupby(Columns.User)[Columns.Item]
    }
    note = f"stopped after {job.epochs} epoch(s)" if job.model == "sasrec" and job.epochs else ""
    return judged(lists, validation, test, note)


def _rectools_sasrec(job: Job) -> Any:  # noqa: ANN401
    import torch
    from rectools.models import SASRecModel

    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    return SASRecModel(deterministic=True, **({"epochs": job.epochs} if job.epochs else {}))


def implicit(job: Job) -> Quality:
    """Run the implicit library's BPR or cosine neighbours."""
    import numpy as np
    from implicit.bpr import BayesianPersonalizedRanking
    from implicit.nearest_neighbours import CosineRecommender
    from scipy.sparse import csr_matrix

    train, validation, test = divided(job)
    rows = (np.ones(len(train), np.float32), (train["user"], train["item"]))
    shape = (int(train["user"].max()) + 1, 1 + max(int(p["item"].max()) for p in (train, test)))
    matrix = csr_matrix(rows, shape)
    model: Any
    if job.model == "bpr-mf":
        model = BayesianPersonalizedRanking(
            factors=64, num_threads=job.threads, random_state=job.seed
        )
    else:
        model = CosineRecommender(K=100, num_threads=job.threads)
    model.fit(matrix, show_progress=False)
    users = test["user"].unique()
    more = int(validation.groupby("user").size().max())
    items, _ = model.recommend(users, matrix[users], N=K + more, filter_already_liked_items=True)
    return judged(dict(zip(users.tolist(), items, strict=True)), validation, test)


def cornac(job: Job) -> Quality:
    """Run cornac's BPR or EASE, asked user by user as it wants to be."""
    import numpy as np
    from cornac.data import Dataset
    from cornac.models import BPR, EASE

    train, validation, test = divided(job)
    rows = Dataset.from_uir(
        zip(train["user"], train["item"], np.ones(len(train)), strict=True), seed=job.seed
    )
    model: Any
    if job.model == "bpr-mf":
        model = BPR(k=64, max_iter=200, learning_rate=0.01, num_threads=job.threads, seed=job.seed)
    else:
        model = EASE(lamb=250, posB=False, verbose=False)
    model.fit(rows)
    item_ids = np.array(list(rows.iid_map), np.int64)
    seen = train.groupby("user")["item"].agg(list)
    asked = K + int(validation.groupby("user").size().max())
    lists = {}
    for user in test["user"].unique():
        scores = np.array(model.score(rows.uid_map[user]), np.float64).ravel()
        scores[[rows.iid_map[item] for item in seen[user]]] = -np.inf
        order = np.argpartition(-scores, asked)[:asked]
        lists[user] = item_ids[order[np.argsort(-scores[order], kind="stable")]]
    return judged(lists, validation, test)


def divided(job: Job) -> "tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]":
    """Read u.data and divide it: 8:1:1 at random by user, or leave-one-out for SASRec.

    Returns:
        Train, validation and test, of user, item and time.
    """
    import numpy as np
    import pandas as pd

    names = ["user", "item", "rating", "time"]
    rows = pd.read_csv(Path(job.data) / "u.data", sep="\t", names=names).drop(columns="rating")
    if job.model == "sasrec":
        rows = rows.sort_values(["user", "time"], kind="stable")
    else:
        rows = rows.sample(frac=1, random_state=np.random.RandomState(job.seed))
        rows = rows.sort_values("user", kind="stable")
    place = rows.groupby("user").cumcount()
    size = rows.groupby("user")["item"].transform("size")
    held = 1 if job.model == "sasrec" else (size // 10).clip(lower=1)
    part = (place >= size - 2 * held).astype(int) + (place >= size - held)
    return rows[part == 0], rows[part == 1], rows[part == 2]


def judged(
    lists: "dict[int, np.ndarray]",
    validation: "pd.DataFrame",
    test: "pd.DataFrame",
    note: str = "",
) -> Quality:
    """Return HR@10 and NDCG@10 of lists, validation left out of them."""
    import numpy as np

    dropped = validation.groupby("user")["item"].agg(set).to_dict()
    gains = 1 / np.log2(np.arange(K) + 2)
    hits, found = [], []
    for user, items in test.groupby("user")["item"]:
        wanted, out = set(items), dropped.get(user, set())
        shown = [item for item in lists.get(user, ()) if item not in out][:K]
        hit = np.array([item in wanted for item in shown] + [False] * (K - len(shown)))
        hits.append(hit.any())
        found.append(gains[hit].sum() / gains[: min(K, len(wanted))].sum())
    return Quality(float(np.mean(hits)), float(np.mean(found)), note)


PEERS: dict[str, tuple[Callable[[Job], Quality], tuple[str, ...]]] = {
    "recbole": (recbole, tuple(RECBOLE)),
    "rectools": (rectools, ("popularity", "item-knn", "ease", "sasrec")),
    "implicit": (implicit, ("item-knn", "bpr-mf")),
    "cornac": (cornac, ("ease", "bpr-mf")),
}


def run(job: Job, peers_python: str) -> Found:
    """Run one job in a process and measure it.

    Raises:
        RuntimeError: it failed; its last line says why.
    """
    folder = Path(job.folder)
    said, complained = folder / "stdout", folder / "stderr"
    if job.system == "ours":
        command = [sys.executable, "-m", "mmrec_bench", "--quiet", "run"]
        command += ["--config", str(CONFIGS / f"{job.model}.yaml"), "--no-baselines"]
        command += ["--data-root", job.data, "--results", str(folder / "results"), "--json"]
        command += ["--seed", str(job.seed)]
    else:
        command = [peers_python, __file__, "--one", json.dumps(asdict(job))]
    count = str(job.threads)
    pinned = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")
    env = os.environ | {f"{name}_NUM_THREADS": count for name in pinned}
    # RecBole loads its own checkpoint, which torch refuses by default since 2.6.
    env |= {"XDG_CACHE_HOME": str(folder), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    env |= {"PYTHONWARNINGS": "ignore"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else everybody compiles all again at each start
    begun = time.monotonic()
    with said.open("wb") as out, complained.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = complained.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(" ".join(last) or f"exit code {process.returncode}")
    printed = said.read_text()
    if job.system == "ours":
        metrics = json.loads(printed)[0]["metrics"]
        quality = Quality(metrics[f"hit_rate@{K}"]["value"], metrics[f"ndcg@{K}"]["value"])
    else:
        quality = Quality(**json.loads(printed.splitlines()[-1]))
    return Found(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, quality)


def main() -> None:
    """Read the command line, run everything in turns, and print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    parser.add_argument("--data", type=Path, help="folder of u.data and u.item")
    parser.add_argument("--models", default=",".join(RECBOLE), help="some of %(default)s")
    parser.add_argument("--systems", default=",".join(("ours", *PEERS)), help="of %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument(
        "--lightgcn-epochs", type=int, default=0, help="stop RecBole's LightGCN early; 0 = do not"
    )
    parser.add_argument(
        "--sasrec-epochs", type=int, default=1, help="of RecBole, minutes each; 0 = its default"
    )
    parser.add_argument(
        "--rectools-epochs", type=int, default=30, help="of RecTools' SASRec; 0 = its default"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        job = Job(**json.loads(args.one))
        print("\n" + json.dumps(asdict(PEERS[job.system][0](job))))
        return
    models, systems = args.models.split(","), args.systems.split(",")
    if unknown := [*(set(models) - set(RECBOLE)), *(set(systems) - {"ours", *PEERS})]:
        parser.error(f"unknown: {', '.join(unknown)}")
    if args.data is None or not (args.data / "u.data").is_file():
        parser.error(f"--data {args.data}: no u.data there")
    if importlib.util.find_spec("mmrec_bench") is None and "ours" in systems:
        parser.error(f"{sys.executable} has no mmrec_bench; install it, or leave out ours")
    report(models, measured(models, systems, args), args)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the text above as it is, and the defaults."""


Runs = dict[str, dict[str, list[Found]]]
"""Model -> system -> its runs."""


def measured(models: list[str], systems: list[str], args: argparse.Namespace) -> Runs:
    """Run each model with each system that has it, `repeats` times, in turns."""
    limits = {
        ("recbole", "lightgcn"): args.lightgcn_epochs,
        ("recbole", "sasrec"): args.sasrec_epochs,
        ("rectools", "sasrec"): args.rectools_epochs,
    }
    runs: Runs = {model: {} for model in models}
    for repeat in range(args.repeats):
        for model in models:
            for system in systems:
                if system != "ours" and model not in PEERS[system][1]:
                    continue
                if repeat and system not in runs[model]:
                    continue  # it failed before
                with tempfile.TemporaryDirectory() as folder:
                    if system == "recbole":
                        atomic_files(args.data, Path(folder))
                    data, epochs = str(args.data.resolve()), limits.get((system, model), 0)
                    job = Job(system, model, data, folder, args.threads, args.seed, epochs)
                    try:
                        found = run(job, args.peers_python)
                    except RuntimeError as error:
                        print(f"{system} {model} is left out: {error}", file=sys.stderr)
                        continue
                runs[model].setdefault(system, []).append(found)
                print(f"{model} {system}: {found.cpu:.2f} CPU s", file=sys.stderr)
    return runs


def atomic_files(data: Path, folder: Path) -> None:
    """Write u.data as RecBole reads it, below `folder`."""
    (folder / "ml-100k").mkdir()
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    rows = (data / "u.data").read_text(encoding="ascii")
    (folder / "ml-100k" / "ml-100k.inter").write_text(head + rows, encoding="ascii")


def report(models: list[str], runs: Runs, args: argparse.Namespace) -> None:
    """Print medians, ratios to ours, and where a comparison does not hold."""
    print(f"MovieLens-100k, {args.threads} thread(s), medians of {args.repeats}; x = times ours")
    for model in models:
        systems = runs[model]
        print(f"\n{model:<11} CPU s          wall s         peak MB  HR@{K}   NDCG@{K}")
        base = systems.get("ours")
        for system, found in systems.items():
            cells = []
            for part in ("cpu", "wall"):
                value = statistics.median(getattr(one, part) for one in found)
                ratio = ""
                if base:
                    ours = statistics.median(getattr(one, part) for one in base)
                    ratio = f"{value / ours:.1f}x"
                cells.append(f"{value:7.2f} {ratio:>6}")
            peak = statistics.median(one.peak for one in found)
            quality = found[0].quality
            notes = [quality.note] if quality.note else []
            if base and system != "ours":
                gap = quality.ndcg / base[0].quality.ndcg - 1
                if abs(gap) > 0.05:
                    notes.append(f"not of equal quality: NDCG {gap:+.0%} beside ours")
            print(
                f"{system:<9} {cells[0]} {cells[1]}  {peak:7.0f}  {quality.hit_rate:.4f}"
                f"  {quality.ndcg:.4f}   {'; '.join(notes)}".rstrip()
            )


if __name__ == "__main__":
    main()
