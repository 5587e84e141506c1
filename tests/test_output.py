"""The output columns, journal lines and tallies: what an outcome becomes, and that nothing is lost on the way."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any, get_args

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.money.prices import COST_SCALE, MAX_RATE, MAX_TOKENS, cost
from cometbatch.records import (
    Answered,
    Completion,
    Failed,
    Failure,
    FailureKind,
    FinishReason,
    Outcome,
    Rates,
    Record,
    Tally,
    Usage,
)
from cometbatch.results.codec import encode_record
from cometbatch.results.column_names import clashes
from cometbatch.results.columns import (
    COLUMNS,
    FULL_SCHEMA_KEYS,
    join,
    joined_schema,
    outcomes_table,
    read_outcomes,
    schema_of,
    status_of,
)
from cometbatch.results.tallies import add, add_all, tally
from tests.readme_tables import columns_table

NOW = datetime(2026, 9, 1, 12, 0, 0, 123456, tzinfo=UTC)
REASONS = get_args(FinishReason)
KINDS = get_args(FailureKind)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # codec="utf-8" is the same, but slow to set up
maybe_words = st.none() | words
counts = st.none() | st.integers(0, 10**12)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware
costs = st.none() | st.decimals(0, 10**17, places=18)
usages = st.builds(Usage, counts, counts, counts, counts, counts)


@st.composite
def outcomes(draw: st.DrawFn, row: int = 0) -> Outcome:
    """Any outcome that a run can come to."""
    named: dict[str, Any] = {
        "ordinal": row,
        "custom_id": draw(maybe_words),
        "attempts": draw(st.integers(0, 1000)),
        "finished_at": draw(moments),
        "request_hash": draw(words),
    }
    latency_s = draw(st.floats(0, 1e5))
    if draw(st.booleans()):
        failure = Failure(
            draw(st.sampled_from(KINDS)),
            draw(words),
            draw(st.none() | st.integers(0, 999)),
            draw(st.just("") | words),
            draw(maybe_words),
        )
        return Failed(**named, latency_s=draw(st.none() | st.just(latency_s)), failure=failure)
    completion = Completion(
        draw(words),
        draw(st.sampled_from(REASONS)),
        draw(usages),
        draw(maybe_words),
        draw(maybe_words),
        draw(maybe_words),
        draw(costs),
    )
    answered: dict[str, Any] = {
        "latency_s": latency_s,
        "http_status": 200,
        "request_id": draw(maybe_words),
        "cost_usd": draw(costs),
    }
    return Answered(**named, **answered, status=status_of(completion), completion=completion)


@st.composite
def outcome_lists(draw: st.DrawFn) -> list[Outcome]:
    """The outcomes of consecutive rows."""
    first = draw(st.integers(0, 10**9))
    return [draw(outcomes(row)) for row in range(first, first + draw(st.integers(0, 5)))]


def answered(completion: Completion, cost_usd: Decimal | None = None, row: int = 0) -> Outcome:
    """An outcome with this completion."""
    return Answered(row, status_of(completion), "id-1", 1, 0.5, NOW, "ab12", 200, "req-1", completion, cost_usd)


def failed(failure: Failure, row: int = 0) -> Outcome:
    """An outcome with this failure, of a row that was never sent."""
    return Failed(row, None, 0, None, NOW, None, failure)


def only_row(outcome: Outcome) -> dict[str, Any]:
    """The one row of the table of one outcome."""
    [row] = outcomes_table([outcome]).to_pylist()
    return dict(row)


# The schema


def test_the_schema_is_fixed() -> None:
    """Names, order and types are what readers of results build on: a change here breaks them."""
    assert [(field.name, str(field.type)) for field in schema_of()] == [
        ("custom_id", "string"),
        ("status", "string"),
        ("response", "large_string"),
        ("finish_reason", "string"),
        ("error_kind", "string"),
        ("error_message", "large_string"),
        ("http_status", "int32"),
        ("request_id", "string"),
        ("response_id", "string"),
        ("response_model", "string"),
        ("input_tokens", "int64"),
        ("output_tokens", "int64"),
        ("cache_read_input_tokens", "int64"),
        ("cache_write_input_tokens", "int64"),
        ("cache_write_1h_input_tokens", "int64"),
        ("reasoning_output_tokens", "int64"),
        ("cost_usd", "decimal128(38, 18)"),
        ("cost_excludes", "string"),
        ("reported_cost_usd", "decimal128(38, 18)"),
        ("attempts", "int32"),
        ("latency_s", "double"),
        ("finished_at", "timestamp[us, tz=UTC]"),
        ("request_hash", "string"),
    ]


def test_the_cost_column_holds_what_a_cost_is() -> None:
    """Column and prices agree on the scale, and the largest cost fits."""
    assert schema_of().field("cost_usd").type.scale == COST_SCALE
    dearest = cost(Usage(MAX_TOKENS, MAX_TOKENS), Rates(MAX_RATE, MAX_RATE))
    assert only_row(answered(Completion("yes", "stop"), dearest))["cost_usd"] == dearest


def test_the_column_table_has_a_line_for_each_column() -> None:
    """The table of the documentation is made of the schema, in its order."""
    lines = columns_table(COLUMNS).splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == schema_of().names
    assert all(column.meaning and column.words for column in COLUMNS)


# What an outcome becomes


@pytest.mark.parametrize(
    ("reason", "text", "expected"),
    [
        ("stop", "Four", "succeeded"),
        ("stop", " 0 ", "succeeded"),
        ("stop", "", "incomplete"),
        ("stop", " \n\t\u2003", "incomplete"),
        *((reason, "Four", "incomplete") for reason in REASONS if reason != "stop"),
    ],
)
def test_success_is_a_model_that_stopped_by_itself_and_said_something(
    reason: FinishReason, text: str, expected: str
) -> None:
    """Everything else was billed too, but is no whole answer."""
    assert status_of(Completion(text, reason)) == expected


def test_a_succeeded_row_by_hand() -> None:
    """An answer with all that is known of it."""
    usage, reported = Usage(29, 2, 8, 4, 1, 3), Decimal("0.000025")
    completion = Completion("Four", "stop", usage, "resp-1", "model-2026-03-17", None, reported, "web_search")
    assert only_row(answered(completion, Decimal("0.000031"))) == {
        "custom_id": "id-1",
        "status": "succeeded",
        "response": "Four",
        "finish_reason": "stop",
        "error_kind": None,
        "error_message": None,
        "http_status": 200,
        "request_id": "req-1",
        "response_id": "resp-1",
        "response_model": "model-2026-03-17",
        "input_tokens": 29,
        "output_tokens": 2,
        "cache_read_input_tokens": 8,
        "cache_write_input_tokens": 4,
        "cache_write_1h_input_tokens": 3,
        "reasoning_output_tokens": 1,
        "cost_usd": Decimal("0.000031"),
        "cost_excludes": "web_search",
        "reported_cost_usd": Decimal("0.000025"),
        "attempts": 1,
        "latency_s": 0.5,
        "finished_at": NOW,
        "request_hash": "ab12",
    }


def test_a_failed_row_by_hand() -> None:
    """A failure has its kind, words, code, status and request id, and no answer."""
    row = only_row(failed(Failure("server_error", "upstream broke", 500, "do_request_failed", "req-9")))
    assert {name: value for name, value in row.items() if value is not None} == {
        "status": "failed",
        "error_kind": "server_error",
        "error_message": "upstream broke (code do_request_failed)",
        "http_status": 500,
        "request_id": "req-9",
        "attempts": 0,
        "finished_at": NOW,
    }


def test_a_code_that_the_message_tells_is_not_told_twice() -> None:
    """The code is added only where the message does not have it."""
    row = only_row(failed(Failure("blocked", "prompt_blocked: SAFETY", 400, "prompt_blocked")))
    assert row["error_message"] == "prompt_blocked: SAFETY"


@pytest.mark.parametrize(
    ("completion", "response", "message"),
    [
        (Completion("Fo", "length"), "Fo", "cut at the token limit"),
        (Completion("", "length"), None, "cut at the token limit"),
        (Completion("", "stop"), None, "empty answer"),
        (Completion("  ", "stop"), "  ", "empty answer"),
        (Completion("", "content_filter"), None, "blocked by a content filter"),
        (Completion("", "content_filter", detail="SAFETY"), None, "blocked by a content filter: SAFETY"),
        (Completion("", "refusal", detail="I can't"), None, "refused by the model: I can't"),
        (Completion("", "tool_calls", detail="[]"), None, "tool calls instead of an answer: []"),
        (Completion("x", "other", detail="pause_turn"), "x", "ended for an unknown reason: pause_turn"),
    ],
)
def test_an_incomplete_row_keeps_its_text_and_says_why(
    completion: Completion, response: str | None, message: str
) -> None:
    """Partial text was paid for; the message says in plain words what is missing."""
    row = only_row(answered(completion))
    assert (row["status"], row["response"], row["error_message"]) == ("incomplete", response, message)
    assert row["error_kind"] is None


def test_a_count_that_no_column_can_hold_is_unknown() -> None:
    """A hostile reply's token count can't break the part that it would be in, or the total."""
    outcome = answered(Completion("Four", "stop", Usage(10**30, 2**63 - 1)))
    row = only_row(outcome)
    assert (row["input_tokens"], row["output_tokens"]) == (None, 2**63 - 1)
    assert (tally([outcome]).input_tokens, tally([outcome]).output_tokens) == (0, 2**63 - 1)


@given(given_outcomes=outcome_lists(), prefix=st.sampled_from(["", "out_"]))
@settings(max_examples=100)
def test_the_columns_read_back_as_outcomes_that_make_them_again(given_outcomes: list[Outcome], prefix: str) -> None:
    """Table -> outcomes -> table is identity, whatever other columns stand beside."""
    table = outcomes_table(given_outcomes)
    first = given_outcomes[0].ordinal if given_outcomes else 0
    beside = table.rename_columns([prefix + name for name in table.column_names])
    read = read_outcomes(beside.append_column("prompt", pa.nulls(len(table))), first, prefix)
    assert [type(outcome) for outcome in read] == [type(outcome) for outcome in given_outcomes]
    assert [outcome.ordinal for outcome in read] == [outcome.ordinal for outcome in given_outcomes]
    assert outcomes_table(read) == table


@given(given_outcomes=outcome_lists())
@settings(max_examples=50)
def test_what_has_a_column_of_its_own_survives_whole(given_outcomes: list[Outcome]) -> None:
    """Only a code, now in the message, and the detail of a succeeded answer do not come back by themselves."""
    table = outcomes_table(given_outcomes)
    for before, after in zip(
        given_outcomes, read_outcomes(table, given_outcomes[0].ordinal if given_outcomes else 0), strict=True
    ):
        match before:
            case Answered(status="incomplete"):
                assert after == before
            case Answered(completion=completion):
                assert after == msgspec.structs.replace(
                    before, completion=msgspec.structs.replace(completion, detail=None)
                )
            case Failed(failure=failure) if not failure.code:
                assert after == before
            case Failed(failure=failure):
                assert isinstance(after, Failed)
                assert failure.code in after.failure.message


@given(left=outcome_lists(), right=outcome_lists())
@settings(max_examples=50)
def test_any_two_parts_concatenate(left: list[Outcome], right: list[Outcome]) -> None:
    """Parts of all nulls, of no rows, of any outcomes: one schema, and Parquet keeps it."""
    tables = [outcomes_table(left), outcomes_table(right)]
    both = pa.concat_tables(tables)
    assert both.schema == schema_of()
    sink = pa.BufferOutputStream()
    pq.write_table(both, sink)
    assert pq.read_table(sink.getvalue()).equals(both)


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    """`finished_at` is in UTC, whatever zone it came in."""
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    outcome = Failed(0, None, 0, None, there, None, Failure("template", "x"))
    assert only_row(outcome)["finished_at"] == NOW


# Joining with the input

INPUT = pa.table(
    [pa.array(["a", "b"]).dictionary_encode(), pa.array([Decimal("1.5"), None])],
    schema=pa.schema(
        [
            pa.field("channel", pa.dictionary(pa.int32(), pa.string()), metadata={"unit": "none"}),
            pa.field("amount", pa.decimal128(2, 1), nullable=True),
        ],
        metadata={"pandas": "{}", "huggingface": "{}", "run": "theirs"},
    ),
)


def test_the_inputs_columns_come_first_and_as_they_were() -> None:
    """Types, field metadata and values of the input are untouched; outcomes stand beside their rows."""
    rows = [answered(Completion(text, "stop"), row=row) for row, text in enumerate(["A", "B"], 7)]
    joined = join(INPUT, rows, "out_", {"run": "ours"})
    assert joined.select(INPUT.column_names).equals(INPUT)
    assert joined.field("channel").equals(INPUT.field("channel"), check_metadata=True)
    assert joined.column("out_response").to_pylist() == ["A", "B"]
    assert joined.column_names == ["channel", "amount", *("out_" + name for name in schema_of().names)]
    assert joined.schema.equals(joined_schema(INPUT.schema, "out_", {"run": "ours"}), check_metadata=True)
    joined.validate(full=True)


def test_metadata_that_lists_every_column_does_not_outlive_the_join() -> None:
    """Notes that stay true are kept, ours win, and those that would hide the new columns go."""
    kept = joined_schema(INPUT.schema, "", {"run": "ours"}).metadata
    assert kept == {b"pandas": b"{}", b"run": b"ours"}
    assert b"huggingface" in FULL_SCHEMA_KEYS
    assert joined_schema(pa.schema([]), "", {}) == schema_of()


@pytest.mark.parametrize("rows", [[], [7], [7, 8, 9], [8, 7], [7, 7], [7, 9]])
def test_outcomes_that_do_not_fit_the_rows_are_refused(rows: list[int]) -> None:
    """An answer beside the wrong row would be worse than none."""
    misfits = [failed(Failure("template", "x"), row=row) for row in rows]
    with pytest.raises(ValueError, match="do not fit 2 rows"):
        join(INPUT, misfits, "", {})


def test_a_table_without_rows_joins_too() -> None:
    """No rows in, no rows out, with the full schema."""
    joined = join(INPUT.slice(0, 0), [], "", {})
    assert joined.num_rows == 0
    assert joined.schema == joined_schema(INPUT.schema, "", {})


@pytest.mark.parametrize(
    ("columns", "prefix", "expected"),
    [
        (["id", "body"], "", []),
        (["status", "response", "id"], "", ["status", "response"]),
        (["cost_usd", "status"], "", ["status", "cost_usd"]),
        (["status"], "out_", []),
        (["out_status"], "out_", ["out_status"]),
    ],
)
def test_columns_that_clash_are_named(columns: list[str], prefix: str, expected: list[str]) -> None:
    """The names that the input has already, in the output's order."""
    assert clashes(columns, prefix) == expected


