"""Token counts and amounts as services report them. What is no count is unknown, and no part exceeds its whole.

Services count parts in two ways: inside of their whole (cached tokens in the input, reasoning in the output), or beside
it. Each format has its own way, and gateways that translate one format into another mix them up (contract sheet,
section 13). The reply's own total decides between them; without one, a part that is larger than its whole stands
beside it. Where nothing fits the total, nothing is known: the smaller of two readings would be a wrong bill.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import Struct

from cometbatch.money.exact import ROUNDING
from cometbatch.records import Usage
from cometbatch.wire.tolerant_json import mapping

MAX_COUNT = 2**63 - 1  # tokens: the largest integer of the output column; a larger count is unknown
MAX_COST = 10**9  # US dollars of one answer, as the output column holds them; a cost from here on is unknown
COST_DECIMALS = Decimal("1e-18")  # US dollars: the smallest step of the output column; costs are rounded to it

WRITES: Final = ("cache_write_tokens", "cached_creation_tokens", "cache_creation_tokens")
"""Names of tokens written to a cache, among the parts of the input in OpenAI's formats: OpenAI's own comes first."""
ELSEWHERE: Final = frozenset(
    {
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "claude_cache_creation_5_m_tokens",
        "claude_cache_creation_1_h_tokens",
    }
)
"""Names that count cached input outside of OpenAI's own object. Most replies have none, and are read in less time."""
LIFETIMES: Final = (
    ("ephemeral_5m_input_tokens", "claude_cache_creation_5_m_tokens"),
    ("ephemeral_1h_input_tokens", "claude_cache_creation_1_h_tokens"),
)
"""Names of tokens written to a cache for five minutes and for an hour: Anthropic's own, and those in other formats."""

MESSAGES_CACHE: Final = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens"})
"""Anthropic's own names of cached input."""

_Reading: TypeAlias = tuple[int, int | None]
"""Input and output tokens, all parts included."""


class Counters(Struct, frozen=True, gc=False):
    """What a reply counts, before it is known what each count includes. None: not said, or no count.

    `total`: the reply's own sum of input and output. `tool_use`: input tokens that tools took, which Gemini counts
    beside the prompt. `cache_beside`, `reasoning_beside`: whether the format itself counts these beside their wholes.
    """

    input: int | None
    output: int | None
    total: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    tool_use: int = 0
    cache_beside: bool = False
    reasoning_beside: bool = False


class CacheCounts(Struct, frozen=True, gc=False):
    """Cached input as a reply counts it. `is_clear`: no count stands there that can't be read."""

    read: int | None
    written: int | None
    written_1h: int | None
    is_clear: bool


