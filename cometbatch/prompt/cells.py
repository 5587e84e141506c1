"""Paths to what a cell holds: a column's name, then the names of fields within its structures, with points between.

A column whose own name has points in it is found by that name first.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from cometbatch.errors import did_you_mean


class PathError(ValueError):
    """A cell holds nothing at a path; the words say what it has instead."""


def roots(path: str) -> tuple[str, ...]:
    """The columns that a path may begin at: one of the whole name, and the one before the first point."""
    first = path.partition(".")[0]
    return (path,) if first == path else (path, first)


def column_of(path: str, columns: Collection[str]) -> str | None:
    """The column that a path begins at; None where there is none."""
    return next((name for name in roots(path) if name in columns), None)


def cell_at(path: str, values: Mapping[str, object]) -> object:
    """What a row holds at a path; None where the cell, or a structure on the way, is null.

    Text on the way is read as JSON, and of a list the field of each structure is taken. Raises `PathError` where there
    is no such field.
    """
    column = column_of(path, values)
    if column is None:
        raise PathError(f"there is no column {roots(path)[-1]!r}")
    value = values[column]
    if column == path:
        return value
    for name in path.removeprefix(f"{column}.").split("."):
        value = read_json(value) if isinstance(value, str) else value
        if value is None:
            return None
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            value = [_field(path, name, each) for each in value]
        else:
            value = _field(path, name, value)
    return value


def _field(path: str, name: str, value: object) -> object:
    if not isinstance(value, Mapping):
        raise PathError(f"{path}: {type(value).__name__} has no field {name!r}")
    if name not in value:
        near = did_you_mean(name, map(str, value)) or f"the fields are {', '.join(map(str, value))}"
        raise PathError(f"{path}: there is no field {name!r}; {near}")
    return value[name]


def read_json(text: str) -> object:
    """What a text in JSON stands for; the text itself where it is none."""
    try:
        found: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text
    return found
