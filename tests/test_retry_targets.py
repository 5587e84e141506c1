"""`--retry` in another way: rows that are reset are asked with other settings, and no other row notices.

The run has one more target then. Which call is asked of which target survives every crash, and so does its price.
"""

import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.records import Completion, FinishReason, Usage
from cometbatch.run_state.directory import REOPENED
from cometbatch.wire import chat
from tests import virtual_time
from tests.test_retry_rows import Snapshots, no_credit_after, read, row_of, sent
from tests.workbench import MODEL, Network, Workbench, carry_out, files

ROWS, PARTITION_ROWS = 12, 4
CUT_ROWS = [2, 7, 10]
OTHER_MODEL = "comet-sim-2"
HIGHER: dict[str, Any] = {"params": {"max_output_tokens": 500}}
SETTINGS: dict[str, Any] = {
    "output": {"partition_rows": PARTITION_ROWS},
    "retry": {"max_attempts": 1},
    "limits": {"concurrency": 1},
    "prices": {"input": 1, "output": 2, "models": {OTHER_MODEL: {"input": 10, "output": 20}}},
}


def answered(text: str, reason: FinishReason, model: str = MODEL) -> httpx.Response:
    """An answer of 10 tokens in and 5 out."""
    reply = chat.build_response(model, Completion(text, reason, Usage(10, 5)))
    return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


def cutting(request: httpx.Request) -> httpx.Response | None:
    """A service that cuts some rows where they may have no more than 64 tokens; each answer says how it was asked."""
    row = row_of(request)
    if request.method != "POST" or row is None:
        return None
    body = json.loads(request.content)
    cap = body["max_completion_tokens"]
    said = f"{row} at {cap} by {body['model']}"
    return answered(said, "length" if row in CUT_ROWS and cap <= 64 and body["model"] == MODEL else "stop")


def again(job: cometbatch.Job, network: Network, words: str) -> cometbatch.RunSummary:
    """A run with these rows asked again, on virtual time."""
    return virtual_time.run(cometbatch.run_async(job, retry=words, progress=False, http=network))


def job_of(bench: Workbench, *changes: dict[str, Any]) -> cometbatch.Job:
    """The job with these sections over it; the keys of each go over what is there."""
    sections = {name: dict(section) for name, section in SETTINGS.items()}
    for change in changes:
        for name, section in change.items():
            sections[name] = {**sections.get(name, {}), **section}
    return bench.job(**sections)


@pytest.fixture
def finished(bench: Workbench) -> Workbench:
    """A finished run with three rows that were cut."""
    bench.write_rows(ROWS)
    carry_out(job_of(bench), Network(answer=cutting))
    return bench


def test_only_the_rows_taken_back_are_asked_with_the_other_setting(finished: Workbench) -> None:
    """The others keep every cell; the column `target` says which row was asked how; verify knows it, too."""
    before, network = finished.result(), Network(answer=cutting)
    summary = again(job_of(finished, HIGHER), network, "length")
    after = finished.result()
    kept = [row for row in range(ROWS) if row not in CUT_ROWS]
    assert sent(network) == CUT_ROWS
    assert after.drop_columns(["target"]).take(kept).equals(before.take(kept))
    assert [row for row, target in enumerate(after["target"].to_pylist()) if target] == CUT_ROWS
    assert {after["response"][row].as_py() for row in CUT_ROWS} == {f"{row} at 500 by {MODEL}" for row in CUT_ROWS}
    assert (summary.reopened, summary.all_succeeded) == (3, True)
    assert summary.targets == ("target 1: params.max_output_tokens: 500 (prices: job file)",)
    assert summary.to_dict()["targets"] == list(summary.targets)
    assert summary.targets[0] in summary.describe()
    assert cometbatch.verify(finished.output).ok


def test_a_run_asked_in_one_way_has_neither_the_column_nor_the_need(finished: Workbench) -> None:
    """Where nobody asks for it nothing changes: any program goes on with such a run."""
    assert "target" not in finished.result().column_names
    again(job_of(finished), Network(answer=cutting), "length")
    manifest = json.loads((finished.run_directory / "manifest.json").read_bytes())
    assert "target" not in finished.result().column_names
    assert (manifest["needs"], len(manifest["targets"])) == ([], 1)
    again(job_of(finished, HIGHER), Network(answer=cutting), "length")
    assert json.loads((finished.run_directory / "manifest.json").read_bytes())["needs"] == ["targets"]


