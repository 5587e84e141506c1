"""Writes what is sent for each schema in each format and mode: `python -m tests.structured.golden`.

The files are compared by `test_golden.py`; look at the difference before it is committed.
"""

import json
from pathlib import Path
from typing import Any, get_args

from cometbatch.job.targets import Response
from cometbatch.records import GenerationParams, Message
from cometbatch.wire import FORMATS
from cometbatch.wire.sent_schema import sent_schema
from cometbatch.wire.structured import Mode, with_part
from tests.structured.schemas import CASES

FOLDER = Path(__file__).parent / "golden"
EXTRA: dict[str, dict[str, Any]] = {
    "chat": {"reasoning_effort": "low"},
    "responses": {"text": {"verbosity": "low"}},
    "messages": {"output_config": {"effort": "low"}},
    "gemini": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
}


def bodies(format_name: str) -> dict[str, Any]:
    """What is sent in a format: for each schema the body, or what can't be expressed; then one schema in each mode."""
    by_name = {name: body(format_name, Response(schema=case.schema)) for name, case in CASES.items()}
    in_modes = {
        f"{mode}: optional text": body(format_name, Response(schema=CASES["optional text"].schema, mode=mode))
        for mode in get_args(Mode)
        if (mode, format_name) != ("json", "messages")
    }
    return by_name | in_modes


def body(format_name: str, response: Response) -> Any:
    """The body of a request, or the places of a schema that the format can't express."""
    if response.mode in {"native", "tool"} and response.schema is not None:
        found = sent_schema(format_name, response.schema, root_object=response.mode == "tool")
        if found.problems:
            return [f"{problem.path}: {problem.words}" for problem in found.problems]
    params = with_part(GenerationParams(extra=EXTRA[format_name]), response.body_part(format_name))
    request = FORMATS[format_name].request_builder("m", params)([Message.of_text("user", "Hi")])
    return json.loads(request.body)


def path_of(format_name: str) -> Path:
    """The file of a format."""
    return FOLDER / f"{format_name}.json"


def text_of(format_name: str) -> str:
    """What the file of a format is to hold."""
    return json.dumps(bodies(format_name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in FORMATS:
        path_of(name).write_text(text_of(name), encoding="utf-8")
