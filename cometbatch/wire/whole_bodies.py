"""Bodies that a client wrote itself, as vendors' batch files hold them: what they ask for, and how they go out.

Law: a body goes out byte for byte, but for what is laid over it, `stream: true`, and Gemini's keys. Gemini's model is
in the path alone (contract sheet, section 1).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.records import GenerationParams, HttpRequest
from cometbatch.wire import FORMATS, FormatName, json_spans
from cometbatch.wire.counts import count
from cometbatch.wire.gemini_keys import camel_cased
from cometbatch.wire.request_extra import not_one_answer
from cometbatch.wire.tolerant_json import mapping

_CAPS: Mapping[str, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
    "gemini": ("generationConfig.maxOutputTokens",),
}
_CONVERSATION: Final = frozenset({"model", "messages", "input", "instructions", "system", "contents"})
_STREAMED: Final = frozenset({"stream", "stream_options"})
"""What asks for a stream, and what only a stream may have: a service refuses it where there is none."""
MAX_DEPTH: Final = 200  # of objects and lists within each other in a body; a deeper one is refused
_TOO_DEEP: Final = "nested too deeply"
_NO_WORDS: Final = frozenset({"model", "role", "type", "data", "file_data", "fileData"})
"""Keys of texts that are no words for the model: names of the format, and encoded bytes."""


class WholeRequest(Struct, frozen=True):
    """A body as it goes out. `identity`: the same without `stream`. `cap`: tokens that its answer may have, if capped.

    `characters`: of the texts in it, from which its tokens are estimated.
    """

    http: HttpRequest
    identity: bytes
    cap: int | None
    characters: int


def decoded(body: bytes) -> dict[str, Any]:
    """The body as values. Half a surrogate pair in a text is read as it is. Raises `ValueError` for what is no object.

    Bodies nested too deeply are none.
    """
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        value = json.loads(body)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - as for all other bodies that can't be used
    return value


def is_streamed(body: Mapping[str, Any]) -> bool:
    """Whether a body asks for a stream."""
    return body.get("stream") is True


def second_answer(body: Mapping[str, Any]) -> str | None:
    """By which setting a body asks for something else than one whole answer, if not by `stream`; None: by none."""
    return next((path for path in not_one_answer(body) if not (path == "stream" and is_streamed(body))), None)


def cap_words(format_name: FormatName) -> str:
    """How a body of this format caps its answer."""
    return " or ".join(_CAPS[format_name])


def cap_of(format_name: FormatName, body: Mapping[str, Any]) -> int | None:
    """The most tokens that the answer to a body may have; None where it has no cap. Of two caps the larger counts."""
    settings = mapping(body.get("generationConfig")) if format_name == "gemini" else body
    caps = [count(settings.get(name.rpartition(".")[2])) for name in _CAPS[format_name]]
    return max(filter(None, caps), default=None)


def request_reader(format_name: FormatName, model: str, params: GenerationParams) -> Callable[[bytes], WholeRequest]:
    """A function that makes a body ready to be sent. The same body gives the same bytes.

    `params` are laid over each body; those that are not set leave the body as it is. Of a body that can't be decoded it
    raises `ValueError`.
    """
    empty = FORMATS[format_name].request_builder(model, params)(())
    over = {name: value for name, value in decoded(empty.body).items() if name not in _CONVERSATION}
    if format_name == "messages" and params.max_output_tokens is None:
        over.pop("max_tokens")  # the default of a prompt, and not of a body
    is_changed = params != GenerationParams()

    def read(body: bytes) -> WholeRequest:
        if format_name == "gemini":
            body = camel_cased(body)
        values = decoded(body)
        if format_name == "gemini" and "model" in values:
            body = json_spans.without(body, ("model",))
        if is_streamed(values):
            body = json_spans.without(body, _STREAMED)
        if is_changed:
            if format_name == "chat":
                body = _with_one_cap(body, values, params)
            body = json_spans.laid_over(body, over) if over else body
            values = decoded(body)
        identity = json_spans.without(body, ("stream",)) if "stream" in values else body
        http = HttpRequest(empty.path, empty.headers, body)
        return WholeRequest(http, identity, cap_of(format_name, values), _characters(values))

    return read


def _with_one_cap(body: bytes, values: Mapping[str, Any], params: GenerationParams) -> bytes:
    """A chat body without its caps where `params` set one, else with its cap by the name that they ask for."""
    wanted, names = params.max_tokens_field, _CAPS["chat"]
    if params.max_output_tokens is not None:
        return json_spans.without(body, names)
    if wanted == "auto":
        return body
    if wanted in values:
        return json_spans.without(body, [name for name in names if name != wanted])
    return json_spans.renamed(body, dict.fromkeys(names, wanted))


def _characters(value: Any, room: int = MAX_DEPTH) -> int:
    """The length of all texts in a value together; bytes in a text's place are passed over.

    Raises `ValueError` for a value that is nested deeper than `room`.
    """
    kind = type(value)
    if kind is str:
        return 0 if value.startswith("data:") else len(value)
    if kind is not dict and kind is not list:
        return 0
    if not room:
        raise ValueError(_TOO_DEEP)
    inside = value
    if kind is dict:
        inside = [inner for key, inner in value.items() if key not in _NO_WORDS or type(inner) is not str]
    return sum([_characters(inner, room - 1) for inner in inside])
