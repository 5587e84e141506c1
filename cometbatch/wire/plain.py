"""The short way to read a usual answer: decoded into just what is read of it, several times faster than into dicts.

Hides what may go wrong on it: then the reply is nothing usual, and the long way reads it.
"""

from collections.abc import Callable
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from cometbatch.records import HttpResponse, Usage
from cometbatch.wire.counts import MAX_COUNT, consistent_usage

T = TypeVar("T")
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
OK: Final = 200  # any other success is nothing usual
MAX_BYTES: Final = 128 * 1024  # the long way bounds what larger replies may be made of, and holds up no one twice


class Details(Struct, gc=False):
    """What OpenAI's formats tell of the input, or of the output."""

    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


def usage_of_totals(
    input_tokens: int | None, output_tokens: int | None, of_input: Details | None, of_output: Details | None
) -> Usage:
    """Usage as OpenAI's formats count it, as inclusive totals with details."""
    return consistent_usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read=None if of_input is None else of_input.cached_tokens,
        reasoning=None if of_output is None else of_output.reasoning_tokens,
    )


def decoded(response: HttpResponse, decode: Callable[[bytes], T]) -> T | None:
    """The body of a usual success as this type; None where it is anything else."""
    if len(response.body) > MAX_BYTES or response.status != OK:
        return None
    try:
        return decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
