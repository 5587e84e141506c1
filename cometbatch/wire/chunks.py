"""Chunks of a streamed answer -> the body that would have come whole, for each format.

Some gateways stream where a whole reply was asked for (contract sheet, section 13, "Bodies"). Laws: an answer without
its end is no answer; token counts are those of the last chunk that has them; a chunk is forgotten once it is added.
"""

from typing import Any, Final, Protocol

from cometbatch.wire.payload import text_in
from cometbatch.wire.tolerant_json import decode_json, mapping, mappings, text

_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")  # of a chat message, which come in pieces
_ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})  # statuses of a response
_MAX_PLACE: Final = 10_000  # of a block, item or call in its list; one from here on is passed over


class Chunks(Protocol):
    """Puts chunks together. `is_ended`: the chunk that ends an answer has come."""

    is_ended: bool

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in the next chunk."""

    def body(self) -> dict[str, Any] | None:
        """The whole body so far; None where no chunk was one of this format."""


class ChatChunks:
    """`chat.completion.chunk`: each holds a delta of the message."""

    def __init__(self) -> None:
        self.is_ended = False
        self._is_any = False
        self._top: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {name: [] for name in _TEXTS}
        self._message: dict[str, Any] = {}
        self._calls: dict[Any, dict[str, Any]] = {}
        self._choice: dict[str, Any] = {}
        self._logprobs: list[Any] = []
        self._notes: list[Any] = []

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in the next chunk."""
        _take_over(self._top, chunk, "choices")
        for choice in mappings(chunk.get("choices")):
            if not choice.get("index"):  # others were not asked for
                self._add_choice(choice)

    def body(self) -> dict[str, Any] | None:
        """The whole body so far; None where no chunk was one of this format."""
        if not self._is_any:
            return None
        message = {"role": "assistant", "content": None, **self._message}
        message |= {name: "".join(pieces) for name, pieces in self._pieces.items() if pieces}
        if self._calls:
            message["tool_calls"] = list(self._calls.values())
        if self._notes:
            message["annotations"] = self._notes
        choice = {"index": 0, "message": message, **self._choice}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        return {**self._top, "object": "chat.completion", "choices": [choice]}

    def _add_choice(self, choice: dict[str, Any]) -> None:
        delta, whole = mapping(choice.get("delta")), choice.get("message")
        self._is_any = True
        if isinstance(whole, dict):  # the message so far, or all of it
            self._pieces, self._message = {name: [] for name in _TEXTS}, whole
        elif isinstance(choice.get("text"), str):
            self._pieces["content"].append(choice["text"])
        for name, pieces in self._pieces.items():
            if words := text_in(delta.get(name)):
                pieces.append(words)
        for place, call in enumerate(mappings(delta.get("tool_calls"))):
            self._add_call(place, call)
        if call := mapping(delta.get("function_call")):
            self._add_call("function_call", {"function": call})
        self._notes += mappings(delta.get("annotations"))
        self._logprobs += mappings(mapping(choice.get("logprobs")).get("content"))
        self._choice |= {key: choice[key] for key in ("finish_reason", "error") if choice.get(key)}
        self.is_ended = self.is_ended or bool(self._choice)

    def _add_call(self, place: object, call: dict[str, Any]) -> None:
        """Name and id come whole; the arguments come in pieces, for the call with the same index."""
        index = call.get("index")
        key = index if isinstance(index, int) else f"{call.get('id')}" if call.get("id") else place
        known = self._calls.setdefault(key, {})
        known |= {name: value for name, value in call.items() if name not in ("index", "function") and value}
        function, more = known.setdefault("function", {}), mapping(call.get("function"))
        if more.get("name"):
            function["name"] = more["name"]
        if isinstance(words := more.get("arguments"), str):
            function["arguments"] = (text(function.get("arguments")) or "") + words


