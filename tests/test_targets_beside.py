"""Rows that are asked in several ways, beside what else a job can ask for: schemas, images, limits, tables, lines."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands.run import run_async
from cometbatch.errors import UsageError
from cometbatch.records import Completion, FinishReason, Usage
from cometbatch.results import tallies
from cometbatch.results.rows import rows_of_files
from cometbatch.wire import chat
from tests import virtual_time
from tests.images import data_url, image
from tests.workbench import MODEL, Network, Workbench, carry_out

MINI, OTHER = "comet-sim-1-mini", "comet-sim-cache"
PRICES: dict[str, Any] = {
    "input": 1,
    "output": 2,
    "models": {MINI: {"input": 10, "output": 20}, OTHER: {"input": 100, "output": 200}},
}
COSTS = {MODEL: Decimal("0.00002"), MINI: Decimal("0.0002"), OTHER: Decimal("0.002")}  # of 10 tokens in and 5 out
SCHEMA = {"type": "object", "properties": {"kind": {"type": "string"}, "pages": {"type": "integer"}},
          "required": ["kind", "pages"]}  # fmt: skip
GOOD, MISFIT, PROSE = '{"kind": "bill", "pages": 3}', '{"kind": "bill"}', "It is a bill."
WITH_SCHEMA: dict[str, Any] = {
    "response": {"schema": SCHEMA},
    "prices": PRICES,
    "output": {"partition_rows": 3},
    "limits": {"concurrency": 1},
}


class Models(Network):
    """A service whose models answer as they are told to, by row and ask; it counts what it bills.

    `says`: of a model, the row's number and the ask, the text of the answer.
    """

    def __init__(self, says: Callable[[str, int, int], str], reason: FinishReason = "stop") -> None:
        super().__init__(answer=self._reply)
        self._says, self._reason = says, reason
        self.asked: list[tuple[str, int, int]] = []
        self.credit: int | None = None  # answers until there is no more credit

    @property
    def billed_usd(self) -> Decimal:
        """What the answers cost."""
        return sum((COSTS[model] for model, _, _ in self.asked), Decimal(0))

    def _reply(self, request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        if self.credit is not None:
            self.credit -= 1
            if self.credit < 0:
                refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
                return httpx.Response(403, json=refusal)
        body = json.loads(request.content)
        users = [message["content"] for message in body["messages"] if message["role"] == "user"]
        text = users[0] if isinstance(users[0], str) else users[0][0]["text"]
        asked = body["model"], int(text.split()[1]), len(users)
        self.asked.append(asked)
        reply = chat.build_response(body["model"], Completion(self._says(*asked), self._reason, Usage(10, 5)))
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


def stopped(job: cometbatch.Job, network: Models, words: str) -> None:
    """The same where the credit is enough for one answer."""
    network.credit = 1
    with pytest.raises(cometbatch.RunStoppedError):
        again(job, network, words)
    network.credit = None


def paid(summary: cometbatch.RunSummary) -> Decimal:
    """All that the run has cost, with what no longer counts."""
    return Decimal(tallies.spent(tallies.add(summary.tally, summary.replaced)))


def again(job: cometbatch.Job, network: Network, words: str) -> cometbatch.RunSummary:
    """A run with these rows asked again, on virtual time."""
    return virtual_time.run(cometbatch.run_async(job, retry=words, progress=False, http=network))


def of_model(settings: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The same settings with another model."""
    return {**settings, "target": {**settings.get("target", {}), "model": model}}


def small_model_fails(model: str, row: int, _: int) -> str:
    """The first model's answers to rows 1 and 4 never fit; the others' always do."""
    return MISFIT if model == MODEL and row in (1, 4) else GOOD


