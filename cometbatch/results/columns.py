"""Outcomes as columns: each column knows its name, type, meaning and where its value is found.

Guards: a table's output columns read back as outcomes that make the same columns again. To add a column, add it to
`COLUMNS`: schema, parts, result, reading back and documentation follow.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.input.values import python_values, row_values
from cometbatch.prompt.printing import text_of
from cometbatch.records import Answered, AnsweredStatus, Completion, Failed, Failure, FinishReason, Outcome, Record

Getter: TypeAlias = Callable[[Any], object]
OUTCOMES: Final = (Answered, Failed)  # types; a union of them is made anew wherever it is written in a loop

# Texts of models and errors can be megabytes each, and a `string` column ends at 2 GiB; a `large_string` does not.
_TEXT: Final = pa.string()
_LONG_TEXT: Final = pa.large_string()
_COUNT: Final = pa.int64()
_MONEY: Final = pa.decimal128(38, 18)
_MOMENT: Final = pa.timestamp("us", tz="UTC")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_INT64: Final = 2**63 - 1

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

_OF_A_RUN: Final = b"cometbatch."
"""How the schema metadata begin that a run writes of itself."""

_INCOMPLETE_WORDS: Final[dict[FinishReason, str]] = {
    "stop": "empty answer",
    "length": "cut at the token limit",
    "content_filter": "blocked by a content filter",
    "refusal": "refused by the model",
    "tool_calls": "tool calls instead of an answer",
    "other": "ended for an unknown reason",
    "invalid": "does not fit the schema",
}


TOOL_CALLS: Final = "tool_calls"
"""The column of calls, and the finish reason of an answer that has some."""


def _calls(outcome: Answered) -> str | None:
    """The calls of an answer that ended with them."""
    return outcome.completion.detail if outcome.completion.finish_reason == TOOL_CALLS else None


def _incomplete_message(outcome: Answered) -> str | None:
    """Why an answer is incomplete, in a few words, then the detail that the reply gave; None for a whole answer."""
    if outcome.status == "succeeded":
        return None
    words, detail = _INCOMPLETE_WORDS[outcome.completion.finish_reason], outcome.completion.detail
    return words if detail is None else f"{words}: {detail}"


def _detail(cells: Mapping[str, Any]) -> str | None:
    """The detail that `_incomplete_message` put into the message, or `_calls` into a column of its own."""
    if cells.get(TOOL_CALLS) is not None:
        return str(cells[TOOL_CALLS])
    message, words = cells["error_message"], _INCOMPLETE_WORDS[cells["finish_reason"]]
    return None if message is None or message == words else message.removeprefix(f"{words}: ")


def _failure_message(outcome: Failed) -> str:
    """The message of a failure, and its code where the message lacks it."""
    failure: Failure = outcome.failure
    is_told = not failure.code or failure.code in failure.message
    return failure.message if is_told else f"{failure.message} (code {failure.code})"


class Column(Struct, frozen=True):
    """One output column: name, Arrow type, that type in plain words, meaning, and where its value is.

    `answered`, `failed`: the dotted path of the value in an outcome of that type, by which it is also put back when a
    table is read; "" where such an outcome has none, so that the cell is null. `get_answered`, `get_failed`: how the
    cell is made where it is not the value itself. `is_unique`: no two values are the same, so that to look for
    repetitions makes files larger and takes longer.
    """

    name: str
    type: pa.DataType
    words: str
    meaning: str
    answered: str = ""
    failed: str = ""
    get_answered: Getter | None = None
    get_failed: Getter | None = None
    is_unique: bool = False

    def cells(self, outcomes: Sequence[Outcome], kind: Literal["answered", "failed"]) -> pa.Array:
        """The cells of outcomes that are all of one type, as an Arrow array of this column's type."""
        path, get = (self.answered, self.get_answered) if kind == "answered" else (self.failed, self.get_failed)
        if get is None and not path:
            return pa.nulls(len(outcomes), self.type)
        values: list[Any] = list(map(get or attrgetter(path), outcomes))
        if self.type == _MOMENT:
            values = _microseconds(values)
        elif self.type == _COUNT:
            values = int64s(values)
        return pa.array(values, self.type)


