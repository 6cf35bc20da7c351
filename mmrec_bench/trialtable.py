"""What a search found, as a table for people and as rows for scripts."""

from mmrec_bench.selection import Selection
from mmrec_bench.spaces import as_text
from mmrec_bench.studies import Trial
from mmrec_bench.tables import number
from mmrec_bench.terminal import Block, Heading, Role, Table


def trials_table(selection: Selection, *, most: int = 10) -> list[Block]:
    """Show the best trials of a search with what they tried, then those that failed."""
    search, ranking = selection.search, selection.ranking()
    shown = [key.removeprefix("model.") for key in search.space]
    header = ["trial", f"validation {search.metric}", *shown, "seconds"]
    rows = [
        [
            f"{one.number + 1}{' (as it is)' if one == selection.own else ''}",
            _spread(one),
            *(as_text(one.settings[key]) for key in search.space),
            f"{one.seconds:.1f}",
        ]
        for one in ranking[:most]
    ]
    spec = selection.planned.spec
    better = "higher" if selection.higher_is_better else "lower"
    title = (
        f"{spec.model.name} on {spec.dataset.name}: {selection.count()}, {selection.n_cases} "
        f"validation cases, no test case; {search.metric}: {better} is better"
    )
    best: dict[tuple[int, int], Role] = {(0, 1): "best"} if len(ranking) > 1 else {}
    blocks: list[Block] = [Heading(title), "", Table(header, rows, best)]
    if len(ranking) > most:
        blocks.append(f"... and {len(ranking) - most} more; --json has them all")
    failed = [one for one in selection.trials if one.state == "failed"]
    blocks += ["", *(f"trial {one.number + 1} failed: {one.reason}" for one in failed[:most])]
    if len(failed) > most:
        blocks.append(f"... and {len(failed) - most} more failed")
    return [*blocks, *([""] if failed else []), f"study: {selection.folder}"]


def trials_rows(selection: Selection) -> dict[str, object]:
    """Return the same for scripts, with every trial."""
    spec = selection.planned.spec
    return {
        "study": str(selection.folder),
        "model": spec.model.name,
        "dataset": spec.dataset.model_dump(),
        "metric": selection.search.metric,
        "better": "higher" if selection.higher_is_better else "lower",
        "n_validation_cases": selection.n_cases,
        "space": {key: str(domain) for key, domain in selection.search.space.items()},
        "best": _trial_row(selection.best),
        "run_id": spec.run_id,
        "trials": [_trial_row(one) for one in selection.trials],
    }


def _trial_row(one: Trial) -> dict[str, object]:
    return {
        "trial": one.number + 1,
        "state": one.state,
        "value": one.value,
        "values": list(one.values),
        "settings": one.settings,
        "seconds": round(one.seconds, 3),
        "reason": one.reason,
        "same_as": None if one.same_as is None else one.same_as + 1,
    }


def _spread(one: Trial) -> str:
    """Show the value, and how far apart the seeds of its fits are."""
    if len(one.values) < 2:
        return number(one.value)
    return f"{number(one.value)} ({number(min(one.values))} to {number(max(one.values))})"
