"""Errors and results can be sent to another process, and copied, without losing anything.

A pool of processes pickles what its workers return or raise. An error that can't be unpickled breaks a
`ProcessPoolExecutor`, and a `multiprocessing.Pool` waits for it for ever.
"""

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cometbatch
from cometbatch.commands.judge_summary import PlannedTable
from cometbatch.commands.verify_report import Check
from cometbatch.errors import CometbatchError
from cometbatch.job.settings import BudgetSettings
from cometbatch.money.prices import CatalogEntry
from cometbatch.prompt.template import TemplateError
from cometbatch.records import Answered, Completion, Failed, Failure, PoolStats, PriceBook, Rates, Tally, Usage
from cometbatch.results.scored import ScoreCounts
from cometbatch.results.summary import RunStoppedError, RunSummary
from cometbatch.run_state.journal import Damage, DamagedJournalError
from cometbatch.run_state.names import LostFileError
from cometbatch.service.model_list import ListedModel
from cometbatch.transport.key import NoKeyError
from tests.workbench import Network, Workbench

for found in pkgutil.walk_packages(cometbatch.__path__, "cometbatch."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)

WHEN = datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
USAGE = Usage(input_tokens=10, output_tokens=5)
ANSWERED = Answered(
    ordinal=3,
    status="succeeded",
    custom_id="p-3",
    attempts=2,
    latency_s=0.5,
    finished_at=WHEN,
    request_hash="ab" * 8,
    http_status=200,
    request_id="req-1",
    completion=Completion(text="Schön", finish_reason="stop", usage=USAGE),
    cost_usd=Decimal("0.000123"),
)
FAILED = Failed(
    ordinal=4,
    custom_id=None,
    attempts=5,
    latency_s=1.5,
    finished_at=WHEN,
    request_hash=None,
    failure=Failure("overloaded", "no channel", status=503, code="busy"),
)
SUMMARY = RunSummary(
    run_id="0123",
    output=Path("/data/caf\udce9/out.parquet"),
    rows=2,
    tally=Tally(succeeded=1, failed=1, cost_usd=Decimal("0.000123"), failures={"overloaded": 1}),
    prices=PriceBook("a-model", "catalog", Rates(input=Decimal(1), output=Decimal("2.5"))),
    finished=False,
    pool=PoolStats(requests=3, opened=1, most_open=1),
    warnings=("one", "two"),
)
RESULTS: tuple[msgspec.Struct, ...] = (
    ANSWERED,
    ANSWERED.completion,
    USAGE,
    FAILED,
    FAILED.failure,
    SUMMARY,
    cometbatch.RunStatus(
        SUMMARY, running=True, in_flight=3, created_at="2025", partitions=2, committed=1, latency_s={"max": 1.0}
    ),
    cometbatch.Verification(
        Path("/data/out.parquet"), "0123", 2, (Check("rows", "each row once", "failed", 1, ("row 3",)),)
    ),
    cometbatch.Behaviour(faults=(cometbatch.parse_fault("429:0.5"),), credit_usd=Decimal("0.5")),
    cometbatch.JobBegun(
        Path("job.yaml"),
        Path("s.json"),
        Path("t.csv"),
        2,
        ("id", "note"),
        "id",
        "note",
        ("0  id: 1",),
        ("one",),
        "next",
    ),
    cometbatch.JudgeSummary(Path("/data/out.judge"), "a-judge", (SUMMARY,), Decimal("0.01"), notes=("one",)),
    cometbatch.ReportFile(Path("report.html"), 100, 2_000, 340_000, ("one",)),
    cometbatch.Score(0.5, "42", None),
    cometbatch.ScoreSummary(Path("/data/out.parquet"), ("correct",), ScoreCounts(2)),
    cometbatch.Figures(("out.parquet",), ("model",), (), (), cost_usd=Decimal("0.01")),
    cometbatch.JudgePlan(
        (PlannedTable("b against a", Path("/data/out.judge/1.parquet"), 2, None),),
        "a-judge",
        BudgetSettings(Decimal(5)),
        Decimal(0),
    ),
    cometbatch.ModelList(
        "simulator", (ListedModel(CatalogEntry("m", input=Decimal("0.1")), formats=("chat",)),), 1, WHEN
    ),
)


