"""Small evaluation sets in the public layouts, for `sample_data/`; `make_sample_data` writes them.

All questions are invented here, and their answers are true. Of many possible questions those are taken whose true
answer is also right by the simulator's rule, so that it can be scored by them.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TypeVar

import pyarrow as pa
from msgspec import Struct

from cometbatch.simulator.knowledge import right_answer

_T = TypeVar("_T")
NAMES = ("Adaeze", "Bogdan", "Chiara", "Dilek", "Emeka", "Farida", "Goran", "Hanna", "Ioana", "Jonas", "Keiko", "Lucia")
LETTERS = "ABCD"


def _taken(possible: Iterable[_T], count: int) -> list[_T]:
    """The first of these, as many as are wanted. Raises `ValueError` where there are fewer."""
    found = list(itertools.islice(possible, count))
    if len(found) < count:
        raise ValueError(f"there are {len(found)} questions, and {count} are wanted")
    return found


# ---------------------------------------------------------------- multiple choice: question, subject, choices, answer

UNITS = (
    ("minutes", "hours", 60),
    ("hours", "days", 24),
    ("days", "weeks", 7),
    ("grams", "kilograms", 1000),
    ("metres", "kilometres", 1000),
    ("months", "years", 12),
)


def _numbers(question: str, right: int, place: int) -> tuple[str, list[str], int] | None:
    """A question with four numbers to choose from; None where the simulator's rule takes another than the right one."""
    others = [each for each in (right + 2, right * 2, max(right - 1, 0), right + 10) if each != right]
    texts = [str(each) for each in others[:3]]
    texts.insert(place, str(right))
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True))
    return (question, texts, place) if right_answer(f"{question}\n{lines}") == LETTERS[place] else None


def _unit_questions() -> Iterator[tuple[str, list[str], int]]:
    pairs = itertools.product(range(2, 20), UNITS)
    for number, (many, (small, large, size)) in enumerate(pairs):
        yield from filter(None, [_numbers(f"How many {small} are there in {many} {large}?", many * size, number % 4)])


def _sum_questions() -> Iterator[tuple[str, list[str], int]]:
    for number, (one, other) in enumerate(itertools.product(range(12, 19), range(23, 37))):
        yield from filter(None, [_numbers(f"What is {one} plus {other}?", one + other, number % 4)])


def _word_questions() -> Iterator[tuple[str, list[str], int]]:
    words = ("river", "candle", "mountain", "pencil", "orchard", "lantern", "harbour", "blanket", "compass", "thunder")
    verbs = ("are there in", "has", "make up", "do you count in", "belong to", "spell", "form")
    for number, (word, verb) in enumerate(itertools.product(words, verbs)):
        yield from filter(None, [_numbers(f"How many letters {verb} the word {word}?", len(word), number % 4)])


def choices_table() -> pa.Table:
    """Forty-eight questions with four choices each, in the layout of MMLU: `answer` is the place of the right one."""
    kinds = {"units": (_unit_questions(), 18), "sums": (_sum_questions(), 16), "words": (_word_questions(), 14)}
    taken = [(subject, *each) for subject, (made, count) in kinds.items() for each in _taken(made, count)]
    subjects, questions, choices, answers = zip(*taken, strict=True)
    return pa.table(
        {
            "question": pa.array(questions, pa.string()),
            "subject": pa.array(subjects, pa.string()),
            "choices": pa.array(choices, pa.list_(pa.string())),
            "answer": pa.array(answers, pa.int64()),
        }
    )


# ---------------------------------------------------------------- maths: question, and a solution that ends in ####


class Problem(Struct, frozen=True):
    """A kind of word problem: first times second, and third on top or away."""

    text: str
    sign: int
    goods: tuple[str, ...]

    def worded(self, name: str, what: str, numbers: tuple[int, int, int]) -> tuple[str, str, int]:
        """The question, its solution and its answer."""
        first, second, third = numbers
        whole = first * second
        answer = whole + self.sign * third
        question = self.text.format(name=name, what=what, first=first, second=second, third=third)
        sign = "+" if self.sign > 0 else "-"
        return question, f"{first} * {second} = {whole}\n{whole} {sign} {third} = {answer}\n#### {answer}", answer


