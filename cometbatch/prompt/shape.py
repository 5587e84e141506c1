"""What an answer's value becomes in a table: the shape of each column, and how its cells are made. No Arrow here.

A schema's top-level properties are columns; a schema that is no object with properties has one, `value`. An object with
named properties is a struct and a list a list; what has no single shape (free objects, unions, what holds itself) is
kept as JSON text. Law: a cell holds exactly what the answer says, or the answer does not fit.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.prompt.schema_tree import Path, Schema, branches, resolved, target_of, types_of

Kind: TypeAlias = Literal["text", "date", "moment", "integer", "number", "flag", "list", "struct", "json"]
Convert: TypeAlias = Callable[[Any], Any]

WHOLE_VALUE: Final = "value"
"""The name of the column of an answer that is no object with properties of its own."""
MAX_DEPTH: Final = 20  # structs and lists within each other; deeper ones are JSON text
_LEAST, _MOST = -(2**63), 2**63 - 1
_SCALARS: Final[Mapping[str, Kind]] = {"string": "text", "integer": "integer", "number": "number", "boolean": "flag"}
_FORMATS: Final[Mapping[str, Kind]] = {"date": "date", "date-time": "moment"}


class Shape(Struct, frozen=True):
    """The shape of a cell. `item`: of a list. `fields`: of a struct, in the schema's order."""

    kind: Kind
    item: "Shape | None" = None
    fields: "tuple[tuple[str, Shape], ...]" = ()


_JSON: Final = Shape("json")


class UnfitError(ValueError):
    """A value that no cell can hold. `path`: where it is within the answer."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.path: Path = ()


class _CircleError(Exception):
    """A schema that holds itself, at this place of the whole schema."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


def has_property_columns(root: Schema) -> bool:
    """Whether the columns are the top-level properties; else there is one, of the whole value."""
    top = resolved(root, root)
    return isinstance(top, Mapping) and _is_closed(top) and types_of(top) == ["object"]


def columns_of(root: Schema) -> dict[str, Shape]:
    """The shape of each column that answers of a schema have, by name."""
    if has_property_columns(root):
        return {name: _column(root, each, ((),)) for name, each in resolved(root, root)["properties"].items()}
    return {WHOLE_VALUE: _column(root, root, ((),))}


def _column(root: Schema, schema: Schema, within: tuple[Path, ...]) -> Shape:
    try:
        return _shape(root, schema, within)
    except _CircleError:
        return _JSON


def _shape(root: Schema, schema: Schema, within: tuple[Path, ...]) -> Shape:
    """The shape of a schema's values. `within`: the places of the whole schema that this one is within, by `$ref`s."""
    place = target_of(root, schema["$ref"]) if isinstance(schema, Mapping) and "$ref" in schema else None
    if place is None:
        return _plain(root, resolved(root, schema), within)
    if place[0] in within:
        raise _CircleError(place[0])
    try:
        return _plain(root, resolved(root, schema), (*within, place[0]))
    except _CircleError as circle:
        if circle.path == place[0]:
            return _JSON
        raise


def _plain(root: Schema, schema: Schema, within: tuple[Path, ...]) -> Shape:
    if not isinstance(schema, Mapping) or "$ref" in schema or len(within) > MAX_DEPTH:
        return _JSON
    if not _names_types(schema):
        return _JSON if "allOf" in schema else _chosen(root, branches(schema), within)
    types = set(types_of(schema)) - {"null"}
    kind = "number" if types == {"integer", "number"} else types.pop() if len(types) == 1 else ""
    if kind == "object":
        return _struct(root, schema, within)
    if kind == "array":
        return _list(root, schema, within)
    return Shape(_FORMATS.get(str(schema.get("format")), "text") if kind == "string" else _SCALARS.get(kind, "json"))


