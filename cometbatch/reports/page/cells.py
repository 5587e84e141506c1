"""Cells of Arrow columns as a page keeps them: numbers, words, texts and their lengths, in batches.

Lengths are in UTF-16 units, as a browser counts characters. Guards: no cut is inside a pair of surrogates.
"""

import json
import math
from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from cometbatch.input.values import python_values
from cometbatch.prompt.printing import UnprintableError, text_of

MAX_EXACT: Final = 2**53  # whole numbers up to it are exact as floats
_EXACT_DECIMALS: Final = 12  # digits after the point; with 3 before it 15, and a float tells as many exactly
_EXACT_BELOW: Final = 1_000
_ASTRAL: Final = "[\U00010000-\U0010ffff]"
_ASTRAL_BYTES: Final = tuple(bytes([lead]) for lead in range(0xF0, 0xF5))
"""The first byte, in UTF-8, of each character that takes two units in UTF-16."""
U32: Final = pa.uint32()
F64: Final = pa.float64()
TEXT: Final = pa.large_string()


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, however they are stored."""
    if isinstance(kind, pa.BaseExtensionType):
        return value_type(kind.storage_type) if kind.extension_name != "arrow.bool8" else pa.bool_()
    return value_type(kind.value_type) if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether the values are texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or getattr(pa.types, "is_string_view", bool)(kind)


def units(text: str) -> int:
    """The length of a text in UTF-16 units."""
    return len(text) if text.isascii() else len(text) + sum(char > "\uffff" for char in text)


def cut(text: str, most: int) -> str:
    """The text's beginning, of at most this many UTF-16 units, without half a pair."""
    if len(text) <= most // 2 or (len(text) <= most and text.isascii()):
        return text
    begin = text[:most]
    while (over := units(begin) - most) > 0:
        begin = begin[: len(begin) - (over + 1) // 2]
    return begin


def well_formed(text: str) -> str:
    """The text with U+FFFD in place of each half of a pair that stands alone, which UTF-8 can't hold."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def raw_bytes(array: pa.Array) -> bytes:
    """The values of an array of fixed width without nulls, as they are in memory."""
    width, buffer = array.type.bit_width // 8, array.buffers()[1]
    return b"" if buffer is None else bytes(buffer.slice(array.offset * width, len(array) * width))


# ---------------------------------------------------------------- numbers


def numbers(column: pa.ChunkedArray) -> tuple[bytes, dict[int, str]]:
    """A column as floats, NaN for null; and the exact text of those cells that a float does not show."""
    array = decoded(column)
    kind = array.type
    if pa.types.is_null(kind):
        return raw_bytes(pa.array([math.nan] * len(array), F64)), {}
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_timestamp(kind):
        array = pc.divide(
            array.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).cast(F64, safe=False), 1e3
        )
    elif pa.types.is_float32(kind) or pa.types.is_float16(kind):
        array = pa.array(python_values(pa.chunked_array([array])), F64)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return _numbers_of_texts(texts(column))
    exact = _inexact(array)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # whose floats are the nearest ones; those of a decimal may be next to them
    return raw_bytes(array.cast(F64, safe=False).fill_null(math.nan)), exact


def _numbers_of_texts(array: pa.Array) -> tuple[bytes, dict[int, str]]:
    """Of a column that holds numbers in other sources."""
    found = [(at, text) for at, text in enumerate(array.to_pylist()) if text is not None]
    return raw_bytes(pa.array([math.nan] * len(array), F64)), dict(found)


def _inexact(array: pa.Array) -> dict[int, str]:
    """The exact text of the cells that a float does not show."""
    kind = array.type
    if pa.types.is_floating(kind):
        places = pc.indices_nonzero(pc.fill_null(pc.is_nan(array), False))
        return dict.fromkeys(places.to_pylist(), "NaN")
    if pa.types.is_integer(kind):
        limits = pc.min_max(array).as_py()
        if limits["min"] is None or (limits["max"] <= MAX_EXACT and limits["min"] >= -MAX_EXACT):
            return {}
        return {at: str(n) for at, n in enumerate(array.to_pylist()) if n is not None and abs(n) > MAX_EXACT}
    doubtful = _doubtful(array)
    found = zip(doubtful.to_pylist(), array.take(doubtful).to_pylist(), strict=True)
    return {at: format(value, "f") for at, value in found if Decimal(repr(float(value))) != value}


def _doubtful(array: pa.Array) -> pa.Array:
    """The places of decimals with more than 15 digits."""
    is_wide = pc.greater_equal(pc.abs(array.cast(F64, safe=False)), float(_EXACT_BELOW))
    if array.type.scale > _EXACT_DECIMALS:
        short = pc.round(array, _EXACT_DECIMALS, round_mode="towards_zero")
        is_wide = pc.or_(is_wide, pc.not_equal(short, array))
    return pc.indices_nonzero(pc.fill_null(is_wide, False))


# ---------------------------------------------------------------- texts


def decoded(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array of its values, however they are stored."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunk, or too large for one
        array = pa.concat_arrays(array.chunks) if array.chunks else pa.array([], array.type)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage if array.type.extension_name != "arrow.bool8" else array.storage.cast(pa.bool_())
    if pa.types.is_run_end_encoded(array.type):
        return decoded(pa.chunked_array([pc.run_end_decode(array)]))
    return array.dictionary.take(array.indices) if pa.types.is_dictionary(array.type) else array


def texts(column: pa.ChunkedArray) -> pa.Array:
    """A column as texts: each value as a prompt prints it, texts and null as they are."""
    array = decoded(column)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), TEXT)
    if is_text(array.type):
        return _valid(array.cast(TEXT))
    if pa.types.is_boolean(array.type) or pa.types.is_integer(array.type):
        return array.cast(TEXT)
    return pa.array([None if value is None else printed(value) for value in python_values(column)], TEXT)


def words(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column as texts that repeat: a null is one of the places, not of the dictionary."""
    only = column.chunk(0) if column.num_chunks == 1 else None
    if only is not None and only.type == pa.dictionary(pa.int32(), TEXT) and not only.dictionary.null_count:
        return only
    return texts(column).dictionary_encode()


def _valid(array: pa.Array) -> pa.Array:
    """The same texts, with U+FFFD in place of what is no UTF-8."""
    if text_bytes(array).isascii():
        return array
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        cells = array.cast(pa.large_binary()).to_pylist()
        return pa.array([None if each is None else each.decode(errors="replace") for each in cells], TEXT)
    return array


def printed(value: object) -> str:
    """A value as a prompt prints it; binary data, which no prompt prints, in hex."""
    if isinstance(value, bytes):
        return value.hex()
    try:
        return well_formed(text_of(value))
    except (UnprintableError, ValueError, TypeError, RecursionError):
        return well_formed(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=printed))


