"""`status`: what a run directory holds, during the run or after it. Only reads, and takes no lock."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from msgspec import Struct

from cometbatch.commands.cell_summaries import cell_summaries, left_out
from cometbatch.commands.checks import gives_way
from cometbatch.commands.locate import UNKNOWN_COMMAND, Located, locate
from cometbatch.commands.open_rows import RowsOf
from cometbatch.commands.tables import JobSource
from cometbatch.job import Job
from cometbatch.job.accepting import read_accept
from cometbatch.results import parts
from cometbatch.results.accepted import Accept
from cometbatch.results.notebook import html_of
from cometbatch.results.summary import RowReader, RunSummary, late_warnings
from cometbatch.results.summary_words import count
from cometbatch.run_state.drift import changed_keys, describe_targets
from cometbatch.run_state.recorded_rows import look_below
from cometbatch.run_state.run import Run, counted, find
from cometbatch.run_state.succession import is_decided


class RunStatus(Struct, frozen=True):
    """A run as its files tell it.

    `latency_s`: quantiles over committed rows, in seconds; `None` before the first part. `resume_command`: what a
    person runs to continue, as far as it is known. `changed`: keys of the job that are not what the run began with, so
    that it can't be continued by that job. `gives_way`: the simulator answered, and the job names a service by now, so
    that its own run replaces this one. `is_waiting`: it has begun, and waits for workers of the last session, which may
    still send. `located`: where the run is.
    """

    summary: RunSummary
    running: bool
    in_flight: int
    created_at: str
    partitions: int
    committed: int
    latency_s: dict[str, float] | None
    resume_command: str = UNKNOWN_COMMAND
    changed: tuple[str, ...] = ()
    gives_way: bool = False
    is_waiting: bool = False
    located: Located | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the summary's fields and the state of the run."""
        return {
            **self.summary.to_dict(),
            "running": self.running,
            "waiting_for_workers": self.is_waiting,
            "in_flight": self.in_flight,
            "created_at": self.created_at,
            "partitions": self.partitions,
            "committed_partitions": self.committed,
            "latency_s": self.latency_s,
        }

    @property
    def advice(self) -> str:
        """What comes before the command that continues the run: nothing, or to undo what was changed."""
        return f"undo the change of {', '.join(self.changed)}, then " if self.changed else ""

    def updated(self) -> "RunStatus | None":
        """Of an update that goes on, the run whose place it is to take; None where there is none.

        Raises `CheckpointError` where that one's files are damaged.
        """
        if self.located is None:
            return None
        directory, home = self.located.directory, self.located.directory.home
        if directory is home or is_decided(home, directory, self.located.result):
            return None
        found = find(home, self.located.result)
        return None if found is None else _status_of(found, self.located, Accept(), self.summary.reader)

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return html_of(self.describe())

    def describe(self) -> str:
        """A few lines for a person."""
        summary = self.summary
        limited = summary.limited
        is_stopped = not (summary.finished or self.running or (limited is not None and limited.is_reached))
        state = "finished" if summary.finished else "running" if self.running else "stopped"
        if limited is not None:
            first = f"the first {count(limited.limit, 'row')} of the input alone (--limit)"
            state = f"{state}, {first}" if self.running or is_stopped else f"done with {first}"
        state = "waiting for workers of the last session" if self.is_waiting else state
        in_flight = f", {count(self.in_flight, 'request')} in flight" if self.running else ""
        lines = [
            f"run {summary.run_id}, begun {self.created_at}: {state}{in_flight}",
            f"partitions: {self.committed:,} of {self.partitions:,} committed",
            summary.describe(command=f"{self.advice}{self.resume_command}"),
        ]
        if self.latency_s:
            lines.append("latency: " + ", ".join(f"{name} {value:.2f} s" for name, value in self.latency_s.items()))
        if self.gives_way:
            lines.append(f"the simulator answered this; to ask the job's service in its place: {self.resume_command}")
        elif is_stopped:
            place = f"stopped at {summary.tally.calls:,} of {count(summary.rows, 'row')}"
            lines.append(f"{place}; {self.advice}continue with: {self.resume_command}")
        return "\n".join(lines)


