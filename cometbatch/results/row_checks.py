"""Whether a finished row fits together, and fits its prompt and its prices. Pure: columns in, words out.

Guards: each value is computed again from other columns, never taken from the column that is checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, DecimalException
from typing import Any, Final, TypeAlias, get_args

import pyarrow as pa

from cometbatch.input.values import row_values
from cometbatch.money.exact import format_amount
from cometbatch.money.prices import cost, estimate_cost
from cometbatch.records import CONTRADICTION, CallRequest, Completion, Failed, FailureKind, FinishReason, Rates, Usage
from cometbatch.results import columns

Cells: TypeAlias = Mapping[str, Any]
"""One row's output columns, by their names without prefix."""

_COUNTS: Final = Usage.__struct_fields__
_SENT: Final = ("http_status", "latency_s", "request_hash")
_OF_ASKS: Final = (*_COUNTS, "cost_usd", columns.ASKS, "rejected_cost_usd")
"""What a failed row has of the asks before the one that failed."""
_FILLED: Final = {
    "succeeded": ("finish_reason", "attempts", "finished_at", *_SENT),
    "incomplete": ("finish_reason", "error_message", "attempts", "finished_at", *_SENT),
    "failed": ("error_kind", "error_message", "attempts", "finished_at"),
}
_EMPTY: Final = {
    "succeeded": ("error_kind", "error_message"),
    "incomplete": ("error_kind",),
    "failed": (
        "response",
        "finish_reason",
        "response_id",
        "response_model",
        "cost_usd",
        "reported_cost_usd",
        "cost_excludes",
        *_COUNTS,
        *(column.name for column in columns.ASKED_COLUMNS if not (column.failed or column.get_failed)),
    ),
}
_BITS: Final = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}
_PARTS_OF: Final = {
    "cache_read_input_tokens": "input_tokens",
    "cache_write_input_tokens": "input_tokens",
    "cache_write_1h_input_tokens": "cache_write_input_tokens",
    "reasoning_output_tokens": "output_tokens",
}


def contradiction(cells: Cells) -> str | None:
    """How a row's columns contradict each other; `None` where they fit."""
    status = cells["status"]
    if status not in _FILLED:
        return f"status is {status!r}"
    for name in _FILLED[status]:
        if cells[name] is None:
            return f"the row {status}, but {name} is empty"
    if status == "succeeded" and cells["response"] is None and cells.get(columns.TOOL_CALLS) is None:
        return "the row succeeded, but response is empty"
    for name in _EMPTY[status]:
        if name in _OF_ASKS and status == "failed" and _asks(cells) > 1:
            continue
        if cells.get(name) is not None:  # an older run lacks newer columns
            return f"the row {status}, but {name} is {cells[name]!r:.80}"
    return next((words for check in _CHECKS if (words := check(cells))), None)


def _wrong_word(cells: Cells) -> str | None:
    if cells["status"] == "failed":
        return None if cells["error_kind"] in get_args(FailureKind) else f"error_kind is {cells['error_kind']!r:.80}"
    if cells["finish_reason"] not in get_args(FinishReason):
        return f"finish_reason is {cells['finish_reason']!r:.80}"
    said = Completion(cells["response"] or "", cells["finish_reason"], detail=cells.get(columns.TOOL_CALLS))
    due = columns.status_of(said, keeps_calls=columns.TOOL_CALLS in cells)
    return None if due == cells["status"] else f"status is {cells['status']}, but such an answer is {due}"


def _wrong_attempts(cells: Cells) -> str | None:
    attempts = cells["attempts"]
    unsent = {cells["latency_s"] is None, cells["request_hash"] is None}
    if cells.get(columns.ASKS) is not None and cells[columns.ASKS] < 1:
        return f"asks is {cells[columns.ASKS]}"
    is_reused = cells.get(columns.REUSED_FROM) is not None
    if attempts < 0 or unsent != {attempts == 0 and not is_reused}:
        return f"attempts is {attempts}, which does not fit latency_s and request_hash"
    return None


def _wrong_origin(cells: Cells) -> str | None:
    """How what a row says of the earlier call that paid for its answer contradicts itself."""
    origin, place, then = (cells.get(name) for name in columns.REUSED_COLUMNS)
    if origin is None:
        return None if place is None and then is None else "reused_from is empty, but the columns beside it are not"
    if place is None or place < 0:
        return f"reused_from is {origin!r:.80}, but reused_ordinal is {place}"
    if cells["attempts"] != 0 or _asks(cells) != 1:
        return f"the answer was taken from an earlier call, but attempts is {cells['attempts']} and asks {_asks(cells)}"
    return f"reused_cost_usd is {_amount(then)}" if then is not None and then < 0 else None


