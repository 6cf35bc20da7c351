"""The peers' side of `whole_runs.py`: fits one model with one library and judges its top 10.

    python benchmarks/whole_runs_peers.py JOB

JOB is a `Job` in JSON; the last line printed is a `Quality` in JSON. Imports nothing of ours, so
that it runs in an environment of the peers' own. Each library is imported where it is used.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

K = 10
NAME = "movielens"  # RecBole reads its own copy of a set called ml-100k
PARTS = ("train", "validation", "test")
"""`folder/NAME/NAME.PART.inter` holds a part of the split, NAME.inter all of it, as the
atomic files of RecBole: user_id:token, item_id:token, rating:float, timestamp:float."""


@dataclass(frozen=True)
class Job:
    """One run of one system.

    Attributes:
        system: "ours" or a peer.
        model: our name of the model.
        data: folder of u.data, for ours.
        folder: holds the files of the peers, and takes whatever a system writes.
        threads: of all libraries.
        seed: of the model.
        epochs: at most so many of RecBole, RecTools' SASRec and implicit's BPR; 0 = as the library
            has it.
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
    """What a run found on test, and what should be known of it."""

    hit_rate: float
    ndcg: float
    note: str = ""


RECBOLE = {
    "popularity": "Pop",
    "item-knn": "ItemKNN",
    "ease": "EASE",
    "bpr-mf": "BPR",
    "lightgcn": "LightGCN",
    "sasrec-ce": "SASRec",
}


