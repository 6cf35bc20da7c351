"""Built-in metrics; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry

_RANKING = "mmrec_plugins.metrics.ranking"


@hookimpl
def mmrec_register_metrics() -> list[Entry]:
    """Register the built-in metrics; those with a cutoff are asked for as `name@k`."""
    return [
        Entry("hit_rate", f"{_RANKING}:HitRate", "a target is among the first k"),
        Entry("ndcg", f"{_RANKING}:NDCG", "normalised discounted cumulative gain, log2"),
        Entry("mrr", f"{_RANKING}:MRR", "reciprocal rank of the first target"),
        Entry("recall", f"{_RANKING}:Recall", "share of the targets among the first k"),
        Entry("precision", f"{_RANKING}:Precision", "share of the first k that are targets"),
        Entry("map", f"{_RANKING}:MAP", "mean average precision"),
        Entry("auc", f"{_RANKING}:AUC", "chance that a target is above a non-target"),
        Entry(
            "valid_rate",
            "mmrec_plugins.metrics.validity:ValidRate",
            "share of a generator's answers that could be read",
        ),
    ]
