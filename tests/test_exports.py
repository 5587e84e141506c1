"""Results for other programs: Parquet, one line a question, and logs of evaluations."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.results.slices import SLICES_KEY
from tests.inspect_logs.make import ROWS, published
from tests.matrix_on_disk import CUT, FAILING, MatrixOnDisk, matrix_job
from tests.workbench import Workbench, carry_out, simulator


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A published result of two models and two samples with a score, of ten rows."""
    made = Workbench(tmp_path)
    published(made)
    return made


def test_parquet_has_the_rows_that_are_asked_for_with_their_types(bench: Workbench) -> None:
    """Chosen columns and kinds, decimals exact, with what a reader must know of the slices, and no run's name."""
    path = bench.folder / "some.parquet"
    wanted = ["row", "model", "cost_usd", "correct"]
    export = cometbatch.export(bench.output, output=path, where="succeeded", columns=wanted)
    assert export.save() == 4 * ROWS - 4
    table, whole = pq.read_table(path), bench.result()
    assert table.equals(whole.filter([status == "succeeded" for status in whole["status"].to_pylist()]).select(wanted))
    said = pq.read_metadata(path).metadata or {}
    assert SLICES_KEY.encode() in said
    assert b"cometbatch.run_id" not in said


def test_a_form_that_is_no_text_needs_a_file(bench: Workbench) -> None:
    """Nobody can read Parquet from a terminal."""
    with pytest.raises(cometbatch.UsageError, match="-o FILE"):
        list(cometbatch.export(bench.output, to="parquet").lines())


def test_wide_has_one_line_a_question_with_the_answers_side_by_side(bench: Workbench) -> None:
    """The question once, then each column of each cell and sample under a name that tells them."""
    path = bench.folder / "wide.parquet"
    assert cometbatch.export(bench.output, shape="wide", output=path).save() == ROWS
    table = pq.read_table(path)
    slices = [f"model={model},sample={sample}" for model in ("model-a", "model-b") for sample in range(2)]
    assert table.column_names[:5] == ["parcel", "note", "custom_id", "row", f"status[{slices[0]}]"]
    assert [name for name in table.column_names if name.startswith("response[")] == [f"response[{s}]" for s in slices]
    for row in table.to_pylist():
        for each in slices:
            model, sample = each.removeprefix("model=").split(",sample=")
            is_failed = row["row"] == FAILING and model == "model-a"
            assert row[f"response[{each}]"] == (None if is_failed else f"{model} {sample} {row['row']}")
            assert row[f"status[{each}]"] is not None
    names = {name.split("[")[0] for name in table.column_names}
    assert {"correct", "correct_answer", "correct_why", "cost_usd"} <= names
    assert not names & {"model", "format", "sample"}


def test_wide_text_has_chosen_columns_and_blanks_where_nothing_was_asked_for(bench: Workbench) -> None:
    """The row stays, so that a line can be found again."""
    lines = cometbatch.export(bench.output, to="csv", shape="wide", where="succeeded", columns=["response", "parcel"])
    text = (lines.head + b"".join(line for some in lines.lines() for line in some)).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:3] == ["parcel", "row", "response[model=model-a,sample=0]"]
    assert [row["row"] for row in rows] == [str(number) for number in range(ROWS)]
    assert [row["row"] for row in rows if not row["response[model=model-a,sample=1]"]] == [str(FAILING), str(CUT)]


def test_wide_is_the_same_of_a_run_that_goes_on_and_of_many_rows(tmp_path: Path) -> None:
    """Rows that only some slices have yet are there, in order, however far apart they are."""
    bench = Workbench(tmp_path)
    bench.write_rows(600)
    run = MatrixOnDisk(matrix_job(bench, samples=1), 200, order=[(1, 0), (0, 0)]).commit([0])
    run.journal(1, [3, 199])
    run.journal(1, [599])
    rows = list(cometbatch.export(bench.run_directory, to="jsonl", shape="wide", columns=["response"]).lines())
    found = [msgspec.json.decode(line) for some in rows for line in some]
    assert [each["row"] for each in found] == list(range(600))
    assert all(each["response[model=model-b,sample=0]"] == f"model-b 0 {each['row']}" for each in found)
    there = {each["row"] for each in found if each["response[model=model-a,sample=0]"] is not None}
    assert there == {3, 199, 599}


def test_wide_is_refused_above_64_slices(tmp_path: Path) -> None:
    """Before anything is read: a table of thousands of columns helps nobody."""
    bench = Workbench(tmp_path)
    bench.write_rows(1)
    MatrixOnDisk(matrix_job(bench, samples=33), 4).commit().publish()
    with pytest.raises(cometbatch.UsageError, match="66 cells and samples, and at most 64"):
        cometbatch.export(bench.output, shape="wide", to="csv")


def test_wide_of_a_run_without_a_matrix_is_its_rows(tmp_path: Path) -> None:
    """They have one line a question already."""
    bench = Workbench(tmp_path)
    bench.write_rows(2)
    carry_out(bench.job(), simulator())
    texts = [list(cometbatch.export(bench.output, to="csv", shape=shape).lines()) for shape in ("wide", None)]
    assert texts[0] == texts[1]


