"""What a reply says was used that prices for tokens don't cover: searches, service tiers, speeds.

Providers bill a search by itself, and tokens of another tier or speed at other prices (contract sheet, section 13). The
words are few and fixed, so that rows can be counted by them; only a tier's own name is the service's.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cometbatch.records import CONTRADICTION, Usage
from cometbatch.wire.counts import count
from cometbatch.wire.tolerant_json import compact_text, mapping

KEPT_CHARACTERS: Final = 1_000  # of token counts that contradict each other, as they came; the rest is cut

SEARCH: Final = "web_search"
_SIDE_TOOLS: Final = "server_side_tool_usage_details"
TOOLS: Final = "server_tools"  # tools that the service ran, and that have no word here
SERVED: Final[Mapping[str, str | None]] = {
    "web_search_requests": SEARCH,
    "web_fetch_requests": None,  # billed by tokens alone
    "code_execution_requests": "code_execution",
}
"""Counters in Anthropic's `server_tool_use`: the word for each; None where nothing but tokens is billed."""
SIDE: Final[Mapping[str, str]] = {
    "web_search_calls": SEARCH,
    "x_search_calls": SEARCH,
    "code_interpreter_calls": "code_interpreter",
    "file_search_calls": "file_search",
}
"""Counters in xAI's `server_side_tool_usage_details`; any other one there is a tool that has no word here."""
SHOWN: Final = frozenset({"citations", "search_results", "web_search"})
"""Lists beside an answer that tell what a search has found."""
COUNTED: Final[Mapping[str, str]] = {
    "num_search_queries": SEARCH,
    "num_sources_used": SEARCH,
    "num_server_side_tools_used": TOOLS,
}
"""Counters in the usage of other providers."""
TIERS: Final[Mapping[str, str]] = {
    "service_tier": "service_tier",
    "serviceTier": "service_tier",
    "trafficType": "traffic_type",
    "speed": "speed",
    "inference_geo": "inference_geo",
}
"""Keys that name a tier, a speed or a region: the word for each."""
_USUAL: Final = frozenset(
    {
        "", "default", "auto", "standard", "standard_only", "normal", "on_demand", "unspecified",
        "traffic_type_unspecified", "global", "not_available",
    }
)  # fmt: skip
"""Tiers, speeds and regions at which the usual prices hold."""
_RARE: Final = frozenset({"server_tool_use", _SIDE_TOOLS, *COUNTED, *TIERS}) - {"service_tier"}
_RARE_BESIDE: Final = (frozenset(TIERS) | SHOWN) - {"service_tier"}
_PLAIN: Final = re.compile(r"[\w.-]{1,40}", re.ASCII)


def uncovered(body: Mapping[str, Any], usage: Mapping[str, Any], others: Sequence[str] = ()) -> str | None:
    """What was used beside tokens, or at other prices, with commas between; None where it is nothing.

    `others`: what the answer itself shows, as its format has it.
    """
    if not others and _RARE.isdisjoint(usage) and _RARE_BESIDE.isdisjoint(body):
        inner, outer = usage.get("service_tier"), body.get("service_tier")
        is_usual = (inner is None or (type(inner) is str and inner in _USUAL)) and (
            outer is None or (type(outer) is str and outer in _USUAL)
        )
        if is_usual:  # as most replies are
            return None
    found = dict.fromkeys(others)
    if served := mapping(usage.get("server_tool_use")):
        words = (SERVED.get(name, TOOLS) for name, times in served.items() if count(times))
        found |= {word: None for word in words if word is not None}
    if side := mapping(usage.get(_SIDE_TOOLS)):
        found |= {SIDE.get(name, TOOLS): None for name, times in side.items() if count(times)}
    if any(isinstance(listed := body.get(name), list) and listed for name in SHOWN):
        found[SEARCH] = None
    for name, word in COUNTED.items():
        if name in usage and count(usage[name]):
            found[word] = None
    for name, word in TIERS.items():
        for said in (usage.get(name), body.get(name)):  # they differ where a gateway asked for another than was used
            if isinstance(said, str) and said.lower() not in _USUAL:
                found[f"{word}={said if _PLAIN.fullmatch(said) else 'other'}"] = None
    return ", ".join(found) if found else None


def contradiction(usage: Mapping[str, Any]) -> str:
    """Token counts that contradict each other, as they came."""
    return CONTRADICTION + (compact_text(usage) or "")[:KEPT_CHARACTERS]


def billed(
    usage: Usage | None, body: Mapping[str, Any], counts: Mapping[str, Any], others: Sequence[str] = ()
) -> dict[str, Any]:
    """The fields of a completion that say what it took: its usage, and what its cost leaves out."""
    if usage is None:
        return {"usage": Usage(), "cost_excludes": contradiction(counts)}
    return {"usage": usage, "cost_excludes": uncovered(body, counts, others)}
