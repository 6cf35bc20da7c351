"""A static site of all records: leaderboards, plots and a case explorer; opens from disk."""

from mmrec_bench.report.site import ReportOptions, build_report

__all__ = ["ReportOptions", "build_report"]
