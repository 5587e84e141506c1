"""The tables of docs/scores.md, worked out by the code: what is found in an answer, and what it scores."""

import json
from collections.abc import Iterator
from typing import Any, Final

from cometbatch.evaluation.scorers import gold_of, scorer
from cometbatch.job.score_keys import OPTION_KEYS, SCORER_KEYS
from cometbatch.job.scores import SCORER_OPTIONS, ScoreSettings
from cometbatch.prompt.choices import choices_of

CITIES: Final = ["Paris", "Berlin", "London", "Rome"]
ORDER: Final = (
    ("a marker", "the last `####`", "6 * 7 = 42\n#### 42", "43 \\boxed{43}\n#### 42"),
    ("a box", r"the last `\boxed{}` or `\fbox{}`", "$\\boxed{41}$, no, $\\boxed{42}$", "\\boxed{42}. Answer: 43"),
    ("a cue", 'the last "Answer: ...", "The answer is ...", in some forty languages, `{"answer": ...}`, `<answer>`',
     "The answer is 42.\nThree checks show it.", "Die Antwort ist 42. 6 mal 7."),
    ("a line of its own", "the last line, else the first", "First 6 times 7.\n\n42", "42\n\nIt is 6 times 7."),
)  # fmt: skip
"""Where an answer is looked for: name, what counts, and two answers from which 42 is read."""
EXAMPLES: Final[tuple[tuple[str, dict[str, Any], str, object], ...]] = (
    ("choice", {}, "The answer is (B).", "B"),
    ("choice", {}, "Not A, since that is in France. It must be Berlin.", "B"),
    ("choice", {}, "Answer: B, because A is in France", "B"),
    ("choice", {}, "The answer is A or B.", "B"),
    ("choice", {}, "A good question!", "A"),
    ("choice", {"multi": True}, "Answers: A, C", ["A", "C"]),
    ("numeric", {}, "So it costs $1,234.50.", "1234.5"),
    ("numeric", {}, "The answer is $\\frac{9}{7}$.", "9/7"),
    ("numeric", {}, "6 * 7 = 42, since 40 + 2 = 42", 42),
    ("numeric", {}, "between 5 and 7", 7),
    ("numeric", {}, "The train leaves at 3:30", 3),
    ("numeric", {}, "25%", "0.25"),
    ("numeric", {"percent": "divide"}, "25%", "0.25"),
    ("numeric", {"decimal": "comma"}, "1.234,5 kg", "1234.5"),
    ("exact", {}, " Paris\n", "Paris"),
    ("exact", {}, "paris", "Paris"),
    ("normalized", {}, "The Eiffel-Tower.", "eiffel tower"),
    ("normalized", {}, "-5", "5"),
    ("contains", {}, "It is Paris, of course", "Paris"),
    ("contains", {}, "A Parisian", "Paris"),
    ("regex", {"pattern": r"Final: (\w+)"}, "Final: red\nFinal: blue", "blue"),
    ("label", {"labels": ("spam", "not spam")}, "This is not spam.", "spam"),
    ("label", {"labels": ("yes", "no")}, "Yes, there is no doubt.", "yes"),
    ("json", {}, 'Here: {"city": "Paris", "people": 2.1e6, "note": "old"}', {"city": "Paris", "people": 2100000}),
    ("json", {}, '{"city": "Paris", "capital": 1}', {"city": "Paris", "capital": True}),
    ("json", {}, '{"city": "Paris",}', {"city": "Paris"}),
    ("token_f1", {}, "The cat sat on the mat", "cat on mat"),
    ("token_f1", {"tokens": "characters"}, "北京大学", "北京"),
)
"""Scorer, options, answer and gold. The choices are those of `CITIES`."""


def _score(name: str, options: dict[str, Any], answer: str, gold: object) -> tuple[str, str, str]:
    settings = ScoreSettings(name="score", scorer=name, **options)  # type: ignore[arg-type]
    choices = choices_of(CITIES) if name == "choice" else ()
    right = gold_of(gold, settings, choices)
    assert right is not None
    found = scorer(settings)(answer, right, choices)
    assert found.value is not None
    return f"{found.value:.6g}", "" if found.answer is None else _code(found.answer), found.why or ""


def order() -> Iterator[tuple[str, ...]]:
    """Where an answer is looked for, with answers from which 42 is read."""
    for name, counts, *answers in ORDER:
        for answer in answers:
            assert _score("numeric", {}, answer, 42)[0] == "1", answer
        yield name, counts, ", ".join(map(_code, answers))


def options() -> Iterator[tuple[str, ...]]:
    """Each scorer with what it compares, and its options."""
    for name, key in SCORER_KEYS.items():
        own = "; ".join(f"`{option}`: {OPTION_KEYS[option].meaning}" for option in SCORER_OPTIONS[name])
        yield f"`{name}`", key.meaning, own


def examples() -> Iterator[tuple[str, ...]]:
    """Answers with what is found in them, and what they score."""
    for name, given, answer, gold in EXAMPLES:
        shown = ", ".join(f"{key}: {_plain(value)}" for key, value in given.items())
        yield (
            f"`{name}`",
            _code(shown) if shown else "",
            _code(answer),
            _code(_plain(gold)),
            *_score(name, given, answer, gold),
        )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _code(text: str) -> str:
    """A text as code in one line of a table."""
    return f"`{text}`".replace("\n", "⏎")