def has_astral(array: pa.Array) -> bool:
    """Whether a character of these texts takes two units."""
    held = text_bytes(array)
    return not held.isascii() and any(lead in held for lead in _ASTRAL_BYTES)


def lengths(array: pa.Array) -> pa.Array:
    """Of texts, in UTF-16 units; null for null."""
    found = pc.utf8_length(array).cast(U32)
    return pc.add(found, pc.count_substring_regex(array, _ASTRAL).cast(U32)) if has_astral(array) else found


def cut_texts(array: pa.Array, full: pa.Array, most: int) -> pa.Array:
    """The beginnings of texts, at most this many UTF-16 units long. `full`: their lengths."""
    longest = pc.max(full).as_py()
    if longest is None or longest <= most:
        return array
    found = pc.utf8_slice_codeunits(array, 0, most)
    if not has_astral(found):
        return found
    return pa.array([None if each is None else cut(each, most) for each in found.to_pylist()], TEXT)


def text_bytes(array: pa.Array) -> bytes:
    """All texts of an array of `TEXT`, one after the other, as UTF-8."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return b""
    places = pa.Array.from_buffers(pa.int64(), array.offset + len(array) + 1, [None, offsets])
    begin, end = places[array.offset].as_py(), places[array.offset + len(array)].as_py()
    return bytes(data.slice(begin, end - begin))
