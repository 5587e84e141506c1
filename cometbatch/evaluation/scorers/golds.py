"""What is right, from a row's cell: any of the public layouts, made into what a scorer compares with."""

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from cometbatch.evaluation.scorers.json_fields import read_strictly
from cometbatch.evaluation.scorers.mentions import comparable
from cometbatch.evaluation.scorers.numbers import MAX_POWER, NumberForm
from cometbatch.evaluation.scorers.numeric import number_in
from cometbatch.evaluation.scorers.scores import Gold
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import LETTERS, Choice
from cometbatch.prompt.printing import UnprintableError, text_of

_MARKER: Final = "####"
_SHOWN: Final = 60
"""Characters of a cell that a message shows."""
_TEXT_SCORERS: Final = frozenset({"exact", "normalized", "token_f1"})
"""For these an empty list says that there is no answer, and an empty answer is right."""
_YES_NO: Final = {True: ("true", "yes", "1"), False: ("false", "no", "0")}
"""The labels that a truth value stands for, the first that the score has."""


class GoldError(ValueError):
    """A cell can't be the gold of this score. The message says what it holds, and what the score takes."""


def gold_of(value: object, settings: ScoreSettings, choices: Sequence[Choice] = ()) -> Gold | None:
    """What is right, from the cell of a row (or a template's text); None where the cell says nothing: it is null.

    A list is any of its items (with `multi` all of them), a struct with a field `text` is that field. Raises
    `GoldError`, as for an index beyond the choices.
    """
    if not _is_nothing(value) and settings.scorer == "json":
        return _json_gold(value)
    if isinstance(value, Mapping):
        if "text" not in value:
            raise GoldError(f"it is a struct with the fields {', '.join(map(str, value))[:_SHOWN]}: name one of them")
        value = value["text"]
    items = _flagged(value) if settings.form == "flags" and not _is_nothing(value) else _items(value)
    if items is None:
        return None
    read = _reader(settings, choices)
    return tuple(dict.fromkeys(each for item in items for each in read(item))) or _of_empty_list(settings)


def _items(value: object) -> Sequence[object] | None:
    """The items of a list, or the one value; None where nothing is said."""
    if not isinstance(value, list | tuple):
        return None if _is_nothing(value) else [value]
    items = [each for each in value if not _is_nothing(each)]
    return None if value and not items else items


def _of_empty_list(settings: ScoreSettings) -> Gold:
    """What is right where no item of a list is: no answer, for scorers of texts; no choice at all, with `multi`."""
    if settings.scorer in _TEXT_SCORERS:
        return ("", settings.no_answer) if settings.no_answer else ("",)
    if settings.multi:
        return ()
    raise GoldError("the list is empty")


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _reader(settings: ScoreSettings, choices: Sequence[Choice]) -> Callable[[object], Sequence[Any]]:
    """What reads one item of a gold cell: it may stand for several golds that are right."""
    if settings.form in {"index", "letter", "flags"}:
        place = _place_of_letter if settings.form == "letter" else _place
        return lambda item: (_at_place(place(item), settings, choices),)
    if settings.scorer == "choice":
        return lambda item: _chosen(_after_marker(item, settings), settings, choices)
    if settings.scorer == "label":
        return lambda item: (_label(_after_marker(item, settings), settings),)
    if settings.scorer == "numeric":
        return lambda item: (_number(_after_marker(item, settings), settings),)
    return lambda item: (_text(_after_marker(item, settings)),)


def _text(value: object) -> str:
    try:
        return text_of(value)
    except (UnprintableError, ValueError) as error:
        raise GoldError(f"it is no text: {error}") from None


def _after_marker(item: object, settings: ScoreSettings) -> object:
    if settings.form != "marker":
        return item
    text = _text(item)
    _, marker, after = text.rpartition(_MARKER)
    if not marker:
        raise GoldError(f"there is no {_MARKER} in {_shown(text)}")
    if not after.strip():
        raise GoldError(f"nothing stands behind the last {_MARKER}")
    return after.strip()


def _flagged(value: object) -> Sequence[int]:
    if not isinstance(value, list | tuple):
        raise GoldError(f"expected a list of 0 and 1, one for each choice, found {_shown(value)}")
    flags = [_flag(each) for each in value]
    found = [place for place, flag in enumerate(flags) if flag]
    if not found:
        raise GoldError("none of the flags is 1")
    return found


def _flag(value: object) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise GoldError(f"expected a list of 0 and 1, found {_shown(value)} in it")