def errors() -> list[type[CometbatchError]]:
    """The base of our errors, and every class below it, in whichever room it lies."""
    known, new = set[type[CometbatchError]](), [CometbatchError]
    while new:
        kind = new.pop()
        if kind.__module__.startswith("cometbatch.") and kind not in known:
            known.add(kind)
            new.extend(kind.__subclasses__())
    return sorted(known, key=lambda kind: kind.__qualname__)


def example(kind: type[CometbatchError]) -> CometbatchError:
    """An error of this class with all its parts. A class with parameters of its own needs a line here."""
    if issubclass(kind, RunStoppedError):
        return kind("Stopped. Add credit.", SUMMARY)
    if issubclass(kind, TemplateError):
        return kind("no column 'x'", index=1, role="user", line=7, hint="the columns are a, b")
    if issubclass(kind, NoKeyError):
        return kind("the file /key is not there", "Write the key into it.")
    if issubclass(kind, LostFileError):
        return kind(Path("caf\udce9.run/sessions/1.json"), "this file is gone")
    if issubclass(kind, DamagedJournalError):
        return kind(Path("caf\udce9.run/journal/00000.s001.jsonl"), Damage(120, 3, 7))
    return kind("caf\udce9: what happened. What to do.")


def pickled(value: Any) -> Any:
    """The value as another process gets it."""
    return pickle.loads(pickle.dumps(value))


def sent_long_ago(value: Any) -> Any:
    """The same by the oldest protocol, which some queues still use."""
    return pickle.loads(pickle.dumps(value, protocol=0))


def said(result: Any) -> object:
    """What a result says to a person and to a program; an outcome says nothing."""
    return (result.describe(), result.to_dict()) if hasattr(result, "describe") else None


COPIES = pytest.mark.parametrize("copied", [pickled, sent_long_ago, copy.deepcopy, copy.copy])


@COPIES
@pytest.mark.parametrize("kind", errors())
def test_an_error_survives(kind: type[CometbatchError], copied: Callable[[Any], Any]) -> None:
    """Class, arguments, message, exit code and every attribute are equal in a copy, also notes added on the way."""
    error = example(kind)
    error.add_note("seen in batch 7")
    other = copied(error)
    assert type(other) is kind
    assert other is not error
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert (vars(other), other.exit_code) == (vars(error), error.exit_code)


@COPIES
@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_survives(result: msgspec.Struct, copied: Callable[[Any], Any]) -> None:
    """A copy is equal, of the same type, and says the same."""
    other = copied(result)
    assert type(other) is type(result)
    assert other == result
    assert said(other) == said(result)


@COPIES
def test_a_job_and_its_plan_survive(bench: Workbench, copied: Callable[[Any], Any]) -> None:
    """A job can be loaded in one process and run in another."""
    job = bench.job(output={"partition_rows": 4})
    assert copied(job) == job
    plan = cometbatch.plan(job, http=Network())
    assert copied(plan) == plan
    assert copied(plan).to_dict() == plan.to_dict()


def test_no_public_name_is_left_out() -> None:
    """Every class among the package's public names is an error or has an example above.

    What reads a run's files row by row is opened where it is read, and limits are shared within one process.
    """
    public = {value for name in cometbatch.__all__ if isinstance(value := getattr(cometbatch, name), type)}
    covered: set[type] = {type(result) for result in RESULTS} | set(errors()) | {cometbatch.Job, cometbatch.RunPlan}
    covered |= {cometbatch.Export, cometbatch.Shown, cometbatch.Limits}
    assert public <= covered


def refused(settings: dict[str, Any]) -> None:
    """A run in a worker process that the service refuses."""
    cometbatch.run(cometbatch.load_job(settings), progress=False)


def test_a_pool_of_processes_hears_why_a_run_stopped(bench: Workbench) -> None:
    """The error that stops a run in a worker reaches the caller with the summary so far, and the pool stays usable."""
    settings = bench.settings(simulator={"faults": {"bad-key": 1.0}, "latency_s": 0})
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(RunStoppedError) as caught:
            pool.submit(refused, settings).result(timeout=60)
        assert (caught.value.exit_code, caught.value.summary.rows) == (5, 12)
        assert pool.submit(len, "abc").result(timeout=60) == 3
