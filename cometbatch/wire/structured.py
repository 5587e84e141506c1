"""How a structured answer is asked for in each format's own way, and how a call that holds it is read back.

Client half: `body_part` is merged with what `params.extra` sets; `clash` says where the two would set the same;
`answer_of_call` makes the answer's text of a call. Server half: `asked_in` finds what a request asks for, `call_of`
makes such a call. Sources: the vendors' own libraries.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.records import Completion, GenerationParams
from cometbatch.wire import chat, gemini, messages, request_extra, responses
from cometbatch.wire.tolerant_json import compact_text, decode_json, first, mapping, mappings, text

Mode: TypeAlias = Literal["native", "json", "tool", "prompt"]
"""How an answer is asked for: by the format's own setting for a schema; by its JSON mode, with the schema in the
prompt; as arguments of a function that the model must call; by the prompt alone."""

NAME: Final = "answer"
"""Of the schema, and of the function that is called."""
ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
_TOOL_WORDS: Final = "Gives the answer."
_TOOL_KEYS: Final = ("tools", "tool_choice", "functions", "function_call", "toolConfig", "tool_config")
_TEXT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    chat.NAME: ("response_format",),
    responses.NAME: ("text.format",),
    messages.NAME: ("output_config.format", "output_format"),
    gemini.NAME: tuple(
        f"generationConfig.{name}"
        for name in (
            "responseMimeType",
            "responseJsonSchema",
            "responseSchema",
            "responseFormat",
            "response_mime_type",
            "response_json_schema",
            "response_schema",
        )
    ),
}
JSON_MODES: Final = frozenset({chat.NAME, responses.NAME, gemini.NAME})
"""Formats in which JSON can be asked for without a schema."""


class Asked(Struct, frozen=True):
    """What a request asks for. `schema`: None where any JSON will do. `is_call`: as a call of a function."""

    schema: dict[str, Any] | None
    is_call: bool = False
    is_strict: bool = False


def body_part(format_name: str, mode: Mode, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of a request's body that asks for an answer; empty where the prompt alone does.

    `schema`: the one that is sent; None where any JSON will do.
    """
    if mode == "prompt":
        return {}
    if mode == "tool":
        return _TOOL[format_name](ANY_OBJECT if schema is None else schema, schema is not None)
    return _JSON[format_name]() if mode == "json" or schema is None else _NATIVE[format_name](schema)


def with_part(params: GenerationParams, part: Mapping[str, Any]) -> GenerationParams:
    """The parameters with a part of the body beside what `extra` sets. Nothing of either is changed."""
    if not part:
        return params
    merged: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(part))
    request_extra.merge(merged, msgspec.json.decode(msgspec.json.encode(params.extra)))
    return msgspec.structs.replace(params, extra=merged)


def clash(format_name: str, mode: Mode, extra: Mapping[str, Any]) -> str | None:
    """The key path in `extra` that asks for something else than the job's `response` does; None where there is none."""
    if mode == "prompt":
        return None
    keys = _TOOL_KEYS if mode == "tool" else _TEXT_KEYS[format_name]
    for path in keys:
        outer, _, inner = path.partition(".")
        value = extra.get(outer)
        if outer in extra and (not inner or not isinstance(value, Mapping) or inner in value):
            return path if not inner or isinstance(value, Mapping) else outer
    return None


