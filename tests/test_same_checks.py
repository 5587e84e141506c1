"""`plan` refuses whatever `run` would refuse, in the same words; `status` and `verify` find the run of any job."""

import fcntl
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.errors import CometbatchError, DriftError, UsageError
from tests.stub_server import StubServer
from tests.test_cli import command, target
from tests.workbench import KEY, KEY_ENV, Network, Workbench, carry_out, files

Sections = dict[str, Any]
Broken = Callable[[Workbench], Sections]


def taken(bench: Workbench) -> Sections:
    """A file stands in the result's place."""
    bench.output.write_bytes(b"mine")
    return {}


def taken_folder(bench: Workbench) -> Sections:
    """A stranger's table is in the data set's folder."""
    (bench.folder / "rows").mkdir()
    pq.write_table(pa.table({"a": [1]}), bench.folder / "rows" / "b.parquet")
    return {"output": {"path": f"{bench.folder}/rows/"}}


def clash(bench: Workbench) -> Sections:
    """The input has a column of ours."""
    bench.input.write_text("parcel,note,status\n1,a,b\n", encoding="utf-8")
    return {}


def no_folder(bench: Workbench) -> Sections:
    """A file stands where the result's folder would be."""
    (bench.folder / "out").write_bytes(b"")
    return {"output": {"path": f"{bench.folder}/out/r.parquet"}}


def no_run_folder(bench: Workbench) -> Sections:
    """A file stands where the run directory would be."""
    bench.run_directory.write_bytes(b"")
    return {}


def no_price(_: Workbench) -> Sections:
    """A budget without a price."""
    return {"budget": {"max_cost_usd": 1}, "prices": "none"}


def no_cap(_: Workbench) -> Sections:
    """A budget without a bound on an answer."""
    return {"budget": {"max_cost_usd": 1}, "params": {"max_output_tokens": None}}


def no_column(_: Workbench) -> Sections:
    """A template that needs another table."""
    return {"prompt": {"user": "{{ elsewhere }}"}}


def no_id(_: Workbench) -> Sections:
    """An id that needs another table."""
    return {"input": {"id": "elsewhere"}}


def half_a_row(bench: Workbench) -> Sections:
    """A table that can't be read to its end."""
    bench.input.write_text("parcel,note\n1,a\n2\n", encoding="utf-8")
    return {}


def drift(bench: Workbench) -> Sections:
    """A run that began with another prompt."""
    carry_out(bench.job(), Network())
    return {"prompt": {"user": "Other: {{ note }}"}}


def longer_input(bench: Workbench) -> Sections:
    """A run that began with a shorter table."""
    carry_out(bench.job(), Network())
    bench.input.write_bytes(bench.input.read_bytes() + b"0099,more\n")
    return {}


def foreign_result(bench: Workbench) -> Sections:
    """Another file was put into the result's place."""
    carry_out(bench.job(), Network())
    bench.output.write_bytes(b"mine")
    return {}


def damaged(bench: Workbench) -> Sections:
    """A manifest that can't be read."""
    carry_out(bench.job(), Network())
    (bench.run_directory / "manifest.json").write_bytes(b"{")
    return {}


BROKEN = (taken, taken_folder, clash, no_folder, no_run_folder, no_price, no_cap, no_column, no_id, half_a_row, drift,
          longer_input, foreign_result, damaged)  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_plan_refuses_what_run_refuses_in_the_same_words(bench: Workbench, broken: Broken) -> None:
    """Law: for every job that can't run, the two say the same, and `plan` changes no file."""
    job = bench.job(**broken(bench))
    before = files(bench.folder)
    with pytest.raises(CometbatchError) as planned:
        cometbatch.plan(job, http=Network())
    assert files(bench.folder) == before
    with pytest.raises(CometbatchError) as ran:
        carry_out(job, Network())
    assert (type(planned.value), str(planned.value)) == (type(ran.value), str(ran.value))


