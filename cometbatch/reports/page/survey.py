"""The first pass over all rows of all results: what the overview tells, and which rows go into the page.

Only the columns that are needed are read, some rows at a time; memory is flat however long the results are. Amounts of
money are exact. Where a run is known, its totals are those that `status` prints; those of a result alone come from its
columns and its metadata, in the same words.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from cometbatch.money.exact import format_amount
from cometbatch.records import PriceBook, Tally
from cometbatch.reports.figures import plain
from cometbatch.reports.layout import Layout, layout_of
from cometbatch.reports.page.chosen import PLACE, SOURCE, Choosing, Chosen, Selection
from cometbatch.reports.page.series import LATENCY, Series, SeriesAdding
from cometbatch.reports.page.totals import TotalsAdding
from cometbatch.reports.page.troubles import Asked, Trouble, TroublesAdding
from cometbatch.reports.questions import numbers_of
from cometbatch.reports.sources import Source
from cometbatch.results.columns import COLUMNS
from cometbatch.results.rows import output_of
from cometbatch.results.summary import RunSummary

State: TypeAlias = Literal["finished", "running", "stopped"]
SHOWN: Final = 10  # rows of each list of extremes
DIGITS: Final = 15  # of an amount in a list, which a float holds exactly
NAME_CHARACTERS: Final = 80  # of a row's name in a list
_CELLS: Final = (
    "status", "finish_reason", "error_kind", "error_message", "cost_usd", "cost_excludes", "attempts", "latency_s",
    "finished_at", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "cache_write_1h_input_tokens", "reasoning_output_tokens",
)  # fmt: skip
"""Output columns that are read; results of earlier versions lack some of them."""
_OTHERS: Final[dict[str, pl.Expr]] = {
    "asks": pl.lit(1, pl.Int32),
    "rejected_cost_usd": pl.lit(None, pl.Decimal(38, 18)),
    "reused_from": pl.lit(None, pl.String),
    "reused_cost_usd": pl.lit(None, pl.Decimal(38, 18)),
}
"""Output columns that a run has only where its job asks for them, and what holds without them."""
_DEFAULTS: Final[dict[str, pl.Expr]] = {
    column.name: pl.lit(None, pl.Series(pa.array([], column.type)).dtype) for column in COLUMNS if column.name in _CELLS
} | _OTHERS
"""What holds in a result that lacks a column."""


class Told(Struct, frozen=True):
    """What is known of a result beside its rows.

    `run_id`, `command` (that runs its job): None where they are unknown. `summary`: of its run as it is now; None where
    only the result is known. `judge_usd`: what judging it has cost. `notes`: sentences for the reader.
    """

    run_id: str | None = None
    command: str | None = None
    state: State = "finished"
    summary: RunSummary | None = None
    judge_usd: Decimal | None = None
    notes: tuple[str, ...] = ()


class Times(Struct, frozen=True):
    """When the rows of a result were answered (milliseconds since 1970, UTC), and how long that took (seconds).

    Answers that were taken from earlier runs count for the latency alone.
    """

    first_ms: int | None = None
    last_ms: int | None = None
    p50_s: float | None = None
    p95_s: float | None = None


class SourceSurvey(Struct, frozen=True):
    """What a result came to. `rows`: lines with an outcome. `summary`: of the run, or made of the result's columns.

    `has_requests`: whether the number of possible charges is known, and of replaced rows; a result alone does not tell.
    """

    name: str
    rows: int
    told: Told
    summary: RunSummary
    times: Times

    @property
    def has_requests(self) -> bool:
        """Whether the run is known, and so how many requests its possible charges are of."""
        return self.told.summary is not None

    def overview(self) -> dict[str, Any]:
        """For the first screen, JSON-ready; amounts of money are exact texts."""
        said, tally = self.summary.to_dict(), self.summary.tally
        usage, replaced = said["usage"], self.summary.replaced
        return {
            "outcomes": {name: said[name] for name in ("succeeded", "incomplete", "failed", "remaining")},
            "cost": {
                "usd": said["cost_usd"],
                "unpriced": said["unpriced"],
                "at_least": said["cost_excludes"]["rows"],
                "possible_usd": said["thrown_cost_usd"],
                "possible_requests": said["thrown"] if self.has_requests else None,
                "possible_unknown": said["thrown_unpriced"],
                "reused_rows": said["reused"]["rows"],
                "reused_saved_usd": said["reused"]["saved_usd"],
                "rejected_asks": said["rejected"]["asks"],
                "rejected_usd": said["rejected"]["cost_usd"],
                "replaced_rows": replaced.calls if self.has_requests else None,
                "replaced_usd": format_amount(replaced.cost_usd),
                "judge_usd": None if self.told.judge_usd is None else format_amount(self.told.judge_usd),
            },
            "tokens": {
                "input": usage["input_tokens"],
                "output": usage["output_tokens"],
                "cache_read": usage["cache_read_input_tokens"],
                "cache_write": usage["cache_write_input_tokens"],
                "reasoning": usage["reasoning_output_tokens"],
                "uncounted": tally.uncounted,
            },
            "time": {
                "first_ms": self.times.first_ms,
                "last_ms": self.times.last_ms,
                "latency_p50_s": self.times.p50_s,
                "latency_p95_s": self.times.p95_s,
                "attempts": tally.attempts,
            },
        }

    def described(self, in_page: int) -> dict[str, Any]:
        """For the list of the page's sources, JSON-ready. `in_page`: how many of its rows go into the page."""
        return {
            "name": self.name,
            "run_id": self.told.run_id,
            "command": self.told.command,
            "state": self.told.state,
            "rows": self.rows,
            "calls": self.summary.rows,
            "in_page": in_page,
            "notes": list(self.told.notes),
        }


