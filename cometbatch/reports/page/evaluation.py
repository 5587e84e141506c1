"""The leaderboard of results as the page shows it: figures, their words as `compare` prints them, and the heat map.

Where `compare` rounds a number, the page shows the text of `reports.words`, so that a reader finds the same.
"""

import base64
import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import polars as pl
from msgspec import Struct

from cometbatch.errors import CometbatchError
from cometbatch.job.report import ReportSettings
from cometbatch.reports import words
from cometbatch.reports.adding import LINE, QUESTION, Scored
from cometbatch.reports.board import Board, Comparison, Line, ScoreLine
from cometbatch.reports.figures import FILE, Compared, compared
from cometbatch.reports.layout import Layout, layout_of
from cometbatch.reports.page.page_columns import axis_column, gold_column
from cometbatch.reports.questions import PLACE
from cometbatch.reports.sources import Source
from cometbatch.reports.words import Rows
from cometbatch.results.slices import text_of
from cometbatch.results.summary_words import count

MAX_QUESTIONS: Final = 2_000  # of a heat map
MAX_CELLS: Final = 100_000  # of a heat map; many lines show fewer questions
DISAGREEING: Final = 0.75  # of the questions that are shown; the others are the hardest ones that are left
LEVELS: Final = 60_000  # of a mean score in a heat map: three decimals come out as they were
NO_ANSWER: Final = 0xFFFF  # in a heat map
SIGNIFICANT: Final = 0.05  # a smaller p is called more than chance
EXTRA_HINT: Final = "Intervals and comparisons need: pip install 'cometbatch[eval]'"


class Judged(Struct, frozen=True):
    """What a judge said, in the words of `cometbatch judge`: its cost, tables (the first row is a head), notes."""

    words: str
    tables: tuple[Rows, ...]
    notes: tuple[str, ...] = ()


def evaluation_of(
    sources: Sequence[Source],
    settings: ReportSettings,
    *,
    judge_cost_usd: Decimal | None = None,
    judged: Judged | None = None,
) -> dict[str, Any] | None:
    """The evaluation of these results for the page, JSON-ready; None where none of them has a score or a judge.

    `settings`: the section `report` of their job. `judge_cost_usd`: what judging cost. Where the results do not fit
    each other, or settings name what is not there, `problem` has the sentence that says so, and there are no figures.
    """
    found = _scores_of(sources, settings, judge_cost_usd)
    if judged is None:
        return found
    return {**(found or {}), "judged": msgspec.to_builtins(judged)}


def _scores_of(
    sources: Sequence[Source], settings: ReportSettings, judge_cost_usd: Decimal | None
) -> dict[str, Any] | None:
    """What scores come to, or `problem`; None without scores."""
    try:
        layouts = [layout_of(source.schema, source.name) for source in sources]
        if not any(layout.scores for layout in layouts):
            return None
        found = compared(sources, settings, judge_cost_usd=judge_cost_usd)
    except CometbatchError as error:
        return {"problem": str(error)}
    return None if found is None else _evaluation(found, layouts)


def _evaluation(found: Compared, layouts: Sequence[Layout]) -> dict[str, Any]:
    figures = found.figures
    return {
        "figures": figures.to_dict(),
        "lines": [_line(line) for line in figures.lines],
        "boards": [_board(found, board, layouts) for board in figures.boards],
        "notes": list(figures.notes),
        "significant": SIGNIFICANT,
        "hint": EXTRA_HINT if figures.needs_extra else "",
        "judge_cost": "" if figures.judge_cost_usd is None else words.money_text(figures.judge_cost_usd),
    }


def _line(line: Line) -> dict[str, Any]:
    """A line, with its labels by the page's columns: as texts, null for a row without the axis."""
    labels = {
        axis if axis == FILE else axis_column(axis): None if label is None else text_of(label)
        for axis, label in line.labels.items()
    }
    return {"name": line.name, "labels": labels}


def _board(found: Compared, board: Board, layouts: Sequence[Layout]) -> dict[str, Any]:
    """The words of a board, and its heat map.

    `gold`: the page's column with the right answers. `choices`: the one with the list that a gold is a place in; None
    where golds are no places.
    """
    figures = found.figures
    places = {line.name: place for place, line in enumerate(figures.lines)}
    pass_k = words.pass_k_table(board)
    return {
        "score": board.score,
        "head": " ".join(words.head_words(figures, board, with_costs=board is figures.boards[0])),
        "cells": [_cells(each, figures.lines[places[each.name]], places[each.name]) for each in board.lines],
        "cost_title": "A\u00a0right\u00a0answer costs" if board.is_bounded else "A point costs",
        "baseline": None if board.baseline is None else places[board.baseline],
        "comparisons": [_comparison(each, places) for each in board.comparisons],
        "sentences": [*words.lacks(board), *(words.lacking(board) if pass_k else ())],
        "precision": " ".join(words.precision(board)),
        "pass_k": pass_k,
        "groups": words.groups_table(board, figures.groups),
        "gold": gold_column(board.settings, {name for layout in layouts for name in layout.inputs}),
        "choices": _choices(board, layouts),
        "heat": _heat(found, found.scored[board.score], len(figures.lines), is_bounded=board.is_bounded),
    }