def _usage(name: str, meaning: str) -> Column:
    return Column(name, _COUNT, "integer", meaning, answered=f"completion.usage.{name}", failed=f"usage.{name}")


CUSTOM_ID: Final = "custom_id"
"""The column of names. A run has none where the input's own column of names is called so already."""

COLUMNS: Final = (
    Column(
        CUSTOM_ID,
        _TEXT,
        "text",
        "your own name for the row, from the column that `input.id` names; where that is called `custom_id`, it "
        "is simply that column, in its own place and type",
        answered="custom_id",
        failed="custom_id",
        is_unique=True,
    ),
    Column(
        "status",
        _TEXT,
        "text",
        "`succeeded`, `incomplete` (billed, but cut short, blocked, empty or not as asked for) or `failed`",
        answered="status",
        get_failed=lambda _: "failed",
    ),
    Column(
        "response",
        _LONG_TEXT,
        "text",
        "what the model answered; null where there is no text",
        answered="completion.text",
        get_answered=lambda outcome: outcome.completion.text or None,
    ),
    Column(
        "finish_reason",
        _TEXT,
        "text",
        "`stop`, `length`, `content_filter`, `refusal`, `tool_calls`, `other`, or `invalid` (the answer does not fit "
        "`response`); null for failed rows",
        answered="completion.finish_reason",
    ),
    Column(
        "error_kind",
        _TEXT,
        "text",
        "why the row failed, in one word; null for all other rows",
        failed="failure.kind",
    ),
    Column(
        "error_message",
        _LONG_TEXT,
        "text",
        "why the row failed or is incomplete; null for succeeded rows",
        failed="failure.message",
        get_answered=_incomplete_message,
        get_failed=_failure_message,
    ),
    Column(
        "http_status",
        pa.int32(),
        "integer",
        "status of the last reply; null where none came",
        answered="http_status",
        failed="failure.status",
    ),
    Column(
        "request_id",
        _TEXT,
        "text",
        "the service's name for the last attempt, for its support and billing log",
        answered="request_id",
        failed="failure.request_id",
        is_unique=True,
    ),
    Column(
        "response_id",
        _TEXT,
        "text",
        "the provider's name for the answer",
        answered="completion.response_id",
        is_unique=True,
    ),
    Column(
        "response_model",
        _TEXT,
        "text",
        "the model that answered, in the provider's words (can be a snapshot)",
        answered="completion.response_model",
    ),
    _usage("input_tokens", "tokens of the prompt, cached ones included; null is unknown"),
    _usage("output_tokens", "tokens of the answer, reasoning included; null is unknown"),
    _usage("cache_read_input_tokens", "input tokens that came from a cache"),
    _usage("cache_write_input_tokens", "input tokens that were written to a cache"),
    _usage("cache_write_1h_input_tokens", "those of them that are kept in the cache for an hour"),
    _usage("reasoning_output_tokens", "output tokens spent on reasoning"),
    Column(
        "cost_usd",
        _MONEY,
        "decimal(38, 18)",
        "cost in US dollars, exact; null is unknown, which is not free",
        answered="cost_usd",
        failed="cost_usd",
    ),
    Column(
        "cost_excludes",
        _TEXT,
        "text",
        "what was used that no price covers, so that `cost_usd` is a part of the cost: `web_search`, "
        "`service_tier=priority`; or `usage=` and the reply's token counts, where they contradict each other",
        answered="completion.cost_excludes",
    ),
    Column(
        "reported_cost_usd",
        _MONEY,
        "decimal(38, 18)",
        "what the service itself said that the answer cost, presumably in US dollars; null where it said nothing",
        answered="completion.reported_cost_usd",
    ),
    Column(
        "attempts",
        pa.int32(),
        "integer",
        "requests sent for the row by the process that recorded it; 0 where nothing was sent",
        answered="attempts",
        failed="attempts",
    ),
    Column(
        "latency_s",
        pa.float64(),
        "number",
        "seconds that the last attempt took, to the millisecond",
        answered="latency_s",
        failed="latency_s",
        is_unique=True,
    ),
    Column(
        "finished_at",
        _MOMENT,
        "timestamp (µs, UTC)",
        "when the outcome was known",
        answered="finished_at",
        failed="finished_at",
        is_unique=True,
    ),
    Column(
        "request_hash",
        _TEXT,
        "text",
        "SHA-256 over format, model and request body (without `stream`, which is always false), in hex",
        answered="request_hash",
        failed="request_hash",
        is_unique=True,
    ),
)
"""The output columns in order, with what they mean."""

