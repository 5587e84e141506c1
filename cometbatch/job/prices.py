"""The prices of a job: those of its own model, and by model for others."""

from typing import Any

from cometbatch.job.keys import ABOVE_KEYS, MAX_MODELS, PRICE_KEYS
from cometbatch.job.kinds import expected
from cometbatch.job.secrets import join
from cometbatch.job.sections import Sections
from cometbatch.job.tree import Map, Node
from cometbatch.money.prices import PricesAbove, PriceSettings

TOKEN_PRICES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "above")
"""Prices that contradict a price per request."""
_FACTORS = ("cache_read_multiplier", "cache_write_multiplier")


def fit_prices(sections: Sections) -> dict[str, PriceSettings]:
    """Make settings of the mappings in `prices`; what is wrong, or contradicts another price, is noted.

    Returns the prices of other models by their ids.
    """
    values = sections.values["prices"]
    node = values.pop("models", None)
    _fit(sections, "prices", values)
    return {} if node is None else _by_model(sections, node)


def _fit(sections: Sections, path: str, values: dict[str, Any]) -> None:
    if (above := values.get("above")) is not None:
        values["above"] = _prices_above(sections, f"{path}.above", above)
    prices = [name for name, value in values.items() if value is not None]
    others = [name for name in prices if name in TOKEN_PRICES]
    if others and "per_request" in prices:
        words = f"contradicts {path}.{others[0]}: requests or tokens are paid for"
        sections.refuse(f"{path}.per_request", words)


def _by_model(sections: Sections, node: Node) -> dict[str, PriceSettings]:
    if not isinstance(node, Map) or not 1 <= len(node.entries) <= MAX_MODELS:
        words = f"a mapping of 1 to {MAX_MODELS} model ids, each to its prices"
        sections.refuse("prices.models", str(expected(words, node)))
        return {}
    factors = {name: value for name, value in sections.given("prices").items() if name in _FACTORS}
    books: dict[str, PriceSettings] = {}
    for model, entry in node.entries.items():
        path = join("prices.models", model)
        if not isinstance(entry, Map):
            sections.note_place(path, entry)
            sections.refuse(path, str(expected("a mapping of prices", entry)))
            continue
        values = sections.read_map(path, entry, PRICE_KEYS)
        _fit(sections, path, values)
        if None not in values.values():
            books[model] = PriceSettings(**(factors | values))
    return books


def _prices_above(sections: Sections, path: str, node: Node) -> PricesAbove | None:
    if not isinstance(node, Map):
        sections.refuse(path, str(expected("a mapping with input_tokens and prices", node)))
        return None
    values = sections.read_map(path, node, ABOVE_KEYS)
    if "input_tokens" not in values:
        sections.refuse(path, "input_tokens is missing: above how many these prices are paid")
    elif len(values) == 1:
        sections.refuse(path, "there is no price in it")
    return None if None in values.values() or "input_tokens" not in values else PricesAbove(**values)
