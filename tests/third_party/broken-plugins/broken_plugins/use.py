"""Components that raise in the middle of a run, each in the step that its name says."""

from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Baseline, Entry

_PARTS = "broken_plugins.parts"
STEPS = ("construction", "fit", "score", "save", "restore", "facts")


@hookimpl
def mmrec_register_models() -> list[Entry]:
    """Register a model a step, and one that works beside three that do not."""
    broken = [
        Entry(f"raises-in-{step}", f"{_PARTS}:Model", f"raises in {step}", {"step": step})
        for step in STEPS
    ]
    beside = tuple(Baseline(f"raises-in-{step}") for step in ("construction", "fit", "score"))
    baselines = (*beside, Baseline("gone"), Baseline("popularity"))
    return [
        *broken,
        Entry("gone", "broken_plugins.no_such_module:Model", "cannot be imported"),
        Entry(
            "works", f"{_PARTS}:Model", "works, beside baselines that do not", {}, None, baselines
        ),
        Entry(
            "fails-after-baselines",
            f"{_PARTS}:Model",
            "raises in score, beside a baseline that works",
            {"step": "score"},
            None,
            (Baseline("popularity"),),
        ),
        Entry("wrong-shape", f"{_PARTS}:WrongShape", "gives one score too many"),
    ]


@hookimpl
def mmrec_register_datasets() -> list[Entry]:
    """Register a data set that raises in load."""
    return [Entry("raises-in-load", f"{_PARTS}:Dataset", "raises in load")]


@hookimpl
def mmrec_register_instructions() -> list[Entry]:
    """Register builders that raise."""
    return [
        Entry(f"raises-in-{step}", f"{_PARTS}:Builder", f"raises in {step}", {"step": step})
        for step in ("prepare", "build", "parse")
    ]


@hookimpl
def mmrec_register_encoders() -> list[Entry]:
    """Register encoders that raise."""
    return [
        Entry(f"raises-in-{step}", f"{_PARTS}:Encoder", f"raises in {step}", {"step": step})
        for step in ("describe", "encode", "fingerprint")
    ]


@hookimpl
def mmrec_register_metrics() -> list[Entry]:
    """Register a metric that raises."""
    return [
        Entry("raises-in-measure", f"{_PARTS}:Metric", "raises in measure"),
        Entry("too-short", f"{_PARTS}:TooShort", "gives too few values"),
    ]
