"""How much templates may take that another person wrote: time, and characters and items that they make.

Guards that who opens a result is not harmed by the job in it: `foreign` admits templates whose work is loops over steps
that are short and bounded, and the steps are counted here. A run renders its own job's templates, and counts nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Self

from jinja2.exceptions import TemplateRuntimeError

ITEM_CHARACTERS: Final = 16  # characters of text that take about the memory of an item of a list
MAX_BITS: Final = 1 << 16  # of a product of two whole numbers
_OVER: Final = "takes more time or memory than a job in a result is given: if you trust it, name the job file itself"


class Allowance:
    """What some templates may take together. `seconds`: by `clock`. `characters`: that are made in each `with`."""

    def __init__(self, clock: Callable[[], float], *, seconds: float, characters: int) -> None:
        self._clock = clock
        self._left = seconds
        self._characters = characters
        self._room = characters
        self._begun = 0.0
        self._token: Token[Allowance | None] | None = None

    def __enter__(self) -> Self:
        self._begun, self._room = self._clock(), self._characters
        self._token = _CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
        self._left -= self._clock() - self._begun

    def charge(self, made: object = None) -> None:
        """Count a step, and what it made. Raises `TemplateRuntimeError` once it is too much."""
        if isinstance(made, str | bytes):
            self._room -= len(made)
        elif isinstance(made, list | tuple | dict):
            self._room -= len(made) * ITEM_CHARACTERS
        if self._room < 0 or self._clock() - self._begun > self._left:
            raise TemplateRuntimeError(_OVER)

    def each(self, items: Iterable[object]) -> Iterator[object]:
        """The same items, each a step."""
        for item in items:
            self.charge()
            yield item

    def operation(self, operator: str, left: object, right: object) -> None:
        """Count an operation that is to be done. Raises `TemplateRuntimeError` for one whose result may be large."""
        self.charge()
        if isinstance(left, int) and isinstance(right, int):
            if operator == "*" and left.bit_length() + right.bit_length() > MAX_BITS:
                raise TemplateRuntimeError(_OVER)
            return
        if operator in ("*", "%") and (_is_long(left) or (operator == "*" and _is_long(right))):
            raise TemplateRuntimeError(_OVER)


_CURRENT: Final[ContextVar[Allowance | None]] = ContextVar("allowance", default=None)


def current() -> Allowance | None:
    """What templates may take that are rendered now; None where they are trusted."""
    return _CURRENT.get()


def _is_long(value: object) -> bool:
    return isinstance(value, str | bytes | list | tuple)
