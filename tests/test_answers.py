"""`show` and `export`: the rows that have an outcome, of results, data sets and runs in every state."""

import asyncio
import contextlib
import csv
import io
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands.open_rows import open_rows
from cometbatch.commands.run import run_async
from cometbatch.errors import CheckpointError, InputError, JobError, UsageError
from cometbatch.records import Answered, Failed
from cometbatch.results.export import csv_encoder, jsonl_encoder
from cometbatch.results.rows import Piece
from cometbatch.run_state import open_records, recorded_rows
from tests import virtual_time
from tests.test_cli import command
from tests.test_limit import first, limited, prompt_of
from tests.workbench import Network, Workbench, carry_out, files, peak_bytes, simulator

ROWS = 12


def rows_of(target: Any, **more: Any) -> list[dict[str, Any]]:
    """What `export` gives, as Python values."""
    lines = cometbatch.export(target, to="jsonl", **more).lines()
    return [json.loads(line, parse_float=Decimal) for some in lines for line in some]


def shown(target: Any, **more: Any) -> list[str]:
    """The lines of `show`, without the names of columns."""
    return list(cometbatch.show(target, limit=100, **more).lines())[1:]


def refusing(*rows: str, kind: str = "bad") -> Network:
    """A service that refuses these rows."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        is_it = request.method == "POST" and prompt_of(request) in rows
        return httpx.Response(400, json={"error": {"message": f"{kind} row", "code": kind}}) if is_it else None

    return Network(answer=answer)


# -- where rows come from --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["out.parquet", "out/"])
def test_every_way_to_a_finished_run_gives_the_rows_of_its_result(bench: Workbench, ending: str) -> None:
    """A job, its file, the result, the run directory, and the result alone; nothing is changed."""
    bench.output = bench.folder / ending.rstrip("/")
    output = {"path": f"{bench.output}{'/' if ending == 'out/' else ''}", "partition_rows": 5}
    job = bench.job(output=output)
    carry_out(job, simulator())
    before = files(bench.folder)
    ways = [job, bench.write_job(output=output), bench.output, bench.run_directory]
    result = pq.read_table(bench.output)
    names = result.column_names
    for way in ways:
        found = rows_of(way)
        assert [list(row) for row in found] == [names] * ROWS
        for name in ("parcel", "note", "response", "status", "cost_usd", "input_tokens", "error_kind"):
            assert [row[name] for row in found] == result[name].to_pylist()
    (bench.folder / "job.yaml").unlink()
    assert files(bench.folder) == {name: file for name, file in before.items() if name != "job.yaml"}
    moved = bench.folder / "moved" / bench.output.name
    moved.parent.mkdir()
    shutil.move(bench.output, moved)
    assert [row["parcel"] for row in rows_of(moved)] == first(ROWS)


@settings(max_examples=6, deadline=None)
@given(partition_rows=st.integers(1, 7), seconds=st.floats(0.2, 3.0), retry=st.booleans())
def test_a_run_that_was_cut_off_shows_exactly_what_it_recorded(
    tmp_path_factory: pytest.TempPathFactory, partition_rows: int, seconds: float, retry: bool
) -> None:
    """At whatever moment, also while `--retry` answers rows again: each row with its own columns, in order."""
    bench = Workbench(tmp_path_factory.mktemp("run"))
    bench.write_rows(ROWS)
    job = bench.job(output={"partition_rows": partition_rows}, limits={"concurrency": 2})
    again = ["failed"] if retry else []
    if retry:
        carry_out(job, refusing(*first(9, 3)))
    with contextlib.suppress(TimeoutError):
        virtual_time.run(asyncio.wait_for(run_async(job, retry=again, progress=False, http=simulator()), seconds))
    recorded = cometbatch.status(job).summary.tally.calls
    pieces = list(open_rows(bench.run_directory).pieces())
    found = rows_of(bench.run_directory)
    assert len(found) == recorded
    assert [row["custom_id"] for row in found] == [row["parcel"] for row in found]
    assert sorted({row["parcel"] for row in found}) == [row["parcel"] for row in found]
    assert [ordinal for piece in pieces for ordinal in piece.ordinals] == [int(row["parcel"]) for row in found]
    assert all(row["note"] == f"note {int(row['parcel'])}, in two\nlines" for row in found)


def test_a_run_that_goes_on_is_read_without_disturbing_it(bench: Workbench) -> None:
    """Partitions are committed meanwhile, between two pieces that are read; the run ends as if nobody had looked."""
    job, seen = bench.job(output={"partition_rows": 3}, limits={"concurrency": 2}), list[int]()

    def answer(request: httpx.Request) -> None:
        if request.method == "POST":
            seen.append(len(rows_of(bench.run_directory)))
            assert "going on" in cometbatch.show(job).notes[0]

    assert carry_out(job, Network(answer=answer)).all_succeeded
    assert seen == sorted(seen)
    assert seen[-1] >= ROWS - 3
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize("read_before", [0, 1, 3])
def test_a_partition_that_is_committed_while_it_is_read_is_read_to_its_end(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, read_before: int
) -> None:
    """Its journals go meanwhile, and the part has the rest: no row that was counted comes twice, or is left out."""
    monkeypatch.setattr(recorded_rows, "PIECE_BYTES", 1)  # a row a piece
    monkeypatch.setattr(open_records, "MAX_KEPT_BYTES", 0)  # read from the journals, one file after the other
    bench.write_rows(6)
    job = bench.job(output={"partition_rows": 6})
    for limit in (2, 4):
        limited(job, simulator(), limit)
    pieces = open_rows(bench.run_directory).pieces()
    found = [next(pieces) for _ in range(read_before)]
    carry_out(job, simulator())
    found += pieces
    assert [ordinal for piece in found for ordinal in piece.ordinals] == list(range(4))  # as many as status tells


def test_without_its_input_a_run_still_shows_its_answers(bench: Workbench) -> None:
    """A changed or lost input costs the columns of rows without a part, and a note says so."""
    limited(bench.job(), simulator(), 3)
    bench.write_rows(ROWS + 1)
    for name in ("it is not what it was", "can't be read"):
        exported = cometbatch.export(bench.run_directory, to="jsonl")
        assert name in exported.notes[-1]
        found = rows_of(bench.run_directory)
        assert [(row["parcel"], row["custom_id"], row["status"]) for row in found] == [
            (None, each, "succeeded") for each in first(3)
        ]
        bench.input.unlink(missing_ok=True)


def test_a_result_that_is_about_to_be_replaced_says_so(bench: Workbench) -> None:
    """It is read as it stands; the note names the command that shows the run."""
    carry_out(bench.job(), simulator())
    assert cometbatch.show(bench.output).notes == []
    limited(bench.job(params={"max_output_tokens": 5}), simulator(), 2, fresh=True)
    found = cometbatch.show(bench.output, limit=100)
    assert len(list(found.lines())) == 1 + ROWS
    assert found.notes[0].endswith(f"a run of this output is not finished: cometbatch show {bench.run_directory}")
    assert len(shown(bench.run_directory)) == 2


def test_what_is_no_result_is_refused_by_name(bench: Workbench) -> None:
    """A table, an empty folder, a job without a run, a damaged file: a sentence each, and exit code 2."""
    job = bench.write_job()
    other = bench.folder / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    (bench.folder / "empty").mkdir()
    cut = bench.folder / "cut.parquet"
    cut.write_bytes(b"PAR1" + b"\0" * 20)
    with pytest.raises(UsageError, match="has not begun"):
        cometbatch.show(job)
    for path, words in ((other, "no result of cometbatch"), (bench.folder / "empty", "no Parquet"), (cut, "can't be")):
        with pytest.raises(InputError, match=words):
            cometbatch.export(path, to="csv")
    with pytest.raises((UsageError, JobError)):
        cometbatch.show(bench.folder / "nothing.parquet")
    for name, text in (("answers.csv", "id,note\n1,a\n"), ("answers.jsonl", '{"id": 1}\n{"id": 2}\n')):
        (bench.folder / name).write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=r"this is a table, and no run .* Give the job file"):
            cometbatch.show(bench.folder / name)
        with pytest.raises(JobError, match=rf"This writes a job for it: cometbatch init '?.*{name}"):
            cometbatch.load_job(bench.folder / name)


def test_a_result_with_a_damaged_page_is_an_error_that_names_it(bench: Workbench) -> None:
    """Never half of a table without a word."""
    carry_out(bench.job(), simulator())
    content = bytearray(bench.output.read_bytes())
    content[40:120] = bytes(80)
    bench.output.write_bytes(content)
    with pytest.raises((InputError, CheckpointError), match=bench.output.name):
        rows_of(bench.output)


def test_outcomes_are_read_back_with_their_ordinals(bench: Workbench) -> None:
    """Who writes another form gets records, of parts and journals alike."""
    job = bench.job(output={"partition_rows": 4})
    limited(job, refusing("0005"), 6)
    rows = open_rows(job)
    outcomes = [each for piece in rows.pieces() for each in rows.outcomes(piece)]
    assert [(each.ordinal, each.custom_id) for each in outcomes] == [(row, f"{row:04d}") for row in range(6)]
    assert [type(each) for each in outcomes] == [Answered] * 5 + [Failed]


def test_of_a_table_that_went_through_two_runs_the_last_one_s_columns_are_meant(bench: Workbench) -> None:
    """The first run's are input of the second, which has a prefix."""
    carry_out(bench.job(), refusing("0003"))
    bench.input, bench.output = bench.output, bench.folder / "second.parquet"
    carry_out(bench.job(output={"prefix": "b_"}), refusing("0004"))
    assert [row["parcel"] for row in rows_of(bench.output, where="failed")] == ["0004"]
    assert list(rows_of(bench.output, columns=["b_status", "request_hash"])[0]) == ["b_status", "request_hash"]