class Extreme(Struct, frozen=True):
    """A row with one of the largest values. `value`: seconds, US dollars, or tokens (else characters) of the answer."""

    file: int
    ordinal: int
    value: float
    label: str


class Survey(Struct, frozen=True, eq=False):
    """What the first pass found."""

    sources: tuple[SourceSurvey, ...]
    troubles: tuple[Trouble, ...]
    series: Series | None
    slowest: tuple[Extreme, ...]
    dearest: tuple[Extreme, ...]
    longest: tuple[Extreme, ...]
    length_unit: Literal["tokens", "characters"]
    chosen: Chosen
    selection: Selection

    def in_page(self, source: int) -> int:
        """How many rows of a source go into the page."""
        lines = self.chosen.lines[source]
        return self.sources[source].rows if lines is None else len(lines)

    def described_sources(self) -> list[dict[str, Any]]:
        """The list of sources of the page, JSON-ready."""
        return [each.described(self.in_page(number)) for number, each in enumerate(self.sources)]

    def overview(self) -> dict[str, Any]:
        """The first screen, JSON-ready."""
        extremes = {"slowest": self.slowest, "dearest": self.dearest, "longest": self.longest}
        return {
            "sources": [each.overview() for each in self.sources],
            "failures": [each.to_dict() for each in self.troubles],
            "series": None if self.series is None else self.series.to_dict(),
            "extremes": {
                **{name: [msgspec.structs.asdict(each) for each in some] for name, some in extremes.items()},
                "length_unit": self.length_unit,
            },
        }


class Surveying:
    """The first pass. `limit`: how many rows of all sources go into the page; `seed`: which."""

    def __init__(self, limit: int, seed: int) -> None:
        self._choosing, self._series, self._troubles = Choosing(limit, seed), SeriesAdding(), TroublesAdding()
        self._sources: dict[int, tuple[str, Layout, TotalsAdding]] = {}

    def add(self, number: int, source: Source) -> None:
        """All rows of a source; called once more, further rows of the same one. `number`: its place among all.

        Raises `InputError` where it is no result or can't be read, `CheckpointError` where a file of a run is damaged.
        """
        layout = layout_of(source.schema, source.name)
        totals = self._sources.setdefault(number, (source.name, layout, TotalsAdding()))[2]
        has_tokens = False
        for rows in _rows(source, layout):
            totals.add(rows)
            self._series.add(rows)
            self._troubles.add(number, rows)
            self._choosing.add(number, rows)
            has_tokens = has_tokens or rows["length"].null_count() < rows.height
        if not has_tokens:
            for lines in _characters(number, source, layout):
                self._choosing.add_characters(lines)

    def found(self, told: Sequence[Told]) -> Survey:
        """What all rows so far came to. `told`: of each source."""
        found, asked = [], []
        for number, each in enumerate(told):
            name, layout, totals = self._sources[number]
            found.append(_surveyed(name, each, layout, totals))
            asked.append(_asked(found[-1], layout))
        choosing = self._choosing
        chosen, selection = choosing.chosen(len(found))
        slowest, dearest, longest = (_extremes(choosing, name, chosen) for name in ("slowest", "dearest", "longest"))
        return Survey(
            sources=tuple(found),
            troubles=self._troubles.found(asked, chosen),
            series=self._series.found(),
            slowest=slowest,
            dearest=dearest,
            longest=longest,
            length_unit="tokens" if choosing.has_tokens else "characters",
            chosen=chosen,
            selection=selection,
        )