def test_another_model_is_paid_by_its_own_book(finished: Workbench) -> None:
    """Each answer at the price of who gave it, also in what the retry replaced; verify computes the same."""
    summary = again(job_of(finished, {"target": {"model": OTHER_MODEL}}), Network(answer=cutting), "length")
    first, other = Decimal("0.00002"), Decimal("0.0002")  # 10 tokens in and 5 out
    costs = finished.result()["cost_usd"].to_pylist()
    assert costs == [other if row in CUT_ROWS else first for row in range(ROWS)]
    assert (summary.cost_usd, summary.replaced.cost_usd) == (9 * first + 3 * other, 3 * first)
    assert cometbatch.verify(finished.output).ok
    path = finished.run_directory / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"input": "10', b'"input": "11'))
    assert {check.name for check in cometbatch.verify(finished.output).checks if check.state == "failed"} >= {"costs"}


def test_the_first_models_prices_are_not_taken_for_anothers(finished: Workbench) -> None:
    """Silently wrong money is refused, with nothing changed and the ways out."""
    before = files(finished.folder)
    network = Network(answer=cutting)
    with pytest.raises(
        cometbatch.UsageError, match=rf"prices of {MODEL}.*prices.models.*--set prices.input=.*prices=catalog"
    ):
        again(job_of(finished, {"target": {"model": "another"}}), network, "length")
    assert (sent(network), without_sessions(files(finished.folder))) == ([], without_sessions(before))


def without_sessions(found: dict[str, tuple[bytes, int]]) -> dict[str, tuple[bytes, int]]:
    """Every file but those that tell who looked."""
    return {name: each for name, each in found.items() if "lock" not in name}


def test_the_plain_command_and_the_changed_file_both_go_on(finished: Workbench) -> None:
    """Stopped half-way, the rows that are open are asked as the retry said, whichever of the two files is given."""
    for given in ({}, HIGHER):
        copy = Workbench(finished.folder / f"copy{len(given)}")
        shutil.copytree(finished.folder / "_out.parquet.run", copy.folder / "_out.parquet.run")
        shutil.copy(finished.output, copy.output)
        copy.input = finished.input
        with pytest.raises(cometbatch.RunStoppedError):
            again(job_of(copy, HIGHER), Network(answer=no_credit_after(1, cutting)), "length")
        network = Network(answer=cutting)
        assert cometbatch.status(job_of(copy, given)).changed == ()
        summary = carry_out(job_of(copy, given), network)
        assert (sent(network), summary.all_succeeded) == (CUT_ROWS[1:], True)
        assert {json.loads(each.content)["max_completion_tokens"] for each in network.requests} == {500}
        assert cometbatch.verify(job_of(copy, given)).ok


def test_plan_shows_the_open_rows_as_they_will_be_asked(finished: Workbench) -> None:
    """First request, tokens and cost are those of each row's own target."""
    with pytest.raises(cometbatch.RunStoppedError):
        again(job_of(finished, HIGHER), Network(answer=no_credit_after(1, cutting)), "length")
    plan = cometbatch.plan(job_of(finished))
    assert plan.first_request is not None
    assert (plan.first_request["body"]["max_completion_tokens"], plan.output_tokens) == (500, 1000)
    assert (plan.rows - plan.done, plan.warnings) == (2, ())


def test_without_retry_another_target_is_drift(finished: Workbench) -> None:
    """Nothing may mix answers by accident; the refusal names --retry as a way on. A third way is drift, too."""
    for job in (job_of(finished, HIGHER), job_of(finished, {"prompt": {"user": "{{ note }}?"}})):
        with pytest.raises(cometbatch.DriftError, match="--retry KIND"):
            carry_out(job, Network())
    again(job_of(finished, HIGHER), Network(answer=cutting), "length")
    with pytest.raises(cometbatch.DriftError, match="max_output_tokens: was 64, is 501"):
        carry_out(job_of(finished, {"params": {"max_output_tokens": 501}}), Network())


@pytest.mark.parametrize(
    "change",
    [{"input": {"id": "note"}}, {"target": {"format": "responses"}}, {"output": {"prefix": "x_"}}],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_target_stays_drift_with_retry(finished: Workbench, change: dict[str, Any]) -> None:
    """Another id column, format or prefix can't be mixed in, whatever is asked again."""
    with pytest.raises(cometbatch.DriftError):
        again(job_of(finished, change), Network(), "length")


def test_where_no_row_matches_no_target_is_added(finished: Workbench) -> None:
    """A finished run says so and changes nothing; a stopped one refuses the changed job."""
    before, network = files(finished.folder), Network()
    assert again(job_of(finished, HIGHER), network, "timeout").reopened == 0
    assert (network.posts, without_sessions(files(finished.folder))) == (0, without_sessions(before))
    bench = Workbench(finished.folder / "stopped")
    bench.folder.mkdir()
    bench.write_rows(ROWS)
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job_of(bench), Network(answer=no_credit_after(1, cutting)))
    with pytest.raises(cometbatch.DriftError):
        again(job_of(bench, HIGHER), Network(), "timeout")


