"""The payload of a reply decides what it is, whichever dialect its words are in."""

import json
from typing import Any

import pytest

from cometbatch.records import Completion, ErrorDetail, GenerationParams, HttpResponse, Usage
from cometbatch.wire import FORMATS, Keep, payload
from cometbatch.wire.request_extra import asks_for_tools, template_marks, unkept
from cometbatch.wire.streaming import event_stream


def read(name: str, body: object, **keep: bool) -> Completion | ErrorDetail:
    """What a format reads in this JSON under a success status."""
    return FORMATS[name].parse_response(HttpResponse(200, {}, json.dumps(body).encode()), keep=Keep(**keep))


def ended(name: str, word: object) -> dict[str, Any]:
    """An answer of each format that ends with this word; responses has it where it says why an answer is incomplete."""
    answers: dict[str, dict[str, Any]] = {
        "chat": {"choices": [{"message": {"content": "yes"}, "finish_reason": word}]},
        "messages": {"content": [{"type": "text", "text": "yes"}], "stop_reason": word},
        "gemini": {"candidates": [{"content": {"parts": [{"text": "yes"}]}, "finishReason": word}]},
        "responses": {
            "status": "incomplete",
            "incomplete_details": {"reason": word},
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "yes"}]}],
        },
    }
    return answers[name]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("word", payload.FINISH)
def test_finish_words_of_any_dialect_are_known_in_each_format(name: str, word: str) -> None:
    """In small letters, capitals, and with dashes."""
    for spelt in (word, word.upper(), word.replace("_", "-"), f" {word} "):
        told = read(name, ended(name, spelt))
        assert isinstance(told, Completion)
        assert (told.text, told.finish_reason) == ("yes", payload.FINISH[word])


@pytest.mark.parametrize("name", ["chat", "messages", "gemini"])
@pytest.mark.parametrize("word", sorted(payload.failure_words()))
def test_a_finish_word_can_say_that_generation_failed(name: str, word: str) -> None:
    """It is an error without a code; half an answer beside it is none."""
    told = read(name, ended(name, word.upper()))
    assert isinstance(told, ErrorDetail)
    assert (told.problem, told.message) == ("error", f"generation ended as {word.upper()}")


@pytest.mark.parametrize("code", [429, 503, "503"])
def test_a_number_in_a_failed_response_decides_like_a_status(code: object) -> None:
    """Other codes leave it a failed generation."""
    told = read("responses", {"status": "failed", "error": {"code": code, "message": "m"}})
    assert isinstance(told, ErrorDetail)
    assert (told.problem, told.code) == ("error", str(code))


