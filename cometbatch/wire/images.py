"""Images in requests: how each format has them, with marks in place of their bytes until a request is sent.

A mark is the image's reference between two bytes that no UTF-8 text has, so that no prompt can forge one. The body
with its marks is small; `filled` puts the bytes in, in base64, when the request leaves. `by_reference` is the body that
identifies the request: in place of base64 it has `sha256:` and the digest of the bytes, or the address of an image that
is fetched.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Raw, Struct

from cometbatch.prompt.content import media_type_of
from cometbatch.records import HttpRequest, ImagePart
from cometbatch.wire.tolerant_json import encode_json

_EDGE: Final = b"\xff"
_TYPE: Final = b"type "
_DATA_URL: Final = re.compile(r"data:([a-z0-9.+/-]+);base64,", re.IGNORECASE)
USUAL_KINDS: Final = ("png", "jpeg", "gif", "webp")
"""Kinds of images that OpenAI's formats and Anthropic's take."""


class Loaded(Struct, frozen=True):
    """The bytes of an image, and their kind as in "image/png"."""

    media_type: str
    data: bytes


class BadImageError(Exception):
    """An image in a request can't be read; the words are for its sender."""


# ---------------------------------------------------------------- client half


def url_of(part: ImagePart) -> str | Raw:
    """The image as an address: its own, or a data: URL."""
    if part.is_linked:
        return str(part.source)
    return Raw(b'"data:%b;base64,%b"' % (_kind_mark(part), _mark(part)))


def base64_of(part: ImagePart) -> Raw:
    """The image's bytes as a text in base64."""
    return Raw(b'"%b"' % _mark(part))


def kind_of(part: ImagePart) -> Raw:
    """The image's media type, which an image that is still to be fetched shows later."""
    return Raw(b'"%b"' % _kind_mark(part))


def unsupported(part: ImagePart, format_name: str, kinds: Collection[str], *, links: bool, detail: bool) -> str | None:
    """Why a format can't send an image, as a sentence; None if it can. `kinds`: as in "png".

    `links`: it takes addresses. `detail`: it can say how closely to look.
    """
    if part.is_linked and not links:
        way = "set prompt.images.fetch: true, or use the chat format"
        return f"the {format_name} format takes no address of an image: {way}"
    if part.detail and not detail:
        return f"the {format_name} format can't say how closely to look at an image (detail)"
    kind = part.media_type.removeprefix("image/")
    if kind and kind not in kinds:
        return f"the {format_name} format takes images of the kinds {', '.join(kinds)}, and this is {kind}"
    return None


def by_reference(body: bytes) -> bytes:
    """The body with the reference of each image in place of its bytes: JSON, and what identifies the request."""
    return body.replace(_EDGE + _TYPE, b"").replace(_EDGE, b"")


def filled(request: HttpRequest, loaded: Mapping[str, Loaded]) -> HttpRequest:
    """The request with the bytes of its images, by their references, in place of the marks."""
    pieces = request.body.split(_EDGE)
    known = {_escaped(reference): image for reference, image in loaded.items()}
    for place in range(1, len(pieces), 2):
        mark = pieces[place]
        if mark.startswith(_TYPE):
            pieces[place] = known[mark.removeprefix(_TYPE)].media_type.encode()
        else:
            pieces[place] = base64.b64encode(known[mark].data)
    return HttpRequest(request.path, request.headers, b"".join(pieces))


def _mark(part: ImagePart) -> bytes:
    return _EDGE + _escaped(part.reference) + _EDGE


def _kind_mark(part: ImagePart) -> bytes:
    return part.media_type.encode() or _EDGE + _TYPE + _escaped(part.reference) + _EDGE


def _escaped(reference: str) -> bytes:
    return encode_json(reference)[1:-1]


# ---------------------------------------------------------------- server half


def received(part: Mapping[str, Any]) -> ImagePart | None:
    """The image in a part of a request, of whichever format; None if it is none. Raises `BadImageError`.

    The image has digest and size, and no bytes.
    """
    match part:
        case {"type": "image_url", "image_url": {"url": str(url), **more}}:
            return _at(url, str(more.get("detail") or ""))
        case {"type": "input_image", "image_url": str(url)}:
            detail = str(part.get("detail") or "")
            return _at(url, "" if detail == "auto" else detail)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return _at(url, "")
        case (
            {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}
            | {"inlineData": {"mimeType": str(kind), "data": str(data)}}
            | {"inline_data": {"mime_type": str(kind), "data": str(data)}}
        ):
            return _decoded(kind, data)
    return None


def _at(url: str, detail: str) -> ImagePart:
    if found := _DATA_URL.match(url):
        return _decoded(found[1], url[found.end() :], detail)
    if not url.startswith(("https://", "http://")):
        raise BadImageError("an image must be an address or a data: URL in base64")
    return ImagePart(url, is_linked=True, detail=detail)


def _decoded(media_type: str, data: str, detail: str = "") -> ImagePart:
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadImageError("an image is no base64") from None
    found = media_type_of(content)
    if found is None:
        raise BadImageError("could not process image")
    if found != media_type.lower():
        raise BadImageError(f"the image was said to be {media_type}, but appears to be {found}")
    return ImagePart(b"", False, detail, found, hashlib.sha256(content).hexdigest(), len(content))
