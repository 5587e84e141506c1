"""Which rows go into a page: laws, against a choice made from all rows at once."""

from collections import Counter, defaultdict

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cometbatch.reports.page.chosen import MOST, PARTS, Choosing, Chosen, Selection, hashes
from tests.page.rows import Row, frame

KINDS = {"failed": ["timeout", "server_error", "blocked"], "incomplete": ["length", "stop"], "succeeded": ["stop"]}


@st.composite
def row(draw: st.DrawFn) -> Row:
    """A row of some question; few of them have the same cost, many have none."""
    status = draw(st.sampled_from(["succeeded", "succeeded", "succeeded", "failed", "incomplete"]))
    return Row(
        row=draw(st.integers(0, 40)),
        status=status,
        kind=draw(st.sampled_from(KINDS[status])),
        cost=draw(st.none() | st.integers(0, 9)),
        latency=draw(st.none() | st.integers(1, 5)),
        tokens=draw(st.none() | st.integers(1, 50)),
    )


RESULTS = st.lists(st.lists(row(), max_size=60), min_size=1, max_size=3)


def choose(results: list[list[Row]], limit: int, *, seed: int = 0, size: int = 1_000) -> tuple[Chosen, Selection]:
    """The choice, from this number of rows at a time."""
    choosing = Choosing(limit, seed)
    for number, rows in enumerate(results):
        for begin in range(0, len(rows), size):
            choosing.add(number, frame(rows[begin : begin + size], begin))
    return choosing.chosen(len(results))


def lines_of(chosen: Chosen, results: list[list[Row]]) -> set[tuple[int, int]]:
    """The chosen lines, each with its source."""
    found: set[tuple[int, int]] = set()
    for number, (places, rows) in enumerate(zip(chosen.lines, results, strict=True)):
        found |= {(number, place) for place in (range(len(rows)) if places is None else places.to_list())}
    return found


@settings(max_examples=40, deadline=None)
@given(RESULTS, st.integers(1, 80), st.integers(1, 30))
@example([[Row(0, "failed", "timeout")] * 9], 3, 1)
def test_the_choice_is_that_of_all_rows_at_once(results: list[list[Row]], limit: int, size: int) -> None:
    """However few rows are read at a time, which is all that memory holds; and never more than the limit."""
    chosen, selection = choose(results, limit, size=size)
    whole, counted = choose(results, limit)
    lines = lines_of(chosen, results)
    assert lines == lines_of(whole, results)
    assert selection == counted
    assert len(lines) == selection.rows <= limit
    assert sum(selection.parts.values()) == selection.rows or selection.rows == selection.of
    for number, rows in enumerate(results):
        for place in range(len(rows)):
            assert chosen.has(number, place) == ((number, place) in lines)


@settings(max_examples=40, deadline=None)
@given(RESULTS, st.integers(1, 80))
def test_where_all_rows_fit_all_are_in(results: list[list[Row]], limit: int) -> None:
    """And only then nothing is said to the reader."""
    total = sum(map(len, results))
    chosen, selection = choose(results, limit)
    assert (selection.words == "") == (total <= limit) == (selection.rows == total)
    assert all(each is None for each in chosen.lines) == (total <= limit)


@settings(max_examples=40, deadline=None)
@given(RESULTS, st.integers(1, 80))
def test_what_went_wrong_comes_first_a_row_of_each_kind_in_turn(results: list[list[Row]], limit: int) -> None:
    """Each kind has as many rows as any other, or all that it has; the first row of each kind is there."""
    chosen, selection = choose(results, limit)
    if selection.rows == selection.of:
        return
    lines = lines_of(chosen, results)
    there: defaultdict[tuple[str, str | None], list[tuple[int, int]]] = defaultdict(list)
    for number, rows in enumerate(results):
        for place, each in enumerate(rows):
            if each.status != "succeeded":
                there[each.status, each.kind].append((number, place))
    taken = Counter({kind: len(lines.intersection(some)) for kind, some in there.items()})
    total = sum(map(len, there.values()))
    if total <= limit:
        assert all(taken[kind] == len(some) for kind, some in there.items())
    else:
        assert taken.total() == limit
        most = max(taken.values())
        assert all(taken[kind] >= min(most - 1, len(some)) for kind, some in there.items())
        assert selection.parts["failed"] + selection.parts["incomplete"] == limit
    for kind, some in there.items():
        assert not taken[kind] or some[0] in lines


@settings(max_examples=40, deadline=None)
@given(RESULTS, st.integers(1, 80), st.integers(0, 5))
def test_the_sample_is_of_whole_questions(results: list[list[Row]], limit: int, seed: int) -> None:
    """All calls of a question are in, in all results, or none is for being drawn; no further question would fit."""
    chosen, selection = choose(results, limit, seed=seed)
    if selection.rows == selection.of:
        return
    lines = lines_of(chosen, results)
    order = dict(zip(range(41), hashes(pl.Series(range(41)), seed), strict=True))
    of_question: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
    for number, rows in enumerate(results):
        for place, each in enumerate(rows):
            of_question[order[each.row]].add((number, place))
    left = limit - len(lines)
    missing = [some - lines for _, some in sorted(of_question.items()) if some - lines]
    whole = [some <= lines for _, some in sorted(of_question.items())]
    if missing and left:
        assert len(missing[0]) > left
        assert whole[: whole.index(False)] == [True] * whole.index(False)


@settings(max_examples=40, deadline=None)
@given(RESULTS, st.integers(1, 80))
def test_the_most_of_each_value_are_in(results: list[list[Row]], limit: int) -> None:
    """The longest, the dearest and the slowest, as far as there is room, after what went wrong."""
    chosen, selection = choose(results, limit)
    lines = lines_of(chosen, results)
    if selection.rows == selection.of or selection.parts["sample"] == 0:
        return
    every = [(number, place, each) for number, rows in enumerate(results) for place, each in enumerate(rows)]
    for name, value in {"longest": "tokens", "dearest": "cost", "slowest": "latency"}.items():
        valued = [(number, place) for number, place, each in every if getattr(each, value)]
        ranked = sorted(valued, key=lambda line: (-getattr(results[line[0]][line[1]], value), line))
        assert lines.issuperset(ranked[: MOST[name]])


def test_a_hash_is_of_seed_and_row_alone() -> None:
    """So that a page made again has the same rows, whatever version of a library made it."""
    rows = pl.Series([0, 1, 2, 10**9])
    assert hashes(rows, 0).to_list() == hashes(rows.reverse(), 0).reverse().to_list()
    assert hashes(rows, 0).to_list() == [
        16294208416658607535, 7960286522194355700, 487617019471545679, 9647096652429275078,
    ]  # fmt: skip
    assert not set(hashes(rows, 0)) & set(hashes(rows, 1))


def test_the_reader_is_told_which_rows_there_are() -> None:
    """How many of how many, of what, and what the figures count."""
    rows = [Row(at, "failed" if at < 3 else "succeeded", "timeout", cost=at) for at in range(3_000)]
    _, selection = choose([rows], 1_500)
    assert selection.parts == {**dict.fromkeys(PARTS, 0), "failed": 3, "dearest": 1_000, "sample": 497}
    assert selection.words == (
        "This page has 1,500 of 3,000 rows: all 3 failed, the 1,000 dearest, a random sample of 497 others (seed 0). "
        "Totals and charts of the overview count all rows."
    )
    assert choose([rows], 2)[1].words.startswith("This page has 2 of 3,000 rows: 2 of 3 failed.")
