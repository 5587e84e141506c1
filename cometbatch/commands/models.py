"""`models`: the service's public catalog, with prices. No key is needed, and what was fetched is kept for an hour."""

import asyncio
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from cometbatch import wire
from cometbatch.commands.clock import now
from cometbatch.commands.connection import NO_KEY
from cometbatch.errors import CatalogError, CheckpointError, UsageError, did_you_mean
from cometbatch.input.files import shown
from cometbatch.job.tree import WrongError
from cometbatch.job.urls import DEFAULT_BASE_URL, SIMULATOR, normal_base_url
from cometbatch.money.exact import format_amount
from cometbatch.results.summary_words import count
from cometbatch.service.catalog import CATALOG_PATH, CatalogProblem, fetch_records
from cometbatch.service.model_list import ListedModel, models_in
from cometbatch.simulator.behaviour import Behaviour
from cometbatch.store import local
from cometbatch.transport import CATALOG_TIMEOUT_S, Transport

if TYPE_CHECKING:
    import httpx

KEPT_S: Final = 3_600.0
"""Seconds for which a catalog that was fetched is used; an older one is asked for again."""
WIDEST_ID: Final = 40
"""Characters: the widest column of ids, so that a line stays within 80; a longer id pushes the rest to the right."""
PRICE_WIDTH: Final = 9


class ModelList(Struct, frozen=True):
    """The models of a service that were asked for, in the order of their ids.

    `base_url`: the service, or `simulator`. `total`: how many models it lists. `age_s`: seconds since the list was
    fetched, 0 where that was now. Prices are in US dollars, per million tokens, per request or per second; null is
    unknown. `nearest`: of nothing that was found, the id that was probably meant, as a sentence.
    """

    base_url: str
    models: tuple[ListedModel, ...]
    total: int
    fetched_at: datetime
    age_s: float = 0.0
    warnings: tuple[str, ...] = ()
    nearest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; prices are strings, so that they stay exact."""
        return {
            "base_url": self.base_url,
            "fetched_at": self.fetched_at.isoformat(timespec="seconds"),
            "age_s": round(self.age_s),
            "total": self.total,
            "models": [_described(model) for model in self.models],
            "warnings": list(self.warnings),
        }

    def describe(self) -> str:
        """A table for a person, 80 columns wide, and where it is from."""
        whose = "the simulator" if self.base_url == SIMULATOR else self.base_url
        if not self.models:
            hint = f"; {self.nearest}" if self.nearest else ""
            return f"none of the {count(self.total, 'model')} of {whose} is meant by this{hint}\n{self._age()}"
        width = min(WIDEST_ID, max(len("model"), *(len(shown(model.entry.id)) for model in self.models)))
        lines = [_row("model", "input", "output", "formats", width)]
        lines += [_row(shown(model.entry.id), *_prices(model), _formats(model), width) for model in self.models]
        number = f"{len(self.models):,} of {count(self.total, 'model')}"
        lines += ["", f"{number} of {whose}; list prices in US dollars per million tokens", self._age()]
        return "\n".join(lines)

    def _age(self) -> str:
        if self.base_url == SIMULATOR:
            return "the list is part of this program"
        minutes = round(self.age_s / 60)
        age = f"{minutes} min" if minutes else f"{self.age_s:.0f} s"
        return f"the list is {age} old (--refresh asks for it again)" if self.age_s else "the list was fetched just now"


def models(
    search: str = "",
    *,
    format: str | None = None,  # noqa: A002 - as the option is called
    base_url: str = DEFAULT_BASE_URL,
    refresh: bool = False,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> ModelList:
    """The models that a service lists in its public catalog (contract sheet, section 8.1), with prices.

    `search`: only models with each of these words in their id, their name or their maker's name. `format`: only models
    that speak this request format. The catalog is kept for an hour, in the user's folder for caches; `refresh` asks for
    it anew. `http` replaces the network, and the kept catalog.

    Raises `CatalogError` where there is no catalog to be had, `UsageError` for an address or a format that is none.
    """
    if format is not None and format not in wire.FORMATS:
        raise UsageError(f"--format: {shown(format)} is none of {', '.join(wire.FORMATS)}.")
    try:
        service = normal_base_url(base_url)
    except WrongError as error:
        raise UsageError(f"--base-url: {error}.") from None
    is_kept = service != SIMULATOR and http is None
    kept = _read(service) if is_kept and not refresh else None
    age_s = 0.0 if kept is None else (now() - kept.fetched_at).total_seconds()
    if kept is None:
        kept = _fetched(service, http)
        if is_kept:
            _keep(kept)
    named = [model for model in kept.models if model.has(search)]
    found = [model for model in named if format is None or format in (model.formats or ())]
    warnings = kept.warnings
    if unknown := sum(model.formats is None and model.type in ("", "text") for model in named) if format else 0:
        warnings += (f"{count(unknown, 'model')} left out: the catalog names no endpoints of them",)
    ids = [model.entry.id for model in kept.models]
    nearest = "" if found or not search else did_you_mean(search, ids)
    return ModelList(service, tuple(found), len(ids), kept.fetched_at, age_s, warnings, nearest)


# --- what is kept ---


class _Kept(Struct, frozen=True):
    """A catalog as it was fetched."""

    base_url: str
    fetched_at: datetime
    models: tuple[ListedModel, ...]
    warnings: tuple[str, ...] = ()


def _path(base_url: str) -> Path | None:
    """Where the catalog of a service is kept; None where the user has no folder for caches."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(named) if named.startswith("/") else Path.home() / ".cache"  # a relative one is not to be used
    except RuntimeError:  # there is no home
        return None
    name = hashlib.sha256(base_url.encode()).hexdigest()[:16]
    return folder / "cometbatch" / f"catalog-{name}.json"


