"""A first try against the simulator gives way to a run of the same job that names a service; nothing else does."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import cometbatch
from tests import virtual_time
from tests.test_cli import command
from tests.workbench import MODEL, Network, Workbench, carry_out, files, leave_in_flight, simulator

SERVICE = {"base_url": "https://service.example", "model": MODEL}
HERE = {"base_url": "http://127.0.0.1:9", "model": MODEL}
SAID = "asked the simulator and cost nothing"


def run_ids(bench: Workbench) -> tuple[str, int]:
    """The id of the run that stands there, and the number of its newest session."""
    return cometbatch.status(bench.output).summary.run_id, max(
        int(path.stem) for path in (bench.run_directory / "sessions").glob("*.json")
    )


def finished(bench: Workbench) -> None:
    """All rows are answered."""
    carry_out(bench.job(), Network())


def stopped(bench: Workbench) -> None:
    """Some rows are answered, and the others were in flight when the process died."""
    with pytest.raises(cometbatch.BudgetReachedError):
        carry_out(bench.job(budget={"max_cost_usd": Decimal("0.0004")}), Network())
    leave_in_flight(bench, [11])


def without_outcomes(bench: Workbench) -> None:
    """No row is answered, and one was in flight when the process died."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(target={"model": "no-such-model"}), Network())
    leave_in_flight(bench, [3])


def data_set(bench: Workbench) -> None:
    """All rows are answered, in a folder."""
    carry_out(bench.job(output={"path": f"{bench.folder}/rows/"}), Network())


@pytest.mark.parametrize("service", [SERVICE, HERE], ids=["service", "this machine"])
@pytest.mark.parametrize("before", [finished, stopped, without_outcomes, data_set])
def test_a_run_against_the_simulator_is_replaced_and_that_is_said(
    bench: Workbench, before: Any, service: Mapping[str, str]
) -> None:
    """Finished or not: all rows are sent to the service, and nothing of the simulator's is in bill or result."""
    before(bench)
    output = f"{bench.folder}/rows/" if before is data_set else str(bench.output)
    job, network = bench.job(target=service, output={"path": output}), simulator()
    plan = cometbatch.plan(job, http=simulator())
    assert (plan.done, sum(SAID in words for words in plan.warnings)) == (0, 1)
    summary = carry_out(job, network)
    assert (network.posts, summary.succeeded, summary.all_succeeded) == (12, 12, True)
    assert sum(SAID in words for words in summary.warnings) == 1
    assert Decimal(network.ledger["cost_usd"]) == summary.cost_usd
    assert (summary.resent, summary.possible_charges.charges) == (0, 0)
    assert cometbatch.verify(job).ok
    again = carry_out(job, network)
    assert (again.had_work, network.posts, again.warnings) == (False, 12, ())


def test_it_is_replaced_by_a_job_that_changed_in_all_else(bench: Workbench) -> None:
    """Prompt, format and input may be others by then: no answer of the simulator's is kept, so nothing can mix."""
    finished(bench)
    bench.write_rows(5)
    changes: dict[str, Any] = {"prompt": {"user": "{{ note }}"}, "target": {**SERVICE, "format": "messages"}}
    assert carry_out(bench.job(**changes), simulator()).succeeded == 5


@pytest.mark.parametrize(
    ("first", "then"),
    [(SERVICE, {"base_url": "simulator", "model": MODEL}), (SERVICE, HERE), (HERE, SERVICE)],
    ids=["then the simulator", "then this machine", "then a service"],
)
def test_what_a_service_answered_is_never_replaced(
    bench: Workbench, first: Mapping[str, str], then: Mapping[str, str]
) -> None:
    """Answers that may have been paid for are drift, as before, and stay."""
    carry_out(bench.job(target=first), simulator())
    before = files(bench.folder)
    for act in (
        lambda: carry_out(bench.job(target=then), simulator()),
        lambda: cometbatch.plan(bench.job(target=then)),
    ):
        with pytest.raises(cometbatch.DriftError, match=r"target\.base_url"):
            act()
    assert files(bench.folder) == before


def test_another_prompt_for_the_simulator_is_drift(bench: Workbench) -> None:
    """The job has to name a service: a change of the prompt alone is refused as in any run."""
    finished(bench)
    with pytest.raises(cometbatch.DriftError):
        carry_out(bench.job(prompt={"user": "Other: {{ note }}"}), Network())


def test_nothing_is_replaced_before_all_is_known_that_can_refuse_the_run(bench: Workbench) -> None:
    """Without a key, a price under a budget, or a column, with --retry or over somebody's file, it stays as it was."""
    finished(bench)
    before = files(bench.folder)
    with pytest.raises(cometbatch.UsageError, match="COMETAPI_KEY is not set"):
        cometbatch.run(bench.job(target=SERVICE), progress=False)
    refused: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
        ("can't be held", {"prices": "none", "budget": {"max_cost_usd": 1}}, ()),
        ("no column", {"prompt": {"user": "{{ elsewhere }}"}}, ()),
        ("Leave --retry out", {}, ("failed",)),
    ]
    for words, changes, retry in refused:
        job = bench.job(target=SERVICE, **changes)
        with pytest.raises(cometbatch.UsageError, match=words):
            virtual_time.run(cometbatch.run_async(job, retry=retry, progress=False, http=simulator()))
    assert files(bench.folder) == before
    bench.output.write_bytes(b"mine")
    for act in (
        lambda: carry_out(bench.job(target=SERVICE), simulator()),
        lambda: cometbatch.plan(bench.job(target=SERVICE)),
    ):
        with pytest.raises(cometbatch.UsageError, match="move that file away"):
            act()
    assert bench.output.read_bytes() == b"mine"


def test_status_names_the_command_that_replaces_it(bench: Workbench) -> None:
    """Of the job that names a service by now: no change has to be undone. Nobody is asked before --fresh deletes it."""
    stopped(bench)
    job = bench.write_job(target=SERVICE)
    said = cometbatch.status(job).describe().splitlines()[-1]
    assert said == f"the simulator answered this; to ask the job's service in its place: cometbatch run {job}"
    assert "undo" not in said
    assert not cometbatch.status(bench.output).gives_way
    done = command("run", job, "--fresh", key=False)
    assert done.returncode == 2
    assert "Nothing was deleted" not in done.stderr
    assert isinstance(bench.run_directory, Path)