# Journal lines


@given(outcome=outcomes())
@settings(max_examples=100)
def test_a_journal_line_gives_back_the_very_outcome(outcome: Outcome) -> None:
    """Encoding loses nothing, to the last digit of the cost, and is one line."""
    line = encode_record(outcome)
    assert msgspec.json.decode(line, type=Record) == outcome
    assert b"\n" not in line
    assert b"\r" not in line


@pytest.mark.parametrize("line", [b"", b"{}", b'{"status":"lost"}', b"\xff", b"[]", b'{"status":"failed"}'])
def test_a_line_that_is_no_outcome_is_an_error(line: bytes) -> None:
    """A journal never gives back a guess."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(line, type=Record)


@pytest.mark.parametrize(
    ("reported", "differs"),
    [(None, False), ("0.01", False), ("0.010001", False), ("0.00999", False), ("0.0101", True), ("0", True)],
)
def test_what_the_service_reports_is_summed_apart_and_compared(reported: str | None, *, differs: bool) -> None:
    """Rounding explains a millionth of a dollar, or a thousandth of the cost; anything beyond is counted."""
    told = None if reported is None else Decimal(reported)
    completion = Completion("yes", "stop", reported_cost_usd=told)
    total = tally([answered(completion, Decimal("0.01")), answered(completion, None)])
    assert total.cost_usd == Decimal("0.01")
    assert (total.reported, total.reported_cost_usd) == (0 if told is None else 2, 2 * (told or Decimal(0)))
    assert total.differing == differs
    assert total.differing_reported_usd == (told if differs else 0)
    assert total.differing_cost_usd == (Decimal("0.01") if differs else 0)


# Tallies


@given(given_outcomes=outcome_lists())
@settings(max_examples=100)
def test_the_tally_is_the_sum_of_the_table(given_outcomes: list[Outcome]) -> None:
    """What the summary says is what a reader of the table would add up."""
    total, rows = tally(given_outcomes), outcomes_table(given_outcomes).to_pylist()

    def count(status: str) -> int:
        return sum(row["status"] == status for row in rows)

    with localcontext(prec=100):
        assert total.cost_usd == sum((row["cost_usd"] or Decimal(0) for row in rows), Decimal(0))
    assert (total.succeeded, total.incomplete, total.failed) == tuple(map(count, ("succeeded", "incomplete", "failed")))
    assert total.calls == len(rows)
    assert total.unpriced == sum(row["cost_usd"] is None and row["status"] != "failed" for row in rows)
    for name in ("attempts", *Usage.__struct_fields__):
        assert getattr(total, name) == sum(row[name] or 0 for row in rows)
    assert total.failures == {kind: n for kind in KINDS if (n := sum(row["error_kind"] == kind for row in rows))}


@given(left=outcome_lists(), right=outcome_lists())
@settings(max_examples=50)
def test_tallies_add_up(left: list[Outcome], right: list[Outcome]) -> None:
    """The tally of two parts is the sum of their tallies, and of nothing it is empty."""
    assert add(tally(left), tally(right)) == tally([*left, *right])
    assert add(tally(left), Tally()) == tally(iter(left))
    assert add_all([tally(left), tally(right), tally(left)]) == add(tally([*left, *right]), tally(left))
    assert add_all([]) == Tally()


def test_a_total_does_not_lose_its_last_digits() -> None:
    """Sums beyond the usual 28 digits stay exact."""
    large, small = Decimal(10**17), Decimal("0.000000000000000001")
    rows = [answered(Completion("x", "stop"), amount) for amount in (large, small, None)]
    assert str(tally(rows).cost_usd) == "100000000000000000.000000000000000001"
    assert tally(rows).unpriced == 1
