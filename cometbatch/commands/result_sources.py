"""What a person named -> the results that are read: published ones, or the rows of runs that are not finished."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.commands.leaderboard import result_at
from cometbatch.commands.locate import Located, is_job_file, locate
from cometbatch.commands.open_rows import not_the_input, rows_of_run
from cometbatch.commands.scoring import Scoring, scoring_of
from cometbatch.commands.tables import JobSource
from cometbatch.errors import InputError, JobError, UsageError
from cometbatch.job import Job
from cometbatch.job.batch_lines import open_table
from cometbatch.job.secrets import printable
from cometbatch.reports.layout import layout_of
from cometbatch.reports.sources import ResultFiles, RunRows, Source
from cometbatch.results.lines import Joined
from cometbatch.results.parts import result_metadata
from cometbatch.results.score_columns import scores_of
from cometbatch.results.terminal import visible
from cometbatch.run_state.run import Run, find

NOT_OF_SETTINGS: Final = ("digest", "choices")
"""What a result says of a score beside its settings."""


class NamedResult(Struct, frozen=True):
    """A result that was named. `located`: where its run is. `source`: what is read. `run`: None where it is not known.

    Of a result file that was named itself, the run is not looked at: the file is read as it stands.
    """

    located: Located
    source: Source
    run: Run | None

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.source.name

    def notes(self) -> Iterator[str]:
        """What is known of a run that is not finished, and of scores that are not those of the job as it is now."""
        source, job = self.source, self.located.job
        if isinstance(source, RunRows):
            yield from source.rows.notes
            is_scored = self.run is not None and bool(_job_of(self.run, self.located).scores)
            if is_scored and not layout_of(source.schema, source.name).scores:
                yield "the input can't be read, so the answers are not scored"
        elif job is not None and job.scores:
            said = scores_of(result_metadata(source.first) or {}) if isinstance(source, ResultFiles) else []
            kept = [{name: one[name] for name in one if name not in NOT_OF_SETTINGS} for one in said]
            if kept != msgspec.json.decode(msgspec.json.encode([score.described() for score in job.scores])):
                yield (
                    f"{source.name}: the job scores answers in other ways by now; score them again: "
                    f"{self.located.score_command}"
                )


def named_results(
    targets: JobSource | Sequence[JobSource], overrides: Sequence[str] = (), *, purpose: str, needs_scores: bool
) -> list[NamedResult]:
    """The results of these jobs, results or run directories. `overrides`: `--set` strings for the job files.

    `purpose`: what is to be done with them, for a message. `needs_scores`: a run that is not finished must have a
    section `score`, and one that has all of its answers must be published; else both are read as they are. Of a run
    that is not finished with such a section, reading imports its Python scorers, after a line on standard error.
    Raises `UsageError` where there is no result.
    """
    given = [targets] if isinstance(targets, Job | str | Path) or not isinstance(targets, Sequence) else list(targets)
    if not given:
        raise UsageError(f"Name a job file or a result to {purpose}.")
    located = [locate(target, overrides if _is_job(target) else ()) for target in given]
    if overrides and not any(map(_is_job, given)):
        raise UsageError("--set is for a job file. Give the job file, or leave out --set.")
    pairs = zip(given, located, strict=True)
    return [named_result(target, each, needs_scores=needs_scores) for target, each in pairs]


def _is_job(target: JobSource) -> bool:
    """Whether values of a job can be replaced: it is a job file, or a mapping."""
    return not isinstance(target, Job) and (isinstance(target, dict) or is_job_file(Path(str(target))))


def name_of(target: JobSource, located: Located) -> str:
    """How a person calls what was given."""
    return printable(located.result) if isinstance(target, Job | dict) else printable(Path(str(target)))


def named_result(target: JobSource, located: Located, *, needs_scores: bool) -> NamedResult:
    """A result that was named and is located: what is published, or the rows of a run; as `named_results` has it."""
    name = name_of(target, located)
    if located.job is None and Path(target).is_file():  # type: ignore[arg-type]  # a job has been located as one
        return NamedResult(located, result_at(located.result, name), None)
    run = find(located.directory, located.result)
    if run is not None and (not run.is_complete or (not run.is_finished and not needs_scores)):
        rows = rows_of_run(run, located, scores_of_run(run, located, name, needs_scores=needs_scores))
        if needs_scores and rows.lacks_input:
            raise UsageError(f"{name}: {'; '.join(rows.notes)}; so its answers can't be scored")
        return NamedResult(located, RunRows(name, rows), run)
    if run is not None and not run.is_finished:
        raise UsageError(
            f"{name}: this run has all of its answers, and its result is not published as the job has it now. Publish "
            f"it, which sends nothing, with: {located.command}"
        )
    if not located.result.exists():
        raise located.no_run()
    return NamedResult(located, result_at(located.result, name), run)


def _job_of(run: Run, located: Located) -> Job:
    return located.job or Job.from_description(run.manifest.job)


def scores_of_run(run: Run, located: Located, name: str, *, needs_scores: bool) -> tuple[Joined, ...]:
    """What makes the columns of scores for rows that have none yet; nothing where the input is gone, unless needed.

    An input that is another one by now, and lacks what the scores need, is as one that is gone.
    """
    job = _job_of(run, located)
    if not job.scores and not needs_scores:
        return ()
    try:
        scoring = _scoring_of_run(run, job)
    except InputError:
        if needs_scores:
            raise
        return ()
    if scoring is None:
        raise UsageError(f"{name}: the job has no section score, so there is nothing to compare (docs/scores.md).")
    return (scoring.load(lambda line: sys.stderr.write(visible(f"{line}\n"))),)


def _scoring_of_run(run: Run, job: Job) -> Scoring | None:
    """How a run's answers are scored. Raises `InputError` where its input can't be read, or another one lacks a column.

    Raises `JobError` as `scoring_of` does.
    """
    source = open_table(job)
    try:
        return scoring_of(job, source.schema)
    except JobError as error:
        identity = run.manifest.input
        if source.digest() == (identity.size, identity.sha256):
            raise
        raise not_the_input(job) from error