def _chosen(root: Schema, choice: list[Schema], within: tuple[Path, ...]) -> Shape:
    """The shape of values of which each fits one of some schemas."""
    shapes = [_shape(root, each, within) for each in choice if not _is_null(root, each)]
    is_one = bool(shapes) and all(shape == shapes[0] for shape in shapes)
    return shapes[0] if len(shapes) == 1 or (is_one and shapes[0].kind in _SCALARS.values()) else _JSON


def _names_types(schema: Mapping[str, Any]) -> bool:
    """Whether a schema says itself of which types its values are: properties alone let every other type be."""
    return any(word in schema for word in ("type", "enum", "const"))


def _struct(root: Schema, schema: Mapping[str, Any], within: tuple[Path, ...]) -> Shape:
    if not _is_closed(schema):
        return _JSON
    fields = tuple((name, _shape(root, each, within)) for name, each in schema["properties"].items())
    return Shape("struct", fields=fields)


def _list(root: Schema, schema: Mapping[str, Any], within: tuple[Path, ...]) -> Shape:
    """A list of values of one shape. One whose places have schemas of their own is JSON text."""
    items = schema.get("items")
    if "prefixItems" in schema or not isinstance(items, Mapping):
        return _JSON
    return Shape("list", item=_shape(root, items, within))


def _is_closed(schema: Mapping[str, Any]) -> bool:
    """Whether an object's properties are all named, as far as it says; a model's answer is asked to have no others."""
    names = schema.get("properties")
    is_open = schema.get("additionalProperties", False) is not False or schema.get("patternProperties")
    return isinstance(names, Mapping) and bool(names) and not is_open


def _is_null(root: Schema, schema: Schema) -> bool:
    found = resolved(root, schema)
    return isinstance(found, Mapping) and types_of(found) == ["null"]


# --- cells ---


def converter(shape: Shape) -> Convert | None:
    """Makes the cell of a value that fits its schema, null included; None where it is the value itself.

    What it gives raises `UnfitError` for a value that the column can't hold.
    """
    match shape.kind:
        case "text" | "flag":
            return None
        case "list":
            assert shape.item is not None  # noqa: S101 - for the type checker: a list has one
            each = converter(shape.item)
            return None if each is None else _list_converter(each)
        case "struct":
            made = [(name, converter(field)) for name, field in shape.fields]
            inner = [(name, each) for name, each in made if each is not None]
            return _struct_converter(inner) if inner else None
    return _CONVERTERS[shape.kind]


def _list_converter(each: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if value is None:
            return None
        cells = []
        for at, item in enumerate(value):
            try:
                cells.append(each(item))
            except UnfitError as error:
                error.path = (at, *error.path)
                raise
        return cells

    return convert


def _struct_converter(inner: list[tuple[str, Convert]]) -> Convert:
    def convert(value: Any) -> Any:
        return None if value is None else value | converted(value, inner)

    return convert


def converted(value: Mapping[str, Any], inner: list[tuple[str, Convert]]) -> dict[str, Any]:
    """The cells of an object's properties, by name. Raises `UnfitError` with the path from the object."""
    cells = {}
    for name, each in inner:
        try:
            cells[name] = each(value.get(name))
        except UnfitError as error:
            error.path = (name, *error.path)
            raise
    return cells


def _integer(value: Any) -> int | None:
    if value is None:
        return None
    whole = value if type(value) is int else int(value)
    if not _LEAST <= whole <= _MOST:
        raise UnfitError(f"{str(whole)[:40]} is outside the range of 64-bit integers")
    return whole


def _double(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise UnfitError("the number is too large") from None


def _date(value: Any) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise UnfitError(f"{value[:40]!r} is no date from 0001-01-01 to 9999-12-31") from None


def _moment(value: Any) -> datetime | None:
    """In UTC, to the microsecond: digits beyond are in the answer's text alone."""
    try:
        return None if value is None else datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnfitError(f"{value[:40]!r} is no date and time from year 1 to 9999 in UTC") from None


def _json_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_CONVERTERS: Final[Mapping[Kind, Convert]] = {
    "integer": _integer,
    "number": _double,
    "date": _date,
    "moment": _moment,
    "json": _json_text,
}