PROBLEMS = (
    Problem(
        "{name} has {first} boxes with {second} {what} in each of them, and gives {third} {what} away. "
        "How many {what} are left?",
        -1,
        ("pens", "apples", "shells"),
    ),
    Problem(
        "{name} buys {first} {what} for {second} euros each, and pays {third} euros for the delivery. "
        "How many euros is that in all?",
        1,
        ("tickets", "books", "plants"),
    ),
    Problem(
        "{name} fills {first} bags with {second} {what} each, and has {third} {what} over. How many {what} are there?",
        1,
        ("candles", "marbles", "beads"),
    ),
)


def _maths_questions() -> Iterator[tuple[str, str]]:
    kinds = [(problem, what) for problem in PROBLEMS for what in problem.goods]
    for at, name in enumerate(NAMES * 4):
        problem, what = kinds[(at + at // 36) % len(kinds)]
        numbers = itertools.product(range(3 + at % 7, 30), range(6, 34), range(5, 60, 3))
        for worded in (problem.worded(name, what, each) for each in numbers):
            question, solution, answer = worded
            if answer > 0 and right_answer(f"{question}\n####") == str(answer):
                yield question, solution
                break


def maths_jsonl() -> bytes:
    """Forty word problems in the layout of GSM8K."""
    rows = ({"question": question, "answer": answer} for question, answer in _taken(_maths_questions(), 40))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


# ---------------------------------------------------------------- classification: text, label

LABELS = ("billing", "delivery", "returns", "technical")
MESSAGES = {
    "billing": (
        "I was charged twice for the {what}.",
        "The invoice for the {what} shows the wrong amount.",
        "My card was charged, though I never ordered a {what}.",
        "Please send me a receipt with our tax number for the {what}.",
    ),
    "delivery": (
        "The {what} was promised for last week and is not here.",
        "The parcel with the {what} went to a neighbour's address.",
        "Where is my {what}? The tracking page has not changed since Monday.",
        "Can the {what} be brought on Saturday instead?",
    ),
    "returns": (
        "I would like to send the {what} back; it is too small.",
        "How long may I keep the {what} before I must return it?",
        "The {what} came in the wrong colour, so I want to give it back.",
        "I have sent the {what} back and still wait for my refund.",
    ),
    "technical": (
        "The {what} does not switch on any more.",
        "How do I connect the {what} to my phone?",
        "After the update the {what} shows an error.",
        "The battery of the {what} is empty after an hour.",
    ),
}
PRODUCTS = ("desk lamp", "backpack", "keyboard", "kettle", "bicycle light", "headset", "coffee grinder", "heater")


def _messages() -> Iterator[tuple[str, str]]:
    for what in PRODUCTS:
        for label, texts in MESSAGES.items():
            for text in texts:
                said = text.format(what=what)
                if right_answer(said, LABELS) == label:
                    yield said, label


def messages_csv() -> bytes:
    """Thirty-two messages of customers, each with the department that it is for."""
    rows = _taken(_messages(), 32)
    lines = ["id,text,label", *(f'm-{at:03d},"{text}",{label}' for at, (text, label) in enumerate(rows, 1))]
    return ("\n".join(lines) + "\n").encode()


# ---------------------------------------------------------------- short answers: question, answer{value, aliases}

KINDS = {
    "a bird": ("falcon", "sparrow", "heron", "pigeon"),
    "a metal": ("copper", "silver", "nickel", "zinc"),
    "a colour": ("purple", "orange", "yellow", "green"),
    "a fruit": ("cherry", "banana", "apricot", "peach"),
    "a tool": ("hammer", "chisel", "pliers", "wrench"),
}


def _short_questions() -> Iterator[tuple[str, str]]:
    for shift, at in itertools.product((1, 2), range(4)):
        for kind, words in KINDS.items():
            others = [each[(at + shift) % 4] for name, each in KINDS.items() if name != kind]
            for one, other in itertools.permutations(others, 2):
                question = f"Which is {kind}: {one}, {words[at]} or {other}?"
                if right_answer(question) == words[at]:
                    yield question, words[at]
                    break


def short_table() -> pa.Table:
    """Thirty-six questions with a word as answer, in the layout of TriviaQA: any of the aliases is right."""
    questions, values = zip(*_taken(_short_questions(), 36), strict=True)
    answers = [{"value": value, "aliases": _aliases(value)} for value in values]
    kind = pa.struct([("value", pa.string()), ("aliases", pa.list_(pa.string()))])
    return pa.table({"question": pa.array(questions, pa.string()), "answer": pa.array(answers, kind)})


def _aliases(value: str) -> list[str]:
    article = "an" if value[0] in "aeiou" else "a"
    return [value, value.capitalize(), f"{article} {value}"]