def recbole(job: Job) -> Quality:
    """RecBole's quick start with its defaults, step by step, so that its model can be kept."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    torch.set_num_threads(job.threads)
    if job.model == "lightgcn":
        _mend_dok_matrix()
    sys.argv[1:] = []  # which RecBole would read as its own
    config = Config(model=RECBOLE[job.model], dataset=NAME, config_dict=_recbole_settings(job))
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    train, validation, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.fit(train, validation, saved=True, show_progress=False)
    found = trainer.evaluate(test, load_best_model=True, show_progress=False)
    hit_rate, ndcg = float(found[f"hit@{K}"]), float(found[f"ndcg@{K}"])
    notes = []
    if job.model == "popularity":
        notes.append("counts an item once a batch: not popularity")
    if job.model == "sasrec-ce":
        notes.append(f"its own figures rank seen items too: {hit_rate:.4f} {ndcg:.4f}")
        hit_rate, ndcg = _masked(job, model, test)
    if job.model in {"bpr-mf", "lightgcn", "sasrec-ce"}:
        done = trainer.start_epoch + len(trainer.train_loss_dict)
        notes.append(f"{done} epochs" + (" (all it was given)" if done == job.epochs else ""))
    return Quality(hit_rate, ndcg, "; ".join(notes))


def _recbole_settings(job: Job) -> dict[str, Any]:
    """What is not RecBole's default: data, split, ranking, metrics, and silence."""
    settings: dict[str, Any] = {
        "data_path": job.folder,
        "checkpoint_dir": f"{job.folder}/saved",
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "eval_args": {"group_by": "user", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": [K],
        "valid_metric": f"NDCG@{K}",
        "metric_decimal_place": 6,
        "seed": job.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    if job.model == "sasrec-ce":
        settings["eval_args"] |= {"split": {"LS": "valid_and_test"}, "order": "TO"}
        settings["train_neg_sample_args"] = None  # its SASRec's loss is cross-entropy
    else:
        settings["benchmark_filename"] = list(PARTS)
    if job.epochs:
        settings["epochs"] = job.epochs
    return settings


def _mend_dok_matrix() -> None:
    """Give scipy's dok_matrix the method that RecBole's LightGCN calls and scipy 1.13 removed."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, values: self._dict.update(values)


def _masked(job: Job, model: Any, test: Any) -> tuple[float, float]:  # noqa: ANN401
    """Rank RecBole's sequential model again, with all items left out that a user took before.

    Returns:
        HR@10 and NDCG@10 over the users.
    """
    import numpy as np
    import torch

    dataset = test._dataset
    user_field, item_field = dataset.uid_field, dataset.iid_field
    rows = _read(job)
    users, items = (
        dataset.token2id(field, rows[name].astype(str).to_numpy())
        for field, name in ((user_field, "user"), (item_field, "item"))
    )
    taken = np.zeros((dataset.user_num, dataset.item_num), np.bool_)
    taken[users, items] = True
    ranks = []
    with torch.inference_mode():
        for batch, *_ in test:
            scores = model.full_sort_predict(batch).view(len(batch), -1).numpy()
            target = batch[item_field].numpy()[:, None]
            aimed = np.take_along_axis(scores, target, 1)
            out = taken[batch[user_field].numpy()]
            out[:, 0] = True  # RecBole's padding
            ranks.append(((scores > aimed) & ~out).sum(1))
    rank = np.concatenate(ranks)
    hit = rank < K
    return float(hit.mean()), float(np.where(hit, 1 / np.log2(rank + 2), 0).mean())


def rectools(job: Job) -> Quality:
    """RecTools: fit on train, recommend to everybody from train and validation."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel, ImplicitItemKNNWrapperModel, PopularModel

    train, validation, test = divided(job)
    shown = pd.concat((train, validation)) if job.model == "sasrec-ce" else train
    more = 0 if job.model == "sasrec-ce" else int(validation.groupby("user").size().max())
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
    note = f"stopped after {job.epochs} epoch(s)" if job.model == "sasrec-ce" and job.epochs else ""
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
        epochs = {"iterations": job.epochs} if job.epochs else {}
        model = BayesianPersonalizedRanking(
            factors=64, num_threads=job.threads, random_state=job.seed, **epochs
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


def lenskit(job: Job) -> Quality:
    """Run LensKit's popularity, item neighbours or EASE through its batch recommender."""
    from lenskit.batch import recommend
    from lenskit.data import from_interactions_df
    from lenskit.pipeline import topn_pipeline

    train, validation, test = divided(job)
    scorer, options = _lenskit_scorer(job.model)
    data = from_interactions_df(train[["user", "item"]], user_col="user", item_col="item")
    pipeline = topn_pipeline(scorer, options)
    pipeline.train(data)
    more = int(validation.groupby("user").size().max())
    found = recommend(pipeline, test["user"].unique(), n=K + more, n_jobs=1)
    return judged({key.user_id: items.ids() for key, items in found}, validation, test)


def _lenskit_scorer(model: str) -> tuple[Any, dict[str, Any]]:
    """Return the class of a scorer and its options."""
    if model == "popularity":
        from lenskit.basic import PopScorer

        return PopScorer, {"score": "count"}
    if model == "ease":
        from lenskit.knn import EASEScorer

        return EASEScorer, {"regularization": 250.0}
    from lenskit.knn import ItemKNNScorer

    return ItemKNNScorer, {"feedback": "implicit", "max_nbrs": 100}


def divided(job: Job) -> "tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]":
    """Return train, validation and test as ours divided them: user, item and time."""
    train, validation, test = (_read(job, f".{part}") for part in PARTS)
    return train, validation, test


def _read(job: Job, part: str = "") -> "pd.DataFrame":
    """Return user, item and time of one of RecBole's atomic files."""
    import pandas as pd

    rows = pd.read_csv(Path(job.folder) / NAME / f"{NAME}{part}.inter", sep="\t")
    rows.columns = pd.Index([name.split(":")[0] for name in rows.columns])
    return rows.rename(columns={"user_id": "user", "item_id": "item", "timestamp": "time"})


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
    "rectools": (rectools, ("popularity", "item-knn", "ease", "sasrec-ce")),
    "implicit": (implicit, ("item-knn", "bpr-mf")),
    "cornac": (cornac, ("ease", "bpr-mf")),
    "lenskit": (lenskit, ("popularity", "item-knn", "ease")),
}


def main() -> None:
    """Run the job that the command line names."""
    job = Job(**json.loads(sys.argv[1]))
    quality = PEERS[job.system][0](job)
    print("\n" + json.dumps(asdict(quality)))


if __name__ == "__main__":
    main()
