"""`schema`: the JSON Schema of a job file, for editors and for programs that write job files."""

import json
from typing import Any

from cometbatch.job.json_schema import job_schema


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a job file, made from the table of keys.

    It says of each key what the reading of a job says. Rules between keys, templates and paths are the reading's alone.
    """
    return job_schema()


def schema_text() -> str:
    """The same as the text of a file."""
    return json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
