"""Counts of a session's outcomes, in buckets of our own: an SDK's instruments take twenty times the CPU of a row.

Guards: at most 1 us a row; memory that depends on models and errors alone, never on rows; nothing of a prompt or an
answer is kept. All numbers are those of this session, from its start: cumulative.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from typing import Any, Final, TypeAlias

from cometbatch.money.exact import EXACT
from cometbatch.records import Answered, Failed, Outcome, Usage
from cometbatch.telemetry import names
from cometbatch.telemetry.attributes import Asked, Attributes, is_name
from cometbatch.telemetry.names import Metric

MAX_RESPONSE_MODELS: Final = 10
"""Names of response models that are told apart for each target; a service that makes up one for each reply would fill
any memory. The others are `names.OTHER`."""
ROWS_AT_ONCE: Final = 2_048
"""Rows whose numbers are kept until they are counted together; one by one would take half as long again."""

Value: TypeAlias = "int | float | Decimal | Histogram"
Points: TypeAlias = list[tuple[Attributes, Value]]


class Histogram:
    """How many values are in each bucket, and their sum, least and most."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.least: float | None = None
        self.most: float | None = None

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def add(self, values: "list[float] | list[int]") -> None:
        """Count values, of which there is one at least. Sorts them: that is faster than to look each one up."""
        values.sort()
        before = 0
        for bucket, bound in enumerate(self.bounds):
            below = bisect_right(values, bound)
            self.counts[bucket] += below - before
            before = below
        self.counts[-1] += len(values) - before
        self.sum += sum(values)
        self.least = values[0] if self.least is None else min(self.least, values[0])
        self.most = values[-1] if self.most is None else max(self.most, values[-1])

    def merged(self, other: "Histogram") -> "Histogram":
        """A histogram of the values of both, which have the same buckets."""
        both = Histogram(self.bounds)
        both.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        both.sum = self.sum + other.sum
        both.least = min((least for least in (self.least, other.least) if least is not None), default=None)
        both.most = max((most for most in (self.most, other.most) if most is not None), default=None)
        return both


class Series:
    """The numbers of the outcomes that share a target, a response model and an error kind ("" where answered)."""

    def __init__(self) -> None:
        self.sent = self.unsent = self.incomplete = self.unpriced = 0  # rows
        self.cost_usd = Decimal(0)
        self.usage = [0] * len(names.USAGE)
        self.duration = Histogram(names.SECONDS)
        self.inputs, self.outputs = Histogram(names.TOKENS), Histogram(names.TOKENS)
        self._usages: list[Usage] = []
        self._latencies: list[float] = []
        self._costs: list[Decimal | None] = []
        self.add_usage, self.add_latency = self._usages.append, self._latencies.append
        self.add_cost = self._costs.append

    def statuses(self, *, is_failed: bool) -> list[tuple[str, int]]:
        """Rows by how they ended."""
        rows = self.sent + self.unsent
        if is_failed:
            return [("failed", rows)]
        succeeded = ("succeeded", rows - self.incomplete)
        return [succeeded, ("incomplete", self.incomplete)] if self.incomplete else [succeeded]

    def count(self) -> None:
        """Count what was added."""
        if usages := self._usages:
            self.sent += len(usages)
            inputs = [usage.input_tokens or 0 for usage in usages]
            outputs = [usage.output_tokens or 0 for usage in usages]
            sums = (
                sum(inputs),
                sum(outputs),
                sum(filter(None, [usage.cache_read_input_tokens for usage in usages])),
                sum(filter(None, [usage.cache_write_input_tokens for usage in usages])),
                sum(filter(None, [usage.reasoning_output_tokens for usage in usages])),
            )
            self.usage = [before + each for before, each in zip(self.usage, sums, strict=True)]
            self.inputs.add(inputs)
            self.outputs.add(outputs)
            usages.clear()
        if self._latencies:
            self.duration.add(self._latencies)
            self._latencies.clear()
        if costs := self._costs:
            known = [cost for cost in costs if cost is not None]
            self.unpriced += len(costs) - len(known)
            with localcontext(EXACT):
                self.cost_usd = sum(known, self.cost_usd)
            costs.clear()