def _cells(score: ScoreLine, line: Line, place: int) -> dict[str, Any]:
    """The cells of a line of the leaderboard, with the digits of `compare`."""
    interval = None if score.precision is None else score.precision.interval
    error = None if score.precision is None else score.precision.se
    return {
        "line": place,
        "score": words.score_text(score.score),
        "interval": words.interval_text(interval),
        "se": words.score_text(error),
        "answered": words.score_text(score.answered),
        "unscored": words.unscored_text(score),
        "cost": words.money_text(line.cost_usd),
        "cost_of_right": words.money_text(score.cost_of_right_usd),
        "tokens": words.tokens_text(line.tokens_each),
        "p50_s": words.seconds_text(line.p50_s),
        "p95_s": words.seconds_text(line.p95_s),
    }


def _comparison(each: Comparison, places: dict[str, int]) -> dict[str, Any]:
    """A comparison with its words; `sentence`: what it means."""
    return {
        "line": places[each.name],
        "difference": words.difference(each),
        "p": words.p_text(each.p),
        "p_holm": words.p_text(each.p_holm),
        "tested": " ".join(words.tested_words(each)),
        "needed": " ".join(words.needed_words(each)),
        "sentence": _meaning(each),
    }


def _meaning(each: Comparison) -> str:
    """What a comparison says, in a sentence or two."""
    size = words.score_text(abs(each.difference))
    more = "above" if each.difference > 0 else "below"
    place = (
        f"{each.name} is {size} {more} {each.baseline}" if each.difference else f"{each.name} equals {each.baseline}"
    )
    if each.p_holm is None:
        return f"{place}. This run has too few questions to test that."
    p = words.p_text(each.p_holm).replace("<", "below ")
    if each.p_holm < SIGNIFICANT:
        return f"{place}. That is more than chance explains (Holm p {p})."
    return f"{place}. This run can't tell that from chance (Holm p {p})."


def _choices(board: Board, layouts: Sequence[Layout]) -> str | None:
    """The page's column with the choices of a question, where a gold is the place of one of them, from 0."""
    settings = board.settings
    columns = (settings.get("choices") or {}).get("columns") or []
    if settings.get("scorer") != "choice" or settings.get("form") != "index" or len(columns) != 1:
        return None
    return f"input:{columns[0]}" if any(columns[0] in layout.inputs for layout in layouts) else None


def _heat(found: Compared, scored: Scored, lines: int, *, is_bounded: bool) -> dict[str, Any]:
    """Mean scores by line and question. `shown`: how many of `of` questions with an answer.

    `scores`: for each line, for each of `questions`, a number of 16 bits, little-endian: 0 is `low`, `LEVELS` is
    `high`, `NO_ANSWER` stands for no answer. `rows`: of each result, the rows of `questions`, -1 for none; null
    where a row's number is its question's.
    """
    answers = pl.col("scored") + pl.col("incomplete")
    means = scored.frame.filter(answers > 0).select(LINE, QUESTION, (pl.col("total") / answers).alias("mean"))
    asked = means.group_by(QUESTION).agg(
        (pl.col("mean").max() - pl.col("mean").min()).alias("spread"), pl.col("mean").mean().alias("ease")
    )
    chosen = _chosen(asked, min(MAX_QUESTIONS, max(1, MAX_CELLS // max(1, lines))))
    ends = (0.0, 1.0) if is_bounded else (min(0.0, scored.lowest or 0.0), max(0.0, scored.highest or 0.0))
    places = chosen.select(QUESTION).with_row_index("place")
    return {
        "questions": chosen[QUESTION].to_list(),
        "rows": list(_rows(found, chosen)),
        "shown": chosen.height,
        "of": asked.height,
        "disagreeing": asked.filter(pl.col("spread") > 0).height,
        "words": _shown_words(chosen.height, asked.height),
        "low": ends[0],
        "high": ends[1],
        "levels": LEVELS,
        "no_answer": NO_ANSWER,
        "scores": _encoded(means.join(places, on=QUESTION), lines, chosen.height, *ends),
    }


def _chosen(asked: pl.DataFrame, room: int) -> pl.DataFrame:
    """Those where lines disagree most, of equal ones the hardest first; then the hardest of the rest."""
    ordered = asked.sort("spread", "ease", QUESTION, descending=[True, False, False])
    if ordered.height <= room:
        return ordered
    first = ordered[: int(room * DISAGREEING)]
    rest = ordered[first.height :].sort("ease", QUESTION)[: room - first.height]
    return pl.concat([first, rest])


def _shown_words(shown: int, of: int) -> str:
    if shown == of:
        return f"{count(of, 'question')} with an answer."
    return (
        f"{shown:,} of {count(of, 'question')} with an answer: those where cells disagree most, and the hardest ones. "
        "The figures above count all of them."
    )


def _rows(found: Compared, chosen: pl.DataFrame) -> Iterator[list[int] | None]:
    """Of each result, the rows of the chosen questions."""
    for numbers in found.questions.numbers:
        if numbers is None:
            yield None
            continue
        met = chosen.select(QUESTION).join(
            numbers.unique(QUESTION, keep="first", maintain_order=True), on=QUESTION, how="left", maintain_order="left"
        )
        yield None if (met[PLACE] == met[QUESTION]).fill_null(value=False).all() else met[PLACE].fill_null(-1).to_list()


def _encoded(means: pl.DataFrame, lines: int, questions: int, low: float, high: float) -> str:
    """Mean scores as base64; `means`: with `place`, the question's place among those that are shown."""
    levels = [NO_ANSWER] * (lines * questions)
    width = high - low or 1.0
    for line, place, mean in means.select(LINE, "place", "mean").iter_rows():
        levels[line * questions + place] = round(min(1.0, max(0.0, (mean - low) / width)) * LEVELS)
    return base64.b64encode(struct.pack(f"<{len(levels)}H", *levels)).decode()
