"""Lines of results added up: by question for each score, and in all for costs, tokens and times. Flat in memory.

Only sums are kept: a few numbers for each question and line of the leaderboard, however many samples there are, and how
often each latency was seen.
"""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

import msgspec
import polars as pl
from msgspec import Struct

from cometbatch.evaluation.score_columns import SCORER_ERROR, WHY
from cometbatch.money.exact import EXACT

ENOUGH: Final = 1 << 17  # entries of sums of a line that wait; then those of the same question are added up
QUESTION: Final = "question"
LINE: Final = "line"
FAILED: Final = "failed"
INCOMPLETE: Final = tuple(dict.fromkeys(WHY.values()))
"""The words of a row that the model left incomplete."""
Label: TypeAlias = str | int | float | bool | None
Labels: TypeAlias = tuple[Label, ...]
Kind: TypeAlias = Literal["scored", "incomplete", "failed", "broken", "skipped"]
KINDS: Final[tuple[Kind, ...]] = ("scored", "incomplete", "failed", "broken", "skipped")
"""How a row counts for a score: it has one; the model left it incomplete; it failed; its scorer did; it has no gold."""
MILLISECONDS: Final = 1000
FLAGS: Final = ("excludes", "reused")


class Spent(Struct):
    """What the rows of a line of the leaderboard came to, whatever their scores.

    `unknown_costs`: rows that were answered, and whose cost is unknown. `at_least`: rows whose cost is a part of what
    they cost. `counted`: answers with token counts; `input_tokens` and `output_tokens` are theirs. `reused`: rows whose
    answer an earlier call paid for.
    """

    rows: int = 0
    failed: int = 0
    cost_usd: Decimal = Decimal()
    unknown_costs: int = 0
    at_least: int = 0
    counted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reused: int = 0
    p50_s: float | None = None
    p95_s: float | None = None

    @property
    def known_cost_usd(self) -> Decimal | None:
        """The exact cost; None where that of a row is unknown."""
        return None if self.unknown_costs else self.cost_usd


class Scored(Struct, eq=False):
    """The sums of one score. `frame`: line, question, total, squares, and the number of rows of each kind.

    `reasons`: by line, why rows have no score. `lowest`, `highest`: of all scores; None without any. `is_binary`: each
    is 0 or 1.
    """

    frame: pl.DataFrame
    reasons: dict[int, Counter[str]]
    lowest: float | None
    highest: float | None
    is_binary: bool


