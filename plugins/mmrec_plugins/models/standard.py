"""The baselines that stand beside every model that learns: weak ones alone mislead."""

from mmrec_bench.registry import Baseline

STANDARD = (
    Baseline("random"),
    Baseline("popularity"),
    Baseline("markov-1"),
    Baseline("item-knn"),
    Baseline("item-knn-recency"),
)
