"""Prompts, completions and errors as each format can say them, for the property tests."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from cometbatch.records import (
    Completion,
    ErrorDetail,
    FinishReason,
    GenerationParams,
    HttpRequest,
    Message,
    Prompt,
    Role,
    TextPart,
    Usage,
)
from cometbatch.wire import WireFormat

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
COUNTS = st.integers(1, 10**12)  # no prompt has 0 tokens, and no text has
COSTS: st.SearchStrategy[Decimal] = st.builds(
    lambda digits, decimals: Decimal(digits).scaleb(-decimals), st.integers(0, 10**15 - 1), st.integers(6, 18)
)
"""Amounts below 10**9 of at most fifteen digits, which a float keeps."""
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(WORDS, children, max_size=3),
    max_leaves=8,
)
MODELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)

# Words for how an answer ended that a format has no meaning for.
_FOREIGN_WORDS = st.none() | st.text(st.characters(categories=["Ll"]), min_size=1, max_size=12).map(
    lambda word: f"x_{word}"
)
_CALLS: Mapping[str, str] = {
    "chat": '[{"id":"call_9","type":"function","function":{"name":"find","arguments":"{\\"q\\":1}"}}]',
    "responses": '[{"type":"function_call","call_id":"call_9","name":"find","arguments":"{}"}]',
    "messages": '[{"type":"tool_use","id":"toolu_9","name":"find","input":{"q":1}}]',
    "gemini": '[{"functionCall":{"name":"find","args":{"q":1}}}]',
}
_BLOCKS = ("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "LANGUAGE", "OTHER")


@st.composite
def prompts(draw: st.DrawFn, wire: WireFormat) -> Prompt:
    """Prompts whose roles and settings the format supports."""
    later: list[Role] = ["user", "assistant"]
    if wire.name in {"chat", "responses"}:
        later += ["system", "developer"]
    roles: list[Role] = draw(st.lists(st.just("system"), max_size=3))
    roles += [*draw(st.lists(st.sampled_from(later), max_size=3)), "user"]
    messages = tuple(Message(role, draw(_contents(wire, role))) for role in roles)
    return Prompt(messages, draw(params(wire)))


def _contents(wire: WireFormat, role: Role) -> st.SearchStrategy[tuple[TextPart, ...]]:
    """A message's parts. A format that keeps system messages apart reads each block as a message of a single part."""
    one_only = role == "system" and wire.name in {"messages", "gemini"}
    texts = st.lists(WORDS, min_size=one_only, max_size=1 if one_only else 3)
    return texts.map(lambda words: tuple(map(TextPart, words)))


@st.composite
def params(draw: st.DrawFn, wire: WireFormat) -> GenerationParams:
    """Settings that the format supports, among them its own extra keys at every depth."""
    caps = st.integers(1, 10**9)
    fractions = st.none() | st.floats(0, 2)
    cap = draw(caps if wire.name == "messages" else st.none() | caps)
    extra = draw(st.dictionaries(WORDS.map(lambda key: f"x{key}"), JSON_VALUES, max_size=3))
    if wire.name == "gemini" and draw(st.booleans()):
        extra["generationConfig"] = {"thinkingConfig": {"thinkingLevel": draw(WORDS)}}
    return GenerationParams(
        max_output_tokens=cap,
        temperature=draw(fractions),
        top_p=draw(fractions),
        stop=() if wire.name == "responses" else tuple(draw(st.lists(WORDS, max_size=3))),
        seed=draw(st.none() | st.integers(-(2**70), 2**70)) if wire.name in {"chat", "gemini"} else None,
        extra=extra,
    )


