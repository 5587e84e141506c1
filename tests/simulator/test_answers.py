import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import GenerationParams, Message, Prompt
from cometbatch.simulator.answers import answer, answer_text, choices, tokens_in
from cometbatch.simulator.catalog import MODEL_BY_ID, MODELS, Model

DIGESTS = st.binary(min_size=16, max_size=16)
moderate = settings(max_examples=80, deadline=None)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """Any prompt, with or without a cap and stop words."""
    messages = draw(
        st.lists(st.builds(Message.of_text, st.sampled_from(["system", "user"]), st.text(max_size=200)), max_size=4)
    )
    stops = draw(st.lists(st.text(min_size=1, max_size=3), max_size=2))
    cap = draw(st.none() | st.integers(1, 60))
    return Prompt(tuple(messages), GenerationParams(max_output_tokens=cap, stop=tuple(stops)))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("Answer with one of: billing, bug, question.", ["billing", "bug", "question"]),
        (
            "Reply with exactly one of these words: billing, bug or question.\nNothing else.",
            ["billing", "bug", "question"],
        ),
        ("one of the following: yes/no", ["yes", "no"]),
        ("Choose one of: “positive”, “negative”, or “neutral”.", ["positive", "negative", "neutral"]),
        (
            "Classify it as one of:\n- billing\n- not a bug report\n- question",
            ["billing", "not a bug report", "question"],
        ),
        ("Is it spam? Answer yes or no.", ["yes", "no"]),
        ("Respond with A, B, C or D", ["A", "B", "C", "D"]),
        ("Choose between tea and coffee: tea | coffee", ["tea", "coffee"]),
        ("Label the sentiment (one of: good, bad)", ["good", "bad"]),
        ("What is the capital of France?", []),
        ("Answer in one word.", []),
        ("Reply politely and briefly.", []),
        ("One of our servers, which is old, has failed.", []),
        ("Answer with the name only, no explanation.", []),
        ("", []),
    ],
)
def test_words_to_choose_from_are_found(words: str, offered: list[str]) -> None:
    """A prompt that lists the answers it allows gets one of them, so that a demo looks sensible."""
    prompt = Prompt((Message.of_text("user", words),))
    assert choices(prompt.messages) == offered
    assert not offered or answer_text(prompt, bytes(16)) in offered


def test_every_offered_word_is_chosen_by_some_request() -> None:
    """The seed and the request decide among the words, and none is out of reach."""
    prompt = Prompt(
        (Message.of_text("system", "One of: billing, bug, question."), Message.of_text("user", "It broke."))
    )
    assert {answer_text(prompt, bytes([row] * 16)) for row in range(30)} == {"billing", "bug", "question"}


def test_without_words_to_choose_from_the_answer_echoes_the_question() -> None:
    """The answer is a short sentence that begins from the user's own words."""
    prompt = Prompt(
        (Message.of_text("system", "Be brief."), Message.of_text("user", "Why is   the sky\nblue? " + "Tell me. " * 50))
    )
    text = answer_text(prompt, bytes(16))
    assert "Why is the sky blue? Tell me. Tell" in text
    assert len(text) < 150


@pytest.mark.parametrize(
    "extra",
    [
        {"response_format": {"type": "json_object"}},
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        {"generationConfig": {"responseMimeType": "application/json"}},
    ],
    ids=["chat", "responses", "gemini"],
)
def test_json_is_answered_where_json_is_asked_for(extra: dict[str, object]) -> None:
    """A request for JSON output gets an object, in whichever way its format asks."""
    prompt = Prompt((Message.of_text("user", 'Say "hello"'),), GenerationParams(extra=extra))
    assert 'Say "hello"' in json.loads(answer_text(prompt, bytes(16)))["answer"]


@moderate
@given(prompt=prompts(), digest=DIGESTS, model=st.sampled_from(MODELS))
def test_no_answer_is_longer_than_its_cap(prompt: Prompt, digest: bytes, model: Model) -> None:
    """Output, reasoning included, stays within max_output_tokens, and only what was cut says length."""
    completion = answer(model, prompt, digest)
    cap, usage = prompt.params.max_output_tokens, completion.usage
    assert usage.output_tokens is not None
    assert usage.reasoning_output_tokens is not None
    assert cap is None or usage.output_tokens <= cap
    assert usage.output_tokens == usage.reasoning_output_tokens + tokens_in(len(completion.text))
    assert completion.finish_reason == "stop" or usage.output_tokens == cap


@moderate
@given(prompt=prompts(), digest=DIGESTS, model=st.sampled_from(MODELS))
def test_input_is_counted_as_the_documentation_estimates(prompt: Prompt, digest: bytes, model: Model) -> None:
    """Input tokens are a quarter of the characters, rounded up; cached ones are among them, on caching models only.

    No prompt has 0 tokens: a service that says so is not believed (contract sheet, section 13).
    """
    usage = answer(model, prompt, digest).usage
    assert usage.input_tokens == max(1, tokens_in(sum(len(message.text) for message in prompt.messages)))
    read, written = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    assert 0 <= read + written <= usage.input_tokens
    assert 0 <= (usage.cache_write_1h_input_tokens or 0) <= written
    assert model.caching or usage.cache_read_input_tokens == 0
    assert model.writes == (usage.cache_write_input_tokens is not None)


@moderate
@given(prompt=prompts(), digest=DIGESTS)
def test_an_answer_ends_before_a_stop_word(prompt: Prompt, digest: bytes) -> None:
    """No stop word is in the answer."""
    text = answer(MODEL_BY_ID["comet-sim-1"], prompt, digest).text
    assert not any(stop in text for stop in prompt.params.stop)


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_four_characters_are_a_token(characters: int, tokens: int) -> None:
    """Section 8.3: ceil(chars / 4)."""
    assert tokens_in(characters) == tokens
