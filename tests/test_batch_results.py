"""Outcomes as lines of vendors' batch results: each vendor's own library would find name, text, counts and errors."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.cli import cli
from cometbatch.errors import UsageError
from cometbatch.records import Answered, Completion, Failed, Failure, FailureKind, Usage
from cometbatch.results.batch_results import Shape, result_line
from tests.workbench import Network, Workbench, carry_out, simulator

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
SHAPES: tuple[Shape, ...] = get_args(Shape)


def answered(text: str = "Oui.", *, raw: str | None = None, name: str | None = "r-1") -> Answered:
    """A row with an answer."""
    completion = Completion(text, "stop", Usage(input_tokens=3, output_tokens=2), raw=raw)
    return Answered(7, "succeeded", name, 1, 0.5, WHEN, "ab", 200, "req-1", completion, None)


def failed(kind: FailureKind) -> Failed:
    """A row without one."""
    return Failed(7, "r-1", 5, 0.5, WHEN, "ab", Failure(kind, "no answer", 500, request_id="req-1"))


def line(shape: Shape, outcome: Answered | Failed, reply: bytes | None = b'{"made": "up"}') -> dict[str, Any]:
    """The line of an outcome."""
    written = result_line(shape, outcome, lambda _: reply)
    assert b"\n" not in written
    found: dict[str, Any] = json.loads(written)
    return found


def test_an_answer_has_each_vendors_shape() -> None:
    """With the keys that the vendor's results have, whole."""
    found = line("openai", answered())
    assert found.pop("id").startswith("batch_req_")
    body: dict[str, Any] = {"made": "up"}
    response: dict[str, Any] = {"status_code": 200, "request_id": "req-1", "body": body}
    assert found == {"custom_id": "r-1", "response": response, "error": None}
    result = {"type": "succeeded", "message": body}
    assert line("anthropic", answered()) == {"custom_id": "r-1", "result": result}
    assert line("gemini", answered()) == {"key": "r-1", "response": body}


def test_a_failure_has_each_vendors_shape() -> None:
    """The kind of the failure in the vendor's words, and the message as it was."""
    found = line("openai", failed("overloaded"))
    assert (found["response"], found["error"]) == (None, {"code": "overloaded", "message": "no answer"})
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "no answer"}, "request_id": "req-1"}
    assert line("anthropic", failed("overloaded"))["result"] == {"type": "errored", "error": error}
    status = {"code": 14, "message": "no answer", "status": "UNAVAILABLE"}
    assert line("gemini", failed("overloaded")) == {"key": "r-1", "error": status}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_every_kind_of_failure_has_a_line(shape: Shape, kind: FailureKind) -> None:
    """Whatever went wrong with a row, its line says that it has no answer."""
    found = line(shape, failed(kind))
    assert not found.get("response")
    assert "no answer" in json.dumps(found)