class Counts:
    """All numbers of a session. `rows`: that were recorded. `resent` and the gauges are set by whoever knows them."""

    def __init__(self, asked: Asked) -> None:
        self.rows = self.resent = self.in_flight = self.pace = 0
        self._asked = asked
        self._series: dict[tuple[int, str | None, str], Series] = {}
        self._names: Counter[int] = Counter()  # of response models, by target
        self._next = ROWS_AT_ONCE  # how many rows there are when they are counted next
        self._last: tuple[Series, int, str | None] = (Series(), -1, None)  # that was added to, and its key

    def record(self, outcomes: Sequence[Outcome]) -> Sequence[Failed]:
        """Note the numbers of outcomes; returns those that failed."""
        series, target, model = self._last
        failed: list[Failed] = []
        for outcome in outcomes:
            if not isinstance(outcome, Answered):
                self._record_failed(outcome)
                failed.append(outcome)
                continue
            completion = outcome.completion
            if completion.response_model != model or outcome.target != target:
                series = self._series_of(outcome.target, completion.response_model)
                target, model = outcome.target, completion.response_model
                self._last = series, target, model
            if outcome.status != "succeeded":
                series.incomplete += 1
            if outcome.attempts:
                series.add_usage(completion.usage)
                series.add_latency(outcome.latency_s)
                series.add_cost(outcome.cost_usd)
            else:  # nothing was sent, and nothing was paid now
                series.unsent += 1
        self.rows += len(outcomes)
        if self.rows >= self._next:
            self._count()
        return failed

    def points(self) -> dict[str, Points]:
        """The points of each metric by its name. No two of a metric have the same attributes."""
        self._count()
        points: dict[str, dict[object, tuple[Attributes, Value]]] = {each.name: {} for each in names.METRICS}
        for metric, attributes, value in self._values():
            known = {name: attributes[name] for name in metric.attributes if name in attributes}
            key = tuple(known.items())
            before = points[metric.name].get(key)
            points[metric.name][key] = (known, value if before is None else _sum(before[1], value))
        return {name: list(some.values()) for name, some in points.items()}

    def _record_failed(self, failed: Failed) -> None:
        series = self._series_of(failed.target, None, failed.failure.kind)
        if not failed.attempts:
            series.unsent += 1
            return
        series.add_usage(failed.usage)
        if failed.latency_s is not None:
            series.add_latency(failed.latency_s)
        if failed.asks > 1:  # those before the last one were billed
            series.add_cost(failed.cost_usd)

    def _series_of(self, target: int, model: str | None, error: str = "") -> Series:
        found = self._series.get((target, model, error))
        if found is not None:
            return found
        if model is not None:
            if not is_name(model) or self._names[target] >= MAX_RESPONSE_MODELS:
                return self._series.setdefault((target, names.OTHER, error), Series())
            self._names[target] += 1
        found = self._series[target, model, error] = Series()
        return found

    def _count(self) -> None:
        self._next = self.rows + ROWS_AT_ONCE
        for series in self._series.values():
            series.count()

    def _values(self) -> Iterator[tuple[Metric, Attributes, Value]]:
        """Values of every metric, several of which may have the same attributes."""
        for (target, model, error), series in self._series.items():
            attributes = self._asked.attributes(target) | {names.MODALITY: names.UNKNOWN_MODALITY}
            attributes |= {} if model is None else {names.RESPONSE_MODEL: model}
            is_failed = {names.ERROR_TYPE: error, names.ERROR_KIND: error} if error else {}
            attributes |= is_failed
            for metric, histogram in (
                (names.DURATION, series.duration),
                (names.INPUT_TOKENS, series.inputs),
                (names.OUTPUT_TOKENS, series.outputs),
            ):
                if any(histogram.counts):
                    yield metric, attributes, histogram.merged(Histogram(metric.bounds))
            for metric, tokens in zip(names.USAGE.values(), series.usage, strict=True):
                yield metric, attributes, tokens
            for status, rows in series.statuses(is_failed=bool(error)):
                yield names.ROWS, attributes | {names.STATUS: status}, rows
            yield names.COST_USD, attributes, series.cost_usd
            yield names.UNPRICED, attributes, series.unpriced
            if not error:
                yield names.REUSED, attributes, series.unsent
        yield names.RESENT, {}, self.resent
        yield names.IN_FLIGHT, {}, self.in_flight
        yield names.PACE, {}, self.pace


def _sum(left: Any, right: Any) -> Value:
    match left:
        case Histogram():
            return left.merged(right)
        case Decimal():
            return EXACT.add(left, right)
    return int(left + right)
