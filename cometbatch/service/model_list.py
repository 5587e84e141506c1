"""The public catalog as a list for people: which models there are, what they cost, and which formats they speak."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from cometbatch import wire
from cometbatch.money.prices import CatalogEntry
from cometbatch.service.catalog import Records, decoded, entry_of, text_in

MAX_NESTING: Final = 4
"""Texts and mappings within each other in which a model's endpoints are looked for (contract sheet, section 8.1)."""


class ListedModel(Struct, frozen=True):
    """One model. `entry`: its id and its prices at list price, in US dollars. Texts are "" where there is none.

    `formats`: the request formats that its endpoints speak; None where the catalog names no endpoints. `context_length`
    and `max_completion_tokens`: in tokens, as the catalog writes them ("128K").
    """

    entry: CatalogEntry
    name: str = ""
    provider: str = ""
    type: str = ""
    formats: tuple[str, ...] | None = None
    context_length: str = ""
    max_completion_tokens: str = ""

    def has(self, words: str) -> bool:
        """Whether each of these words is in its id, its name or its maker's name, whatever the case."""
        text = f"{self.entry.id} {self.name} {self.provider}".casefold()
        return all(word in text for word in words.casefold().split())


def models_in(found: Records) -> list[ListedModel]:
    """The models in the order of their ids; of those with the same id the first."""
    models: dict[str, ListedModel] = {}
    for record in found.records:
        entry = entry_of(record)
        if entry is not None and isinstance(record, dict):
            listed = ListedModel(
                entry=entry,
                name=text_in(record.get("name")),
                provider=text_in(record.get("provider")),
                type=text_in(record.get("model_type")),
                formats=_formats(record.get("endpoints")),
                context_length=_amount(record.get("context_length")),
                max_completion_tokens=_amount(record.get("max_completion_tokens")),
            )
            models.setdefault(entry.id, listed)
    return sorted(models.values(), key=lambda model: model.entry.id.casefold())


def _formats(endpoints: object) -> tuple[str, ...] | None:
    """The formats of these endpoints, which may be a mapping, a list, or a text that holds one, even twice encoded."""
    paths = set(_paths(endpoints))
    if not paths:
        return None
    found = {known.name for path in paths if (known := wire.format_for_path(path)) is not None}
    return tuple(name for name in wire.FORMATS if name in found)


def _paths(value: object, depth: int = 0) -> Iterator[str]:
    if depth > MAX_NESTING:
        return
    if isinstance(value, str):
        if value.startswith("/"):
            yield value
        else:
            yield from _paths(decoded(value.encode("utf-8", "replace")), depth + 1)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _paths(inner, depth + 1)


def _amount(value: object) -> str:
    return text_in(value) if isinstance(value, str) else "" if value is None else f"{value}"[:20]