@pytest.mark.parametrize("ending", [".parquet", "/"])
@pytest.mark.parametrize("taken", [False, True])
def test_rows_that_did_not_fit_are_asked_of_another_model(tmp_path: Path, ending: str, taken: bool) -> None:
    """Typed columns, asks and costs of both models stand in one table, which can be proven."""
    bench = Workbench(tmp_path)
    named = {"target": [f"mine {row}" for row in range(7)]} if taken else {}
    ids = [f"{row:04d}" for row in range(7)]
    bench.write_table(pa.table({"parcel": ids, "note": [f"note {row}" for row in range(7)], **named}))
    settings = {**WITH_SCHEMA, "output": {"path": f"{tmp_path}/out{ending}", "partition_rows": 3}}
    first, network = bench.job(**settings), Models(small_model_fails)
    carry_out(first, network)
    before = network.billed_usd
    other = bench.job(**of_model(settings, MINI))
    with pytest.raises(cometbatch.DriftError):
        cometbatch.plan(other)
    stopped(other, network, "invalid")
    shown = cometbatch.status(first).summary.to_polars()
    name = "asked_target" if taken else "target"
    assert shown[name].to_list() == [0, 1, 0, 0, 0, 0][: len(shown)]
    summary = again(other, network, "failed") if ending == "/" else carry_out(other, network)
    assert summary.all_succeeded
    assert network.asked[-2:] == [(MINI, 1, 1), (MINI, 4, 1)]
    table = pq.read_table(tmp_path / f"out{ending}")
    assert table.column_names[-5:] == ["asks", "rejected_cost_usd", name, "kind", "pages"]
    assert table[name].to_pylist() == [int(row in (1, 4)) for row in range(7)]
    assert table["pages"].to_pylist() == [3] * 7
    assert table["asks"].to_pylist() == [1] * 7
    assert paid(summary) == network.billed_usd == before + 2 * COSTS[MINI]
    for job in (first, other):
        report = cometbatch.verify(job)
        assert report.ok, report.describe()


def test_asks_of_a_model_that_is_given_up_stay_in_the_bill_alone(bench: Workbench) -> None:
    """A third model begins with its own first ask; the second one's answers are money, and no more."""
    bench.write_rows(7)
    network = Models(lambda model, row, _: MISFIT if model != OTHER and (row == 1 or model == MINI) else GOOD)
    carry_out(bench.job(**WITH_SCHEMA), network)
    stopped(bench.job(**of_model(WITH_SCHEMA, MINI)), network, "invalid")
    assert network.asked[-1] == (MINI, 1, 1)
    summary = again(bench.job(**of_model(WITH_SCHEMA, OTHER)), network, "invalid")
    assert network.asked[-1] == (OTHER, 1, 1)
    assert network.asked.count((MINI, 1, 1)) == 1
    assert paid(summary) == network.billed_usd
    assert bench.result()["asks"].to_pylist() == [1] * 7
    assert bench.result()["cost_usd"][1].as_py() == COSTS[OTHER]
    report = cometbatch.verify(bench.output)
    assert report.ok, report.describe()


def test_a_stopped_second_ask_goes_on_with_its_own_model(bench: Workbench) -> None:
    """The plain command sends the further ask to the model that gave the answer before."""
    bench.write_rows(7)
    network = Models(lambda model, row, ask: MISFIT if row == 1 and (model == MODEL or ask == 1) else GOOD)
    carry_out(bench.job(**WITH_SCHEMA), network)
    stopped(bench.job(**of_model(WITH_SCHEMA, MINI)), network, "invalid")
    summary = carry_out(bench.job(**WITH_SCHEMA), network)
    assert network.asked[-2:] == [(MINI, 1, 1), (MINI, 1, 2)]
    assert paid(summary) == network.billed_usd
    assert bench.result()["rejected_cost_usd"][1].as_py() == COSTS[MINI]
    report = cometbatch.verify(bench.output)
    assert report.ok, report.describe()


def test_another_model_that_ignores_the_schema_stops_the_run_again(bench: Workbench) -> None:
    """That the first model's answers are JSON says nothing of the second one; a third one may still do it."""
    bench.write_rows(30)
    settings = {**WITH_SCHEMA, "limits": {"concurrency": 64}}
    network = Models(lambda model, _, __: {MODEL: MISFIT, MINI: PROSE}.get(model, GOOD))
    carry_out(bench.job(**settings), network)
    with pytest.raises(cometbatch.RunStoppedError) as refused:
        again(bench.job(**of_model(settings, MINI)), network, "invalid")
    assert refused.value.fix == "response"
    assert sum(model == MINI for model, _, _ in network.asked) == 20
    summary = again(bench.job(**of_model(settings, OTHER)), network, "invalid")
    assert summary.all_succeeded
    assert paid(summary) == network.billed_usd
    report = cometbatch.verify(bench.output)
    assert report.ok, report.describe()