REUSED_COLUMNS: Final = ("reused_from", "reused_ordinal", "reused_cost_usd")
"""The columns of a run that may take answers from earlier calls. The first is null where a row's answer is its own."""
REUSED_FROM: Final = REUSED_COLUMNS[0]

ASKS: Final = "asks"
"""The column that counts asks: without it, each row was asked for once."""

ASKED_COLUMNS: Final = (
    Column(
        TOOL_CALLS,
        _LONG_TEXT,
        "text (JSON)",
        "where `params.extra` asks for tools, and of vendors' batch files: the answer's calls, as the format has them; "
        "such a row has succeeded",
        get_answered=_calls,
    ),
    Column(
        "reasoning",
        _LONG_TEXT,
        "text",
        "with `output.reasoning: true`: what the model thought, where the reply carries it",
        answered="completion.reasoning",
    ),
    Column(
        "raw",
        _LONG_TEXT,
        "text (JSON)",
        "with `output.raw: true`: the whole reply; of a stream, what its chunks make together",
        answered="completion.raw",
        is_unique=True,
    ),
    Column(
        ASKS,
        pa.int32(),
        "integer",
        "with `response`: how often the row was asked for; above 1, answers before the last one did not fit",
        answered="asks",
        failed="asks",
    ),
    Column(
        "rejected_cost_usd",
        _MONEY,
        "decimal(38, 18)",
        "with `response`: the part of `cost_usd` that asks before the last one cost; of a failed row, all of it",
        answered="rejected_cost_usd",
        get_failed=attrgetter("rejected_cost_usd"),
    ),
    Column(
        "target",
        _COUNT,
        "integer",
        "where rows were asked in several ways (other settings at a `--retry`, `target.model_column`): the number of "
        "that way, as the summary and the metadata list them; 0 is the first",
        answered="target",
        failed="target",
    ),
    Column(
        REUSED_FROM,
        _TEXT,
        "text",
        "with `reuse`, `dedupe` or `--update`: the id of the run that paid for the answer, where it was taken from an "
        "earlier call; null for a row that was sent, or failed",
        answered="reused_from",
    ),
    Column(
        "reused_ordinal",
        _COUNT,
        "integer",
        "the place of that call in the result of the run that paid, from 0",
        answered="reused_ordinal",
    ),
    Column(
        "reused_cost_usd",
        _MONEY,
        "decimal(38, 18)",
        "what the answer cost then, in US dollars; null is unknown. Such a row has 0 in `cost_usd` and `attempts`; its "
        "tokens, ids and times are those of then",
        answered="reused_cost_usd",
    ),
)
"""Output columns that a run has only where its job asks for them, after all others."""

LATE_TARGET: Final = Column(
    "asked_target", _COUNT, "integer", "the same where the input has such a column", answered="target", failed="target"
)
"""The column of a call's target where its usual name is taken: a `--retry` can't ask for another prefix."""
_BY_NAME: Final = {column.name: column for column in (*COLUMNS, *ASKED_COLUMNS, LATE_TARGET)}


def schema_of(columns: Sequence[Column] = COLUMNS) -> pa.Schema:
    """What every part has after its input columns, before any prefix."""
    return pa.schema([pa.field(column.name, column.type) for column in columns])


def is_known(name: str) -> bool:
    """Whether there is an output column of this name, without a prefix."""
    return name in _BY_NAME


def columns_of(names: Sequence[str]) -> tuple[Column, ...]:
    """The output columns of a run that has these: it keeps them, so that its parts fit. Raises `KeyError`."""
    return tuple(_BY_NAME[name] for name in names)


def columns_for(asked: Collection[str], there: Collection[str] = ()) -> tuple[Column, ...]:
    """The output columns of a run that begins now, with those that its job asks for by name.

    `there`: those that the input has as they are.
    """
    all_columns = (*COLUMNS, *(column for column in ASKED_COLUMNS if column.name in asked))
    return tuple(column for column in all_columns if column.name not in there)