# -- which rows and columns ------------------------------------------------------------------------------------------


def test_rows_are_chosen_by_the_words_of_retry(bench: Workbench) -> None:
    """Statuses, error kinds and finish reasons, of parts and of journals; `succeeded`, too."""
    job = bench.job(output={"partition_rows": 5}, params={"max_output_tokens": 3})
    limited(job, refusing("0001", "0006"), 8)
    whole = rows_of(job)
    for word in ("succeeded", "failed", "incomplete", "invalid_request", "length", "refusal"):
        wanted = [row["parcel"] for row in whole if word in (row["status"], row["error_kind"], row["finish_reason"])]
        assert [row["parcel"] for row in rows_of(job, where=word)] == wanted
    assert len(rows_of(job, where="failed,length")) == 8
    with pytest.raises(UsageError, match="--where: 'fail' is no kind of row, did you mean 'failed'"):
        rows_of(job, where="fail")


def test_columns_are_chosen_by_name_with_or_without_the_prefix(bench: Workbench) -> None:
    """In the order given; a name with a comma is a name; what is not there is refused with the names."""
    bench.write_table(pa.table({"parcel": ["1"], "note": ["a"], "x,y": [2]}))
    carry_out(bench.job(output={"prefix": "llm_"}), simulator())
    assert list(rows_of(bench.output, columns=["status,note", "x,y"])[0]) == ["llm_status", "note", "x,y"]
    with pytest.raises(UsageError, match=r"no column parcl, did you mean 'parcel'\? The columns are: parcel, note"):
        rows_of(bench.output, columns=["parcl"])