def _wrong_counts(cells: Cells) -> str | None:
    for name in (*_COUNTS, "reported_cost_usd"):
        if (found := cells.get(name)) is not None and found < 0:
            return f"{name} is {found}"
    for name, whole in _PARTS_OF.items():
        part = cells.get(name)  # an older run lacks newer columns
        if part is not None and cells[whole] is not None and part > cells[whole]:
            return f"{name} is {part}, more than {whole}"
    if (cells.get("cost_excludes") or "").startswith(CONTRADICTION) and cells["input_tokens"] is not None:
        return f"cost_excludes says that the counts contradict each other, but input_tokens is {cells['input_tokens']}"
    return None


_CHECKS: Final = (_wrong_word, _wrong_attempts, _wrong_counts, _wrong_origin)


def wrong_cost(cells: Cells, rates: Rates | None) -> str | None:
    """How a row's cost differs from its usage times these prices; `None` where it does not.

    Where prices depend on the input of one answer, the counts of several give the bounds of their cost alone. An answer
    that was taken from an earlier call cost nothing, whatever its usage was then.
    """
    if cells.get(columns.REUSED_FROM) is not None:
        is_free = cells["cost_usd"] == 0
        return (
            _wrong_part(cells) if is_free else f"cost_usd is {_amount(cells['cost_usd'])} of an answer that was taken"
        )
    answers = _asks(cells) - (cells["status"] == "failed")
    usage = Usage(*(cells.get(name) for name in _COUNTS))
    try:
        dues = [cost(usage, rates)] if answers else [None]
        if answers > 1 and rates is not None and rates.per_request is not None:
            dues = [estimate_cost(0, 0, answers, rates)]
        elif answers > 1 and rates is not None and rates.above is not None:
            dues = [cost(usage, each) for each in _lowest_and_highest(rates, rates.above.rates)]
    except DecimalException:
        return "the frozen prices have more decimals than a price can have"
    found = cells["cost_usd"]
    known = [due for due in dues if due is not None]
    if (found is None and not known) or (found is not None and known and min(known) <= found <= max(known)):
        return _wrong_part(cells)
    return f"cost_usd is {_amount(found)}, but usage and the frozen prices give {' to '.join(map(_amount, dues))}"


def _lowest_and_highest(*tiers: Rates) -> Iterator[Rates]:
    """Rates that no answer in any of these tiers is below, and such that none is above."""
    names = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
    for pick in (min, max):
        rates = {name: [getattr(tier, name) or tier.input for tier in tiers] for name in names}
        yield Rates(**{name: pick(filter(None, some), default=None) for name, some in rates.items()})


def _wrong_part(cells: Cells) -> str | None:
    """How the part of a row's cost that its rejected asks have is none."""
    part, whole = cells.get("rejected_cost_usd"), cells["cost_usd"]
    if part is None:
        return None
    if _asks(cells) == 1:
        return f"asks is 1, but rejected_cost_usd is {_amount(part)}" if part else None
    is_all = cells["status"] == "failed"
    if whole is not None and (part < 0 or part > whole or (is_all and part != whole)):
        return f"rejected_cost_usd is {_amount(part)}, which is no part of cost_usd, {_amount(whole)}"
    return None


def _asks(cells: Cells) -> int:
    """How often a row was asked for."""
    return int(cells.get(columns.ASKS) or 1)


def wrong_id(cells: Cells, made: CallRequest | Failed) -> str | None:
    """How a row's custom_id differs from the id column's value; `None` where it does not."""
    if cells["custom_id"] == made.custom_id:
        return None
    return f"custom_id is {cells['custom_id']!r:.80}, the id column says {made.custom_id!r:.80}"


def wrong_request(cells: Cells, made: CallRequest | Failed) -> str | None:
    """Why a row's answer can't belong to the prompt made of the row; `None` where it can."""
    if isinstance(made, Failed):
        is_told = cells["error_kind"] == "template" and cells["request_hash"] is None
        return None if is_told else "no prompt can be made of this row, so nothing can have been answered"
    if cells["request_hash"] is None:  # nothing was sent
        return (
            "a prompt can be made of this row, but error_kind says not" if cells["error_kind"] == "template" else None
        )
    if cells["request_hash"] != made.request_hash:
        return "request_hash is not the row's: what stands here was answered to another prompt"
    return None


def differences(left: pa.Table, right: pa.Table, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Rows (by offset) and columns in which two tables of the same length differ. NaN equals NaN."""
    for name in names:
        if _bits(left.column(name)).equals(_bits(right.column(name))):
            continue
        pairs = zip(row_values(left, [name]), row_values(right, [name]), strict=True)
        yield from ((offset, name) for offset, (one, other) in enumerate(pairs) if repr(one) != repr(other))


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floating-point numbers as integers of the same bits: for Arrow no NaN equals another, and -0.0 equals 0.0."""
    kind = _BITS.get(column.type)
    return column if kind is None else pa.chunked_array([chunk.view(kind) for chunk in column.chunks], kind)


def _amount(amount: Decimal | None) -> str:
    return "null" if amount is None else format_amount(amount)
