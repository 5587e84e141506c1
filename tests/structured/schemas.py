"""Schemas as people write them and as libraries make them, each with answers that fit and answers that do not."""

from typing import Any

from msgspec import Struct


class Case(Struct, frozen=True):
    """A schema. `fits`, `misfits`: texts of answers."""

    schema: dict[str, Any]
    fits: tuple[str, ...]
    misfits: tuple[str, ...]


def _object(properties: dict[str, Any], *required: str, **others: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **others}


NODE = _object({"name": {"type": "string"}, "inner": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}, "name")
DEEP: dict[str, Any] = {"type": "string"}
for _ in range(7):
    DEEP = _object({"in": DEEP}, "in")
WIDE = _object({f"p{n}": {"type": "integer"} for n in range(60)}, "p0")

CASES: dict[str, Case] = {
    "one text": Case(
        _object({"word": {"type": "string"}}, "word"), ('{"word":"a"}', '{"word":""}'), ('{"word":1}', "{}", '"a"')
    ),
    "optional text": Case(
        _object({"word": {"type": "string"}, "more": {"type": "string"}}, "word"),
        ('{"word":"a"}', '{"word":"a","more":"b"}'),
        ('{"more":"b"}', '{"word":null}'),
    ),
    "nullable and optional": Case(
        _object({"a": {"type": ["string", "null"]}, "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "a"),
        ('{"a":null}', '{"a":"x","b":null}', '{"a":"x","b":3}'),
        ('{"b":null}', '{"a":"x","b":"y"}'),
    ),
    "closed": Case(
        _object({"a": {"type": "integer"}}, "a", additionalProperties=False),
        ('{"a":1}',),
        ('{"a":1,"b":2}', '{"a":1.5}'),
    ),
    "bounds of numbers": Case(
        _object(
            {
                "stars": {"type": "integer", "minimum": 1, "maximum": 5},
                "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.25},
            },
            "stars",
            "share",
        ),
        ('{"stars":5,"share":0.5}', '{"stars":1.0,"share":0.25}'),
        ('{"stars":9,"share":0.5}', '{"stars":3,"share":1}', '{"stars":3,"share":0.3}'),
    ),
    "bounds of texts": Case(
        _object({"code": {"type": "string", "minLength": 2, "maxLength": 4, "description": "Of a place."}}, "code"),
        ('{"code":"ab"}',),
        ('{"code":"a"}', '{"code":"abcde"}'),
    ),
    "pattern": Case(
        _object({"plate": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,4}$"}}, "plate"),
        ('{"plate":"AB-123"}',),
        ('{"plate":"AB-12"}', '{"plate":"xAB-123"}'),
    ),
    "formats": Case(
        _object(
            {
                name: {"type": "string", "format": name}
                for name in ("date", "date-time", "email", "uri", "uuid", "ipv4")
            },
            "date",
        ),
        ('{"date":"2026-02-28","date-time":"2026-02-28T10:00:00Z","email":"a@example.com"}', '{"date":"2024-02-29"}'),
        ('{"date":"2026-02-30"}', '{"date":"2026-02-28","uuid":"x"}', '{"date":"2026-02-28","date-time":"noon"}'),
    ),
    "enum": Case(
        _object({"kind": {"enum": ["bug", "billing"]}, "level": {"type": "integer", "enum": [1, 2]}}, "kind"),
        ('{"kind":"bug"}', '{"kind":"billing","level":2}'),
        ('{"kind":"Bug"}', '{"kind":"bug","level":3}'),
    ),
    "enum with null": Case(
        _object({"kind": {"type": ["string", "null"], "enum": ["a", "b", None]}}, "kind"),
        ('{"kind":null}', '{"kind":"a"}'),
        ('{"kind":"c"}', "{}"),
    ),
    "enum of truth values": Case(
        _object({"sure": {"enum": [True]}, "mixed": {"enum": ["a", 1, False]}}, "sure"),
        ('{"sure":true}', '{"sure":true,"mixed":false}'),
        ('{"sure":false}', '{"sure":true,"mixed":true}'),
    ),
    "const": Case(
        _object({"version": {"const": "v1"}, "count": {"const": 3}}, "version"),
        ('{"version":"v1"}', '{"version":"v1","count":3}'),
        ('{"version":"v2"}', '{"version":"v1","count":4}'),
    ),
    "list of texts": Case(
        _object({"tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3}}, "tags"),
        ('{"tags":["a"]}',),
        ('{"tags":[]}', '{"tags":["a","b","c","d"]}', '{"tags":[1]}'),
    ),
    "list without repeats": Case(
        _object({"ids": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "minItems": 2}}, "ids"),
        ('{"ids":[1,2]}',),
        ('{"ids":[1,1]}', '{"ids":[1]}'),
    ),
    "list of objects": Case(
        _object(
            {
                "people": {
                    "type": "array",
                    "items": _object({"name": {"type": "string"}, "age": {"type": "integer"}}, "name"),
                }
            },
            "people",
        ),
        ('{"people":[]}', '{"people":[{"name":"a"},{"name":"b","age":3}]}'),
        ('{"people":[{"age":3}]}', '{"people":[{"name":"a","age":"3"}]}'),
    ),
    "nested objects": Case(
        _object(
            {"from": _object({"city": {"type": "string"}, "zip": {"type": "string"}}, "city"), "n": {"type": "number"}}
        ),
        ("{}", '{"from":{"city":"Bern"},"n":2}'),
        ('{"from":{}}', '{"n":"2"}'),
    ),
    "one of two kinds": Case(
        _object(
            {
                "animal": {
                    "oneOf": [
                        _object(
                            {"kind": {"const": "cat"}, "lives": {"type": "integer"}, "name": {"type": "string"}}, "kind"
                        ),
                        _object({"kind": {"const": "dog"}, "name": {"type": "string"}}, "kind", "name"),
                    ]
                }
            },
            "animal",
        ),
        ('{"animal":{"kind":"cat"}}', '{"animal":{"kind":"dog","name":"Rex"}}'),
        ('{"animal":{"kind":"dog"}}', '{"animal":{"kind":"cow"}}'),
    ),
    "text or number": Case(
        _object(
            {"size": {"anyOf": [{"type": "string"}, {"type": "number"}]}, "any": {"type": ["integer", "string"]}},
            "size",
        ),
        ('{"size":"L"}', '{"size":4.5,"any":1}'),
        ('{"size":true}', '{"size":1,"any":1.5}'),
    ),
    "shared definition": Case(
        _object(
            {"home": {"$ref": "#/$defs/Place"}, "work": {"$ref": "#/$defs/Place"}},
            "home",
            **{"$defs": {"Place": _object({"city": {"type": "string"}, "zip": {"type": "string"}}, "city")}},
        ),
        ('{"home":{"city":"Rome"}}', '{"home":{"city":"Rome"},"work":{"city":"Oslo","zip":"1"}}'),
        ('{"home":{}}', '{"work":{"city":"Rome"}}'),
    ),
    "described reference": Case(
        _object(
            {
                "mood": {"$ref": "#/definitions/Mood", "description": "Of the writer."},
                "other": {"$ref": "#/definitions/Mood"},
            },
            "mood",
            definitions={"Mood": {"type": "string", "enum": ["good", "bad"], "title": "Mood"}},
        ),
        ('{"mood":"good"}', '{"mood":"bad","other":"good"}'),
        ('{"mood":"so so"}', '{"other":"good"}'),
    ),
    "reference in allOf": Case(
        _object(
            {"mood": {"allOf": [{"$ref": "#/$defs/Mood"}], "title": "The mood", "default": "good"}},
            **{"$defs": {"Mood": {"type": "string", "enum": ["good", "bad"]}}},
        ),
        ("{}", '{"mood":"bad"}'),
        ('{"mood":"meh"}', '{"mood":1}'),
    ),
    "a tree in an optional list": Case(
        _object({"root": {"$ref": "#/$defs/Node"}}, "root", **{"$defs": {"Node": NODE}}),
        ('{"root":{"name":"a"}}', '{"root":{"name":"a","inner":[{"name":"b","inner":[]}]}}'),
        ('{"root":{"name":"a","inner":[{}]}}', '{"root":{"inner":[]}}'),
    ),
    "a tree of the whole": Case(
        _object({"name": {"type": "string"}, "inner": {"type": "array", "items": {"$ref": "#"}}}, "name"),
        ('{"name":"a"}', '{"name":"a","inner":[{"name":"b"}]}'),
        ('{"name":"a","inner":[{}]}',),
    ),
    "a pair": Case(
        _object(
            {
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, {"type": "integer"}],
                    "minItems": 2,
                    "maxItems": 2,
                }
            },
            "pair",
        ),
        ('{"pair":["a",1]}',),
        ('{"pair":[1,"a"]}', '{"pair":["a"]}', '{"pair":["a",1,2]}'),
    ),
    "conditions": Case(
        _object(
            {"paid": {"type": "boolean"}, "by": {"type": "string", "not": {"const": ""}}},
            "paid",
            **{
                "if": {"properties": {"paid": {"const": True}}},
                "then": {"required": ["by"]},
                "dependentRequired": {"by": ["paid"]},
            },
        ),
        ('{"paid":false}', '{"paid":true,"by":"card"}'),
        ('{"paid":true}', '{"paid":true,"by":""}'),
    ),
    "titles and examples": Case(
        _object(
            {
                "Name of it": {
                    "type": "string",
                    "title": "Name",
                    "examples": ["Ann"],
                    "deprecated": True,
                    "$comment": "no",
                }
            },
            "Name of it",
            title="Person",
            **{"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/person"},
        ),
        ('{"Name of it":"Bo"}',),
        ('{"Name of it":null}',),
    ),
    "seven levels": Case(
        DEEP,
        ('{"in":' * 7 + '"x"' + "}" * 7,),
        ('{"in":' * 6 + '"x"' + "}" * 6,),
    ),
    "many properties": Case(WIDE, ('{"p0":1}', '{"p0":1,"p59":2}'), ('{"p1":1}', '{"p0":1,"p7":"x"}')),
    "a list alone": Case(
        {"type": "array", "items": {"type": "integer", "minimum": 0}}, ("[]", "[1,2]"), ("[-1]", '{"a":[1]}', "1")
    ),
    "free objects": Case(
        _object({"counts": {"type": "object", "additionalProperties": {"type": "integer"}}, "any": {"type": "object"}}),
        ("{}", '{"counts":{"a":1},"any":{"x":[null]}}'),
        ('{"counts":{"a":"1"}}', '{"any":[]}'),
    ),
    "both of two": Case(
        _object({"word": {"allOf": [{"type": "string", "minLength": 2}, {"type": "string", "pattern": "^a"}]}}, "word"),
        ('{"word":"ab"}',),
        ('{"word":"a"}', '{"word":"ba"}'),
    ),
    "anything": Case(_object({"data": {}}, "data"), ('{"data":1}', '{"data":[null]}'), ("{}",)),
    "a tree that must have more": Case(
        _object(
            {"root": {"$ref": "#/$defs/Node"}},
            "root",
            **{"$defs": {"Node": _object({"inner": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}, "inner")}},
        ),
        ('{"root":{"inner":[{"inner":[]}]}}',),
        ('{"root":{"inner":[{}]}}',),
    ),
}
"""By name."""
