"""JSON Schema as a tree: where schemas stand within a schema, and where a `$ref` leads. Pure; nothing is fetched.

What stands in `enum`, `const`, `default` and `examples` is data, and never taken for a schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

Schema: TypeAlias = Any
"""A mapping, or a truth value: true fits everything, false nothing. Anything else is refused when it is compiled."""
Path: TypeAlias = tuple[str | int, ...]

ONE: Final = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
"""Keywords whose value is a schema; that of `items` may be a list of them in older drafts."""
LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_TYPE_WORDS: Final = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (Mapping, "object"),
)
NULL: Final[dict[str, Any]] = {"type": "null"}


def inner_schemas(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Schema]]:
    """The schemas directly within a schema, each with its path from there."""
    for word, value in schema.items():
        if word in ONE and isinstance(value, Mapping | bool):
            yield (word,), value
        elif word in LISTS and isinstance(value, Sequence) and not isinstance(value, str):
            yield from (((word, at), each) for at, each in enumerate(value))
        elif word in MAPS and isinstance(value, Mapping):
            yield from (((word, name), each) for name, each in value.items() if isinstance(each, Mapping | bool))


def all_schemas(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every mapping that is a schema, the whole one first, each with its path."""
    if isinstance(schema, Mapping):
        yield path, schema
        for inner_path, inner in inner_schemas(schema):
            yield from all_schemas(inner, path + inner_path)


def pointer_of(path: Path) -> str:
    """A path as a person writes it: `#/properties/urgency`."""
    return "#" + "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def target_of(root: Schema, reference: object) -> tuple[Path, Schema] | None:
    """Where a `$ref` leads within the whole schema: path and schema. None where that is not within it."""
    if not isinstance(reference, str):
        return None
    own = root.get("$id") if isinstance(root, Mapping) else None
    if isinstance(own, str) and own and reference.startswith(own.rstrip("#")):
        reference = "#" + reference[len(own.rstrip("#")) :].lstrip("#")
    if not reference.startswith("#"):
        return None
    pointer = unquote(reference[1:])
    if pointer and not pointer.startswith("/"):
        return next(((path, found) for path, found in all_schemas(root) if found.get("$anchor") == pointer), None)
    path: Path = ()
    value = root
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and name in value:
            value, path = value[name], (*path, name)
        elif isinstance(value, Sequence) and not isinstance(value, str) and name.isdecimal() and int(name) < len(value):
            value, path = value[int(name)], (*path, int(name))
        else:
            return None
    return path, value


def resolved(root: Schema, schema: Schema) -> Schema:
    """A schema with its own `$ref` followed, and an `allOf` of one opened: what both say together.

    Properties are those of both; where both say something else of another keyword, what stands beside the `$ref`
    counts. A `$ref` that leads in a circle or nowhere stays as it is.
    """
    seen: set[Path] = set()
    while isinstance(schema, Mapping):
        if "$ref" in schema:
            found = target_of(root, schema["$ref"])
            beside = {word: value for word, value in schema.items() if word != "$ref"}
            if found is None or found[0] in seen or not isinstance(found[1], Mapping):
                return found[1] if found is not None and found[0] not in seen and not beside else schema
            seen.add(found[0])
            schema = _joined(found[1], beside)
        elif isinstance(schema.get("allOf"), Sequence) and len(schema["allOf"]) == 1:
            (alone,) = schema["allOf"]
            if not isinstance(alone, Mapping):
                return schema
            beside = {word: value for word, value in schema.items() if word != "allOf"}
            schema = _joined(alone, beside)
        else:
            return schema
    return schema


def _joined(schema: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**schema, **beside}
    for word in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(word), Mapping) and isinstance(beside.get(word), Mapping):
            joined[word] = {**schema[word], **beside[word]}
    if isinstance(schema.get("required"), list) and isinstance(beside.get("required"), list):
        joined["required"] = list(dict.fromkeys(schema["required"] + beside["required"]))
    return joined


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names; where it names none, those of its fixed values, or what its keywords are about."""
    named = schema.get("type")
    if isinstance(named, str):
        return [named]
    if isinstance(named, Sequence):
        return [str(each) for each in named]
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, Sequence) and not isinstance(values, str):
        return list(dict.fromkeys(map(type_of_value, values)))
    if isinstance(schema.get("properties"), Mapping):
        return ["object"]
    return ["array"] if "items" in schema or "prefixItems" in schema else []


def type_of_value(value: object) -> str:
    """The word of JSON Schema for the type of a value."""
    if value is None:
        return "null"
    return next((word for kind, word in _TYPE_WORDS if isinstance(value, kind)), "array")


def allows_null(root: Schema, schema: Schema) -> bool:
    """Whether a schema lets null be, as far as its form tells; what can't be told counts as no."""
    found = resolved(root, schema)
    if not isinstance(found, Mapping):
        return found is True
    if "const" in found or isinstance(found.get("enum"), Sequence):
        return None in ([found["const"]] if "const" in found else found["enum"])
    choice = branches(found)
    if choice and not any(allows_null(root, each) for each in choice):
        return False
    return "null" in types_of(found) if "type" in found else bool(choice) or not found


def branches(schema: Mapping[str, Any]) -> list[Schema]:
    """The schemas of which one is to fit, `anyOf` and `oneOf` alike; none where there is no choice."""
    found = schema.get("anyOf") or schema.get("oneOf")
    return list(found) if isinstance(found, Sequence) and not isinstance(found, str) else []