def _place(item: object) -> int:
    """An index from 0: a whole number, also as a float or a text; a truth value is 0 or 1."""
    if isinstance(item, str):
        text = item.strip()
        if text.isascii() and text.isdigit() and len(text) <= 9:  # noqa: PLR2004 - more choices than any question has
            return int(text)
    elif isinstance(item, int | float | Decimal) and item == item // 1 and item >= 0:
        return int(item)
    raise GoldError(f"expected an index from 0, found {_shown(item)}")


def _place_of_letter(item: object) -> int:
    letter = _text(item).strip(" ().:[]").upper()
    if len(letter) == 1 and letter in LETTERS:
        return LETTERS.index(letter)
    raise GoldError(f"expected a letter from A to Z, found {_shown(item)}")


def _at_place(place: int, settings: ScoreSettings, choices: Sequence[Choice]) -> Any:
    """What stands at a place before shuffling: a choice's label, a label, or for other scorers a choice's text."""
    if settings.scorer == "label":
        if place >= len(settings.labels):
            raise GoldError(f"there is no label at {place}: there are {len(settings.labels)}, from 0")
        return settings.labels[place]
    found = next((each for each in choices if each.origin == place), None)
    if found is None:
        raise GoldError(f"there is no choice at {place}: there are {len(choices)}, from 0")
    if settings.scorer == "choice":
        return found.label
    return _number(found.text, settings) if settings.scorer == "numeric" else found.text


def _chosen(item: object, settings: ScoreSettings, choices: Sequence[Choice]) -> Sequence[str]:
    """The labels, as they are shown, of the choices that a cell names by their own label or their text."""
    text = _text(item).strip()
    found = _by_label(text, choices)
    if found is not None:
        return (found,)
    wanted = comparable(text)
    same = [each.label for each in choices if each.text == text] or [
        each.label for each in choices if comparable(each.text) == wanted
    ]
    if same:
        return same
    if settings.multi and (several := _several(text, choices)):
        return several
    hint = "; gold: index counts from 0" if text.isdecimal() else ""
    labels = ", ".join(each.label for each in choices)
    raise GoldError(f"{_shown(text)} is no label ({labels[:_SHOWN]}) and no choice's text{hint}")


def _by_label(text: str, choices: Sequence[Choice]) -> str | None:
    """The shown label of the choice whose label in the cell is this: labels keep their places, texts move."""
    own = [each.label for each in choices]
    bare = text.strip(" ().:[]")
    for wanted in dict.fromkeys((text, bare, bare.removesuffix(".0"))):
        for place, each in enumerate(own):
            if each == wanted or each.lower() == wanted.lower():
                return next(choice.label for choice in choices if choice.origin == place)
    return None


def _several(text: str, choices: Sequence[Choice]) -> list[str]:
    """The labels in a text as "A, C" or "AC"; none where one of its parts is no label."""
    parts = text.replace(",", " ").replace(";", " ").replace("/", " ").split()
    if len(parts) == 1:
        parts = list(text)
    found = [_by_label(each, choices) for each in parts]
    return [each for each in found if each is not None] if all(each is not None for each in found) else []


def _label(item: object, settings: ScoreSettings) -> str:
    if isinstance(item, bool):
        known = {each.lower(): each for each in settings.labels}
        for word in _YES_NO[item]:
            if word in known:
                return known[word]
    text = _text(item).strip()
    wanted = comparable(text)
    for wanted_text in (text, text.removesuffix(".0")):
        if wanted_text in settings.labels:
            return wanted_text
    for each in settings.labels:
        if comparable(each) == wanted:
            return each
    hint = "; gold: index counts from 0" if text.isdecimal() else ""
    raise GoldError(f"{_shown(text)} is none of the labels {', '.join(settings.labels)[:_SHOWN]}{hint}")


def _number(item: object, settings: ScoreSettings) -> Fraction:
    """A number; a text is read with a decimal point, and where that fails, as the score's `decimal` says."""
    if isinstance(item, bool):
        raise GoldError("it is a truth value, and the score compares numbers")
    if isinstance(item, int):
        return Fraction(item)
    if isinstance(item, float | Decimal):
        exact = Decimal(repr(item)) if isinstance(item, float) else item
        if exact.is_finite() and abs(exact.adjusted()) <= MAX_POWER:
            return Fraction(exact)
        raise GoldError(f"{_shown(item)} is no number that can be compared")
    divides = settings.percent == "divide"
    text = _text(item)
    for is_comma in dict.fromkeys((False, settings.decimal == "comma")):
        found = number_in(text, NumberForm(is_comma=is_comma, divides=divides))
        if isinstance(found, Fraction):
            return found
    raise GoldError(f"{_shown(text)} is no number")


def _json_gold(value: object) -> Gold:
    if not isinstance(value, str):
        return (value,)
    try:
        return (read_strictly(value),)
    except ValueError as error:
        raise GoldError(f"{_shown(value)} is no JSON: {error}") from None
