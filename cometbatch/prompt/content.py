"""Messages as data: a cell's own messages, with text and images, in the shapes that data sets have.

Guards: what is said is said whole, or refused with its place in the value. Null means "not there", wherever it stands,
because Arrow gives every structure of a column the keys of all others. Metadata beside role and content is not sent;
what a model would have to see, such as calls of tools, is refused.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from cometbatch.prompt.bounds import MAX_MESSAGE_CHARACTERS
from cometbatch.prompt.names import shown
from cometbatch.records import ImagePart, Message, Part, Role, TextPart

MAX_ADDRESS_CHARACTERS: Final = 8_192
"""Characters of the address of an image; a longer one is refused."""
ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "ai": "assistant",
}
"""What data sets call the roles."""
DETAILS: Final = ("auto", "low", "high", "original")
"""How closely a model can be told to look at an image, in OpenAI's words."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?=//)")
_DATA_URL = re.compile(r"data:[^,;]{0,100}(?:;[^,;]{0,100})*?;base64,", re.IGNORECASE)
_PLACE = re.compile(r"https://(?P<user>[^/?#@]*@)?[^/?#@\s]+(?:[/?#]\S*)?", re.IGNORECASE)
_TEXT_KINDS = frozenset({"text", "input_text", "output_text"})
_IMAGE_KINDS = frozenset({"image", "image_url", "input_image"})
# What a message may hold beside its content that a model would have to see, and no format here sends.
_NOT_SENT = ("tool_calls", "function_call", "tool_call_id", "name", "audio", "images")
_IMAGE_KEYS = ("image", "image_url", "source", "inlineData", "inline_data", "url", "path", "base64")
_NOTHING: tuple[object, ...] = (None, "", b"", [], {}, False)  # what a structure has for a key that it does not use
_BESIDE_IMAGE = frozenset({"type", "detail", "media_type", "mimeType", "mime_type", "format"})
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_BRANDS: Mapping[bytes, str] = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"avif": "image/avif",
    b"avis": "image/avif",
}
MARK_BYTES: Final = 16
"""Bytes at the start of a file that tell what kind of image it is."""


class ContentError(Exception):
    """A value can't be said as messages, or is no image. The words name the place in the value, where it has one."""


def encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no request can hold."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def media_type_of(data: bytes) -> str | None:
    """The kind of image by its first bytes, as in "image/png", never by a name's ending; None for what is none."""
    for mark, media_type in _MARKS:
        if data.startswith(mark):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return _BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None


def image_of(value: object, detail: str = "") -> ImagePart:
    """The image that a value stands for: its bytes, a path, an https:// address, a data: URL, or {bytes, path}.

    Nothing is opened and no kind is told yet. Raises `ContentError` where it can be no image.
    """
    match value:
        case None | "" | b"":
            raise ContentError("there is no image: the value is empty")
        case bytes():
            return ImagePart(value, detail=detail)
        case str():
            return ImagePart(_source_of(value), detail=detail)
        case {"bytes": bytes() | str() as data} if data:
            return ImagePart(data if isinstance(data, bytes) else data.encode(errors="replace"), detail=detail)
        case {"path": str() as path}:
            return ImagePart(_source_of(path), detail=detail)
    raise ContentError("this is no image: expected a path, an https:// address or bytes")


def _source_of(text: str) -> str | bytes:
    """A path or an address as it is, and the bytes of a data: URL, or of binary data that happens to be UTF-8."""
    if found := _DATA_URL.match(text):
        return _decoded(text[found.end() :])
    if media_type_of(text[:MARK_BYTES].encode(errors="replace")) and not text[:MARK_BYTES].isprintable():
        return text.encode(errors="replace")
    if scheme := _SCHEME.match(text):
        if scheme[0].lower() != "https:":
            raise ContentError(f"the address of an image must begin with https://, found {shown(scheme[0] + '//')}")
        if len(text) > MAX_ADDRESS_CHARACTERS:
            raise ContentError(f"the address of an image may have {MAX_ADDRESS_CHARACTERS:,} characters")
        place = _PLACE.fullmatch(text)
        if place is None:
            raise ContentError(f"this is no address of an image: {shown(text[:40])}")
        if place["user"]:
            raise ContentError("the address of an image holds a user name or password, which would be sent")
        return encodable(text)
    if text[:5].lower() == "data:":
        raise ContentError("a data: URL of an image must be in base64")
    return text


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode("".join(str(text).split()), validate=True)
    except (binascii.Error, ValueError):
        raise ContentError("this is no base64") from None


def messages_of(value: object) -> tuple[Message, ...]:
    """The messages in a value: JSON text, a list of structures or of maps, or a structure of lists.

    At least one, each of at least one part; roles as they are, with the words of other data sets for them. Raises
    `ContentError`.
    """
    turns = _without_nulls(_decoded_json(value) if isinstance(value, str) else value)
    if isinstance(turns, dict):
        turns = _turns_of_lists(turns)
    if turns is None or turns == []:
        raise ContentError("there are no messages in it")
    if not isinstance(turns, list):
        raise ContentError(f"expected a list of messages, found {_kind(turns)}")
    return tuple([_message(turn, f"[{index}]") for index, turn in enumerate(turns)])


