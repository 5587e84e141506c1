"""`verify`: what holds is said to hold, and every tampering that can be told is told, by its check and its place."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands.verify_report import CHECKS, PLACES_SHOWN, Verification
from cometbatch.input.table import open_source
from cometbatch.records import CallRequest, Completion, Rates, Tally
from cometbatch.results import parts, row_checks
from cometbatch.run_state.owner_files import CommittedPart
from cometbatch.run_state.run import directory_of
from cometbatch.wire import chat
from tests.workbench import FORMATS, MODEL, Network, Workbench, carry_out, files, peak_bytes, simulator

ROWS, PARTITION_ROWS = 12, 4
ENDINGS = ("400:0.2", "length:0.2", "content-filter:0.2", "no-usage:0.2")
EVERY_KIND: dict[str, Any] = {"target": {"format": "chat"}, "output": {"partition_rows": PARTITION_ROWS}}


def failed(found: Verification) -> set[str]:
    """The checks that failed."""
    return {check.name for check in found.checks if check.state == "failed"}


def skipped(found: Verification) -> set[str]:
    """The checks that were left out."""
    return {check.name for check in found.checks if check.state == "skipped"}


def places(found: Verification, name: str) -> str:
    """What a check found, as the report shows it."""
    return "\n".join(next(check.places for check in found.checks if check.name == name))


def uneven(request: httpx.Request) -> httpx.Response | None:
    """Of each four rows the third is refused, and the fourth cut short without counts; the others pass."""
    row = int(found[1]) if (found := re.search(rb"Parcel ([0-9]+)", request.content)) else 0
    if row % PARTITION_ROWS == 2:
        return httpx.Response(400, json={"error": {"message": "no such row, please", "code": "bad_row"}})
    if row % PARTITION_ROWS == 3:
        reply = chat.build_response(MODEL, Completion("Half an ans", "length"))
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)
    return None


@pytest.fixture
def finished(bench: Workbench) -> Workbench:
    """A finished run of twelve rows in three partitions: in each two succeeded, one failed, one is incomplete."""
    carry_out(bench.job(**EVERY_KIND), Network(answer=uneven))
    assert bench.result()["status"].to_pylist() == ["succeeded", "succeeded", "failed", "incomplete"] * 3
    return bench


# -- what holds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_that_is_as_it_was_written_holds(bench: Workbench, name: str) -> None:
    """Every check is ok in every format, whatever the rows ended as."""
    job = bench.job(target={"format": name}, output={"partition_rows": 5})
    carry_out(job, simulator(*ENDINGS, seed=1))
    for subject in (job, bench.output, bench.run_directory, str(bench.output)):
        found = cometbatch.verify(subject)
        assert (failed(found), skipped(found), found.ok) == (set(), set(), True)
    assert [check.name for check in found.checks] == list(CHECKS)
    assert (found.rows, found.describe().splitlines()[-1]) == (ROWS, "everything holds")


def test_a_typed_table_holds(bench: Workbench) -> None:
    """Nulls, NaN, dictionaries, nanoseconds, lists and decimals are compared by value; NaN is like NaN."""
    columns = {
        "parcel": pa.array(["a", "b", None, "d"]).dictionary_encode(),
        "note": pa.array([1.5, float("nan"), None, -0.0]),
        "when": pa.array([1, 2, None, 1_700_000_000_123_456_789], pa.timestamp("ns")),
        "tags": pa.array([[float("nan")], [], None, [1.0, None]], pa.list_(pa.float64())),
        "sum": pa.array([Decimal("1.10"), None, Decimal("3.00"), Decimal("0.01")], pa.decimal128(9, 2)),
    }
    bench.write_table(pa.table(columns))
    carry_out(bench.job(prompt={"user": "{{ row|tojson }}"}, output={"partition_rows": 3}), Network())
    found = cometbatch.verify(bench.output)
    assert (failed(found), skipped(found)) == (set(), set())


@pytest.mark.parametrize("rows", [0, 1, 2500])
def test_tables_of_any_size_hold(bench: Workbench, rows: int) -> None:
    """None, one, or more rows than are held at a time."""
    bench.write_rows(rows)
    carry_out(bench.job(output={"partition_rows": 1100, "prefix": "out_"}), Network())
    found = cometbatch.verify(bench.output)
    assert (failed(found), found.rows) == (set(), rows)


def test_a_data_set_holds(bench: Workbench) -> None:
    """Its parts are the result, so there is nothing to compare them with."""
    job = bench.job(output={"path": f"{bench.folder}/out/", "partition_rows": 5})
    carry_out(job, Network())
    assert (failed(cometbatch.verify(job)), skipped(cometbatch.verify(job))) == (set(), {"result"})
    (bench.folder / "out" / "extra.parquet").write_bytes(b"whatever")
    assert "extra.parquet" in places(cometbatch.verify(bench.folder / "out"), "parts")


def test_a_data_set_of_workers_holds_while_it_names_their_parts(bench: Workbench) -> None:
    """Their parts lie in the run directory; a name that is gone, or another file's, and a strange part are told."""
    job = bench.job(output={"path": f"{bench.folder}/out/", "partition_rows": 5})
    carry_out(job, Network())
    made, names = bench.folder / "_out.run" / "parts", sorted((bench.folder / "out").iterdir())
    made.mkdir()
    for each in names:
        (made / f"{each.stem}.part").hardlink_to(each)
    assert failed(cometbatch.verify(job)) == set()
    directory = directory_of(bench.folder / "out", is_dataset=True)
    info = parts.read_info(names[0], str(cometbatch.verify(job).run_id), 0)
    directory.owners.committed.mkdir()
    note = CommittedPart(info.run_id, 0, names[0].stat().st_size, info.tally)
    directory.owners.note_part(1, 1, note)
    assert failed(cometbatch.verify(job)) == set()
    directory.owners.note_part(1, 2, msgspec.structs.replace(note, tally=Tally(failed=5)))
    assert "00000.part: its worker noted another total" in places(cometbatch.verify(job), "sums")
    (directory.owners.committed / "1-2.jsonl").unlink()
    (made / "00099.part").write_bytes(b"whatever")
    assert "00099.part" in places(cometbatch.verify(job), "parts")
    (made / "00099.part").unlink()
    content = names[0].read_bytes()
    names[0].unlink()
    assert f"{names[0].name}: this is not the part that a worker made" in places(cometbatch.verify(job), "parts")
    names[0].write_bytes(content)  # as a copy of the run has it
    assert failed(cometbatch.verify(job)) == set()
    names[0].write_bytes(names[1].read_bytes())
    assert f"{names[0].name}: this is not the part that a worker made" in places(cometbatch.verify(job), "parts")