def _native_chat(schema: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": NAME, "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _native_responses(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": {"format": {"type": "json_schema", "name": NAME, "strict": True, "schema": schema}}}


def _native_messages(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def _native_gemini(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": schema}}


def _tool_chat(schema: Mapping[str, Any], is_strict: bool) -> dict[str, Any]:
    function = {"name": NAME, "description": _TOOL_WORDS, "parameters": schema} | (
        {"strict": True} if is_strict else {}
    )
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": NAME}},
    }


def _tool_responses(schema: Mapping[str, Any], is_strict: bool) -> dict[str, Any]:
    function = {"type": "function", "name": NAME, "description": _TOOL_WORDS, "parameters": schema}
    return {"tools": [function | {"strict": is_strict}], "tool_choice": {"type": "function", "name": NAME}}


def _tool_messages(schema: Mapping[str, Any], _: bool) -> dict[str, Any]:
    tool = {"name": NAME, "description": _TOOL_WORDS, "input_schema": schema}
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": NAME}}


def _tool_gemini(schema: Mapping[str, Any], _: bool) -> dict[str, Any]:
    function = {"name": NAME, "description": _TOOL_WORDS, "parametersJsonSchema": schema}
    calling = {"mode": "ANY", "allowedFunctionNames": [NAME]}
    return {"tools": [{"functionDeclarations": [function]}], "toolConfig": {"functionCallingConfig": calling}}


_NATIVE: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    chat.NAME: _native_chat,
    responses.NAME: _native_responses,
    messages.NAME: _native_messages,
    gemini.NAME: _native_gemini,
}
_JSON: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    chat.NAME: lambda: {"response_format": {"type": "json_object"}},
    responses.NAME: lambda: {"text": {"format": {"type": "json_object"}}},
    gemini.NAME: lambda: {"generationConfig": {"responseMimeType": "application/json"}},
}
_TOOL: Final[Mapping[str, Callable[[Mapping[str, Any], bool], dict[str, Any]]]] = {
    chat.NAME: _tool_chat,
    responses.NAME: _tool_responses,
    messages.NAME: _tool_messages,
    gemini.NAME: _tool_gemini,
}


# --- the answer in a call ---


def answer_of_call(completion: Completion) -> Completion:
    """The completion with the arguments of its one call of the function as its text.

    One that has no such call, or several, stays as it is. An answer that was cut or filtered stays that.
    """
    calls = mappings(decode_json((completion.detail or "").encode(errors="replace"))) if completion.detail else []
    found = [_arguments(call) for call in calls]
    if len(found) != 1 or found[0] is None:
        return completion
    reason = "stop" if completion.finish_reason == "tool_calls" else completion.finish_reason
    return msgspec.structs.replace(completion, text=found[0], finish_reason=reason, detail=None)


def _arguments(call: dict[str, Any]) -> str | None:
    """The arguments of a call of the function in whichever dialect it is, as text."""
    inner = next((call[key] for key in ("function", "functionCall") if isinstance(call.get(key), dict)), call)
    if inner.get("name") != NAME:
        return None
    value = next((inner[key] for key in ("arguments", "input", "args") if key in inner), None)
    return value if isinstance(value, str) else compact_text({} if value is None else value)


# --- the server's half ---


def asked_in(format_name: str, extra: Mapping[str, Any]) -> Asked | None:
    """What a request asks for, by the settings of its body that have no common name; None where it asks for text."""
    called = _called(format_name, extra)
    if called is not None:
        return called
    if format_name == chat.NAME:
        settings = mapping(extra.get("response_format"))
        named = mapping(settings.get("json_schema"))
        return _as_text(settings, named)
    if format_name == responses.NAME:
        settings = mapping(mapping(extra.get("text")).get("format"))
        return _as_text(settings, settings)
    if format_name == messages.NAME:
        settings = mapping(mapping(extra.get("output_config")).get("format") or extra.get("output_format"))
        return _as_text(settings, settings)
    config = mapping(extra.get("generationConfig"))
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    is_json = config.get("responseMimeType") == "application/json"
    return Asked(schema if isinstance(schema, dict) else None) if is_json else None


def _as_text(settings: Mapping[str, Any], named: Mapping[str, Any]) -> Asked | None:
    if settings.get("type") == "json_schema" and isinstance(named.get("schema"), dict):
        return Asked(named["schema"], is_strict=named.get("strict") is True)
    return Asked(None) if settings.get("type") in ("json_object", "json_schema") else None


def _called(format_name: str, extra: Mapping[str, Any]) -> Asked | None:
    """The function that a request makes the model call, where it is ours."""
    choice = mapping(extra.get("tool_choice"))
    calling = mapping(mapping(extra.get("toolConfig")).get("functionCallingConfig"))
    names = [
        choice.get("name"),
        mapping(choice.get("function")).get("name"),
        *_texts(calling.get("allowedFunctionNames")),
    ]
    if NAME not in names:
        return None
    tool = first(extra.get("tools"))
    function = first(tool.get("functionDeclarations")) or mapping(tool.get("function")) or tool
    schema = next(
        (function[key] for key in ("parameters", "input_schema", "parametersJsonSchema") if key in function), None
    )
    is_strict = format_name in (chat.NAME, responses.NAME) and function.get("strict") is True
    return Asked(schema if isinstance(schema, dict) else None, is_call=True, is_strict=is_strict)


def _texts(values: object) -> list[str]:
    return [value for value in values if text(value)] if isinstance(values, list) else []


def call_of(format_name: str, arguments: str) -> str:
    """A call of the function with these arguments, which are JSON, as the detail of a completion in this format."""
    value = decode_json(arguments.encode())
    calls: Mapping[str, dict[str, Any]] = {
        chat.NAME: {"id": "call_1", "type": "function", "function": {"name": NAME, "arguments": arguments}},
        responses.NAME: {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": NAME,
            "arguments": arguments,
        },
        messages.NAME: {"type": "tool_use", "id": "toolu_1", "name": NAME, "input": value},
        gemini.NAME: {"functionCall": {"name": NAME, "args": value}},
    }
    return compact_text([calls[format_name]]) or ""
