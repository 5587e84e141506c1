"""Which rows get a span, and what it says. Never a prompt, an answer, an error's message or a row's own name."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from cometbatch.records import Answered, Failed, Outcome, Usage
from cometbatch.telemetry import names
from cometbatch.telemetry.attributes import MAX_INT64, Asked, Attributes, is_name

ONE_IN: Final = 1_000
"""The first row of a session has a span, and each row that comes this many after one that has."""
FAILED_PER_S: Final = 10
"""Failed rows with a span, in each second in which rows end; further ones are in the counts alone."""
MOST: Final = 2_000
"""Spans that are kept until they are sent, so that a collector that hangs fills no memory; later ones are dropped."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RowSpan(Struct, frozen=True):
    """A row's last request: when it was sent and when it ended, in nanoseconds since 1970. `is_sent`: there was one."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    is_failed: bool = False
    is_sent: bool = True


class RowSpans:
    """Chooses rows and keeps their spans until they are taken. `output_type`: what the job asks for, "json" or ""."""

    def __init__(self, asked: Asked, output_type: str = "") -> None:
        self._asked = asked
        self._output_type = output_type
        self._kept: list[RowSpan] = []
        self.due = 0
        """The number of the next row with a span, from 0."""
        self._second: datetime | None = None
        self._failed = 0  # rows of that second with a span

    def record(self, outcomes: Sequence[Outcome], failed: Sequence[Failed], rows: int) -> None:
        """Look at rows that have ended; `failed`: those among them that have; `rows`: how many there are by now.

        May be left out for a turn in which none has failed, and that does not go beyond the row `due`.
        """
        first = rows - len(outcomes)
        for outcome in outcomes[self.due - first :: ONE_IN]:
            self.due += ONE_IN
            if isinstance(outcome, Answered) and outcome.attempts:  # a failed one is chosen below
                self._keep(self._of_answered(outcome))
        for each in failed:
            second = each.finished_at.replace(microsecond=0)
            if second != self._second:
                self._second, self._failed = second, 0
            self._failed += 1
            if self._failed <= FAILED_PER_S:
                self._keep(self._of_failed(each))

    def take(self) -> list[RowSpan]:
        """The spans since the last time."""
        kept, self._kept = self._kept, []
        return kept

    def _keep(self, span: RowSpan) -> None:
        if len(self._kept) < MOST:
            self._kept.append(span)

    def _of_answered(self, outcome: Answered) -> RowSpan:
        completion = outcome.completion
        told: Attributes = {names.FINISH_REASONS: (completion.finish_reason,)}
        given = {
            names.RESPONSE_MODEL: completion.response_model,
            names.RESPONSE_ID: completion.response_id,
            names.REQUEST_ID: outcome.request_id,
        }
        told |= {name: text for name, text in given.items() if text is not None and is_name(text)}
        told |= _usage(completion.usage)
        return self._span(outcome, outcome.latency_s, told | {names.HTTP_STATUS: outcome.http_status})

    def _of_failed(self, outcome: Failed) -> RowSpan:
        failure = outcome.failure
        told: Attributes = {names.ERROR_TYPE: failure.kind}
        if failure.status is not None:
            told[names.HTTP_STATUS] = failure.status
        if failure.request_id is not None and is_name(failure.request_id):
            told[names.REQUEST_ID] = failure.request_id
        return self._span(outcome, outcome.latency_s or 0.0, told | _usage(outcome.usage))

    def _span(self, outcome: Outcome, latency_s: float, told: Attributes) -> RowSpan:
        asked = self._asked.attributes(outcome.target)
        common: Attributes = {
            names.ORDINAL: outcome.ordinal,
            names.ATTEMPTS: outcome.attempts,
            names.ASKS: outcome.asks,
        }
        if self._output_type:
            common[names.OUTPUT_TYPE] = self._output_type
        if outcome.cost_usd is not None:
            common[names.COST] = float(outcome.cost_usd)
        end = _nanoseconds(outcome.finished_at)
        return RowSpan(
            name=f"{asked[names.OPERATION]} {asked[names.REQUEST_MODEL]}",
            start_ns=end - round(latency_s * 1e9),
            end_ns=end,
            attributes=asked | common | told,
            is_failed=isinstance(outcome, Failed),
            is_sent=outcome.attempts > 0,
        )


def _usage(usage: Usage) -> Attributes:
    counts: Iterable[tuple[str, int | None]] = (
        (attribute, getattr(usage, field)) for field, attribute in names.USAGE_ATTRIBUTES.items()
    )
    return {attribute: number for attribute, number in counts if number is not None and number <= MAX_INT64}


def _nanoseconds(moment: datetime) -> int:
    """Since 1970, exactly: a float has no room for them."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
