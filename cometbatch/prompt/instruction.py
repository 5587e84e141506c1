"""What a prompt says of the answer's form, where no setting of the request says it: the same for every row."""

import json
from collections.abc import Sequence
from typing import Any, Final

from cometbatch.records import Message, TextPart

_ALONE: Final = "Write nothing before or after it."


def instruction(*, schema: Any = None, pattern: str | None = None) -> str:
    """The words that ask for JSON of a schema, for a text of a pattern, or for any JSON."""
    if pattern is not None:
        return f"Answer with a text that this regular expression matches as a whole. {_ALONE}\n{pattern}"
    if schema is None:
        return f"Answer with one JSON value. {_ALONE}"
    written = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return f"Answer with one JSON value that fits this JSON Schema. {_ALONE}\n{written}"


def instructed(messages: Sequence[Message], words: str) -> tuple[Message, ...]:
    """The messages with these words at the end of the first system message, or in one of their own before all."""
    if messages and messages[0].role == "system" and messages[0].content:
        *parts, last = messages[0].content
        said = TextPart(f"{last.text}\n\n{words}") if isinstance(last, TextPart) else last
        added = () if isinstance(last, TextPart) else (TextPart(words),)
        return Message("system", (*parts, said, *added)), *messages[1:]
    return Message.of_text("system", words), *messages
