"""Outcomes as columns: one fixed schema, so that any two parts of any two runs concatenate.

Hides how an outcome becomes a row of the result, a line of the journal, and a share of the total. Guards: a table's
output columns read back as outcomes that make the same columns again; the sum over a table is its tally's cost.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.money import exact as money
from cometbatch.records import (
    Answered,
    Completion,
    Failed,
    Failure,
    FailureKind,
    FinishReason,
    Incomplete,
    Outcome,
    Succeeded,
    Tally,
    UnansweredAttempt,
    Usage,
)

_Columns: TypeAlias = tuple[Sequence[object], ...]

_EXACT: Final = money.EXACT

# Model texts and error details can be megabytes each, and `string` columns end at 2 GiB: `large_string` does not.
_TEXT: Final = pa.string()
_LONG_TEXT: Final = pa.large_string()
_MONEY: Final = pa.decimal128(38, 18)
_MOMENT: Final = pa.timestamp("us", tz="UTC")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_MAX_INT64: Final = 2**63 - 1

ROUNDED_TO_USD: Final = Decimal("0.000001")  # services round what an answer costs to about this much,
ROUNDED_SHARE: Final = Decimal("0.001")  # or to some digits

RESENT: Final = "in flight when an earlier session died"
"""The reason of a `UnansweredAttempt` record of a row that is sent again because nobody knows what came of it."""

FULL_SCHEMA_KEYS: Final = frozenset(
    {
        b"ARROW:schema",
        b"huggingface",
        b"iceberg.schema",
        b"org.apache.spark.sql.parquet.row.metadata",
        b"parquet.avro.schema",
    }
)
"""Schema metadata that other programs believe to list every column: it would hide the output's columns from them."""


class Column(Struct, frozen=True):
    """One output column: its name, its Arrow type, that type in plain words, and what it means."""

    name: str
    type: pa.DataType
    words: str
    meaning: str


COLUMNS: Final = (
    Column("custom_id", _TEXT, "text", "your own name for the row, from the column that `input.id` names"),
    Column("status", _TEXT, "text", "`succeeded`, `incomplete` (billed, but cut short, blocked or empty) or `failed`"),
    Column("response", _LONG_TEXT, "text", "what the model answered; null where there is no text"),
    Column(
        "finish_reason",
        _TEXT,
        "text",
        "`stop`, `length`, `content_filter`, `refusal`, `tool_calls` or `other`; null for failed rows",
    ),
    Column("error_kind", _TEXT, "text", "why the row failed, in one word; null for all other rows"),
    Column("error_message", _LONG_TEXT, "text", "why the row failed or is incomplete; null for succeeded rows"),
    Column("http_status", pa.int32(), "integer", "status of the last reply; null where none came"),
    Column("request_id", _TEXT, "text", "the service's name for the last attempt, for its support and billing log"),
    Column("response_id", _TEXT, "text", "the provider's name for the answer"),
    Column("response_model", _TEXT, "text", "the model that answered, in the provider's words (can be a snapshot)"),
    Column("input_tokens", pa.int64(), "integer", "tokens of the prompt, cached ones included; null is unknown"),
    Column("output_tokens", pa.int64(), "integer", "tokens of the answer, reasoning included; null is unknown"),
    Column("cache_read_input_tokens", pa.int64(), "integer", "input tokens that came from a cache"),
    Column("cache_write_input_tokens", pa.int64(), "integer", "input tokens that were written to a cache"),
    Column("reasoning_output_tokens", pa.int64(), "integer", "output tokens spent on reasoning"),
    Column("cost_usd", _MONEY, "decimal(38, 18)", "cost in US dollars, exact; null is unknown, which is not free"),
    Column(
        "reported_cost_usd",
        _MONEY,
        "decimal(38, 18)",
        "what the service itself said that the answer cost, presumably in US dollars; null where it said nothing",
    ),
    Column(
        "attempts",
        pa.int32(),
        "integer",
        "requests sent for the row by the process that recorded it; 0 where nothing was sent",
    ),
    Column("latency_s", pa.float64(), "number", "seconds that the last attempt took"),
    Column("finished_at", _MOMENT, "timestamp (µs, UTC)", "when the outcome was known"),
    Column("request_hash", _TEXT, "text", "SHA-256 over format, model and request body, in hex"),
)
"""The output columns in order, with what they mean."""

