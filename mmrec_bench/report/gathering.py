"""What the pages of one board show: its rows, their files and their cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmrec_bench.cases import CaseTable, cases_path, read_cases
from mmrec_bench.leaderboard import Board, Row
from mmrec_bench.records import Stored
from mmrec_bench.report.escaping import slug


@dataclass(frozen=True)
class Sheet:
    """A board and what lies beside its records.

    Attributes:
        board: its rows.
        stored: run_id -> record and file.
        cases: row number -> per-case tables of its seeds; only rows that have all of them.
    """

    board: Board
    stored: Mapping[str, Stored]
    cases: Mapping[int, tuple[CaseTable, ...]]

    @property
    def name(self) -> str:
        """Return what the board's files are called."""
        return f"{slug(self.board.dataset)}-{slug(self.board.protocol_id)}"

    @property
    def where(self) -> str:
        """Return the protocol in a line, without the data set's name."""
        facts = self.board.rows[0].facts
        many = _count(facts["n_candidates"])
        shown = (
            f"the whole catalog of {many} items"
            if facts["candidates"] == "full"
            else f"{many} candidates ({facts['candidates']})"
        )
        words = [f"{_count(facts['n_cases'])} test cases", str(facts["split"]), shown]
        words += self.board.rows[0].records[0].spec.transfer_words()
        return " · ".join(words)


def sheet(board: Board, stored: Sequence[Stored]) -> Sheet:
    """Read what lies beside the records of a board.

    Raises:
        StorageError: per-case values that do not belong to their record.
    """
    by_id = {one.record.run_id: one for one in stored}
    cases = {}
    for number, row in enumerate(board.rows, start=1):
        found = _tables(row, by_id)
        if found:
            cases[number] = found
    first = next(iter(cases.values()), None)
    if first is not None:  # another version may have kept other cases
        same = first[0].users_hash
        cases = {n: some for n, some in cases.items() if all(t.users_hash == same for t in some)}
    return Sheet(board, by_id, cases)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _tables(row: Row, stored: Mapping[str, Stored]) -> tuple[CaseTable, ...]:
    found = []
    for record in row.records:
        path = stored[record.run_id].path
        if not record.cases or not cases_path(path).exists():
            return ()
        found.append(read_cases(path, record.cases))
    return tuple(found)