def test_plan_refuses_a_key_that_is_none(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set is a warning; one that holds no key is what `run` refuses."""
    job = bench.job(target={"base_url": "http://127.0.0.1:9", "key_env": KEY_ENV}, prices="none")
    assert any(KEY_ENV in warning for warning in cometbatch.plan(job).warnings)
    for wrong in ("", " ", "two words"):
        monkeypatch.setenv(KEY_ENV, wrong)
        with pytest.raises(UsageError, match="API key"):
            cometbatch.plan(job)
    monkeypatch.setenv(KEY_ENV, KEY)
    assert not any(KEY_ENV in warning for warning in cometbatch.plan(job).warnings)


def test_plan_of_a_finished_run_says_so(bench: Workbench) -> None:
    """Nothing would be sent; a budget that is too small to begin with is no reason to refuse."""
    carry_out(bench.job(), Network())
    planned = cometbatch.plan(bench.job(budget={"max_cost_usd": 0}), http=Network())
    assert (planned.finished, planned.running, planned.done) == (True, False, 12)
    assert "finished: 12 of 12 rows have an outcome; a run would send nothing" in planned.describe()


@pytest.fixture
def _running(bench: Workbench) -> Iterator[None]:
    """Another process has the run."""
    carry_out(bench.job(), Network())
    bench.output.unlink()
    with (bench.run_directory / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.usefixtures("_running")
def test_plan_of_a_run_that_is_going_on_shows_its_state(bench: Workbench) -> None:
    """It is no reason to refuse."""
    planned = cometbatch.plan(bench.job(), http=Network())
    assert (planned.running, planned.to_dict()["running"]) == (True, True)
    assert "running: a run of this job is going on; 12 of 12 rows are done" in planned.describe()


@pytest.mark.usefixtures("_running")
def test_verify_of_a_run_that_is_going_on_says_so(bench: Workbench) -> None:
    """A command that finishes it would be refused while another process has the run."""
    with pytest.raises(UsageError, match="It is going on: wait for its end"):
        cometbatch.verify(bench.job())


@pytest.mark.parametrize("header", ["out_status", "Out_Status", "OUT2_response,out_status"])
def test_the_prefix_that_a_clash_suggests_is_free(bench: Workbench, header: str) -> None:
    """Also where the usual one is taken: the job with it has no clash, not even by case."""
    bench.input.write_text(f"parcel,note,status,{header}\n1,a,b,{header}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="output's: status") as refused:
        cometbatch.plan(bench.job(), http=Network())
    found = re.search(r"for example to (\w+)\)", str(refused.value))
    assert found
    assert cometbatch.plan(bench.job(output={"prefix": found[1]}), http=Network()).warnings == ()


@pytest.mark.parametrize(("header", "told"), [("Status", "Status"), ("STATUS", "STATUS"), ("Cost_USD", "Cost_USD")])
def test_columns_that_differ_by_case_alone_are_told(
    bench: Workbench, header: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan and run warn with the way out, which works; a prefix that sets them apart ends it."""
    bench.input.write_text(f"parcel,note,{header}\n1,a,b\n", encoding="utf-8")
    planned = cometbatch.plan(bench.job(), http=Network())
    assert any(f'"{told}" and {told.lower()}' in each and "output.prefix" in each for each in planned.warnings)
    carry_out(bench.job(), Network())
    assert f'"{told}"' in capsys.readouterr().err
    apart = cometbatch.plan(bench.job(output={"prefix": "x_", "path": str(bench.folder / "b.parquet")}), http=Network())
    assert apart.warnings == ()


# -- which run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["job", "job.YAML", "job.json", "job.parquet", "my job.txt", "job.yaml.bak", "parquet"]
)
def test_a_job_file_may_be_called_anything(bench: Workbench, name: str) -> None:
    """Content decides what a path is: each command takes the job, its output and its run directory."""
    path = bench.folder / name
    bench.write_job(output={"path": str(bench.folder / "r.parquet")}).rename(path)
    carry_out(cometbatch.load_job(path), Network())
    run = bench.folder / "_r.parquet.run"
    for place in (path, cometbatch.load_job(path), bench.folder / "r.parquet", run):
        assert cometbatch.status(place).summary.finished
        assert cometbatch.verify(place).ok


