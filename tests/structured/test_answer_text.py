"""The JSON value in the text of an answer: what is left out around it, and what is no value."""

import pytest

from cometbatch.prompt.answer_text import MAX_DEPTH, read_json
from cometbatch.prompt.answers import Fits, Misfit
from cometbatch.prompt.schema import JsonChecker, PatternChecker

DEEPEST = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1}', {"a": 1}),
        ('\ufeff \r\n{"a":1}\t\n', {"a": 1}),
        ('```json\n{"a":1}\n```', {"a": 1}),
        ('```\r\n{"a":1}\r\n```', {"a": 1}),
        ('```{"a":1}```', {"a": 1}),
        ("```[1,\n2]```", [1, 2]),
        ('"```"', "```"),
        ("[" + "[1]," * MAX_DEPTH + "[]]", [[1]] * MAX_DEPTH + [[]]),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('{"a":"\\\\ud800"}', {"a": "\\ud800"}),
    ],
)
def test_a_value_is_read_as_it_stands(text: str, value: object) -> None:
    """Space, a byte order mark and one fence around the whole text are left out, and nothing else is changed."""
    assert read_json(text) == value


@pytest.mark.parametrize(
    ("text", "words", "is_json"),
    [
        ("", "$: the answer is empty, and must be JSON", False),
        ("``````", "$: the answer is empty, and must be JSON", False),
        ('{"a":1', "$: the answer is no whole JSON: it ends too early", False),
        ('{"a":"b', "$: the answer is no whole JSON: it ends too early", False),
        ('{"a":1} So it is.', "$: the answer is not JSON alone (line 1, column 9: Extra data)", False),
        ('Here:\n```json\n{"a":1}\n```', "$: the answer is not JSON alone (line 1, column 1: Expecting value)", False),
        ('{"a":1,"b":2,"a":1}', '$: the key "a" is there twice', True),
        ("[NaN]", "$: NaN is no number of JSON", True),
        ("[-Infinity]", "$: -Infinity is no number of JSON", True),
        ("[1e999]", "$: the number 1e999 is too large", True),
        ("[-1e999]", "$: the number -1e999 is too large", True),
        ("[" + "1" * 5_000 + "]", "$: a number has too many digits", True),
        (f"[{DEEPEST}]", "$: lists and objects are nested too deeply", True),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "$: lists and objects are nested too deeply", True),
        ("[" * 100_000, "$: lists and objects are nested too deeply", False),
        ('{"a":"\\ud83d"}', "$: a text holds half of a surrogate pair", True),
        ('{"\\udc00":1}', "$: a text holds half of a surrogate pair", True),
    ],
)
def test_what_is_no_whole_and_plain_json_is_no_value(text: str, words: str, is_json: bool) -> None:
    """It is told why; nothing is mended, and nothing is raised."""
    assert read_json(text) == Misfit((words,), is_json=is_json)
    assert JsonChecker().check(text) == Misfit((words,), is_json=is_json)


def test_the_deepest_value_that_is_taken_is_taken() -> None:
    """As many lists within each other as the bound says."""
    assert isinstance(JsonChecker().check(DEEPEST), Fits)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("ab", Fits("ab")),
        ("```text\nab\n```", Fits("ab")),
        ("abc", Misfit(("$: the answer does not match the pattern a|ab",), is_json=False)),
        ('"ab"', Misfit(("$: the answer does not match the pattern a|ab",), is_json=True)),
    ],
)
def test_a_pattern_matches_the_bare_text_as_a_whole(text: str, verdict: object) -> None:
    """A fence around it is left out; a text that does not match is told whether it was JSON."""
    assert PatternChecker("a|ab").check(text) == verdict
