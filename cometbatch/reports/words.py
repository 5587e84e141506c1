"""A leaderboard as plain text, for a terminal of 80 columns or more. Figures are rounded here and nowhere else."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Final, TypeAlias

from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.money.exact import ROUNDING
from cometbatch.results.summary_words import count
from cometbatch.results.terminal import columns as columns_of
from cometbatch.results.terminal import cut

if TYPE_CHECKING:
    from cometbatch.reports.board import Board, Comparison, Figures, Line, ScoreLine

WIDTH: Final = 100
NAME_WIDTH: Final = 32  # of a line's name, at most
MIN_ROOM: Final = 40  # of a cell, at most, where names take nearly all of a line
BETWEEN: Final = "  "
UNKNOWN: Final = "-"
DECIMALS: Final = 6  # of an amount of money
MAX_GROUPS: Final = 60  # that are shown; the JSON has all
HINT: Final = "statistics need `pip install 'cometbatch[eval]'`; scores are in the result"
Rows: TypeAlias = Sequence[Sequence[str]]


def describe(figures: "Figures", width: int = WIDTH) -> str:
    """The leaderboard, at most `width` columns wide as far as the names of lines allow it."""
    lines: list[str] = []
    for at, board in enumerate(figures.boards):
        lines += ["", *_board(figures, board, width)] if at else _board(figures, board, width)
    lines += [f"judge: {money_text(figures.judge_cost_usd)}"] if figures.judge_cost_usd is not None else []
    for note in figures.notes:
        lines += _sentence(f"note: {cut(note, math.inf)}", width)
    lines += [HINT] if figures.needs_extra else []
    return "\n".join(lines)


def _board(figures: "Figures", board: "Board", width: int) -> Iterator[str]:
    is_first = board is figures.boards[0]
    yield from _wrapped(list(head_words(figures, board, with_costs=is_first)), width, " ")
    lines = {line.name: line for line in figures.lines}
    yield from table(_scores(board, [lines[each.name] for each in board.lines], figures), width)
    for sentence in lacks(board):
        yield from _sentence(sentence, width)
    yield from _comparisons(board, width)
    if pieces := precision(board):
        yield from _wrapped(pieces, width, " ")
    if rows := pass_k_table(board):
        yield from table(rows, width)
        for sentence in lacking(board):
            yield from _sentence(sentence, width)
    if rows := groups_table(board, figures.groups):
        yield ""
        yield from table(rows, width)


def head_words(figures: "Figures", board: "Board", *, with_costs: bool) -> Iterator[str]:
    """What a board is about, in pieces; `with_costs`: and what its answers cost."""
    samples = f" x {board.samples:,} samples" if board.samples > 1 else ""
    words = (
        f"{_short(board.score)}: {count(board.questions, 'question')}{samples}, "
        f"clustered by {_short(figures.cluster or 'question')}"
    )
    yield f"{words};" if with_costs else words
    if not with_costs:
        return
    answers = count(figures.answers, "answer")
    yield (
        f"an unknown cost for {answers}"
        if figures.cost_usd is None
        else f"{money_text(figures.cost_usd)} for {answers}"
    )
    if figures.possible_charges_usd or figures.charges_unknown:
        unknown = " and an unknown amount" if figures.charges_unknown else ""
        yield f"({money_text(figures.possible_charges_usd)}{unknown} more may have been billed)"
    if figures.is_partial:
        yield "of a run that is not finished"


def _scores(board: "Board", lines: Sequence["Line"], figures: "Figures") -> Rows:
    """A row for each line; names first, since these are what a reader looks for."""
    head = [", ".join(figures.by) or "line", "score", "95 %", "answered", "unscored"]
    is_first = board is figures.boards[0]
    head += ["right answers cost" if board.is_bounded else "a point costs"]
    head += ["tokens", "p50 s", "p95 s"] if is_first else []
    rows = [head]
    for each, line in zip(board.lines, lines, strict=True):
        interval = each.precision.interval if each.precision is not None else None
        row = [
            line.name,
            score_text(each.score),
            interval_text(interval),
            score_text(each.answered),
            unscored_text(each),
        ]
        row += [_each(money_text(each.cost_of_right_usd))]
        if is_first:
            row += [_each(tokens_text(line.tokens_each)), seconds_text(line.p50_s), seconds_text(line.p95_s)]
        rows.append(row)
    if figures.needs_extra:
        return [[*row[:2], *row[3:]] for row in rows]
    return rows


def unscored_text(line: "ScoreLine") -> str:
    """How many rows have no score, and why."""
    reasons = [f"{rows:,} {why.replace('_', ' ')}" for why, rows in line.reasons.items()]
    if len(reasons) < 2:  # noqa: PLR2004 - several have a sum
        return reasons[0] if reasons else "0"
    return f"{line.unscored:,} ({', '.join(reasons)})"


def lacks(board: "Board") -> Iterator[str]:
    """What the score of a line does not rest on: questions without an answer, and failed rows."""
    for line in board.lines:
        name = _short(line.name)
        if line.questions < board.questions:
            some = f"{line.questions:,} of {count(board.questions, 'question')}"
            hint = "; it is compared on those that both lines have" if len(board.lines) > 1 else ""
            yield f"{name}: answers to {some}{hint}"
        if line.bounds is not None:
            yield (
                f"{name}: {count(line.failed, 'row')} failed; were they all wrong, or all right, "
                f"the score would be {score_text(line.bounds.low)} or {score_text(line.bounds.high)}"
            )


def _comparisons(board: "Board", width: int) -> Iterator[str]:
    names = [f"{_short(each.name)} - {_short(each.baseline)}" for each in board.comparisons]
    room = max(map(columns_of, names), default=0)
    for name, each in zip(names, board.comparisons, strict=True):
        yield from _wrapped([_padded(name, room), difference(each), *tested_words(each), *needed_words(each)], width)


def difference(each: "Comparison") -> str:
    """The difference with its interval."""
    interval = "" if each.interval is None else f" [{each.interval.low:+.3f}, {each.interval.high:+.3f}]"
    return f"{each.difference:+.3f}{interval}"


def tested_words(each: "Comparison") -> Iterator[str]:
    """The test of a difference, and what it rests on."""
    questions = count(each.questions, "question")
    if each.clusters < each.questions:
        questions += f" in {count(each.clusters, 'cluster')}"
    tested = "" if each.p is None else f"p {p_text(each.p)} (Holm {p_text(each.p_holm)}), {each.test}, "
    yield f"{tested}{questions}"


def needed_words(each: "Comparison") -> Iterator[str]:
    """The largest of the usual differences that this run could not tell, and how many questions would."""
    usual = [needed for needed in each.needed if needed.difference != each.difference]
    smaller = [needed for needed in usual if each.detectable and needed.difference < each.detectable]
    for needed in smaller[-1:]:
        yield f"{needed.difference:g} could be told with {count(needed.questions, 'question')}"


def _wrapped(pieces: Sequence[str], width: int, between: str = BETWEEN) -> Iterator[str]:
    """Pieces in one line as far as they fit, the rest below."""
    line = pieces[0]
    for piece in pieces[1:]:
        if columns_of(line) + len(between) + columns_of(piece) > width:
            yield line.rstrip()
            line = BETWEEN + piece
        else:
            line += between + piece
    yield line


def _sentence(text: str, width: int) -> list[str]:
    """A sentence in lines of this width."""
    return textwrap.wrap(text, width, subsequent_indent=BETWEEN, break_long_words=False, break_on_hyphens=False)


def p_text(value: float | None) -> str:
    """A p value, of three decimals."""
    if value is None:
        return UNKNOWN
    return "<0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004 - a smaller one says nothing more


def precision(board: "Board") -> list[str]:
    """What this run could tell, and what more samples would do: of the comparison that tells least. In pieces."""
    known = [each for each in board.comparisons if each.detectable is not None]
    if not known:
        return []
    worst = max(known, key=lambda each: each.detectable or 0.0)
    pieces = [f"this run could tell a difference of {score_text(worst.detectable)} (80 % power)"]
    pieces += [f"with {each.samples:,} samples {score_text(each.detectable)}" for each in worst.with_samples[1:]]
    return [*(f"{each};" for each in pieces[:-1]), pieces[-1]]


def pass_k_table(board: "Board") -> list[list[str]]:
    """pass@k and pass^k of each line; none where each question has one answer."""
    ks = sorted({each.k for line in board.lines for each in line.pass_k})
    if not ks:
        return []
    rows = [["", *(f"pass@{k}" for k in ks), *(f"pass^{k}" for k in ks if k > 1)]]
    for line in board.lines:
        found = {each.k: each for each in line.pass_k}
        at_least = [score_text(found[k].at_least_one) if k in found else UNKNOWN for k in ks]
        every = [score_text(found[k].all) if k in found else UNKNOWN for k in ks if k > 1]
        rows.append([line.name, *at_least, *every])
    return rows


def lacking(board: "Board") -> Iterator[str]:
    """Why a line has no pass@k."""
    for line in board.lines:
        for each in line.pass_k:
            if each.lacking:
                few = "no answer" if each.k == 1 else f"fewer than {each.k} answers"
                why = f"{count(each.lacking, 'question')} {'has' if each.lacking == 1 else 'have'} {few}"
                yield f"{_short(line.name)}: no pass@{each.k} and above, because {why}"
                break


def groups_table(board: "Board", column: str | None) -> list[list[str]]:
    """The score of each group with its interval's half, a column for each line."""
    lines = [line for line in board.lines if line.groups is not None]
    if not lines or column is None:
        return []
    names: dict[str | None, int] = {}
    for line in lines:
        for each in line.groups.groups if line.groups is not None else ():
            names[each.name] = max(names.get(each.name, 0), each.questions)
    rows = [[column, "questions", *(_short(line.name) for line in lines)]]
    ordered = sorted(names, key=lambda name: (name is None, name or ""))
    rows += [
        ["(empty)" if name is None else name, f"{names[name]:,}", *(_group(line, name) for line in lines)]
        for name in ordered[:MAX_GROUPS]
    ]
    if len(ordered) > MAX_GROUPS:
        rows.append([f"({len(ordered) - MAX_GROUPS:,} more)"])
    totals = [line.groups for line in lines if line.groups is not None]
    rows.append(["(all answers)", f"{board.questions:,}", *(_with_error(each.micro, each.micro_se) for each in totals)])
    rows.append(["(mean of groups)", "", *(_with_error(each.macro, each.macro_se) for each in totals)])
    return rows