_UNREPEATED: Final = frozenset({"custom_id", "request_id", "response_id", "latency_s", "finished_at", "request_hash"})
"""Columns of which no two values are the same: to look for repetitions makes files larger and takes longer."""

_SINCE: Final = {"reported_cost_usd": 2}  # manifest versions; all other columns were there from the first

OUTPUT_SCHEMA: Final = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])
"""What every part has after its input columns, before any prefix."""


def columns_of(version: int) -> tuple[Column, ...]:
    """The output columns of a run that began under this manifest version: it keeps them, so that its parts fit."""
    return tuple(column for column in COLUMNS if _SINCE.get(column.name, 1) <= version)


def repeated(schema: pa.Schema, prefix: str) -> list[str] | bool:
    """The columns of a joined table in which values may repeat, as pyarrow's `use_dictionary` has it: names, or all."""
    if any(pa.types.is_nested(column.type) for column in schema):  # whose parts have names of their own
        return True
    unrepeated = {prefix + name for name in _UNREPEATED}
    return [name for name in schema.names if name not in unrepeated]


def columns_markdown() -> str:
    """`COLUMNS` as a Markdown table, for the README."""
    lines = ["| column | type | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{column.name}` | {column.words} | {column.meaning} |" for column in COLUMNS]
    return "\n".join(lines) + "\n"


def outcome_of(completion: Completion) -> Literal["succeeded", "incomplete"]:
    """Succeeded is a model that stopped by itself with something to say; everything else is incomplete."""
    is_blank = not completion.text or completion.text.isspace()
    return "succeeded" if completion.finish_reason == "stop" and not is_blank else "incomplete"


def outcomes_in(records: Sequence[Outcome | UnansweredAttempt]) -> Sequence[Outcome]:
    """The rows' outcomes among these records, in their order: nearly always, that is all of them."""
    return cast("Sequence[Outcome]", _all_but(UnansweredAttempt, records))


def answered_in(outcomes: Sequence[Outcome]) -> Sequence[Answered]:
    """Those with an answer, in their order: mostly, that is all of them."""
    return cast("Sequence[Answered]", _all_but(Failed, outcomes))


def _all_but(kind: type[Struct], records: Sequence[Struct]) -> Sequence[Struct]:
    """By their types all together: to ask each whether it is a Struct that it is not takes as long as to encode it."""
    if kind not in set(map(type, records)):
        return records
    return [record for record in records if not isinstance(record, kind)]


# Tables


def clashes(input_columns: Iterable[str], prefix: str) -> list[str]:
    """The output columns that the input has already, under this prefix."""
    taken = set(input_columns)
    return [name for column in COLUMNS if (name := prefix + column.name) in taken]


def joined_schema(
    input_schema: pa.Schema, prefix: str, metadata: Mapping[str, str], columns: Sequence[Column] = COLUMNS
) -> pa.Schema:
    """The input's columns as they were, then the output's with their prefix.

    The input's own schema metadata stays (pandas' notes on types and index, for one) but for `FULL_SCHEMA_KEYS`;
    `metadata` comes on top.
    """
    kept = {key: value for key, value in (input_schema.metadata or {}).items() if key not in FULL_SCHEMA_KEYS}
    added = {key.encode(): value.encode() for key, value in metadata.items()}
    fields = [pa.field(prefix + column.name, column.type) for column in columns]
    return pa.schema([*input_schema, *fields], kept | added)


def join(
    input_table: pa.Table,
    outcomes: Sequence[Outcome],
    prefix: str,
    metadata: Mapping[str, str],
    columns: Sequence[Column] = COLUMNS,
) -> pa.Table:
    """A part: the input's rows, each beside its outcome. `outcomes` are one for each row, in order.

    Raises `ValueError` where they are not: an answer beside the wrong row would be worse than none.
    """
    first = outcomes[0].row if outcomes else 0
    if [outcome.row for outcome in outcomes] != list(range(first, first + input_table.num_rows)):
        raise ValueError(f"{len(outcomes)} outcomes do not fit {input_table.num_rows} rows one to one, in order")
    added = outcomes_table(outcomes).select([column.name for column in columns])
    schema = joined_schema(input_table.schema, prefix, metadata, columns)
    return pa.Table.from_arrays([*input_table.columns, *added.columns], schema=schema)


