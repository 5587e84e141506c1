"""How the page makes a request's body of a row's texts: a frame for each shape of request, with places for texts.

Laws: the pieces of a frame, joined with a row's texts in its slots, are the body that `wire` makes, byte by byte; and
without the pieces that are not hashed, what the row's `request_hash` is over. No key is in a frame: the name of its
variable is.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.job import Target
from cometbatch.job.settings import TargetSettings
from cometbatch.job.urls import DEFAULT_BASE_URL
from cometbatch.job.variables import NAME_OF_VARIABLE
from cometbatch.records import HttpRequest, ImagePart, Message, Part, Role, TextPart
from cometbatch.wire.images import by_reference

Frame: TypeAlias = dict[str, Any]
"""How a request is made of a row's slots, JSON-ready, as the page reads it (`request.js`).

`body`: pieces (`Piece`). `messages`: `[{"role", "parts"}]`, or null where the body comes whole from the input; a part
is `{"text"}`, `{"slot"}` or `{"image": slot}` with `digest`, `kind` and `detail` where they apply. `url`. `headers`: a
name, then pieces, each a text or `{"env": NAME}`. `auth`: header, what stands before the key, the key's variable.
`format`, `model`. `images`: the body has references in the place of images. `hash`: what stands before the body in the
request's hash; null where that can't be compared.
"""
Piece: TypeAlias = str | int | dict[str, Any]
"""A text of a body, or the number of the slot whose text stands there as a JSON string without its quotes.

With more to say, `{"text"}`, or `{"raw"}` for a slot that stands there as it is; `"unhashed": true` where it is sent
and is no part of the hash.
"""
Build: TypeAlias = Callable[[Sequence[Message]], HttpRequest]
MAX_FRAMES: Final = 1_000  # frames that a page has once; a row of a further shape carries its own
MAX_FRAMES_BYTES: Final = 2 << 20  # of all these frames as JSON: a browser reads them before it shows anything
SPACER: Final = "\n\n"
"""The slot between two slots with texts. No body has it: the texts, one after the other, can be read with it."""
NOT_HASHED: Final[Mapping[str, bool]] = {"unhashed": True}
"""What a piece says that is sent, and is no part of a request's hash."""
STEP: Final = 2  # slots from one with a text to the next
MAX_TRIES: Final = 100  # marks that are tried; each other one would have to stand in the job's own texts
_VARIABLE: Final = re.compile(rf"\$\{{({NAME_OF_VARIABLE})\}}")


class ImageShape(Struct, frozen=True):
    """An image of which each row has its own.

    `by`: what stands for it in the body: the address that the service fetches, the digest of its bytes, or its name,
    which is the address that it was fetched from, or that of a file that was not read (`is_unread`). `has_name`: its
    name is known beside its digest, and has a slot of its own.
    """

    by: Literal["address", "digest", "name"]
    is_unread: bool = False
    has_name: bool = False
    detail: str = ""
    media_type: str = ""

    @property
    def slots(self) -> int:
        """How many slots with texts it has: its name if it has one, then what stands for it in the body."""
        return 1 + self.has_name


PartShape: TypeAlias = str | ImageShape | None
"""A text that is the same in all rows; an image; or None, a text of which each row has its own."""
Shape: TypeAlias = tuple[tuple[Role, tuple[PartShape, ...]], ...]
"""Role and parts of each message of a request."""


class Frames:
    """The frames of a page, each once. `items`: those that the page lists; it only grows."""

    def __init__(self, most: int = MAX_FRAMES, most_bytes: int = MAX_FRAMES_BYTES) -> None:
        self.items: list[Frame] = []
        self._most = most
        self._room = most_bytes
        self._known: dict[bytes, int] = {}

    def place(self, frame: Frame) -> int | Frame:
        """The frame's number in the page; the frame itself where the page lists no more of them."""
        if len(self.items) >= self._most:
            return frame
        content = msgspec.json.encode(frame)
        number = self._known.get(content)
        if number is not None:
            return number
        if len(content) > self._room:
            return frame
        self._room -= len(content)
        self._known[content] = len(self.items)
        self.items.append(frame)
        return self._known[content]


def request_frame(
    shape: Shape, build: Build, as_sent: Callable[[HttpRequest], HttpRequest], target: Target, service: TargetSettings
) -> Frame:
    """The frame of requests of this shape. `build`, `as_sent`: of the target's format, as of `RowMaker`.

    The slots with texts come before those of images, each in the order of the messages, with a spacer between two.
    """
    marked, sent, hashed = _marked(shape, build, as_sent)
    images = [part for _, parts in shape for part in parts if isinstance(part, ImageShape)]
    is_comparable = not any(part.is_unread for part in images)
    return {
        "body": list(_pieces(by_reference(sent.body), by_reference(hashed.body), marked)),
        "messages": list(_messages(shape)),
        **_address(sent, target, service),
        "images": any(part.by != "address" for part in images),
        "hash": _hash_start(target) if is_comparable else None,
    }


def whole_frame(
    pieces: Sequence[bool], request: HttpRequest, target: Target, service: TargetSettings, *, is_comparable: bool
) -> Frame:
    """The frame of requests whose bodies are texts of the input: one slot for each of `pieces`.

    `pieces`: whether the piece is hashed. `is_comparable`: the hashed pieces are what `request_hash` is over.
    """
    slots: list[Piece] = [
        {"raw": number} | ({} if is_hashed else dict(NOT_HASHED)) for number, is_hashed in enumerate(pieces)
    ]
    return {
        "body": slots,
        "messages": None,
        **_address(request, target, service),
        "images": False,
        "hash": _hash_start(target) if is_comparable else None,
    }