TEXTS: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"choices": [{"message": {"content": {"type": "text", "text": "yes"}}, "finish_reason": "stop"}]}, "yes"),
    ("chat", {"choices": [{"message": {"content": [{"text": "ye"}, "s"]}, "finish_reason": "stop"}]}, "yes"),
    ("chat", {"choices": [{"message": {"content": [{"type": "text", "text": {"value": "yes"}}]},
                           "finish_reason": "stop"}]}, "yes"),
    ("chat", {"choices": [{"message": {"content": [{"type": ["text"], "text": "x"}]}, "finish_reason": "stop"}]}, ""),
    ("chat", {"choices": [{"text": "yes", "finish_reason": "stop"}]}, "yes"),
    ("chat", {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}, "yes"),
    ("responses", {"status": "completed", "output_text": "yes"}, "yes"),
    ("responses", {"output_text": "yes"}, "yes"),
    ("responses", {"status": "completed", "output": [], "output_text": "yes"}, "yes"),
    ("responses", {"status": "completed", "output": [{"role": "assistant", "content": "yes"}]}, "yes"),
    ("messages", {"type": "message", "content": "yes", "stop_reason": "end_turn"}, "yes"),
    ("gemini", {"candidates": [{"content": {"parts": {"text": "yes"}}, "finishReason": "STOP"}]}, "yes"),
    ("gemini", {"candidates": [{"content": "yes", "finishReason": "STOP"}]}, "yes"),
    ("gemini", {"candidates": [{"content": {"parts": ["ye", {"text": "s"}, 7]}, "finishReason": "STOP"}]}, "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "text"), TEXTS)
def test_text_is_found_in_parts_of_any_kind(name: str, body: dict[str, Any], text: str) -> None:
    """Typed parts of other formats, parts without a type, one part, bare text, text at the top."""
    told = read(name, body)
    assert isinstance(told, Completion)
    assert (told.text, told.finish_reason) == (text, "stop")


def test_a_refusal_may_be_a_part() -> None:
    """In chat, too."""
    content = [{"type": "refusal", "refusal": "No."}]
    told = read("chat", {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})
    assert isinstance(told, Completion)
    assert (told.finish_reason, told.detail) == ("refusal", "No.")


CALLS = [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("word", "reason"),
    [(word, "tool_calls") for word in ("stop", "STOP", "end_turn", "tool_calls", "new", None)]
    + [("length", "length"), ("content_filter", "content_filter"), ("refusal", "refusal")],
)
@pytest.mark.parametrize("words", ["", "Let me see"])
def test_calls_decide_unless_the_answer_was_cut_or_filtered(word: object, reason: str, words: str) -> None:
    """They are kept in any case."""
    message = {"content": words, "tool_calls": CALLS}
    told = read("chat", {"choices": [{"message": message, "finish_reason": word}]})
    assert isinstance(told, Completion)
    assert (told.text, told.finish_reason) == (words, reason)
    assert json.loads(told.detail or "") == CALLS


THOUGHTS: list[tuple[str, dict[str, Any], str | None]] = [
    ("chat", {"choices": [{"message": {"content": "a", "reasoning_content": "hm"}}]}, "hm"),
    ("chat", {"choices": [{"message": {"reasoning": "hm", "reasoning_details": [{"text": "hm"}]}}]}, "hm"),
    ("chat", {"choices": [{"message": {"reasoning_details": [{"text": "h"}, {"summary": "m"}, {}]}}]}, "h\nm"),
    ("chat", {"choices": [{"message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text"}]}}]}, "hm"),
    ("chat", {"choices": [{"text": "a"}]}, None),
    ("responses", {"output": [{"type": "reasoning", "summary": [{"text": "h"}], "content": [{"text": "m"}]}]}, "h\nm"),
    ("responses", {"output": [{"type": "message", "content": "a"}]}, None),
    ("messages", {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]}, "hm"),
    ("messages", {"content": [{"type": "reasoning", "summary": [{"text": "hm"}]}, {"type": "reasoning"}]}, "hm"),
    ("gemini", {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": "a"}]}}]}, "hm"),
    ("gemini", {"candidates": []}, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "thought"), THOUGHTS)
def test_reasoning_and_the_whole_reply_are_kept_only_where_they_are_asked_for(
    name: str, body: dict[str, Any], thought: str | None
) -> None:
    """Reasoning is one text, and never part of the answer; the raw reply is its JSON."""
    plain, kept = read(name, body), read(name, body, raw=True, reasoning=True)
    assert isinstance(plain, Completion)
    assert isinstance(kept, Completion)
    assert (plain.raw, plain.reasoning) == (None, None)
    assert json.loads(kept.raw or "") == body
    assert kept.reasoning == thought
    assert kept.text == plain.text
    assert read(name, body, reasoning=True) != kept


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_answer_that_was_billed_says_what_it_held(name: str) -> None:
    """At most 500 characters; one without tokens says nothing."""
    for usage, is_told in ((Usage(9, 4), True), (Usage(9, 0), False), (Usage(), False)):
        told = FORMATS[name].parse_response(FORMATS[name].build_response("m", Completion("", "stop", usage)))
        assert isinstance(told, Completion)
        assert (told.detail is not None) == is_told
    assert payload.excerpt({"a": "x" * 900}) == '{"a":"' + "x" * 493 + "…"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert payload.excerpt(deep) is None


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_keeps_the_token_counts_beside_it(name: str) -> None:
    """They say what may have been billed."""
    body = json.loads(FORMATS[name].build_response("m", Completion("yes", "stop", Usage(9, 4))).body)
    told = read(name, body | {"error": {"message": "m"}})
    assert isinstance(told, ErrorDetail)
    assert (told.usage.input_tokens, told.usage.output_tokens) == (9, 4)


def test_only_the_first_candidate_of_a_stream_is_the_answer() -> None:
    """Others were not asked for, and arguments of a call may be missing."""
    chunks: list[dict[str, Any]] = [
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "no"}]}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": [{"text": "yes"}]}, "finishReason": "STOP"}]},
    ]
    told = FORMATS["gemini"].parse_response(HttpResponse(200, {}, event_stream(chunks, end_mark=False)))
    assert isinstance(told, Completion)
    assert told.text == "yes"
    chunks = [{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]}, {"choices": []}]
    called = FORMATS["chat"].parse_response(HttpResponse(200, {}, event_stream(chunks, end_mark=True)))
    assert isinstance(called, Completion)
    assert called.detail == '[{"function":{"name":"f"}}]'