def _read(base_url: str) -> _Kept | None:
    """The kept catalog of this service; None where there is none, or it is too old, or can't be read."""
    path = _path(base_url)
    if path is None:
        return None
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        age_s = (now() - kept.fetched_at).total_seconds()
    except (OSError, ValueError, TypeError, msgspec.MsgspecError):  # TypeError: a time without its zone
        return None
    return kept if kept.base_url == base_url and 0 <= age_s < KEPT_S else None


def _keep(kept: _Kept) -> None:
    """Keep a catalog for the next hour. Where that can't be done, the next call asks the service again."""
    path = _path(kept.base_url)
    if path is None:
        return
    try:
        local.make_folder(path.parent)
        local.write_bytes(path, msgspec.json.encode(kept))
    except (OSError, CheckpointError):
        return


# --- asking the service ---


def _fetched(base_url: str, http: "httpx.AsyncBaseTransport | None") -> _Kept:
    """The catalog as it is now, fetched in a thread: a caller's event loop can't be entered twice."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _ask(base_url, http)).result()


async def _ask(base_url: str, http: "httpx.AsyncBaseTransport | None") -> _Kept:
    if base_url == SIMULATOR:
        transport = Transport("http://127.0.0.1", NO_KEY, timeout_s=CATALOG_TIMEOUT_S, http=http or _simulated())
    else:
        transport = Transport(base_url, NO_KEY, timeout_s=CATALOG_TIMEOUT_S, http=http)
    try:
        records = await fetch_records(transport)
    finally:
        await transport.aclose()
    if isinstance(records, CatalogProblem):
        raise CatalogError(
            f"{base_url}{CATALOG_PATH}: the catalog can't be read ({records.reason}). Check the connection and the "
            "proxy (HTTPS_PROXY), then run the same command again."
        )
    return _Kept(base_url, now(), tuple(models_in(records)), records.warnings())


def _simulated() -> "httpx.AsyncBaseTransport":
    import httpx  # noqa: PLC0415 - takes long to load, and only the simulator needs it

    from cometbatch.simulator.app import create_app  # noqa: PLC0415 - the same

    return httpx.ASGITransport(create_app(Behaviour()))


# --- words ---


def _described(model: ListedModel) -> dict[str, Any]:
    entry = model.entry
    amounts = {
        "input_usd": entry.input,
        "output_usd": entry.output,
        "per_request_usd": entry.per_request,
        "per_second_usd": entry.per_second,
        "ratio": entry.ratio,
    }
    return {
        "id": entry.id,
        "name": model.name,
        "provider": model.provider,
        "type": model.type,
        "formats": None if model.formats is None else list(model.formats),
        "context_length": model.context_length or None,
        "max_completion_tokens": model.max_completion_tokens or None,
        **{name: None if amount is None else format_amount(amount) for name, amount in amounts.items()},
        "upcoming": entry.upcoming,
    }


def _prices(model: ListedModel) -> tuple[str, str]:
    """The prices of input and output, or the one price that stands for both (contract sheet, section 8.3)."""
    entry = model.entry
    for amount, unit in ((entry.per_request, "a request"), (entry.per_second, "a second")):
        if amount is not None:
            return f"${format_amount(amount)} {unit}", ""
    given, taken = ("unknown" if each is None else f"${format_amount(each)}" for each in (entry.input, entry.output))
    return given, taken


def _formats(model: ListedModel) -> str:
    if model.entry.upcoming:
        return "upcoming"
    if model.formats is None:
        return "unknown"
    return (
        "all"
        if len(model.formats) == len(wire.FORMATS)
        else ",".join(model.formats) or f"none ({shown(model.type) or 'of ours'})"
    )


def _row(model: str, given: str, taken: str, formats: str, width: int) -> str:
    prices = f"{given:>{PRICE_WIDTH}} {taken:>{PRICE_WIDTH}}" if taken else f"{given:>{2 * PRICE_WIDTH + 1}}"
    return f"{model:{width}}  {prices}  {formats}"
