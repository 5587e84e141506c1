"""Jobs over JSON Lines, compressed files and several files: planned, run, resumed, proved and read again."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.errors import DriftError, InputLostError, JobError, UsageError
from tests import virtual_time
from tests.workbench import Network, Workbench, carry_out, simulator

ROWS = 12


def prompts(network: Network) -> list[str]:
    """What was asked, in the order of the rows."""
    bodies = [json.loads(request.content) for request in network.requests if request.method == "POST"]
    return sorted(body["messages"][-1]["content"] for body in bodies)


def proved(job: cometbatch.Job) -> None:
    """Everything holds."""
    assert cometbatch.verify(job).ok


def write_lines(bench: Workbench, name: str = "in.jsonl") -> None:
    """Conversations with nested values and mixed types."""
    bench.input = bench.folder / name
    lines = [
        {"parcel": f"{row:04}", "note": row if row % 2 else f"note {row}", "choices": [{"text": f"é{row}"}]}
        for row in range(ROWS)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    bench.input.write_bytes(gzip.compress(content) if bench.input.suffix == ".gz" else content)


NESTED = {"user": "{{ choices[0].text }} {{ note }} {{ choices }}"}


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_what_plan_counts_of_json_lines_is_what_run_sends(bench: Workbench, name: str) -> None:
    """Nested values are reached and printed as JSON; the result feeds the next job with the same values."""
    write_lines(bench, name)
    job = bench.job(prompt={"system": None, **NESTED})
    planned = cometbatch.plan(job, http=Network())
    network = Network()
    assert carry_out(job, network).succeeded == planned.rows == network.posts == ROWS
    due = [f'é{row} {row if row % 2 else f"note {row}"} [{{"text":"é{row}"}}]' for row in range(ROWS)]
    assert prompts(network) == sorted(due)
    proved(job)
    bench.input, bench.output = bench.output, bench.folder / "second.parquet"
    second = Network()
    again = bench.job(prompt={"system": None, **NESTED}, output={"prefix": "second_"})
    assert carry_out(again, second).succeeded == ROWS
    assert prompts(second) == sorted(due)
    proved(again)


def test_a_run_over_compressed_lines_that_was_stopped_goes_on(bench: Workbench) -> None:
    """A resume reads from the start, and each row is paid for once."""
    write_lines(bench, "in.jsonl.gz")
    content = bench.input.read_bytes()
    small = {"output": {"partition_rows": 2}, "limits": {"concurrency": 1, "adaptive": False}}
    job = bench.job(prompt=NESTED, **small)
    network = Network()

    def cut(_request: httpx.Request) -> None:
        if network.posts == ROWS // 2:
            bench.input.write_bytes(content[:-3])

    network._answer = cut
    with pytest.raises(InputLostError, match=r"in\.jsonl\.gz: changed while it was read"):
        carry_out(job, network)
    with pytest.raises(UsageError, match="data can't be unpacked"):
        carry_out(job, Network())
    bench.input.write_bytes(content)
    second = Network()
    assert carry_out(job, second).succeeded == ROWS
    assert network.posts + second.posts == ROWS
    proved(job)


def write_parts(bench: Workbench) -> None:
    """Three CSV files of four rows each, in a folder."""
    bench.input = bench.folder / "parts"
    bench.input.mkdir()
    for part in range(3):
        lines = [f"{row:04},note {row}\n" for row in range(4 * part, 4 * part + 4)]
        (bench.input / f"{part}.csv").write_text("parcel,note\n" + "".join(lines), encoding="utf-8")


def test_a_file_of_a_folder_that_grew_has_no_way_that_fits_one_file_alone(bench: Workbench) -> None:
    """The first bytes of one file are no table: the files have to come back."""
    write_parts(bench)
    job = bench.job(output={"partition_rows": 3}, limits={"concurrency": 1, "adaptive": False})
    network = Network()

    def grow(_request: httpx.Request) -> None:
        if network.posts == 1:
            with (bench.input / "1.csv").open("a", encoding="utf-8") as file:
                file.write("0099,more\n")

    network._answer = grow
    with pytest.raises(InputLostError, match=r"Put the table back") as lost:
        carry_out(job, network)
    assert "head -c" not in str(lost.value)
    with pytest.raises(DriftError, match=r"\n  1\.csv changed") as drift:
        carry_out(job, Network())
    assert "head -c" not in str(drift.value)


def test_json_lines_that_grew_have_a_way_that_works(bench: Workbench) -> None:
    """As CSV has: a copy of the bytes that it had, under a name with the same ending."""
    write_lines(bench, "in.jsonl")
    job = bench.job(prompt=NESTED, output={"partition_rows": 2}, limits={"concurrency": 1, "adaptive": False})
    network = Network()

    def grow(_request: httpx.Request) -> None:
        if network.posts == 2:
            with bench.input.open("a", encoding="utf-8") as file:
                file.write('{"new": [1]}\n')

    network._answer = grow
    with pytest.raises(InputLostError) as lost:
        carry_out(job, network)
    with pytest.raises(DriftError) as drift:
        carry_out(job, Network())
    for words in (str(lost.value), str(drift.value)):
        made, option = re.search(r"`(head .*?)`.* with --set=(\S*before\.jsonl);", words).groups()  # type: ignore[union-attr]
    subprocess.run(made, shell=True, check=True)
    settings = bench.settings(prompt=NESTED, output={"partition_rows": 2}, limits={"concurrency": 1, "adaptive": False})
    second = Network()
    assert carry_out(cometbatch.load_job(settings, [option]), second).succeeded == ROWS
    assert network.posts + second.posts == ROWS


def test_a_folder_is_run_as_one_table_and_a_changed_file_is_named(bench: Workbench) -> None:
    """While it runs and afterwards; put back as it was, the run goes on, and nothing is paid for twice."""
    write_parts(bench)
    job = bench.job(output={"partition_rows": 3}, limits={"concurrency": 1, "adaptive": False})
    network, kept = Network(), bench.folder / "kept"
    shutil.copytree(bench.input, kept)

    def change(_request: httpx.Request) -> None:
        if network.posts == 1:
            (bench.input / "1.csv").write_text("parcel,note\n0004,other\n", encoding="utf-8")
            (bench.input / "3.csv").write_text("parcel,note\n0012,new\n", encoding="utf-8")

    network._answer = change
    with pytest.raises(InputLostError, match=r"parts/1\.csv: changed while it was read.*Put the table back"):
        carry_out(job, network)
    (bench.input / "2.csv").unlink()
    with pytest.raises(DriftError) as drift:
        carry_out(job, Network())
    told = re.findall(r"^  (\S+\.csv) (is gone|is new|changed)", str(drift.value), re.MULTILINE)
    assert told == [("2.csv", "is gone"), ("3.csv", "is new"), ("1.csv", "changed")]
    with pytest.raises(DriftError):
        cometbatch.plan(job, http=Network())
    shutil.rmtree(bench.input)
    kept.rename(bench.input)
    second = Network()
    assert carry_out(job, second).succeeded == ROWS
    assert network.posts + second.posts == ROWS
    assert bench.result()["custom_id"].to_pylist() == [f"{row:04}" for row in range(ROWS)]
    proved(job)
    (bench.input / "3.csv").write_text("parcel,note\n0012,new\n", encoding="utf-8")
    (check,) = [each for each in cometbatch.verify(job).checks if each.name == "input"]
    assert "3.csv is new" in str(check)


def test_a_data_set_feeds_the_next_job(bench: Workbench) -> None:
    """Its parts are one table in their order, and what they say of their own run does not pass for the next one's."""
    first = bench.job(output={"path": f"{bench.folder}/set/", "partition_rows": 5})
    assert carry_out(first, Network()).succeeded == ROWS
    bench.input = bench.folder / "set"
    for output in (str(bench.output), f"{bench.folder}/next/"):
        job = bench.job(output={"path": output, "prefix": "second_", "partition_rows": 4})
        assert cometbatch.plan(job, http=Network()).rows == ROWS
        assert carry_out(job, Network()).succeeded == ROWS
        proved(job)
        assert carry_out(job, Network()).rows == ROWS  # a finished run is known as such
    result = bench.result()
    assert result["second_custom_id"].to_pylist() == [f"{row:04d}" for row in range(ROWS)]
    assert b"cometbatch.part" not in result.schema.metadata


