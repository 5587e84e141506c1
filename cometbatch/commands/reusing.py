"""Taking earlier answers, put together: a job, a run and those before it become what looks up a session's calls."""

import contextlib
import functools
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cometbatch import wire
from cometbatch.commands.checked import Checked
from cometbatch.commands.clock import now
from cometbatch.errors import CheckpointError, UsageError
from cometbatch.job.settings import ReuseSettings
from cometbatch.prompt.answers import Checker, Fits
from cometbatch.records import CallRequest, ModelRequest, Outcome
from cometbatch.results import columns, parts
from cometbatch.results.columns import REUSED_COLUMNS
from cometbatch.results.reuse import EarlierAnswers, Origins, Rules
from cometbatch.results.reuse_index import Batch, Index, SourceFile, build, opened
from cometbatch.results.reuse_rows import EarlierRows, batches
from cometbatch.run_state import earlier
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.earlier import EarlierRun
from cometbatch.run_state.progress import journaled_in
from cometbatch.run_state.run import Run, with_journals
from cometbatch.store import local

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
LOOKED_UP_AT_ONCE: Final = 256  # calls of a plan


def may_take(run: Run) -> bool:
    """Whether a run has the columns that tell where an answer was taken from: it keeps those that it began with."""
    return set(REUSED_COLUMNS) <= set(run.columns)


@contextlib.contextmanager
def earlier_answers(
    checked: Checked,
    settings: ReuseSettings | None,
    directory: RunDirectory,
    run: Run | None,
    *,
    is_fresh: bool = False,
    keep: bool = True,
) -> Iterator[EarlierAnswers | None]:
    """The earlier answers that a job's calls may take; None where it takes none, or where there is no earlier run.

    `run`: the one that takes them; None before it has begun. `keep`: the index stays in the run directory, for the
    session that follows a crash; else it is in a folder of the system's for temporary files. Raises `UsageError` where
    a source can't be read.
    """
    if settings is None or (run is not None and not may_take(run)):
        yield None
        return
    takes_own = not is_fresh if run is None else not run.manifest.is_fresh
    runs = earlier.find_runs(directory, checked.job.output.path, settings.sources, takes_own=takes_own)
    runs = [each for each in runs if run is None or each.run_id != run.manifest.run_id]
    if not runs:
        yield None
        return
    with contextlib.ExitStack() as stack:
        if keep:
            folder = directory.index
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cometbatch-")))
        index = index_of(runs, folder)
        stack.callback(index.close)
        names = _names(checked, run)
        rows = EarlierRows(index.files, names)
        stack.callback(rows.close)
        taken = Origins() if run is None else _taken(run, index)
        own_run = None if run is None else run.manifest.run_id
        yield EarlierAnswers(index, rows, _rules(checked, settings, names), taken, own_run)


def index_of(runs: Sequence[EarlierRun], folder: Path) -> Index:
    """The index of these runs' answers: the one that is there, if it is whole and theirs, else a new one.

    Raises `UsageError` where a source can't be read, `CheckpointError` where the disk refuses the index.
    """
    sources = earlier.sources_of(runs)
    found = opened(folder, sources)
    if found is not None:
        return found
    try:
        local.remove_tree(folder)
        local.make_folder(folder)
        files = earlier.source_files(runs, folder)
        return build(folder, sources, [run.run_id for run in runs], files, _batches)
    except OSError as error:
        raise CheckpointError(
            f"reuse: the index of earlier answers can't be written to {folder} ({error.strerror}). Everything recorded "
            "so far is safe: make room, then run the same command again."
        ) from error


def _batches(file: SourceFile) -> Iterator[Batch]:
    try:
        yield from batches(file)
    except CheckpointError as error:
        raise UsageError(f"reuse: {error}") from error


def _names(checked: Checked, run: Run | None) -> Sequence[str]:
    """The output columns of the run."""
    if run is not None:
        return run.columns
    return [column.name for column in columns.columns_for(checked.job.asked_columns)]


def _rules(checked: Checked, settings: ReuseSettings, names: Sequence[str]) -> Rules:
    oldest = None
    if settings.max_age is not None:
        oldest = (now() - timedelta(seconds=settings.max_age) - _EPOCH) // _MICROSECOND
    keeps_calls = columns.TOOL_CALLS in names
    return Rules(
        service=checked.job.target.service,
        statuses=frozenset(settings.statuses),
        oldest=oldest,
        fits=None if checked.checker is None else functools.partial(_fits, _by_format(checked)),
        is_repeatable=None if settings.sampling else _is_repeatable,
        status=functools.partial(columns.status_of, keeps_calls=keeps_calls),
    )


def _by_format(checked: Checked) -> dict[str, Checker | None]:
    """What checks the answers to calls, by their format."""
    return {each.target.format: each.checker for each in checked.cells}


def _fits(checkers: Mapping[str, Checker | None], call: CallRequest, text: str) -> bool:
    """Whether a text is an answer to a call: formats differ in the schemas that they can be asked for."""
    found = wire.format_for_path(call.http.path)
    checker = None if found is None else checkers.get(found.name)
    return checker is None or isinstance(checker.check(text), Fits)


def _is_repeatable(call: CallRequest) -> bool:
    """Whether the model is to answer a call in the same way each time: by a seed, or at a temperature of 0."""
    found = wire.format_for_path(call.http.path)
    said = None if found is None else found.parse_request(call.http)
    if not isinstance(said, ModelRequest):
        return False
    params = said.prompt.params
    return params.temperature == 0 or params.seed is not None or params.extra.get("seed") is not None


def _taken(run: Run, index: Index) -> Origins:
    """The calls whose answers a run took in earlier sessions, by what stands in its parts and journals."""
    found, numbers = Origins(), {run_id: number for number, run_id in enumerate(index.runs)}
    names = [run.prefix + name for name in REUSED_COLUMNS[:2]]
    for partition in run.progress.committed:
        for run_id, ordinals in parts.read_pairs(run.directory.parts.path(partition), *names):
            if run_id in numbers:  # of another, nothing can be taken
                found.add_all(numbers[run_id], ordinals)
    for indexes in with_journals(run):
        for records in journaled_in(run.directory, run.manifest, indexes, run.progress.last):
            for outcome in columns.answered_in(records):
                if outcome.reused_from in numbers and outcome.reused_ordinal is not None:
                    found.add(numbers[outcome.reused_from], outcome.reused_ordinal)
    return found


class AsTaken:
    """The calls of a plan, those as outcomes that would take an earlier answer. Some are looked up at a time.

    `asks`: of calls that were asked before in this run, and go on from there.
    """

    def __init__(self, earlier: EarlierAnswers | None, asks: Collection[int]) -> None:
        self._earlier, self._asks = earlier, asks
        self._waiting: list[CallRequest | Outcome] = []

    def known(self, call: CallRequest, *, is_again: bool) -> list[CallRequest | Outcome]:
        """What is known of calls once this one has come. `is_again`: a `--retry` opened it."""
        if self._earlier is None or is_again or call.ordinal in self._asks:
            return [call]
        self._waiting.append(call)
        return self.rest() if len(self._waiting) >= LOOKED_UP_AT_ONCE else []

    def rest(self) -> list[CallRequest | Outcome]:
        """The same of those that wait."""
        waiting, self._waiting = self._waiting, []
        if self._earlier is None or not waiting:
            return []
        return self._earlier.take(waiting)