def test_each_row_is_asked_again_of_the_model_that_it_names(bench: Workbench) -> None:
    """Its further ask, its price and its typed cells are those of its own model; plan knows the worst case of each."""
    models = [MODEL, MINI, None, OTHER]
    bench.write_table(pa.table({"parcel": [f"{row:04d}" for row in range(4)], "note": ["x"] * 4, "m": models}))
    job = bench.job(**{**WITH_SCHEMA, "target": {"model_column": "m"}})
    plan = cometbatch.plan(job)
    assert plan.cost_usd is not None
    assert plan.worst_cost_usd is not None
    assert plan.worst_cost_usd > 2 * plan.cost_usd
    network = Models(lambda _, row, ask: MISFIT if ask == 1 and row else GOOD)
    summary = carry_out(job, network)
    assert sorted(network.asked) == sorted(
        (model or MODEL, row, ask) for row, model in enumerate(models) for ask in (1, 2) if row or ask == 1
    )
    table = bench.result()
    assert table["cost_usd"].to_pylist() == [COSTS[MODEL], *(2 * COSTS[model or MODEL] for model in models[1:])]
    assert table["rejected_cost_usd"].to_pylist() == [0, *(COSTS[model or MODEL] for model in models[1:])]
    assert table["target"].to_pylist() == [0, 1, 0, 2]
    assert table["pages"].to_pylist() == [3] * 4
    assert summary.cost_usd == network.billed_usd
    report = cometbatch.verify(job)
    assert report.ok, report.describe()


