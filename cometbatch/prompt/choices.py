"""The choices of a question: read from a cell in any of the usual layouts, lettered, and put into another order.

Guards that a prompt and a scorer see the same choices: both take them from here. Pure: the order after shuffling
depends on the seed and the row's number alone, on every machine and with every version of Python.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.prompt.printing import text_of

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXTS: Final = ("text", "choices", "texts", "options")
"""Names under which a struct of lists keeps the texts of choices."""
_LABELS: Final = ("label", "labels", "key", "keys")
"""Names of the lists beside them that hold labels, unless they are flags of 0 and 1."""


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

    `value`: a list of texts, of numbers or of structs {label, text}, a struct of lists `text` and `label`, a struct
    with a field for each choice (its name is the label), or any of these as JSON text. `labels` are used in order;
    without them the cell's own, else A, B, C. With a seed the texts are shuffled by seed and row; labels keep their
    places.
    """
    texts, own = _read(_from_json(value))
    if not texts:
        raise ChoicesError("there are no choices in it")
    if labels and len(labels) < len(texts):
        raise ChoicesError(f"there are {len(texts)} choices in it, and {len(labels)} labels for them")
    shown = list(labels[: len(texts)]) or own or [label_at(index) for index in range(len(texts))]
    if len(set(shown)) < len(shown):
        raise ChoicesError(f"two choices have the same label: {', '.join(shown)[:80]}")
    order = range(len(texts)) if seed is None else order_of(len(texts), seed, row)
    return tuple(Choice(label, texts[origin], origin) for label, origin in zip(shown, order, strict=True))


def _from_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        found = value
    if isinstance(found, str | int | float | None):
        raise ChoicesError(f"it holds the text {value[:60]!r}, which is no list in JSON")
    return found


def _read(value: object) -> tuple[list[str], list[str]]:
    """The texts of choices and their own labels, of which there may be none."""
    if isinstance(value, Mapping):
        return _of_struct(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if all(isinstance(each, Mapping) for each in value):
            return _of_structs(value)
        return [_text(each) for each in value], []
    raise ChoicesError("it holds nothing" if value is None else f"it holds a value of type {type(value).__name__}")


def _of_struct(value: Mapping[str, object]) -> tuple[list[str], list[str]]:
    for name in _TEXTS:
        texts = value.get(name)
        if isinstance(texts, Sequence) and not isinstance(texts, str | bytes):
            return [_text(each) for each in texts], _labels_beside(value, len(texts))
    present = {name: each for name, each in value.items() if each is not None}
    if any(isinstance(each, Mapping | list | tuple) for each in present.values()):
        raise ChoicesError(f"it holds a struct with the fields {', '.join(value)[:80]}: expected text and label")
    return [_text(each) for each in present.values()], list(present)


def _labels_beside(value: Mapping[str, object], count: int) -> list[str]:
    for name in _LABELS:
        labels = value.get(name)
        if isinstance(labels, Sequence) and not isinstance(labels, str | bytes):
            found = [_text(each) for each in labels]
            if len(found) == count and len(set(found)) == count:
                return found
            if not set(found) <= {"0", "1"}:  # these are no labels: they tell which choices are right
                raise ChoicesError(f"there are {count} choices in it, and the labels {', '.join(found)[:80]}")
    return []


def _of_structs(values: Sequence[Mapping[str, object]]) -> tuple[list[str], list[str]]:
    labels = [next((_text(each[name]) for name in _LABELS if name in each), "") for each in values]
    texts = []
    for each in values:
        name = next((name for name in ("text", "value", "content") if name in each), None)
        if name is None:
            raise ChoicesError(f"a choice has the fields {', '.join(each)[:80]}: expected label and text")
        texts.append(_text(each[name]))
    return texts, labels if all(labels) else []


def _text(value: object) -> str:
    if value is None:
        raise ChoicesError("one of the choices is null")
    if isinstance(value, Mapping | list | tuple):
        raise ChoicesError("one of the choices is a list or a struct")
    return text_of(value)
