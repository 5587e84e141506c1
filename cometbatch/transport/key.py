"""The API key: read from its environment variable, checked, and looked for where it must not be. Never quoted."""

import os
from collections.abc import Iterator
from typing import Final

from cometbatch.errors import UsageError

NOT_IN_KEYS: Final = frozenset(" \"'`")
"""Characters that come along when a key is copied with its surroundings."""

SHORTEST_SOUGHT: Final = 8
"""Characters. A shorter value is no key, and it can stand in any text by chance."""


def read_key(variable: str) -> str:
    """The key in this environment variable. Raises `UsageError`."""
    if variable not in os.environ:
        raise UsageError(
            f"The environment variable {variable} is not set. It should hold the API key (target.key_env): "
            f"export {variable}=your-key, then run the same command again."
        )
    return check_key(os.environ[variable], f"The API key in {variable}")


def check_key(key: str, name: str = "The API key") -> str:
    """The key as it can be sent, without surrounding white space or BOM. Raises `UsageError` with `name` in it."""
    trimmed = key.strip().strip("\ufeff").strip()
    if not trimmed:
        raise UsageError(f"{name} is empty. Set its environment variable to the key itself.")
    if not trimmed.isascii() or not trimmed.isprintable() or not NOT_IN_KEYS.isdisjoint(trimmed):
        raise UsageError(f"{name} holds characters that no key has. Copy it again, without quotes or line breaks.")
    return trimmed


def holds_key(value: object, variable: str) -> bool:
    """Whether a text in a JSON-ready value, names included, holds the key that this environment variable is set to."""
    key = os.environ.get(variable, "").strip()
    return len(key) >= SHORTEST_SOUGHT and any(key in text for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
