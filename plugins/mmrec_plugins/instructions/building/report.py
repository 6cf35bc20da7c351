"""The report of a build: what was kept, what was rejected and why, and what it took."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from mmrec_bench.config import identity
from mmrec_bench.records import now
from mmrec_plugins.instructions.building.account import Account
from mmrec_plugins.instructions.building.config import BuildRequest
from mmrec_plugins.instructions.building.provenance import Origin
from mmrec_plugins.instructions.building.quality import Judged
from mmrec_plugins.instructions.building.sources import Prepared
from mmrec_plugins.instructions.corpus import Kind

_EXAMPLES = 3
_DETAIL = 240


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KindReport(_Strict):
    """One kind of instruction.

    Attributes:
        tried: entries that were begun.
        kept: entries in the corpus.
        train: of these, for tuning.
        validation: of these, for validation.
        repaired: kept entries of which something was mended or dropped.
        rejected: reason -> entries.
        examples: reason -> what was found, a few each.
        facts: what else was counted.
        account: requests, tokens, cost (null = not known) and seconds.
    """

    tried: int
    kept: int
    train: int
    validation: int
    repaired: int
    rejected: Mapping[str, int] = Field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    facts: Mapping[str, int] = Field(default_factory=dict)
    account: Account = Account()

    @classmethod
    def of(cls, kind: Kind, judged: Judged, account: Account) -> Self:
        """Count what became of the entries of a kind."""
        kept = judged.kept
        examples: dict[str, list[str]] = {}
        for one in judged.rejected:
            found = examples.setdefault(one.reason, [])
            if len(found) < _EXAMPLES:
                found.append(f"{one.about}: {one.detail}"[:_DETAIL])
        splits = Counter(entry.split for entry in kept)
        return cls(
            tried=len(kept) + len(judged.rejected),
            kept=len(kept),
            train=splits["train"],
            validation=splits["validation"],
            repaired=sum(entry.outcome == "repaired" for entry in kept),
            rejected=judged.reasons(kind),
            examples={reason: tuple(found) for reason, found in examples.items()},
            facts=_facts(kind, judged),
            account=account,
        )


def _facts(kind: Kind, judged: Judged) -> dict[str, int]:
    kept = judged.kept
    if kind == "attributes":
        fields = [field for entry in kept for field in entry.value["attributes"].values()]
        sources = Counter(field["source"] for field in fields)
        return {"fields_from_text": sources["text"], "fields_from_image": sources["image"]}
    if kind == "profile":
        return {"with_visual_taste": sum(bool(entry.value["visual_taste"]) for entry in kept)}
    facts = {"with_held_out_negative": judged.held_out_negatives}
    agreeing = [entry.value["teacher_agrees"] for entry in kept if "teacher_agrees" in entry.value]
    if agreeing:
        facts |= {"teacher_ranked": len(agreeing), "teacher_put_target_first": sum(agreeing)}
    return facts


class BuildReport(_Strict):
    """A whole build.

    Attributes:
        created: UTC time.
        dataset: name, version, licence and source.
        protocol: under which train was taken.
        build: options that decide what is written.
        teacher: as asked for, with its fingerprint.
        kinds: one report a kind.
    """

    created: str
    dataset: Mapping[str, Any]
    protocol: Mapping[str, Any]
    build: Mapping[str, Any]
    teacher: Mapping[str, str]
    kinds: Mapping[str, KindReport]

    @property
    def n_kept(self) -> int:
        """Entries in the corpus."""
        return sum(kind.kept for kind in self.kinds.values())

    @property
    def account(self) -> Account:
        """What all kinds took together."""
        return sum((kind.account for kind in self.kinds.values()), Account())

    def goes_with(self, other: "BuildReport") -> bool:
        """Return whether two builds differ in nothing but the kinds that were built."""
        own = (self.dataset, self.protocol, self.build, self.teacher)
        return own == (other.dataset, other.protocol, other.build, other.teacher)


def make_report(
    request: BuildRequest,
    prepared: Prepared,
    origin: Origin,
    kinds: Mapping[str, KindReport],
) -> BuildReport:
    """Put a report together."""
    sources = prepared.sources
    return BuildReport(
        created=now(),
        dataset={
            "name": sources.dataset,
            "version": sources.version,
            "source": prepared.card.source,
            "licence": prepared.card.licence,
            "n_users": len(sources.users),
            "n_items": len(sources.catalog),
            "n_train": len(sources.train),
        },
        protocol=request.run.protocol.model_dump(mode="json"),
        build={
            **identity(request.building),
            "language": request.language,
            "seed": request.run.seed,
            "limit": request.limit,
            "instructions": request.run.instructions.options,
            "encoder": request.run.encoder.name if request.run.encoder else None,
        },
        teacher={"name": origin.teacher, "fingerprint": origin.teacher_fingerprint},
        kinds=kinds,
    )


def kinds_table(report: BuildReport) -> str:
    """Return the counts as a table in Markdown."""
    lines = [
        "| kind | tried | kept | train | validation | repaired | rejected |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, kind in report.kinds.items():
        why = ", ".join(f"{reason} {n}" for reason, n in kind.rejected.items()) or "none"
        lines.append(
            f"| {name} | {kind.tried} | {kind.kept} | {kind.train} | {kind.validation} | "
            f"{kind.repaired} | {why} |"
        )
    return "\n".join(lines)


def account_line(report: BuildReport) -> str:
    """Return what the build took in one line."""
    account = report.account
    price = "cost not known" if account.cost is None else f"{account.cost:.4f} USD"
    return (
        f"{account.requests} requests ({account.remembered} answered before), "
        f"{account.prompt_tokens} tokens read, {account.answer_tokens} written, {price}, "
        f"{account.seconds:.1f} s"
    )


def readable(report: BuildReport) -> str:
    """Return the report as Markdown."""
    data = report.dataset
    written = (
        f"Written by `{report.teacher['name']}` in {report.build['language']}, "
        f"{report.created}; {data['n_users']} users, {data['n_items']} items, "
        f"{data['n_train']} train interactions (version {str(data['version'])[:12]})."
    )
    lines = [
        f"# Instruction corpus of {data['name']}",
        "",
        written,
        "",
        kinds_table(report),
        "",
        f"Took: {account_line(report)}.",
    ]
    for name, kind in report.kinds.items():
        if kind.facts:
            facts = ", ".join(f"{fact.replace('_', ' ')} {n}" for fact, n in kind.facts.items())
            lines += ["", f"{name}: {facts}."]
    rejected = [
        f"- {name}, {reason}: {_inline(example)}"
        for name, kind in report.kinds.items()
        for reason, examples in kind.examples.items()
        for example in examples
    ]
    if rejected:
        lines += ["", "## Rejected, for example", "", *rejected]
    return "\n".join(lines) + "\n"


def _inline(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    flat = " ".join(text.split()).replace("`", "'")
    return f"`{flat}`" if flat else "(nothing)"
