"""A file's name is bytes: a run lives through every command whatever its folder and its files are called.

Python stands in for a byte that is no UTF-8 with half of a surrogate pair, which no text file, no JSON and no terminal
can hold as it is.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.job import Job
from cometbatch.job.secrets import printable, unprinted
from tests.test_cli import COMMAND, LIMIT_S, environment
from tests.workbench import Network, Workbench, carry_out, simulator

CAFE = os.fsdecode(b"caf\xe9")
JOB = """\
input: {path: in.csv, id: parcel}
output: {path: "OUTPUT", partition_rows: 4}
target: {base_url: simulator, format: chat, model: comet-sim-1}
prompt: {user: "{{ note }}"}
simulator: {latency_s: 0, faults: {"400": 0.5}}
"""


def read(path: Path) -> pa.Table:
    """A table by its open file: Arrow can't open such a name."""
    with path.open("rb") as file:
        return pq.read_table(file)


@pytest.fixture
def cafe(tmp_path: Path) -> Workbench:
    """A folder whose name is Latin-1, with a table in it."""
    folder = tmp_path / CAFE
    try:
        folder.mkdir()
    except OSError:  # macOS takes UTF-8 alone
        pytest.skip("this file system has no such names")
    bench = Workbench(folder)
    bench.write_rows(12)
    return bench


def command(bench: Workbench, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `cometbatch` in the folder."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=bench.folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"Unexpected" not in done.stderr
    return done


@pytest.mark.parametrize("output", ["out.parquet", "answers/"])
def test_a_run_lives_in_a_folder_whose_name_is_no_text(cafe: Workbench, output: str) -> None:
    """Plan, run, status, verify and retry end as anywhere else, for people and for programs."""
    (cafe.folder / "job.yaml").write_text(JOB.replace("OUTPUT", output), encoding="utf-8")
    assert command(cafe, "plan", "job.yaml", "--json").returncode == 0
    ran = command(cafe, "run", "job.yaml", "--json")
    assert (ran.returncode, ran.stderr) == (3, b"")
    summary = json.loads(ran.stdout)
    assert Path(summary["output"]) == cafe.folder / output
    failed = summary["failed"]
    assert 0 < failed < 12
    for arguments in (["run", "job.yaml"], ["run", "job.yaml", "--retry", "failed"]):
        assert command(cafe, *arguments).returncode == 3
    for asked in (output, "job.yaml"):
        assert b"caf\\udce9" in command(cafe, "status", asked).stdout
        assert json.loads(command(cafe, "status", asked, "--json").stdout)["latency_s"]
        verified = command(cafe, "verify", asked, "--json")
        checks = json.loads(verified.stdout)["checks"]
        assert (verified.returncode, {check["state"] for check in checks} <= {"ok", "skipped"}) == (0, True)
        assert next(check for check in checks if check["name"] == "input")["state"] == "ok"
    assert command(cafe, "run", "job.yaml", "--set", "limits.speed=1").returncode == 2
    shutil.rmtree(cafe.folder / f"_{output.rstrip('/')}.run")
    assert b"caf\\udce9" in command(cafe, "run", "job.yaml").stderr


@pytest.mark.parametrize("name", ["in\udce9.csv", "in\udce9.parquet"])
@pytest.mark.parametrize("output", ["out\udcff\udc80.parquet", "out\udcff/"])
def test_input_and_output_may_have_such_names_themselves(cafe: Workbench, name: str, output: str) -> None:
    """As a mapping names them, with paths; the result is whole and is proven from its files."""
    source = cafe.folder / name
    if name.endswith(".csv"):
        cafe.input.rename(source)
    else:
        with source.open("wb") as file:
            pq.write_table(pa.table({"parcel": [f"{row}" for row in range(12)], "note": ["x"] * 12}), file)
    place = f"{cafe.folder}/{output}"
    job = cometbatch.load_job(
        {
            **cafe.settings(),
            "input": {"path": source, "id": "parcel"},
            "output": {"path": place, "partition_rows": 4},
        }
    )
    network = simulator("400:0.5")
    summary = carry_out(job, network)
    assert (summary.finished, summary.output) == (True, Path(place))
    assert cometbatch.status(place).latency_s
    assert cometbatch.verify(place).ok
    assert cometbatch.verify(job).ok
    if place.endswith(".parquet"):
        assert read(Path(place)).num_rows == 12
    else:
        assert sorted(path.name for path in Path(place).iterdir()) == [f"0000{index}.parquet" for index in range(3)]
    assert cometbatch.plan(job, http=network).to_dict()["output"] == str(Path(place))


def test_a_job_file_may_have_such_a_name(cafe: Workbench) -> None:
    """Also one with a mistake, which is named."""
    path = cafe.folder / "job\udce9.yaml"
    path.write_text(JOB.replace("OUTPUT", "out.parquet"), encoding="utf-8")
    assert carry_out(cometbatch.load_job(path), Network()).all_succeeded
    path.write_text("input: 3\n", encoding="utf-8")
    with pytest.raises(cometbatch.JobError, match=r"job\\udce9\.yaml:1"):
        cometbatch.load_job(path)


def test_a_job_described_is_the_same_job(cafe: Workbench) -> None:
    """What the manifest says of a job leads back to its files."""
    settings: dict[str, Any] = {**cafe.settings(), "input": {"path": cafe.input}}
    job = cometbatch.load_job(settings)
    described = json.loads(json.dumps(job.describe()))
    assert Job.from_description(described).input.path == cafe.input
    assert printable(cafe.folder).endswith(r"caf\udce9")
    assert unprinted(printable(cafe.folder)) == str(cafe.folder)
