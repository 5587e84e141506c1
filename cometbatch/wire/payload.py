"""What the payload of a reply says, whichever dialect it is in: text parts, finish words, calls, reasoning.

A gateway hands on what providers say, so the words of one format come in replies of another (contract sheet, section
13, "Bodies"). Law: the payload decides, whatever the finish word.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cometbatch.records import FinishReason, Usage
from cometbatch.wire.tolerant_json import compact_text, mapping, mappings, text

MAX_EXCERPT_CHARS: Final = 500  # of what an empty answer held, in its detail

_TEXT_TYPES: Final = frozenset({"text", "output_text", "input_text", None})
_THINKING_TYPES: Final = frozenset({"thinking", "reasoning", "reasoning_text"})
FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "complete": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "spii": "content_filter",
    "refusal": "refusal",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
"""Each known finish word in lower case, with what it stands for."""
_FAILURE_WORDS: Final = frozenset(
    {"error", "failed", "network_error", "server_error", "internal_error", "insufficient_system_resource"}
)


def finish_of(word: str | None) -> FinishReason:
    """The finish reason that a word of any dialect stands for, in whatever case; "other" for an unknown word."""
    return FINISH.get(word or "") or FINISH.get(_plain(word or ""), "other")


def is_failure_word(word: str | None) -> bool:
    """Whether a finish word says that generation failed."""
    return word is not None and word not in FINISH and _plain(word) in _FAILURE_WORDS


def failure_words() -> frozenset[str]:
    """Finish words, in lower case, that say that generation failed."""
    return _FAILURE_WORDS


def decided(reason: FinishReason, *, has_calls: bool) -> FinishReason:
    """The finish reason of a payload with or without calls. An answer that was cut, filtered or refused stays so."""
    return "tool_calls" if has_calls and reason in {"stop", "other"} else reason


def text_in(content: object) -> str | None:
    """The text of a content: text itself, a part, or a list of parts; None if it is none of these."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, dict):
        return text_of(content)
    return "".join(map(text_of, content)) if isinstance(content, list) else None


def text_of(part: object) -> str:
    """The text of one part: of a typed part, of one without a type, or of a part that is text itself."""
    if isinstance(part, dict):
        kind, words = part.get("type"), part.get("text")
        if kind is not None and not (isinstance(kind, str) and kind in _TEXT_TYPES):
            return ""
        return text(mapping(words).get("value") if isinstance(words, dict) else words) or ""
    return text(part) or ""


def thinking_in(parts: object) -> list[str]:
    """The texts of thinking among typed parts."""
    thoughts = [part for part in mappings(parts) if part.get("type") in list(_THINKING_TYPES)]
    return [
        text(part.get("thinking")) or text(part.get("text")) or text_in(part.get("summary")) or "" for part in thoughts
    ]


def lines_of(texts: Iterable[str]) -> str | None:
    """Texts one below the other; None where there is none."""
    return "\n".join([words for words in texts if words]) or None


def billed_for(calls: object) -> str:
    """What tokens were billed for where an answer has no text: words for calls, "" where there are none either."""
    return "calls" if calls else ""


def refusal_in(content: object) -> str | None:
    """The words of refusal parts in a content; None where there are none."""
    refusals = [text(part.get("refusal")) or "" for part in mappings(content) if part.get("type") == "refusal"]
    return "".join(refusals) or None


def detail_of(
    reason: FinishReason,
    word: str | None,
    calls: Sequence[Mapping[str, Any]],
    *,
    is_empty: bool,
    usage: Usage | None,
    held: object,
) -> str | None:
    """What a person wants to know of an answer beside its text.

    The calls; else the word of an unknown ending; else, where an answer is empty and tokens were billed for it, the
    beginning of what was `held` in its place. `usage` is None where its counts contradict each other.
    """
    if calls:
        return compact_text(calls)
    if reason == "other":
        return word or None
    is_billed = usage is not None and usage.output_tokens
    return excerpt(held) if reason == "stop" and is_empty and is_billed else None


def excerpt(payload: object) -> str | None:
    """The beginning of what an empty answer held, for a person to judge."""
    words = compact_text(payload)
    if words is None or len(words) <= MAX_EXCERPT_CHARS:
        return words
    return words[: MAX_EXCERPT_CHARS - 1] + "…"


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