def test_a_run_that_moved_holds(finished: Workbench) -> None:
    """Output and run directory moved together; the input is found where it was."""
    away = finished.folder / "away"
    away.mkdir()
    finished.output.rename(away / "new.parquet")
    finished.run_directory.rename(away / "_new.parquet.run")
    found = cometbatch.verify(away / "new.parquet")
    assert (failed(found), skipped(found)) == (set(), set())


def test_long_answers_are_proved_a_few_at_a_time(bench: Workbench) -> None:
    """The answers of a partition are never in memory together, neither those of its part nor the published ones."""
    rows, size = 400, 100_000
    bench.write_rows(rows)

    def long(request: httpx.Request) -> httpx.Response | None:
        row = re.search(rb"Parcel ([0-9]+)", request.content)
        reply = chat.build_response(MODEL, Completion(row[1].decode().ljust(size, "x") if row else "", "stop"))
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body) if row else None

    carry_out(bench.job(output={"partition_rows": rows}, limits={"concurrency": 8}), Network(answer=long))
    proofs: list[cometbatch.Verification] = []
    for group_rows in (None, rows):  # parts of older versions are one row group
        if group_rows is not None:
            rewrite(part(bench, 0), lambda table: table)
            rewrite(bench.output, lambda table: table)
            assert pq.read_metadata(part(bench, 0)).num_row_groups == 1
        assert peak_bytes(lambda: proofs.append(cometbatch.verify(bench.output))) < rows * size
        assert failed(proofs[-1]) == set()


