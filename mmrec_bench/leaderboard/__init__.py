"""Leaderboards: a pure function of records and of the per-case values beside them."""

from mmrec_bench.leaderboard.building import build, by_board
from mmrec_bench.leaderboard.formats import FORMATS, render, to_blocks, to_values
from mmrec_bench.leaderboard.rows import LEVEL, Board, Cell, Row, told_apart
from mmrec_bench.leaderboard.seeds import averaged

__all__ = [
    "FORMATS",
    "LEVEL",
    "Board",
    "Cell",
    "Row",
    "averaged",
    "build",
    "by_board",
    "render",
    "to_blocks",
    "to_values",
    "told_apart",
]