RAW = {
    "openai": ['{"choices": [], "x": 1.0}', '{"output":[ ],"n":12345678901234567890}'],
    "anthropic": ['{"content":[],"type":"message"}'],
    "gemini": ['{"candidates":[ ]}', '{"promptFeedback":{}}'],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_reply_that_was_kept_is_in_the_line_byte_for_byte(shape: Shape) -> None:
    """Where it has the vendor's shape; one in another shape, or that is no JSON, is not passed off as such."""
    for other, raws in RAW.items():
        for raw in raws:
            written = result_line(shape, answered(raw=raw), lambda _: b'{"made": "up"}')
            assert (raw.encode() in written) == (shape == other)
            assert (b'{"made": "up"}' in written) == (shape != other)
    for broken in ("", "[]", "{", "null", '{"choices":'):
        assert b'{"made": "up"}' in result_line(shape, answered(raw=broken), lambda _: b'{"made": "up"}')
    lines = json.dumps(json.loads(RAW[shape][0]), indent=1)
    assert b"\n" not in result_line(shape, answered(raw=lines), lambda _: None)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_can_not_be_said_in_a_shape_is_an_error_and_not_made_up(shape: Shape) -> None:
    """A made-up call of a tool would be taken for the model's."""
    found = json.dumps(line(shape, answered(), None))
    assert "output.raw: true keeps whole replies" in found


def test_a_row_without_a_name_is_called_by_its_number() -> None:
    """All shapes need a name."""
    assert line("gemini", answered(name=None))["key"] == "row-7"


@given(text=st.text(), name=st.text(min_size=1))
def test_names_and_texts_survive(text: str, name: str) -> None:
    """Law: whatever characters they have, a line is one line of JSON."""
    reply = json.dumps({"text": text}).encode()
    for shape in SHAPES:
        written = result_line(shape, answered(text, name=name), lambda _: reply)
        found = json.loads(written)
        assert found["key" if shape == "gemini" else "custom_id"] == name
        assert len(written.splitlines()) == 1


@pytest.mark.parametrize("format_name", ["chat", "responses", "messages", "gemini"])
@pytest.mark.parametrize("raw", [False, True])
def test_any_run_is_exported_in_any_shape(tmp_path: Path, format_name: str, *, raw: bool) -> None:
    """A run of a table has a name from its id column; what is cut or refused is told in the vendor's words."""
    bench = Workbench(tmp_path)
    bench.write_rows(30)
    job = bench.job(target={"format": format_name}, output={"path": str(bench.output), "raw": raw})
    carry_out(job, simulator("length:0.3", "400:0.2"))
    rows = bench.result().to_pylist()
    for shape in SHAPES:
        found = [json.loads(each) for some in cometbatch.export(job, shape=shape).lines() for each in some]
        assert [each["key" if shape == "gemini" else "custom_id"] for each in found] == [row["parcel"] for row in rows]
        for row, each in zip(rows, found, strict=True):
            said = json.dumps(each, ensure_ascii=False)
            assert json.dumps(row["response"] or row["error_message"], ensure_ascii=False)[1:-1] in said
            is_own = (shape, format_name) in {
                ("openai", "chat"), ("openai", "responses"), ("anthropic", "messages"), ("gemini", "gemini"),
            }  # fmt: skip
            if raw and is_own and row["raw"] is not None:
                assert json.loads(row["raw"]) in (each.get("response"), (each.get("response") or {}).get("body"),
                                                  each.get("result", {}).get("message"))  # fmt: skip


def test_an_unfinished_run_gives_the_lines_that_it_has(tmp_path: Path) -> None:
    """With a note on what is missing; a result file that was moved away gives the same as the run."""
    bench = Workbench(tmp_path)
    bench.write_rows(6)
    posts = 0

    def answer(request: httpx.Request) -> httpx.Response | None:
        nonlocal posts
        posts += request.method == "POST"
        return httpx.Response(401, json={"error": {"message": "no such key"}}) if posts > 3 else None

    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(limits={"concurrency": 1}), Network(answer=answer))
    export = cometbatch.export(bench.run_directory, shape="openai")
    (some,) = export.lines()
    assert [json.loads(each)["custom_id"] for each in some] == ["0000", "0001", "0002"]
    assert any("3 of 6 rows" in note for note in export.notes)
    carry_out(bench.job(), Network())
    of_run = [*cometbatch.export(bench.run_directory, shape="anthropic").lines()]
    moved = bench.output.rename(tmp_path / "moved.parquet")
    assert [*cometbatch.export(moved, shape="anthropic").lines()] == of_run


def test_the_command_writes_lines(tmp_path: Path) -> None:
    """To standard output, or into a file; another word, and what a shape can't have, are refused."""
    bench = Workbench(tmp_path)
    bench.write_rows(2)
    carry_out(bench.job(), Network())
    written = CliRunner().invoke(cli, ["export", str(bench.output), "--as", "gemini"])
    assert [json.loads(each)["key"] for each in written.stdout.splitlines()] == ["0000", "0001"]
    file = tmp_path / "answers.jsonl"
    CliRunner().invoke(cli, ["export", str(bench.output), "--as", "gemini", "-o", str(file)])
    assert file.read_text(encoding="utf-8") == written.stdout
    with pytest.raises(UsageError, match="--as: write one of openai, anthropic, gemini"):
        cometbatch.export(bench.output, shape="csv")
    for more in ({"to": "csv"}, {"columns": ["parcel"]}):
        with pytest.raises(UsageError, match="leave out --to and --columns"):
            cometbatch.export(bench.output, shape="openai", **more)