def count(value: object) -> int | None:
    """A count of tokens, or None for anything else: negative, fractional, boolean, text, or above `MAX_COUNT`."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= MAX_COUNT:  # a bool is an int to isinstance, and no count
        return value
    return None


def reported_cost(usage: Mapping[str, object]) -> Decimal | None:
    """`usage.cost`: what the service says the answer cost, presumably in US dollars. None if it is no number from 0.

    Some models report it (contract sheet, sections 2 and 8.3). The digits are those of the reply, not those of the
    float's binary value.
    """
    value = usage.get("cost")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COST:
        return None
    return ROUNDING.quantize(Decimal(repr(value)), COST_DECIMALS)


def total(*counts: int | None) -> int | None:
    """The sum; None if one of them is unknown, or if the sum is above `MAX_COUNT`."""
    known = [number for number in counts if number is not None]
    return count(sum(known)) if len(known) == len(counts) else None


class Naming(NamedTuple):
    """Under which names a format counts input and output, and the objects in which it counts parts of the two.

    `cache_beside`: the cached part stands beside the input, under names of its own, and not inside of it.
    """

    input: str
    output: str
    input_details: str
    output_details: str
    cache_beside: bool = False


CHAT: Final = Naming("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
RESPONSES: Final = Naming("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
MESSAGES: Final = Naming("input_tokens", "output_tokens", "prompt_tokens_details", "output_tokens_details", True)


def read_usage(own: Naming, usage: Mapping[str, Any], words: str, sent_bytes: int | None) -> Usage | None:
    """The usage of a reply in a format that counts under its `own` names; None where the counts contradict each other.

    `words`: what was answered, for `consistent_usage`. A gateway that translates replies may leave the counts under
    another format's names: where none stands under the format's own, those count.
    """
    said = _counters(usage, own)
    if said.input is None and said.output is None and (other := _other(usage, own)) is not None:
        said = _counters(usage, other)
    return consistent_usage(said, sent_bytes=sent_bytes, has_text=bool(words))


def _other(usage: Mapping[str, Any], own: Naming) -> Naming | None:
    """Whose names these counts have."""
    if own is not CHAT:
        return CHAT if CHAT.input in usage or CHAT.output in usage else None
    if RESPONSES.input not in usage and RESPONSES.output not in usage:
        return None
    return RESPONSES if MESSAGES_CACHE.isdisjoint(usage) else MESSAGES


def _counters(usage: Mapping[str, Any], names: Naming) -> Counters:
    """What a reply counts under these names. Where the cached part stands beside the input, it has to be clear."""
    beside = names.cache_beside
    cached = cache_counts(usage, names.input_details, details_first=not beside)
    return Counters(
        count(usage.get(names.input)) if cached.is_clear or not beside else None,
        count(usage.get(names.output)),
        count(usage.get("total_tokens")),
        cached.read,
        cached.written,
        cached.written_1h,
        count(mapping(usage.get(names.output_details)).get("reasoning_tokens")),
        cache_beside=beside,
    )


def cache_counts(usage: Mapping[str, Any], details: str, *, details_first: bool = True) -> CacheCounts:
    """Cached input under each name that was seen for it (contract sheet, sections 2, 4 and 13).

    `details`: the key of the object in which OpenAI's formats count parts of the input; `details_first`: its names are
    the format's own. Names for the same count are never added up: the first count above 0 stands, in the order of
    names, because a gateway writes 0 for what it does not know.
    """
    parts = mapping(usage.get(details))
    if ELSEWHERE.isdisjoint(usage) and parts.keys().isdisjoint(WRITES):
        said = parts.get("cached_tokens")
        read = None if said is None else count(said)
        return CacheCounts(read, None, None, said is None or read is not None)
    own_read, own_write = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    reads = [parts.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens")]
    writes = [parts[name] for name in WRITES if name in parts]
    read, is_read_clear = _first(*reads, own_read) if details_first else _first(own_read, *reads)
    written, is_write_clear = _first(*writes, own_write) if details_first else _first(own_write, *writes)
    minutes, hour = _lifetimes(usage)
    if minutes is None and hour is None:
        return CacheCounts(read, written, None, is_read_clear and is_write_clear)
    written_1h = None if hour is None else count(hour)
    together = total(*[count(each) for each in (minutes, hour) if each is not None])
    if written is None or (together or 0) > written:
        written, is_write_clear = together, together is not None
    elif (written and together == 0) or (written_1h or 0) > written:  # not told apart, or the other can't be read
        written_1h = None
    return CacheCounts(read, written, None if written is None else written_1h, is_read_clear and is_write_clear)


def _lifetimes(usage: Mapping[str, Any]) -> list[object]:
    """What was written to be kept for five minutes and for an hour, as it came."""
    split = mapping(usage.get("cache_creation"))
    return [usage.get(elsewhere) if (own := split.get(name)) is None else own for name, elsewhere in LIFETIMES]


def _first(*values: object) -> tuple[int | None, bool]:
    """The first count above 0 of several names, else 0 if one says so; and whether all that are there can be read."""
    said, is_clear = None, True
    for value in values:
        if value is not None:
            said = count(value)
            if said:
                return said, True
            is_clear = is_clear and said is not None
    return (said, True) if is_clear else (None, False)


def consistent_usage(said: Counters, *, sent_bytes: int | None = None, has_text: bool = False) -> Usage | None:
    """Usage as inclusive totals. None where the counts contradict each other: no reading of them fits the total.

    `sent_bytes`: of the request's body. No token is less than a byte, so of two readings of the input that both fit the
    reply, with the cached part inside or beside it, the one counts that is not above the bytes. Where both are above,
    the service has added input, and the format's own reading counts. An input of 0 can't be true, nor can an output of
    0 beside a text (`has_text`): these are unknown, and so are their parts.
    """
    reading = _own_reading(said) or _reading(said, sent_bytes)
    if reading is None:
        return None
    inputs, outputs = reading
    reasoning = said.reasoning
    if not outputs and (has_text or inputs == 0) and outputs is not None:
        outputs = reasoning = None
    if inputs == 0:
        return Usage(None, count(outputs), reasoning_output_tokens=reasoning)
    return Usage(count(inputs), count(outputs), said.cache_read, said.cache_write, reasoning, said.cache_write_1h)


def _reading(said: Counters, sent_bytes: int | None) -> tuple[int | None, int | None] | None:
    """The likeliest of all readings of these counts; None where none fits their total. A total of 0 was not said."""
    outputs = _outputs(said)
    if said.input is None:
        return None, outputs[0]
    usual, rare = _inputs(said)
    if said.total:
        fits = _exact(said, usual + rare, outputs) or _with_rest(said, said.total, usual, outputs)
    else:
        fits = [(each, outputs[0]) for each in usual]
    bounded = [fit for fit in fits if fit[0] <= sent_bytes] if sent_bytes is not None and len(fits) > 1 else []
    return next(iter(bounded or fits), None)


def _own_reading(said: Counters) -> _Reading | None:
    """The format's own reading, where nothing speaks against it: as most replies are, so this is quick."""
    prompt, output, reasoning = said.input, said.output, said.reasoning or 0
    if prompt is None or output is None:
        return None
    cached = (said.cache_read or 0) + (said.cache_write or 0)
    if (cached > prompt and not said.cache_beside) or (reasoning > output and not said.reasoning_beside):
        return None
    inputs = prompt + said.tool_use + (cached if said.cache_beside else 0)
    outputs = output + (reasoning if said.reasoning_beside else 0)
    if said.total:
        return (inputs, outputs) if inputs + outputs == said.total else None
    return None if said.cache_beside and 0 < cached <= prompt else (inputs, outputs)  # the cached part may lie inside


