"""The four wire formats as symmetric pure functions: a client half for a run, a server half for the simulator.

Laws: what one half writes the other reads back; nothing is mutated; any bytes whatever get an answer. No format knows
a host, a key, a retry, a price, a row or the time. Error bodies of every shape are `envelope`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

from msgspec import Struct

from cometbatch.records import (
    Completion,
    ErrorDetail,
    GenerationParams,
    HttpRequest,
    HttpResponse,
    Message,
    ModelRequest,
    Prompt,
    Role,
)
from cometbatch.wire import chat, gemini, messages, responses

__all__ = ["FORMATS", "FormatName", "ModelRequest", "WireFormat", "format_for_path"]

FormatName: TypeAlias = Literal["chat", "responses", "messages", "gemini"]


class WireFormat(Struct, frozen=True):
    """One request and reply shape.

    `build_request(model, prompt)` and `parse_response(response)` are the client half, `parse_request(request)` and
    `build_response(model, completion)` the server half. `request_builder(model, params)` is for many requests with the
    same parameters. `unsupported_params(params)` and
    `unsupported_messages(roles)` say in a sentence why something can't be asked in this format, or None.
    """

    name: FormatName
    request_builder: Callable[[str, GenerationParams], Callable[[Sequence[Message]], HttpRequest]]
    parse_request: Callable[[HttpRequest], ModelRequest | ErrorDetail]
    build_response: Callable[[str, Completion], HttpResponse]
    parse_response: Callable[[HttpResponse], Completion | ErrorDetail]
    unsupported_params: Callable[[GenerationParams], str | None]
    unsupported_messages: Callable[[Sequence[Role]], str | None]

    def build_request(self, model: str, prompt: Prompt) -> HttpRequest:
        """The request for this prompt: the same bytes every time."""
        return self.request_builder(model, prompt.params)(prompt.messages)


FORMATS: Mapping[str, WireFormat] = MappingProxyType(
    {
        module.NAME: WireFormat(
            name=module.NAME,
            request_builder=module.request_builder,
            parse_request=module.parse_request,
            build_response=module.build_response,
            parse_response=module.parse_response,
            unsupported_params=module.unsupported_params,
            unsupported_messages=module.unsupported_messages,
        )
        for module in (chat, responses, messages, gemini)
    }
)
_BY_PATH: Mapping[str, WireFormat] = {
    chat.PATH: FORMATS[chat.NAME],
    responses.PATH: FORMATS[responses.NAME],
    messages.PATH: FORMATS[messages.NAME],
}


def format_for_path(path: str) -> WireFormat | None:
    """The format whose route this is, given the path as sent (still percent-encoded; a query is left aside).

    None for any other path, which the service answers with a redirect to a page (contract sheet, section 7.2).
    """
    if gemini.model_in(path) is not None:
        return FORMATS[gemini.NAME]
    return _BY_PATH.get(path.partition("?")[0])
