"""`compare`: the leaderboard of one run, or of several results of the same input. Sends nothing and changes nothing."""

from collections.abc import Iterable, Sequence

import msgspec

from cometbatch.commands.judge_purse import judge_cost
from cometbatch.commands.result_sources import named_results
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import MISSING_EXTRA, figures


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
    results = named_results(targets, overrides, purpose="compare", needs_scores=True)
    located = [each.located for each in results]
    report = next((each.job.report for each in located if each.job is not None), None) or ReportSettings()
    axes = tuple(each for words in ([by] if isinstance(by, str) else by) for each in words.split(",") if each)
    told = {"score": score, "by": axes or None, "baseline": baseline, "cluster": cluster, "groups": groups}
    settings = msgspec.structs.replace(report, **{name: value for name, value in told.items() if value is not None})
    judged = judge_cost(located[0].result) if len(located) == 1 else None
    found = figures([each.source for each in results], settings, judge_cost_usd=judged)
    if found is None:
        raise UsageError(
            f"{results[0].name}: there are no scores. Add a section score to the job (docs/scores.md), then: "
            "cometbatch score JOB_FILE"
        )
    if found.needs_extra:
        raise UsageError(f"{MISSING_EXTRA}; scores are in the result.")
    return msgspec.structs.replace(found, notes=(*(note for each in results for note in each.notes()), *found.notes))