def test_the_first_rows_of_a_model_column_cost_what_their_models_do(bench: Workbench) -> None:
    """Plan says so of a limit; the full run goes on from there, each row of its own model."""
    models = [OTHER, MINI, MODEL, MINI, OTHER]
    bench.write_table(pa.table({"parcel": [f"{row:04d}" for row in range(5)], "note": ["x"] * 5, "m": models}))
    job = bench.job(target={"model_column": "m"}, prices=PRICES, output={"partition_rows": 2})
    plan = cometbatch.plan(job, limit=2)
    assert plan.limited is not None
    assert plan.limited.cost_usd is not None
    ten = Decimal(plan.limited.input_tokens // 2 + 2 * 64) / 10**6  # both rows have as much input
    assert plan.limited.cost_usd == 110 * ten
    network = Models(lambda *_: "Yes.")
    first = virtual_time.run(run_async(job, limit=2, progress=False, http=network))
    assert [model for model, _, _ in network.asked] == [OTHER, MINI]
    assert first.cost_usd == COSTS[OTHER] + COSTS[MINI]
    assert first.to_polars()["target"].to_list() == [1, 2]
    summary = carry_out(job, network)
    assert [model for model, _, _ in network.asked] == models
    assert summary.cost_usd == network.billed_usd
    report = cometbatch.verify(job)
    assert report.ok, report.describe()


def test_a_second_ask_holds_the_picture_again_also_of_another_model(bench: Workbench) -> None:
    """Bytes are put into each ask when it is sent; verify makes the requests of both ways again."""
    pictures = [image("png", size=100 + row) for row in range(4)]
    table = pa.table({"parcel": [f"{row:04d}" for row in range(4)], "note": ["x"] * 4, "photo": pictures})
    bench.write_table(table.append_column("m", pa.array([None, MINI, None, None])))
    parts = [{"text": "Parcel {{ parcel }} says: {{ note }}"}, {"image": "{{ photo }}"}]
    settings = {
        **WITH_SCHEMA,
        "prompt": {"system": None, "user": None, "messages": [{"role": "user", "content": parts}]},
    }
    settings["target"] = {"model_column": "m"}
    network = Models(lambda model, row, ask: MISFIT if ask == 1 or (row == 2 and model == MODEL) else GOOD)
    carry_out(bench.job(**settings), network)
    again(bench.job(**of_model(settings, OTHER)), network, "invalid")
    assert network.asked[-2:] == [(OTHER, 2, 1), (OTHER, 2, 2)]
    posts = [request for request in network.requests if request.method == "POST"]
    for (_, row, _), request in zip(network.asked, posts, strict=True):
        url = json.loads(request.content)["messages"][0]["content"][1]["image_url"]["url"]
        assert url == data_url(pictures[row])
    table = bench.result()
    assert table["pages"].to_pylist() == [3] * 4
    report = cometbatch.verify(bench.output)
    assert report.ok, report.describe()


def test_a_frame_names_models_and_is_asked_again_in_another_way(tmp_path: Path) -> None:
    """The columns of a caller's table are columns like those of a file, also at a `--retry`."""
    frame = pl.DataFrame({"parcel": ["0000", "0001", "0002"], "note": ["x"] * 3, "m": [MINI, None, OTHER]})
    settings: dict[str, Any] = {
        "input": {"id": "parcel"},
        "output": {"path": str(tmp_path / "out.parquet")},
        "target": {"base_url": "simulator", "format": "chat", "model": MODEL, "model_column": "m"},
        "prompt": {"user": "Parcel {{ parcel }} says: {{ note }}"},
        "response": {"schema": SCHEMA},
        "prices": PRICES,
    }
    network = Models(lambda model, _, __: MISFIT if model == OTHER else GOOD)
    summary = cometbatch.run(settings, input=frame, http=network, progress=False)
    assert (summary.succeeded, summary.incomplete) == (2, 1)
    assert summary.to_polars()["target"].to_list() == [1, 0, 2]
    without = {**settings, "target": {**settings["target"], "model_column": None}}
    with pytest.raises(UsageError):  # which rows name their models belongs to the run
        cometbatch.run({**without, "input": {"id": "note"}}, input=frame, retry="invalid", http=network, progress=False)
    summary = cometbatch.run(without, input=frame, retry="invalid", http=network, progress=False)
    assert network.asked[-1] == (MODEL, 2, 1)
    assert summary.to_polars()["target"].to_list() == [1, 0, 3]
    assert summary.to_polars()["pages"].to_list() == [3, 3, 3]


def test_lines_of_a_batch_file_that_were_cut_are_asked_again_with_more_room(tmp_path: Path) -> None:
    """`params.override` lays the parameter over those bodies alone; rows can't name models, their bodies do."""
    bench = Workbench(tmp_path)
    bench.input = tmp_path / "in.jsonl"
    lines = [
        {
            "custom_id": f"row-{row}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": f"Parcel {row}"}]},
        }
        for row in range(4)
    ]
    bench.input.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    base: dict[str, Any] = {
        "input": {"path": str(bench.input)},
        "output": {"path": str(bench.output)},
        "target": {"base_url": "simulator"},
        "prices": PRICES,
    }
    carry_out(cometbatch.load_job(base), Models(lambda *_: "Half", "length"))
    more = cometbatch.load_job({**base, "params": {"max_output_tokens": 50, "override": True}})
    network = Models(lambda *_: "Whole")
    summary = again(more, network, "length")
    assert summary.all_succeeded
    bodies = [json.loads(request.content) for request in network.requests if request.method == "POST"]
    assert {body.get("max_tokens", body.get("max_completion_tokens")) for body in bodies} == {50}
    assert bench.result()["target"].to_pylist() == [1] * 4
    report = cometbatch.verify(bench.output)
    assert report.ok, report.describe()
    for section, value in (("params", {"columns": {"temperature": "key"}}), ("target", {"model_column": "key"})):
        with pytest.raises(UsageError, match="leave this out"):
            cometbatch.load_job({**base, section: {**base.get(section, {}), **value}})


def test_conversations_are_asked_again_with_a_mended_system_message(bench: Workbench) -> None:
    """Rows whose messages stand in a column: the job's own message before them may change, and the parameters."""
    told = [json.dumps([{"role": "user", "content": f"Parcel {row}"}]) for row in range(4)]
    bench.write_table(pa.table({"parcel": [f"{row:04d}" for row in range(4)], "talk": told}))
    prompt = {"system": "Be brief.", "user": None, "messages_column": "talk"}
    settings = {**WITH_SCHEMA, "prompt": prompt}
    network = Models(lambda _, row, __: MISFIT if row == 2 and network.posts < 6 else GOOD)
    carry_out(bench.job(**settings), network)
    mended = {**settings, "prompt": {**prompt, "system": "Be exact."}, "params": {"temperature": 0}}
    summary = again(bench.job(**mended), network, "invalid")
    assert summary.reopened == 1
    assert bench.result()["target"].to_pylist() == [0, 0, 1, 0]
    report = cometbatch.verify(bench.output)
    assert report.ok, report.describe()


