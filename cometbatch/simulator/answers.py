"""What a simulated model answers, and how many tokens that takes.

Laws: an answer depends on the request alone, never on the attempt, so that a run with failures gives the same table as
one without; no answer is longer than the request's token cap, unless the fault "cap-ignored" is asked for. What a model
says that knows what is right, so that samples differ, is in `knowledge`.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from cometbatch.records import Completion, FinishReason, ImagePart, Message, Prompt, Usage
from cometbatch.simulator.behaviour import number
from cometbatch.simulator.catalog import Model

CHARACTERS_PER_TOKEN = 4  # the documentation's own estimate (contract sheet, section 8.3)
DEFAULT_CAP = 1024  # tokens that reasoning uses up if the request has no cap
MAX_THINKING = 256  # tokens of reasoning in an answer, at most
OVERLONG_TOKENS = 30_000  # tokens of an answer that ignores the cap, beyond its text
ECHO_WORDS = 8  # words of the prompt that an answer repeats, at most
ECHO_CHARACTERS = 80  # characters of the prompt that an answer repeats, at most
MAX_CHOICE_WORDS = 4  # words of one choice: "not a bug report" is a choice, half a sentence is none

_OFFERED = re.compile(  # choices after a colon or in brackets; at every position, because one may begin inside another
    r"\b(?=(?:one of|either|choose|pick|options|(?:answer|reply|respond)\b)[^:.(\n]{0,40}[:(]([^.;:?!\n)]+))",
    re.IGNORECASE,
)
_OFFERED_IN_PASSING = re.compile(
    r"\b(?=(?:one of|either|choose(?: from| between)?|pick|(?:answer|reply|respond)(?: with)?) ([^.;:?!\n()]+))",
    re.IGNORECASE,
)
_BULLET = re.compile(r"\n\s*[-*•]\s+")
_SEPARATOR = re.compile(r"\s*(?:,\s*or\s|,|/|\||\sor\s)\s*", re.IGNORECASE)
_QUOTES = " \t'\"`*“”\u2018\u2019«»[]{}<>"
_JSON_WORDS = frozenset({"json_object", "json_schema", "application/json"})
_SENTENCES = (
    "In short: “{echo}” is the heart of it.",
    "A simulated answer to “{echo}”.",
    "As for “{echo}”, the simulator agrees.",
    "Noted: “{echo}”.",
)
_REFUSAL = "I can't help with that."
_TOOL_CALL_TOKENS = 12
IMAGE_TOKENS = 800  # of each image in a prompt


def tokens_in(characters: int) -> int:
    """How many tokens a text of this many characters takes, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def answer(model: Model, prompt: Prompt, digest: bytes, said: str | None = None) -> Completion:
    """A whole answer, cut at the request's token cap. `said`: its text, where it is not of the prompt's own making."""
    text = _stopped(answer_text(prompt, digest) if said is None else said, prompt.params.stop)
    thinking = 1 + number(digest, "thinking", MAX_THINKING) if model.reasoning else 0
    cap = prompt.params.max_output_tokens
    fits = cap is None or thinking + tokens_in(len(text)) <= cap
    if cap is not None and not fits:
        thinking = min(thinking, cap)
        text = text[: (cap - thinking) * CHARACTERS_PER_TOKEN]
    usage = _usage(model, prompt, digest, text=text, thinking=thinking)
    return Completion(text, "stop" if fits else "length", usage)


def plain_text(prompt: Prompt, digest: bytes) -> str:
    """One of the choices in the prompt, else a sentence about it.

    The sentence names each image by the digest of the bytes that came, or by its address.
    """
    if offered := choices(prompt.messages):
        return offered[number(digest, "choice", len(offered))]
    return _sentence(prompt.messages, digest) + "".join(f" [{each.reference}]" for each in _images(prompt.messages))


def answer_text(prompt: Prompt, digest: bytes) -> str:
    """One of the choices in the prompt, else a sentence about it; as JSON if the request asks for that."""
    text = plain_text(prompt, digest)
    return msgspec.json.encode({"answer": text}).decode() if _wants_json(prompt.params.extra) else text


def choices(messages: Iterable[Message]) -> list[str]:
    """The choices that the prompt offers, as in "one of: billing, bug, question"; empty if it offers none."""
    for message in messages:
        text = _BULLET.sub(", ", message.text)
        found = _listed(_OFFERED, text, MAX_CHOICE_WORDS) or _listed(_OFFERED_IN_PASSING, text, 1)
        if found:
            return found
    return []


