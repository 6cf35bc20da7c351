"""The prompts of language models, built again by the run's own instruction builder."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrec_bench import transfer
from mmrec_bench.asking import shown_orders
from mmrec_bench.collecting import training_data
from mmrec_bench.errors import MMRecError
from mmrec_bench.interfaces import InstructionBuilder
from mmrec_bench.permutations import show
from mmrec_bench.planning import PlannedRun, Task
from mmrec_bench.plugins import Plugins
from mmrec_bench.report.sources import ShownRun
from mmrec_bench.types import Catalog, Image, Int64Array, Message, Queries, Text


@dataclass(frozen=True)
class Asked:
    """How some runs were asked.

    Attributes:
        runs: places of the runs in the explorer that share these prompts.
        orders: (B, n, C) in which candidates were shown.
        builder: of the prompts.
        catalog: as the runs saw it.
        queries: of the cases shown.
    """

    runs: tuple[int, ...]
    orders: Int64Array
    builder: InstructionBuilder
    catalog: Catalog
    queries: Queries

    def prompts(self, start: int, stop: int) -> Iterator[list[tuple[Message, ...]]]:
        """Yield the conversations of cases, one an order of the candidates."""
        for row in range(start, stop):
            own = self.queries[row : row + 1]
            yield [
                self.builder.build(
                    show(own, self.orders[row : row + 1, number])[0], self.catalog
                ).messages
                for number in range(self.orders.shape[1])
            ]


def asked(
    runs: Sequence[ShownRun], task: Task, plugins: Plugins, scratch: Path
) -> tuple[list[Asked], list[str]]:
    """Prepare the builders of runs that read instructions; say which cannot be built again.

    Args:
        runs: of one board.
        task: its cases.
        plugins: for builders and encoders.
        scratch: a folder for what an encoder or a builder wants to write.
    """
    groups: dict[str, list[int]] = {}
    planned: dict[str, PlannedRun] = {}
    notes: list[str] = []
    for place, run in enumerate(runs):
        try:
            one = _planned(run, plugins)
        except MMRecError as error:
            notes.append(f"how {run.row.label} was asked is not known here: {error}")
            continue
        if one.recommender.reads_instructions:
            mark = _mark(run)
            groups.setdefault(mark, []).append(place)
            planned.setdefault(mark, one)
    found = []
    for mark, places in groups.items():
        try:
            found.append(_asked(tuple(places), planned[mark], task, plugins, scratch))
        except MMRecError as error:
            labels = ", ".join(runs[place].row.label for place in places)
            notes.append(f"prompts of {labels} cannot be built again here: {error}")
    return found, notes


def parts_of(message: Message) -> list[str | tuple[Path | None, int]]:
    """Return a message as texts, and (file, item) for pictures."""
    return [
        part.text if isinstance(part, Text) else (part.path, part.item)
        for part in message.parts
        if isinstance(part, Text | Image)
    ]


def _planned(run: ShownRun, plugins: Plugins) -> PlannedRun:
    """Put the run together as it was planned, without looking for its weights."""
    config, registry = run.request.config, plugins["model"]
    cls: type[Any] = registry.load(config.model.name)
    options = registry.configure(config.model.name, config.model.options, "model")
    return PlannedRun(config, run.request.spec, cls, options, ())


def _mark(run: ShownRun) -> str:
    """Name all that a prompt depends on: runs of one mark were asked alike."""
    spec = run.request.spec.model_dump(mode="json")
    names = ("instructions", "encoder", "vectors", "seed", "images", "permutations", "transfer")
    return json.dumps([spec[name] for name in names], sort_keys=True)


def _asked(
    places: tuple[int, ...], planned: PlannedRun, task: Task, plugins: Plugins, scratch: Path
) -> Asked:
    if task.source is not None:
        task = replace(task, split=transfer.without_training(task.split))
    data = training_data(planned, task, plugins, device="cpu", scratch=scratch)
    orders = shown_orders(planned, task.split.test)
    if orders is None or data.builder is None:
        raise MMRecError("its candidates are the whole catalog, which no prompt lists")
    return Asked(places, orders, data.builder, data.catalog, task.split.test.queries)
