"""The keys of the section `engine`, and the kinds of their values."""

import re
from typing import Final

from cometbatch.job.engine import AUTO, MAX_WORKERS, Workers
from cometbatch.job.key import Key, object_schema
from cometbatch.job.kinds import Kind, expected, number, text
from cometbatch.job.tree import Node, WrongError, is_text

_NUMBER: Final = number(int, 1, MAX_WORKERS)
_WORDS: Final = f"{_NUMBER.words}, or auto"
_ADDRESS: Final = r"(?:local|(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5})"


def _read_workers(node: Node) -> Workers:
    if is_text(node):
        if node.text.casefold() == AUTO:
            return AUTO
        raise expected(_WORDS, node)
    try:
        return _NUMBER.read(node)
    except WrongError:
        raise expected(_WORDS, node) from None


def _odd_address(found: str) -> str | None:
    if re.fullmatch(_ADDRESS, found):
        return None
    if found == AUTO:
        return "it would join whatever cluster is there; write local, or the address of your own"
    return "such as local, or 10.0.0.5:6379"


WORKERS: Final = Kind(_WORDS, _read_workers, schema={"anyOf": [_NUMBER.schema, {"enum": [AUTO]}]})
RAY_KEYS: Final = {
    "address": Key(
        text("local, or the host and port of a cluster", odd=_odd_address, max_length=256, pattern=_ADDRESS),
        "the cluster: local starts one on this machine for the length of the run",
    ),
    "workers": Key(WORKERS, "workers on that cluster; engine.workers if not set"),
}
"""The keys of `engine.ray`."""
KEYS: Final = {
    "workers": Key(
        WORKERS, "processes that send the calls, with one rate and one budget; auto: as many as this run may use cores"
    ),
    "ray": Key(
        Kind("a mapping", lambda node: node, schema=object_schema(RAY_KEYS)),
        "run the workers on a cluster of Ray; needs the extra `ray`",
    ),
}
"""The keys of `engine`."""