def outcomes_table(outcomes: Iterable[Outcome]) -> pa.Table:
    """The output columns of these outcomes, as `OUTPUT_SCHEMA`."""
    whole = list(outcomes)
    answered = answered_in(whole)
    if len(answered) == len(whole):
        return _table(_answered_columns(answered))
    failed = [outcome for outcome in whole if isinstance(outcome, Failed)]
    both = pa.concat_tables([_table(_answered_columns(answered)), _table(_failed_columns(failed))])
    answers, failures = itertools.count(), itertools.count(len(answered))  # their places among both
    return both.take([next(failures if isinstance(outcome, Failed) else answers) for outcome in whole])


def _table(columns: Sequence[Sequence[object]]) -> pa.Table:
    arrays = [pa.array(cells, column.type) for cells, column in zip(columns, COLUMNS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=OUTPUT_SCHEMA)


def read_outcomes(
    table: pa.Table, first_row: int, prefix: str = "", columns: Sequence[Column] = COLUMNS
) -> list[Outcome]:
    """The outcomes in a table's output columns, its first row being `first_row`; other columns are passed over.

    They make the same columns again. `columns` are the run's (`columns_of`): what an older one lacks is null, even
    where its input has a column of that name. What has no column of its own is gone: an error's code (now in its
    message) and the detail of a succeeded answer.
    """
    names = [column.name for column in columns]
    rows = zip(*(table.column(prefix + name).to_pylist() for name in names), strict=True)
    absent: dict[str, Any] = dict.fromkeys({column.name for column in COLUMNS} - set(names))
    return [_outcome(row, dict(zip(names, cells, strict=True)) | absent) for row, cells in enumerate(rows, first_row)]


def _answered_columns(outcomes: Sequence[Answered]) -> _Columns:
    """Column by column, which takes half as long as row by row."""
    completions = [outcome.completion for outcome in outcomes]
    usages = [completion.usage for completion in completions]
    whole = [isinstance(outcome, Succeeded) for outcome in outcomes]
    return (
        [outcome.custom_id for outcome in outcomes],
        ["succeeded" if is_whole else "incomplete" for is_whole in whole],
        [completion.text or None for completion in completions],
        [completion.finish_reason for completion in completions],
        [None] * len(outcomes),
        [None if all_of_it else _incomplete_message(it) for all_of_it, it in zip(whole, completions, strict=True)],
        [outcome.http_status for outcome in outcomes],
        [outcome.request_id for outcome in outcomes],
        [completion.response_id for completion in completions],
        [completion.response_model for completion in completions],
        _int64s([usage.input_tokens for usage in usages]),
        _int64s([usage.output_tokens for usage in usages]),
        _int64s([usage.cache_read_input_tokens for usage in usages]),
        _int64s([usage.cache_write_input_tokens for usage in usages]),
        _int64s([usage.reasoning_output_tokens for usage in usages]),
        [outcome.cost_usd for outcome in outcomes],
        [completion.reported_cost_usd for completion in completions],
        *_columns_of_all(outcomes),
    )


def _failed_columns(outcomes: Sequence[Failed]) -> _Columns:
    failures = [outcome.failure for outcome in outcomes]
    nothing = [None] * len(outcomes)
    return (
        [outcome.custom_id for outcome in outcomes],
        ["failed"] * len(outcomes),
        *(nothing, nothing),
        [failure.kind for failure in failures],
        list(map(_failure_message, failures)),
        [failure.status for failure in failures],
        [failure.request_id for failure in failures],
        *(nothing, nothing),
        *(nothing, nothing, nothing, nothing, nothing),
        *(nothing, nothing),
        *_columns_of_all(outcomes),
    )


def _columns_of_all(outcomes: Sequence[Outcome]) -> _Columns:
    return (
        [outcome.attempts for outcome in outcomes],
        [outcome.latency_s for outcome in outcomes],
        _microseconds([outcome.finished_at for outcome in outcomes]),
        [outcome.request_hash for outcome in outcomes],
    )


def _microseconds(moments: Sequence[datetime]) -> list[int]:
    """Since 1970, as the column has them. Rows that were dealt with together share a moment, which is counted once."""
    shared = {id(moment): moment for moment in moments}
    counts = {key: (moment - _EPOCH) // _MICROSECOND for key, moment in shared.items()}
    return [counts[id(moment)] for moment in moments]


def _outcome(row: int, cells: dict[str, Any]) -> Outcome:
    match cells["status"]:
        case "succeeded":
            return Succeeded(completion=_completion(cells, None), **_answered_fields(row, cells))
        case "incomplete":
            return Incomplete(completion=_completion(cells, _detail(cells)), **_answered_fields(row, cells))
        case _:
            return _failed(row, cells)


def _answered_fields(row: int, cells: dict[str, Any]) -> dict[str, Any]:
    names = ("custom_id", "attempts", "latency_s", "finished_at", "request_hash", "http_status", "request_id")
    return {"row": row, "cost_usd": cells["cost_usd"], **{name: cells[name] for name in names}}


def _completion(cells: dict[str, Any], detail: str | None) -> Completion:
    usage = Usage(*(cells[name] for name in Usage.__struct_fields__))
    return Completion(
        cells["response"] or "",
        cells["finish_reason"],
        usage,
        cells["response_id"],
        cells["response_model"],
        detail,
        cells["reported_cost_usd"],
    )


def _failed(row: int, cells: dict[str, Any]) -> Failed:
    kind: FailureKind = cells["error_kind"]
    finished_at: datetime = cells["finished_at"]
    return Failed(
        row,
        cells["custom_id"],
        cells["attempts"],
        cells["latency_s"],
        finished_at,
        cells["request_hash"],
        Failure(kind, cells["error_message"], status=cells["http_status"], request_id=cells["request_id"]),
    )


def _int64(count: int | None) -> int | None:
    """A count that fits its column; one that does not is garbage, and garbage is unknown."""
    return None if count is None or count > _MAX_INT64 else count


def _int64s(counts: list[int | None]) -> list[int | None]:
    return counts if max(filter(None, counts), default=0) <= _MAX_INT64 else list(map(_int64, counts))


_INCOMPLETE_WORDS: Final[dict[FinishReason, str]] = {
    "stop": "empty answer",
    "length": "cut at the token limit",
    "content_filter": "blocked by a content filter",
    "refusal": "refused by the model",
    "tool_calls": "tool calls instead of an answer",
    "other": "ended for an unknown reason",
}


def _incomplete_message(completion: Completion) -> str:
    """Why an answer is incomplete, in a few words, then the detail that the reply gave."""
    words = _INCOMPLETE_WORDS[completion.finish_reason]
    return words if completion.detail is None else f"{words}: {completion.detail}"


def _detail(cells: dict[str, Any]) -> str | None:
    """The detail that `_incomplete_message` put into the message."""
    words = _INCOMPLETE_WORDS[cells["finish_reason"]]
    return None if cells["error_message"] == words else cells["error_message"].removeprefix(f"{words}: ")


def _failure_message(failure: Failure) -> str:
    """The message, and the code too where the message does not have it."""
    is_told = not failure.code or failure.code in failure.message
    return failure.message if is_told else f"{failure.message} (code {failure.code})"


# Journal lines

_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")
_OUTCOME_DECODER: Final[msgspec.json.Decoder[Outcome]] = msgspec.json.Decoder(Outcome)
_RECORD_DECODER: Final[msgspec.json.Decoder[Outcome | UnansweredAttempt]] = msgspec.json.Decoder(
    Outcome | UnansweredAttempt
)


def encode_outcome(outcome: Outcome | UnansweredAttempt) -> bytes:
    """A journal record as one line of JSON, without the line's end; money as strings, so that it stays exact."""
    return _ENCODER.encode(outcome)


def decode_record(line: bytes) -> Outcome | UnansweredAttempt:
    """What `encode_outcome` wrote. Raises `msgspec.DecodeError` for anything else."""
    return _RECORD_DECODER.decode(line)


def decode_outcome(line: bytes) -> Outcome:
    """What `encode_outcome` wrote of an outcome. Raises `msgspec.DecodeError` for anything else."""
    return _OUTCOME_DECODER.decode(line)


# Tallies


def tally(records: Iterable[Outcome | UnansweredAttempt]) -> Tally:
    """Counts and sums over records. Unknown token counts add nothing; unknown costs are counted as unpriced."""
    kinds: dict[type, list[Any]] = {Succeeded: [], Incomplete: [], Failed: [], UnansweredAttempt: []}
    for record in records:
        kinds[type(record)].append(record)
    succeeded, failed, thrown = kinds[Succeeded], kinds[Failed], kinds[UnansweredAttempt]
    answered: list[Answered] = succeeded + kinds[Incomplete]
    usages = [outcome.completion.usage for outcome in answered]
    costs = [outcome.cost_usd for outcome in answered if outcome.cost_usd is not None]
    told = [outcome for outcome in answered if outcome.completion.reported_cost_usd is not None]
    differing = [outcome for outcome in told if _differs(outcome)]
    bounds = [attempt.max_cost_usd for attempt in thrown if attempt.max_cost_usd is not None]
    input_counts = _int64s([usage.input_tokens for usage in usages])
    output_counts = _int64s([usage.output_tokens for usage in usages])
    return Tally(
        succeeded=len(succeeded),
        incomplete=len(answered) - len(succeeded),
        failed=len(failed),
        attempts=sum([outcome.attempts for outcome in answered]) + sum([outcome.attempts for outcome in failed]),
        input_tokens=_total(input_counts),
        output_tokens=_total(output_counts),
        cache_read_input_tokens=_total(_int64s([usage.cache_read_input_tokens for usage in usages])),
        cache_write_input_tokens=_total(_int64s([usage.cache_write_input_tokens for usage in usages])),
        reasoning_output_tokens=_total(_int64s([usage.reasoning_output_tokens for usage in usages])),
        cost_usd=_money(costs),
        unpriced=len(answered) - len(costs),
        failures=dict(Counter(outcome.failure.kind for outcome in failed)),
        thrown=len(thrown),
        thrown_cost_usd=_money(bounds),
        thrown_unpriced=len(thrown) - len(bounds),
        resent=sum(attempt.reason == RESENT for attempt in thrown),
        uncounted=sum([a is None or b is None for a, b in zip(input_counts, output_counts, strict=True)]),
        reported=len(told),
        reported_cost_usd=_money(outcome.completion.reported_cost_usd for outcome in told),
        differing=len(differing),
        differing_reported_usd=_money(outcome.completion.reported_cost_usd for outcome in differing),
        differing_cost_usd=_money(outcome.cost_usd for outcome in differing),
    )


def add(left: Tally, right: Tally) -> Tally:
    """The tally of both tallies' rows together."""
    return Tally(
        succeeded=left.succeeded + right.succeeded,
        incomplete=left.incomplete + right.incomplete,
        failed=left.failed + right.failed,
        attempts=left.attempts + right.attempts,
        input_tokens=left.input_tokens + right.input_tokens,
        output_tokens=left.output_tokens + right.output_tokens,
        cache_read_input_tokens=left.cache_read_input_tokens + right.cache_read_input_tokens,
        cache_write_input_tokens=left.cache_write_input_tokens + right.cache_write_input_tokens,
        reasoning_output_tokens=left.reasoning_output_tokens + right.reasoning_output_tokens,
        cost_usd=_EXACT.add(left.cost_usd, right.cost_usd),
        unpriced=left.unpriced + right.unpriced,
        failures=dict(Counter(left.failures) + Counter(right.failures)),
        thrown=left.thrown + right.thrown,
        thrown_cost_usd=_EXACT.add(left.thrown_cost_usd, right.thrown_cost_usd),
        thrown_unpriced=left.thrown_unpriced + right.thrown_unpriced,
        resent=left.resent + right.resent,
        uncounted=left.uncounted + right.uncounted,
        reported=left.reported + right.reported,
        reported_cost_usd=_EXACT.add(left.reported_cost_usd, right.reported_cost_usd),
        differing=left.differing + right.differing,
        differing_reported_usd=_EXACT.add(left.differing_reported_usd, right.differing_reported_usd),
        differing_cost_usd=_EXACT.add(left.differing_cost_usd, right.differing_cost_usd),
    )


def _differs(outcome: Answered) -> bool:
    """Whether the service's own word for the cost is another than ours, beyond what rounding explains."""
    reported, cost = outcome.completion.reported_cost_usd, outcome.cost_usd
    if reported is None or cost is None:
        return False
    return _EXACT.subtract(reported, cost).copy_abs() > max(ROUNDED_TO_USD, _EXACT.multiply(ROUNDED_SHARE, cost))


def _money(amounts: Iterable[Decimal | None]) -> Decimal:
    return reduce(_EXACT.add, (amount for amount in amounts if amount is not None), Decimal(0))


def _total(counts: list[int | None]) -> int:
    return sum(filter(None, counts))
