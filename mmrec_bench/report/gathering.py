"""What the pages of one board show: its rows, its files' name and the cases of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mmrec_bench.cases import CaseTable
from mmrec_bench.leaderboard import Board
from mmrec_bench.report.escaping import slug


@dataclass(frozen=True)
class Sheet:
    """A board as a page.

    Attributes:
        board: its rows.
    """

    board: Board

    @property
    def name(self) -> str:
        """Return what the board's files are called."""
        return f"{slug(self.board.dataset)}-{slug(self.board.protocol_id)}"

    @property
    def where(self) -> str:
        """Return the protocol in a line, without the data set's name."""
        return " · ".join(self.board.words)

    @cached_property
    def cases(self) -> Mapping[int, tuple[CaseTable, ...]]:
        """Row number -> per-case tables of its seeds; only rows on the cases of the first."""
        found = {n: row.cases for n, row in enumerate(self.board.rows, start=1) if row.cases}
        if not found:
            return found
        users = next(iter(found.values()))[0].users_hash
        return {n: some for n, some in found.items() if all(t.users_hash == users for t in some)}