def test_rows_that_were_never_asked_are_asked_as_the_run_began(bench: Workbench) -> None:
    """On a run that was stopped, the other setting is for the rows taken back alone."""
    bench.write_rows(ROWS)
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job_of(bench), Network(answer=no_credit_after(6, cutting)))
    network = Network(answer=cutting)
    again(job_of(bench, HIGHER), network, "length")
    caps = {
        row_of(each): json.loads(each.content)["max_completion_tokens"] for each in network.requests if each.content
    }
    assert caps == {2: 500} | dict.fromkeys(range(6, ROWS), 64)
    assert [row for row, status in enumerate(bench.result()["status"].to_pylist()) if status == "incomplete"] == [7, 10]
    again(job_of(bench, HIGHER), network, "length")
    assert bench.result()["target"].to_pylist() == [int(row in CUT_ROWS) for row in range(ROWS)]
    assert cometbatch.verify(bench.output).ok


def test_a_model_that_nobody_knows_stops_the_retry_and_can_be_replaced(finished: Workbench) -> None:
    """The rows stay open, and a further retry asks them of the right one; the plain job asks nobody else meanwhile."""
    unknown = {"error": {"message": "no available channel for model", "code": "model_not_found"}}

    def answer(request: httpx.Request) -> httpx.Response | None:
        is_unknown = request.method == "POST" and json.loads(request.content)["model"] == "typo"
        return httpx.Response(503, json=unknown) if is_unknown else cutting(request)

    mistaken = {"target": {"model": "typo"}, "prices": {"input": 3, "output": 3}}
    attempts: tuple[Callable[[], object], ...] = (
        lambda: again(job_of(finished, mistaken), Network(answer=answer), "length"),
        lambda: carry_out(job_of(finished), Network(answer=answer)),
    )
    for attempt in attempts:
        with pytest.raises(cometbatch.RunStoppedError) as stopped:
            attempt()
        assert (stopped.value.exit_code, stopped.value.summary.tally.calls) == (5, ROWS - 3)
    network = Network(answer=answer)
    summary = again(job_of(finished, HIGHER), network, "length")
    assert (sent(network), summary.reopened, summary.replaced.calls, summary.all_succeeded) == (CUT_ROWS, 3, 3, True)
    assert finished.result()["target"].to_pylist() == [2 * (row in CUT_ROWS) for row in range(ROWS)]
    assert cometbatch.verify(finished.output).ok


def test_a_plain_retry_leaves_open_rows_to_the_target_that_they_wait_for(finished: Workbench) -> None:
    """They were taken back to be asked with more room, and would be cut again without it."""
    with pytest.raises(cometbatch.RunStoppedError):
        again(job_of(finished, HIGHER), Network(answer=no_credit_after(1, cutting)), "length")
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job_of(finished), Network(answer=no_credit_after(0)))
    network = Network(answer=cutting)
    again(job_of(finished), network, "failed")
    assert {json.loads(each.content)["max_completion_tokens"] for each in network.requests if each.content} == {500}


def test_rows_that_a_mended_template_renders_are_sent_alone(bench: Workbench) -> None:
    """`--retry template` needs no new run: what was answered stays, and neither file of both is drift for it."""
    rows = [f"{row},{'' if row % 3 == 0 else row}" for row in range(ROWS)]
    bench.input.write_text("parcel,note\n" + "\n".join(rows) + "\n", encoding="utf-8")
    faulty = {"prompt": {"system": "Be brief.", "user": "Parcel {{ parcel }} has {{ 100 / (note | int) }}"}}
    mended = {"prompt": {"system": "Be brief.", "user": "Parcel {{ parcel }} has {{ note or 'nothing' }}"}}
    first = carry_out(job_of(bench, faulty), Network(answer=cutting))
    assert first.tally.failures == {"template": 4}
    with pytest.raises(cometbatch.RunStoppedError):
        again(job_of(bench, mended), Network(answer=no_credit_after(2, cutting)), "template")
    network = Network(answer=cutting)
    summary = carry_out(job_of(bench, mended), network)
    assert (sent(network), summary.failed) == ([6, 9], 0)
    assert b"has nothing" in network.requests[-1].content
    assert cometbatch.verify(job_of(bench, faulty)).ok


