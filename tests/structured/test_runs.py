"""Whole runs with `response`, on virtual time: what is sent, what is taken, and the columns that come of it."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

import cometbatch
from cometbatch.errors import DriftError
from cometbatch.prompt import shape
from cometbatch.simulator.json_answers import JSON_FAULTS
from cometbatch.wire import FORMATS
from tests.workbench import Network, Workbench, carry_out, simulator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["bug", "billing"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "share": {"type": "number"},
        "sure": {"type": "boolean"},
        "due": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "required": ["kind", "urgency"],
}
NAMES = list(SCHEMA["properties"])
MODES = [
    (name, mode)
    for name in FORMATS
    for mode in ("native", "tool", "json", "prompt")
    if (name, mode) != ("messages", "json")
]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of twelve rows."""
    made = Workbench(tmp_path)
    made.write_rows(12)
    return made


def job(bench: Workbench, mode: str = "native", format_name: str = "chat", **response: Any) -> cometbatch.Job:
    """A job that asks for answers of the schema."""
    asked = response or {"schema": SCHEMA}
    return bench.job(
        target={"format": format_name}, response={"mode": mode, **asked}, params={"max_output_tokens": 500}
    )


@pytest.mark.parametrize(("format_name", "mode"), MODES)
def test_answers_become_columns(format_name: str, mode: str, bench: Workbench) -> None:
    """In each format and mode, with every check of `verify` passed."""
    made = job(bench, mode, format_name)
    carry_out(made, simulator())
    result = bench.result()
    assert result.column_names[-len(NAMES) :] == NAMES
    assert [result.schema.field(name).type for name in NAMES] == [
        pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.list_(pa.string()),
        pa.struct([("city", pa.string()), ("zip", pa.string())]), pa.string(),
    ]  # fmt: skip
    rows = result.to_pylist()
    assert {row["kind"] for row in rows} <= {"bug", "billing"}
    for row in rows:
        said = json.loads(row["response"])
        assert (row["kind"], row["urgency"], row["tags"]) == (said["kind"], said["urgency"], said.get("tags"))
        assert row["due"] == (date.fromisoformat(said["due"]) if said.get("due") else None)
        assert row["either"] == (None if said.get("either") is None else json.dumps(said["either"], ensure_ascii=False))
    assert cometbatch.verify(made).ok


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_an_answer_that_does_not_fit_has_no_cells(fault: str, bench: Workbench) -> None:
    """Its text stays; a fence is no misfit, nor is a property that the schema does not forbid."""
    bench.write_rows(5)  # asked twice, these are fewer answers than stop a run of which none is JSON
    made = job(bench)
    carry_out(made, simulator(f"{fault}:1"))
    urgencies = bench.result()["urgency"].to_pylist()
    assert all(urgencies) if fault in {"fenced", "extra_key"} else not any(urgencies)
    assert None not in bench.result()["response"].to_pylist()


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_schema_that_the_service_can_not_take_stops_the_run(format_name: str, bench: Workbench) -> None:
    """A gateway that takes keywords away only near the top has the provider refuse the deeper ones."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(7):
        deep = {"type": "object", "properties": {"in": deep}, "required": ["in"], "additionalProperties": False}
    made = bench.job(target={"format": format_name}, response={"schema": deep}, retry={"max_alike": 3})
    with pytest.raises(cometbatch.ServiceRefusedError, match="additionalProperties"):
        carry_out(made, simulator("deep_keywords:1"))


def test_a_call_that_holds_no_answer_is_none(bench: Workbench) -> None:
    """Two calls, or a call of something else, are not taken for the answer: the row is incomplete."""
    call = {"id": "1", "type": "function", "function": {"name": "answer", "arguments": '{"kind":"bug","urgency":1}'}}
    other = {"id": "2", "type": "function", "function": {"name": "look", "arguments": "{}"}}

    def answered(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        row = int(json.loads(request.content)["messages"][-1]["content"].split()[1])
        calls = ([call], [call, call], [other])[row % 3]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    carry_out(job(bench, "tool"), Network(answer=answered))
    rows = bench.result().to_pylist()
    assert [row["status"] for row in rows[:3]] == ["succeeded", "incomplete", "incomplete"]
    assert [row["urgency"] for row in rows[:3]] == [1, None, None]
    assert json.loads(rows[0]["response"]) == {"kind": "bug", "urgency": 1}


def test_patterns_and_plain_json_give_no_columns(bench: Workbench) -> None:
    """Their answers are texts; with mode prompt the model is told what to say."""
    for response in ({"json": True}, {"pattern": "[A-Z]{2}-[0-9]{3}", "mode": "prompt"}):
        carry_out(bench.job(response=response), simulator(), fresh=True)
        result = bench.result()
        assert result.column_names[-2:] == ["asks", "rejected_cost_usd"]
        checker = bench.job(response=response).response.checker("chat")
        assert checker is not None
        assert not [text for text in result["response"].to_pylist() if not hasattr(checker.check(text), "value")]


def test_a_run_goes_on_with_the_same_answers_asked_for_alone(bench: Workbench) -> None:
    """Another schema or mode is drift, named by its key."""
    carry_out(job(bench), simulator())
    with pytest.raises(DriftError, match=r"response\.mode: was \"native\", is \"tool\""):
        carry_out(job(bench, "tool"), simulator())


def test_verify_sees_a_cell_that_is_not_the_answers(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell is made again of the text that was kept."""
    made = job(bench)
    with monkeypatch.context() as patched:
        patched.setitem(shape._CONVERTERS, "integer", lambda _: 9)  # as a damaged program would
        carry_out(made, simulator())
    (check,) = [each for each in cometbatch.verify(made).checks if each.name == "answers"]
    assert check.state == "failed"
    assert "urgency is not what response says" in check.places[0]