def test_a_data_set_that_is_not_finished_is_no_input(bench: Workbench) -> None:
    """Half of its rows would pass for all of them; a copy of the files is a table like any other."""
    first = bench.job(output={"path": f"{bench.folder}/set/", "partition_rows": 2}, limits={"concurrency": 1})
    content, network = bench.input.read_bytes(), Network()

    def cut(_request: httpx.Request) -> None:
        if network.posts == ROWS // 2:
            bench.input.write_bytes(content[:-3])

    network._answer = cut
    with pytest.raises(InputLostError):
        carry_out(first, network)
    for path in ("set", "set/*.parquet"):
        second = bench.job(input={"path": f"{bench.folder}/{path}"}, output={"prefix": "second_"})
        with pytest.raises(UsageError, match=r"set is the data set of a run that is not finished \(\d of 6 partitions"):
            cometbatch.plan(second, http=Network())
    shutil.copytree(bench.folder / "set", bench.folder / "copy")
    copied = bench.job(input={"path": f"{bench.folder}/copy"}, output={"prefix": "second_"})
    assert 0 < cometbatch.plan(copied, http=Network()).rows < ROWS


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("set", "set/"),
        ("set", "set/r.parquet"),
        ("set", "link/r.parquet"),
        ("*.parquet", "r.parquet"),
        ("**/*.parquet", "set/r.parquet"),
        ("*/*.parquet", "other/"),
        ("_r.parquet.run", "r.parquet"),
        ("_r.parquet.run/parts", "r.parquet"),
        ("_r.parquet.run/parts/*.csv", "r.parquet"),
    ],
)
def test_a_result_that_would_be_input_is_refused(bench: Workbench, source: str, output: str) -> None:
    """Else the next session's input would be another one; also through a link, and of the run's own directory."""
    for folder in ("set", "_r.parquet.run/parts"):
        (bench.folder / folder).mkdir(parents=True)
    (bench.folder / "link").symlink_to(bench.folder / "set", target_is_directory=True)
    with pytest.raises(JobError, match=r"output\.path: the (input itself is there|result would be one of)"):
        bench.job(input={"path": str(bench.folder / source)}, output={"path": f"{bench.folder}/{output}"})


