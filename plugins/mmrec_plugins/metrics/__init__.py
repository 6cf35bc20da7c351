"""Built-in metrics; the classes are imported on use."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry

_RANKING = "mmrec_plugins.metrics.ranking"
_LISTS = "mmrec_plugins.metrics.beyond_accuracy"


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
        Entry("coverage", f"{_LISTS}:Coverage", "share of the catalog in any list"),
        Entry("gini", f"{_LISTS}:Gini", "inequality of how often items are shown"),
        Entry("novelty", f"{_LISTS}:Novelty", "mean self-information of a list, bits"),
        Entry("popularity", f"{_LISTS}:Popularity", "mean train interactions of a list"),
        Entry(
            "popularity_lift", f"{_LISTS}:PopularityLift", "how much more popular than the history"
        ),
        Entry("text_diversity", f"{_LISTS}:TextDiversity", "unlikeness of a list's words"),
        Entry("image_diversity", f"{_LISTS}:ImageDiversity", "unlikeness of a list's pictures"),
        Entry("calibration", f"{_LISTS}:Calibration", "how far a list's genres are from the taste"),
        Entry(
            "valid_rate",
            "mmrec_plugins.metrics.validity:ValidRate",
            "share of a generator's answers that could be read",
        ),
    ]
