"""`params.extra` and a schema within a job: YAML -> values that JSON has, without surprises.

Guards that a value is sent as the user means it: `yes` and dates must be in quotes, `1e-3` is a number, infinity is
refused.
"""

import math
import re
from typing import Any

from cometbatch.job.kinds import INT64_MAX, PATH, Kind, decimal, expected, refuse_surrogates
from cometbatch.job.secrets import shown
from cometbatch.job.tree import List, Map, Node, Scalar, WrongError

_EXPONENTIAL = re.compile(r"[-+]?\d[\d_]*(?:\.\d*)?[eE][-+]?\d{1,4}")


def _read_extra(node: Node) -> dict[str, Any]:
    if not isinstance(node, Map):
        raise expected("a mapping, merged into the request's body", node)
    return _mapping(node)


def _mapping(node: Map) -> dict[str, Any]:
    for key, written in node.keys.items():
        if written.tag != "str":
            raise WrongError(f"expected text as key, found {shown(key)} at {written.where}: put it in quotes")
    return {key: _value(value) for key, value in node.entries.items()}


def _value(node: Node) -> object:
    match node:
        case Map():
            return _mapping(node)
        case List():
            return [_value(item) for item in node.items]
    is_exponential = node.tag == "str" and node.plain and _EXPONENTIAL.fullmatch(node.text)
    return _number(node) if node.tag in {"int", "float"} or is_exponential else _word(node)


def _word(node: Scalar) -> object:
    match node.tag, node.text.lower():
        case "null", _:
            return None
        case "bool", ("true" | "false") as word:
            return word == "true"
        case "bool", _:
            raise expected("true or false", node, "if the word itself is meant, put it in quotes")
    words = "a text, a number, true, false or null"
    if node.tag != "str":
        raise expected(words, node, "put it in quotes")
    refuse_surrogates(node.text, words)
    return node.text


def _number(node: Scalar) -> int | float:
    words = "a number that JSON can hold"
    found = decimal(node, words)
    if node.tag == "int" and abs(found) <= INT64_MAX:
        return int(found)
    if not math.isfinite(float(found)):
        raise expected(words, node)
    return float(found)


def _read_schema(node: Node) -> dict[str, Any] | str:
    """A schema that stands in the job, or the path of a file that holds one."""
    if isinstance(node, Map):
        return _mapping(node)
    if isinstance(node, List):
        raise expected(SCHEMA.words, node)
    return PATH.read(node)


EXTRA = Kind("a mapping", _read_extra, schema={"type": "object"})
SCHEMA: Kind[dict[str, Any] | str] = Kind(
    "a mapping, or the path of a file",
    _read_schema,
    takes_text=True,
    schema={"anyOf": [{"type": "object"}, PATH.schema]},
)
