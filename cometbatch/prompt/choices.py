"""The choices of a question: read from the layouts in which tables have them, labelled, and put into another order.

Guards: the order depends on the seed and on the choices' texts alone, so that every model and every sample is asked the
same, a row keeps its order wherever it stands, and what scores an answer finds the order that the prompt had.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from cometbatch.prompt.cells import PathError, cell_at, read_json, roots
from cometbatch.prompt.printing import text_of

NAME: Final = "choices"
"""The name by which a prompt shows them."""
MAX_CHOICES: Final = 1_000
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXTS: Final = ("text", "texts", "choices", "options")
"""The fields of a structure that hold the texts, in the layouts that are known."""
_LABELS: Final = ("label", "labels", "key")


class ChoiceError(ValueError):
    """A row has no choices that can be shown; the words say why."""


class Choice(Struct, frozen=True):
    """One choice: the label that stands for it, and what it says; "" where the table does not tell."""

    label: str
    text: str


class ChoiceSettings(Struct, frozen=True, omit_defaults=True):
    """Where the choices of a question are.

    `columns`: one that holds a list, or one for each choice; paths may lead into structures. `labels`: in their order;
    A, B, C where empty, or what the column says. `shuffle`: with a seed, the choices of each row get another order, the
    same for all models and samples, which prompts show, too.
    """

    columns: tuple[str, ...] = ("choices",)
    labels: tuple[str, ...] = ()
    shuffle: int | None = None


class Question(Struct, frozen=True):
    """The choices of one row, as they are shown. `order`: for each of them, its place in the table."""

    choices: tuple[Choice, ...]
    order: tuple[int, ...]
    labels_before: tuple[str, ...]
    """The labels by their places in the table, before any shuffling."""

    def at(self, index: int) -> Choice | None:
        """The choice that has this place in the table, from 0."""
        return self.choices[self.order.index(index)] if 0 <= index < len(self.order) else None

    def of_label(self, label: str) -> Choice | None:
        """The choice that has this label in the table."""
        known = [each.casefold() for each in self.labels_before]
        found = label.strip().casefold()
        return self.at(known.index(found)) if found in known else None

    def of_text(self, text: str) -> Choice | None:
        """The choice that says this, by its whole text, blanks around it apart."""
        found = text.strip()
        return next((each for each in self.choices if each.text and each.text.strip() == found), None)


def columns_of(settings: ChoiceSettings) -> frozenset[str]:
    """The columns that the choices may be in, for who reads only those that are needed."""
    return frozenset(name for path in settings.columns for name in roots(path))


def question(settings: ChoiceSettings, values: Mapping[str, object]) -> Question:
    """The choices of a row. Raises `ChoiceError` where it has none."""
    texts, labels = _read(settings, values)
    if len(texts) > MAX_CHOICES:
        raise ChoiceError(f"{len(texts):,} choices are more than {MAX_CHOICES:,}")
    if settings.labels:
        labels = list(settings.labels[: len(texts) or None])
        texts = texts or [""] * len(labels)
    elif labels is None or len(labels) != len(texts):
        labels = [letter(at) for at in range(len(texts))]
    if len(labels) < len(texts):
        raise ChoiceError(f"there are {len(texts)} choices, and choices.labels names {len(labels)}")
    order = tuple(range(len(texts))) if settings.shuffle is None else shuffled(texts, settings.shuffle)
    shown = tuple(Choice(label, texts[place]) for label, place in zip(labels, order, strict=True))
    return Question(shown, order, tuple(labels))


def over(settings: ChoiceSettings, values: Mapping[str, object]) -> dict[str, object]:
    """A row's values with its choices under their name, each with `label` and `text`. Raises `ChoiceError`."""
    shown = [{"label": each.label, "text": each.text} for each in question(settings, values).choices]
    return {**values, NAME: shown}


def shuffled(texts: Sequence[str], seed: int) -> tuple[int, ...]:
    """The places of texts in another order, which is a pure function of them and of the seed."""
    start = hashlib.sha256(f"{seed}\n".encode())
    for text in texts:
        start.update(text.encode(errors="surrogatepass") + b"\0")

    def key(place: int) -> bytes:
        digest = start.copy()
        digest.update(b"%d" % place)
        return digest.digest()

    return tuple(sorted(range(len(texts)), key=key))


def letter(place: int) -> str:
    """The label of a choice by its place: A to Z, then AA, AB."""
    first, last = divmod(place, len(_LETTERS))
    return (_LETTERS[first - 1] if first else "") + _LETTERS[last]


def as_choices(value: object) -> list[Choice]:
    """What a cell, or a list in a template, holds as choices. Raises `ChoiceError`."""
    texts, labels = _of_value(value)
    if labels is None or len(labels) != len(texts):
        labels = [letter(at) for at in range(len(texts))]
    return [Choice(label, text) for label, text in zip(labels, texts, strict=True)]


def _read(settings: ChoiceSettings, values: Mapping[str, object]) -> tuple[list[str], list[str] | None]:
    if not settings.columns:
        return [], None
    try:
        cells = [cell_at(path, values) for path in settings.columns]
    except PathError as error:
        raise ChoiceError(str(error)) from None
    if len(cells) == 1:
        if cells[0] is None:
            raise ChoiceError(f"{settings.columns[0]} is null")
        return _of_value(cells[0])
    texts = [text_of(cell) for cell in cells if cell is not None]
    if not texts:
        raise ChoiceError("all of their columns are null")
    return texts, None


def _of_value(value: object) -> tuple[list[str], list[str] | None]:
    """Texts and labels: of a list of texts or structures, a structure of lists, a mapping by labels, or their JSON."""
    value = read_json(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        texts, labels = _field(value, _TEXTS), _field(value, _LABELS)
        if isinstance(texts, Sequence) and not isinstance(texts, str):
            return _texts(texts), _labels(labels)
        pairs = [(str(name), each) for name, each in value.items() if each is not None]
        if pairs and all(isinstance(each, str) for _, each in pairs):
            return [str(each) for _, each in pairs], [name for name, _ in pairs]
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if value and all(isinstance(each, Mapping) for each in value):
            parts = [each for each in value if isinstance(each, Mapping)]
            return _texts([_field(each, _TEXTS) for each in parts]), _labels([_field(each, _LABELS) for each in parts])
        return _texts(value), None
    kind = "text that is no JSON" if isinstance(value, str) else type(value).__name__
    raise ChoiceError(f"expected a list of choices, found {kind}")


def _field(value: Mapping[str, object], names: Sequence[str]) -> object:
    return next((value[name] for name in names if name in value), None)


def _texts(values: Sequence[object]) -> list[str]:
    if not values:
        raise ChoiceError("the list of choices is empty")
    if any(value is None for value in values):
        raise ChoiceError("one of the choices is null")
    return [text_of(value) for value in values]


def _labels(values: object) -> list[str] | None:
    """Labels of a layout, which are texts; None where there are none: numbers are marks of what is right."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    found = [value for value in values if isinstance(value, str)]
    return found if len(found) == len(values) and len(set(found)) == len(found) else None
