"""What a key of a job file is: the kind of its value, its meaning, and the JSON Schema of a mapping of keys."""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

from cometbatch.job.kinds import Kind


class Key(Struct, frozen=True):
    """The kind of a key's value, and its meaning in words."""

    kind: Kind[Any]
    meaning: str


class JobKey(Struct, frozen=True):
    """One key of a job file, for documentation: its path, the values that it takes, its default, its meaning."""

    path: str
    type: str
    default: str
    meaning: str


def object_schema(keys: Mapping[str, Key], *, required: Collection[str] = ()) -> dict[str, Any]:
    """JSON Schema of a mapping with these keys: null is a key that is left out, where it may be."""
    each = {
        name: {**(key.kind.schema if name in required else nullable(key.kind.schema)), "description": key.meaning}
        for name, key in keys.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": each, "required": list(required)}


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of the same values and null."""
    found = dict(schema)
    if "enum" in found:
        found["enum"] = [*found["enum"], None]
    elif "type" in found:
        found["type"] = [found["type"], "null"]
    elif "anyOf" in found:
        found["anyOf"] = [*found["anyOf"], {"type": "null"}]
    return found
