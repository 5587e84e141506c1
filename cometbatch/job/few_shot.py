"""Examples that go before the messages of each row, read from a file when the job is loaded.

They become part of the job, so that a run keeps them whatever becomes of the file.
"""

import stat
from pathlib import Path
from typing import Final

import msgspec

from cometbatch.job.secrets import KEYS_DO_NOT_BELONG, holds_secret, printable
from cometbatch.job.tree import WrongError
from cometbatch.prompt.content import ContentError, messages_of
from cometbatch.prompt.conversation import Example
from cometbatch.records import TextPart

MAX_BYTES: Final = 128 << 10
"""Bytes of a file of examples. A run's manifest and each of its parts keep them, so a larger one is refused."""
_SHAPE: Final = "a JSON list of messages with role and content, or one such message a line"


def read_examples(path: Path) -> tuple[Example, ...]:
    """The messages in a JSON or JSONL file. Raises `WrongError` that names the file and the place in it."""
    name = printable(path)
    content = _read(path, name)
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _lines(content, name)
    if isinstance(found, dict):
        found = [found]
    try:
        messages = messages_of(found)
    except ContentError as error:
        raise WrongError(f"{name}: {error}; expected {_SHAPE}") from None
    examples = []
    for index, message in enumerate(messages):
        if message.role not in ("user", "assistant"):
            raise WrongError(f"{name}: [{index}].role: an example is of user or assistant; use prompt.system")
        if not all(isinstance(part, TextPart) for part in message.content):
            raise WrongError(f"{name}: [{index}].content: an example is text, and has no image")
        if holds_secret(message.text):
            raise WrongError(f"{name}: [{index}].content: this looks like a key: {KEYS_DO_NOT_BELONG}")
        examples.append(Example(message.role, message.text))
    return tuple(examples)


def _read(path: Path, name: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never be written
            raise WrongError(f"{name}: is not a plain file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a file name"
        raise WrongError(f"{name}: can't be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise WrongError(f"{name}: more than {MAX_BYTES >> 10} KiB of examples")
    return content.removeprefix(b"\xef\xbb\xbf")


def _lines(content: bytes, name: str) -> list[object]:
    found: list[object] = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise WrongError(f"{name}:{number}: no JSON ({error}); expected {_SHAPE}") from None
    return found