@st.composite
def usages(draw: st.DrawFn, wire: WireFormat) -> Usage:
    """Usage as far as the format has counters for it."""
    input_tokens, output_tokens = draw(COUNTS), draw(COUNTS)
    read = draw(st.integers(0, input_tokens))
    written = draw(st.integers(0, input_tokens - read))
    reasoning = draw(st.integers(0, output_tokens))
    hour = draw(st.none() | st.integers(0, written))
    if hour == 0 < written:  # two zeros beside writes would mean that they were not told apart
        hour = None
    match wire.name:
        case "gemini":  # a counter left out means 0 there, so all are known or none
            return draw(st.sampled_from([Usage(), Usage(input_tokens, output_tokens, read, None, reasoning)]))
        case "messages":
            optional = draw(st.sampled_from([(read, written), (read, None), (None, written), (None, None)]))
            apart = None if optional[1] is None else hour
            return draw(st.sampled_from([Usage(), Usage(input_tokens, output_tokens, *optional, None, apart)]))
        case _:
            written_or_none = draw(st.sampled_from([None, written]))
    unknown = draw(st.sets(st.sampled_from(["input_tokens", "output_tokens", "reasoning_output_tokens"])))
    values = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_read_input_tokens": draw(st.sampled_from([None, read])),
        "cache_write_input_tokens": written_or_none,
        "reasoning_output_tokens": reasoning,
        "cache_write_1h_input_tokens": None if written_or_none is None else hour,
    }
    return Usage(**{name: None if name in unknown else value for name, value in values.items()})


def endings(wire: WireFormat) -> st.SearchStrategy[tuple[FinishReason, str, str | None]]:
    """Finish reason, text and detail, in every combination that the format has a signature for."""
    some = WORDS.filter(bool)
    plain: list[st.SearchStrategy[tuple[FinishReason, str, str | None]]] = [
        st.tuples(st.just("stop"), WORDS, st.none()),
        st.tuples(st.just("length"), WORDS, st.none()),
        st.tuples(st.just("other"), WORDS, _FOREIGN_WORDS),
        st.tuples(st.just("tool_calls"), WORDS, st.just(_CALLS[wire.name])),
    ]
    match wire.name:
        case "chat":
            plain += [
                st.tuples(st.just("content_filter"), WORDS, st.none()),
                st.tuples(st.just("refusal"), st.just(""), some),
            ]
        case "responses":
            plain += [
                st.tuples(st.just("content_filter"), WORDS, st.none()),
                st.tuples(st.just("refusal"), WORDS, st.none() | some),
            ]
        case "messages":
            plain += [st.tuples(st.just("refusal"), WORDS, st.none())]
        case "gemini":
            plain += [
                st.tuples(st.just("content_filter"), WORDS, st.sampled_from(_BLOCKS)),
                st.tuples(st.just("content_filter"), st.just(""), some.map(lambda why: f"prompt blocked: {why}")),
                st.tuples(st.just("other"), st.just(""), st.just("no candidates")),
            ]
    return st.one_of(plain)


@st.composite
def completions(draw: st.DrawFn, wire: WireFormat) -> Completion:
    """Every completion that the format can say without loss: an empty answer that was billed gets an excerpt."""
    reason, text, detail = draw(endings(wire))
    usage = draw(usages(wire).filter(lambda drawn: text or reason != "stop" or not drawn.output_tokens))
    return Completion(text, reason, usage, draw(WORDS), draw(WORDS), detail)


def any_completions() -> st.SearchStrategy[Completion]:
    """Completions of any content, whether a format can say them or not; also with halves of surrogate pairs."""
    wild = st.text(max_size=20)
    reasons = st.sampled_from(["stop", "length", "content_filter", "refusal", "tool_calls", "other"])
    maybe = st.none() | COUNTS
    usage = st.builds(Usage, maybe, maybe, maybe, maybe, maybe)
    return st.builds(Completion, wild, reasons, usage, st.none() | wild, st.none() | wild, st.none() | wild)


def errors(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[ErrorDetail]:
    """Error statuses with printable words and a request id."""
    printable = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
    fields: dict[str, st.SearchStrategy[Any]] = {
        "status": st.integers(400, 599),
        "problem": st.just("error"),
        "code": st.just("") | printable,
        "type": printable,
        "message": printable,
        "request_id": st.none() | st.from_regex(r"[A-Za-z0-9]{1,30}", fullmatch=True),
    }
    return st.builds(ErrorDetail, **(fields | fixed))


def request_of(wire: WireFormat, model: str, prompt: Prompt) -> HttpRequest:
    """The request that asks this of a model."""
    return wire.request_builder(model, prompt.params)(prompt.messages)