@pytest.mark.parametrize("prefix", ["", "x_"])
def test_an_id_column_of_that_name_is_simply_that_column(bench: Workbench, prefix: str) -> None:
    """In its own place and type; rows that are reset and kept have their names, and the proof holds."""
    name = f"{prefix}custom_id"
    bench.write_table(pa.table({name: [7 * row for row in range(ROWS)], "parcel": ["p"] * ROWS, "note": ["n"] * ROWS}))
    settings = {
        "input": {"id": name},
        "output": {"prefix": prefix},
        "prompt": {"user": "{{ note }}" + f"{{{{ {name} }}}}"},
    }
    job = bench.job(**settings, retry={"max_attempts": 1})
    summary = carry_out(job, simulator("400:0.5"))
    assert 0 < summary.failed < ROWS
    result = bench.result()
    assert [each for each in result.column_names if each.lower() == name] == [name]
    assert result[name].to_pylist() == [7 * row for row in range(ROWS)]
    proved(job)
    again = Network()

    async def retried() -> cometbatch.RunSummary:
        return await cometbatch.run_async(job, retry="failed", progress=False, http=again)

    assert virtual_time.run(retried()).succeeded == ROWS
    assert again.posts == summary.failed
    proved(job)


def test_a_column_of_that_name_that_is_not_the_id_is_told_apart(bench: Workbench) -> None:
    """The way out is the key that makes it the id, or another prefix."""
    bench.write_table(pa.table({"custom_id": ["a"], "parcel": ["p"], "note": ["n"]}))
    with pytest.raises(UsageError, match=r"set input\.id: custom_id\. Else set output\.prefix"):
        cometbatch.plan(bench.job(), http=Network())


def test_json_in_a_cell_that_is_none_fails_its_row_unsent(bench: Workbench) -> None:
    """With the words of the cell and the reason; the others are sent."""
    bench.input.write_text('parcel,note\n1,"{""label"": ""x""}"\n2,{oops\n3,\n', encoding="utf-8")
    job = bench.job(prompt={"system": None, "user": "{{ (note|fromjson).label }}"})
    network = Network()
    assert carry_out(job, network).failed == len(["2", "3"])
    assert prompts(network) == ["x"]
    messages = bench.result()["error_message"].to_pylist()
    assert "fromjson: '{oops' is no JSON (" in messages[1]
    assert "fromjson: '' is no JSON (the text is empty)" in messages[2]


def test_the_command_takes_a_pattern_and_tells_a_fault_with_its_line(tmp_path: Path) -> None:
    """A table in compressed pieces is run from the command line; a bad line ends it with 2 before anything is sent."""
    for part in range(2):
        (tmp_path / f"{part}.jsonl.gz").write_bytes(gzip.compress(b'{"q": {"text": "hi %d"}}\n' % part))
    job = tmp_path / "job.yaml"
    job.write_text(
        "input: {path: '*.jsonl.gz'}\noutput: {path: out/r.parquet}\nprompt: {user: '{{ q.text }}'}\n"
        "target: {base_url: simulator, format: chat, model: comet-sim-1}\nsimulator: {latency_s: 0.01}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "cometbatch", "run", str(job), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "r.parquet")["status"].to_pylist() == ["succeeded"] * 2
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(b'{"q": {"text": "hi"}}\n{"q": \n'))
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "2.jsonl.gz, line 2: column 7: a line holds one JSON object" in refused.stderr
