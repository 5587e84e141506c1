import math
import os
import pathlib
import re
import struct
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cometbatch.input.values import row_values
from cometbatch.prompt.printing import text_of

ROOT = pathlib.Path(__file__).parent.parent


def every_type() -> pa.Table:
    """Five rows of many types, with nulls."""
    moment = datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    columns = {
        "text": pa.array(["007", None, "", "é", "NULL"]),
        "large": pa.array(["a", "b", None, "d", "e"], pa.large_string()),
        "bytes": pa.array([b"\0\xff", None, b"", b"x", b"y"], pa.binary()),
        "int": pa.array([1, -2, None, 2**62, 0], pa.int64()),
        "unsigned": pa.array([1, None, 2**64 - 1, 3, 4], pa.uint64()),
        "float": pa.array([0.1, None, float("inf"), -0.0, 1e300]),
        "bool": pa.array([True, False, None, True, False]),
        "decimal": pa.array([Decimal("1.10"), None, Decimal("-0.01"), Decimal(0), Decimal(9)], pa.decimal128(20, 2)),
        "day": pa.array([date(2025, 1, 2), None, date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1)]),
        "moment": pa.array([moment, None, moment, moment, moment], pa.timestamp("us", "UTC")),
        "clock": pa.array([time(1, 2, 3), None, time(0), time(23, 59), time(12)], pa.time64("us")),
        "words": pa.array(["a", "b", None, "a", "b"]).dictionary_encode(),
        "list": pa.array([["a", None], [], None, ["b"], ["c"]]),
        "struct": pa.array(
            [{"x": 1, "y": ["z"]}, None, {"x": None, "y": []}, {"x": 2, "y": None}, {"x": 3, "y": ["w"]}]
        ),
        "map": pa.array([[("k", 1)], None, [], [("a", 2), ("b", 3)], [("c", 4)]], pa.map_(pa.string(), pa.int64())),
        "nothing": pa.nulls(5),
    }
    return pa.table(columns)


# ---------------------------------------------------------------- Python values


