"""Which rows a command reads: those of a result file, of a data set, or of a run that goes on or has stopped."""

from collections.abc import Sequence
from pathlib import Path

from cometbatch.commands.locate import Located, locate
from cometbatch.errors import InputError, UsageError
from cometbatch.job import Job
from cometbatch.job.batch_lines import open_table
from cometbatch.results.rows import Rows, data_set_files, rows_of_files
from cometbatch.results.summary import count
from cometbatch.run_state.recorded_rows import Tables, recorded_rows
from cometbatch.run_state.run import Run, find


def open_rows(target: Job | str | Path, overrides: Sequence[str] = ()) -> Rows:
    """The rows with an outcome of a job, a job file, a result file, a data set or a run directory.

    A result file is read as it stands. Of everything else the run is read, by its parts and journals, whether it is
    finished or not; where there is no run any more, its result. Raises `UsageError` where there is nothing to read,
    `CheckpointError` where a file of the run is damaged.
    """
    located = locate(target, overrides)
    result = located.result
    if located.job is None and Path(target).is_file():  # type: ignore[arg-type]  # a job has been located as one
        return rows_of_files([result], result)
    found = find(located.directory, result)
    if found is not None:
        return _rows_of_run(found, located)
    if result.is_dir():
        return rows_of_files(data_set_files(result), result)
    if not result.exists():
        raise located.no_run()
    return rows_of_files([result], result)


def _rows_of_run(run: Run, located: Located) -> Rows:
    notes = []
    if not run.is_finished:
        state = "going on" if located.directory.lock.is_held() else "not finished"
        done = f"{run.progress.calls:,} of {count(run.manifest.calls, 'row')}"
        notes.append(f"this run is {state}: {done} have an outcome so far")
    tables: Tables | None = None
    if run.progress.recorded:
        try:
            tables = _input_of(run, located.job)
        except UsageError as error:
            notes.append(f"the input can't be read, so some rows are without its columns ({error})")
    return recorded_rows(run, tables, tuple(notes))


def _input_of(run: Run, job: Job | None) -> Tables:
    """What reads the input's rows. Raises `UsageError` where it is not there, or not what the run began with."""
    described = job or Job.from_description(run.manifest.job)
    settings, identity = described.input, run.manifest.input
    source = open_table(described)
    if source.digest() != (identity.size, identity.sha256):
        raise InputError(f"{settings.path}: it is not what it was when the run began.")
    return lambda wanted: source.tables(identity, wanted)