def test_an_input_that_is_gone_skips_what_needs_it(finished: Workbench) -> None:
    """The prompts are then made of the result's own input columns, so answers are still held against them."""
    finished.input.unlink()
    found = cometbatch.verify(finished.output)
    assert (failed(found), skipped(found), found.ok) == (set(), {"input", "rows"}, True)
    assert f"{finished.input} is gone" in found.describe()
    assert "2 could not be checked" in found.describe()


def test_a_row_that_was_never_sent_has_no_request(bench: Workbench) -> None:
    """A row that can't be rendered has nothing to hold against a prompt."""
    carry_out(bench.job(prompt={"user": "{{ 12 // (parcel|int - 5) }}: {{ note }}"}), Network())
    assert failed(cometbatch.verify(bench.output)) == set()


def test_verifying_changes_nothing(finished: Workbench) -> None:
    """Not a byte, not a time, neither of a whole run nor of a damaged one."""
    before = files(finished.folder)
    cometbatch.verify(finished.output)
    assert files(finished.folder) == before
    part(finished, 1).unlink()
    before = files(finished.folder)
    assert not cometbatch.verify(finished.output).ok
    assert files(finished.folder) == before


# -- no finished run ---------------------------------------------------------------------------------------------------


def test_no_run_is_refused(bench: Workbench) -> None:
    """Where nothing was run there is nothing to prove."""
    with pytest.raises(cometbatch.UsageError, match="there is no run here"):
        cometbatch.verify(bench.output)


def test_an_unfinished_run_is_refused(finished: Workbench) -> None:
    """It says how far the run got, and how to get on."""
    finished.output.unlink()
    with pytest.raises(cometbatch.UsageError, match="not published"):
        cometbatch.verify(finished.output)
    part(finished, 1).unlink()
    with pytest.raises(cometbatch.UsageError, match="2 of 3 partitions are done"):
        cometbatch.verify(finished.output)


# -- rendering by other rules ------------------------------------------------------------------------------------------


def test_requests_are_not_compared_where_prompts_are_rendered_by_other_rules(finished: Workbench) -> None:
    """A run of a program with another number of the rules: the check is skipped with the reason, all others are made.

    The number is the program's, so the job file is no other one.
    """
    manifest(lambda document: document["fingerprint"].update({"prompt.rendering": -1}))(finished)
    everywhere(cell("custom_id", "9999"))(finished)
    everywhere(cell("request_hash", "0" * 64))(finished)
    for subject in (finished.output, finished.job(**EVERY_KIND)):
        found = cometbatch.verify(subject)
        assert (failed(found), skipped(found)) == ({"ids"}, {"requests"})
        (check,) = (each for each in found.checks if each.name == "requests")
        assert check.reason == "this version of cometbatch renders prompts by other rules than the run's"


# -- tampering ---------------------------------------------------------------------------------------------------------

Tampering = Callable[[Workbench], object]
Change = Callable[[pa.Table], pa.Table]


def part(bench: Workbench, index: int) -> Path:
    """Where a part is."""
    return bench.run_directory / "parts" / f"{index:05d}.part"


def rewrite(path: Path, change: Change) -> None:
    """A Parquet file with other content, its footer's own words kept, but for the sum that would tell at once."""
    words = pq.read_metadata(path).metadata
    with path.open("rb") as file:
        table = change(pq.read_table(file))
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata(
            {key: value for key, value in words.items() if key not in (b"ARROW:schema", parts.SUM_KEY)}
        )