def logs(bench: Workbench, to: str) -> list[Any]:
    """The logs of each cell, read."""
    folder = bench.folder / "logs"
    assert cometbatch.export(bench.output, to=to, output=folder).save() == 4 * ROWS
    found = sorted(folder.iterdir())
    ending = {"inspect": ".json", "openai-evals": ".jsonl"}[to]
    assert [path.name for path in found] == [f"0000{n}-model-{'ab'[n]}-chat{ending}" for n in range(2)]
    texts = [path.read_text(encoding="utf-8") for path in found]
    return [json.loads(text) if to == "inspect" else list(map(json.loads, text.splitlines())) for text in texts]


def test_a_log_for_inspect_has_each_answer_with_its_question_gold_and_score(bench: Workbench) -> None:
    """Messages as they were sent, epochs from 1, errors of failed rows, and scores that are no numbers of cut ones."""
    first, second = logs(bench, "inspect")
    assert (first["version"], first["status"], first["eval"]["config"]["epochs"]) == (2, "success", 2)
    assert first["eval"]["model"] == "cometapi/model-a"
    assert first["eval"]["dataset"] == {"name": "in.csv", "samples": ROWS, "shuffled": False}
    assert first["eval"]["task_id"] != second["eval"]["task_id"]
    samples = {(each["id"], each["epoch"]): each for each in first["samples"]}
    assert len(samples) == len(first["samples"]) == 2 * ROWS
    usual = samples["0000", 2]
    assert usual["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Parcel 0000 says: note 0, in two\nlines"},
    ]
    assert (usual["target"], usual["output"]["completion"]) == ("0000", "model-a 1 0")
    assert usual["messages"][-1]["content"] == "model-a 1 0"
    assert usual["scores"]["correct"]["value"] == 0.0
    assert usual["metadata"]["row"] == 0
    failed, cut = samples[f"{FAILING:04d}", 1], samples[f"{CUT:04d}", 1]
    assert failed["error"]["message"] == "blocked: not this one"
    assert (failed["scores"], failed["output"]["choices"]) == ({}, [])
    assert math.isnan(cut["scores"]["correct"]["value"])
    assert cut["scores"]["correct"]["metadata"] == {"stop_reason": "length"}
    assert cut["output"]["choices"][0]["stop_reason"] == "max_tokens"
    (score,) = first["results"]["scores"]
    assert (score["name"], score["metrics"]["accuracy"]["value"]) == ("correct", 0.0)
    assert score["metadata"] == {"score": 0.0, "scored_answers": 16, "unscored_answers": 4}
    usage = first["stats"]["model_usage"]["cometapi/model-a"]
    assert usage["input_tokens"] == sum(each["output"]["usage"]["input_tokens"] for each in first["samples"])


def test_a_record_for_openai_evals_has_spec_events_and_report(bench: Workbench) -> None:
    """A sampling event for each answer and a match event for each score; what was not scored has none."""
    first, _ = logs(bench, "openai-evals")
    spec, *events, report = first
    assert spec["spec"]["completion_fns"] == ["model-a"]
    assert spec["spec"]["run_id"] == report["run_id"]
    assert [event["event_id"] for event in events] == list(range(len(events)))
    assert {event["run_id"] for event in events} == {report["run_id"]}
    kinds = [event["type"] for event in events]
    assert (kinds.count("sampling"), kinds.count("match"), kinds.count("error")) == (2 * ROWS, 16, 4)
    assert events[0]["data"]["sampled"] == ["model-a 0 0"]
    assert events[1]["data"] == {"correct": False, "expected": "0000", "picked": None, "score": 0.0, "name": "correct"}
    assert report["final_report"]["accuracy"] == 0.0
    assert (report["final_report"]["samples"], report["final_report"]["failed"]) == (2 * ROWS, 2)


@pytest.mark.parametrize("to", ["inspect", "openai-evals"])
def test_logs_of_several_cells_need_a_folder(bench: Workbench, to: str) -> None:
    """One file has one cell; it says what to write instead."""
    with pytest.raises(cometbatch.UsageError, match="2 cells"):
        list(cometbatch.export(bench.output, to=to).lines())
    ending = "json" if to == "inspect" else "jsonl"
    with pytest.raises(cometbatch.UsageError, match="name a folder"):
        cometbatch.export(bench.output, to=to, output=bench.folder / f"log.{ending}").save()
    folder = bench.folder / "logs"
    cometbatch.export(bench.output, to=to, output=folder).save()
    with pytest.raises(cometbatch.UsageError, match="exists"):
        cometbatch.export(bench.output, to=to, output=folder).save()
    cometbatch.export(bench.output, to=to, output=folder).save(overwrite=True)


def test_a_vendors_results_have_no_place_for_several_answers(bench: Workbench) -> None:
    """Names repeat with each cell and sample, and whoever reads such a file takes the last one for all."""
    with pytest.raises(cometbatch.UsageError, match="4 cells and samples"):
        cometbatch.export(bench.output, shape="openai")


@pytest.mark.parametrize("options", [{"columns": ["response"]}, {"shape": "wide"}])
def test_a_log_has_one_form(bench: Workbench, options: dict[str, Any]) -> None:
    """Columns and shapes are of tables."""
    with pytest.raises(cometbatch.UsageError, match="one form"):
        cometbatch.export(bench.output, to="inspect", **options)
