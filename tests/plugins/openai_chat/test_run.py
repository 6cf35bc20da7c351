from pathlib import Path
from typing import Any

import pytest

from mmrec_bench import planning, runner
from mmrec_bench.config import RunConfig
from mmrec_bench.errors import ModelError
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import installed
from mmrec_bench.records import RunRecord
from tests.plugins.openai_chat.faults import Answer, complete_batch, served

N_CASES = 70
"""More than the runner scores between two writes."""


def first_ten(_body: dict[str, Any], _n: int) -> Answer:
    return "\n".join("ABCDEFGHIJ")


def run(url: str, folder: Path, **options: Any) -> RunRecord:  # noqa: ANN401 - options of any kind
    model = {
        "name": "gpt-zero-shot",
        "base_url": url,
        "chat_model": "toy",
        "pictures": "off",
        "request_log": str(folder / "log.sqlite"),
        "backoff": 0.01,
        **options,
    }
    config = RunConfig.parse(
        {
            "model": model,
            "dataset": "amazon",
            "encoder": None,
            "limit_cases": N_CASES,
            "permutations": 2,
            "metrics": ("ndcg@10", "valid_rate"),
        }
    )
    workspace = Workspace(folder / "results", folder, "cpu")
    task = runner.prepare(config, workspace, installed())
    [planned] = planning.plan(task, workspace, installed(), baselines=False)
    return runner.run(planned, task, workspace, installed()).record


@pytest.mark.timeout(120)
def test_one_batch_holds_all_parts_and_orders_of_a_run(tmp_path: Path) -> None:
    with served(first_ten) as server:
        server.batch_rule = lambda batch: batch.update(status="in_progress")
        for _ in range(2):
            with pytest.raises(ModelError, match=f"with {2 * N_CASES} requests"):
                run(server.url, tmp_path, batch=True)
        server.batch_rule = complete_batch(server)
        record = run(server.url, tmp_path, batch=True)
        assert len(server.batches) == 1
        assert server.n_asked == 2 * N_CASES
        # budgets, addresses and batches are no part of a run: the same one, and nothing to ask
        assert run(server.url, tmp_path).run_id == record.run_id
        assert server.n_asked == 2 * N_CASES


@pytest.mark.timeout(120)
def test_a_record_tells_how_answers_were_read_where_targets_stood_and_what_is_not_known(
    tmp_path: Path,
) -> None:
    with served(first_ten) as server:
        record = run(server.url, tmp_path)
    assert record.counts["n_ok_answers"] == N_CASES
    assert record.counts["n_hallucinated_items"] == 0
    assert record.resources["cost_usd"] is None  # the price of `toy` is in no table
    assert record.resources["retries"] == 0
    assert "reported_model" in record.facts
    assert {"ndcg@10", "strict_ndcg@10", "valid_rate"} <= set(record.metrics)
    shown = record.positions
    assert sum(n or 0 for n in shown["n"]) == 2 * N_CASES
    # a model that always answers A, B, C ... puts the target first where it stands first
    assert [share for share in shown["hit_rate@1"] if share is not None] == [1.0, *[0.0] * 19]
