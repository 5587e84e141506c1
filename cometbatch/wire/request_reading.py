"""Reading requests in the server halves: clients spell one thing in several ways, a `ModelRequest` has one.

Law: a client's mistake gets the message and the status of the service (contract sheet, section 10, item 3).
"""

from collections.abc import Callable, Mapping
from typing import Any

from cometbatch.records import ErrorDetail, HttpRequest, ImagePart, Message, ModelRequest, Part, Role, TextPart
from cometbatch.wire import images
from cometbatch.wire.counts import count
from cometbatch.wire.tolerant_json import NotJson, decode_json

_LARGEST_SETTING = 1e9  # numbers from here on are refused: no service has such a setting, and some fit no float


class RequestMistake(Exception):  # noqa: N818 - no error of ours: it becomes a reply
    """A client's mistake. `detail` is the error to answer with."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.detail = ErrorDetail(status, "error", "invalid_request", "comet_api_error", message)


def read_or_refuse(read: Callable[[HttpRequest], ModelRequest], request: HttpRequest) -> ModelRequest | ErrorDetail:
    """The request that `read` returns, or the error of the `RequestMistake` that it raises."""
    try:
        return read(request)
    except RequestMistake as mistake:
        return mistake.detail


def body_of(request: HttpRequest) -> dict[str, Any]:
    """The request's JSON object. The caller may change it."""
    body = decode_json(request.body)
    if isinstance(body, NotJson):
        raise RequestMistake(f"the request body is not JSON: {body.reason}")
    if not isinstance(body, dict):
        raise RequestMistake("the request body must be a JSON object")
    return body


def take_model(body: dict[str, Any]) -> str:
    """The model asked. Without one, the reply is a 400 (contract sheet, sections 7.1 and 10)."""
    model = body.pop("model", None)
    if not isinstance(model, str) or not model:
        raise RequestMistake("model name is required")
    return model


def take_turns(body: dict[str, Any], key: str, complaint: str, *, alone: type = list) -> list[Any]:
    """The conversation. Without one, the reply is a 500, as the service does it (contract sheet, sections 7.1 and 10).

    `alone`: the type of a single turn that may come without a list around it.
    """
    turns = body.pop(key, None)
    if not turns:
        raise RequestMistake(complaint, status=500)
    if not isinstance(turns, list):
        if isinstance(turns, alone):
            return [turns]
        raise RequestMistake(f"{key} must be a list")
    return turns


def take_cap(body: dict[str, Any], key: str) -> int | None:
    """The cap on the answer in tokens: a whole number from 1, or None if the client set none."""
    value = body.pop(key, None)
    if value is None:
        return None
    cap = count(value)
    if not cap:
        raise RequestMistake(f"{key} must be a whole number from 1")
    return cap


def take_number(body: dict[str, Any], key: str) -> float | None:
    """A number, or None where the client set none."""
    value = body.pop(key, None)
    if value is None:
        return None
    if not _is_number(value) or not -_LARGEST_SETTING < value < _LARGEST_SETTING:
        raise RequestMistake(f"{key} must be a number")
    return float(value)


def take_seed(body: dict[str, Any], key: str) -> int | None:
    """A whole number of any size, or None if the client set none."""
    value = body.pop(key, None)
    if value is not None and type(value) is not int:
        raise RequestMistake(f"{key} must be a whole number")
    return value


def take_stops(body: dict[str, Any], key: str) -> tuple[str, ...]:
    """The texts that end an answer: one, several, or none."""
    value = body.pop(key, None)
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise RequestMistake(f"{key} must be text or a list of texts")
    return tuple(stops)


def message_of(turn: object, roles: Mapping[str, Role], part_types: frozenset[str], where: str) -> Message:
    """One turn of a conversation with `role` and `content`."""
    if not isinstance(turn, dict):
        raise RequestMistake(f"{where} must be an object with role and content")
    return Message(role_of(turn.get("role"), roles, where), parts_of(turn.get("content"), part_types, where))


def role_of(word: object, roles: Mapping[str, Role], where: str) -> Role:
    """The role that a format's word for it stands for."""
    role = roles.get(word) if isinstance(word, str) else None
    if role is None:
        raise RequestMistake(f"{where}.role must be one of {', '.join(roles)}")
    return role


def parts_of(content: object, part_types: frozenset[str], where: str) -> tuple[Part, ...]:
    """The parts of a content: one for text, none for null, one for each typed part; refused where one is another."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise RequestMistake(f"{where}.content must be text or a list of parts")
    return tuple([_part_of(part, part_types, where) for part in content])


def image_in(part: dict[str, Any], where: str) -> ImagePart:
    """The image that a part holds; refused where it holds none, or one that can't be read."""
    try:
        image = images.received(part)
    except images.BadImageError as error:
        raise RequestMistake(f"{where}: {error}") from None
    if image is None:
        raise RequestMistake(f"{where} has a part that is no text and no image; only these are served here")
    return image


def _part_of(part: object, part_types: frozenset[str], where: str) -> Part:
    if not isinstance(part, dict) or part.get("type") not in list(part_types):
        return image_in({}, where)
    text = part.get("text")
    return TextPart(text) if isinstance(text, str) else image_in(part, where)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