def _group(line: "ScoreLine", name: str | None) -> str:
    found = [each for each in (line.groups.groups if line.groups is not None else ()) if each.name == name]
    return f"{score_text(found[0].score)} ({interval_text(found[0].interval)})" if found else UNKNOWN


def _with_error(score: float, se: float | None) -> str:
    return score_text(score) if se is None else f"{score_text(score)} (SE {se:.3f})"


def _short(name: str) -> str:
    """The name of a line, in which nothing is hidden or does anything, as long as there is room for."""
    return cut(name, NAME_WIDTH)


def tokens_text(tokens_each: float | None) -> str:
    """Tokens of an answer, in whole ones."""
    return UNKNOWN if tokens_each is None else f"{tokens_each:,.0f}"


def _each(text: str) -> str:
    """What each answer came to."""
    return text if text == UNKNOWN else f"{text} each"


def seconds_text(seconds: float | None) -> str:
    """A latency."""
    return UNKNOWN if seconds is None else f"{seconds:.1f}"


def score_text(value: float | None) -> str:
    """A score, of three decimals."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.1f}"  # noqa: PLR2004 - six digits are enough


def interval_text(found: Interval | None) -> str:
    """The ends of an interval."""
    return UNKNOWN if found is None else f"{score_text(found.low)} {score_text(found.high)}"


def money_text(amount: Decimal | None) -> str:
    """US dollars, of six decimals."""
    if amount is None:
        return UNKNOWN
    return f"${amount.quantize(Decimal((0, (1,), -DECIMALS)), ROUND_HALF_EVEN, ROUNDING):,f}"


def table(rows: Rows, width: int, name_width: int = NAME_WIDTH) -> Iterator[str]:
    """Columns side by side; those that do not fit come below, with the names again.

    `name_width`: of the first column, at most. Cells have at least `MIN_ROOM` columns, however wide the names are.
    """
    names = [cut(row[0], name_width) for row in rows]
    first = max(map(columns_of, names))
    room = max(MIN_ROOM, width - first - len(BETWEEN))
    cells = [[*(cut(cell, room) for cell in row[1:]), *[""] * (len(rows[0]) - len(row))] for row in rows]
    sizes = [max(columns_of(row[at]) for row in cells) for at in range(len(rows[0]) - 1)]
    start = 0
    while start < len(sizes):
        end, used = start + 1, first + len(BETWEEN) + sizes[start]
        while end < len(sizes) and used + len(BETWEEN) + sizes[end] <= width:
            used += len(BETWEEN) + sizes[end]
            end += 1
        for name, row in zip(names, cells, strict=True):
            padded = [_padded(name, first), *(_padded(row[at], sizes[at]) for at in range(start, end))]
            yield BETWEEN.join(padded).rstrip()
        start = end


def _padded(text: str, size: int) -> str:
    return text + " " * (size - columns_of(text))
