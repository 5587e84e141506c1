"""`params.extra`: what a job adds to the request body, and the reasons why a format can't send something.

Law: `params.extra` never replaces what the format writes. Checking a job reports such a clash; a job that was not
checked keeps the format's value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cometbatch.records import Role

# Dotted path in `params.extra` -> the values with which a request still asks for one whole answer.
_ONE_WHOLE_ANSWER: Mapping[str, tuple[object, ...]] = {
    "stream": (None, False),
    "background": (None, False),
    "n": (None, 1),
    "generationConfig.candidateCount": (None, 1),
}
_MISSING = object()


def merge(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Add `extra` to a body, deeply. Nothing in `extra` is changed, and nothing in the body is replaced."""
    for key, value in extra.items():
        ours = body.setdefault(key, value)
        if ours is not value and isinstance(ours, dict) and isinstance(value, dict):
            merge(ours, value)


def unsupported_extra(extra: Mapping[str, Any], format_name: str, written: Mapping[str, str]) -> str | None:
    """Why `extra` can't be merged, as a sentence; None if it can.

    `written` maps the dotted paths that the format writes itself to the settings to use instead.
    """
    for path, instead in written.items():
        if _at(extra, path) is not _MISSING:
            return f"params.extra.{path} is written by the {format_name} format itself; use {instead}"
    for path, allowed in _ONE_WHOLE_ANSWER.items():
        if _at(extra, path) not in (_MISSING, *allowed):
            return f"params.extra.{path} asks for something else than one whole answer to each row; leave it out"
    return None if _is_plain_json(extra) else "params.extra holds something that JSON can't say exactly"


def unsupported_roles(roles: Sequence[Role], format_name: str, *, system_apart: bool) -> str | None:
    """Why messages in these roles can't be sent, as a sentence; None if they can.

    `system_apart`: the format keeps system messages apart from the conversation, and knows no developer role.
    """
    if "user" not in roles:
        return "at least one message must have the role user"
    if system_apart and "developer" in roles:
        return f"the {format_name} format has no developer role; use system"
    if system_apart and "system" in roles[leading_system(roles) :]:
        return f"the {format_name} format takes system messages only before all others"
    return None


def leading_system(roles: Sequence[Role]) -> int:
    """How many system messages come before anything else."""
    return next((index for index, role in enumerate(roles) if role != "system"), len(roles))


def _at(extra: Mapping[str, Any], path: str) -> object:
    value: object = extra
    for key in path.split("."):
        value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
    return value


def _is_plain_json(extra: Mapping[str, Any]) -> bool:
    """Whether it is the same after a trip through JSON: no NaN, date, tuple, or key that is not text."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(extra)) == extra)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return False
