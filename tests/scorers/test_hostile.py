"""No text takes a scorer long, and none makes it raise: the time follows the text's length, whatever the text.

`HOSTILE_BYTES=1000000` tries texts of a megabyte, as `.ci/weekly` does. A reader whose time grows with the square of
the text takes seconds even for the short texts that are tried otherwise.
"""

import os
import random
import time
from collections.abc import Iterator
from typing import Final

import pytest

from cometbatch.evaluation.scorers import Gold, scorer
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice, choices_of

BYTES: Final = int(os.environ.get("HOSTILE_BYTES", "10000"))
MOST_S: Final = 1.0  # of CPU for one text
REPEATED: Final = (
    "answer is ", "answer: ", "answer ", "the answer ", "answer to this is ", "other answers are wrong ",
    "Answer\n\n", "\\boxed{", "\\boxed{}", "\\boxed{1}", "\\fbox", "{", "}", "{{}}", "[", "]", "{\"a\":", "{\"a\":1}",
    "{\"a\":{", "\"", "{\"", "\\", "\\\\", "\\{", "\\\"", "{'a':", "{a:", "[1,", "true ", "null,", "1", "1,", "1 ",
    "123 ", "1.", "1/", "1/2 ", "-", "- ", "1-", "1e", "1:2 ", "5 to ", "1 or ", "\\frac{1}", "\\frac{", "\\text{",
    "\\,", "1\\,", "0.", "1_", "%", "1% ", "x = 1 ", "= ", "1 = ", "between 1 and ", "1 million ", "because ", "a",
    "A ", "A, ", "A or ", "not A ", "not ", "I ", "(a) ", "b) ", "aA", "a-", "a_", "A. ", "A. Paris\n", "B\n",
    "Berlin ", "Berlin", "Ber", "I choose ", "so ", "option A ", "no, wait ", "yes ", "no ", "no, ",
    "Antwort ist nicht ", "<think>", "</think>", "<think></think>", "<think", "<", "<a", "<answer>", "</answer>",
    "<answer>1</answer>", "####", "#", "# ", "#### x\n", "####\n", "\n", "\n\n", " ", "\t", "\r\n", "*", "**", "* ",
    "*a*", "_", "__", "_a_", "`", "```", "```\n", "$", "$1", "$ ", "~", "~~", ".", "...", "?! ", "'", "1'", "a'",
    "((((", "))))", "--1", "-1", "Final: ", "Final: red\n", "\u0301", "\u0301\u0316", "e\u0301", "\u0f73\u0f71",
    "\uff9e\u3099", "\u200b", "\u200d", "a\u200b", "\u202e", "\ufdfa", "\u0130", "½", "²", "1²", "\u00a0", "1\u00a0",
    "１", "٣", "３,", "答案", "答案是", "答え", "ответ ", "ответ: ", "คำตอบ", "é", "ß", "\x00", "\ud800", "𝐁",
)  # fmt: skip
"""What hostile texts repeat."""
CHOICES: Final = choices_of(["Paris", "Berlin", "London", "Rome"])
LONG: Final = choices_of(["a" * 50_000, "a" * 50_001, "b " * 20_000, "1" * 1_000])
SCORES: Final[dict[str, tuple[dict[str, object], Gold, tuple[Choice, ...]]]] = {
    "choice": ({}, ("A",), CHOICES),
    "choice, several": ({"multi": True}, ("A",), CHOICES),
    "choice, long": ({}, ("A",), LONG),
    "numeric": ({}, (1,), ()),
    "exact": ({}, ("a",), ()),
    "normalized": ({}, ("a",), ()),
    "contains": ({}, ("a", "Berlin"), ()),
    "regex": ({"pattern": r"(?:Final|answer): (\w+)"}, ("a",), ()),
    "label": ({"labels": ("yes", "no", "not sure", "A")}, ("yes",), ()),
    "json": ({"unordered": True}, ({"a": 1, "b": [1, 2]},), ()),
    "json, list": ({}, ([1, 2],), ()),
    "token_f1": ({}, ("a b", "c"), ()),
    "token_f1, signs": ({"tokens": "characters"}, ("a b",), ()),
}
"""Options, gold and choices of each score, by its scorer and what is special about it."""


def texts() -> Iterator[tuple[str, str]]:
    """Hostile texts of this many bytes, each with a name."""
    for unit in REPEATED:
        yield repr(unit), unit * (BYTES // len(unit.encode(errors="replace")) + 1)
    chance = random.Random(1)
    yield "signs of statements", "".join(chance.choices("answer is:\n{}\\boxed12,.ABC ", k=BYTES))
    yield "combining marks", "".join(chance.choices("a\u0301\u0316\u0327\u0344\u0f73\u1dce", k=BYTES // 2))
    yield "a text that is not closed", '{"a": "' + "x" * BYTES
    yield "deep JSON", '{"a":' * (BYTES // 7) + "1" + "}" * (BYTES // 7)
    yield "a long list", '{"a":[' + "1," * (BYTES // 2) + "1]}"
    yield "a long number in JSON", '{"a":' + "1" * BYTES + "}"
    yield "a long number", "answer: " + "1" * BYTES
    yield "a chain of fractions", "answer: " + "1/" * (BYTES // 2)
    yield "groups that end wrongly", "answer: " + "123 " * (BYTES // 4) + "1234"
    yield "a long line before the cue", "x" * BYTES + "answer: B"
    yield "a huge exponent", "answer: 1e" + "9" * BYTES


@pytest.mark.parametrize("name", SCORES)
def test_a_hostile_text_takes_no_longer_than_its_length(name: str) -> None:
    """Each text takes less than a second of CPU, gives a score from 0 to 1, and raises nothing."""
    options, gold, choices = SCORES[name]
    settings = ScoreSettings(name="score", scorer=name.partition(",")[0], **options)  # type: ignore[arg-type]
    score = scorer(settings)
    slow = []
    for kind, text in texts():
        begin = time.process_time()
        found = score(text, gold, choices)
        took = time.process_time() - begin
        assert found.value is not None, kind
        assert 0 <= found.value <= 1, kind
        if took > MOST_S:
            slow.append((kind, round(took, 2)))
    assert slow == []
