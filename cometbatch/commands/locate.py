"""Which run a command is about: that of a job, of a job file of any name, of an output or of a run directory."""

import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from cometbatch.commands.tables import JobSource
from cometbatch.errors import JobError, UsageError
from cometbatch.input import files
from cometbatch.job import Job, load_job
from cometbatch.job.paths import run_beside
from cometbatch.job.secrets import printable
from cometbatch.job.sources import STANDARD_INPUT
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.run import directory_at, directory_of_job

UNKNOWN_COMMAND: Final = "cometbatch run JOB_FILE"
JOB_ENDINGS: Final = (".yaml", ".yml", ".json")
"""How job files are usually called."""
_PARQUET_MARK: Final = b"PAR1"  # the first bytes of every Parquet file


class Located(Struct, frozen=True):
    """Where a run is. `job`: the job that was asked about, where it was one. `command`: what begins or resumes it."""

    directory: RunDirectory
    result: Path
    job: Job | None = None
    command: str = UNKNOWN_COMMAND

    @property
    def score_command(self) -> str:
        """What scores the job's answers anew."""
        return self.command.replace("cometbatch run", "cometbatch score", 1)

    def no_run(self) -> UsageError:
        """What to say where there is no run: of a job, how it begins."""
        if self.job is None:
            return UsageError(
                f"{self.directory.path}: there is no run here. Give the job file, its output or its run directory."
            )
        return UsageError(
            f"This job has not begun: there is no run of it at {self.result} yet, and nothing was sent. "
            f"Begin it with: {self.command}"
        )


def locate(target: JobSource, overrides: Sequence[str] = ()) -> Located:
    """Find the run directory and the result of what a command was given.

    `overrides`: `--set` strings for a job file or a mapping. Raises `UsageError` where they come with something else,
    or where the path leads nowhere, and what `load_job` raises.
    """
    if isinstance(target, Mapping):
        target = load_job(target, overrides)
    if isinstance(target, Job):
        return _of_job(target, UNKNOWN_COMMAND)
    path = Path(target)
    if is_job_file(path):
        return _of_job(_job_at(path, overrides), run_command(path, overrides))
    if overrides:
        raise UsageError("--set is for a job file. Give the job file, or leave out --set.")
    return Located(*directory_at(path))


def _job_at(path: Path, overrides: Sequence[str]) -> Job:
    """The job in a file of any name. Raises what `load_job` raises, and says of a table that it is one."""
    try:
        return load_job(path, overrides)
    except JobError as error:
        if not files.kind_of(path.name) or not path.is_file():
            raise
        raise UsageError(
            f"{printable(path)}: this is a table, and no run that cometbatch made of one. Give the job file, "
            "its output (a Parquet file or a folder) or its run directory."
        ) from error


def _of_job(job: Job, command: str) -> Located:
    directory = directory_of_job(job)
    return Located(directory, job.output.path, job, command)


def is_job_file(path: Path) -> bool:
    """Whether a path is a job's, and not that of an output or a run directory: content decides, and not the ending.

    A job file may be called anything, and may be a pipe. Where nothing can be read, the ending has to do.
    """
    if str(path) == STANDARD_INPUT:
        return True
    try:
        if run_beside(path).is_dir():  # an output, whatever it holds by now
            return False
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(len(_PARQUET_MARK)) != _PARQUET_MARK
    except (OSError, ValueError):  # nothing that can be read; ValueError: no name, or a NUL in it
        return path.suffix.lower() in JOB_ENDINGS
    return not stat.S_ISDIR(mode)


def run_command(path: Path, overrides: Sequence[str]) -> str:
    """The command that runs a job file with these values."""
    return shlex.join(["cometbatch", "run", printable(path), *(part for each in overrides for part in ("--set", each))])
