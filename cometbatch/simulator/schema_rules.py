"""What a format refuses of the schema that it is sent: a 400, at whatever depth it stands.

Written by itself, from the vendors' own descriptions and not from what the client sends, so that the two are checks of
each other.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

DEEP_LEVELS = 5  # levels of a schema from which a gateway takes `additionalProperties` away; below, they stay

_OF_OBJECTS: Final = frozenset({"type", "properties", "required", "additionalProperties"})
_OF_ALL: Final = frozenset({"description", "enum", "const", "anyOf", "$defs", "$ref", "items"})
_STRICT: Final = (
    _OF_OBJECTS
    | _OF_ALL
    | {"pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"minItems", "maxItems"}
)
_FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_MESSAGES: Final = _OF_OBJECTS | _OF_ALL | {"allOf", "title", "format", "minItems"}
_GEMINI: Final = (
    _OF_OBJECTS | _OF_ALL | {"$id", "$anchor", "format", "title", "prefixItems", "minItems", "maxItems"}
) - {"const"} | {"minimum", "maximum", "oneOf", "propertyOrdering"}
_TYPED: Final = frozenset({"type", "anyOf", "allOf", "enum", "const", "$ref"})


def refused(format_name: str, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a schema that a format is sent, with its place; None where it is taken."""
    if format_name in ("chat", "responses") and schema.get("type") != "object":
        return "schema must have type 'object' at its root"
    rules = {"messages": _messages_rules, "gemini": _gemini_rules}.get(format_name, _strict_rules)
    for place, inner in _schemas(schema, "#"):
        if words := rules(inner):
            return f"In {place}: {words}"
    return None


def refused_deep(schema: Mapping[str, Any]) -> str | None:
    """The first `additionalProperties` below the levels from which a gateway takes it away; None if there is none."""
    for place, inner in _schemas(schema, "#"):
        levels = place.count("/properties/") + place.count("/items")
        if levels > DEEP_LEVELS and "additionalProperties" in inner:
            return f'Unknown name "additionalProperties" at {place}'
    return None


def _unknown(schema: Mapping[str, Any], known: frozenset[str]) -> str | None:
    unknown = next((word for word in schema if word not in known), None)
    return None if unknown is None else f"'{unknown}' is not permitted"


def _closed(schema: Mapping[str, Any]) -> str | None:
    if not _TYPED & schema.keys():
        return "schema must have a 'type' key"
    if "object" in _types(schema) and schema.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false"
    return None


def _strict_rules(schema: Mapping[str, Any]) -> str | None:
    if "$ref" in schema and len(schema.keys() - {"$defs"}) > 1:
        return "'$ref' cannot have keywords beside it"
    if schema.get("format", "date") not in _FORMATS:
        return f"'{schema['format']}' is not a valid format"
    names = schema.get("properties", {}).keys()
    if names and set(schema.get("required", ())) != set(names):
        return "'required' is required to be supplied and to be an array including every key in properties"
    if "array" in _types(schema) and "items" not in schema:
        return "array schema missing items"
    return _unknown(schema, _STRICT) or _closed(schema)


def _messages_rules(schema: Mapping[str, Any]) -> str | None:
    if schema.get("format", "uri") not in _FORMATS | {"uri"}:
        return f"format '{schema['format']}' is not supported"
    if schema.get("minItems", 0) not in (0, 1):
        return "minItems other than 0 and 1 is not supported"
    return _unknown(schema, _MESSAGES) or _closed(schema)


def _gemini_rules(schema: Mapping[str, Any]) -> str | None:
    if "$ref" in schema and any(not word.startswith("$") for word in schema):
        return "no fields other than those starting with $ may be set beside $ref"
    if any(isinstance(value, bool) or not isinstance(value, str | int | float) for value in schema.get("enum", ())):
        return "enum values must be strings or numbers"
    return _unknown(schema, _GEMINI)


def _types(schema: Mapping[str, Any]) -> list[str]:
    named = schema.get("type", [])
    return [named] if isinstance(named, str) else list(named)


def _schemas(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(schema, Mapping):
        return
    yield place, schema
    for word in ("items", "additionalProperties"):
        yield from _schemas(schema.get(word), f"{place}/{word}")
    for word in ("properties", "$defs"):
        for name, inner in (schema.get(word) or {}).items():
            yield from _schemas(inner, f"{place}/{word}/{name}")
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for at, inner in enumerate(schema.get(word) or ()):
            yield from _schemas(inner, f"{place}/{word}/{at}")
