"""The thread that sends telemetry, so that a collector which is slow, dead or broken never holds up the run.

Guards: sending never fails the run and never waits for the collector but at the end, for a bounded time; a batch that
could not be sent is not kept, since numbers are cumulative and the next one has them all.
"""

import queue
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from cometbatch.telemetry.attributes import Attributes
from cometbatch.telemetry.counts import Points
from cometbatch.telemetry.settings import Settings
from cometbatch.telemetry.spans import RowSpan

if TYPE_CHECKING:
    from cometbatch.telemetry.exporting import Exporter


class Session(Struct, frozen=True):
    """What is known from its start: when it began (nanoseconds since 1970), whose it is, and who called it.

    `resource`: attributes of all that it sends; `attributes`: of its span; `parent`: W3C trace context, by header name.
    """

    start_ns: int
    resource: Mapping[str, str | int]
    attributes: Attributes
    parent: Mapping[str, str]


class Batch(Struct, frozen=True):
    """What is sent at once. `end`: what the session's span is told at its end; None while it goes on."""

    at_ns: int
    points: Mapping[str, Points]
    spans: list[RowSpan]
    end: Attributes | None = None


class Delivery:
    """Sends batches one after the other, in a thread that ends with the process if need be."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.failure = ""
        """Why the first batch that failed could not be sent; "" where none failed."""
        self._session, self._settings = session, settings
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._exporter: Exporter | None = None
        self._thread = threading.Thread(target=self._send_all, name="cometbatch-telemetry", daemon=True)
        self._thread.start()

    @property
    def is_free(self) -> bool:
        """Whether no batch waits. Where one does, the next is better made later, with newer numbers."""
        return self._batches.empty()

    def put(self, batch: Batch) -> None:
        """Have a batch sent."""
        self._batches.put(batch)

    def finish(self, within_s: float) -> None:
        """Wait until all is sent, at most this many seconds, and give up the rest. Blocks."""
        self._batches.put(None)
        self._thread.join(within_s)
        if self._thread.is_alive():
            exporter = self._exporter
            self.failure = self.failure or (exporter and exporter.under_way) or "no time was left"
            if exporter is not None:
                exporter.shutdown()

    def _send_all(self) -> None:
        try:
            from cometbatch.telemetry.exporting import Exporter  # noqa: PLC0415 - an extra, and a tenth of a second

            self._exporter = exporter = Exporter(self._session, self._settings)
            try:
                while (batch := self._batches.get()) is not None:
                    failure = exporter.export(batch)
                    self.failure = self.failure or failure
                exporter.shutdown()
            finally:
                exporter.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            self.failure = self.failure or f"the exporter failed ({type(error).__name__})"
