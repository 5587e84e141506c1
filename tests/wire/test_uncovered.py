"""What was used that prices for tokens don't cover is named, and nothing else (contract sheet, section 13)."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Completion, HttpResponse
from cometbatch.wire import FORMATS
from tests.wire.strategies import JSON_VALUES
from tests.wire.test_usage import ANSWERS

COUNTED: dict[str, dict[str, Any]] = {
    "chat": {"prompt_tokens": 10, "completion_tokens": 2},
    "responses": {"input_tokens": 10, "output_tokens": 2},
    "messages": {"input_tokens": 10, "output_tokens": 2},
    "gemini": {"promptTokenCount": 10, "candidatesTokenCount": 2},
}


def excluded(name: str, body: dict[str, Any], usage: dict[str, Any]) -> str | None:
    """What the cost of an answer leaves out, with these in its body and in its usage."""
    counts = {"usageMetadata" if name == "gemini" else "usage": COUNTED[name] | usage}
    reply = HttpResponse(200, {}, json.dumps(ANSWERS[name] | counts | body).encode())
    completion = FORMATS[name].parse_response(reply)
    assert isinstance(completion, Completion)
    return completion.cost_excludes


def cited(notes: object) -> dict[str, Any]:
    """A chat answer with annotations."""
    return {"choices": [{"message": {"content": "x", "annotations": notes}, "finish_reason": "stop"}]}


def grounded(grounding: object) -> dict[str, Any]:
    """A Gemini answer with this beside its content."""
    return {"candidates": [{"finishReason": "STOP", "groundingMetadata": grounding}]}


@pytest.mark.parametrize(
    ("name", "body", "usage", "expected"),
    [
        ("messages", {}, {"server_tool_use": {"web_search_requests": 3}}, "web_search"),
        ("messages", {}, {"server_tool_use": {"web_search_requests": 0}}, None),
        ("messages", {}, {"server_tool_use": {"web_fetch_requests": 2}}, None),
        ("messages", {}, {"server_tool_use": {"code_execution_requests": 2, "web_search_requests": 1}},
         "code_execution, web_search"),
        ("messages", {}, {"server_tool_use": {"moon_requests": 2}}, "server_tools"),
        ("messages", {}, {"server_tool_use": "many"}, None),
        ("messages", {"content": [{"type": "server_tool_use", "name": "web_search"}]}, {}, "web_search"),
        ("messages", {"content": [{"type": "server_tool_use", "name": "web_fetch"}]}, {}, None),
        ("messages", {"content": [{"type": "server_tool_use"}]}, {}, "server_tools"),
        ("messages", {"content": [{"type": "tool_use", "name": "web_search"}]}, {}, None),
        ("messages", {}, {"service_tier": "standard"}, None),
        ("messages", {}, {"service_tier": "priority"}, "service_tier=priority"),
        ("messages", {}, {"speed": "fast", "service_tier": "batch"}, "service_tier=batch, speed=fast"),
        ("chat", {"service_tier": "default"}, {}, None),
        ("chat", {"service_tier": "Default"}, {}, None),
        ("chat", {"service_tier": "flex"}, {}, "service_tier=flex"),
        ("chat", {"service_tier": "a tier, with words"}, {}, "service_tier=other"),
        ("chat", {"service_tier": 7, "speed": None}, {}, None),
        ("chat", {}, {"server_tool_use": {"web_search_requests": 1}}, "web_search"),
        ("chat", {}, {"num_search_queries": 2}, "web_search"),
        ("chat", {}, {"num_sources_used": 0}, None),
        ("chat", {}, {"num_server_side_tools_used": 2}, "server_tools"),
        ("chat", cited([{"type": "url_citation"}]), {}, "web_search"),
        ("chat", cited([{"type": "file_citation"}]), {}, None),
        ("chat", cited([]), {}, None),
        ("chat", cited("all of them"), {}, None),
        ("responses", {"service_tier": "auto"}, {}, None),
        ("responses", {"service_tier": "priority"}, {}, "service_tier=priority"),
        ("responses", {"output": [{"type": "web_search_call"}, {"type": "web_search_call"}]}, {}, "web_search"),
        ("responses", {"output": [{"type": "file_search_call"}, {"type": "code_interpreter_call"}]}, {},
         "file_search, code_interpreter"),
        ("responses", {"output": [{"type": "function_call"}, {"type": ["web_search_call"]}]}, {}, None),
        ("gemini", grounded({"webSearchQueries": ["moon"]}), {}, "web_search"),
        ("gemini", grounded({"webSearchQueries": []}), {}, None),
        ("gemini", grounded("nothing"), {}, None),
        ("responses", {"output": [{"type": "message", "content": [
            {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation"}]}]}]}, {}, "web_search"),
        ("responses", {"output": [{"type": "message", "content": [
            {"type": "output_text", "text": "x", "annotations": [{"type": "file_citation"}]}]}]}, {}, None),
        ("responses", {}, {"server_side_tool_usage_details": {"x_search_calls": 2}}, "web_search"),
        ("responses", {}, {"server_side_tool_usage_details": {"x_search_calls": 0, "moon_calls": 1}}, "server_tools"),
        ("chat", {"citations": ["https://moon.test"]}, {}, "web_search"),
        ("chat", {"search_results": [{"url": "https://moon.test"}]}, {}, "web_search"),
        ("chat", {"web_search": [{"link": "https://moon.test"}]}, {}, "web_search"),
        ("chat", {"citations": [], "search_results": None, "web_search": "no"}, {}, None),
        ("chat", {"service_tier": "flex"}, {"service_tier": "standard"}, "service_tier=flex"),
        ("chat", {"service_tier": "default"}, {"service_tier": "priority"}, "service_tier=priority"),
        ("chat", {"serviceTier": "PRIORITY"}, {}, "service_tier=PRIORITY"),
        ("messages", {}, {"inference_geo": "us"}, "inference_geo=us"),
        ("messages", {}, {"inference_geo": "global", "service_tier": "standard"}, None),
        ("messages", {}, {"inference_geo": "not_available"}, None),
        ("gemini", grounded({"groundingChunks": [{"maps": {"uri": "https://moon.test"}}]}), {}, "web_search"),
        ("gemini", grounded({"groundingChunks": [{"web": {}}]}), {}, "web_search"),
        ("gemini", grounded({"groundingChunks": [{"retrievedContext": {}}]}), {}, None),
        ("gemini", grounded({"imageSearchQueries": ["moon"]}), {}, "web_search"),
        ("gemini", {}, {"trafficType": "ON_DEMAND"}, None),
        ("gemini", {}, {"trafficType": "ON_DEMAND_PRIORITY"}, "traffic_type=ON_DEMAND_PRIORITY"),
        ("gemini", {}, {"serviceTier": "flex"}, "service_tier=flex"),
    ],
)  # fmt: skip
def test_what_was_used_beside_tokens_is_named(
    name: str, body: dict[str, Any], usage: dict[str, Any], expected: str | None
) -> None:
    """Each by a fixed word, and a tier or speed by the service's own name for it, where that is a plain word."""
    assert excluded(name, body, usage) == expected


PLACES = st.sampled_from(
    [
        "server_tool_use",
        "service_tier",
        "serviceTier",
        "speed",
        "trafficType",
        "num_search_queries",
        "num_sources_used",
        "inference_geo",
        "server_side_tool_usage_details",
        "citations",
        "web_search",
    ]
)


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=60, deadline=None)
@given(inside=st.dictionaries(PLACES, JSON_VALUES), beside=st.dictionaries(PLACES, JSON_VALUES))
def test_whatever_stands_in_these_places_breaks_no_answer(
    name: str, inside: dict[str, Any], beside: dict[str, Any]
) -> None:
    """An answer is read, and what it excludes is a short list of words."""
    words = excluded(name, beside, inside)
    assert words is None or (words and len(words) <= 300 and words.isprintable())