class Adding:
    """Adds up lines of results. `scores`: the names of the scores."""

    def __init__(self, scores: Sequence[str]) -> None:
        self.scores = tuple(scores)
        self.lines: dict[Labels, int] = {}
        self.spent: list[Spent] = []
        self._sums: dict[str, dict[int, list[pl.DataFrame]]] = {name: {} for name in scores}
        self._reasons: dict[str, dict[int, Counter[str]]] = {name: {} for name in scores}
        self._ends: dict[str, tuple[float, float] | None] = dict.fromkeys(scores)
        self._binary: dict[str, bool] = dict.fromkeys(scores, True)
        self._latencies: list[pl.DataFrame] = []

    def add(self, labels: pl.DataFrame, rows: pl.DataFrame, scores: dict[str, pl.DataFrame]) -> None:
        """Some rows. `labels`: of each row's line. `scores`: of each score, columns `score` and `why`.

        `rows`: columns `question`, `status`, `cost`, `input_tokens`, `output_tokens`, `latency`, `asks` and `FLAGS`.
        """
        rows = rows.with_columns(self._lines_of(labels))
        self._add_spent(rows)
        latencies = pl.col("latency").mul(MILLISECONDS).round().cast(pl.Int64)
        times = rows.filter(pl.col("latency").is_finite()).group_by(LINE, latencies).len()
        self._latencies = compacted([*self._latencies, times], [LINE, "latency"])
        for name, cells in scores.items():
            self._add_score(name, rows.select(LINE, QUESTION).hstack(cells))

    def _lines_of(self, labels: pl.DataFrame) -> pl.Series:
        """The number of each row's line, in the order in which lines were first seen."""
        kinds = labels.unique(maintain_order=True)
        numbers = [self._line(tuple(each)) for each in kinds.rows()]
        if len(numbers) == 1:
            return pl.repeat(numbers[0], labels.height, dtype=pl.Int32, eager=True).alias(LINE)
        numbered = kinds.with_columns(pl.Series(LINE, numbers, pl.Int32))
        return labels.join(numbered, on=labels.columns, how="left", nulls_equal=True, maintain_order="left")[LINE]

    def _line(self, labels: Labels) -> int:
        if labels not in self.lines:
            self.spent.append(Spent())
        return self.lines.setdefault(labels, len(self.lines))

    def _add_spent(self, rows: pl.DataFrame) -> None:
        is_failed = pl.col("status") == FAILED
        is_counted = pl.col("input_tokens").is_not_null() & pl.col("output_tokens").is_not_null()
        found = rows.group_by(LINE).agg(
            pl.len().alias("rows"),
            is_failed.sum().alias("failed"),
            pl.col("cost").sum().alias("cost_usd"),
            (pl.col("cost").is_null() & (~is_failed | (pl.col("asks") > 1))).sum().alias("unknown_costs"),
            pl.col("excludes").sum().alias("at_least"),
            is_counted.sum().alias("counted"),
            pl.col("input_tokens").filter(is_counted).sum(),
            pl.col("output_tokens").filter(is_counted).sum(),
            pl.col("reused").sum(),
        )
        for each in found.iter_rows(named=True):
            total = self.spent[each.pop(LINE)]
            total.cost_usd = EXACT.add(total.cost_usd, each.pop("cost_usd"))
            for name, count in each.items():
                setattr(total, name, getattr(total, name) + count)

    def _add_score(self, name: str, rows: pl.DataFrame) -> None:
        score = pl.when(pl.col("score").is_finite()).then("score")
        rows = rows.with_columns(*kind_of(score)).with_columns(
            pl.when(pl.col("kind") == "scored").then("score").alias("score")
        )
        counts = [(pl.col("kind") == kind).sum().cast(pl.Int32).alias(kind) for kind in KINDS]
        total, squares = pl.col("score").sum().alias("total"), pl.col("score").pow(2).sum().alias("squares")
        sums = rows.group_by(LINE, QUESTION, maintain_order=True).agg(total, squares, *counts)
        for (line,), own in sums.partition_by(LINE, as_dict=True, maintain_order=True).items():
            self._sums[name][line] = compacted([*self._sums[name].get(line, []), own], [LINE, QUESTION])
        unscored = rows.filter(~pl.col("kind").is_in(["scored", "skipped"]))
        for line, why, count in unscored.group_by(LINE, "reason").len().rows():
            self._reasons[name].setdefault(line, Counter())[why] += count
        found = rows["score"].drop_nulls()
        if len(found):
            ends: Any = (found.min(), found.max())
            before = self._ends[name] or ends
            self._ends[name] = min(before[0], ends[0]), max(before[1], ends[1])
            self._binary[name] &= bool(found.is_in([0.0, 1.0]).all())

    def scored(self, name: str) -> Scored:
        """The sums of a score."""
        empty = pl.DataFrame(schema={LINE: pl.Int32, QUESTION: pl.Int64, "total": pl.Float64, "squares": pl.Float64})
        empty = empty.with_columns(pl.lit(0, pl.Int32).alias(kind) for kind in KINDS)
        by_line = sorted(self._sums[name].items())
        frames = [summed(frames, [LINE, QUESTION]).sort(QUESTION) for _, frames in by_line]
        frame = pl.concat([empty, *frames], rechunk=True)
        lowest, highest = self._ends[name] or (None, None)
        return Scored(frame, self._reasons[name], lowest, highest, self._binary[name])

    def spendings(self) -> list[Spent]:
        """What each line came to, with its latencies."""
        if not self._latencies:
            return self.spent
        times = summed(self._latencies, [LINE, "latency"]).sort(LINE, "latency")
        found = []
        for line, spent in enumerate(self.spent):
            own = times.filter(pl.col(LINE) == line)
            p50, p95 = (quantile_s(own, share) for share in (0.5, 0.95))
            found.append(msgspec.structs.replace(spent, p50_s=p50, p95_s=p95))
        return found


def kind_of(score: pl.Expr) -> tuple[pl.Expr, ...]:
    """How a row counts for a score (`kind`), and why it has none in one word (`reason`).

    What the model left incomplete has a word of `INCOMPLETE`, and counts 0 whatever its cell holds.
    """
    why, given = pl.col("why"), pl.col("score").is_not_null()
    kind = (
        pl.when(why.is_in(INCOMPLETE)).then(pl.lit("incomplete"))
        .when(score.is_not_null()).then(pl.lit("scored"))
        .when(why == FAILED).then(pl.lit("failed"))
        .when(why.is_not_null() | given).then(pl.lit("broken"))
        .otherwise(pl.lit("skipped"))
    )  # fmt: skip
    return kind.alias("kind"), pl.when(kind == "broken").then(pl.lit(SCORER_ERROR)).otherwise(why).alias("reason")


def compacted(frames: list[pl.DataFrame], keys: Sequence[str]) -> list[pl.DataFrame]:
    """Frames of sums; once they are long together, one frame."""
    if len(frames) == 1 or sum(frame.height for frame in frames[1:]) < max(ENOUGH, frames[0].height):
        return frames
    return [summed(frames, keys)]


def summed(frames: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    """Frames of sums as one, in which each key is there once. Of each key, frames are added in their order."""
    return pl.concat(frames).group_by(keys, maintain_order=True).sum()


def quantile_s(times: pl.DataFrame, share: float) -> float | None:
    """The latency, in seconds, within which this share of the rows was answered; `times`: ascending, with counts."""
    reached = times.filter(pl.col("len").cum_sum() >= share * pl.col("len").sum())
    return float(reached["latency"][0]) / MILLISECONDS if reached.height else None