def test_show_gives_an_answer_or_the_reason_why_there_is_none(bench: Workbench) -> None:
    """A line a row: its number, its id, its status, its answer."""
    carry_out(bench.job(), refusing("0002"))
    lines = shown(bench.output)
    assert len(lines) == ROWS
    assert lines[2].split("\t") == ["2", "0002", "failed", "invalid_request: bad row"]
    assert lines[3].split("\t")[:3] == ["3", "0003", "succeeded"]
    (line, *cells) = cometbatch.show(bench.output, where="failed", full=True).lines()
    assert line == "row 2:"
    assert cells[:4] == ["  parcel: 0002", "  note: note 2, in two", "    lines", "  custom_id: 0002"]


def test_bytes_in_cells_are_counted_and_not_shown(bench: Workbench) -> None:
    """At every depth, as in the structures in which data sets have their images; bytes that are text are text."""
    photo = {"bytes": b"\x89PNG\xff", "path": b"a.png"}
    bench.write_table(
        pa.table({"parcel": ["1"], "note": ["a"], "b": [b"\xff\xfe"], "photo": [photo], "all": [[photo]]})
    )
    carry_out(bench.job(), simulator())
    (_, _, _, *cells) = cometbatch.show(bench.output, full=True).lines()
    photo_shown = '{"bytes":"<5 bytes>","path":"a.png"}'
    assert cells[:3] == ["  b: <2 bytes>", f"  photo: {photo_shown}", f"  all: [{photo_shown}]"]


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
def test_a_table_fits_every_width(bench: Workbench, width: int) -> None:
    """What has no room is named beside it."""
    carry_out(bench.job(), simulator())
    found = cometbatch.show(
        bench.output, columns=["parcel", "note", "response", "cost_usd", "finished_at"], width=width
    )
    lines = list(found.lines())
    assert max(map(len, lines)) < max(width, 2)
    assert len(lines) == 1 + 10
    assert any("no room" in note for note in found.notes) == (width < 80)
    assert any("-n 100 shows more" in note for note in found.notes)


