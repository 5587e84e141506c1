"""Arrow values as Python values for templates: the same on every machine, whatever else is installed.

Hides that pyarrow's own conversion depends on its surroundings: nanoseconds become pandas objects where pandas is
installed and fail where it is not, and a time zone comes from pytz, from the system or from nowhere.

- A moment, date, time of day or span is Python's own `datetime`, `date`, `time` or `timedelta`.
- One with a fraction of a microsecond is text with nine digits of a second: `2023-11-14 22:13:20.000000001`.
- A moment with a zone keeps a fixed offset, such as +02:00. With any other zone it is in UTC: the rules of a named
  zone are data of the machine, and they change. Arrow stores such moments in UTC, too.
- A moment or date outside of the years 1 to 9999 is text (in UTC), beyond the year 32,767 a number: units since 1970.
- An extension type is what it is stored as, but a UUID is a `UUID` and bool8 a `bool`.
- Of two members of a structure with the same name, the last counts.
"""

import functools
import itertools
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa

SLICE_ROWS = 256  # rows converted at a time: the Python values of more would take memory for no gain in time
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}  # in one unit of an Arrow type
MILLISECONDS_OF_A_DAY = 86_400_000
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # a column without a zone has moments without one
EPOCH_DAY = EPOCH.toordinal()
UTC_END = "+00:00"  # of a moment that is written as text, as Python ends one in UTC
FIXED_OFFSET = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)")


def row_values(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    """Each row's values of these columns only; null is None. Raises KeyError for a column that the table lacks."""
    names = list(dict.fromkeys(columns))
    chosen = table.select(names)
    for start in range(0, table.num_rows, SLICE_ROWS):
        converted = [python_values(column) for column in chosen.slice(start, SLICE_ROWS).columns]
        bare: Iterable[tuple[object, ...]] = itertools.repeat((), min(SLICE_ROWS, table.num_rows - start))
        cells = zip(*converted, strict=True) if converted else bare
        yield from (dict(zip(names, row)) for row in cells)  # noqa: B905 - all have one length; strict adds half of the time


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
    if pa.types.is_float16(kind):
        return _values(column.cast(pa.float32()))
    convert = _converter(kind)
    ticks = column.view(pa.int32() if kind.bit_width == pa.int32().bit_width else pa.int64())
    return [None if tick is None else convert(tick) for tick in ticks.to_pylist()]


def _is_plain(kind: pa.DataType) -> bool:
    """Whether pyarrow converts every value of this type, in the same way everywhere."""
    inner = [kind.field(index) for index in range(kind.num_fields)]
    return not (
        (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
        or isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_dictionary(kind)
        or pa.types.is_float16(kind)  # numpy's own type in older versions of pyarrow
        or (pa.types.is_struct(kind) and len({field.name for field in inner}) < len(inner))
        or not all(_is_plain(field.type) for field in inner)
    )


def _extension(column: pa.Array) -> list[object]:
    stored = _values(column.storage)
    match column.type.extension_name:
        case "arrow.uuid":
            return [None if value is None else uuid.UUID(bytes=value) for value in stored]  # type: ignore[arg-type]
        case "arrow.bool8":
            return [None if value is None else value != 0 for value in stored]
    return stored


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
    microseconds, nanoseconds = divmod(tick * NANOSECONDS[unit], 1_000)
    try:
        moment = EPOCH + timedelta(microseconds=microseconds)
        local = moment if zone is None else moment.replace(tzinfo=UTC).astimezone(zone)
    except OverflowError:
        return _far_away(tick, pa.timestamp(unit), "" if zone is None else UTC_END)
    if not nanoseconds:
        return local
    end = "" if name is None else UTC_END if zone is UTC else name
    return f"{local.replace(microsecond=0, tzinfo=None)}.{local.microsecond:06}{nanoseconds:03}{end}"


def _date(per_day: int, tick: int) -> date | str:
    days = tick // per_day
    try:
        return date.fromordinal(EPOCH_DAY + days)
    except (ValueError, OverflowError):
        return _far_away(days, pa.date32())


def _time(unit: int, tick: int) -> object:
    microseconds, nanoseconds = divmod(tick * unit, 1_000)
    clock = (EPOCH + timedelta(microseconds=microseconds)).time()
    return f"{clock.replace(microsecond=0)}.{clock.microsecond:06}{nanoseconds:03}" if nanoseconds else clock


def _span(unit: int, tick: int) -> timedelta | str:
    microseconds, nanoseconds = divmod(tick * unit, 1_000)
    try:
        span = timedelta(microseconds=microseconds)
    except OverflowError:
        return str(tick)
    if not nanoseconds:
        return span
    return f"{span - timedelta(microseconds=span.microseconds)}.{span.microseconds:06}{nanoseconds:03}"


def _far_away(tick: int, kind: pa.DataType, end: str = "") -> str:
    """A moment or date that Python has no value for, as Arrow prints it."""
    try:
        text = str(pa.scalar(tick, kind).cast(pa.string()).as_py())
    except (pa.ArrowInvalid, OverflowError):  # more days than 32 bits hold
        return str(tick)
    return str(tick) if text.startswith("<") else text + end  # "<value out of range: …>"