# -- what a job asks for beside the answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({"logprobs": True, "top_logprobs": 5}, [("logprobs", "raw"), ("top_logprobs", "raw")]),
        ({"topLogprobs": 5}, [("topLogprobs", "raw")]),
        ({"generationConfig": {"response_logprobs": True}}, [("generationConfig.response_logprobs", "raw")]),
        (
            {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
            [("generationConfig.thinkingConfig.includeThoughts", "reasoning")],
        ),
        ({"reasoning": {"summary": "auto", "effort": "low"}}, [("reasoning.summary", "reasoning")]),
        ({"tools": [{"google_search": {}}, {"functionDeclarations": []}]}, [("tools[0]", "raw")]),
        ({"tools": [{"type": "web_search"}, {"type": "custom"}, "x"]}, [("tools[0]", "raw")]),
        ({"tools": {"type": "web_search"}}, []),
        ({"logprobs": False, "reasoning": {"summary": None}, "top_k": 3}, []),
    ],
)
def test_what_is_asked_for_beside_the_answer_is_found(extra: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """In both spellings, at its own place, and only where it asks for something."""
    assert list(unkept(extra)) == found


def test_tools_are_asked_for_where_there_are_some() -> None:
    """In today's name and in the older one."""
    asking: list[dict[str, Any]] = [{"tools": [{}]}, {"functions": [{}]}, {"tools": []}, {}]
    assert [asks_for_tools(extra) for extra in asking] == [True, True, False, False]


def test_template_marks_are_found_wherever_they_stand() -> None:
    """Names, values, lists; what only looks a little like one is none."""
    extra = {"a": [{"b": "{{ x }} and {{ y }}"}], "c{%": 1, "d": "{ {x} }", "e": "{{" + "x" * 90}
    assert list(template_marks(extra)) == [("a[0].b", "{{ x }}"), ("c{%", "{%"), ("e", "{{" + "x" * 38)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "setting", ["best_of", "bestOf", "num_return_sequences", "candidate_count", "candidateCount", "n"]
)
def test_no_way_to_pay_for_a_second_answer_is_open(name: str, setting: str) -> None:
    """At the top and among the settings of generation, in both spellings; deeper names are anybody's own."""

    def refused(extra: dict[str, Any]) -> str | None:
        return FORMATS[name].unsupported_params(GenerationParams(extra=extra))

    several: list[dict[str, Any]] = [{setting: 2}, {"generationConfig": {setting: 2}}, {"parameters": {setting: 3}}]
    one: list[dict[str, Any]] = [
        {setting: 1},
        {setting: None},
        {"tools": [{"parameters": {"properties": {setting: {}}}}]},
    ]
    for extra in several:
        assert setting in (refused(extra) or "")
    for extra in one:
        assert refused(extra) is None
