"""What a run came to, in words: one function for each thing that a summary tells. Pure: numbers in, words out."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from cometbatch.money.exact import EXACT, format_rounded
from cometbatch.records import PriceBook, Tally
from cometbatch.results.tallies import median_cost

if TYPE_CHECKING:
    from cometbatch.results.summary import RunSummary

RUN_ALL: Final = "run the job without a limit"
_REASONS: Final = {
    "stop": "empty",
    "content_filter": "blocked by a content filter",
    "refusal": "refused by the model",
    "tool_calls": "with tool calls in place of an answer",
    "other": "ended for a reason of the service's own",
    "invalid": "not of the form that was asked for",
}
"""Why an answer is incomplete, by its finish reason; where it was cut is said by `incomplete_words`."""

TARGETS_SHOWN: Final = 5  # in the summary for a person


def described(summary: "RunSummary", *, verbose: bool = False, command: str = RUN_ALL, width: int = 100) -> str:
    """A few lines for a person. Amounts are rounded; `to_dict` has the exact ones.

    `verbose`: connections, too. `command`: what runs all rows, for a session that was not for all. `width`: columns
    that a leaderboard at their end may have.
    """
    tally = summary.tally
    lines = [
        _rows(summary),
        *summary.cell_lines(),
        *_reused(summary),
        *_incomplete(summary),
        *_accepted(summary),
        *_some(summary.targets),
        _tokens(summary),
        _bill(summary),
        *_rejected(tally),
        *_row_cost(summary),
        *_reported(summary.tally),
        *_charges(summary),
        *([] if summary.left_out is None else [summary.left_out.describe()]),
        *_replaced(summary),
        *_updated(summary),
    ]
    if session := "; ".join(_session(summary, verbose=verbose)):
        lines.append(f"this session: {session}")
    lines.append(_result(summary))
    if not summary.had_work:
        what = "Already complete" if summary.limited is None or summary.finished else summary.limited.describe()
        lines.append(f"{what}; nothing was sent.")
    if summary.limited is not None and summary.limited.is_reached and not summary.finished:
        lines.append(f"{summary.tally.calls:,} of {count(summary.rows, 'row')}; all of them: {command}")
    if summary.scores is not None:
        lines += summary.scores.describe()
    if summary.leaderboard is not None:
        lines += ["", summary.leaderboard.describe(width)]
    return "\n".join(lines)


def _rows(summary: "RunSummary") -> str:
    tally = summary.tally
    return (
        f"{tally.calls:,} of {count(summary.rows, 'row')}{_of_matrix(summary)}: {tally.succeeded:,} succeeded, "
        f"{tally.incomplete:,} incomplete, {tally.failed:,} failed{_kinds(tally.failures)}"
    )


def _of_matrix(summary: "RunSummary") -> str:
    """Of which rows of the input, cells and samples the rows of a matrix are."""
    if not (cells := summary.cells):
        return ""
    samples = cells[0].samples
    asked = "" if samples == 1 else f", {count(samples, 'sample')} each"
    return f" ({cells[0].rows // samples:,} of the input, {count(len(cells), 'cell')}{asked})"


def _incomplete(summary: "RunSummary") -> Iterator[str]:
    """Why rows are incomplete, and what can be done about it."""
    reasons = summary.tally.incompletes
    if not reasons:
        return
    cap = summary.max_output_tokens
    words = incomplete_words(cap, has_own_caps=summary.has_own_caps)
    yield "incomplete: " + ", ".join(f"{rows:,} {words.get(reason, reason)}" for reason, rows in reasons.items())
    if "length" in reasons and summary.cells:
        yield "  to ask with more room, put a higher params.max_output_tokens on an axis: its cells alone are asked"
    elif "length" in reasons and cap is not None:
        yield from _more_room(cap)
    if again := sorted(set(reasons) - {"length"}):
        yield f"  to ask these rows again, run with --retry {','.join(again)}"


def incomplete_words(cap: int | None, *, has_own_caps: bool = False) -> dict[str, str]:
    """Why an answer is not whole, by its finish reason. `cap`: on its tokens; `has_own_caps`: rows bring theirs."""
    limit = "the token limit of their own requests" if has_own_caps else "the model's own token limit"
    return {"length": f"cut at {limit if cap is None else f'params.max_output_tokens={cap}'}", **_REASONS}


def more_room(cap: int) -> str:
    """The options of a run that ask rows which were cut at this cap again, with more room."""
    return f"--retry length --set params.max_output_tokens={4 * cap}"


def _accepted(summary: "RunSummary") -> Iterator[str]:
    """How rows without a whole answer stand against what is accepted, where the job says what is."""
    if summary.accept.is_used and (words := summary.accepted.describe()):
        yield words


def _reused(summary: "RunSummary") -> Iterator[str]:
    """Which rows took answers of earlier runs or of equal rows, what that saved, and why others did not."""
    tally = summary.tally
    if tally.reused:
        amounts = tally.reused, tally.reused_cost_usd, tally.reused_unpriced
        yield f"reused: {reused_words(*amounts, of_equal_rows=summary.is_deduped and not summary.is_reusing)}"
    if summary.reuse is not None:
        yield from (f"  {words}" for words in summary.reuse.not_taken_words(is_deduped=summary.is_deduped))


def reused_words(rows: int, saved_usd: Decimal, unpriced: int, *, of_equal_rows: bool = False) -> str:
    """How many rows took earlier answers, and what that saves. `of_equal_rows`: of none but rows of this very run."""
    answer = "the answer of an equal row" if of_equal_rows else "an answer that was paid for before"
    what = f"{count(rows, 'row')} took {answer}"
    unknown = f", {unpriced:,} of them of unknown cost" if unpriced else ""
    return f"{what}: {format_rounded(saved_usd, down=True)} saved{unknown}"


def _result(summary: "RunSummary") -> str:
    if summary.finished:
        return f"result: {summary.output}"
    if summary.has_earlier_result:
        before = "--retry" if summary.updates is None or summary.replaced.calls else "this update"
        return f"result: {summary.output} (as it was before {before}: the run is not finished)"
    seen = "" if summary.limited is None else "; `cometbatch show` and `export` read its rows"
    return f"no result yet: the run is not finished{seen}"


def _tokens(summary: "RunSummary") -> str:
    tally = summary.tally
    if summary.is_uncounted:
        return "tokens: unknown"
    cached = _part(tally.cache_read_input_tokens, "read from cache")
    reasoning = _part(tally.reasoning_output_tokens, "spent on reasoning")
    return f"tokens: {tally.input_tokens:,} in{cached}, {tally.output_tokens:,} out{reasoning}"


def _bill(summary: "RunSummary") -> str:
    cost, tally = summary.cost_usd, summary.tally
    bound = "at least " if tally.unpriced or tally.excluding else ""
    known = (
        "unknown"
        if cost is None
        else f"{bound}{format_rounded(cost)} (prices: {price_source((summary.prices, *summary.books))})"
    )
    has_prices = any(book.rates is not None for book in (summary.prices, *summary.books))
    uncounted = min(tally.uncounted, tally.unpriced) if has_prices else 0
    rest = tally.unpriced - uncounted
    without = _rows_without(uncounted, "token counts") + _rows_without(rest, "a price")
    more = f"; {count(tally.excluding, 'row')} with more in use than is priced" if tally.excluding else ""
    return f"cost: {known}{without}{more}"


def _row_cost(summary: "RunSummary") -> Iterator[str]:
    """At a stop: what the rows that are missing may cost."""
    median = median_cost(summary.tally)
    if not summary.finished and median is not None:
        most = format_rounded(summary.tally.largest_cost_usd, up=True)
        yield f"cost of a row so far: about {format_rounded(median)} in the median, {most} at most"


def _charges(summary: "RunSummary") -> Iterator[str]:
    """What may have been billed beyond the rows' cost, and why."""
    tally = summary.possible_charges
    if not tally.charges:
        return
    bounded, unbounded = tally.charges - tally.charges_unknown, tally.charges_unknown
    amounts = [f"up to {format_rounded(tally.charges_usd, up=True)} for {count(bounded, 'request')}"] if bounded else []
    amounts += [f"an unknown amount for {count(unbounded, 'request')}"] if unbounded else []
    is_uncounted = summary.tally.uncounted or summary.replaced.uncounted
    reason = "that got no answer or no token counts" if is_uncounted else "that got no answer"
    resent = f" ({summary.resent:,} in flight when a process ended)" if summary.resent else ""
    yield f"possible extra charge: {' and '.join(amounts)} {reason}{resent}"


