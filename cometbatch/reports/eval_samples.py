"""What an evaluation log says of a cell and of each of its lines, whichever program reads the log. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.money.exact import EXACT
from cometbatch.results.slices import Label, text_of
from cometbatch.version import VERSION

COUNTS: Final = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "reasoning_output_tokens",
)  # fmt: skip
"""The columns of token counts that logs have a place for."""
NOT_SCORED: Final = ("refused", "cut", "filtered", "empty", "failed", "scorer_error")
"""Why a score says nothing of what the model knows: such a line is shown, and no mean counts it."""


class LineScore(Struct, frozen=True):
    """One score of a line: its value, what was taken from the answer, and why there is no value, or 0."""

    value: float | None
    answer: str | None = None
    why: str | None = None

    @property
    def known(self) -> float | None:
        """The value where the answer was scored; None where there was nothing to score."""
        return None if self.why in NOT_SCORED else self.value


class Sample(Struct, frozen=True):
    """A line: one answer to one question. `messages`: role and text of each, as they were sent. `target`: the golds.

    `cells`: the output columns by their names without prefix. `metadata`: the question's own cells, JSON-ready.
    """

    row: int
    sample: int
    cells: Mapping[str, Any]
    messages: Sequence[tuple[str, str]] = ()
    choices: Sequence[str] = ()
    target: Sequence[str] = ()
    scores: Mapping[str, LineScore] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, object] = msgspec.field(default_factory=dict)

    @property
    def id(self) -> str | int:
        """The question's own name; its row's number where it has none."""
        return self.row if self.cells["custom_id"] is None else str(self.cells["custom_id"])

    @property
    def is_failed(self) -> bool:
        """Whether there is no answer."""
        return bool(self.cells["status"] == "failed")

    @property
    def error(self) -> str:
        """Why there is no whole answer; "" where there is one."""
        kind, message = self.cells["error_kind"], self.cells["error_message"]
        return ": ".join(str(each) for each in (kind, message) if each)


class CellLog(Struct, frozen=True):
    """A cell, and what its run says of it. `params`: of generation, by their names in a job."""

    run_id: str
    created: str
    task: str
    input_name: str
    labels: Mapping[str, Label]
    model: str
    format: str
    samples: int
    scorers: Mapping[str, Mapping[str, Any]]
    params: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The same for each export of the same cell of a run."""
        return "-".join([self.run_id, *map(text_of, self.labels.values())])


class Mean(Struct, frozen=True):
    """A score over a cell. `mean`: of what was scored; None where nothing was. `error`: None where nobody can tell.

    `headline`: with incomplete answers as 0, as the leaderboard has it. `scored`, `unscored`: answers. `questions`:
    those with an answer that was scored.
    """

    mean: float | None
    error: float | None
    headline: float | None
    scored: int
    unscored: int
    questions: int


class Totals:
    """Adds up the lines of a cell."""

    def __init__(self, names: Iterable[str]) -> None:
        self.lines = self.failed = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.cost_usd = Decimal(0)
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.rows: set[int] = set()
        self.known: dict[str, dict[int, list[float]]] = {name: {} for name in names}
        self._zeros = dict.fromkeys(self.known, 0)

    def add(self, sample: Sample) -> None:
        """One more line."""
        self.lines += 1
        self.failed += sample.is_failed
        self.rows.add(sample.row)
        for name in COUNTS:
            self.counts[name] += sample.cells.get(name) or 0
        self.cost_usd = EXACT.add(self.cost_usd, sample.cells.get("cost_usd") or Decimal(0))
        moment = sample.cells["finished_at"]
        if moment is not None:
            self.first = moment if self.first is None else min(self.first, moment)
            self.last = moment if self.last is None else max(self.last, moment)
        for name, score in sample.scores.items():
            if score.known is not None:
                self.known[name].setdefault(sample.row, []).append(score.known)
            elif score.value is not None:
                self._zeros[name] += 1

    def mean(self, name: str, error: float | None) -> Mean:
        """What a score comes to. `error`: its standard error, clustered by question."""
        values = [value for some in self.known[name].values() for value in some]
        total, counted = math.fsum(values), len(values) + self._zeros[name]
        return Mean(
            mean=total / len(values) if values else None,
            error=error,
            headline=total / counted if counted else None,
            scored=len(values),
            unscored=self.lines - len(values),
            questions=len(self.known[name]),
        )


def gold_texts(gold: Sequence[object]) -> list[str]:
    """What is right, as texts."""
    return [_gold_text(each) for each in gold]


def _gold_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Fraction):
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        return f"{exact:f}" if Fraction(exact) == value else str(value)
    if isinstance(value, set | frozenset | tuple | list):
        return ", ".join(map(_gold_text, sorted(value, key=str)))
    return msgspec.json.encode(value, enc_hook=str).decode()


def moment(at: datetime | None, otherwise: str = "") -> str:
    """A moment in ISO 8601, in UTC."""
    return otherwise if at is None else at.astimezone(UTC).isoformat()


PROGRAM: Final = {"cometbatch": VERSION}
"""Which program wrote a log."""