def repeated(schema: pa.Schema, prefix: str) -> list[str] | bool:
    """The columns of a joined table in which values may repeat, as pyarrow's `use_dictionary` has it: names, or all."""
    if any(pa.types.is_nested(column.type) for column in schema):  # whose parts have names of their own
        return True
    unique = {prefix + column.name for column in _BY_NAME.values() if column.is_unique}
    return [name for name in schema.names if name not in unique]


def status_of(completion: Completion, *, keeps_calls: bool = False) -> AnsweredStatus:
    """Succeeded is a model that stopped by itself with something to say; everything else is incomplete.

    `keeps_calls`: the run has a column for calls, because its job asks for tools. Then calls are an answer.
    """
    if completion.finish_reason == "stop":
        return "incomplete" if not completion.text or completion.text.isspace() else "succeeded"
    is_called = keeps_calls and completion.finish_reason == TOOL_CALLS and completion.detail is not None
    return "succeeded" if is_called else "incomplete"


def is_at_cap(completion: Completion, cap: int | None) -> bool:
    """Whether an answer says that it ended by itself and took exactly the tokens that it may have.

    Some servers never say "length": the answer is probably cut (contract sheet, section 13).
    """
    return cap is not None and completion.usage.output_tokens == cap and completion.finish_reason == "stop"


def outcomes_in(records: Iterable[Record]) -> list[Outcome]:
    """The outcomes among these records, in their order."""
    return [record for record in records if isinstance(record, OUTCOMES)]


def answered_in(records: Iterable[Record]) -> list[Answered]:
    """The outcomes with an answer among these records, in their order."""
    return [record for record in records if isinstance(record, Answered)]


# Tables


USED_BY_FURTHER: Final = ("status", "response")
"""The output columns that further ones are made of."""


class Further(Protocol):
    """Columns of a run's own beside the output's: what its answers hold."""

    @property
    def fields(self) -> Sequence[pa.Field]:
        """Names and types, in order."""

    def cells(self, outcomes: pa.Table) -> Sequence[pa.Array]:
        """The columns of these outcomes, of which `USED_BY_FURTHER` are given, without prefix."""


def joined_schema(
    input_schema: pa.Schema,
    prefix: str,
    metadata: Mapping[str, str],
    columns: Sequence[Column] = COLUMNS,
    further: Further | None = None,
) -> pa.Schema:
    """The input's columns as they were, then the output's with their prefix, then what a run has of its own.

    The input's own schema metadata stays (pandas' notes on types and index, for one) but for `FULL_SCHEMA_KEYS`, and
    for what an earlier run wrote of itself; `metadata` comes on top.
    """
    kept = {
        key: value
        for key, value in (input_schema.metadata or {}).items()
        if key not in FULL_SCHEMA_KEYS and not key.startswith(_OF_A_RUN)
    }
    added = {key.encode(): value.encode() for key, value in metadata.items()}
    fields = [pa.field(prefix + column.name, column.type) for column in columns]
    return pa.schema([*input_schema, *fields, *(further.fields if further is not None else ())], kept | added)


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
    first = outcomes[0].ordinal if outcomes else 0
    if [outcome.ordinal for outcome in outcomes] != list(range(first, first + input_table.num_rows)):
        raise ValueError(f"{len(outcomes)} outcomes do not fit {input_table.num_rows} rows one to one, in order")
    return beside(input_table, outcomes, prefix, metadata, columns)


def beside(
    input_table: pa.Table,
    outcomes: Sequence[Outcome],
    prefix: str,
    metadata: Mapping[str, str],
    columns: Sequence[Column] = COLUMNS,
) -> pa.Table:
    """Rows of the input, not all of a part perhaps, each beside its outcome: the caller has brought them together."""
    added = outcomes_table(outcomes, columns)
    schema = joined_schema(input_table.schema, prefix, metadata, columns)
    return pa.Table.from_arrays([*input_table.columns, *added.columns], schema=schema)


def extended(part: pa.Table, prefix: str, further: Further) -> pa.Table:
    """A joined table with the columns that a run has of its own after all others."""
    outcomes = part.select([prefix + name for name in USED_BY_FURTHER]).rename_columns(list(USED_BY_FURTHER))
    schema = pa.schema([*part.schema, *further.fields], part.schema.metadata)
    return pa.Table.from_arrays([*part.columns, *further.cells(outcomes)], schema=schema)