def cut_short(whole: Completion) -> Completion:
    """The first half of an answer, ended by the token cap."""
    kept = whole.text[: -(-len(whole.text) // 2)]
    return _ended(whole, "length", text=kept, said=tokens_in(len(kept)))


def eaten_by_reasoning(whole: Completion, cap: int | None) -> Completion:
    """No text, and the whole cap billed as reasoning (contract sheet, section 2, "Reasoning ate the cap")."""
    eaten = DEFAULT_CAP if cap is None else cap
    usage = msgspec.structs.replace(whole.usage, output_tokens=eaten, reasoning_output_tokens=eaten)
    return msgspec.structs.replace(whole, text="", finish_reason="length", usage=usage)


def emptied(whole: Completion) -> Completion:
    """A finished answer without text."""
    return _ended(whole, "stop")


def overlong(model: Model, prompt: Prompt, digest: bytes, said: str | None = None) -> Completion:
    """A whole answer to a request whose token cap is ignored, billed `OVERLONG_TOKENS` more than its text has."""
    params = msgspec.structs.replace(prompt.params, max_output_tokens=None)
    whole = answer(model, msgspec.structs.replace(prompt, params=params), digest, said)
    usage = msgspec.structs.replace(whole.usage, output_tokens=(whole.usage.output_tokens or 0) + OVERLONG_TOKENS)
    return msgspec.structs.replace(whole, usage=usage)


def filtered(whole: Completion, detail: str) -> Completion:
    """An answer that a content filter removed; `detail` is the service's word for the reason."""
    return _ended(whole, "content_filter", detail=detail)


def refused(whole: Completion) -> Completion:
    """A refusal by the model."""
    return _ended(whole, "refusal", detail=_REFUSAL, said=tokens_in(len(_REFUSAL)))


def called_a_tool(whole: Completion) -> Completion:
    """A tool call in place of an answer; the wire format writes its sample call."""
    return _ended(whole, "tool_calls", said=_TOOL_CALL_TOKENS)


def _ended(
    whole: Completion, finish_reason: FinishReason, *, text: str = "", detail: str | None = None, said: int = 0
) -> Completion:
    """The same exchange with another end. `said`: output tokens in addition to reasoning."""
    usage = msgspec.structs.replace(whole.usage, output_tokens=said + (whole.usage.reasoning_output_tokens or 0))
    return msgspec.structs.replace(whole, text=text, finish_reason=finish_reason, detail=detail, usage=usage)


def _usage(model: Model, prompt: Prompt, digest: bytes, *, text: str, thinking: int) -> Usage:
    words = tokens_in(sum(len(message.text) for message in prompt.messages))
    total = max(1, words + IMAGE_TOKENS * len(_images(prompt.messages)))  # no prompt has 0 tokens
    cached = total * number(digest, "cached", 4) // 4 if model.caching else 0
    written = (total - cached) * number(digest, "written", 4) // 4 if model.writes else None
    return Usage(
        input_tokens=total,
        output_tokens=tokens_in(len(text)) + thinking,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=written,
        reasoning_output_tokens=thinking,
        cache_write_1h_input_tokens=None if written is None else written * number(digest, "hour", 3) // 2,
    )


def _images(messages: Iterable[Message]) -> list[ImagePart]:
    return [part for message in messages for part in message.content if isinstance(part, ImagePart)]


def _listed(pattern: re.Pattern[str], text: str, most_words: int) -> list[str]:
    for match in pattern.finditer(text):
        words = [word for word in (piece.strip(_QUOTES) for piece in _SEPARATOR.split(match[1])) if word]
        if len(words) > 1 and all(len(word.split()) <= most_words for word in words):
            return words
    return []


def _sentence(messages: Iterable[Message], digest: bytes) -> str:
    last = [message.text for message in messages if message.role == "user"][-1:]
    echo = " ".join(" ".join(last).split()[:ECHO_WORDS])[:ECHO_CHARACTERS]
    return _SENTENCES[number(digest, "sentence", len(_SENTENCES))].format(echo=echo)


def _stopped(text: str, stops: Iterable[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text


def _wants_json(extra: object) -> bool:
    if isinstance(extra, Mapping):
        return any(_wants_json(value) for value in extra.values())
    return isinstance(extra, str) and extra in _JSON_WORDS
