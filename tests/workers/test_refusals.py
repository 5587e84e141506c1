"""What `run` refuses before it sends anything where several workers are asked for, and who wins where two say it."""

import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import cometbatch
from cometbatch.commands.engine_choice import EngineChoice, choose_engine, cores
from cometbatch.commands.options import Options
from cometbatch.errors import JobError, UsageError
from cometbatch.job import Job, load_job


def job_with(folder: Path, **sections: Any) -> Job:
    """A job of two rows that asks the simulator."""
    (folder / "table.csv").write_text("text\na\nb\n")
    return load_job(
        {
            "input": {"path": str(folder / "table.csv")},
            "output": {"path": str(folder / "out.parquet")},
            "target": {"base_url": "simulator", "format": "chat", "model": "comet-sim-1"},
            "prompt": {"user": "{{ text }}"},
            **sections,
        }
    )


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "update": ({}, {"update": True}),
    "reuse": ({"reuse": True}, {}),
    "dedupe": ({"dedupe": True}, {}),
    "http": ({}, {"http": httpx.MockTransport(lambda _: httpx.Response(200))}),
    "limits": ({}, {"limits": cometbatch.Limits(requests_per_minute=60)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_workers_cannot_do(name: str, tmp_path: Path) -> None:
    """It is refused with the way out, and nothing is written."""
    sections, options = REFUSED[name]
    job = job_with(tmp_path, **sections)
    with pytest.raises(UsageError, match=rf"(?s){name}.*--workers 1 \(in Python: workers=1\)"):
        cometbatch.run(job, workers=2, **options)
    assert {each.name for each in tmp_path.iterdir()} == {"table.csv"}


def test_one_worker(tmp_path: Path) -> None:
    """It is the plain run, which can do all of that."""
    job = job_with(tmp_path, reuse=True, dedupe=True, engine={"workers": 4})
    assert choose_engine(job, Options(workers=1, update=True)).is_plain


@pytest.mark.parametrize("number", [0, -1, 65, 2.0, True, "many", "4"])
def test_numbers(number: Any, tmp_path: Path) -> None:
    """What is no number of workers is refused."""
    with pytest.raises(UsageError, match="is no number of workers; write a number from 1 to 64, or auto"):
        choose_engine(job_with(tmp_path), Options(workers=number))


def test_command_line(tmp_path: Path) -> None:
    """It wins over the job."""
    job = job_with(tmp_path, engine={"workers": 4})
    assert choose_engine(job, Options()) == EngineChoice("local", 4)
    assert choose_engine(job, Options(workers=2)) == EngineChoice("local", 2)
    ray = job_with(tmp_path, engine={"workers": 4, "ray": {"address": "head:6379", "workers": 8}})
    assert choose_engine(ray, Options(engine="local")) == EngineChoice("local", 4)


def test_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a worker for each core that this process may use, up to the most workers."""
    assert choose_engine(job_with(tmp_path), Options(workers="auto")).workers == min(64, cores()) >= 1
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(200)), raising=False)
    assert choose_engine(job_with(tmp_path, engine={"workers": "auto"}), Options()).workers == 64


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "This process alone sends: what is left is one range of up to "),
        ({"limits": {"concurrency": 1}}, "This process alone sends: limits.concurrency allows no more requests"),
    ],
)
def test_fewer(section: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is less work than workers, the run says why fewer of them send."""
    rows = {"partition_rows": 1} if section else {}
    output = {"path": str(tmp_path / "out.parquet"), **rows}
    summary = cometbatch.run(job_with(tmp_path, output=output, **section), workers=4)
    assert summary.succeeded == 2
    assert words in capsys.readouterr().err


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with the line that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'cometbatch\[ray\]'"):
        choose_engine(job_with(tmp_path), Options(engine="ray"))


def test_auto_on_a_cluster(tmp_path: Path) -> None:
    """The cores of a cluster that is there already are not counted."""
    job = job_with(tmp_path, engine={"ray": {"address": "10.0.0.5:6379", "workers": "auto"}})
    with pytest.raises(UsageError, match="Say how many workers"):
        choose_engine(job, Options())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"workers": 65}, "engine.workers: expected a whole number from 1 to 64, or auto, found '65'"),
        ({"workers": "many"}, "engine.workers: expected a whole number from 1 to 64, or auto"),
        ({"ray": {"address": "auto"}}, "engine.ray.address: .*it would join whatever cluster is there"),
        ({"ray": "local"}, "engine.ray: expected a mapping"),
        ({"ray": {"adress": "local"}}, "engine.ray.adress: unknown key; did you mean 'address'"),
    ],
)
def test_wrong_sections(section: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A job that says it wrongly is refused by the name of the key."""
    with pytest.raises(JobError, match=words):
        job_with(tmp_path, engine=section)


def test_identity(tmp_path: Path) -> None:
    """Who sends is no part of what a run is."""
    alone, many = job_with(tmp_path), job_with(tmp_path, engine={"workers": "auto", "ray": {"workers": 3}})
    assert many.engine.ray is not None
    assert many.fingerprint() == alone.fingerprint()
    assert many.describe() == alone.describe()