def everywhere(change: Change, index: int = 1) -> Tampering:
    """The same change in a part and in the published result."""

    def tamper(bench: Workbench) -> None:
        rewrite(part(bench, index), change)
        tables = [pq.read_table(part(bench, each)) for each in range(ROWS // PARTITION_ROWS)]
        rewrite(bench.output, lambda table: pa.concat_tables(tables).replace_schema_metadata(table.schema.metadata))

    return tamper


def in_part(change: Change) -> Tampering:
    """A change in a part alone."""
    return lambda bench: rewrite(part(bench, 1), change)


def in_result(change: Change) -> Tampering:
    """A change in the published result alone."""
    return lambda bench: rewrite(bench.output, change)


def cell(column: str, value: object, *, status: str = "succeeded", at: int = 0) -> Change:
    """Another value in the n-th row of a status."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[nth(table, status, at)] = value
        position, field = table.schema.get_field_index(column), table.schema.field(column)
        return table.set_column(position, field, pa.array(values, field.type))

    return change


def nth(table: pa.Table, status: str, at: int) -> int:
    """Where the n-th row of a status is."""
    return [row for row, found in enumerate(table["status"].to_pylist()) if found == status][at]


def swapped(columns: Callable[[str], bool]) -> Change:
    """The chosen columns of the first two rows change places."""

    def change(table: pa.Table) -> pa.Table:
        other = table.take([1, 0, *range(2, table.num_rows)])
        return pa.Table.from_arrays(
            [(other if columns(name) else table)[name] for name in table.column_names], schema=table.schema
        )

    return change


def is_input(name: str) -> bool:
    """Whether a column is one of the input's."""
    return name in ("parcel", "note")


def manifest(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """A change in the manifest."""

    def tamper(bench: Workbench) -> None:
        path = bench.run_directory / "manifest.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return tamper


def footer(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """Other words in the footer of a part."""

    def tamper(bench: Workbench) -> None:
        path = part(bench, 1)
        table = pq.read_table(path)
        words = dict(pq.read_metadata(path).metadata)
        info = json.loads(words[parts.PART_KEY])
        change(info)
        with pq.ParquetWriter(path, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({parts.PART_KEY: json.dumps(info).encode()})

    return tamper


def flipped(path: Callable[[Workbench], Path]) -> Tampering:
    """One bit in the middle of the first page."""

    def tamper(bench: Workbench) -> None:
        content = bytearray(path(bench).read_bytes())
        content[60] ^= 1
        path(bench).write_bytes(content)

    return tamper


def cut(path: Callable[[Workbench], Path]) -> Tampering:
    """A file whose end is lost."""
    return lambda bench: path(bench).write_bytes(path(bench).read_bytes()[:-100])


def copied(name: str, target: str) -> Tampering:
    """A file of the run directory under another name."""
    return lambda bench: shutil.copy(bench.run_directory / name, bench.run_directory / target)


def foreign_run(bench: Workbench, *, target: str) -> None:
    """A file of another run of the same job."""
    other = Workbench(bench.folder / "other")
    other.folder.mkdir()
    other.input = bench.input
    carry_out(other.job(**EVERY_KIND), Network())
    its_file, our_file = {"part": (part(other, 1), part(bench, 1)), "result": (other.output, bench.output)}[target]
    shutil.copy(its_file, our_file)


def result_of_another_job(bench: Workbench, key: bytes = b"cometbatch.job") -> None:
    """The same rows, said to come from another job."""
    words = {**pq.read_metadata(bench.output).metadata, key: b"{}"}
    table = bench.result()
    with pq.ParquetWriter(bench.output, table.schema.remove_metadata()) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(
            {name: value for name, value in words.items() if name not in (b"ARROW:schema", parts.SUM_KEY)}
        )


def edited_input(bench: Workbench) -> None:
    """Another cell in the input."""
    bench.input.write_text(bench.input.read_text(encoding="utf-8").replace("note 5", "note five"), encoding="utf-8")


def vouched_for(bench: Workbench) -> None:
    """A manifest that says that the input was always so."""

    def change(document: dict[str, Any]) -> None:
        document["input"]["size"], document["input"]["sha256"] = open_source(bench.input).digest()

    manifest(change)(bench)


def other_input_in_the_manifest(bench: Workbench) -> None:
    """Another input of the same shape, vouched for by an edited manifest."""
    edited_input(bench)
    vouched_for(bench)


def shorter_input_in_the_manifest(bench: Workbench) -> None:
    """An input that lacks its last rows, vouched for by an edited manifest."""
    lines = bench.input.read_text(encoding="utf-8").splitlines(keepends=True)
    bench.input.write_text("".join(lines[:-4]), encoding="utf-8")
    vouched_for(bench)


def column_renamed_everywhere(bench: Workbench) -> None:
    """A name that the input does not have, in parts, result and manifest."""

    def change(table: pa.Table) -> pa.Table:
        return table.rename_columns(["other" if name == "note" else name for name in table.column_names])

    for path in (*(part(bench, index) for index in range(ROWS // PARTITION_ROWS)), bench.output):
        rewrite(path, change)
    manifest(lambda document: document["input"].update(columns=["parcel", "other"]))(bench)


def other_rates(document: dict[str, Any]) -> None:
    """A dearer answer."""
    document["targets"][0]["prices"]["rates"]["output"] = "1.6"


def other_prompt(document: dict[str, Any]) -> None:
    """Another prompt in the job."""
    document["job"]["messages"][1]["template"] = "Parcel {{ parcel }} {{ note }}"


def other_prompt_everywhere(document: dict[str, Any]) -> None:
    """Another prompt in job and fingerprint."""
    other_prompt(document)
    document["fingerprint"]["prompt.messages[1].content"] = "Parcel {{ parcel }} {{ note }}"


TAMPERINGS: dict[str, tuple[Tampering, set[str]]] = {
    "answers swapped": (everywhere(swapped(lambda name: not is_input(name))), {"ids", "requests"}),
    "inputs swapped": (everywhere(swapped(is_input)), {"rows", "ids", "requests"}),
    "rows swapped": (everywhere(swapped(lambda _: True)), {"rows"}),
    "texts swapped in a part": (in_part(swapped(lambda name: name == "response")), {"result"}),
    "answer altered in a part": (in_part(cell("response", "Nothing of the kind.")), {"result"}),
    "answer altered in the result": (in_result(cell("response", "Nothing of the kind.")), {"result"}),
    "answer emptied": (everywhere(cell("response", None)), {"outcomes"}),
    "answer blanked": (everywhere(cell("response", " \n")), {"outcomes"}),
    "input cell altered": (everywhere(cell("note", "nothing")), {"rows", "requests"}),
    "id altered": (everywhere(cell("custom_id", "9999")), {"ids"}),
    "hash altered": (everywhere(cell("request_hash", "0" * 64)), {"requests"}),
    "hash removed": (everywhere(cell("request_hash", None)), {"outcomes"}),
    "cost altered": (everywhere(cell("cost_usd", Decimal("0.000001"))), {"costs", "sums"}),
    "cost removed": (everywhere(cell("cost_usd", None)), {"costs", "sums"}),
    "cost of a failed row": (everywhere(cell("cost_usd", Decimal(0), status="failed")), {"costs", "outcomes"}),
    "reported cost added": (everywhere(cell("reported_cost_usd", Decimal("0.5"))), {"sums"}),
    "reported cost negative": (everywhere(cell("reported_cost_usd", Decimal("-0.5"))), {"outcomes"}),
    "reported cost of a failed row": (
        everywhere(cell("reported_cost_usd", Decimal(0), status="failed")),
        {"outcomes"},
    ),
    "usage altered": (everywhere(cell("output_tokens", 7)), {"costs", "sums"}),
    "usage negative": (everywhere(cell("output_tokens", -7)), {"costs", "outcomes"}),
    "writes for an hour beyond all writes": (
        everywhere(lambda table: cell("cache_write_1h_input_tokens", 3)(cell("cache_write_input_tokens", 2)(table))),
        {"costs", "outcomes"},
    ),
    "writes for an hour altered": (everywhere(cell("cache_write_1h_input_tokens", 3)), {"sums"}),
    "use beside tokens added": (everywhere(cell("cost_excludes", "web_search")), {"sums"}),
    "use beside tokens of a failed row": (
        everywhere(cell("cost_excludes", "web_search", status="failed")),
        {"outcomes"},
    ),
    "counts called contradictory": (everywhere(cell("cost_excludes", "usage={}")), {"outcomes"}),
    "reasoning beyond the output": (everywhere(cell("reasoning_output_tokens", 10**6)), {"outcomes"}),
    "status unknown": (everywhere(cell("status", "fine")), {"outcomes"}),
    "failure called a success": (
        everywhere(cell("status", "succeeded", status="failed")),
        {"outcomes"},
    ),
    "success called incomplete": (everywhere(cell("status", "incomplete")), {"outcomes"}),
    "success with an error": (everywhere(cell("error_kind", "timeout")), {"outcomes"}),
    "failure without a kind": (everywhere(cell("error_kind", None, status="failed")), {"outcomes"}),
    "failure of an unknown kind": (everywhere(cell("error_kind", "gremlins", status="failed")), {"outcomes"}),
    "failure never rendered": (everywhere(cell("error_kind", "template", status="failed")), {"sums"}),
    "reason unknown": (everywhere(cell("finish_reason", "tired", status="incomplete")), {"outcomes"}),
    "attempts removed": (everywhere(cell("attempts", 0)), {"outcomes"}),
    "attempts altered": (everywhere(cell("attempts", 9)), {"sums"}),
    "column dropped": (in_part(lambda table: table.drop_columns(["latency_s"])), {"columns"}),
    "column added in the result": (
        in_result(lambda table: table.append_column("more", pa.nulls(ROWS))),
        {"result"},
    ),
    "column renamed everywhere": (column_renamed_everywhere, {"job", "rows"}),
    "column of another type": (
        in_part(lambda table: table.set_column(0, "parcel", table["parcel"].cast(pa.large_string()))),
        {"columns"},
    ),
    "part missing": (lambda bench: part(bench, 1).unlink(), {"parts"}),
    "part of another run": (lambda bench: foreign_run(bench, target="part"), {"parts"}),
    "part under two names": (copied("parts/00001.part", "parts/00002.part"), {"parts"}),
    "part too many": (copied("parts/00001.part", "parts/00007.part"), {"parts"}),
    "part without a footer": (cut(lambda bench: part(bench, 1)), {"parts"}),
    "part with other rows": (footer(lambda info: info["partition"].update(first_row=8)), {"parts"}),
    "part with other sums": (footer(lambda info: info["tally"].update(cost_usd="5")), {"sums"}),
    "part with other reported sums": (footer(lambda info: info["tally"].update(reported_cost_usd="5")), {"sums"}),
    "part with other differences": (footer(lambda info: info["tally"].update(differing=1)), {"sums"}),
    "bit flipped in a part": (flipped(lambda bench: part(bench, 1)), {"pages"}),
    "row cut from a part": (in_part(lambda table: table.slice(1)), {"parts"}),
    "result truncated": (cut(lambda bench: bench.output), {"result"}),
    "row cut from the result": (in_result(lambda table: table.slice(0, ROWS - 1)), {"result"}),
    "row added to the result": (
        in_result(lambda table: pa.concat_tables([table, table.slice(0, 1)])),
        {"result"},
    ),
    "rows of the result reversed": (in_result(lambda table: table.take(list(range(ROWS))[::-1])), {"result"}),
    "result of another run": (lambda bench: foreign_run(bench, target="result"), {"result", "metadata"}),
    "result that says other things": (result_of_another_job, {"metadata"}),
    "result that says no prices": (lambda bench: result_of_another_job(bench, b"cometbatch.prices"), {"metadata"}),
    "input edited": (edited_input, {"input"}),
    "input emptied": (lambda bench: bench.input.write_bytes(b""), {"input"}),
    "input edited, manifest too": (other_input_in_the_manifest, {"rows"}),
    "input cut short, manifest too": (shorter_input_in_the_manifest, {"rows"}),
    "prices edited": (manifest(other_rates), {"costs", "metadata"}),
    "prices too fine": (
        manifest(lambda document: document["targets"][0]["prices"]["rates"].update(output="0.00000000000001")),
        {"costs", "metadata"},
    ),
    "prompt edited": (manifest(other_prompt), {"job", "requests", "metadata"}),
    "prompt edited, fingerprint too": (manifest(other_prompt_everywhere), {"requests", "metadata"}),
    "model edited": (
        manifest(lambda document: document["job"]["target"].update(model="x")),
        {"job", "requests", "metadata"},
    ),
    "no job": (manifest(lambda document: document.update(job={})), {"job", "metadata"}),
    "broken template": (
        manifest(lambda document: document["job"]["messages"][1].update(template="{{ parcel")),
        {"job", "metadata"},
    ),
    "template of other columns": (
        manifest(lambda document: document["job"]["messages"][1].update(template="{{ colour }}")),
        {"job", "metadata"},
    ),
    "run edited": (manifest(lambda document: document.update(run_id="0" * 32)), {"parts", "metadata"}),
    "rows edited": (
        manifest(lambda document: document["input"].update(rows=8)),
        {"parts", "result"},
    ),
    "partitions edited": (manifest(lambda document: document.update(partition_rows=6)), {"parts"}),
    "no partitions": (manifest(lambda document: document.update(partition_rows=0)), {"manifest"}),
    "manifest torn": (
        lambda bench: (bench.run_directory / "manifest.json").write_bytes(b'{"version": 1,'),
        {"manifest"},
    ),
    "journal left": (copied("sessions/1.json", "journal/00001.1.jsonl"), {"leftovers"}),
    "half a part left": (copied("parts/00001.part", "parts/.00001.part.tmp"), {"leftovers"}),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_tampering_is_told(finished: Workbench, name: str) -> None:
    """Each way to damage or forge a run fails the checks that it should, and says so in words."""
    tamper, expected = TAMPERINGS[name]
    tamper(finished)
    found = cometbatch.verify(finished.output)
    assert failed(found) == expected
    assert found.ok == (not expected)
    for check in found.checks:
        assert (check.state == "failed") == bool(check.places)
        assert (check.state == "skipped") == bool(check.reason)
    assert json.loads(json.dumps(found.to_dict()))["ok"] == found.ok


def part_and_rows_missing(bench: Workbench) -> None:
    """A part that is gone, and an input that ends before its rows."""
    part(bench, 2).unlink()
    shorter_input_in_the_manifest(bench)


SEVERAL: dict[str, Tampering] = {
    "cells of the input": everywhere(lambda table: cell("note", "x", at=1)(cell("parcel", "y")(table))),
    "cells of the result": in_result(lambda table: cell("note", "x", at=5)(cell("response", "y")(table))),
    "rows and their sums": everywhere(lambda table: cell("status", "x", at=1)(cell("attempts", 9)(table))),
    "result changed and cut": in_result(lambda table: cell("note", "x")(table).slice(0, ROWS - 1)),
    "result of other columns": in_result(lambda table: table.drop_columns(["note"])),
    "part and rows missing": part_and_rows_missing,
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_report_is_the_same_however_few_rows_are_read_at_a_time(
    finished: Workbench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Places come column by column, and what is said of a partition as a whole is said once."""
    SEVERAL[name](finished)
    whole = cometbatch.verify(finished.output)
    monkeypatch.setattr(parts, "PIECE_ROWS", 1)
    assert cometbatch.verify(finished.output) == whole
    assert not whole.ok


def test_nothing_is_said_of_the_rows_of_a_damaged_part(finished: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of those before the damage, where only the checksum of the last page tells it."""

    def tamper(table: pa.Table) -> pa.Table:
        return cell("response", "y")(cell("note", "x")(table))

    rewrite(part(finished, 1), tamper)
    content = bytearray(part(finished, 1).read_bytes())
    content[-int.from_bytes(content[-8:-4], "little") - 12] ^= 1  # before the footer and its length
    part(finished, 1).write_bytes(content)
    monkeypatch.setattr(parts, "PIECE_ROWS", 1)
    assert failed(cometbatch.verify(finished.output)) == {"pages"}


def test_a_place_is_a_file_and_a_row(finished: Workbench) -> None:
    """Whoever looks for what is wrong is led to it, five places of it at most."""
    change = cell("cost_usd", Decimal(7))
    row = PARTITION_ROWS + nth(pq.read_table(part(finished, 1)), "succeeded", 0)
    everywhere(change)(finished)
    words = places(cometbatch.verify(finished.output), "costs")
    assert words.startswith(f"00001.part, row {row}: cost_usd is 7, but usage and the frozen prices give 0.000")
    finished.output.unlink()
    rewrite_all = pc.fill_null(pa.nulls(ROWS, pa.string()), "x")
    pq.write_table(pa.table({"response": rewrite_all}), finished.output)
    found = next(check for check in cometbatch.verify(finished.output).checks if check.name == "result")
    assert found.found == len(found.places) == ROWS // PARTITION_ROWS < PLACES_SHOWN


def test_more_places_are_counted_than_shown(finished: Workbench) -> None:
    """A report stays short however much is wrong."""
    in_result(lambda table: table.set_column(1, table.schema.field(1), pa.array(["x"] * ROWS)))(finished)
    found = cometbatch.verify(finished.output)
    check = next(check for check in found.checks if check.name == "result")
    assert (check.found, len(check.places)) == (ROWS, PLACES_SHOWN)
    assert f"and {ROWS - PLACES_SHOWN} more" in found.describe()
    assert "1 of 15 checks failed" in found.describe()


def test_another_job_than_the_runs_is_told(finished: Workbench) -> None:
    """Asked about a job file that was edited since, it says which key differs."""
    edited = finished.job(**EVERY_KIND, params={"temperature": 1})
    found = cometbatch.verify(edited)
    assert failed(found) == {"job"}
    assert "params.temperature" in places(found, "job")


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_numbers_are_compared_by_their_bits(kind: pa.DataType) -> None:
    """-0.0 is not 0.0, in whatever company it is read; NaN is like NaN."""
    one, other = (pa.table({"x": pa.chunked_array([[0.0, float("nan")], [zero, None]], kind)}) for zero in (0.0, -0.0))
    assert list(row_checks.differences(one, one.combine_chunks(), ["x"])) == []
    assert list(row_checks.differences(one, other, ["x"])) == [(2, "x")]
    assert list(row_checks.differences(one.slice(2), other.slice(2), ["x"])) == [(0, "x")]


# -- single rows -------------------------------------------------------------------------------------------------------


def test_a_prompt_that_can_be_made_was_not_unrenderable(finished: Workbench) -> None:
    """A row can't be passed off as one that could not be rendered."""
    changes = {"error_kind": "template", "attempts": 0, "latency_s": None, "request_hash": None, "http_status": None}

    def change(table: pa.Table) -> pa.Table:
        for column, value in changes.items():
            table = cell(column, value, status="failed")(table)
        return table

    everywhere(change)(finished)
    assert failed(cometbatch.verify(finished.output)) == {"requests", "sums"}


def test_a_cost_is_null_exactly_where_it_is_unknown() -> None:
    """Unknown is not free: without usage or prices there is no cost to claim."""
    known = {"status": "succeeded", "input_tokens": 10, "output_tokens": 10, "cache_read_input_tokens": None,
             "cache_write_input_tokens": None, "reasoning_output_tokens": None}  # fmt: skip
    rates = Rates(input=Decimal(1), output=Decimal(2))
    cases = [
        ({**known, "cost_usd": Decimal("0.00003")}, rates, True),
        ({**known, "cost_usd": None}, rates, False),
        ({**known, "cost_usd": None}, None, True),
        ({**known, "cost_usd": Decimal(0)}, None, False),
        ({**known, "output_tokens": None, "cost_usd": None}, rates, True),
        ({**known, "output_tokens": None, "cost_usd": Decimal(0)}, rates, False),
    ]
    for cells, prices, holds in cases:
        assert (row_checks.wrong_cost(cells, prices) is None) == holds


def test_an_answer_to_an_unrenderable_row_is_impossible() -> None:
    """No prompt, no answer."""
    failure = msgspec.convert({"kind": "template", "message": "no"}, cometbatch.Failure)
    made = msgspec.convert(
        {"record": "failed", "ordinal": 0, "custom_id": None, "attempts": 0, "latency_s": None,
         "finished_at": "2026-01-01T00:00:00Z",
         "request_hash": None, "failure": failure}, cometbatch.Failed)  # fmt: skip
    assert not isinstance(made, CallRequest)
    assert row_checks.wrong_request({"error_kind": None, "request_hash": "0" * 64}, made)
    assert row_checks.wrong_request({"error_kind": "template", "request_hash": None}, made) is None


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    line = [sys.executable, "-m", "cometbatch", "verify", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_ends_with_what_it_found(finished: Workbench) -> None:
    """Everything holds: 0; a check failed: 3; there is no finished run: 2. It takes a job file or an output."""
    job_file = finished.write_job(**EVERY_KIND)
    whole = command(job_file)
    assert (whole.returncode, whole.stdout.splitlines()[-1], whole.stderr) == (0, "everything holds", "")
    cut(lambda bench: bench.output)(finished)
    broken = command(finished.output, "--json")
    assert broken.returncode == 3
    report = json.loads(broken.stdout)
    assert [check["name"] for check in report["checks"] if check["state"] == "failed"] == ["result"]
    none = command(finished.folder / "elsewhere.parquet")
    assert (none.returncode, none.stdout) == (2, "")
    assert "there is no run here" in none.stderr
