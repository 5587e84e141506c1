"""The JSON Schema of the section `matrix`: what an editor completes of axes, and marks as wrong in their values."""

from typing import Any, Final

from cometbatch.job.axes import MAX_CELLS, axis_path
from cometbatch.job.key import nullable
from cometbatch.job.keys import KEYS, MATRIX_KEYS

_LABEL: Final = {"type": ["string", "number", "boolean"]}


def matrix_schema() -> dict[str, Any]:
    """Axes that set one key, by its name, and variants under any other."""
    short = {"model": KEYS["target"]["model"], "format": KEYS["target"]["format"]}
    keys = {f"{section}.{name}": key for section, keys in KEYS.items() for name, key in keys.items()}
    axes = {name: key for name, key in (short | keys).items() if axis_path(name) is not None}
    samples = {name: nullable(key.kind.schema) | {"description": key.meaning} for name, key in MATRIX_KEYS.items()}
    variant = {"type": "object", "properties": {"name": _LABEL}, "required": ["name"]}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {name: _values(_one_of(key.kind.schema)) for name, key in axes.items()} | samples,
        "additionalProperties": _values({"anyOf": [variant, _one_of({"not": {"type": "object"}})]}),
    }


def _values(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": ["array", "null"], "items": schema, "minItems": 1, "maxItems": MAX_CELLS}


def _one_of(schema: dict[str, Any]) -> dict[str, Any]:
    """A value of an axis as it stands, or with a name."""
    named = {"name": _LABEL, "value": nullable(schema)}
    described = {"type": "object", "properties": named, "required": [*named], "additionalProperties": False}
    return {"anyOf": [schema, described]}