class ResponsesChunks:
    """Events of a response: the last one holds all of it, in some gateways without its output."""

    def __init__(self) -> None:
        self.is_ended = False
        self._response: dict[str, Any] | None = None
        self._items: dict[int, dict[str, Any]] = {}
        self._pieces: list[str] = []

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in the next event."""
        kind = text(chunk.get("type")) or ""
        response = chunk.get("response")
        if isinstance(response, dict):
            self._response = response
            self.is_ended = text(response.get("status")) in _ENDED or kind.partition(".")[2] in _ENDED
            if self.is_ended and "status" not in response:
                self._response = {**response, "status": kind.partition(".")[2]}
        elif kind == "response.output_item.done" and isinstance(item := chunk.get("item"), dict):
            self._items[_place(chunk.get("output_index"), len(self._items))] = item
        elif kind == "response.output_text.delta":
            self._pieces.append(text(chunk.get("delta")) or "")

    def body(self) -> dict[str, Any] | None:
        """The whole body so far; None where no event was one of this format."""
        if self._response is None:
            return None
        if self._response.get("output"):
            return self._response
        items = [item for _, item in sorted(self._items.items())]
        if self._pieces and all(item.get("type") != "message" for item in items):
            items.append({"type": "message", "role": "assistant", "content": ["".join(self._pieces)]})
        return {**self._response, "output": items}


class MessagesChunks:
    """Events of a message: its start, its blocks, which come in pieces, and its end."""

    def __init__(self) -> None:
        self.is_ended = False
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._usage: dict[str, Any] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in the next event."""
        place = _place(chunk.get("index"), len(self._blocks))
        match chunk.get("type"):
            case "message_start":
                self._message = mapping(chunk.get("message"))
                self._count(self._message)
                self._blocks |= dict(enumerate(mappings(self._message.get("content"))))
            case "content_block_start":
                self._blocks[place] = mapping(chunk.get("content_block"))
            case "content_block_delta":
                self._add_delta(place, mapping(chunk.get("delta")))
            case "message_delta":
                self._message = (self._message or {}) | {k: v for k, v in mapping(chunk.get("delta")).items() if v}
                self._count(chunk)
                self.is_ended = self.is_ended or bool(self._message.get("stop_reason"))
            case "message_stop":
                self.is_ended = True

    def body(self) -> dict[str, Any] | None:
        """The whole body so far; None where no event was one of this format."""
        if self._message is None:
            return None
        for (place, key), pieces in self._pieces.items():
            block = self._blocks.setdefault(place, {"type": "text"})
            block[key] = (text(block.get(key)) or "") + "".join(pieces)
        for block in self._blocks.values():
            if (words := block.pop("partial_json", None)) is not None:
                block["input"] = decoded if isinstance(decoded := decode_json(words.encode()), dict) else words
        self._pieces.clear()
        content = [block for _, block in sorted(self._blocks.items())]
        return {**self._message, "content": content, "usage": self._usage}

    def _add_delta(self, place: int, delta: dict[str, Any]) -> None:
        for key in ("text", "thinking", "partial_json"):
            if words := text(delta.get(key)):
                self._pieces.setdefault((place, key), []).append(words)

    def _count(self, holder: dict[str, Any]) -> None:
        """The start counts input, the end counts output; what the end says of both is the last word."""
        self._usage |= {name: value for name, value in mapping(holder.get("usage")).items() if value is not None}


class GeminiChunks:
    """`GenerateContentResponse`: each chunk looks like a whole reply with some of the parts."""

    def __init__(self) -> None:
        self.is_ended = False
        self._is_any = False
        self._top: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._parts: list[Any] = []

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in the next chunk."""
        _take_over(self._top, chunk, "candidates")
        candidates = chunk.get("candidates")
        self._is_any = self._is_any or isinstance(candidates, list) or "promptFeedback" in chunk
        for candidate in mappings(candidates):
            if candidate.get("index"):  # others were not asked for
                continue
            parts = mapping(candidate.get("content")).get("parts")
            self._parts += parts if isinstance(parts, list) else [] if parts is None else [parts]
            _take_over(self._candidate, candidate, "content")
        is_blocked = bool(mapping(self._top.get("promptFeedback")).get("blockReason"))
        self.is_ended = bool(self._candidate.get("finishReason")) or is_blocked

    def body(self) -> dict[str, Any] | None:
        """The whole body so far; None where no chunk was one of this format."""
        if not self._is_any:
            return None
        if not self._candidate and not self._parts:
            return self._top
        return {**self._top, "candidates": [{**self._candidate, "content": {"role": "model", "parts": self._parts}}]}


def _take_over(known: dict[str, Any], chunk: dict[str, Any], apart: str) -> None:
    """Add what a chunk says, all but what is put together. Empty values replace nothing; a type is the event's."""
    for key, value in chunk.items():
        if key not in (apart, "type") and (value or key not in known):
            known[key] = value


def _place(value: object, otherwise: int) -> int:
    """A place in a list as an event has it; that of the next one where it has none."""
    return value if type(value) is int and 0 <= value < _MAX_PLACE else otherwise
