"""Errors that ended the work of an owner, as errors of the driver's process."""

import builtins
from typing import Final

from cometbatch import errors
from cometbatch.control.coordination.messages import ErrorWords
from cometbatch.errors import CometbatchError

_OWN: Final = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CometbatchError)
}
_PYTHONS: Final = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
}


def error_of(told: ErrorWords) -> Exception:
    """The error that an owner told by `Leave.error`: of the same class where it is one of ours or Python's own."""
    kind = _OWN.get(told.name) or _PYTHONS.get(told.name)
    if kind is None:
        return RuntimeError(f"{told.name}: {told.words}")
    made = kind.__new__(kind, told.message)
    made.args = (told.message,)
    return made
