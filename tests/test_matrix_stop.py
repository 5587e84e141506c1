"""Where a run with a matrix stops: what is answered by then can be compared, whichever model was faster.

Rows are handed out in the same order in all cells. So the answered rows of the slower of two models are among those of
the faster one but for what was in flight, and the cells of one model differ by at most 32 rows and that. The weekly
sizes: `STOP_ROWS=1000 STOP_SAMPLES=8 SLOW_ROWS=20000 pytest tests/test_matrix_stop.py`.
"""

import asyncio
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import cometbatch
from tests import virtual_time
from tests.workbench import Workbench

ROWS = int(os.environ.get("STOP_ROWS", "150"))
SAMPLES = int(os.environ.get("STOP_SAMPLES", "4"))
SLOW_ROWS = int(os.environ.get("SLOW_ROWS", "600"))
SLOTS = 40
MADE_AT_ONCE = 32  # rows of a slice that are made into requests before those of the next
INPUT, OUTPUT = Decimal("0.4"), Decimal("1.1")  # US dollars per million tokens


class Service(httpx.AsyncBaseTransport):
    """A chat service with these models: each takes its own seconds, times something near 1, and counts its costs."""

    def __init__(self, latency_s: Mapping[str, float]) -> None:
        self.latency_s = latency_s
        self.cost_usd = Decimal(0)
        self.answered = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            prices = {"currency": "USD / M Tokens", "input": float(INPUT), "output": float(OUTPUT)}
            models = [{"id": name, "code": name, "model_type": "text", "pricing": prices} for name in self.latency_s]
            return httpx.Response(200, json={"success": True, "total": len(models), "data": models})
        body = json.loads(request.content)
        tokens = 20 + len(request.content) % 17
        await asyncio.sleep(self.latency_s[body["model"]] * (1 + tokens / 100))
        self.answered += 1
        self.cost_usd += (20 * INPUT + tokens * OUTPUT) / 1_000_000
        choice = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": tokens}
        return httpx.Response(200, json={"model": body["model"], "choices": [choice], "usage": usage})


def stopped_run(
    folder: Path, service: Service, rows: int, budget_usd: float, matrix: Mapping[str, object]
) -> cometbatch.RunSummary:
    """A run with a budget for a part of it, as it stands when that is spent."""
    bench = Workbench(folder)
    bench.write_rows(rows)
    settings = bench.settings(
        matrix={"model": list(service.latency_s), **matrix},
        budget={"max_cost_usd": budget_usd},
        limits={"concurrency": SLOTS},
        output={"partition_rows": 64},
    )
    del settings["target"]["model"]
    job = cometbatch.load_job(settings)
    with pytest.raises(cometbatch.BudgetReachedError) as stopped:
        virtual_time.run(cometbatch.run_async(job, progress=False, http=service))
    return stopped.value.summary


def answered_by_model(summary: cometbatch.RunSummary, *axes: str) -> dict[str, dict[tuple[Any, ...], set[int]]]:
    """The rows with an answer, by model and slice."""
    found: dict[str, dict[tuple[Any, ...], set[int]]] = defaultdict(lambda: defaultdict(set))
    for line in summary.iter_rows():
        assert line["status"] == "succeeded"
        found[line["model"]][tuple(line[name] for name in axes)].add(line["row"])
    return found


def assert_fair(found: Mapping[str, Mapping[tuple[Any, ...], set[int]]]) -> None:
    """What can be compared is all but what was in flight."""
    for slices in found.values():
        counts = [len(rows) for rows in slices.values()]
        assert max(counts) - min(counts) <= MADE_AT_ONCE + SLOTS
    calls = {model: {(key, row) for key, rows in slices.items() for row in rows} for model, slices in found.items()}
    for one, other in itertools.combinations(calls, 2):
        slower, faster = sorted((calls[one], calls[other]), key=len)
        assert len(slower - faster) <= SLOTS


def test_a_budget_for_half_is_spent_fairly(tmp_path: Path) -> None:
    """Five models of different speed, several samples, a budget for half: exit 4, and every answer can be compared."""
    service = Service({f"model-{number}": 0.5 + 0.4 * number for number in range(5)})
    each = (20 * INPUT + 28 * OUTPUT) / 1_000_000
    calls = 5 * SAMPLES * ROWS
    summary = stopped_run(tmp_path, service, ROWS, float(each * calls / 2), {"samples": SAMPLES})
    assert 0.4 * calls < service.answered < 0.6 * calls
    assert summary.cost_usd == service.cost_usd
    found = answered_by_model(summary, "sample")
    assert (len(found), sum(len(rows) for slices in found.values() for rows in slices.values())) == (
        5,
        service.answered,
    )
    assert_fair(found)


def test_a_slow_model_holds_up_nobody_and_is_fair_where_it_stops(tmp_path: Path) -> None:
    """One model ten times slower than two others: ranges that it alone needs are set aside, and read again later."""
    service = Service({"fast": 0.2, "slow": 2.0, "swift": 0.25})
    each = (20 * INPUT + 28 * OUTPUT) / 1_000_000
    summary = stopped_run(tmp_path, service, SLOW_ROWS, float(each * SLOW_ROWS * 4), {"params.temperature": [0, 1]})
    assert summary.cost_usd == service.cost_usd
    found = answered_by_model(summary, "temperature")
    sizes = {model: sum(map(len, slices.values())) for model, slices in found.items()}
    assert sizes["slow"] < sizes["swift"] / 2
    assert_fair(found)
