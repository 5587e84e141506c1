"""Results -> the figures of their leaderboard. Reads the columns that it needs, some rows at a time."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import polars as pl
import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputError, UsageError, did_you_mean
from cometbatch.evaluation.statistics.conventions import cost_of_right, shares
from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.job.matrix import MODEL
from cometbatch.job.report import ReportSettings
from cometbatch.money.exact import EXACT
from cometbatch.reports.adding import KINDS, LINE, QUESTION, Adding, Label, Labels, Scored, Spent
from cometbatch.reports.board import Board, Figures, Line, ScoreLine
from cometbatch.reports.layout import Layout, layout_of
from cometbatch.reports.questions import CELL, Questions, numbers_of, questions_of
from cometbatch.reports.sources import BATCH_ROWS, Source
from cometbatch.results.score_columns import WHY
from cometbatch.results.slices import text_of
from cometbatch.results.summary_words import count

FILE: Final = "file"
"""The axis that tells results apart where their lines would have the same labels."""
EXTRA: Final = ("numpy", "scipy")
MISSING_EXTRA: Final = "statistics need `pip install 'cometbatch[eval]'`"
PLACE: Final = "\x00row"  # no column of a result is called so
_CELLS: Final = {
    "status": "status",
    "cost_usd": "cost",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "latency_s": "latency",
}
"""Output columns that are read, by what they are called here."""


class Compared(Struct, frozen=True, eq=False):
    """A leaderboard, and what it was made of. `scored`: by score, the sums of each question and line.

    Their lines are numbered in the order of `figures.lines`. `questions`: which rows of the results go together.
    """

    figures: Figures
    scored: dict[str, Scored]
    questions: Questions


def figures(
    sources: Sequence[Source], settings: ReportSettings, *, judge_cost_usd: Decimal | None = None
) -> Figures | None:
    """The leaderboard of these results; None where the only one has no scores.

    Without numpy and scipy it has scores and counts, and says so. `judge_cost_usd`: what judging cost. Raises
    `InputError` where a file can't be read or results do not fit each other, `UsageError` where settings name what is
    not there.
    """
    found = compared(sources, settings, judge_cost_usd=judge_cost_usd)
    return None if found is None else found.figures


def compared(
    sources: Sequence[Source], settings: ReportSettings, *, judge_cost_usd: Decimal | None = None
) -> Compared | None:
    """The leaderboard of these results with its questions. Arguments, None and errors are those of `figures`."""
    layouts = [layout_of(source.schema, source.name) for source in sources]
    names = _score_names(sources, layouts, settings)
    if not names:
        return None
    wanted = {role: name for role, name in (("cluster", settings.cluster), ("group", settings.groups)) if name}
    questions = questions_of(sources, layouts, list(dict.fromkeys(wanted.values())))
    by = _lines_by(sources, layouts, settings.by)
    adding = Adding(names)
    for number, (source, layout) in enumerate(zip(sources, layouts, strict=True)):
        _add(adding, source, layout, functools.partial(questions.of, number), by)
    lines = _lines(by, adding)
    facts = questions.facts.select(QUESTION, *(pl.col(CELL + name).alias(role) for role, name in wanted.items()))
    scored = {name: adding.scored(name) for name in names}
    boards = [_board(name, found, layouts[0].scores[name], lines) for name, found in scored.items()]
    finished = _with_statistics(boards, scored, lines, facts, settings)
    costs = [line.cost_usd for line in lines]
    made = Figures(
        results=tuple(source.name for source in sources),
        by=by,
        lines=tuple(lines),
        boards=tuple(finished or boards),
        joined_by=questions.key if len(sources) > 1 else None,
        cluster=settings.cluster,
        groups=settings.groups,
        cost_usd=_sum([cost for cost in costs if cost is not None]) if None not in costs else None,
        answers=sum(line.rows - line.failed for line in lines),
        possible_charges_usd=_sum(_charges(layouts)),
        charges_unknown=sum(layout.bill.get("charges_unknown", 0) for layout in layouts),
        judge_cost_usd=judge_cost_usd,
        is_partial=not all(source.is_whole for source in sources),
        needs_extra=finished is None,
        notes=tuple(_notes(lines, finished or boards)),
    )
    return Compared(made, scored, questions)


def _score_names(sources: Sequence[Source], layouts: Sequence[Layout], settings: ReportSettings) -> list[str]:
    """The scores that all results have, the one that was asked for first."""
    names = [name for name in layouts[0].scores if all(name in layout.scores for layout in layouts)]
    for source, layout in zip(sources, layouts, strict=True):
        if not layout.scores and len(sources) > 1:
            raise InputError(f"{source.name} has no scores. Score it first: cometbatch score JOB_FILE")
        if settings.score is not None and layout.scores and settings.score not in layout.scores:
            hint = did_you_mean(settings.score, layout.scores) or f"Its scores are: {', '.join(layout.scores)}"
            raise UsageError(f"score: {source.name} has no score {settings.score!r}. {hint}")
        for name in names:
            if layout.scores[name] != layouts[0].scores[name]:
                raise InputError(
                    f"{sources[0].name} and {source.name} made the score {name!r} in different ways. Score both with "
                    "the same settings: cometbatch score JOB_FILE"
                )
    if len(sources) > 1 and not names:
        raise InputError(f"{', '.join(source.name for source in sources)} have no score of the same name.")
    return sorted(names, key=lambda name: name != settings.score)


def _lines_by(sources: Sequence[Source], layouts: Sequence[Layout], wanted: Sequence[str]) -> tuple[str, ...]:
    """The axes that tell lines apart: those that were asked for, or those that differ."""
    cells = [layout.cells for layout in layouts]
    axes = tuple(dict.fromkeys(name for each in cells for cell in each for name in cell))
    for name in wanted:
        if name not in axes:
            hint = did_you_mean(name, axes) or f"The axes are: {', '.join(axes)}"
            raise UsageError(f"by: there is no axis {name!r}. {hint}")
    by = list(wanted) or _telling(axes, [cell for each in cells for cell in each])
    named = [{tuple(cell.get(name) for name in by) for cell in each} for each in cells]
    if sum(map(len, named)) > len(set().union(*named)):
        by.append(FILE)
        if len({source.name for source in sources}) < len(sources):
            raise UsageError("The same result is named twice. Name each once.")
    return tuple(by)


def _telling(axes: Sequence[str], cells: Sequence[Mapping[str, Label]]) -> list[str]:
    """The axes that differ between cells, without those that differ only where axes before them do, too."""
    found: list[str] = []
    kinds = 1
    for name in axes:
        more = len({tuple(cell.get(each) for each in (*found, name)) for cell in cells})
        if more > kinds:
            found.append(name)
            kinds = more
    return found or [MODEL if MODEL in axes else axes[0]]


def _add(
    adding: Adding,
    source: Source,
    layout: Layout,
    questions_of_rows: Callable[[pl.Series], pl.Series],
    by: Sequence[str],
) -> None:
    """Add up the lines of one result."""
    cells = {layout.prefix + name: ours for name, ours in _CELLS.items()}
    further = [name for name in (layout.row, layout.target, layout.asks, layout.reused_from) if name]
    axes = {name: layout.axes[name] for name in by if name in layout.axes}
    scores = {name: layout.score_columns[name] for name in adding.scores}
    excludes = f"{layout.prefix}cost_excludes"
    ours = [part for name in scores.values() for part in (name, name + WHY)]
    wanted = list(dict.fromkeys([*cells, excludes, *further, *axes.values(), *ours]))
    for frame in _frames(source, layout, wanted):
        rows = frame.select(pl.col(name).alias(ours) for name, ours in cells.items()).with_columns(
            questions_of_rows(frame[PLACE]),
            frame[excludes].is_not_null().alias("excludes"),
            (frame[layout.reused_from].is_not_null() if layout.reused_from else pl.lit(value=False)).alias("reused"),
            (frame[layout.asks] if layout.asks else pl.lit(1)).alias("asks"),
        )
        labels = pl.DataFrame([_labels(layout, name, source.name, frame) for name in by])
        parts = {
            name: frame.select(pl.col(column).alias("score"), pl.col(column + WHY).alias("why"))
            for name, column in scores.items()
        }
        adding.add(labels, rows, parts)


def _frames(source: Source, layout: Layout, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """These columns and the row (`PLACE`) of many lines at a time: to add up a few takes as long as to add up many.

    Always as many, but for the last: sums of fractions would else depend, in their last digits, on how a file is cut
    into groups of rows.
    """
    waiting: list[pl.DataFrame] = []
    for places, table in source.tables(names):
        frame = pl.DataFrame(plain(table))
        waiting.append(frame.with_columns(numbers_of(table, layout.row, places).alias(PLACE)))
        while sum(each.height for each in waiting) >= BATCH_ROWS:
            whole = pl.concat(waiting, rechunk=True)
            yield whole[:BATCH_ROWS]
            waiting = [whole[BATCH_ROWS:]]
    if waiting:
        yield pl.concat(waiting, rechunk=True)


def plain(table: pa.Table) -> pa.Table:
    """The table with texts in place of dictionaries, and without metadata: polars fails on those that are no UTF-8."""
    columns = [
        column.cast(field.type.value_type) if pa.types.is_dictionary(field.type) else column
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.table(columns, table.column_names)


def _labels(layout: Layout, name: str, source: str, frame: pl.DataFrame) -> pl.Series:
    """The labels of these rows on an axis: from its column, or the file, the model of a run without a matrix, none."""
    if name in layout.axes:
        return frame[layout.axes[name]].alias(name)
    label = source if name == FILE else layout.models[0] if name == MODEL and not layout.axes else None
    if name == MODEL and layout.target is not None:
        models = dict(enumerate(layout.models))
        return frame[layout.target].replace_strict(models, default=None, return_dtype=pl.String).alias(name)
    return pl.repeat(label, frame.height, dtype=pl.String, eager=True).alias(name)


def _lines(by: Sequence[str], adding: Adding) -> list[Line]:
    """The lines in the order of the results. No two have the same name."""
    taken: Counter[str] = Counter()
    found = []
    for labels, spent in zip(adding.lines, adding.spendings(), strict=True):
        name = ", ".join("" if label is None else text_of(label) for label in labels)
        taken[name] += 1
        found.append(_line(name if taken[name] == 1 else f"{name} ({taken[name]})", by, labels, spent))
    return found


def _line(name: str, by: Sequence[str], labels: Labels, spent: Spent) -> Line:
    tokens = spent.input_tokens + spent.output_tokens
    return Line(
        name=name,
        labels=dict(zip(by, labels, strict=True)),
        rows=spent.rows,
        failed=spent.failed,
        cost_usd=spent.known_cost_usd,
        unknown_costs=spent.unknown_costs,
        at_least=spent.at_least,
        counted=spent.counted,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        tokens_each=tokens / spent.counted if spent.counted else None,
        reused=spent.reused,
        p50_s=spent.p50_s,
        p95_s=spent.p95_s,
    )


def _board(name: str, found: Scored, settings: dict[str, Any], lines: Sequence[Line]) -> Board:
    """A score without what needs statistics: the best line first."""
    is_bounded = found.lowest is None or (found.lowest >= 0 and found.highest is not None and found.highest <= 1)
    with_gold = _with_gold(found.frame)
    counted = with_gold.filter(pl.col("scored") + pl.col("incomplete") > 0)
    made = [_score_line(number, line, found, is_bounded=is_bounded) for number, line in enumerate(lines)]
    lines_of = counted.group_by(QUESTION).agg(pl.len())
    most = counted.select((pl.col("scored") + pl.col("incomplete")).max()).item()
    return Board(
        score=name,
        settings=settings,
        is_bounded=is_bounded,
        is_binary=found.is_binary,
        questions=with_gold[QUESTION].n_unique(),
        samples=int(most or 0),
        common_questions=lines_of.filter(pl.col("len") == len(lines)).height,
        lines=tuple(sorted(made, key=lambda line: (line.score is None, -(line.score or 0.0)))),
    )


def _with_gold(frame: pl.DataFrame) -> pl.DataFrame:
    """The sums of the questions that have a right answer to compare with."""
    return frame.filter(pl.sum_horizontal("scored", "incomplete", "failed", "broken") > 0)


def _score_line(number: int, line: Line, found: Scored, *, is_bounded: bool) -> ScoreLine:
    own = found.frame.filter(pl.col(LINE) == number)
    total = float(own["total"].sum())
    scored, incomplete, failed, broken, skipped = (int(own[kind].sum()) for kind in KINDS)
    given = shares(total, scored, incomplete, failed, is_bounded=is_bounded)
    bounds = None if given.low is None or given.high is None else Interval(given.low, given.high)
    return ScoreLine(
        name=line.name,
        score=given.score,
        precision=None,
        answered=given.answered,
        bounds=bounds,
        questions=own.filter(pl.col("scored") + pl.col("incomplete") > 0).height,
        rows=scored + incomplete + failed + broken,
        scored=scored,
        incomplete=incomplete,
        failed=failed,
        scorer_errors=broken,
        without_gold=skipped,
        reasons=dict(sorted(found.reasons.get(number, {}).items(), key=lambda each: (-each[1], each[0]))),
        cost_of_right_usd=cost_of_right(line.cost_usd, total),
    )


def _with_statistics(
    boards: Sequence[Board],
    scored: Mapping[str, Scored],
    lines: Sequence[Line],
    facts: pl.DataFrame,
    settings: ReportSettings,
) -> list[Board] | None:
    """The boards with intervals and comparisons; None where numpy or scipy is not installed."""
    if not lines:  # of no rows there is nothing to compare
        return list(boards)
    try:
        from cometbatch.reports.inference import Asked, with_statistics  # noqa: PLC0415 - an extra, and slow to load
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        return None
    names = tuple(line.name for line in lines)
    labels = tuple(tuple("" if each is None else text_of(each) for each in line.labels.values()) for line in lines)
    return [
        with_statistics(board, Asked(names, labels, _with_gold(scored[board.score].frame), facts, settings.baseline))
        for board in boards
    ]


def _charges(layouts: Sequence[Layout]) -> Iterator[Decimal]:
    """What may have been billed without an answer, by the metadata of results."""
    for layout in layouts:
        yield from (layout.bill.get(name, Decimal()) for name in ("charges_usd", "replaced_charges_usd"))


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return functools.reduce(EXACT.add, amounts, Decimal())


def _notes(lines: Sequence[Line], boards: Sequence[Board]) -> Iterator[str]:
    """What a reader of the figures must know."""
    for line in lines:
        if line.unknown_costs:
            yield f"{line.name}: the cost of {count(line.unknown_costs, 'row')} is unknown, so no cost is shown"
        if line.at_least:
            yield f"{line.name}: {count(line.at_least, 'row')} used what no price covers: the cost is at least as shown"
        if line.reused:
            yield f"{line.name}: earlier runs paid for {count(line.reused, 'answer')}, which cost nothing here"
    for board in boards:
        for each in board.lines:
            if each.scorer_errors:
                rows = count(each.scorer_errors, "row")
                yield f"{board.score}: the scorer failed on {rows} of {each.name}, which count for nothing"
        yield from _thinned(board)


def _thinned(board: Board) -> Iterator[str]:
    """Comparisons on a part of the questions: lines that lost the same number are told of together."""
    lost: dict[tuple[int, int], list[str]] = {}
    for each in board.comparisons:
        if each.is_thinned:
            lost.setdefault((each.lost, each.questions), []).append(each.name)
    for (questions, common), names in lost.items():
        yield (
            f"{board.score}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} compared with "
            f"{board.comparisons[0].baseline} on {count(common, 'question')}; only one of the two has an answer to "
            f"{questions:,} others"
        )