def test_rows_are_python_values_of_the_chosen_columns() -> None:
    """Each type comes as Python's own, null as None, and only what was asked for, in that order."""
    table = every_type()
    (first, second, *_) = row_values(table, ["decimal", "text", "words", "moment", "list", "struct", "map", "day"])
    assert list(first.items()) == [
        ("decimal", Decimal("1.10")),
        ("text", "007"),
        ("words", "a"),
        ("moment", datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
        ("list", ["a", None]),
        ("struct", {"x": 1, "y": ["z"]}),
        ("map", [("k", 1)]),
        ("day", date(2025, 1, 2)),
    ]
    assert second == dict.fromkeys(first) | {"words": "b", "list": []}


def test_all_values_of_a_table_survive() -> None:
    """Rows come in order across slices, and are those that pyarrow gives for the whole."""
    table = pa.concat_tables([every_type()] * 120).drop_columns(["bytes"])
    assert list(row_values(table, table.column_names)) == table.to_pylist()


def test_binary_data_is_text_where_it_is_utf8() -> None:
    """Several writers store text so; the rest stays binary, which no prompt can print. The same within structures."""
    assert [row["bytes"] for row in row_values(every_type(), ["bytes"])] == [b"\0\xff", None, "", "x", "y"]
    for kind in (pa.binary(), pa.large_binary(), pa.binary(4)):
        values = pa.array(["Zoé".encode(), b"\xff\xff\xff\xff", None], kind)
        nested = pa.StructArray.from_arrays([pa.array([[one] for one in values.to_pylist()], pa.list_(kind))], ["x"])
        assert [row["a"] for row in row_values(pa.table({"a": values}), ["a"])] == ["Zoé", b"\xff" * 4, None]
        assert next(row_values(pa.table({"a": nested}), ["a"])) == {"a": {"x": ["Zoé"]}}


@given(number=st.floats(width=32, allow_nan=False) | st.sampled_from([0.1, 1e20, 3.4028235e38, 2.0**-149]))
def test_a_number_of_32_bits_has_its_own_shortest_digits(number: float) -> None:
    """0.1 stored in 32 bits is 0.1 and not 0.10000000149011612, and reads back as the same 32 bits."""
    (array,) = pa.array([number], pa.float32()).cast(pa.float64()).to_pylist()
    (found,) = row_values(pa.table({"a": pa.array([number], pa.float32())}), ["a"])
    assert pa.array([found["a"]], pa.float32()).cast(pa.float64()).to_pylist() == [array]
    assert len(re.sub(r"e.*|[-.]", "", repr(found["a"])).strip("0")) <= 9  # digits


@given(bits=st.integers(0, 2**16 - 1))
def test_a_number_of_16_bits_has_its_own_shortest_digits(bits: int) -> None:
    """The same for half the bits: 0.1 is 0.1 and not 0.0999755859375."""
    halves = pa.Array.from_buffers(pa.float16(), 1, [None, pa.py_buffer(bits.to_bytes(2, "little"))])
    (found,) = row_values(pa.table({"a": halves}), ["a"])
    number = found["a"]
    assert isinstance(number, float)
    assert math.isnan(number) or int.from_bytes(struct.pack("<e", number), "little") == bits
    assert len(re.sub(r"e.*|[-.]|inf|nan", "", repr(number)).strip("0")) <= 5  # digits


def test_rows_without_columns_are_still_rows() -> None:
    """A constant template needs no column, and yet a prompt for each row."""
    assert list(row_values(every_type(), [])) == [{}] * 5


def test_a_column_named_twice_is_read_once() -> None:
    """The same column asked for twice is one key."""
    assert list(row_values(pa.table({"a": [1]}), ["a", "a"])) == [{"a": 1}]


def test_a_column_that_is_missing_is_the_callers_mistake() -> None:
    """Asking for a column that the table lacks raises KeyError."""
    with pytest.raises(KeyError):
        list(row_values(pa.table({"a": [1]}), ["b"]))


class Stamp(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A type of our own, stored as a timestamp."""

    def __init__(self) -> None:
        super().__init__(pa.timestamp("ns"), "tests.stamp")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "Stamp":
        return cls()


STAMP = datetime(1970, 1, 1, microsecond=1)  # noqa: DTZ001  # the columns have no zone
NANOSECONDS = 1_700_000_000_000_000_001
ODD_VALUES: dict[str, tuple[pa.Array, object]] = {
    "nanoseconds that are whole microseconds": (
        pa.array([NANOSECONDS - 1], pa.timestamp("ns")),
        datetime(2023, 11, 14, 22, 13, 20),  # noqa: DTZ001  # the column has no zone
    ),
    "nanoseconds": (pa.array([NANOSECONDS], pa.timestamp("ns")), "2023-11-14 22:13:20.000000001"),
    "nanoseconds with a zone": (
        pa.array([NANOSECONDS], pa.timestamp("ns", "UTC")),
        "2023-11-14 22:13:20.000000001+00:00",
    ),
    "a zone that nobody knows": (
        pa.array([1], pa.timestamp("us", "Mars/Phobos")),
        datetime(1970, 1, 1, microsecond=1, tzinfo=UTC),
    ),
    "nanoseconds with an offset": (
        pa.array([NANOSECONDS], pa.timestamp("ns", "-03:30")),
        "2023-11-14 18:43:20.000000001-03:30",
    ),
    "nanoseconds before 1970": (pa.array([-1], pa.timestamp("ns")), "1969-12-31 23:59:59.999999999"),
    "the year 20000 with a zone": (
        pa.array([568_971_820_800], pa.timestamp("s", "+02:00")),
        "20000-01-01 02:00:00+02:00",
    ),
    "the end of the last year with an offset": (
        pa.array([253_402_300_799], pa.timestamp("s", "+02:00")),
        "10000-01-01 01:59:59+02:00",
    ),
    "a time beyond all calendars with a zone": (
        pa.array([10**15], pa.timestamp("s", "UTC")),
        "31690708-07-05 01:46:40+00:00",
    ),
    "a day in the year 20000": (pa.array([6_585_322], pa.int32()).cast(pa.date32()), "20000-01-01"),
    "the year 20000": (pa.array([568_971_820_800], pa.timestamp("s")), "20000-01-01 00:00:00"),
    "a time beyond all calendars": (pa.array([10**15], pa.timestamp("s")), "31690708-07-05 01:46:40"),
    "a day beyond all calendars": (pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), "5881580-07-11"),
    "the day before the year 1": (pa.array([-719_163], pa.int32()).cast(pa.date32()), "0000-12-31"),
    "a day before all calendars": (pa.array([-(2**31)], pa.int32()).cast(pa.date32()), "-5877641-06-23"),
    "a time of day in nanoseconds": (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
    "a span in microseconds": (pa.array([1], pa.duration("us")), timedelta(microseconds=1)),
    "a span in nanoseconds": (pa.array([1], pa.duration("ns")), "0:00:00.000000001"),
    "a negative span in nanoseconds": (pa.array([-1], pa.duration("ns")), "-0:00:00.000000001"),
    "a span in nanoseconds that are whole microseconds": (
        pa.array([-86_400_000_001_000], pa.duration("ns")),
        timedelta(days=-1, microseconds=-1),
    ),
    "a span beyond all calendars": (pa.array([2**62], pa.duration("s")), "1281023894007607:45:04"),
    "a span of days in nanoseconds": (pa.array([-93_600_000_000_001], pa.duration("ns")), "-26:00:00.000000001"),
    "a time of day in nanoseconds that are whole microseconds": (
        pa.array([86_399_999_999_000], pa.time64("ns")),
        time(23, 59, 59, 999_999),
    ),
    "half floats": (pa.array([1.5], pa.float32()).cast(pa.float16()), 1.5),
    "half floats in a list": (pa.array([[1.5]], pa.list_(pa.float32())).cast(pa.list_(pa.float16())), [1.5]),
    "an extension type": (pa.ExtensionArray.from_storage(Stamp(), pa.array([1_000], pa.timestamp("ns"))), STAMP),
    "an extension type in a list": (
        pa.ListArray.from_arrays(
            [0, 1], pa.ExtensionArray.from_storage(Stamp(), pa.array([1_000], pa.timestamp("ns")))
        ),
        [STAMP],
    ),
    "a structure without members": (pa.array([{}], pa.struct([])), {}),
    "a list of structures": (
        pa.array([[{"t": 1_000}, None]], pa.list_(pa.struct([("t", pa.timestamp("ns"))]))),
        [{"t": STAMP}, None],
    ),
    "a large list": (pa.array([[1_000]], pa.large_list(pa.timestamp("ns"))), [STAMP]),
    "nanoseconds in a list": (
        pa.array([[NANOSECONDS]], pa.list_(pa.timestamp("ns"))),
        ["2023-11-14 22:13:20.000000001"],
    ),
    "nanoseconds in a fixed list": (
        pa.array([[NANOSECONDS]], pa.list_(pa.timestamp("ns"), 1)),
        ["2023-11-14 22:13:20.000000001"],
    ),
    "nanoseconds in a structure": (
        pa.array([{"t": NANOSECONDS, "n": None}], pa.struct([("t", pa.timestamp("ns")), ("n", pa.int8())])),
        {"t": "2023-11-14 22:13:20.000000001", "n": None},
    ),
    "nanoseconds in a map": (
        pa.array([[("k", NANOSECONDS)]], pa.map_(pa.string(), pa.timestamp("ns"))),
        [("k", "2023-11-14 22:13:20.000000001")],
    ),
    "nanoseconds in a dictionary": (
        pa.array([NANOSECONDS], pa.timestamp("ns")).dictionary_encode(),
        "2023-11-14 22:13:20.000000001",
    ),
    "a structure with a name twice": (
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]),
        {"x": 2},
    ),
}


@pytest.mark.parametrize(("array", "expected"), ODD_VALUES.values(), ids=ODD_VALUES)
def test_what_python_cannot_hold_comes_as_text(array: pa.Array, expected: object) -> None:
    """No value of a readable file makes the run stumble, and nulls beside it stay None."""
    table = pa.table({"a": pa.concat_arrays([array, pa.nulls(1, array.type)])})
    assert list(row_values(table, ["a"])) == [{"a": expected}, {"a": None}]


def test_a_value_does_not_depend_on_its_neighbours() -> None:
    """One timestamp that Python can't hold does not turn the others into text."""
    table = pa.table({"a": pa.array([NANOSECONDS - 1, NANOSECONDS], pa.timestamp("ns"))})
    assert [type(row["a"]) for row in row_values(table, ["a"])] == [datetime, str]


# ---------------------------------------------------------------- the same on every machine

units = st.sampled_from(["s", "ms", "us", "ns"])
zones = st.sampled_from([None, "UTC", "Europe/Berlin", "America/St_Johns", "Mars/Phobos", "+02:00", "-03:30", "Z"])
temporal = st.one_of(
    st.builds(pa.timestamp, units, zones),
    st.builds(pa.duration, units),
    st.sampled_from([pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.date32(), pa.date64()]),
)
scalars = temporal | st.sampled_from([pa.string(), pa.int64(), pa.bool_(), pa.float64(), pa.null(), pa.binary()])
kinds = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(pa.list_, inner),
        st.builds(pa.large_list, inner),
        st.builds(lambda kind: pa.list_(kind, 2), inner),
        st.builds(lambda kind: pa.map_(pa.string(), kind), inner),
        st.builds(lambda one, two: pa.struct([("one", one), ("two", two)]), inner, inner),
    ),
    max_leaves=4,
)


