"""What a leaderboard is made of: boards, their rows and the cells of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmrec_bench.cases import CaseTable
from mmrec_bench.records import RunRecord

LEVEL = 0.05
"""A corrected p-value below it marks a difference."""


@dataclass(frozen=True)
class Cell:
    """One metric of a row.

    Attributes:
        value: mean over seeds; None = undefined.
        low: lower end of the 95 % bootstrap interval over cases, seeds averaged first.
        high: upper end; both None where several seeds have no per-case values here.
        seed_sd: standard deviation of the seeds' values; None with one seed.
        p_best: corrected p-value of the difference from the best row; None for the best one, or
            where per-case values are not here.
        p_baseline: the same from the baseline that was asked for.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    seed_sd: float | None = None
    p_best: float | None = None
    p_baseline: float | None = None


@dataclass(frozen=True)
class Row:
    """One model with its options.

    Attributes:
        rank: within the board, by its first metric; equal values share a rank.
        label: its model and backbone, and what tells it apart from others of the same.
        records: one a seed, by seed.
        cells: metric -> cell.
        facts: columns of the table beside the metrics, raw values.
        cases: per-case values, one table a record; () where not all of them are here.
    """

    rank: int
    label: str
    records: tuple[RunRecord, ...]
    cells: Mapping[str, Cell]
    facts: Mapping[str, object]
    cases: tuple[CaseTable, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Board:
    """Rows of one data set and protocol.

    Attributes:
        dataset: its name.
        version: hash of its content.
        protocol_id: short hash of all that rows share.
        protocol: what it stands for.
        metrics: names, the one that ranks first.
        higher_is_better: metric -> bool.
        rows: best first.
        baseline: the row that p_baseline is about; None = none was asked for, or it is not here.
        note: what tells it from another board of the same title, e.g. "permute_ids=False".
    """

    dataset: str
    version: str
    protocol_id: str
    protocol: Mapping[str, object]
    metrics: tuple[str, ...]
    higher_is_better: Mapping[str, bool]
    rows: tuple[Row, ...]
    baseline: str | None = None
    note: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Cases, split, candidates, and what tells the board from others like it."""
        facts = self.rows[0].facts
        many = _count(facts["n_candidates"])
        shown = (
            f"the whole catalog of {many} items"
            if facts["candidates"] == "full"
            else f"{many} candidates ({facts['candidates']})"
        )
        words = [f"{_count(facts['n_cases'])} cases", str(facts["split"]), shown]
        words += self.rows[0].records[0].spec.transfer_words()
        return tuple([*words, self.note] if self.note else words)

    @property
    def title(self) -> str:
        """Data set, cases, split and candidates in a line."""
        return f"{self.dataset}: {', '.join(self.words)}"

    @property
    def legend(self) -> str:
        """What bold cells, marks and intervals mean, in sentences."""
        cells = [cell for row in self.rows for cell in row.cells.values()]
        marks = []
        if any(cell.p_best is not None for cell in cells):
            marks.append("† differs from the best row")
        if any(cell.p_baseline is not None for cell in cells):
            marks.append(f"‡ differs from {self.baseline}")
        parts = ["Bold: best."] if len(self.rows) > 1 else []
        parts.append("Interval: 95 %, bootstrap over cases.")
        if marks:
            test = f"p below {LEVEL:g}, sign-flip permutation test over cases, Holm over the rows"
            parts.append(f"{', '.join(marks)} ({test}).")
        elif len(self.rows) > 1:
            parts.append("No marks: per-case values do not lie beside these records.")
        return " ".join(parts)

    def best(self, metric: str) -> Row | None:
        """Return the first of the rows with the best value; None where no row has one."""
        values = [row.cells[metric].value for row in self.rows]
        place = best_place(values, higher_is_better=self.higher_is_better[metric])
        return None if place is None else self.rows[place]

    def is_best(self, row: Row, metric: str) -> bool:
        """Whether no row has a better value; several may share the best one."""
        best = self.best(metric)
        return best is not None and row.cells[metric].value == best.cells[metric].value


def best_place(values: Sequence[float | None], *, higher_is_better: bool) -> int | None:
    """Return where the first best value stands; None where none is defined."""
    sign = 1.0 if higher_is_better else -1.0
    defined = [(sign * value, -place) for place, value in enumerate(values) if value is not None]
    return -max(defined)[1] if defined else None


def told_apart(boards: Sequence[Board]) -> list[Board]:
    """Note on boards of equal titles what differs: parts of the protocol, the data, or its hash.

    Args:
        boards: all that are shown beside one another; what was noted on them before is forgotten.
    """
    bare = [replace(board, note="") for board in boards]
    noted = [replace(board, note=_difference(board, bare)) for board in bare]
    titles = [board.title for board in noted]
    return [
        replace(board, note=", ".join(filter(None, (board.note, f"protocol {board.protocol_id}"))))
        if titles.count(board.title) > 1
        else board
        for board in noted
    ]


def _difference(board: Board, boards: Sequence[Board]) -> str:
    others = [one for one in boards if one.title == board.title and one is not board]
    notes = [
        f"{name}={value}"
        for name, value in board.protocol.items()
        if any(one.protocol.get(name) != value for one in others)
    ]
    if any(one.version != board.version for one in others):
        notes.append(f"data {board.version[:8]}")
    return ", ".join(notes)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
