"""Errors that end the work of an owner: how they travel, and become errors of the driver's process."""

import builtins
from typing import Final

from cometbatch import errors
from cometbatch.errors import CometbatchError

_OWN: Final = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CometbatchError)
}
_PYTHONS: Final = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
}


def told(error: BaseException) -> tuple[str, str]:
    """The name of an error's class, and its words: what `Leave.error` has."""
    return type(error).__name__, str(error)


def error_of(name: str, words: str) -> Exception:
    """The error that another process told so: of the same class where it is one of ours or Python's own."""
    kind = _OWN.get(name) or _PYTHONS.get(name)
    if kind is None:
        return RuntimeError(f"{name}: {words}")
    made = kind.__new__(kind, words)
    made.args = (words,)
    return made
