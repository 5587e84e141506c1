"""Files of a run that are one JSON value each. Guards: a damaged one is refused by name, never guessed at."""

from typing import TypeVar

import msgspec

from cometbatch.errors import START_OVER, CheckpointError

T = TypeVar("T")


def decode(content: bytes, kind: type[T], where: str) -> T:
    """The value in a file. Raises `CheckpointError`, with the ways on, where it is not of this kind."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # the last two are msgspec's too
        raise CheckpointError(
            f"{where}: this file is damaged ({error}). Restore it from a copy, or {START_OVER}"
        ) from error
