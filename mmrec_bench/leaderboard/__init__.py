"""Leaderboards: a pure function of records and of the per-case values beside them."""

from mmrec_bench.leaderboard.formats import FORMATS, render, to_blocks
from mmrec_bench.leaderboard.rows import Board, Row, build

__all__ = ["FORMATS", "Board", "Row", "build", "render", "to_blocks"]
