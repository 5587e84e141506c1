"""The JSON Schema of the section `judge`: sections of a job, and the ways to ask a judge."""

from typing import Any

from cometbatch.job.judge_keys import RESPONSE_KEYS, SECTIONS, SINGLE, WAYS
from cometbatch.job.key import Key, nullable, object_schema
from cometbatch.job.keys import KEYS
from cometbatch.job.keys import SINGLE as KEYS_BESIDE


def keys_of(section: str) -> dict[str, Key]:
    """The keys that a section of the judge may have."""
    if section in WAYS:
        return WAYS[section]
    return {name: key for name, key in KEYS[section].items() if section != "response" or name in RESPONSE_KEYS}


def judge_schema() -> dict[str, Any]:
    """The JSON Schema of the section `judge`."""
    found = {name: nullable(object_schema(keys_of(name))) for name in (*WAYS, *SECTIONS)}
    found |= {name: nullable(KEYS_BESIDE[name].kind.schema) for name in SINGLE}
    found["prices"] = {"anyOf": [{"enum": ["catalog", "none", None]}, found["prices"]]}
    return {"type": "object", "additionalProperties": False, "properties": found}