def status(
    job: JobSource,
    overrides: Sequence[str] = (),
    *,
    accept: Mapping[str, object] | str | Iterable[str] = (),
) -> RunStatus:
    """The status of a run: of a job, of a job file (with `--set` strings put over it), of an output or a run directory.

    `accept`: as in `run`; where it is left out, that of the run's last session counts. Raises `UsageError` where there
    is no run, which for a job says how it begins, `CheckpointError` where its files are damaged.
    """
    given, located = read_accept(accept), locate(job, overrides)
    directory, output = located.directory, located.result
    found = find(directory, output)
    if found is None:
        raise located.no_run()
    return _status_of(found, located, given, RowsOf(job, overrides))


def summary_so_far(
    run: Run, located: Located, *, is_running: bool, given: Accept | None = None, reader: RowReader | None = None
) -> RunSummary:
    """What a run came to by now, as its journals and counts tell it: reads no part.

    `is_running`: a process works on it. `given`: over what its job and last session accept. `reader`: of its rows.
    """
    manifest, progress = run.manifest, run.progress
    # While a session lives, its marks are requests in flight; once it is dead, they are possible charges.
    tally = counted(run, is_dead=not is_running)
    limit = None if run.is_finished or progress.last is None else progress.last.who.limit
    return RunSummary(
        run_id=manifest.run_id,
        output=located.result,
        rows=manifest.calls,
        tally=tally,
        prices=manifest.prices,
        books=manifest.books,
        targets=tuple(describe_targets(manifest)),
        cells=cell_summaries(run),
        left_out=left_out(run),
        finished=run.is_finished,
        replaced=run.replaced,
        updates=manifest.follows,
        given_up=manifest.given_up,
        max_output_tokens=manifest.token_cap,
        has_own_caps=manifest.has_whole_requests,
        limited=look_below(run, limit),
        accept=(given or Accept()).over(_accept(run, located.job)),
        has_earlier_result=not run.is_finished and run.has_earlier_result,
        is_deduped=bool(manifest.job.get("dedupe")),
        is_reusing=located.job is None or located.job.reuse is not None or manifest.follows is not None,
        warnings=(*manifest.warnings, *late_warnings(tally, manifest.books, manifest.token_cap)),
        reader=reader,
    )


def _status_of(found: Run, located: Located, given: Accept, reader: RowReader | None) -> RunStatus:
    manifest, progress, directory = found.manifest, found.progress, found.directory
    is_running = directory.lock.is_held()
    epoch = directory.epoch.unfenced() if is_running else None
    named = frozenset(manifest.active)
    committed = [index for index in progress.committed if manifest.partition(index).slice in named]
    paths = [directory.parts.path(index) for index in committed]
    return RunStatus(
        summary=summary_so_far(found, located, is_running=is_running, given=given, reader=reader),
        running=is_running,
        in_flight=len(progress.unsettled) if is_running else 0,
        created_at=manifest.created_at,
        partitions=found.partition_count,
        committed=len(committed),
        latency_s=_latency(paths, f"{found.prefix}latency_s"),
        resume_command=located.command,
        changed=()
        if located.job is None or not found.is_begun
        else changed_keys(manifest, located.job.fingerprint(), found.targets, matrix=located.job.matrix),
        gives_way=located.job is not None and gives_way(found, located.job),
        is_waiting=epoch is not None and epoch.is_awaited,
        located=located,
    )


def _accept(run: Run, job: Job | None) -> Accept:
    """What a run is judged by: the job, under the option of the last session; without a job, as that session was."""
    if run.progress.last is None:
        return Accept() if job is None else job.accept
    who = run.progress.last.who
    return who.accept if job is None else who.accept_option.over(job.accept)


def _latency(paths: list[Path], column: str) -> dict[str, float] | None:
    """Quantiles over all parts. Raises `CheckpointError` where one can't be read."""
    if not paths:
        return None
    values = [pl.DataFrame({"latency_s": parts.read_column(path, column)}) for path in paths]
    latency = pl.col("latency_s")
    found = pl.concat(values).select(
        latency.median().alias("median"), latency.quantile(0.95).alias("p95"), latency.max().alias("max")
    )
    row = found.row(0, named=True)
    return None if row["median"] is None else row
