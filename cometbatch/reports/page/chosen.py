"""Which rows go into the page. Flat in memory, however long the results are.

Laws: the page never has more rows than the limit; where all rows fit, it has all. First come rows that failed or are
incomplete, a row of each kind in turn; then the rows with the longest answers, the dearest and the slowest; then a
sample by question: all calls of a question are in it together, in all results, or none is. The same seed chooses the
same rows.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import polars as pl
import pyarrow as pa
from msgspec import Struct

from cometbatch.reports.sources import Source, Tables
from cometbatch.results.rows import SUCCEEDED
from cometbatch.results.summary_words import count

PARTS: Final = ("failed", "incomplete", "longest", "dearest", "slowest", "sample")
"""Why a row is in the page, the first reason that holds."""
LONGEST: Final = "longest"
CHARACTERS: Final = "characters"
MOST: Final = {LONGEST: 10, "dearest": 1_000, "slowest": 1_000}
"""How many of the rows with the largest values go in."""
VALUES: Final = {LONGEST: "length", "dearest": "cost", "slowest": "latency"}
"""The column of `Choosing.add` whose largest values are meant."""
SOURCE: Final = "source"
PLACE: Final = "place"
_LINE: Final = [SOURCE, PLACE]
_HASH: Final = "hash"
_KIND: Final = ["status", "kind"]
_GOLDEN: Final = 0x9E3779B97F4A7C15  # splitmix64's step and multipliers
_MULTIPLIERS: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT: Final = 31
_MASK: Final = 2**64 - 1


class Chosen(Struct, frozen=True, eq=False):
    """The places of the chosen lines of each source, ascending; None for all of them."""

    lines: tuple[pl.Series | None, ...]

    def has(self, source: int, place: int) -> bool:
        """Whether a line goes into the page."""
        found = self.lines[source]
        if found is None:
            return True
        at = int(found.search_sorted(place))
        return at < len(found) and int(found[at]) == place


class Selection(Struct, frozen=True):
    """How many rows go into the page, and why. `of`: of how many. `limit`, `seed`: as they were asked for.

    `parts`: the rows by the first reason that holds, one of `PARTS`; they add up to `rows` unless all rows are in.
    `troubled`: how many rows there are that failed, and that are incomplete.
    """

    rows: int
    of: int
    limit: int
    seed: int
    parts: dict[str, int]
    troubled: tuple[int, int] = (0, 0)

    @property
    def words(self) -> str:
        """For a reader: which rows the page has; "" where it has all."""
        if self.rows == self.of:
            return ""
        kinds = [
            f"{'all' if n == total else f'{n:,} of'} {total:,} {kind}"
            for kind, n, total in zip(PARTS, map(self.parts.__getitem__, PARTS), self.troubled, strict=False)
            if total
        ]
        most = [f"the {self.parts[name]:,} {name}" for name in MOST if self.parts[name]]
        sample = self.parts["sample"]
        drawn = [f"a random sample of {sample:,} others (seed {self.seed})"] if sample else []
        return (
            f"This page has {self.rows:,} of {count(self.of, 'row')}: {', '.join([*kinds, *most, *drawn])}. "
            "Totals and charts of the overview count all rows."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        said = msgspec.structs.asdict(self)
        del said["troubled"]
        return said | {"words": self.words}


class Choosing:
    """Chooses rows as they are read. `limit`: how many at most, of all sources together."""

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._seed = limit, seed
        self._rows = 0
        self._troubled = {"failed": 0, "incomplete": 0}
        self._kinds: set[tuple[str, str | None]] = set()
        self._troubles: list[pl.DataFrame] = []
        self._sample: list[pl.DataFrame] = []
        self._last_hash = _MASK
        self._most: dict[str, pl.DataFrame] = {}

    def add(self, source: int, rows: pl.DataFrame) -> None:
        """Some rows of a source. Columns: `place`, `row` (of the input), `status`, `kind` (why it did not succeed).

        And `length` (of the answer), `cost`, `latency`, which are null where they are unknown, and `label` (its name).
        """
        self._rows += rows.height
        drawn = hashes(rows["row"], self._seed)
        lines = rows.with_columns(pl.lit(source, pl.Int32).alias(SOURCE), drawn.alias(_HASH))
        self._add_troubles(lines.filter(pl.col("status") != SUCCEEDED).select(*_LINE, *_KIND, _HASH))
        for name in MOST:
            self._add_values(name, lines.select(*_LINE, "label", pl.col(VALUES[name]).alias("value")))
        self._sample.append(lines.filter(pl.col(_HASH) <= self._last_hash).select(*_LINE, _HASH))
        if sum(each.height for each in self._sample) > 2 * self._limit:
            whole = _whole_questions(pl.concat(self._sample), self._limit)
            self._sample, self._last_hash = [whole], int(whole[_HASH][-1])

    def add_characters(self, lines: pl.DataFrame) -> None:
        """Rows that are in already, with the characters of their answers: where no row has tokens, these tell lengths.

        Columns: source, place, label, value.
        """
        self._add_values(CHARACTERS, lines)

    def _add_values(self, name: str, lines: pl.DataFrame) -> None:
        found = lines.filter(pl.col("value").is_finite() & (pl.col("value") > 0))
        together = found if name not in self._most else pl.concat([self._most[name], found])
        ranked = together.sort("value", *_LINE, descending=[True, False, False])
        self._most[name] = ranked.head(MOST.get(name, MOST[LONGEST]))

    def most(self, name: str) -> pl.DataFrame:
        """The lines with the largest values of this name, the largest first. Columns: source, place, label, value."""
        return self._most.get(CHARACTERS if name == LONGEST and not self.has_tokens else name, _NO_VALUES)

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens of an answer are known."""
        return LONGEST in self._most and self._most[LONGEST].height > 0

    def _add_troubles(self, lines: pl.DataFrame) -> None:
        if not lines.height:
            return
        for status, rows in lines.group_by("status").len().rows():
            self._troubled[status] = self._troubled.get(status, 0) + rows
        firsts = lines.unique(_KIND, keep="first", maintain_order=True)
        new = [key not in self._kinds for key in firsts.select(_KIND).rows()]
        self._kinds.update(firsts.select(_KIND).rows())
        news = firsts.filter(pl.Series(new, dtype=pl.Boolean)).select(*_LINE, pl.lit(0, pl.UInt64).alias("first"))
        ordered = lines.join(news, on=_LINE, how="left", maintain_order="left").select(
            *_LINE, *_KIND, pl.coalesce("first", _HASH).alias(_HASH)
        )
        self._troubles.append(ordered)
        if sum(each.height for each in self._troubles) > 2 * self._limit:
            self._troubles = [_in_turn(pl.concat(self._troubles), self._limit)]

    def chosen(self, sources: int) -> tuple[Chosen, Selection]:
        """The rows that go into the page. `sources`: how many sources there are."""
        troubled = self._troubled["failed"], self._troubled["incomplete"]
        if self._rows <= self._limit:
            parts = dict.fromkeys(PARTS, 0) | self._troubled
            everything = Selection(self._rows, self._rows, self._limit, self._seed, parts, troubled)
            return Chosen((None,) * sources), everything
        taken = _in_turn(pl.concat(self._troubles), self._limit) if self._troubles else _NO_TROUBLES
        parts = {kind: int((taken["status"] == kind).sum()) for kind in self._troubled}
        lines = taken.select(_LINE)
        for name in MOST:
            more = self.most(name).select(_LINE).join(lines, on=_LINE, how="anti", maintain_order="left")
            more = more.head(self._limit - lines.height)
            parts[name] = more.height
            lines = pl.concat([lines, more])
        others = pl.concat(self._sample).join(lines, on=_LINE, how="anti")
        drawn = _whole_questions(others, self._limit - lines.height).select(_LINE).head(self._limit - lines.height)
        parts["sample"] = drawn.height
        lines = pl.concat([lines, drawn])
        places = tuple(lines.filter(pl.col(SOURCE) == number)[PLACE].sort() for number in range(sources))
        return Chosen(places), Selection(lines.height, self._rows, self._limit, self._seed, parts, troubled)


