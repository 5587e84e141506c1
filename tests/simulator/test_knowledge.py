"""What is right in the simulator's world, and how often a model is: by one rule, with the share that was asked for."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.records import GenerationParams, Message, Prompt
from cometbatch.simulator.behaviour import Accuracy, Behaviour, parse_accuracy, request_digest
from cometbatch.simulator.knowledge import question_in, right_answer, said

CHOICES = ("red", "blue", "green", "grey")


def lettered(question: str, texts: list[str]) -> str:
    """A question with choices in lines."""
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in zip("ABCDEFGH", texts, strict=False))])


def answers(text: str, accuracy: Accuracy, samples: int, seed: int | None = None, system: str = "") -> list[str]:
    """What a model says to equal requests, one after the other."""
    messages = [Message.of_text("user", text)]
    if system:
        messages.insert(0, Message.of_text("system", system))
    prompt = Prompt(tuple(messages), GenerationParams(seed=seed))
    digest = request_digest(accuracy.seed, "/v1/chat/completions", f"{text} {seed}".encode())
    found = [said(accuracy, "m", prompt, digest, seen) for seen in range(1, samples + 1)]
    return [each.core for each in found if each is not None]


# ---------------------------------------------------------------- what is right


@given(st.permutations(CHOICES), st.text("abc ", min_size=1, max_size=20))
def test_the_right_choice_is_the_same_wherever_it_stands(texts: list[str], words: str) -> None:
    """By what it says, and not by its letter: a shuffled question keeps its answer."""
    question = f"Which colour is {words}?"
    right = right_answer(lettered(question, texts))
    usual = right_answer(lettered(question, list(CHOICES)))
    assert texts["ABCD".index(right)] == CHOICES["ABCD".index(usual)]


@given(st.text(max_size=200))
def test_there_is_a_right_answer_to_anything(text: str) -> None:
    """Also to an empty prompt, and to half of a surrogate pair; the same each time."""
    assert right_answer(text) == right_answer(text) != ""


def test_the_words_around_a_question_do_not_matter() -> None:
    """The question is the line that ends with a question mark, else the first line."""
    assert question_in("Read this.\n How  many are left?\nLast line: #### and the number.") == "How many are left?"
    assert question_in("\n\nThe kettle is broken.\nSort it.") == "The kettle is broken."
    numbers = {
        right_answer(f"{before}How many are left?\n{after}####") for before in ("", "Hm.\n") for after in ("", "x\n")
    }
    assert len(numbers) == 1
    assert 0 <= int(numbers.pop()) < 1000


@pytest.mark.parametrize(
    ("text", "system", "expected"),
    [
        (lettered("Which?", ["red", "blue"]), "", {"A", "B"}),
        ("(A) red\n(B) blue", "", {"A", "B"}),
        ("The kettle is broken.", "Answer with one of: billing, delivery.", {"billing", "delivery"}),
        ("The kettle is broken. One of: billing, delivery.", "", {"billing", "delivery"}),
        ("Which is a bird: falcon or zinc?", "In one word.", {"Which", "bird", "falcon", "zinc"}),
    ],
)
def test_an_answer_is_one_of_those_that_the_prompt_offers(text: str, system: str, expected: set[str]) -> None:
    """Right or wrong; a wrong one is never the right one."""
    assert set(answers(text, Accuracy({"m": 0.5}), 40, system=system)) <= expected
    (right,) = set(answers(text, Accuracy({"m": 1.0}), 5, system=system))
    assert right not in answers(text, Accuracy({"m": 0.0}), 40, system=system)


def test_a_whole_answer_has_the_form_that_the_prompt_asks_for() -> None:
    """A letter after ANSWER:, a number after the marker, a word alone."""

    def text_of(text: str) -> str:
        prompt = Prompt((Message.of_text("user", text),))
        found = said(Accuracy({"m": 1.0}), "m", prompt, b"0" * 16, 1)
        assert found is not None
        return found.text

    choices, number = lettered("Which?", ["red", "blue"]), "How many?\nLast line: #### and the number."
    assert text_of(choices) == f"ANSWER: {right_answer(choices)}"
    assert text_of(number).splitlines()[-1] == f"#### {right_answer(number)}"
    assert text_of("One of: red, blue") == right_answer("One of: red, blue")


# ---------------------------------------------------------------- how often


@pytest.mark.parametrize(("share", "spread"), [(0.8, 0.0), (0.8, 0.5), (0.3, 1.0), (0.95, 0.25)])
def test_a_model_is_right_with_its_share_and_its_samples_are_alike_by_the_spread(share: float, spread: float) -> None:
    """The mean is the share, and the correlation of two samples of a question is the spread."""
    accuracy, questions, samples = Accuracy({"m": share}, spread), 800, 6
    right = []
    for number in range(questions):
        text = lettered(f"Which is number {number}?", list(CHOICES))
        right.append([each == right_answer(text) for each in answers(text, accuracy, samples)])
    mean = sum(map(sum, right)) / (questions * samples)
    error = math.sqrt(share * (1 - share) * (1 + (samples - 1) * spread) / (questions * samples))
    assert abs(mean - share) < 4 * error
    pairs = [(one - share) * (other - share) for each in right for one, other in itertools.combinations(each, 2)]
    assert abs(sum(pairs) / len(pairs) / (share * (1 - share)) - spread) < 0.1


def test_with_a_seed_a_request_is_answered_the_same_each_time() -> None:
    """However often its bytes come: a killed run asks again what it lost, and gets what it would have got."""
    accuracy = Accuracy({"m": 0.5})
    texts = [lettered(f"Which is {number}?", list(CHOICES)) for number in range(50)]
    assert all(len(set(answers(text, accuracy, 5, seed=1))) == 1 for text in texts)
    assert any(answers(text, accuracy, 1, seed=1) != answers(text, accuracy, 1, seed=2) for text in texts)


def test_a_model_without_a_share_is_none_of_its_business() -> None:
    """Its answers are those that it gave before there were shares."""
    prompt = Prompt((Message.of_text("user", "One of: red, blue"),))
    assert said(Accuracy({"other": 1.0}), "m", prompt, b"0" * 16, 1) is None


def test_shares_outside_of_0_to_1_are_refused() -> None:
    """In a sentence that names the model."""
    with pytest.raises(ValueError, match=r"accuracy m: the share must be from 0 to 1, not 1\.5"):
        Behaviour(accuracy=(("m", 1.5),))
    with pytest.raises(ValueError, match="spread must be from 0 to 1"):
        Behaviour(spread=-0.1)
    with pytest.raises(ValueError, match="write a model with its share"):
        parse_accuracy("comet-sim-1")
    assert parse_accuracy("a:b:0.5") == ("a:b", 0.5)


def test_settings_get_to_the_process() -> None:
    """As options of the command."""
    behaviour = Behaviour(accuracy=(("comet-sim-1", 0.8),), spread=0.25)
    assert behaviour.to_options()[-2:] == ["--accuracy=comet-sim-1:0.8", "--spread=0.25"]
