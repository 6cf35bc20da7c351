"""From a request to a corpus folder: jobs, teacher, filters, files."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.files import LockHolder, locked, remove_temporary
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import Plugins
from mmrec_bench.progress import progress
from mmrec_bench.teaching import Teacher, WritingRequest, Written
from mmrec_plugins.instructions.building.attributes import attribute_jobs
from mmrec_plugins.instructions.building.config import BuildRequest
from mmrec_plugins.instructions.building.jobs import Job, Made, Rejected, work
from mmrec_plugins.instructions.building.journal import Asking, Journal
from mmrec_plugins.instructions.building.outputs import read_earlier, write_outputs
from mmrec_plugins.instructions.building.profile import profile_jobs
from mmrec_plugins.instructions.building.provenance import Origin
from mmrec_plugins.instructions.building.quality import Filters
from mmrec_plugins.instructions.building.recommendation import recommendation_jobs
from mmrec_plugins.instructions.building.report import BuildReport, KindReport, make_report
from mmrec_plugins.instructions.building.sources import Prepared, prepare
from mmrec_plugins.instructions.corpus import KINDS, CorpusEntry, Kind

log = logging.getLogger("mmrec_bench")
JOURNAL = "answers.jsonl"


@dataclass(frozen=True)
class Workshop:
    """A teacher and what it writes from.

    Attributes:
        request: what is built.
        prepared: data set, split and card.
        teacher: who writes.
        origin: provenance of every entry.
        plugins: for the instruction builders.
    """

    request: BuildRequest
    prepared: Prepared
    teacher: Teacher
    origin: Origin
    plugins: Plugins

    def jobs(self, kind: Kind) -> Iterator[Job]:
        """Yield the jobs of one kind."""
        sources = self.prepared.sources
        if kind == "attributes":
            return attribute_jobs(sources, self.origin)
        if kind == "profile":
            return profile_jobs(sources, self.origin)
        return recommendation_jobs(kind, sources, self.origin, self.plugins)


def open_workshop(request: BuildRequest, workspace: Workspace, plugins: Plugins) -> Workshop:
    """Check names and options, load the teacher, and read the data set.

    Raises:
        MMRecError: an unknown name or option, or data that cannot be read.
    """
    registry = plugins["teacher"]
    config = registry.configure(request.teacher, _options(request, plugins), "teacher")
    for kind in ("dataset", "encoder"):
        component = getattr(request.run, kind)
        if component is not None:
            plugins[kind].configure(component.name, component.options, kind)
    teacher: Teacher = registry.create(request.teacher, config)
    prepared = prepare(request, workspace, plugins, looks=looks_at_pictures(teacher))
    sources = prepared.sources
    origin = Origin(
        dataset=sources.dataset,
        dataset_version=sources.version,
        teacher=request.teacher_label,
        teacher_fingerprint=teacher.fingerprint(),
        language=request.language,
    )
    return Workshop(request, prepared, teacher, origin, plugins)


def looks_at_pictures(teacher: Teacher) -> bool:
    """Return whether a teacher sees `Image` parts: one that does says so (`looks_at_pictures`)."""
    return bool(getattr(teacher, "looks_at_pictures", False))


def _at_once(workshop: Workshop) -> int:
    """Return how many entries are written side by side: all of them where answers take hours."""
    batches = getattr(getattr(workshop.teacher, "config", None), "batch", False)
    return sys.maxsize if batches else workshop.request.building.batch_size


def _options(request: BuildRequest, plugins: Plugins) -> dict[str, Any]:
    options = dict(request.teacher_options)
    fields = plugins["teacher"].load(request.teacher).Config.model_fields
    if "model" in options and "model" not in fields:
        raise ConfigError(
            f"teacher {request.teacher!r} takes no model, but {request.teacher_label!r} was asked "
            "for"
        )
    return options


def build(workshop: Workshop, output: Path) -> BuildReport:
    """Write the corpus and its reports; a killed build goes on where it stopped.

    Raises:
        StorageError: another process builds there, or the files cannot be written.
    """
    with locked(output, on_wait=lambda who: _say_waiting(output, who)):
        remove_temporary(output)
        earlier = read_earlier(output)
        remembers = not getattr(workshop.teacher, "answers_with_draft", False)
        journal = Journal(output / JOURNAL) if remembers else None
        if journal is not None:
            log.info("%s: %d answers are there already", journal.path, len(journal))
        corpus: list[CorpusEntry] = []
        kinds: dict[str, KindReport] = {}
        report = make_report(workshop.request, workshop.prepared, workshop.origin, kinds)
        others = check_earlier(report, earlier, workshop.request.kinds, output)
        for kind in workshop.request.kinds:
            asking = Asking(workshop.teacher, journal)
            judged = _filters(workshop).judge(_write_kind(workshop, kind, asking))
            kinds[kind] = KindReport.of(kind, judged, asking.account)
            corpus += judged.kept
        ordered = {kind: one for kind in KINDS if (one := {**others, **kinds}.get(kind))}
        report = report.model_copy(update={"kinds": ordered})
        write_outputs(output, corpus, workshop.request.kinds, report, workshop.prepared)
        return report


def check_earlier(
    report: BuildReport, earlier: BuildReport | None, kinds: Sequence[Kind], output: Path
) -> dict[str, KindReport]:
    """Return the reports of other kinds that lie in the folder and stay there.

    Raises:
        StorageError: they were built with other options, so that one report cannot hold for all.
    """
    others = {} if earlier is None else {k: v for k, v in earlier.kinds.items() if k not in kinds}
    if earlier is not None and others and not report.goes_with(earlier):
        raise StorageError(
            f"{output} holds {', '.join(others)} of another build (teacher "
            f"{earlier.teacher['name']}, other options or data); build all kinds again, or choose "
            "another --output"
        )
    return others


def _filters(workshop: Workshop) -> Filters:
    request, prepared = workshop.request, workshop.prepared
    return Filters(request.building, request.language, prepared.sources.catalog, prepared.truth)


def _write_kind(
    workshop: Workshop, kind: Kind, ask: Callable[[Sequence[WritingRequest]], list[Written]]
) -> list[Made | Rejected]:
    label = workshop.request.teacher_label
    total = count_jobs(workshop, kind)
    with progress(f"writing {kind} with {label}", total=total, unit="entries") as bar:
        return work(
            workshop.jobs(kind),
            ask,
            at_once=_at_once(workshop),
            on_done=bar.advance,
        )


def count_jobs(workshop: Workshop, kind: Kind) -> int:
    """Return the number of entries that one kind will try to write."""
    return sum(1 for _ in workshop.jobs(kind))


def _say_waiting(path: Path, who: LockHolder) -> None:
    log.warning("%s is being built by %s; waiting for it (Ctrl-C to stop waiting)", path, who)
