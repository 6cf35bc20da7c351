"""What checks found wrong."""

from collections.abc import Sequence

from mmrec_bench.contract.findings import Result


def failed(results: Sequence[Result]) -> dict[str, Result]:
    return {one.check: one for one in results if one.outcome == "failed"}
