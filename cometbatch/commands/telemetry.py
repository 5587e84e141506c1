"""Tells a collector of OpenTelemetry how a run goes, where its job asks for that: numbers each 15 s, and spans."""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from cometbatch.commands.answers import install_extra
from cometbatch.commands.observers import Listener, Moment
from cometbatch.errors import JobError
from cometbatch.job import Job
from cometbatch.records import Outcome
from cometbatch.results.summary import RunSummary
from cometbatch.run_state.run import Run
from cometbatch.telemetry import names
from cometbatch.telemetry.attributes import Asked, Attributes
from cometbatch.telemetry.batch import Batch, Session
from cometbatch.telemetry.counts import Counts
from cometbatch.telemetry.delivery import Delivery
from cometbatch.telemetry.settings import EXPORT_EVERY_S, Settings, is_installed, read_settings
from cometbatch.telemetry.spans import RowSpans
from cometbatch.version import VERSION

ENDS_WITHIN_S: Final = 3.0
"""Seconds that the end of a run waits for the collector at most, once the result is there."""
STOPS_WITHIN_S: Final = 1.0
"""The same where the run was told to stop: whoever did that counts the seconds until it kills the process."""
SIGNALS: Final = (129, 130, 143)
"""Exit codes of runs that were told to stop."""
_PORTS: Final = {"http": 80, "https": 443}
_PARENT: Final = ("traceparent", "tracestate")
"""Headers of W3C trace context. In upper case they are the variables in which schedulers hand them on."""


def check_telemetry(job: Job) -> None:
    """Raise `UsageError` where a job asks for telemetry that can't be sent, as far as this machine alone can tell."""
    if job.telemetry is None:
        return
    if not is_installed():
        raise JobError(f"telemetry: needs the packages of OpenTelemetry: {install_extra('otel')}")
    read_settings()


class Telemetry(Listener):
    """Counts in the run's own thread, and sends in another. A run without work sends nothing."""

    reads_tally = False

    def __init__(self) -> None:
        self._delivery: Delivery | None = None
        self._next = -math.inf  # when the next export is due, on the event loop's clock
        self._is_told = False

    def began(self, job: Job, run: Run, limit: int | None) -> None:  # noqa: ARG002 - see `Listener`
        """Begin to count, and to send."""
        self._settings = read_settings()
        if self._settings == Settings(None, None):
            return
        last = run.progress.last
        number = 0 if last is None else last.number
        whose: dict[str, str | int] = {names.RUN_ID: run.manifest.run_id, names.SESSION: number}
        asked = _asked(job, run)
        self._counts = Counts(asked)
        self._spans = RowSpans(asked, "json" if job.response.schema is not None or job.response.json else "")
        service = {"service.name": names.SCOPE, "service.version": VERSION}
        instance = {"service.instance.id": f"{run.manifest.run_id}-{number}"}
        parent = {name: os.environ[name.upper()] for name in _PARENT if name.upper() in os.environ}
        session = Session(time.time_ns(), {**service, **instance, **whose}, {**whose}, parent)
        self._delivery = Delivery(session, self._settings)

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:  # noqa: ARG002 - see `Listener`
        """Count rows."""
        if self._delivery is not None:
            counts, spans = self._counts, self._spans
            failed = counts.record(outcomes)
            if failed or counts.rows > spans.due:
                spans.record(outcomes, failed, counts.rows)

    def retried(self) -> None:
        """Count a request that is sent again."""
        if self._delivery is not None:
            self._counts.resent += 1

    def looked(self, moment: Moment) -> None:
        """Send numbers and spans, if it is time."""
        if self._delivery is None:
            return
        self._counts.in_flight, self._counts.pace = moment.in_flight, moment.pace.window
        if self._next == -math.inf:
            self._next = moment.at + EXPORT_EVERY_S
        elif moment.at >= self._next and self._delivery.is_free:
            self._next = moment.at + EXPORT_EVERY_S
            self._delivery.put(self._batch())
        self._warn_once(self._delivery.failure)

    async def finish(self, summary: RunSummary | None, error: BaseException | None) -> None:
        """Send what is left, and wait for that for some seconds at most. Raises nothing."""
        delivery = self._delivery
        if delivery is None:
            return
        is_told_to_stop = not isinstance(error, Exception) or getattr(error, "exit_code", 0) in SIGNALS
        within_s = STOPS_WITHIN_S if error is not None and is_told_to_stop else ENDS_WITHIN_S
        self._counts.in_flight = 0
        with contextlib.suppress(Exception):  # whatever it is, the run has come to its end
            delivery.put(self._batch(_end(summary, error)))
        await asyncio.to_thread(delivery.finish, within_s)
        self._warn_once(delivery.failure)

    def _warn_once(self, failure: str) -> None:
        """Say that the collector takes nothing; "" is no failure."""
        if failure and not self._is_told:
            self._is_told = True
            signals = [each for each in (self._settings.metrics, self._settings.traces) if each is not None]
            places = " and ".join(dict.fromkeys(signal.shown for signal in signals))
            self.complain(f"telemetry is not taken by {places} ({failure}); the run does not depend on it")

    def _batch(self, end: Attributes | None = None) -> Batch:
        return Batch(time.time_ns(), self._counts.points(), self._spans.take(), end)


def _asked(job: Job, run: Run) -> Asked:
    targets = [each.target for each in run.manifest.targets]
    formats, models = tuple(each.format for each in targets), tuple(each.model for each in targets)
    if job.target.is_simulator:
        return Asked(formats, models, "simulator")
    parts = urlsplit(job.target.base_url)
    return Asked(formats, models, parts.hostname or "", parts.port or _PORTS[parts.scheme])


def _end(summary: RunSummary | None, error: BaseException | None) -> Attributes:
    """What the session's span says of the run: what it has come to by now, over all sessions, and why it stopped."""
    found: Attributes = {}
    if summary is not None:
        tally = summary.tally
        found |= {
            names.SUCCEEDED: tally.succeeded,
            names.INCOMPLETE: tally.incomplete,
            names.FAILED: tally.failed,
        }
        if summary.cost_usd is not None:
            found[names.COST] = float(summary.cost_usd)
    if error is not None:
        found[names.ERROR_TYPE] = type(error).__name__
    return found
