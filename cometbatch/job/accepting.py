"""The bounds of `accept`: a whole number of rows, or a text with % for a share of them; in a job and as an option.

Guards that no number means one thing to whoever writes it and another to us: 0.01 and 1.0 are refused, with both ways
to say it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from cometbatch.errors import UsageError, did_you_mean
from cometbatch.job.kinds import INT64_MAX, Kind, decimal, expected, string
from cometbatch.job.secrets import shown
from cometbatch.job.sources import scalar
from cometbatch.job.tree import Node, Scalar, WrongError, is_null, is_text
from cometbatch.results.accepted import Accept

WORDS: Final = 'a whole number of rows, or a share of them as "1%"'
_SHARE: Final = r"(?:100(?:\.0{0,30})?|[0-9]{1,2}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}) ?%"
"""From 0 to 100 percent."""
_OPTION: Final = "--accept"
_KINDS: Final = tuple(field.name for field in msgspec.structs.fields(Accept))


def _read(node: Node) -> str:
    """The bound as it is written. Raises `WrongError`."""
    if is_text(node) and "%" in node.text:
        if not re.fullmatch(_SHARE, node.text):
            raise expected(WORDS, node, "a share is from 0% to 100%")
        return node.text.replace(" ", "")
    exact = decimal(node, WORDS)
    if not 0 <= exact <= INT64_MAX:
        raise expected(WORDS, node)
    if isinstance(node, Scalar) and ("." in node.text or exact % 1):
        raise expected(WORDS, node, _both_ways(exact))
    return str(int(exact))


def _both_ways(exact: Decimal) -> str:
    """How a number of rows is written, and how a share, where nobody can tell which of them a number is."""
    percent = exact * 100 if exact <= 1 else exact
    share = f' or "{percent.normalize():f}%" for a share of all rows' if percent <= 100 else ""  # noqa: PLR2004 - all
    return f"write {math.ceil(exact)} to count rows{share}"


BOUND = Kind(
    "a whole number or a share",
    _read,
    schema={"anyOf": [{"type": "integer", "minimum": 0, "maximum": INT64_MAX}, string(_SHARE, examples=["1%"])]},
)


def read_accept(said: Mapping[str, object] | str | Iterable[str]) -> Accept:
    """What an option accepts: texts as "failed=1%", also with commas between, or a mapping. Raises `UsageError`."""
    bounds: dict[str, str] = {}
    for name, node in _nodes(said):
        if name not in _KINDS:
            near = did_you_mean(name, _KINDS)
            raise UsageError(
                f"{_OPTION}: {shown(name)} is none of {', '.join(_KINDS)}" + (f": {near}" if near else ".")
            )
        if name in bounds:
            raise UsageError(f"{_OPTION}: {name} is there twice. Leave one of the two out.")
        if is_null(node):
            continue
        try:
            bounds[name] = _read(node)
        except WrongError as error:
            raise UsageError(f"{_OPTION} {name}: {error}.") from None
    return Accept(**bounds)


def _nodes(said: object) -> Iterator[tuple[str, Node]]:
    """The name and the value of each bound."""
    if isinstance(said, Mapping):
        yield from ((str(name), scalar(value)) for name, value in said.items())
        return
    texts: Iterable[object] = [said] if isinstance(said, str) or not isinstance(said, Iterable) else said
    for piece in (piece for each in texts for piece in (each.split(",") if isinstance(each, str) else [each])):
        if not isinstance(piece, str) or "=" not in piece:
            found = shown(piece) if isinstance(piece, str) else type(piece).__name__
            raise UsageError(f"{_OPTION}: expected KIND=BOUND, such as failed=1% or incomplete=5, found {found}.")
        name, _, text = piece.partition("=")
        yield name.strip(), Scalar(_OPTION, "str", text.strip())
