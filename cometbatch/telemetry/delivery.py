"""The thread that sends telemetry, so that a collector which is slow, dead or broken never holds up the run.

Guards: sending never fails the run and never waits for the collector but at the end, for a bounded time; a batch that
could not be sent is not kept, since numbers are cumulative and the next one has them all.
"""

import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from cometbatch.telemetry.batch import Batch, Session
from cometbatch.telemetry.settings import Settings

if TYPE_CHECKING:
    from cometbatch.telemetry.exporting import Exporter

POLL_S: Final = 0.05
"""Seconds between two looks at the thread, at the end of a run."""
UNCONNECTED: Final = 2
"""Requests without a connection that show at the end that nobody listens. One may have been over a connection that the
collector had closed since the last export; it is sent again at once."""


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
        """Wait until all is sent, at most this many seconds, and give up the rest. Blocks.

        Nobody waits for a collector that is not there: it will not be there a second later.
        """
        self._batches.put(None)
        before = 0 if self._exporter is None else self._exporter.unconnected
        deadline = time.monotonic() + within_s
        while self._thread.is_alive() and (left_s := deadline - time.monotonic()) > 0:
            self._thread.join(min(POLL_S, left_s))
            if self._exporter is not None and self._exporter.unconnected - before >= UNCONNECTED:
                break
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
