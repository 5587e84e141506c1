"""A failure in the words that a log may have: its facts, and nothing that may quote the prompt. Pure."""

import re
from typing import Final

from cometbatch.records import KEY_SHAPE, Failure

PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+=-]{0,127}")
"""What a code or an id looks like, and no sentence does."""


def plain_word(text: str | None) -> str | None:
    """A service's code or id; None where it is long, has spaces or is a key, since it may be anything then."""
    return text if text and PLAIN_WORD.fullmatch(text) and not KEY_SHAPE.search(text) else None


def in_short(failure: Failure) -> str:
    """Its kind, status, code and request id in place of the service's message; of the network, what it says."""
    if failure.status is None and failure.kind in {"connection", "timeout"}:
        return f"{failure.kind}: {failure.message}"
    status = "" if failure.status is None else f"HTTP {failure.status}"
    named = {"code": plain_word(failure.code), "request id": plain_word(failure.request_id)}
    said = [failure.kind, status, *(f"{name} {word}" for name, word in named.items() if word)]
    return ", ".join(filter(None, said))