def _replaced(summary: "RunSummary") -> Iterator[str]:
    if summary.reopened is not None:
        yield f"--retry reset {count(summary.reopened, 'row')}" if summary.reopened else "no row matches --retry"
    replaced = summary.replaced
    if replaced.calls:
        again = "answered again" if summary.finished else "reset to be answered again"
        bound = "at least " if replaced.unpriced or replaced.excluding else ""
        unpriced = f", {replaced.unpriced:,} without a price" if replaced.unpriced else ""
        spent = f"{bound}{format_rounded(replaced.cost_usd)}{unpriced} (not in the cost above)"
        were = "row was" if replaced.calls == 1 else "rows were"
        yield f"{replaced.calls:,} {were} {again}; their earlier answers cost {spent}"


def _updated(summary: "RunSummary") -> Iterator[str]:
    if (before := summary.given_up) is not None:
        cost = EXACT.add(before.cost_usd, before.rejected_cost_usd)
        bound = "at least " if before.unpriced or before.excluding else ""
        charges = "" if not before.charges else f", possibly {format_rounded(before.charges_usd, up=True)} more"
        unknown = " and an unknown amount" if before.charges_unknown else ""
        spent = f"{bound}{format_rounded(cost)}{charges}{unknown} (not in the cost above)"
        yield f"unfinished runs that this update replaces cost {spent}"
    if summary.forgotten is not None:
        runs, size = summary.forgotten
        yield f"{count(runs, 'earlier run')} removed: {size / 10**6:,.1f} MB"


