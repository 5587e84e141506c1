"""What a format can't say is told in a sentence before the first request, never dropped on the way."""

import datetime
from typing import Any

import pytest

from cometbatch.records import GenerationParams, Role
from cometbatch.wire import FORMATS
from cometbatch.wire.request_extra import leading_system

PLAIN = GenerationParams(max_output_tokens=9, temperature=0.5, top_p=0.9)


@pytest.mark.parametrize("name", FORMATS)
def test_the_common_settings_are_fine_everywhere(name: str) -> None:
    """Cap, temperature, top_p and foreign extra keys are supported in every format."""
    assert FORMATS[name].unsupported_params(PLAIN) is None
    extra = {"stream": False, "n": 1, "background": None, "top_k": 3, "deep": {"a": [1, None]}}
    assert FORMATS[name].unsupported_params(GenerationParams(extra=extra)) is None


@pytest.mark.parametrize(
    ("name", "supported"),
    [("chat", {"seed", "stop"}), ("responses", set()), ("messages", {"stop"}), ("gemini", {"seed", "stop"})],
)
def test_seed_and_stop_are_refused_where_the_format_has_no_place_for_them(name: str, supported: set[str]) -> None:
    """Responses has neither, messages has no seed (contract sheet, sections 2 to 5)."""
    cases = {"seed": GenerationParams(seed=0), "stop": GenerationParams(stop=("a",))}
    for setting, params in cases.items():
        sentence = FORMATS[name].unsupported_params(params)
        assert (sentence is None) == (setting in supported)
        assert sentence is None or f"params.{setting}" in sentence


@pytest.mark.parametrize(
    ("name", "extra", "words"),
    [
        *((name, {"model": "x"}, "params.extra.model") for name in FORMATS),
        ("chat", {"messages": []}, "params.extra.messages"),
        ("chat", {"max_completion_tokens": 1}, "params.max_output_tokens"),
        ("chat", {"temperature": 1}, "params.temperature"),
        ("chat", {"top_p": 1}, "params.top_p"),
        ("chat", {"stop": None}, "params.stop"),
        ("chat", {"seed": 1}, "params.seed"),
        ("responses", {"input": "x"}, "params.extra.input"),
        ("responses", {"instructions": "x"}, "params.extra.instructions"),
        ("responses", {"max_output_tokens": 1}, "params.max_output_tokens"),
        ("messages", {"system": "x"}, "params.extra.system"),
        ("messages", {"max_tokens": 1}, "params.max_output_tokens"),
        ("messages", {"stop_sequences": []}, "params.stop"),
        ("gemini", {"contents": []}, "params.extra.contents"),
        ("gemini", {"systemInstruction": {}}, "params.extra.systemInstruction"),
        ("gemini", {"system_instruction": {}}, "params.extra.system_instruction"),
        ("gemini", {"generation_config": {}}, "params.extra.generationConfig"),
        ("gemini", {"generationConfig": {"maxOutputTokens": 1}}, "params.max_output_tokens"),
        ("gemini", {"generationConfig": {"top_p": 1}}, "params.top_p"),
        ("gemini", {"generationConfig": {"candidateCount": 2}}, "candidateCount"),
        ("gemini", {"generationConfig": []}, "params.extra.generationConfig must be a mapping"),
        *((name, {"stream": True}, "params.extra.stream") for name in FORMATS),
        *((name, {"background": True}, "params.extra.background") for name in FORMATS),
        *((name, {"n": 2}, "params.extra.n ") for name in FORMATS),
        *((name, {"stream": "yes"}, "params.extra.stream") for name in FORMATS),
    ],
)  # fmt: skip
def test_extra_may_not_say_what_the_format_says_itself(name: str, extra: dict[str, Any], words: str) -> None:
    """A clash, a stream, several answers or background work: refused with the key and what to use instead."""
    sentence = FORMATS[name].unsupported_params(GenerationParams(extra=extra))
    assert sentence is not None
    assert words in sentence


def test_the_older_name_of_the_cap_is_free_as_long_as_it_is_the_only_one() -> None:
    """Older models know only max_tokens (contract sheet, section 2); two caps would contradict each other."""
    chat = FORMATS["chat"]
    assert chat.unsupported_params(GenerationParams(extra={"max_tokens": 9})) is None
    sentence = chat.unsupported_params(GenerationParams(max_output_tokens=9, extra={"max_tokens": 9}))
    assert sentence is not None
    assert "same cap" in sentence


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), (1, 2), {1: 2}, {1, 2}, object(), datetime.date(2026, 1, 1), "\ud800", b"x"],
    ids=["nan", "infinity", "tuple", "integer key", "set", "object", "date", "lone surrogate", "bytes"],
)
def test_extra_must_be_plain_json(value: object) -> None:
    """What would not read back from the body as it is can't be sent by accident."""
    for wire in FORMATS.values():
        assert wire.unsupported_params(GenerationParams(extra={"deep": [value]})) is not None


def test_extra_nested_beyond_reason_is_refused() -> None:
    """A depth that can't be encoded is a sentence, not a crash."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert FORMATS["chat"].unsupported_params(GenerationParams(extra={"deep": deep})) is not None


EVERYWHERE = {"chat", "responses", "messages", "gemini"}


@pytest.mark.parametrize(
    ("roles", "fine_in"),
    [
        (["user"], EVERYWHERE),
        (["system", "user"], EVERYWHERE),
        (["system", "system", "user", "assistant", "user"], EVERYWHERE),
        (["user", "system"], {"chat", "responses"}),
        (["system", "user", "system", "user"], {"chat", "responses"}),
        (["developer", "user"], {"chat", "responses"}),
        ([], set()),
        (["system"], set()),
        (["system", "assistant"], set()),
    ],
)
def test_roles_are_judged_by_what_the_format_can_hold(roles: list[Role], fine_in: set[str]) -> None:
    """Every format needs a user message; two keep system messages apart and know no developer."""
    sentences = {name: wire.unsupported_messages(roles) for name, wire in FORMATS.items()}
    assert {name for name, sentence in sentences.items() if sentence is None} == fine_in
    assert all(sentence is None or len(sentence) > 20 for sentence in sentences.values())


def test_system_messages_before_all_others_are_counted() -> None:
    """All of them, where there is nothing else."""
    assert leading_system([]) == 0
    assert leading_system(["system"]) == leading_system(["system", "user", "system"]) == 1