def test_a_column_of_the_input_keeps_its_name(bench: Workbench) -> None:
    """An input may have a column `target`; the run's own has another name then, since no prefix can be set any more."""
    lines = [f"{row:04d},note,{row}" for row in range(ROWS)]
    bench.input.write_text("parcel,note,target\n" + "\n".join(lines) + "\n", encoding="utf-8")
    carry_out(job_of(bench), Network(answer=cutting))
    again(job_of(bench, HIGHER), Network(answer=cutting), "length")
    table = bench.result()
    assert table["target"].to_pylist() == [str(row) for row in range(ROWS)]
    assert [row for row, target in enumerate(table["asked_target"].to_pylist()) if target] == CUT_ROWS
    assert cometbatch.verify(bench.output).ok


def test_a_budget_that_the_other_target_breaks_is_refused_before_anything_changes(finished: Workbench) -> None:
    """No cap, or no price: the run stays as it was."""
    unpriced = {"target": {"model": "unheard-of"}, "prices": {"input": None, "output": None}}
    for change in (unpriced, {"params": {"max_output_tokens": None}}):
        before = files(finished.folder)
        with pytest.raises(cometbatch.UsageError, match="budget"):
            again(job_of(finished, change, {"budget": {"max_cost_usd": 1}}), Network(), "length")
        assert without_sessions(files(finished.folder)) == without_sessions(before)


@pytest.mark.parametrize("is_dataset", [False, True], ids=["file", "data set"])
def test_a_kill_at_any_step_asks_each_row_as_it_was_to_be_asked(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_dataset: bool
) -> None:
    """Before the rename of reopened.json all is as it was; after it the plain command asks the open rows with 500.

    Every row is there once, the bill has each answer at its own price, and every reader finds one table.
    """
    ending = "out/" if is_dataset else "out.parquet"
    bench.write_rows(ROWS)

    def job_in(folder: Path, *changes: dict[str, Any]) -> cometbatch.Job:
        place = Workbench(folder)
        place.input = bench.input
        return job_of(place, {"output": {"path": f"{folder}/{ending}"}}, *changes)

    live, crashed = tmp_path / "live", tmp_path / "crashed"
    live.mkdir()
    crashed.mkdir()
    carry_out(job_in(live), Network(answer=cutting))
    snapshots = Snapshots(live, crashed)
    with snapshots.watching(monkeypatch):
        again(job_in(live, HIGHER), Network(answer=cutting), "length")
    decided = 0
    for folder in snapshots.taken:
        path = folder / ending.rstrip("/")
        was_decided = (folder / f"_{path.name}.run" / REOPENED).exists()
        decided += was_decided
        open_rows = ROWS - cometbatch.status(path).summary.tally.calls
        network = Network(answer=cutting)
        summary = carry_out(job_in(folder), network)
        table = pa.concat_tables([pq.read_table(path)]) if is_dataset else read(path)
        caps = [json.loads(each.content)["max_completion_tokens"] for each in network.requests if each.content]
        assert (summary.finished, len(caps), set(caps)) == (True, open_rows, {500} if open_rows else set())
        assert table["parcel"].to_pylist() == [f"{row:04d}" for row in range(ROWS)]
        targets = [row in CUT_ROWS for row in range(ROWS)] if was_decided else None
        assert (table["target"].to_pylist() if "target" in table.column_names else None) == targets
        assert summary.replaced.calls == (3 if was_decided else 0)
        assert summary.cost_usd == sum(table["cost_usd"].to_pylist())
        assert cometbatch.verify(path).ok
        assert [each.name for each in folder.rglob("*") if each.suffix in (".tmp", ".jsonl")] == []
        if is_dataset:
            schemas = {str(pq.read_schema(part)) for part in path.glob("*.parquet")}
            assert len({schema.partition("-- schema metadata")[0] for schema in schemas}) == 1
    assert 0 < decided < len(snapshots.taken)


def test_the_command_takes_settings_with_retry(finished: Workbench) -> None:
    """`run --retry length --set params.max_output_tokens=500`, from a file whose own settings stay as they are."""
    job = cometbatch.load_job(finished.write_job(**SETTINGS), ["params.max_output_tokens=500"])
    assert again(job, Network(answer=cutting), "length").all_succeeded
    told = cometbatch.status(finished.folder / "job.yaml", ["params.max_output_tokens=500"])
    assert "target 1: params.max_output_tokens: 500" in told.describe()