def _decoded_json(text: str) -> object:
    try:
        return msgspec.json.decode(encodable(text))
    except (msgspec.DecodeError, RecursionError) as error:
        is_python = text.lstrip().startswith(("[{'", "({'", "{'"))
        hint = "; this looks like Python's own notation: write it with json.dumps" if is_python else ""
        raise ContentError(f"expected JSON ({error}){hint}") from None


def _without_nulls(value: object) -> Any:
    match value:
        case dict():
            return {key: _without_nulls(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            items = [_without_nulls(item) for item in value if item is not None]
            return tuple(items) if isinstance(value, tuple) else items
    return value


def _turns_of_lists(turns: dict[str, Any]) -> object:
    """The messages of a structure of lists, as some programs store a list of structures; else what was given."""
    columns = {key: each for key, each in turns.items() if isinstance(each, list)}
    if not columns or len({len(each) for each in columns.values()}) != 1:
        return turns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _message(turn: object, place: str) -> Message:
    turn = _of_pairs(turn)
    if not isinstance(turn, dict):
        raise ContentError(f"{place}: expected role and content, found {_kind(turn)}")
    for key in _NOT_SENT:
        if turn.get(key):
            raise ContentError(f"{place}.{key}: this can't be sent")
    role = _role(turn, place)
    for name in ("content", "value", "parts"):
        if name in turn:
            return Message(role, _parts(turn[name], f"{place}.{name}"))
    raise ContentError(f"{place}.content: is missing")


def _of_pairs(value: object) -> object:
    """A map, which Arrow gives as a list of pairs, as a mapping."""
    if not isinstance(value, list) or not value:
        return value
    is_map = all(isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str) for each in value)  # noqa: PLR2004 - a pair
    return dict(value) if is_map else value


def _role(turn: Mapping[str, Any], place: str) -> Role:
    key = "role" if "role" in turn or "from" not in turn else "from"
    word = turn.get(key)
    if word is None:
        raise ContentError(f"{place}.role: is missing")
    role = ROLES.get(word.strip().lower()) if isinstance(word, str) else None
    if role is None:
        words = (
            "answers of tools can't be sent" if word in ("tool", "function") else "expected user, assistant or system"
        )
        raise ContentError(f"{place}.{key}: {shown(str(word))}: {words}")
    return role


def _parts(content: object, place: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (_text(content, place),)
    if isinstance(content, dict):
        return (_part(content, place),)
    if not isinstance(content, list) or not content:
        raise ContentError(f"{place}: expected text or a list of parts, found {_kind(content)}")
    return tuple([_part(each, f"{place}[{index}]") for index, each in enumerate(content)])


def _part(part: object, place: str) -> Part:
    part = _of_pairs(part)
    if isinstance(part, str):
        return _text(part, place)
    if not isinstance(part, dict):
        raise ContentError(f"{place}: expected a part with text or an image, found {_kind(part)}")
    kind = part.get("type")
    if kind is not None and not (isinstance(kind, str) and kind in _TEXT_KINDS | _IMAGE_KINDS):
        raise ContentError(f"{place}: a part of type {shown(str(kind))} can't be sent")
    found = [key for key in _IMAGE_KEYS if part.get(key) not in _NOTHING]
    if kind in _TEXT_KINDS or (kind is None and not found and "text" in part):
        _refuse_others(part, {"type", "text"}, place)
        return _text(part.get("text"), f"{place}.text")
    if len(found) != 1:
        raise ContentError(f"{place}: expected one text or one image in a part")
    _refuse_others(part, {*_BESIDE_IMAGE, *found}, place)
    try:
        return _image(part, found[0])
    except ContentError as error:
        raise ContentError(f"{place}.{found[0]}: {error}") from None


def _image(part: Mapping[str, Any], key: str) -> ImagePart:
    value = _of_pairs(part[key])
    inner: Mapping[str, Any] = value if isinstance(value, dict) else {}
    detail = part.get("detail") or inner.get("detail") or ""
    if detail and detail not in DETAILS:
        raise ContentError(f"detail: expected one of {', '.join(DETAILS)}, found {shown(str(detail))}")
    if key == "base64" or "data" in inner:
        return image_of(_decoded(inner.get("data", value)), detail)
    return image_of(inner.get("url", value), detail)


def _refuse_others(part: Mapping[str, Any], known: set[str], place: str) -> None:
    for key, value in part.items():
        if key not in known and value not in _NOTHING:
            raise ContentError(f"{place}.{shown(key)[1:-1]}: this can't be sent")


def _text(value: object, place: str) -> TextPart:
    if not isinstance(value, str):
        raise ContentError(f"{place}: expected text, found {_kind(value)}")
    if len(value) > MAX_MESSAGE_CHARACTERS:
        raise ContentError(f"{place}: a message may have {MAX_MESSAGE_CHARACTERS >> 20} Mi characters")
    return TextPart(encodable(value))


def _kind(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing"
    words = {bool: "a truth value", int: "a number", float: "a number", str: "text", bytes: "binary data"}
    words |= {dict: "a structure", list: "a list" if value else "an empty list", tuple: "a list"}
    return words.get(type(value), type(value).__name__)


def images_in(messages: Sequence[Message]) -> list[ImagePart]:
    """The images of some messages, in order."""
    return [part for message in messages for part in message.content if isinstance(part, ImagePart)]
