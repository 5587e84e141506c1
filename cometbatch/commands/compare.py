"""`compare`: the leaderboard of one run, or of several results of the same input. Sends nothing and changes nothing."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from cometbatch.commands.judge_purse import judge_cost
from cometbatch.commands.leaderboard import result_at
from cometbatch.commands.locate import Located, is_job_file, locate
from cometbatch.commands.open_rows import rows_of_run
from cometbatch.commands.scoring import scoring_of
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.job import Job
from cometbatch.job.batch_lines import open_table
from cometbatch.job.report import ReportSettings
from cometbatch.job.secrets import printable
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import MISSING_EXTRA, figures
from cometbatch.reports.sources import ResultFiles, RunRows, Source
from cometbatch.results.parts import result_metadata
from cometbatch.results.score_columns import scores_of
from cometbatch.results.terminal import visible
from cometbatch.run_state.run import Run, find

NOT_OF_SETTINGS: Final = ("digest", "choices")
"""What a result says of a score beside its settings."""


def compare(
    targets: JobSource | Sequence[JobSource],
    overrides: Sequence[str] = (),
    *,
    score: str | None = None,
    by: str | Iterable[str] = (),
    baseline: str | None = None,
    cluster: str | None = None,
    groups: str | None = None,
) -> Figures:
    """The leaderboard of these jobs, results or run directories, each figure at full precision.

    `overrides`: `--set` strings for job files. The others take the place of what the section `report` of the first job
    says: which `score` comes first, `by` which axes lines differ, the `baseline` that lines are compared with, and the
    columns that tell the `cluster` and the group (`groups`) of a question. Of a run that is not finished, the rows so
    far are compared; that imports its Python scorers, each after a line on standard error.

    Raises `UsageError` where there is no result or no score, where results are not of the same questions, where
    settings name what is not there, or where the extra `eval` is not installed.
    """
    given = [targets] if isinstance(targets, Job | str | Path) or not isinstance(targets, Sequence) else list(targets)
    if not given:
        raise UsageError("Name a job file or a result to compare.")
    located = [locate(target, overrides if _is_job(target) else ()) for target in given]
    if overrides and not any(map(_is_job, given)):
        raise UsageError("--set is for a job file. Give the job file, or leave out --set.")
    sources = [_source(target, each) for target, each in zip(given, located, strict=True)]
    report = next((each.job.report for each in located if each.job is not None), None) or ReportSettings()
    axes = tuple(each for words in ([by] if isinstance(by, str) else by) for each in words.split(",") if each)
    told = {"score": score, "by": axes or None, "baseline": baseline, "cluster": cluster, "groups": groups}
    settings = msgspec.structs.replace(report, **{name: value for name, value in told.items() if value is not None})
    judged = judge_cost(located[0].result) if len(located) == 1 else None
    found = figures(sources, settings, judge_cost_usd=judged)
    if found is None:
        raise UsageError(
            f"{sources[0].name}: there are no scores. Add a section score to the job (docs/scores.md), then: "
            "cometbatch score JOB_FILE"
        )
    if found.needs_extra:
        raise UsageError(f"{MISSING_EXTRA}; scores are in the result.")
    return msgspec.structs.replace(found, notes=(*_notes(sources, located), *found.notes))


def _is_job(target: JobSource) -> bool:
    """Whether values of a job can be replaced: it is a job file, or a mapping."""
    return not isinstance(target, Job) and (isinstance(target, dict) or is_job_file(Path(str(target))))


def _name(target: JobSource, located: Located) -> str:
    """How a person calls what was given."""
    return printable(located.result) if isinstance(target, Job | dict) else printable(Path(str(target)))


def _source(target: JobSource, located: Located) -> Source:
    """Where the figures come from: the published result, or the rows of a run that is not finished."""
    name = _name(target, located)
    if located.job is None and Path(target).is_file():  # type: ignore[arg-type]  # a job has been located as one
        return result_at(located.result, name)
    run = find(located.directory, located.result)
    if run is not None and not run.is_complete:
        return _unfinished(run, located, name)
    if run is not None and not run.is_finished:
        raise UsageError(
            f"{name}: this run has all of its answers, and its result is not published as the job has it now. Publish "
            f"it, which sends nothing, with: {located.command}"
        )
    if not located.result.exists():
        raise located.no_run()
    return result_at(located.result, name)


def _notes(sources: Sequence[Source], located: Sequence[Located]) -> Iterator[str]:
    """What is known of runs that are not finished, and of scores that are not those of the job as it is now."""
    for source, each in zip(sources, located, strict=True):
        if isinstance(source, RunRows):
            yield from source.rows.notes
        elif each.job is not None and each.job.scores:
            said = scores_of(result_metadata(source.first) or {}) if isinstance(source, ResultFiles) else []
            kept = [{name: one[name] for name in one if name not in NOT_OF_SETTINGS} for one in said]
            if kept != [msgspec.to_builtins(score.described()) for score in each.job.scores]:
                yield (
                    f"{source.name}: the job scores answers in other ways by now; score them again: "
                    f"{each.score_command}"
                )


def _unfinished(run: Run, located: Located, name: str) -> Source:
    job = located.job or Job.from_description(run.manifest.job)
    scoring = scoring_of(job, open_table(job).schema)
    if scoring is None:
        raise UsageError(f"{name}: the job has no section score, so there is nothing to compare (docs/scores.md).")
    scores = scoring.load(lambda line: sys.stderr.write(visible(f"{line}\n")))
    return RunRows(name, rows_of_run(run, located, (scores,)))
