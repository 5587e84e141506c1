"""Golds in the layouts of public data sets, and what is said of a cell that can't be one."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from cometbatch.evaluation.scorers import GoldError, gold_of, scorer
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import choices_of

CITIES = ["Paris", "Berlin", "London", "Rome"]
SHUFFLED = choices_of(CITIES, seed=7, row=3)


def of(name: str, **options: object) -> ScoreSettings:
    """The settings of a score."""
    return ScoreSettings(name="score", scorer=name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ("B", {}, ("B",)),
        ("b", {}, ("B",)),
        ("(B)", {}, ("B",)),
        ("Berlin", {}, ("B",)),
        ("berlin ", {}, ("B",)),
        (["B", "C"], {}, ("B", "C")),
        (1, {"form": "index"}, ("B",)),
        (0, {"form": "index"}, ("A",)),
        (1.0, {"form": "index"}, ("B",)),
        ("1", {"form": "index"}, ("B",)),
        (False, {"form": "index"}, ("A",)),
        ([1, 2], {"form": "index"}, ("B", "C")),
        ("B", {"form": "letter"}, ("B",)),
        ([0, 1, 0, 0], {"form": "flags"}, ("B",)),
        ([False, True, True, False], {"form": "flags"}, ("B", "C")),
        ("So it is Berlin.\n#### B", {"form": "marker"}, ("B",)),
        ("AC", {"multi": True}, ("A", "C")),
        ("A, C", {"multi": True}, ("A", "C")),
        (["A", "C"], {"multi": True}, ("A", "C")),
        ([], {"multi": True}, ()),
        ({"text": "Berlin"}, {}, ("B",)),
    ],
)
def test_the_gold_of_choices_is_their_labels(value: object, options: dict[str, object], expected: object) -> None:
    """A label, a text, an index from 0 (0 is a value), a letter, flags, or what follows the last marker."""
    assert gold_of(value, of("choice", **options), choices_of(CITIES)) == expected


@pytest.mark.parametrize(
    ("value", "form"), [("B", "value"), ("B", "letter"), (1, "index"), ("Berlin", "value"), ([0, 1, 0, 0], "flags")]
)
def test_the_gold_moves_with_its_choice(value: object, form: str) -> None:
    """Labels, letters and indices of a cell are of the order before shuffling; the gold is the label that is shown."""
    (gold,) = gold_of(value, of("choice", form=form), SHUFFLED) or ()
    assert next(each.text for each in SHUFFLED if each.label == gold) == "Berlin"


def test_labels_of_a_cell_are_found_whatever_they_are() -> None:
    """Labels 1 to 4 as text, as number, or as the float that a column with nulls has."""
    choices = choices_of({"text": CITIES, "label": ["1", "2", "3", "4"]})
    for value in ("3", 3, 3.0):
        assert gold_of(value, of("choice"), choices) == ("3",)


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ("72", {}, ["72"]),
        (72, {}, ["72"]),
        (0, {}, ["0"]),
        (0.1, {}, ["1/10"]),
        (Decimal("1.50"), {}, ["3/2"]),
        ("1,234", {}, ["1234"]),
        ("\\frac{9}{7}", {}, ["9/7"]),
        ("so 48+24 = 72\n#### 72", {"form": "marker"}, ["72"]),
        (["1", 2], {}, ["1", "2"]),
        ("1.5", {"decimal": "comma"}, ["3/2"]),
        ("1,5", {"decimal": "comma"}, ["3/2"]),
        ("25%", {"percent": "divide"}, ["1/4"]),
    ],
)
def test_the_gold_of_numbers_is_exact(value: object, options: dict[str, object], expected: list[str]) -> None:
    """Numbers and texts; a text is read with a decimal point first, since tables are written so."""
    assert gold_of(value, of("numeric", **options)) == tuple(map(Fraction, expected))


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ("Paris", {}, ("Paris",)),
        (["Paris", "City of Paris"], {}, ("Paris", "City of Paris")),
        (["Paris", "Paris"], {}, ("Paris",)),
        ({"text": ["Paris"], "answer_start": [4]}, {}, ("Paris",)),
        ({"text": [], "answer_start": []}, {}, ("",)),
        ([], {}, ("",)),
        ([], {"no_answer": "unanswerable"}, ("", "unanswerable")),
        ("", {}, ("",)),
        (5, {}, ("5",)),
        (True, {}, ("true",)),
    ],
)
def test_the_gold_of_texts_is_any_of_a_list(value: object, options: dict[str, object], expected: object) -> None:
    """A list is any of its items; an empty one says that there is no answer."""
    assert gold_of(value, of("normalized", **options)) == expected


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        ("Yes", "value", "yes"),
        (True, "value", "yes"),
        (False, "value", "no"),
        (1, "index", "yes"),
        ("A", "letter", "no"),
    ],
)
def test_the_gold_of_labels_is_one_of_them(value: object, form: str, expected: str) -> None:
    """By its word, by a truth value, by its index or letter."""
    assert gold_of(value, of("label", labels=("no", "yes"), form=form)) == (expected,)


@pytest.mark.parametrize("name", ["choice", "numeric", "normalized", "label", "json"])
@pytest.mark.parametrize("value", [None, float("nan"), {"text": None}, [None]])
def test_a_cell_that_says_nothing_is_told(name: str, value: object) -> None:
    """Null is no gold, and nothing is guessed in its place."""
    if name == "json" and isinstance(value, dict | list):
        return
    assert gold_of(value, of(name, labels=("a",)), choices_of(CITIES)) is None


@pytest.mark.parametrize(
    ("name", "value", "options", "words"),
    [
        ("choice", "E", {}, "no label (A, B, C, D) and no choice's text"),
        ("choice", 2, {}, "gold: index counts from 0"),
        ("choice", 4, {"form": "index"}, "no choice at 4: there are 4, from 0"),
        ("choice", -1, {"form": "index"}, "expected an index from 0"),
        ("choice", 1.5, {"form": "index"}, "expected an index from 0"),
        ("choice", "x", {"form": "index"}, "expected an index from 0"),
        ("choice", "BC", {"form": "letter"}, "expected a letter from A to Z"),
        ("choice", [0, 0], {"form": "flags"}, "none of the flags is 1"),
        ("choice", "0100", {"form": "flags"}, "expected a list of 0 and 1"),
        ("choice", [0, 2], {"form": "flags"}, "expected a list of 0 and 1"),
        ("choice", [], {}, "the list is empty"),
        ("numeric", "none", {}, "is no number"),
        ("numeric", True, {}, "it is a truth value"),
        ("numeric", float("inf"), {}, "is no number that can be compared"),
        ("numeric", Decimal("1e99999"), {}, "is no number that can be compared"),
        ("numeric", "72", {"form": "marker"}, "there is no ####"),
        ("numeric", "72 ####", {"form": "marker"}, "nothing stands behind"),
        ("label", "maybe", {"labels": ("yes", "no")}, "none of the labels yes, no"),
        ("label", 1, {"labels": ("yes", "no")}, "gold: index counts from 0"),
        ("label", 2, {"labels": ("yes", "no"), "form": "index"}, "no label at 2"),
        ("json", "{", {}, "is no JSON"),
        ("exact", {"value": "x"}, {}, "a struct with the fields value: name one of them"),
        ("exact", b"\xff", {}, "it is no text"),
    ],
)
def test_a_cell_that_can_be_no_gold_is_refused(name: str, value: Any, options: dict[str, object], words: str) -> None:
    """The message says what the cell holds, and what the score takes."""
    with pytest.raises(GoldError, match=re.escape(words)):
        gold_of(value, of(name, **options), choices_of(CITIES))


def test_an_empty_gold_is_right_for_an_empty_answer() -> None:
    """Where a question has no answer, an empty answer and the agreed word are right, and any other is wrong."""
    settings = of("normalized", no_answer="unanswerable")
    gold = gold_of([], settings)
    assert gold is not None
    assert [scorer(settings)(answer, gold, ()).value for answer in ("", "Unanswerable.", "Paris")] == [1, 1, 0]
