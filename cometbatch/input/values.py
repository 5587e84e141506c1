"""Arrow values as Python values for templates: the same on every machine, whatever else is installed.

Hides that pyarrow's own conversion depends on its surroundings: nanoseconds become pandas objects where pandas is
installed and fail where it is not, and a time zone comes from pytz, from the system or from nowhere.

- A moment, date, time of day or span is Python's own `datetime`, `date`, `time` or `timedelta`.
- Where Python's own can't hold it (a fraction of a microsecond, a year outside of 1 to 9999), it is text in the form in
  which a prompt prints the others: `2023-11-14 22:13:20.000000001`, `20000-01-01`, `-26:00:00.000000001`.
- A moment with a zone keeps a fixed offset, such as +02:00. With any other zone it is in UTC: the rules of a named
  zone are data of the machine, and they change. Arrow stores such moments in UTC, too.
- Binary data is text where it is UTF-8; the rest stays `bytes`, which no prompt can print.
- A 32-bit or 16-bit number has the digits that tell it from its neighbours of the same type: 0.1, not 0.10000000149.
- An extension type is what it is stored as, but a UUID is a `UUID` and bool8 a `bool`.
- Of two members of a structure with the same name, the last counts.
- A column that is marked as JSON text has the values that its texts stand for: lists, dicts, numbers.
"""

import contextlib
import functools
import itertools
import re
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Final

import msgspec
import pyarrow as pa

SLICE_ROWS = 256  # rows converted at a time: the Python values of more would take memory for no gain in time
SLICE_BYTES = 8 << 20  # bytes of cells converted at a time, about: fewer rows where they are long
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}  # in one unit of an Arrow type
MILLISECONDS_OF_A_DAY = 86_400_000
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # a column without a zone has moments without one
EPOCH_DAY = EPOCH.toordinal()
NANOSECONDS_OF_A_DAY = 86_400 * 1_000_000_000
DAYS_OF_400_YEARS = 146_097  # the calendar repeats itself after them
HALF_DIGITS = 5  # of a number of 16 bits; as many always tell it from its neighbours
JSON_MARK: Final = {b"cometbatch.type": b"json"}
"""The metadata of a column whose cells are JSON text; Parquet keeps them, and other readers see a text."""
FIXED_OFFSET = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)")