def numbers(kind: pa.DataType) -> st.SearchStrategy[int]:
    """What a file may hold for a moment, date, time of day or span."""
    if pa.types.is_time(kind):
        return st.integers(0, 86_400 * NANOSECONDS_OF[kind.unit] - 1)
    if pa.types.is_date64(kind):
        return st.integers(-(10**6), 10**6).map(lambda day: day * 86_400_000)
    size = kind.bit_width - 1
    small = st.integers(-(2**31), 2**31 - 1)
    return small | st.integers(-(2**size), 2**size - 1)


NANOSECONDS_OF = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # in a second, of each unit


def stored(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of any type, as `pa.array` takes them."""
    if pa.types.is_temporal(kind):
        return st.none() | numbers(kind)
    if pa.types.is_map(kind):
        return st.none() | st.lists(st.tuples(st.text(max_size=3), stored(kind.item_type)), max_size=2)
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries({field.name: stored(field.type) for field in kind})
    if pa.types.is_fixed_size_list(kind):
        return st.none() | st.lists(stored(kind.value_type), min_size=2, max_size=2)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return st.none() | st.lists(stored(kind.value_type), max_size=3)
    by_type = {
        pa.string(): st.text(max_size=3),
        pa.int64(): st.integers(-(2**63), 2**63 - 1),
        pa.bool_(): st.booleans(),
        pa.float64(): st.floats(allow_nan=False),
        pa.null(): st.none(),
        pa.binary(): st.binary(max_size=3),
    }
    return st.none() | by_type[kind]


def as_text_if_it_is(value: bytes) -> str | bytes:
    """Binary data is text where it is UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def as_it_should_be(kind: pa.DataType, value: Any) -> object:
    """The law: what a template gets for a number in the file, worked out value by value, with exact arithmetic."""
    if isinstance(value, bytes):
        return as_text_if_it_is(value)
    if value is None or not (pa.types.is_temporal(kind) or pa.types.is_nested(kind)):
        return value
    if pa.types.is_map(kind):
        return [(key, as_it_should_be(kind.item_type, item)) for key, item in value]
    if pa.types.is_struct(kind):
        return {field.name: as_it_should_be(field.type, value[field.name]) for field in kind}
    if pa.types.is_nested(kind):
        return [as_it_should_be(kind.value_type, item) for item in value]
    (found,) = row_values(pa.table({"a": pa.array([value], kind)}), ["a"])
    return found["a"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_value_is_the_same_wherever_it_stands(data: st.DataObject) -> None:
    """In lists, structures and maps, in slices and beside any neighbours, a value becomes what it becomes alone."""
    kind = data.draw(kinds)
    wanted = data.draw(st.lists(stored(kind), min_size=1, max_size=5))
    array = pa.array(wanted, kind)
    cut = data.draw(st.integers(0, len(wanted)))
    table = pa.table({"a": pa.chunked_array([array.slice(0, cut), array.slice(cut)], kind)})
    assert [row["a"] for row in row_values(table, ["a"])] == [as_it_should_be(kind, value) for value in wanted]


@settings(deadline=None)
@given(unit=units, number=st.integers(-(2**63), 2**63 - 1), zone=zones)
def test_no_moment_loses_a_nanosecond(unit: str, number: int, zone: str | None) -> None:
    """What stands for a moment tells the exact nanosecond, and its offset is the one of the column."""
    (found,) = row_values(pa.table({"a": pa.array([number], pa.timestamp(unit, zone))}), ["a"])
    nanoseconds = number * (10**9 // NANOSECONDS_OF[unit])
    moment, rest = found["a"], 0
    if isinstance(moment, str):
        assume(re.match(r"\d{4}-", moment))  # the rest is beyond Python's calendar
        whole, digits, end = re.fullmatch(r"(.{19})(?:\.(\d+))?(.*)", moment).groups()  # type: ignore[union-attr]
        moment, rest = datetime.fromisoformat(whole + end), int((digits or "0").ljust(9, "0"))
    assert isinstance(moment, datetime)
    assert (moment.tzinfo is None) == (zone is None)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    assert (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000 + rest == nanoseconds


@settings(deadline=None)
@given(number=st.integers(-(2**62), 2**62), unit=units)
def test_a_span_prints_in_one_form(number: int, unit: str) -> None:
    """Hours, minutes and seconds, whether Python's own type can hold it or not, and exact to the nanosecond."""
    (found,) = row_values(pa.table({"a": pa.array([number], pa.duration(unit))}), ["a"])
    sign, hours, minutes, seconds, digits = re.fullmatch(
        r"(-?)(\d+):([0-5]\d):([0-5]\d)(?:\.(\d{6}|\d{9}))?", text_of(found["a"])
    ).groups()  # type: ignore[union-attr]
    whole = (int(hours) * 3_600 + int(minutes) * 60 + int(seconds)) * 10**9
    nanoseconds = (whole + int((digits or "").ljust(9, "0"))) * (-1 if sign else 1)
    assert nanoseconds == number * (10**9 // NANOSECONDS_OF[unit])


@settings(deadline=None)
@given(number=st.integers(-(2**63), 2**63 - 1), unit=units, zone=zones)
def test_a_moment_prints_in_one_form(number: int, unit: str, zone: str | None) -> None:
    """Date, time and offset, whatever the year and however fine the fraction."""
    (found,) = row_values(pa.table({"a": pa.array([number], pa.timestamp(unit, zone))}), ["a"])
    offset = "" if zone is None else re.escape(zone if zone[0] in "+-" else "+00:00")
    form = r"-?\d{4,}-\d\d-\d\d \d\d:[0-5]\d:[0-5]\d(\.\d{6}|\.\d{9})?" + offset
    assert re.fullmatch(form, text_of(found["a"]))


STUB_OF_PANDAS = """
import types
__version__ = "99.0"
class DataFrame: pass
class Index: pass
class Categorical: pass
class Series: pass
class Timestamp:
    def __init__(self, *values, **named): pass
    def time(self): return self
    def __str__(self): return "an object of pandas"
class Timedelta(Timestamp): pass
api = types.SimpleNamespace(
    extensions=types.SimpleNamespace(ExtensionArray=Series, ExtensionDtype=Series),
    types=types.SimpleNamespace(DatetimeTZDtype=Series),
)
"""
PROMPTS_OF_ALL_TYPES = """
import sys
import pyarrow as pa
from pyarrow import lib
from cometbatch.input.values import row_values
from cometbatch.prompt.template import compile_prompt
import msgspec

print("pandas:", lib._pandas_api.have_pandas, file=sys.stderr)
template = compile_prompt([("user", "{{ a }}, {{ a|tojson }}")])
kinds = [pa.timestamp(unit, zone) for unit in ("s", "us", "ns") for zone in (None, "UTC", "Europe/Berlin", "+02:00")]
kinds += [pa.duration("s"), pa.duration("ns"), pa.time64("us"), pa.time64("ns")]
for kind in kinds:
    array = pa.array([1_000, 1_001, None], pa.int64()).view(kind)
    holders = [
        array,
        pa.ListArray.from_arrays([0, 2, 3], array),
        pa.FixedSizeListArray.from_arrays(array, 3),
        pa.StructArray.from_arrays([array], names=["x"]),
        pa.MapArray.from_arrays([0, 3], pa.array(["k", "l", "m"]), array),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), array),
    ]
    for holder in holders:
        for row in row_values(pa.table({"a": holder}), ["a"]):
            print(kind, msgspec.json.encode(template.render(row)).decode())
"""


def beside(folder: pathlib.Path, modules: dict[str, str], script: str, **environment: str) -> tuple[str, str]:
    """What a script prints, on both streams, in a process that finds these modules before others of their names."""
    for name, content in modules.items():
        (folder / f"{name}.py").write_text(content)
    found = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    done = subprocess.run([sys.executable, "-c", script], env=found, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


NOTHING_INSTALLED = dict.fromkeys(("pandas", "pytz", "tzdata"), "raise ImportError")


def test_a_prompt_does_not_depend_on_what_is_installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With and without pandas, pytz and a database of time zones, all prompts are the same to the last byte."""
    bare = beside(tmp_path_factory.mktemp("bare"), NOTHING_INSTALLED, PROMPTS_OF_ALL_TYPES, PYTHONTZPATH="")
    full = beside(tmp_path_factory.mktemp("pandas"), {"pandas": STUB_OF_PANDAS}, PROMPTS_OF_ALL_TYPES)
    assert (bare[1], full[1]) == ("pandas: False\n", "pandas: True\n")
    assert "1970-01-01 00:00:00.000001001" in bare[0]
    assert bare[0] == full[0]


ANSWERS_READ_BACK = """
from datetime import UTC, datetime
from cometbatch.records import Failed, Failure
from cometbatch.results.columns import outcomes_table, read_outcomes

moment = datetime(2026, 9, 1, 12, tzinfo=UTC)
outcome = Failed(0, None, 0, None, moment, None, Failure("template", "no"))
print(read_outcomes(outcomes_table([outcome]), 0)[0].finished_at == moment)
"""


def test_answers_are_read_back_without_a_database_of_time_zones(tmp_path: pathlib.Path) -> None:
    """The moments in a result are in UTC, which needs no data of the machine."""
    assert beside(tmp_path, NOTHING_INSTALLED, ANSWERS_READ_BACK, PYTHONTZPATH="") == ("True\n", "")
