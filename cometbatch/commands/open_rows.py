"""Which rows a command reads: those of a result file, of a data set, or of a run that goes on or has stopped."""

import contextlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from msgspec import Struct

from cometbatch.commands.answers import answer_columns, checker_of
from cometbatch.commands.locate import Located, locate
from cometbatch.commands.score_publishing import scores_path
from cometbatch.commands.tables import JobSource
from cometbatch.errors import CometbatchError, InputError, JobError, UsageError, did_you_mean
from cometbatch.input.files import shown
from cometbatch.job import Job
from cometbatch.job.batch_lines import open_table
from cometbatch.job.secrets import printable
from cometbatch.results import parts
from cometbatch.results.lines import Joined
from cometbatch.results.retry_words import WORDS, RetryWords, read_words
from cometbatch.results.rows import SUCCEEDED, Rows, data_set_files, rows_of_files, with_scores
from cometbatch.results.score_columns import scores_of
from cometbatch.results.summary_words import count
from cometbatch.run_state.published import result_paths
from cometbatch.run_state.recorded_rows import Tables, Walk, all_pieces, recorded_rows
from cometbatch.run_state.run import Run, find


def open_rows(target: JobSource, overrides: Sequence[str] = ()) -> Rows:
    """The rows with an outcome of a job, a job file, a result file, a data set or a run directory.

    A result file is read as it stands, and so is that of a finished run with scores. Of everything else the run is
    read, by its parts and journals, whether it is finished or not; where there is no run any more, its result. Raises
    `UsageError` where there is nothing to read, `CheckpointError` where a file of the run is damaged.
    """
    located = locate(target, overrides)
    result = located.result
    if located.job is None and Path(target).is_file():  # type: ignore[arg-type]  # a job has been located as one
        return msgspec.structs.replace(rows_of_files([result], result), notes=tuple(older_than_run(located)))
    found = find(located.directory, result)
    if found is not None:
        return _scored_rows(found, located) or rows_of_run(found, located)
    if result.is_dir():
        return rows_of_files(data_set_files(result), result)
    if not result.exists():
        raise located.no_run()
    return rows_of_files([result], result)


def _scored_rows(run: Run, located: Located) -> Rows | None:
    """The rows of a finished run with its scores, which no part has; None where it has none."""
    result = located.result
    if not run.is_finished:
        return None
    if run.directory.parts.is_dataset:
        beside = scores_path(result)
        return with_scores(rows_of_run(run, located), beside) if beside.exists() else None
    paths = result_paths(run.directory, run.manifest, result)
    if not all(scores_of(parts.result_metadata(path) or {}) for path in paths):
        return None
    rows, job = rows_of_files(paths, result), located.job or Job.from_description(run.manifest.job)
    return msgspec.structs.replace(rows, files=(*rows.files, job.input.path))


def older_than_run(located: Located) -> Iterator[str]:
    """What to say where a result is read, and a run of the same output is not finished."""
    with contextlib.suppress(CometbatchError):  # a damaged run is no reason not to read the result
        run = find(located.directory, located.result)
        if run is not None and not run.is_finished:
            run_path = shlex.quote(printable(located.directory.home.path))
            yield f"this is the result as it was; a run of this output is not finished: cometbatch show {run_path}"


class RowsOf(Struct, frozen=True):
    """Reads a run's rows, as `results.summary.RowReader` has it. `target`, `overrides`: as `open_rows` has them."""

    target: JobSource
    overrides: Sequence[str] = ()

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Each row that has an outcome, as column -> value; some in memory at a time. Raises as `open_rows` does."""
        for piece in open_rows(self.target, self.overrides).pieces():
            yield from piece.table.to_pylist()

    def to_polars(self) -> pl.DataFrame:
        """The same in a frame. Raises as `open_rows` does."""
        return pl.DataFrame(open_rows(self.target, self.overrides).table())


def rows_of_run(
    run: Run,
    located: Located,
    joined: Sequence[Joined] = (),
    *,
    walk: Walk = all_pieces,
    tables_of: Callable[[Run, Job], Tables] | None = None,
) -> Rows:
    """The rows of a run, finished or not. `walk`: which rows are read.

    `joined`: makes columns that no part has; they are left out where rows are without the columns of the input.
    `tables_of`: what opens the input, for a caller who does so several times; raises as `input_tables` does.
    """
    notes = []
    if not run.is_finished:
        state = "going on" if located.directory.lock.is_held() else "not finished"
        done = f"{run.tally.calls:,} of {count(run.manifest.calls, 'row')}"
        notes.append(f"this run is {state}: {done} have an outcome so far")
    job = located.job or Job.from_description(run.manifest.job)
    tables: Tables | None = None
    if run.progress.recorded:
        try:
            tables = (tables_of or input_tables)(run, job)
        except UsageError as error:
            notes.append(lacks_input(error))
            joined = ()  # they are made of the input's columns
    further, target = None, run.manifest.targets[0].target
    try:
        further = answer_columns(target, checker_of(target))
    except JobError as error:
        notes.append(f"the columns of answers can't be made, and are left out ({error})")
    rows = recorded_rows(run, tables, tuple(notes), (job.input.path,), further, joined=joined, walk=walk)
    return msgspec.structs.replace(rows, lacks_input=tables is None and bool(run.progress.recorded))


def lacks_input(why: object) -> str:
    """What to say of rows whose input can't be read."""
    return f"the input can't be read, so some rows are without its columns ({why})"


def not_the_input(job: Job) -> InputError:
    """The error where a job's input is not its run's."""
    return InputError(f"{job.input.path}: it is not what it was when the run began.")


def input_tables(run: Run, job: Job) -> Tables:
    """What reads the input's rows. Raises `UsageError` where it is not there, or not what the run began with."""
    identity = run.manifest.input
    source = open_table(job)
    if source.digest() != (identity.size, identity.sha256):
        raise not_the_input(job)
    return lambda wanted: source.tables(identity, wanted)


def chosen_names(rows: Rows, wanted: Iterable[str]) -> tuple[str, ...]:
    """The columns of these names, in the order given; all of them where none is given. Texts are split at commas.

    Output columns are found without their prefix, too. Raises `UsageError` for a name that no column has.
    """
    given = [name for text in wanted for name in ([text] if text in rows.names else text.split(","))]
    chosen = []
    for name in given:
        ours = rows.prefix + name
        if name not in rows.names and ours not in rows.names:
            near = did_you_mean(name, rows.names)
            raise UsageError(
                f"--columns: there is no column {shown(name)}{', ' + near if near else '.'} "
                f"The columns are: {', '.join(map(shown, rows.names))}"
            )
        chosen.append(name if name in rows.names else ours)
    return tuple(dict.fromkeys(chosen)) or rows.names


def chosen_kinds(where: str | Iterable[str]) -> RetryWords:
    """The kinds of rows that are wanted, none for all. Raises `UsageError` for a word that is no kind."""
    return read_words(where, option="--where", known=(SUCCEEDED, *WORDS)) if where else RetryWords()