def row_values(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    """Each row's values of these columns only; null is None. Raises KeyError for a column that the table lacks."""
    names = list(dict.fromkeys(columns))
    chosen = table.select(names)
    json_at = [index for index, field in enumerate(chosen.schema) if is_json(field)]
    rows = max(1, min(SLICE_ROWS, SLICE_BYTES * max(1, table.num_rows) // max(1, chosen.nbytes)))
    for start in range(0, table.num_rows, rows):
        converted = [python_values(column) for column in chosen.slice(start, rows).columns]
        for index in json_at:
            converted[index] = list(map(_json_value, converted[index]))
        bare: Iterable[tuple[object, ...]] = itertools.repeat((), min(rows, table.num_rows - start))
        cells = zip(*converted, strict=True) if converted else bare
        yield from (dict(zip(names, row)) for row in cells)  # noqa: B905 - all have one length; strict adds half of the time


def is_json(field: pa.Field) -> bool:
    """Whether a column's cells are JSON text that stands for its values."""
    metadata = field.metadata
    return metadata is not None and JSON_MARK.items() <= metadata.items()


def _json_value(text: object) -> object:
    """What a cell of such a column stands for; a text that is no JSON, which others may have put there, is itself."""
    if not isinstance(text, str):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text


def python_values(column: pa.ChunkedArray) -> list[object]:
    """The values of a column as Python values; null is None."""
    if len(column.chunks) == 1:
        return _values(column.chunk(0))
    return [value for chunk in column.chunks for value in _values(chunk)]


def _values(column: pa.Array) -> list[object]:
    kind = column.type
    if _is_plain(kind):
        plain: list[object] = column.to_pylist()
        return plain
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(column)
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary.take(column.indices))
    if pa.types.is_nested(kind) or pa.types.is_run_end_encoded(kind):
        return _nested(column)
    if _is_binary(kind):
        return [None if value is None else _text_or_bytes(value) for value in column.to_pylist()]
    return _shortest(column) if pa.types.is_floating(kind) else _moments(column)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether pyarrow converts every value of this type, in the same way everywhere."""
    inner = [kind.field(index) for index in range(kind.num_fields)]
    return not (
        (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
        or isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_dictionary(kind)
        or pa.types.is_float16(kind)
        or pa.types.is_float32(kind)
        or _is_binary(kind)
        or (pa.types.is_struct(kind) and len({field.name for field in inner}) < len(inner))
        or not all(_is_plain(field.type) for field in inner)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            getattr(pa.types, "is_binary_view", lambda _: False),
        )
    )


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _shortest(column: pa.Array) -> list[object]:
    """Numbers of 32 or 16 bits, each as the shortest decimal number that stands for no other of its type."""
    if pa.types.is_float32(column.type):
        return [None if digits is None else float(digits) for digits in column.cast(pa.string()).to_pylist()]
    return [None if value is None else _fewest_digits(value) for value in column.cast(pa.float32()).to_pylist()]


def _fewest_digits(half: float) -> float:
    bits = struct.pack("e", half)
    for digits in range(1, HALF_DIGITS):
        with contextlib.suppress(OverflowError):  # rounded up beyond the largest
            if struct.pack("e", short := float(f"{half:.{digits}g}")) == bits:
                return short
    return float(f"{half:.{HALF_DIGITS}g}")


def _extension(column: pa.Array) -> list[object]:
    match column.type.extension_name:
        case "arrow.uuid":
            return [None if value is None else uuid.UUID(bytes=value) for value in column.storage.to_pylist()]
        case "arrow.bool8":
            return [None if value is None else value != 0 for value in _values(column.storage)]
    return _values(column.storage)


def _nested(column: pa.Array) -> list[object]:
    kind = column.type
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        members = zip(*(_values(column.field(index)) for index in range(len(names))), strict=True)
        is_there = column.is_valid().to_pylist()
        return [
            dict(zip(names, row, strict=True)) if there else None for there, row in zip(is_there, members, strict=True)
        ]
    if pa.types.is_map(kind):
        return [_pairs(scalar.values) if scalar.is_valid else None for scalar in column]
    if pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind):
        return [_values(pa.repeat(scalar.value, 1))[0] if scalar.is_valid else None for scalar in column]
    return [_values(scalar.values) if scalar.is_valid else None for scalar in column]


def _pairs(entries: pa.StructArray) -> list[object]:
    return list(zip(_values(entries.field(0)), _values(entries.field(1)), strict=True))


# ---------------------------------------------------------------- moments, dates, times of day, spans


def _moments(column: pa.Array) -> list[object]:
    convert = _converter(column.type)
    ticks = column.view(pa.int32() if column.type.bit_width == pa.int32().bit_width else pa.int64())
    return [None if tick is None else convert(tick) for tick in ticks.to_pylist()]


def _converter(kind: pa.DataType) -> Callable[[int], object]:
    """How the number that a file holds for a value of this type becomes a Python value."""
    if pa.types.is_date(kind):
        return functools.partial(_date, 1 if pa.types.is_date32(kind) else MILLISECONDS_OF_A_DAY)
    unit = NANOSECONDS[kind.unit]
    if pa.types.is_timestamp(kind):
        return functools.partial(_moment, kind.unit, kind.tz, _zone(kind.tz))
    return functools.partial(_time if pa.types.is_time(kind) else _span, unit)


def _zone(name: str | None) -> timezone | None:
    """A fixed offset is kept; every other zone is UTC. None for a moment without a zone."""
    if name is None:
        return None
    found = FIXED_OFFSET.fullmatch(name)
    if found is None:
        return UTC
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def _moment(unit: str, name: str | None, zone: timezone | None, tick: int) -> datetime | str:
    nanoseconds = tick * NANOSECONDS[unit]
    if not nanoseconds % 1_000:
        try:
            moment = EPOCH + timedelta(microseconds=nanoseconds // 1_000)
            return moment if zone is None else moment.replace(tzinfo=UTC).astimezone(zone)
        except OverflowError:
            pass
    offset = timedelta(0) if zone is None else zone.utcoffset(None)
    days, rest = divmod(nanoseconds + offset // timedelta(microseconds=1) * 1_000, NANOSECONDS_OF_A_DAY)
    end = "" if name is None else "+00:00" if zone is UTC else name
    return f"{_day(days)} {_time_of_day(rest)}{end}"


def _date(per_day: int, tick: int) -> date | str:
    days = tick // per_day
    try:
        return date.fromordinal(EPOCH_DAY + days)
    except (ValueError, OverflowError):
        return _day(days)


def _time(unit: int, tick: int) -> time | str:
    microseconds, nanoseconds = divmod(tick * unit, 1_000)
    return _time_of_day(tick * unit) if nanoseconds else (EPOCH + timedelta(microseconds=microseconds)).time()


def _span(unit: int, tick: int) -> timedelta | str:
    microseconds, nanoseconds = divmod(tick * unit, 1_000)
    if not nanoseconds:
        try:
            return timedelta(microseconds=microseconds)
        except OverflowError:
            pass
    return ("-" if tick < 0 else "") + _clock(abs(tick * unit))


def _day(days: int) -> str:
    """A day, given as days since 1970, in the calendar that Python has for the years 1 to 9999; year 0 is before 1."""
    periods, day = divmod(EPOCH_DAY - 1 + days, DAYS_OF_400_YEARS)
    found = date.fromordinal(day + 1)
    year = found.year + 400 * periods
    return f"{'-' if year < 0 else ''}{abs(year):04}-{found.month:02}-{found.day:02}"


def _time_of_day(nanoseconds: int) -> str:
    clock = _clock(nanoseconds)
    return clock if clock[1] != ":" else f"0{clock}"


def _clock(nanoseconds: int) -> str:
    """Hours, minutes and seconds, with as many digits of a fraction as Python writes, or nine."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS["s"])
    microseconds, rest = divmod(fraction, 1_000)
    digits = f".{fraction:09}" if rest else f".{microseconds:06}" if microseconds else ""
    return f"{seconds // 3_600}:{seconds // 60 % 60:02}:{seconds % 60:02}{digits}"
