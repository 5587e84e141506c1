"""Images for tests: bytes that begin as files of their kind do, and are as long as a test wants."""

import base64
import hashlib
from collections.abc import Mapping

HEADS: Mapping[str, bytes] = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0",
    "gif": b"GIF89a\x01\x00",
    "webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "heic": b"\x00\x00\x00\x18ftypheic",
    "bmp": b"BM\x46\x00\x00\x00",
}


def image(kind: str = "png", size: int = 64, seed: int = 0) -> bytes:
    """An image of this kind and size, another one for each seed."""
    return (HEADS[kind] + hashlib.shake_128(b"%d" % seed).digest(size))[:size]


def digest(data: bytes) -> str:
    """What stands for an image in a request's identity, and in the simulator's answer."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def data_url(data: bytes, kind: str = "png") -> str:
    """The image as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
