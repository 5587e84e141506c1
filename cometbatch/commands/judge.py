"""`judge`: asks another model which of two answers is better, or how good each one is, and says what it came to."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.compute as pc

from cometbatch.commands.judge_purse import Purse
from cometbatch.commands.judge_runs import ORDER, Judging, ToJudge, judging
from cometbatch.commands.judge_summary import CellJudged, JudgePlan, JudgeSummary, PairJudged, PlannedTable
from cometbatch.commands.judge_tables import ROW, SAMPLE, JudgedTable, judged_cells, judged_tables, said_by
from cometbatch.commands.locate import Located, locate
from cometbatch.commands.plan import plan
from cometbatch.commands.run import run
from cometbatch.commands.status import summary_so_far
from cometbatch.commands.stopping import Event
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.job import Job
from cometbatch.job.judge_reading import PREFIX
from cometbatch.job.judging import FIRST, SECOND, Pairwise, Rubric
from cometbatch.job.paths import judged_beside
from cometbatch.limiting.shared import Limits
from cometbatch.money.exact import EXACT
from cometbatch.reports.judging import PairVerdicts, Ratings, Strength, has_extra, pair_line, strengths
from cometbatch.reports.sources import ResultFiles
from cometbatch.results.summary import RunStoppedError, RunSummary
from cometbatch.run_state.run import directory_of, find

if TYPE_CHECKING:
    import httpx


def judge(
    job: JobSource,
    overrides: Sequence[str] = (),
    *,
    update: bool = False,
    progress: bool | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
    stop: Event | None = None,
    wait_s: float | None = None,
    limits: Limits | None = None,
) -> JudgeSummary:
    """Ask the judge of a job about the answers of its finished run, or go on where that was interrupted.

    `job`: a job, or what `load_job` takes, with `--set` strings to put over it. Each pair of cells, or each cell, is a
    run of its own in the folder OUTPUT.judge, with a table of answers as its input: what has a verdict is not asked
    again. `update`: where answers or the judge's settings changed since, ask for what this changes alone. The other
    arguments are those of `run`.

    Raises `UsageError` where there is no finished run or no section `judge`, `DriftError` where something changed
    without `update`, `RunStoppedError` (with the summary of the run that stopped) where the judge was not asked about
    all.
    """
    asked: dict[str, Any] = {"progress": progress, "http": http, "stop": stop, "wait_s": wait_s, "limits": limits}
    with judging(_located(job, overrides), update=update, keep=True) as found:
        purse, summaries = Purse(found.folder, found.settings.job.budget), list[RunSummary | None]()
        for each in found.tables:
            summaries.append(_run(each, purse, asked, update=update))
        return _summary(found, summaries, purse.spent)


def plan_judge(
    job: JobSource,
    overrides: Sequence[str] = (),
    *,
    update: bool = False,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> JudgePlan:
    """What the judge of a job would be asked and cost; sends no prompt and writes no file. The arguments are `judge`'s.

    Raises `UsageError` for whatever `judge` would refuse before its first request.
    """
    with judging(_located(job, overrides), update=update, keep=False) as found:
        purse = Purse(found.folder, found.settings.job.budget)
        planned = []
        for each in found.tables:
            is_new = _is_update(each, update=update)
            one = plan(_within(each, purse, update=is_new), update=is_new, http=http) if each.said.rows else None
            planned.append(PlannedTable(each.table.words, each.table.result, each.said.missing, one))
        return JudgePlan(tuple(planned), found.settings.job.target.model, found.settings.job.budget, purse.spent)


def judged_so_far(located: Located) -> JudgeSummary | None:
    """What the judge of a run has said, as its verdicts stand; sends nothing and writes no file.

    None where the job has no judge, or no pair of cells, or cell, has all of its verdicts. Raises `CheckpointError`
    where a file of the verdicts is damaged.
    """
    job, asked = located.job, find(located.directory, located.result)
    if job is None or job.judge is None or asked is None:
        return None
    folder = judged_beside(asked.result)
    tables, summaries = list[ToJudge](), list[RunSummary | None]()
    for table in judged_tables(job, judged_cells(asked.manifest, job), folder):
        said = said_by(table.path)
        verdicts = find(directory_of(table.result, is_dataset=False), table.result)
        if said is not None and verdicts is not None and verdicts.is_finished:
            tables.append(ToJudge(table, said, job, verdicts))
            summaries.append(summary_so_far(verdicts, locate(table.result), is_running=False))
    if not tables:
        return None
    spent = Purse(folder, job.judge.job.budget).spent
    return _summary(Judging(job, asked, job.judge, tuple(tables)), summaries, spent)


def _located(job: JobSource, overrides: Sequence[str]) -> Located:
    located = locate(job, overrides)
    if located.job is None:
        raise UsageError(f"{located.result}: give the job file: it says how answers are judged.")
    if located.job.judge is None:
        raise UsageError("The job has no section judge, so there is nobody to ask (docs/judge.md).")
    if located.directory.read_manifest() is None:
        raise located.no_run()
    return located


def _is_update(each: ToJudge, *, update: bool) -> bool:
    """Whether a run is to begin that takes what still fits from the one that is there, and then its place."""
    return update and each.has_changed


def _within(each: ToJudge, purse: Purse, *, update: bool) -> Job:
    """The job of a table, with what the budget leaves for it."""
    return msgspec.structs.replace(each.job, budget=purse.of(each.table.result, update=update))


def _run(each: ToJudge, purse: Purse, asked: dict[str, Any], *, update: bool) -> RunSummary | None:
    """Ask about one table; None where nothing is in it. Raises what `run` raises, with the table's name."""
    if not each.said.rows:
        return None
    is_new = _is_update(each, update=update)
    try:
        return run(_within(each, purse, update=is_new), update=is_new, **asked)
    except RunStoppedError as error:
        needed = error.budget_to_finish
        if needed is not None:
            needed = EXACT.add(needed, purse.beside(each.table.result, update=is_new))
        why = "what is left of judge.budget.max_cost_usd is too little for the next call."
        words = f"{each.table.words}: {why if error.fix == 'budget' else error}"
        raise type(error)(words, error.summary, error.fix, needed) from error
    finally:
        purse.note(each.table.result)


