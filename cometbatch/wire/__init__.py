"""The four wire formats as symmetric pure functions: a client half for a run, a server half for the simulator.

Laws: each half reads what the other writes; arguments are never changed; any bytes get an answer. A format knows no
host, key, retry, price, row or time. Errors look the same in all formats: `envelope` reads and writes them.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from cometbatch.records import (
    Completion,
    ErrorDetail,
    GenerationParams,
    HttpRequest,
    HttpResponse,
    ImagePart,
    Message,
    ModelRequest,
    Role,
)
from cometbatch.wire import chat, gemini, messages, responses
from cometbatch.wire.reply_reading import Keep
from cometbatch.wire.request_extra import Misfit

__all__ = ["FORMATS", "FormatName", "Keep", "ModelRequest", "WireFormat", "format_for_path", "output_cap"]

FormatName: TypeAlias = Literal["chat", "responses", "messages", "gemini"]


class ReplyParser(Protocol):
    """Reads a reply: the completion in it, or the error that it stands for.

    `sent_bytes`: of the request's body, where that is known; they choose between readings of the token counts that both
    fit. `keep`: what is kept beside the answer.
    """

    def __call__(
        self, response: HttpResponse, sent_bytes: int | None = None, *, keep: Keep = ...
    ) -> Completion | ErrorDetail:
        """Any status, headers and bytes get one of the two."""


class WireFormat(Struct, frozen=True):
    """The shape of requests and replies on one route.

    Client half: `request_builder(model, params)` gives a function that builds requests with these parameters, the same
    bytes for the same messages; `as_sent(request)` is such a request with what is said of its delivery, which does not
    identify it; `with_turns(body, messages)` is any body of this format with more messages at its end, or None where it
    has no place for them; `parse_response(response, sent_bytes)`. Server half: `parse_request(request)` and
    `build_response(model, completion)`. `unsupported_params(params)` and `unsupported_messages(roles)` return the
    reason why this format can't ask for something, as a sentence, or None; so does `unsupported_image(part)`.
    `fitted(messages)`: messages of a table in this format's roles, or which of them it can't say.
    """

    name: FormatName
    request_builder: Callable[[str, GenerationParams], Callable[[Sequence[Message]], HttpRequest]]
    parse_request: Callable[[HttpRequest], ModelRequest | ErrorDetail]
    build_response: Callable[[str, Completion], HttpResponse]
    parse_response: ReplyParser
    unsupported_params: Callable[[GenerationParams], str | None]
    unsupported_messages: Callable[[Sequence[Role]], str | None]
    as_sent: Callable[[HttpRequest], HttpRequest]
    fitted: Callable[[Sequence[Message]], tuple[Message, ...] | Misfit]
    unsupported_image: Callable[[ImagePart], str | None]
    with_turns: Callable[[bytes, Sequence[Message]], bytes | None]


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
            as_sent=module.as_sent,
            fitted=module.fitted,
            unsupported_image=module.unsupported_image,
            with_turns=module.with_turns,
        )
        for module in (chat, responses, messages, gemini)
    }
)
_BY_PATH: Mapping[str, WireFormat] = {
    chat.PATH: FORMATS[chat.NAME],
    responses.PATH: FORMATS[responses.NAME],
    messages.PATH: FORMATS[messages.NAME],
}


def output_cap(format_name: FormatName, params: GenerationParams) -> int | None:
    """The cap on an answer in tokens, by whichever setting a request of this format gets it; None where it has none."""
    if params.max_output_tokens is None and format_name == chat.NAME:
        return chat.cap_in_extra(params)
    return params.max_output_tokens


def format_for_path(path: str) -> WireFormat | None:
    """The format that is served at a path, or None. The path is as sent: percent-encoded, with or without a query.

    The service answers any other path with a redirect to a page (contract sheet, section 7.2).
    """
    if gemini.model_in(path) is not None:
        return FORMATS[gemini.NAME]
    return _BY_PATH.get(path.partition("?")[0])