def survey(sources: Sequence[Source], told: Sequence[Told], *, limit: int, seed: int) -> Survey:
    """The first pass over all of these results. Raises as `Surveying.add` does."""
    surveying = Surveying(limit, seed)
    for number, source in enumerate(sources):
        surveying.add(number, source)
    return surveying.found(told)


def _rows(source: Source, layout: Layout) -> Iterator[pl.DataFrame]:
    """All rows of a source, some at a time, with the columns that the adding parts have in common."""
    there = _names(source, layout)
    missing = [value.alias(name) for name, value in _DEFAULTS.items() if name not in there]
    further = [name for name in (layout.row, layout.custom_id) if name and name not in there.values()]
    for places, table in source.tables([*there.values(), *further]):
        own = pl.DataFrame(plain(table.select(list(there.values())))).rename(
            {each: name for name, each in there.items()}
        )
        yield (
            own.with_columns(
                *missing,
                numbers_of(table, layout.row, places).alias("row"),
                pl.Series(PLACE, places, pl.Int64),
                _labels(table, layout.custom_id),
                (pl.col("finished_at").dt.timestamp("ms")).alias("finished_ms"),
                pl.coalesce("error_kind", "finish_reason").alias("kind"),
                pl.col("cost_usd").cast(pl.Float64).alias("cost"),
                pl.col("output_tokens").cast(pl.Float64).alias("length"),
            )
            .rename({"latency_s": LATENCY, "error_message": "message"})
            .with_columns(pl.col("reused_from").is_not_null().alias("is_reused"))
        )


def _names(source: Source, layout: Layout) -> dict[str, str]:
    """The output columns that are read, by their names without prefix."""
    _, columns = output_of(source.schema) or ("", ())
    there = {column.name for column in columns}
    return {name: layout.prefix + name for name in _DEFAULTS if name in there}


def _labels(table: pa.Table, name: str | None) -> pl.Series:
    """The names of these rows; nulls where they have none."""
    if name is None or pa.types.is_nested(table.schema.field(name).type):
        return pl.Series("label", [None] * table.num_rows, pl.String)
    return pl.Series("label", table.column(name)).cast(pl.String)


def _surveyed(name: str, told: Told, layout: Layout, totals: TotalsAdding) -> SourceSurvey:
    times = Times(totals.first_ms, totals.last_ms, totals.latency_s(0.5), totals.latency_s(0.95))
    return SourceSurvey(name, totals.rows, told, told.summary or _summary_of_rows(told, layout, totals), times)


def _summary_of_rows(told: Told, layout: Layout, totals: TotalsAdding) -> RunSummary:
    """What a result alone tells of its run: by its columns, and by the bill in its metadata."""
    bill = layout.bill
    replaced = Tally(
        cost_usd=bill.get("replaced_usd", Decimal()),
        charges_usd=bill.get("replaced_charges_usd", Decimal()),
    )
    return RunSummary(
        run_id=told.run_id or "",
        output=Path(),
        rows=totals.rows,
        tally=totals.tally(bill),
        replaced=replaced,
        prices=PriceBook(layout.models[0], ""),
        finished=True,
        max_output_tokens=layout.token_cap,
    )


def _asked(found: SourceSurvey, layout: Layout) -> Asked:
    summary = found.summary
    return Asked(
        name=found.name,
        command=found.told.command,
        cap=summary.max_output_tokens,
        has_own_caps=summary.has_own_caps,
        has_cells=bool(layout.axes),
        is_running=found.told.state == "running",
    )


def _characters(number: int, source: Source, layout: Layout) -> Iterator[pl.DataFrame]:
    """All rows of a source with the characters of their answers, for `Choosing.add_characters`."""
    response = f"{layout.prefix}response"
    names = [name for name in (layout.custom_id, response) if name]
    for places, table in source.tables(names):
        yield pl.DataFrame(
            {
                SOURCE: pl.repeat(number, table.num_rows, dtype=pl.Int32, eager=True),
                PLACE: pl.Series(places, dtype=pl.Int64),
                "label": _labels(table, layout.custom_id),
                "value": pl.Series(pc.utf8_length(plain(table).column(response))).cast(pl.Float64),
            }
        )


def _extremes(choosing: Choosing, name: str, chosen: Chosen) -> tuple[Extreme, ...]:
    """The rows with the largest values of this name, as far as they are in the page."""
    lines = choosing.most(name).head(SHOWN).iter_rows()
    return tuple(
        Extreme(source, place, float(f"{value:.{DIGITS}g}"), f"row {place}" if not label else label[:NAME_CHARACTERS])
        for source, place, label, value in lines
        if chosen.has(source, place)
    )