# -- forms -----------------------------------------------------------------------------------------------------------

cells = (
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(['"', "\n", " ", ","])
)


@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_texts_come_back_from_both_forms(rows: list[tuple[str | None, str | None]]) -> None:
    """By other readers: Python's own. Null and an empty text differ in what is written."""
    table = pa.table(
        {'a "1"': pa.array([a for a, _ in rows], pa.string()), "b": pa.array([b for _, b in rows], pa.string())}
    )
    piece = Piece(range(len(rows)), table)
    made = csv_encoder(table.column_names)
    text = (made.head + b"".join(made.lines(piece))).decode()
    head, *read = csv.reader(io.StringIO(text, newline=""))
    assert head == table.column_names
    assert read == [[a or "", b or ""] for a, b in rows]
    assert text.removeprefix(made.head.decode()).startswith('"",') == (rows[0][0] == "")
    lines = b"".join(jsonl_encoder(table.column_names).lines(piece)).splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == rows


def test_a_row_of_one_empty_column_is_still_a_row(bench: Workbench) -> None:
    """Readers pass over empty lines."""
    carry_out(bench.job(), simulator())
    found = cometbatch.export(bench.output, to="csv", columns=["error_kind"])
    assert [line for some in found.lines() for line in some] == [b'""\n'] * ROWS


def test_a_file_is_whole_and_never_overwritten_silently(bench: Workbench) -> None:
    """Also not with --overwrite where the run needs it; the ending says the form."""
    job = bench.write_job()
    carry_out(cometbatch.load_job(job), simulator())
    file = bench.folder / "answers.jsonl"
    saved = command("export", job, "-o", file)
    assert (saved.returncode, saved.stdout, saved.stderr) == (0, "", f"12 rows written to {file}\n")
    assert len(file.read_text(encoding="utf-8").splitlines()) == ROWS
    again = command("export", job, "-o", file)
    assert (again.returncode, "exists. Choose another name, or replace it with --overwrite" in again.stderr) == (
        2,
        True,
    )
    made = cometbatch.export(job, output=file, columns=["parcel"])
    assert made.save(overwrite=True) == ROWS
    assert file.read_text(encoding="utf-8").splitlines()[0] == '{"parcel":"0000"}'
    for path, words in (
        (bench.input, "is a file that the run needs"),
        (bench.output, "is a file that the run needs"),
        (bench.folder, "is a folder"),
        (bench.folder / "no" / "x.csv", "no such folder"),
    ):
        with pytest.raises(UsageError, match=words):
            cometbatch.export(job, to="csv", output=path).save(overwrite=True)
    for other in (Path("x.txt"), Path("x.csv.gz"), None):
        with pytest.raises(UsageError, match=r"--to: write one of csv, jsonl|nothing is compressed here"):
            cometbatch.export(job, output=other)


def test_export_of_an_unfinished_run_says_so(bench: Workbench) -> None:
    """On standard error; standard output has the rows alone."""
    limited(bench.job(), simulator(), 3)
    said = command("export", bench.run_directory, "--to", "csv", "--columns", "parcel")
    assert (said.returncode, said.stdout) == (0, "parcel\n0000\n0001\n0002\n")
    assert said.stderr == "Note: this run is not finished: 3 of 12 rows have an outcome so far\n"


def test_memory_does_not_grow_with_the_table(bench: Workbench) -> None:
    """Forty times as many long cells take no more."""
    carry_out(bench.job(), simulator())
    one = bench.result().slice(0, 1).set_column(1, "note", pa.array(["é" * 20_000]))
    peaks = []
    for rows in (50, 2_000):
        path = bench.folder / f"{rows}.parquet"
        with pq.ParquetWriter(path, one.schema) as writer:
            for _ in range(rows // 50):
                writer.write_table(pa.concat_tables([one] * 50))

        def read(path: Path = path) -> None:
            for _ in cometbatch.export(path, to="jsonl").lines():
                pass

        peaks.append(peak_bytes(read))
    assert peaks[1] < peaks[0] + 8_000_000