def spaced(texts: Sequence[str]) -> tuple[str, ...]:
    """The slots of a row with these texts, spacers between them."""
    if len(texts) < STEP:
        return tuple(texts)
    return tuple([slot for text in texts for slot in (SPACER, text)][1:])


def _address(request: HttpRequest, target: Target, service: TargetSettings) -> Frame:
    """Where a request goes, and under which headers. The key goes out as `transport` sends it."""
    base_url = DEFAULT_BASE_URL if service.is_simulator else service.base_url
    return {
        "url": base_url + request.path,
        "headers": [[name, *_header_pieces(value)] for name, value in {**service.headers, **request.headers}.items()],
        "auth": ["authorization", "Bearer ", service.key_env],
        "format": target.format,
        "model": target.model,
    }


def _header_pieces(value: str) -> list[Piece]:
    """A header's value: texts, and names of variables of the environment."""
    pieces: list[Piece] = list(_VARIABLE.split(value))
    pieces[1::2] = [{"env": name} for name in pieces[1::2]]
    return [piece for piece in pieces if piece != ""]


def _hash_start(target: Target) -> str:
    """What stands before the body in the hash of a request."""
    return f"{target.format}\n{target.model}\n"


# ---------------------------------------------------------------- marks in the place of texts


def _marked(
    shape: Shape, build: Build, as_sent: Callable[[HttpRequest], HttpRequest]
) -> tuple[re.Pattern[bytes], HttpRequest, HttpRequest]:
    """A pattern of marks, and a request of this shape with a mark in each slot: as it is sent, and as it is hashed.

    A mark may stand in the job's own texts, too. Then a slot seems to be there twice; with images, which are there more
    than once, two requests with other marks tell: between marks they are the same.
    """
    due, before = _slots_once(shape), None
    for salt in range(MAX_TRIES):
        pattern = re.compile(rb"slot%dn(\d+)e" % salt)
        hashed = build(list(_sample(shape, salt)))
        split = pattern.split(hashed.body)
        if split == before or sorted(map(int, split[1::2])) == due:
            return pattern, as_sent(hashed), hashed
        before = split
    raise ValueError("the texts of the job hold all marks")


def _slots_once(shape: Shape) -> list[int] | None:
    """The numbers of a request's slots, each of which a body has once; None where it has images."""
    parts = [part for _, parts in shape for part in parts]
    if any(isinstance(part, ImageShape) for part in parts):
        return None
    return list(range(0, parts.count(None) * STEP, STEP))


def _sample(shape: Shape, salt: int) -> Iterator[Message]:
    """Messages of this shape with a mark in each slot."""
    for role, parts in _numbered(shape):
        yield Message(role, tuple([_sample_part(part, number, salt) for part, number in parts]))


def _sample_part(part: PartShape, number: int, salt: int) -> Part:
    mark = f"slot{salt}n{number}e"
    match part:
        case str():
            return TextPart(part)
        case None:
            return TextPart(mark)
        case ImageShape(by="address"):
            return ImagePart(mark, is_linked=True, detail=part.detail)
        case ImageShape(by="digest"):
            return ImagePart(b"", False, part.detail, part.media_type, mark)
    return ImagePart(mark, detail=part.detail)


def _numbered(shape: Shape) -> Iterator[tuple[Role, list[tuple[PartShape, int]]]]:
    """The messages, each part with the number of its slot in a body; -1 for a text that is the same in all rows."""
    texts = 0
    images = sum(part is None for _, parts in shape for part in parts)
    for role, parts in shape:
        numbered: list[tuple[PartShape, int]] = []
        for part in parts:
            if part is None:
                numbered.append((part, texts * STEP))
                texts += 1
            elif isinstance(part, str):
                numbered.append((part, -1))
            else:
                images += part.slots
                numbered.append((part, (images - 1) * STEP))
        yield role, numbered


def _messages(shape: Shape) -> Iterator[dict[str, Any]]:
    """The messages as the page shows them: texts, slots, and images by their name or reference."""
    for role, parts in _numbered(shape):
        yield {"role": role, "parts": [_shown_part(part, number) for part, number in parts]}


def _shown_part(part: PartShape, number: int) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if part is None:
        return {"slot": number}
    said: dict[str, Any] = {"image": number - STEP if part.has_name else number}
    if part.by == "digest" and not part.has_name:
        said["digest"] = True
    return said | {name: value for name, value in (("kind", part.media_type), ("detail", part.detail)) if value}


def _pieces(sent: bytes, hashed: bytes, marked: re.Pattern[bytes]) -> Iterator[Piece]:
    """The body as it is sent, in pieces; a piece that the hashed body lacks is marked `unhashed`."""
    begin, end = added_span(sent, hashed)
    yield from _split(sent[:begin], marked)
    if begin < end:
        yield {"text": sent[begin:end].decode(), **NOT_HASHED}
        yield from _split(sent[end:], marked)


def _split(body: bytes, marked: re.Pattern[bytes]) -> Iterator[Piece]:
    for place, piece in enumerate(marked.split(body)):
        if place % 2:
            yield int(piece)
        elif piece:
            yield piece.decode()


def added_span(sent: bytes, hashed: bytes) -> tuple[int, int]:
    """Where the bytes stand that `sent` has more than `hashed`: from, to.

    Raises `ValueError` where they don't stand in one place.
    """
    begin = _common_prefix(sent, hashed)
    end = begin + len(sent) - len(hashed)
    if end < begin or sent[end:] != hashed[begin:]:
        raise ValueError("what is hashed is no part of what is sent")
    return (begin, end) if begin < end else (len(sent), len(sent))


def _common_prefix(one: bytes, other: bytes) -> int:
    """How many bytes at their beginning two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low
