"""How the page joins a frame and a row's texts, once more in Python: `request.js` does the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def text_of(piece: Any, slots: Sequence[str]) -> str:
    """The text of a piece of a body."""
    if isinstance(piece, str):
        return piece
    if isinstance(piece, int):
        return json.dumps(slots[piece], ensure_ascii=False)[1:-1]
    return str(piece["text"]) if "text" in piece else slots[piece["raw"]]


def body_of(frame: Mapping[str, Any], slots: Sequence[str]) -> bytes:
    """The body as it is sent."""
    return "".join(text_of(piece, slots) for piece in frame["body"]).encode()


def hash_of(frame: Mapping[str, Any], slots: Sequence[str]) -> str | None:
    """The hash that identifies the request; None where it can't be told."""
    if frame["hash"] is None:
        return None
    hashed = (piece for piece in frame["body"] if not (isinstance(piece, dict) and piece.get("unhashed")))
    whole = frame["hash"] + "".join(text_of(piece, slots) for piece in hashed)
    return hashlib.sha256(whole.encode()).hexdigest()
