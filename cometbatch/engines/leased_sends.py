"""The last look at an owner's lease: after the mark of a request is set, and before the request leaves.

Guards: whoever takes over a range reads its marks after the lease has ended. So each request that leaves has a mark
which was there before that, wherever its process stood still meanwhile, and is in the bill.
"""

from collections import deque
from collections.abc import Callable

from cometbatch.records import HttpRequest
from cometbatch.runner.ports import ExchangeResult, Sending


class LeasedSends:
    """Sends while a lease lasts. What is to leave without one waits for the next. For one thread, the event loop's."""

    def __init__(
        self, is_valid: Callable[[], bool], send: Callable[[HttpRequest, Callable[[ExchangeResult], None]], Sending]
    ) -> None:
        """`is_valid`: whether a lease lasts at this moment. `send`: as of a `Service`."""
        self._is_valid = is_valid
        self._send = send
        self._waiting: deque[_Waiting] = deque()

    def send(self, request: HttpRequest, done: Callable[[ExchangeResult], None]) -> Sending:
        """As of a `Service`."""
        if self._is_valid():
            return self._send(request, done)
        waiting = _Waiting(request, done)
        self._waiting.append(waiting)
        return waiting

    def go_on(self) -> None:
        """There may be another lease."""
        while self._waiting and self._is_valid():
            self._waiting.popleft().begin(self._send)


class _Waiting:
    """A request that waits for a lease, then is sent."""

    def __init__(self, request: HttpRequest, done: Callable[[ExchangeResult], None]) -> None:
        self._request, self._done = request, done
        self._is_cancelled = False
        self._sending: Sending | None = None

    def begin(self, send: Callable[[HttpRequest, Callable[[ExchangeResult], None]], Sending]) -> None:
        """Send it, unless it was given up."""
        if not self._is_cancelled:
            self._sending = send(self._request, self._done)

    def cancel(self) -> None:
        """As of a `Sending`."""
        self._is_cancelled = True
        if self._sending is not None:
            self._sending.cancel()