@pytest.mark.parametrize("ending", [".parquet", "/"])
def test_a_property_called_target_leaves_the_name_to_the_answers(tmp_path: Path, ending: str) -> None:
    """The column of targets takes its other name; a run where both are taken refuses to be asked in another way."""
    bench = Workbench(tmp_path)
    bench.write_rows(3)
    named = {"type": "object", "properties": {"target": {"type": "integer"}, "raw": {"type": "string"}}}
    settings = {**WITH_SCHEMA, "response": {"schema": named}, "output": {"path": f"{tmp_path}/out{ending}"}}
    network = Models(lambda model, _, __: '{"target": 7, "raw": "x"}' if model == MINI else PROSE)
    with_none = Models(lambda _, row, __: PROSE if row == 1 else "{}")
    carry_out(bench.job(**settings), with_none)
    again(bench.job(**of_model(settings, MINI)), network, "invalid")
    table = pq.read_table(tmp_path / f"out{ending}")
    assert table.column_names[-3:] == ["asked_target", "target", "raw"]
    assert table["asked_target"].to_pylist() == [0, 1, 0]
    assert table["target"].to_pylist() == [None, 7, None]
    found = rows_of_files(sorted((tmp_path / "out").glob("*.parquet")) or [tmp_path / "out.parquet"], tmp_path)
    assert [column.name for column in found.columns[-3:]] == ["asks", "rejected_cost_usd", "asked_target"]
    outcomes = [outcome for piece in found.pieces() for outcome in found.outcomes(piece)]
    assert [outcome.target for outcome in outcomes] == [0, 1, 0]
    assert found.output().column_names[0] == "custom_id"
    assert found.output().column_names[-1] == "raw"
    report = cometbatch.verify(bench.job(**settings))
    assert report.ok, report.describe()


def test_a_run_without_a_free_name_for_the_column_refuses(bench: Workbench) -> None:
    """Before anything is sent or written."""
    taken = {"target": ["a", "b"], "asked_target": ["c", "d"]}
    bench.write_table(pa.table({"parcel": ["0000", "0001"], "note": ["x"] * 2, **taken}))
    network = Models(lambda *_: PROSE)
    carry_out(bench.job(**WITH_SCHEMA), network)
    sent, before = network.posts, sorted(bench.run_directory.rglob("*"))
    with pytest.raises(UsageError, match="both names are taken"):
        again(bench.job(**of_model(WITH_SCHEMA, MINI)), network, "invalid")
    assert (network.posts, sorted(bench.run_directory.rglob("*"))) == (sent, before)


def test_a_table_of_a_caller_comes_back_with_typed_columns(tmp_path: Path) -> None:
    """After the output's columns, in a finished run and in its rows so far."""
    frame = pl.DataFrame({"name": ["0000", "0001"], "custom_id": ["a", "b"]})
    back = cometbatch.map(
        frame,
        prompt="Parcel {{ name }}",
        model=MODEL,
        out=tmp_path / "out.parquet",
        id="custom_id",
        http=Models(lambda *_: GOOD),
        progress=False,
        target={"base_url": "simulator"},
        response={"schema": SCHEMA},
    )
    assert back.columns[:3] == ["name", "custom_id", "status"]
    assert back.columns[-4:] == ["asks", "rejected_cost_usd", "kind", "pages"]
    assert back["pages"].to_list() == [3, 3]


def test_plan_walks_through_a_budget_at_the_price_of_each_model(bench: Workbench) -> None:
    """What the rows need is what their models cost, once and in the worst case; a headers' variable stays its name."""
    models = [MINI, None, OTHER]
    bench.write_table(pa.table({"parcel": ["0000", "0001", "0002"], "note": ["x"] * 3, "m": models}))
    plan = cometbatch.plan(
        bench.job(
            target={"model_column": "m", "headers": {"x-team": "${HOME}"}},
            prices=PRICES,
            response={"json": True, "max_asks": 3},
            budget={"max_cost_usd": 0.05},
        )
    )
    assert plan.cost_usd is not None
    assert plan.worst_cost_usd is not None
    assert plan.budget is not None
    assert plan.budget.worst is not None
    assert plan.budget.rows == 3
    assert plan.budget.needed_usd is not None
    assert plan.budget.needed_usd >= plan.cost_usd
    assert plan.budget.worst.rows == 2
    assert plan.budget.worst.needed_usd is not None
    assert plan.budget.worst.needed_usd >= plan.worst_cost_usd
    assert plan.first_request is not None
    assert plan.first_request["headers"]["x-team"] == "${HOME}"