def outcomes_table(outcomes: Iterable[Outcome], columns: Sequence[Column] = COLUMNS) -> pa.Table:
    """The output columns of these outcomes, in their order, without prefix."""
    whole = list(outcomes)
    answered = answered_in(whole)
    if len(answered) == len(whole):
        return _table(answered, "answered", columns)
    failed = [outcome for outcome in whole if isinstance(outcome, Failed)]
    both = pa.concat_tables([_table(answered, "answered", columns), _table(failed, "failed", columns)])
    answers, failures = itertools.count(), itertools.count(len(answered))  # their places among both
    return both.take([next(failures if isinstance(outcome, Failed) else answers) for outcome in whole])


def _table(outcomes: Sequence[Outcome], kind: Literal["answered", "failed"], columns: Sequence[Column]) -> pa.Table:
    """Column by column, which takes half as long as row by row."""
    return pa.Table.from_arrays([column.cells(outcomes, kind) for column in columns], schema=schema_of(columns))


def read_outcomes(
    table: pa.Table,
    first_ordinal: int,
    prefix: str = "",
    columns: Sequence[Column] = COLUMNS,
    *,
    caps: Sequence[int | None] = (),
    target: int = 0,
) -> list[Outcome]:
    """The outcomes in a table's output columns, its first row being `first_ordinal`; other columns are passed over.

    They make the same columns again. `columns` are the run's own (`columns_of`), `caps` those on an answer, by target.
    `target`: that was asked, where no column tells it.
    A value without a column is gone: the code of an error (it is in the message), the detail of a succeeded answer.
    Names that the input has in a column of this name are as texts in the outcomes.
    """
    names = [column.name for column in columns]
    cells_of = [python_values(table.column(prefix + name)) for name in names]
    if CUSTOM_ID not in names:
        names.append(CUSTOM_ID)
        cells_of.append(_own_names(table, prefix + CUSTOM_ID))
    rows = zip(*cells_of, strict=True)
    return [
        _outcome(ordinal, dict(zip(names, cells, strict=True)), columns, caps, target)
        for ordinal, cells in enumerate(rows, first_ordinal)
    ]


def _outcome(
    ordinal: int, cells: dict[str, Any], columns: Sequence[Column], caps: Sequence[int | None], target: int
) -> Outcome:
    kind: type[Outcome] = Failed if cells["status"] == "failed" else Answered
    word = "failed" if kind is Failed else "answered"
    fields: dict[str, Any] = {"record": word, "ordinal": ordinal, "target": target}
    fields[CUSTOM_ID] = cells[CUSTOM_ID]
    for column in columns:
        path = column.failed if kind is Failed else column.answered
        if path:
            _put(fields, path.split("."), cells[column.name])
    if kind is Answered:
        completion = fields["completion"]
        completion["text"] = completion["text"] or ""
        completion["detail"] = _detail(cells)
    outcome = msgspec.convert(fields, kind)
    cap = caps[outcome.target] if outcome.target < len(caps) else None
    is_marked = isinstance(outcome, Answered) and is_at_cap(outcome.completion, cap)
    return msgspec.structs.replace(outcome, at_cap=True) if is_marked else outcome


def _own_names(table: pa.Table, name: str) -> list[object]:
    """The cells of the input's own column of names, as texts; binary data that is no text names nothing."""
    values = (row[name] for row in row_values(table, [name]))
    return [None if value is None or isinstance(value, bytes) else text_of(value) for value in values]


def _put(fields: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set the value that is found by this path of names, as far as the outer ones are there already or not."""
    *outer, last = path
    for name in outer:
        fields = fields.setdefault(name, {})
    fields[last] = value


def _microseconds(moments: Sequence[datetime]) -> list[int]:
    """Since 1970, as the column has them."""
    return [(moment - _EPOCH) // _MICROSECOND for moment in moments]


def int64s(counts: list[int | None]) -> list[int | None]:
    """Counts that fit a column; one that does not is garbage, and garbage is unknown."""
    return counts if max(filter(None, counts), default=0) <= _MAX_INT64 else list(map(_int64, counts))


def _int64(count: int | None) -> int | None:
    return None if count is None or count > _MAX_INT64 else count
