"""Laws of the scorers: total, the same answer in any wrapping, the order of choices does not matter."""

import random
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.evaluation.scorers import gold_of, scorer
from cometbatch.evaluation.scorers.numeric import shown
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import choices_of
from tests.scorers.cases import FILES, SCORERS, Case, cases

CITIES: Final = ["Paris", "Berlin", "London", "Rome"]
WRAPPINGS: Final = (
    "{}", "{}.", "({})", "[{}]", "**{}**", "*{}*", "__{}__", "`{}`", '"{}"', "“{}”", "「{}」", "$\\text{{{}}}$",
    "\\({}\\)", "\\[{}\\]", "\\boxed{{{}}}", "$\\boxed{{\\textbf{{{}}}}}$", "<b>{}</b>", "> {}", "- {}",
    "```\n{}\n```", "#### {}", "#### **{}**", "Answer: {}", "**Answer:** {}", "**Answer: {}**", "Final Answer: ({})",
    "The answer is {}.", "The answer is **{}**, since it fits.", "The correct answer is:\n\n{}", "## Answer\n\n{}",
    "Answer\n{}", "ANSWER={}", "The final answer is $\\boxed{{{}}}$.", '{{"answer": "{}"}}',
    '{{"why": "It fits.", "final_answer": "{}"}}', "<answer>{}</answer>", "<answer>\n{}\n</answer>",
    "<think>The answer is 9 or D.</think>{}", "9 or D</think>\n{}",
    "Let me see. The answer is 9, or D? No.\nThe answer is {}", "Antwort: {}", "Die Antwort ist {}.", "Respuesta: {}",
    "La respuesta es {}.", "Réponse : {}", "La réponse est {}", "Risposta: {}", "Resposta: {}", "Ответ: {}", "答案：{}",
    "答案是{}。", "答え：{}",
    "정답: {}", "الإجابة: {}", "उत्तर: {}", "উত্তর: {}", "Cevap: {}", "Antwoord: {}", "Svar: {}",
    "Odpowiedź: {}", "Đáp án: {}", "Jawaban: {}", "\ufeff{}\r\n", "\u200b{}\u200b",
)  # fmt: skip
"""Ways in which models wrap an answer."""
NUMBERS: Final = ("7", "-7", "7.25", "1,234", "1/3", "0", "12345678901234567891")


def of(name: str, **options: object) -> ScoreSettings:
    """The settings of a score."""
    return ScoreSettings(name="score", scorer=name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_right_letter_is_right_in_any_wrapping(wrapping: str) -> None:
    """Each letter, and each choice's own text, is read from markup, cues of many languages, boxes and tags."""
    choices, score = choices_of(CITIES), scorer(of("choice"))
    for place, city in enumerate(CITIES):
        label = "ABCD"[place]
        for said in (label, city, f"{label}. {city}", f"{label}) {city}"):
            found = score(wrapping.format(said), (label,), choices)
            assert (found.answer, found.why) == (label, None), said


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_right_number_is_right_in_any_wrapping(wrapping: str) -> None:
    """So is a number, with its sign, groups, decimals or as a fraction."""
    score = scorer(of("numeric"))
    for number in NUMBERS:
        gold = gold_of(number, of("numeric"))
        assert gold is not None
        assert score(wrapping.format(number), gold, ()).value == 1, number


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_label_is_read_in_any_wrapping(wrapping: str) -> None:
    """So is a label, also one of several words and a word like yes."""
    score = scorer(of("label", labels=("yes", "no", "not sure", "positive")))
    for label in ("yes", "No", "not sure", "Positive"):
        found = score(wrapping.format(label), (label.lower(),), ())
        assert (found.answer, found.why) == (label.lower(), None), label


@given(st.text(st.characters(codec=None), max_size=200), st.sampled_from(SCORERS))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_a_scorer_raise(text: str, name: str) -> None:
    """Any text gives a score from 0 to 1."""
    options: dict[str, object] = {"regex": {"pattern": r"(\w+)"}, "label": {"labels": ("yes", "no")}}.get(name, {})  # type: ignore[assignment]
    gold = ({"a": 1},) if name == "json" else (Fraction(1),) if name == "numeric" else ("A",)
    found = scorer(of(name, **options))(text, gold, choices_of(CITIES))
    assert found.value is not None
    assert 0 <= found.value <= 1
    assert (found.why is None) or found.value == 0


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_choices_does_not_matter(chance: random.Random) -> None:
    """An answer by a choice's text scores the same in any order, and by its letter where the letter moves along."""
    order = chance.sample(CITIES, len(CITIES))
    choices, score = choices_of(order), scorer(of("choice"))
    label = "ABCD"[order.index("Berlin")]
    gold = gold_of("Berlin", of("choice"), choices)
    assert gold == (label,)
    for answer in ("The answer is Berlin.", f"The answer is {label}.", f"{label}) Berlin", "Not Rome, but Berlin"):
        assert score(answer, gold, choices).value == 1, answer


def found_again(case: Case) -> str | None:
    """What is found in what was found in a case's answer."""
    first = case.scored()
    if first.answer is None:
        return None
    again = scorer(case.settings)(first.answer, (), case.shown)
    return None if again.answer == first.answer else f"{case.id}: {first.answer!r} gives {again}"


@pytest.mark.parametrize("name", ["choice", "numeric", "label", "exact", "token_f1"])
def test_what_was_found_is_found_again(name: str) -> None:
    """The answer that is shown beside a score is read as the same answer."""
    found = (found_again(each) for file in FILES for each in cases(file, name) if not each.options.get("decimal"))
    assert [words for words in found if words is not None] == []


@given(st.fractions(max_denominator=10**12), st.integers(-30, 30))
@settings(max_examples=200, deadline=None)
def test_a_number_is_shown_as_it_is_read(number: Fraction, power: int) -> None:
    """Every digit is kept: the number that is shown is the one that was found."""
    number *= Fraction(10) ** power
    assert scorer(of("numeric"))(shown(number), (number,), ()).value == 1


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=4))
@settings(max_examples=100, deadline=None)
def test_groups_and_decimal_commas_do_not_change_a_number(number: object) -> None:
    """The same number with groups of three, by comma, by thin space, by apostrophe, or with a decimal comma."""
    plain, grouped = f"{number:f}", f"{number:,f}"
    gold = gold_of(plain, of("numeric"))
    assert gold is not None
    for sign in (",", "'", "\u202f", "\u2009", "\\,", "{,}"):
        assert scorer(of("numeric"))(grouped.replace(",", sign), gold, ()).value == 1, sign
    swapped = grouped.translate(str.maketrans(",.", ".,"))
    assert scorer(of("numeric", decimal="comma"))(swapped, gold, ()).value == 1