def test_status_and_verify_take_set(bench: Workbench, server: StubServer) -> None:
    """The run of a job with other values is found by the same options that began it."""
    job = bench.write_job(target=target(server))
    other = ("--set", f"output.path={bench.folder / 'other.parquet'}")
    assert command("run", job, *other).returncode == 0
    assert command("status", job, *other).returncode == command("verify", job, *other).returncode == 0
    for name in ("status", "verify"):
        assert command(name, bench.folder / "other.parquet", *other).returncode == 2


@pytest.fixture
def server() -> Iterator[StubServer]:
    """A stub service that answers at once."""
    with StubServer() as stub:
        yield stub


@pytest.mark.parametrize("name", ["status", "verify"])
def test_a_job_that_has_not_begun_is_told_with_the_command_that_begins_it(
    bench: Workbench, server: StubServer, name: str
) -> None:
    """The command can be pasted, `--set` included, and then there is a run."""
    bench.folder.joinpath("a job.yaml").write_bytes(bench.write_job(target=target(server)).read_bytes())
    other = ("--set", f"output.path={bench.folder / 'new one.parquet'}")
    done = command(name, bench.folder / "a job.yaml", *other)
    assert done.returncode == 2
    words, _, begin = done.stderr.strip().rpartition("Begin it with: cometbatch ")
    assert "This job has not begun" in words
    assert "nothing was sent" in words
    assert command(*shlex.split(begin)).returncode == 0
    assert command(name, bench.folder / "a job.yaml", *other).returncode == 0
    with pytest.raises(UsageError, match="has not begun"):
        cometbatch.status(bench.job())


def test_verify_of_an_unfinished_run_names_the_command_that_finishes_it(bench: Workbench) -> None:
    """Not "its job", but what to paste."""
    path = bench.write_job(budget={"max_cost_usd": 0.00002})
    with pytest.raises(cometbatch.BudgetReachedError):
        carry_out(cometbatch.load_job(path), Network())
    with pytest.raises(UsageError, match=f"not finished .*Finish it with: cometbatch run {path}$"):
        cometbatch.verify(path)


def test_a_job_can_come_from_standard_input_or_a_pipe(bench: Workbench, server: StubServer) -> None:
    """Its paths are relative to the working directory, and what begins or resumes it says how."""
    settings = bench.settings(target=target(server), input={"path": "in.csv"}, output={"path": "r.parquet"})
    bench.write_job(**settings)
    run = f"{shlex.quote(sys.executable)} -m cometbatch"
    environment = {**os.environ, KEY_ENV: KEY, "PYTHONPATH": str(Path(cometbatch.__file__).parent.parent)}

    def said(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=bench.folder, env=environment, capture_output=True, text=True, check=False
        )

    first = said(f"cat job.yaml | {run} status -")
    assert first.returncode == 2
    assert "Begin it with: cometbatch run -" in first.stderr
    assert said(f"cat job.yaml | {run} run -").returncode == 0
    assert (bench.folder / "r.parquet").is_file()
    for line in (f"{run} run /dev/stdin < job.yaml", f"{run} status <(cat job.yaml)", f"cat job.yaml | {run} verify -"):
        done = said(line)
        assert (done.returncode, done.stderr) == (0, ""), line
    assert server.requests == 12
    assert said(f"{run} plan - < /dev/null").returncode == 2


# -- exported errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BudgetReached", "ServiceRefused", "HungUpRun", "InterruptedRun", "TerminatedRun"])
def test_each_way_to_stop_has_a_name_to_catch(name: str) -> None:
    """The subclasses of `RunStoppedError` are part of the library."""
    assert issubclass(getattr(cometbatch, f"{name}Error"), cometbatch.RunStoppedError)
    assert f"{name}Error" in cometbatch.__all__


def test_drift_names_the_address_by_its_key(bench: Workbench) -> None:
    """A loopback address is a server on this machine, in the words of whoever wrote target.base_url."""
    carry_out(bench.job(target={"base_url": "http://127.0.0.1:8000"}), Network())
    with pytest.raises(DriftError, match=r'target\.base_url: was "a server on this machine", is "simulator"'):
        carry_out(bench.job(), Network())
