"""The JSON Schema of a job file, made from the table of keys: what an editor completes, explains and marks as wrong.

It says of each key by itself what the reading of a job says. Rules between keys (a client key without its certificate,
a template that does not compile) are the reading's alone.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from cometbatch.job.axis_schema import matrix_schema
from cometbatch.job.judge_schema import judge_schema
from cometbatch.job.key import nullable, object_schema
from cometbatch.job.keys import FREE, JUDGE, KEYS, MATRIX, REQUIRED, SECTIONS, SINGLE, WORDS_FOR_SECTIONS
from cometbatch.job.score_keys import scores_schema

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest draft that editors know in full."""
PROMPT = ("user", "messages", "messages_column")
"""Of these keys of `prompt`, one is needed."""
MEANINGS = {
    "input": "the table that is read",
    "output": "the result that is written",
    "target": "which service and model are asked",
    "prompt": "what is asked for each row: templates in which {{ column }} stands for a cell",
    "params": "how an answer is generated",
    "response": "what answers must be: checked, asked for again where they do not fit, and as typed columns",
    "limits": "how fast to go",
    "retry": "how long to try",
    "prices": "where prices come from (none: costs stay unknown), or prices of your own",
    "budget": "what may be spent",
    "accept": "how many rows may have no whole answer in a run that ends with exit code 0",
    "reuse": "which answers of earlier runs are taken instead of sending calls again; true: this output's own",
    "choices": "the choices of each question, which prompts show and scores know",
    "report": "what the leaderboard shows, and what it compares",
    "engine": "how many processes send the calls, and where; changes no answer",
    "simulator": "how the simulator behaves; unused with a service",
}
"""What a section is about. One that is not named here is shown without a word."""

FREE_SCHEMAS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    MATRIX: matrix_schema,
    JUDGE: judge_schema,
    "score": scores_schema,
}
"""What makes the JSON Schema of each section whose keys a user names."""

ALWAYS: Final = ("input", "output")
TABLE: Final = r"\.(csv|tsv|parquet)(\.gz|\.zst)?$"
"""An input that is surely a table of prompts. JSON lines may be whole requests: a job says less of these.

So does a job with a matrix, whose axes may say what is asked.
"""


def job_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a job file. Null stands for a key that is left out."""
    sections = {section: _section(section) for section in KEYS}
    needed = {section: [name for other, name in REQUIRED if other == section] for section in sections}
    return {
        "$schema": DRAFT,
        "title": "A job of cometbatch",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: (schema if name in ALWAYS else nullable(schema)) | {"description": MEANINGS.get(name, "")}
            for name, schema in sections.items()
        }
        | {name: nullable(key.kind.schema) | {"description": key.meaning} for name, key in SINGLE.items()}
        | {name: nullable(schema()) | {"description": FREE[name]} for name, schema in FREE_SCHEMAS.items()},
        "required": [*ALWAYS],
        "if": {"properties": {"input": {"properties": {"path": {"pattern": TABLE}}}, MATRIX: {"type": "null"}}},
        "then": {
            "properties": {
                "target": {"type": "object", "required": needed["target"], "properties": _given("target", needed)},
                "prompt": {
                    "anyOf": [
                        {"required": [name], "properties": _given("prompt", {"prompt": [name]})} for name in PROMPT
                    ]
                },
            },
            "required": ["target", "prompt"],
        },
    }


def _given(section: str, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Keys that are not to be null."""
    return {name: KEYS[section][name].kind.schema for name in names[section]}


def _section(section: str) -> dict[str, Any]:
    keys = KEYS[section]
    schema = object_schema(keys, required=[name for other, name in REQUIRED if other == section and section in ALWAYS])
    defaults = {field.name: field.default for field in msgspec.structs.fields(SECTIONS[section])}
    for name, each in schema["properties"].items():
        if (default := defaults.get(name)) not in (msgspec.NODEFAULT, None, "", ()):
            each["default"] = _plain(default)
    words = WORDS_FOR_SECTIONS.get(section)
    return schema if words is None else {"anyOf": [words.schema, schema]}


def _plain(default: object) -> object:
    match default:
        case Decimal():
            return float(default) if default % 1 else int(default)
        case tuple():
            return [_plain(each) for each in default]
    return default
