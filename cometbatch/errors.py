"""Exceptions are for the run: each says what happened, where, and what to do about it.

A row's failure is a value (`records.Failure`), never an exception. An error that carries more than words is defined
beside what it carries: a run that stopped has a summary (`results.summary`), a template has places
(`prompt.template`), a simulator has a process (`simulator.process`).
"""

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, Final, Self

WRONG_SYSTEM = "cometbatch runs on Linux, macOS and WSL. On Windows, install WSL and run cometbatch inside it."


def nearest(found: str, known: Iterable[str]) -> str | None:
    """The nearest of the known words, whatever its case; None where none is near."""
    by_letters = {word.casefold(): word for word in known}
    near = difflib.get_close_matches(found.casefold(), by_letters, n=1)
    return by_letters[near[0]] if near else None


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """A hint at the nearest of the known words; "" where none is near."""
    near = nearest(found, known)
    return "" if near is None else f"did you mean {near!r}?"


class Quoting(str):
    """Words for a person that quote what is the user's own: a cell, a prompt, an answer, a service's words on them.

    `logged`: the same words for a log, without the quote.
    """

    __slots__ = ("logged",)

    logged: str

    def __new__(cls, words: str, logged: str) -> Self:
        """The words as they are shown, and as they are logged."""
        made = super().__new__(cls, words)
        made.logged = logged
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled and copied."""
        return Quoting, (str(self), self.logged)


def quoting(words: str, quote: str, instead: str = "(not logged)") -> str:
    """These words, which hold a quote. `instead`: what a log has in its place. Without a quote, the words alone."""
    return Quoting(words, words.replace(quote, instead)) if quote else words


def logged(words: object) -> str:
    """Words as a log may have them."""
    return words.logged if isinstance(words, Quoting) else str(words)


class CometbatchError(Exception):
    """Anything that this package raises on purpose. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled and copied: class, `args` and attributes are restored, and `__init__` does not run.

        Python's own way calls `__init__` with `args`, and breaks for a child whose `__init__` takes something else.
        """
        return _restored, (type(self), *self.args), self.__dict__


def _restored(kind: type[CometbatchError], *args: object) -> CometbatchError:
    return kind.__new__(kind, *args)


class UsageError(CometbatchError):
    """The call, the job or the input is wrong; nothing was sent."""

    exit_code: ClassVar[int] = 2


class JobError(UsageError):
    """The job file can't be read, or no run can do what it says."""


class InputError(UsageError):
    """The input table can't be read as it stands; the message names file, line and reason."""


class InputChangedError(InputError):
    """The input's content changed while it was read.

    `what` says so without advice. `as_it_was`: of a file that only grew, the size in bytes that it had.
    """

    def __init__(self, where: str, as_it_was: int | None = None) -> None:
        self.what = f"{where}: changed while it was read"
        self.as_it_was = as_it_was
        super().__init__(f"{self.what}. Run the same command again once nothing writes to it.")


class InputLostError(CometbatchError):
    """The input changed or vanished while a run was reading it; what was answered is recorded."""


class DriftError(UsageError):
    """The job or its input changed since the run began, so its answers would not fit together."""


class CatalogError(CometbatchError):
    """The service's catalog can't be had: no connection, no answer, or one that is no list of models."""


START_OVER: Final = "start over with --fresh (in Python: fresh=True), which forgets the answers so far."
"""The end of a sentence that names the ways out of a run directory which can't be used."""


class CheckpointError(CometbatchError):
    """The run directory holds something that this run did not write, or can't be read back."""


class RunLockedError(CometbatchError):
    """Another process works on the same run."""

    exit_code: ClassVar[int] = 6