def _session(summary: "RunSummary", *, verbose: bool) -> Iterator[str]:
    if summary.retries:
        yield f"{summary.retries:,} {'retry' if summary.retries == 1 else 'retries'}"
    if summary.pushbacks:
        yield f"the service asked to slow down {count(summary.pushbacks, 'time')}"
    if verbose and (pool := summary.pool) is not None:
        used = f"{count(pool.requests, 'request')} over {count(pool.opened, 'connection')}"
        yield f"{used}, at most {pool.most_open:,} open at once"


def count(number: int, noun: str) -> str:
    """A number of things: 1 row, 2,000 rows."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def price_source(books: Sequence[PriceBook]) -> str:
    """Where the prices come from, of all targets that have some."""
    known = [book for book in books if book.rates is not None]
    return ", ".join(dict.fromkeys(book.source for book in known or books[:1]))


def _more_room(cap: int) -> Iterator[str]:
    """What can be done about rows that were cut at this cap."""
    yield f"  to ask these rows again with more room, run with {more_room(cap)}"
    yield "  to ask all rows so, set params.max_output_tokens higher and give another output.path"


def _some(targets: Sequence[str]) -> Iterator[str]:
    """In which other ways rows were asked, the first of them."""
    yield from targets[:TARGETS_SHOWN]
    if (more := len(targets) - TARGETS_SHOWN) > 0:
        yield f"and {count(more, 'more target')}"


def _reported(tally: Tally) -> Iterator[str]:
    """What the service itself says; the currency is presumed, so it is told apart and never added."""
    if tally.reported:
        reported = format_rounded(tally.reported_cost_usd)
        yield f"cost that the service reported: {reported} for {count(tally.reported, 'answer')}"


def _rejected(tally: Tally) -> Iterator[str]:
    """What answers cost that did not fit and were not their row's last."""
    if not tally.rejected and not tally.reasked:
        return
    cost = format_rounded(EXACT.add(tally.rejected_cost_usd, tally.reasked_cost_usd))
    answers = count(tally.rejected + tally.reasked, "answer")
    rows = f" ({tally.rejected:,} of them in no row's cost)" if tally.rejected else ""
    yield f"  of it {cost} for {answers} that did not fit what was asked for{rows}"


def _kinds(failures: dict[str, int]) -> str:
    return f" ({', '.join(f'{rows:,} {kind}' for kind, rows in sorted(failures.items()))})" if failures else ""


def _rows_without(rows: int, what: str) -> str:
    return f"; {count(rows, 'row')} without {what}" if rows else ""


def _part(tokens: int, words: str) -> str:
    return f" ({tokens:,} {words})" if tokens else ""