def _outputs(said: Counters) -> list[int | None]:
    """What the output can be, reasoning included, the format's own reading first. It is never empty."""
    output, reasoning = said.output, said.reasoning
    if output is None or not reasoning:
        return [output]
    if reasoning > output:
        return [output + reasoning]
    return [output + reasoning, output] if said.reasoning_beside else [output, output + reasoning]


def _inputs(said: Counters) -> tuple[list[int], list[int]]:
    """What the input can be, all parts included, the format's own reading first; then what only a total can tell.

    The first list is never empty: with all parts beside it, no part exceeds its whole.
    """
    prompt, tool_use = said.input or 0, said.tool_use
    read, written = said.cache_read or 0, said.cache_write or 0
    cached = read + written
    if not cached and not tool_use:
        return [prompt], []
    ways = [cached, 0] if said.cache_beside else [0, cached]
    usual = [prompt + tool_use + beside for beside in ways if cached - beside <= prompt]
    rare = [prompt + tool_use + beside for beside in (read, written) if cached - beside <= prompt]
    rare += [prompt + beside for beside in (*ways, read, written) if tool_use + cached - beside <= prompt]
    return usual, rare


def _exact(said: Counters, inputs: list[int], outputs: list[int | None]) -> list[_Reading]:
    """The readings that come to the total. It may leave out parts that are larger than their wholes, so beside them."""
    told_inputs = {each: each for each in inputs} | ({} if said.input in inputs else {said.input: inputs[0]})
    told_outputs = {each: each for each in outputs} | ({} if said.output in outputs else {said.output: outputs[0]})
    return [
        (told_inputs[one], told_outputs[two])
        for one in told_inputs
        for two in told_outputs
        if one is not None and two is not None and one + two == said.total
    ]


def _with_rest(said: Counters, total_tokens: int, inputs: list[int], outputs: list[int | None]) -> list[_Reading]:
    """The readings in which the output is more than was counted for it: thoughts that are in the total alone.

    Where the input is counted as 0, which can't be true, the rest of the total may as well be input: nothing fits.
    """
    known = [each for each in outputs if each is not None]
    least = min(known) + 1 if known else said.reasoning or 0
    return [(each, total_tokens - each) for each in inputs if each and total_tokens - each >= least]
