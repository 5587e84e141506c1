"""The choices of a question: read from a cell in any of the usual layouts, lettered, and put into another order.

Guards that a prompt and a scorer see the same choices: both take them from here. Pure: the order after shuffling
depends on the seed and the row's number alone, on every machine and with every version of Python.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

from msgspec import Struct

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_T = TypeVar("_T")


class Choice(Struct, frozen=True):
    """One choice of a question, as it is shown. `origin`: its place in the cell, from 0, before any shuffling."""

    label: str
    text: str
    origin: int = 0


class ChoicesError(ValueError):
    """A cell holds no choices that can be read. The message says what it holds."""


def label_at(index: int) -> str:
    """The label of a choice by its place from 0: A to Z, then 1, 2 and so on."""
    return LETTERS[index] if index < len(LETTERS) else str(index - len(LETTERS) + 1)


def order_of(count: int, seed: int, row: int) -> list[int]:
    """The places of `count` choices in the order in which this row shows them.

    Choices are sorted by the SHA-256 of "seed:row:place" (in decimal digits, ASCII), so that the order can be computed
    again with any tool.
    """
    return sorted(range(count), key=lambda place: hashlib.sha256(b"%d:%d:%d" % (seed, row, place)).digest())


def choices_of(
    value: object, labels: Sequence[str] = (), *, seed: int | None = None, row: int = 0
) -> tuple[Choice, ...]:
    """The choices in a cell, in the order in which they are shown. Raises `ChoicesError`.

    `value`: a list of texts, of numbers or of structs, a struct of lists `text` and `label`, or any of these as JSON
    text. `labels` are used in order; without them the cell's own, else A, B, C. With a seed the texts are shuffled by
    seed and row; labels keep their places.
    """
    raise NotImplementedError
