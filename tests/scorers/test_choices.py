"""Choices in the layouts of public data sets, their labels, and their order after shuffling."""

import pytest

from cometbatch.prompt.choices import ChoicesError, choices_of, label_at, order_of

CITIES = ["Paris", "Berlin", "London", "Rome"]


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (CITIES, "ABCD"),
        (tuple(CITIES), "ABCD"),
        ({"text": CITIES, "label": ["A", "B", "C", "D"]}, "ABCD"),
        ({"text": CITIES, "label": ["1", "2", "3", "4"]}, "1234"),
        ({"label": [1, 2, 3, 4], "text": CITIES}, "1234"),
        ({"choices": CITIES, "labels": [1, 0, 0, 0]}, "ABCD"),
        ([{"label": "A", "text": "Paris"}, {"label": "B", "text": "Berlin"}], "AB"),
        ([{"key": "x", "text": "Paris"}, {"key": "y", "text": "Berlin"}], "xy"),
        ([{"text": "Paris"}, {"text": "Berlin"}], "AB"),
        ({"A": "Paris", "B": "Berlin", "C": None}, "AB"),
        ('["Paris", "Berlin", "London", "Rome"]', "ABCD"),
        ('{"text": ["Paris", "Berlin"], "label": ["1", "2"]}', "12"),
    ],
)
def test_choices_are_read_in_any_usual_layout(value: object, labels: str) -> None:
    """Lists, structs of lists, lists of structs, a field for each choice, or JSON; labels are its own, or letters."""
    found = choices_of(value)
    assert [each.label for each in found] == list(labels)
    assert [each.text for each in found] == CITIES[: len(labels)]
    assert [each.origin for each in found] == list(range(len(labels)))


def test_a_jobs_labels_come_before_the_cells() -> None:
    """More labels than choices may be given: the first are used."""
    assert [each.label for each in choices_of({"text": CITIES[:2], "label": ["1", "2"]}, list("abcd"))] == ["a", "b"]


def test_numbers_and_truth_values_are_choices_as_a_prompt_shows_them() -> None:
    """A choice is a text; other values are printed as in a prompt."""
    assert [each.text for each in choices_of([1, 2.5, True])] == ["1", "2.5", "true"]


def test_labels_go_on_behind_the_alphabet() -> None:
    """A to Z, then 1, 2 and so on."""
    assert [label_at(place) for place in (0, 25, 26, 35)] == ["A", "Z", "1", "10"]


@pytest.mark.parametrize(
    ("value", "labels", "words"),
    [
        ([], (), "no choices"),
        (None, (), "nothing"),
        ("Paris", (), "no list in JSON"),
        ('"Paris"', (), "no list in JSON"),
        (5, (), "type int"),
        (["Paris", None], (), "null"),
        (["Paris", ["Berlin"]], (), "a list or a struct"),
        (CITIES, ("A", "B"), "4 choices in it, and 2 labels"),
        ({"text": CITIES, "label": ["A", "A", "B", "C"]}, (), "the labels A, A, B, C"),
        ({"text": CITIES, "label": ["A"]}, (), "the labels A"),
        ([{"label": "A"}], (), "expected label and text"),
        ({"one": {"x": 1}}, (), "expected text and label"),
        (CITIES, ("A", "B", "A", "C"), "the same label"),
    ],
)
def test_a_cell_without_choices_is_refused(value: object, labels: tuple[str, ...], words: str) -> None:
    """The message says what it holds."""
    with pytest.raises(ChoicesError, match=words):
        choices_of(value, labels)


def test_the_order_depends_on_seed_and_row_alone() -> None:
    """It is the same on every machine: these orders were computed once, and each is one of all choices."""
    assert [order_of(4, 7, row) for row in range(3)] == [[3, 1, 2, 0], [1, 2, 3, 0], [2, 1, 0, 3]]
    assert order_of(4, 8, 0) != order_of(4, 7, 0) or order_of(4, 8, 1) != order_of(4, 7, 1)
    for row in range(200):
        assert sorted(order_of(5, 1, row)) == [0, 1, 2, 3, 4]


def test_each_order_is_as_likely_as_another() -> None:
    """Over 6,000 rows each of the 6 orders of 3 choices comes about 1,000 times."""
    counts: dict[tuple[int, ...], int] = {}
    for row in range(6_000):
        order = tuple(order_of(3, 42, row))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert all(880 < count < 1_120 for count in counts.values())


def test_shuffling_moves_texts_and_leaves_labels() -> None:
    """Each choice still knows its place in the cell."""
    found = choices_of(CITIES, seed=7, row=1)
    assert [each.label for each in found] == list("ABCD")
    assert [each.text for each in found] == [CITIES[place] for place in order_of(4, 7, 1)]
    assert [CITIES[each.origin] for each in found] == [each.text for each in found]