_NO_VALUES: Final = pl.DataFrame(
    schema={SOURCE: pl.Int32, PLACE: pl.Int64, "label": pl.String, "value": pl.Float64},
)
_NO_TROUBLES: Final = pl.DataFrame(
    schema={SOURCE: pl.Int32, PLACE: pl.Int64, "status": pl.String, "kind": pl.String, _HASH: pl.UInt64},
)


def _in_turn(lines: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The first lines where a line of each kind is taken in turn; of a kind, those with the least hashes first."""
    turn = pl.int_range(pl.len()).over(_KIND).alias("turn")
    ordered = lines.sort(_HASH, *_LINE).with_columns(turn)
    return ordered.sort("turn", *_KIND, nulls_last=True).head(limit).drop("turn")


def _whole_questions(lines: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The lines of the questions with the least hashes, as many whole questions as fit; the first one in any case."""
    sizes = lines.group_by(_HASH).len().sort(_HASH)
    fitting = max(1, int((sizes["len"].cum_sum() <= limit).sum()))
    kept = sizes[_HASH].head(fitting)
    return lines if not len(kept) else lines.filter(pl.col(_HASH) <= kept[-1]).sort(_HASH, *_LINE)


def hashes(rows: pl.Series, seed: int) -> pl.Series:
    """A 64-bit number for each row of an input, above 0, that only the seed and the row decide (splitmix64)."""
    start = int(_mixed(pl.Series([seed * _GOLDEN & _MASK], dtype=pl.UInt64))[0])
    return _mixed((rows.cast(pl.UInt64) + 1) * _GOLDEN + start).clip(1, _MASK).alias(_HASH)


def _mixed(numbers: pl.Series) -> pl.Series:
    """Other numbers, no two of them of the same one, without a trace of their order."""
    for shift, multiplier in _MULTIPLIERS:
        numbers = (numbers ^ (numbers // 2**shift)) * multiplier
    mixed: pl.Series = numbers ^ (numbers // 2**_LAST_SHIFT)
    return mixed


def chosen_tables(source: Source, lines: pl.Series | None, names: Sequence[str] | None = None) -> Tables:
    """The chosen lines of a source, some at a time, each with its place. `lines`: None for all.

    `names`: of the columns; None for all. Raises what `Source.tables` raises.
    """
    wanted = source.schema.names if names is None else names
    for places, table in source.tables(wanted):
        if lines is None:
            yield places, table
            continue
        own = places if isinstance(places, range) else pl.Series(places, dtype=pl.Int64)
        numbers = pl.int_range(own.start, own.stop, eager=True) if isinstance(own, range) else own
        is_chosen = numbers.is_in(lines.implode())
        if is_chosen.any():
            yield numbers.filter(is_chosen).to_list(), table.filter(pa.chunked_array([is_chosen.to_arrow()]))