# --- what it came to ---


def _summary(found: Judging, summaries: Sequence[RunSummary | None], spent: Decimal) -> JudgeSummary:
    way = found.settings.way
    told = list(zip(found.tables, summaries, strict=True))
    clusters = found.clusters()
    pairs: tuple[PairJudged, ...] = ()
    cells: tuple[CellJudged, ...] = ()
    strong: tuple[Strength, ...] = ()
    notes: list[str] = []
    if isinstance(way, Pairwise):
        pairs = tuple(_pair(each, summary, way, clusters) for each, summary in told)
        if way.baseline is None and has_extra():
            strong, note = _strengths(pairs, way.ridge)
            notes += [note] if note else []
    else:
        cells = tuple(_cell(each, summary, way, clusters) for each, summary in told)
    return JudgeSummary(
        folder=found.folder,
        model=found.settings.job.target.model,
        summaries=tuple(each for each in summaries if each is not None),
        spent_usd=spent,
        pairs=pairs,
        cells=cells,
        strengths=strong,
        notes=tuple(notes),
        needs_extra=not has_extra(),
    )


def _pair(each: ToJudge, summary: RunSummary | None, way: Pairwise, clusters: dict[int, int] | None) -> PairJudged:
    verdicts = PairVerdicts()
    if summary is not None:
        columns = (ROW, SAMPLE, f"{PREFIX}{ORDER}", FIRST, SECOND)
        for rows, samples, orders, first, second, texts in _lines(each.table, columns):
            longer = pc.subtract(pc.utf8_length(first), pc.utf8_length(second)).to_pylist()
            lines = zip(rows.to_pylist(), samples.to_pylist(), orders.to_pylist(), texts, longer, strict=True)
            for row, sample, order, text, more in lines:
                verdicts.add(row, sample, order, text, more)
    line = pair_line(verdicts, clusters, each.said.missing, swap=way.swap, is_flipped=each.is_flipped)
    return PairJudged(each.table.cells[0], each.table.cells[1], line, each.table.result, summary)


def _cell(each: ToJudge, summary: RunSummary | None, way: Rubric, clusters: dict[int, int] | None) -> CellJudged:
    ratings = Ratings(way.criteria)
    if summary is not None:
        for rows, texts in _lines(each.table, (ROW,)):
            for row, text in zip(rows.to_pylist(), texts, strict=True):
                ratings.add(row if clusters is None else clusters[row], text)
    return CellJudged(each.table.cells[0], ratings.ratings(), each.said.missing, each.table.result, summary)


def _lines(table: JudgedTable, columns: Sequence[str]) -> Any:
    """These columns of the verdicts' result, and what the judge said: None where it gave no whole answer."""
    status, response = f"{PREFIX}status", f"{PREFIX}response"
    for _, lines in ResultFiles(str(table.result), (table.result,)).tables([*columns, status, response]):
        is_whole = pc.equal(lines.column(status), "succeeded")
        texts = pc.if_else(is_whole, lines.column(response), None).to_pylist()
        yield *(lines.column(name) for name in columns), texts


def _strengths(pairs: Sequence[PairJudged], ridge: float) -> tuple[tuple[Strength, ...], str]:
    names = list(dict.fromkeys(cell.words for pair in pairs for cell in (pair.x, pair.y)))
    games = [
        (question, names.index(pair.x.words), names.index(pair.y.words), value)
        for pair in pairs
        for question, value in pair.line.values
    ]
    return strengths(names, games, ridge)
