"""The last look at a lease before a request leaves."""

from cometbatch.engines.leased_sends import LeasedSends
from cometbatch.records import HttpRequest
from cometbatch.runner.ports import ExchangeResult

FIRST, SECOND = (HttpRequest(path, {}, b"") for path in ("/first", "/second"))


class Wire:
    """What leaves. `is_valid`: whether the lease lasts."""

    def __init__(self) -> None:
        self.is_valid = False
        self.left: list[HttpRequest] = []
        self.cancelled = 0
        self.sends = LeasedSends(lambda: self.is_valid, self._send)

    def _send(self, request: HttpRequest, _: object) -> "Wire":
        self.left.append(request)
        return self

    def cancel(self) -> None:
        """One that has left is given up."""
        self.cancelled += 1


def nobody(_: ExchangeResult) -> None:
    """Nobody is told."""


def test_a_request_that_is_late_for_its_lease_leaves_with_the_next_one() -> None:
    """A process that stood still between two looks at the clock sends nothing until it has another lease, in order."""
    wire = Wire()
    sending = [wire.sends.send(each, nobody) for each in (FIRST, SECOND)]
    wire.sends.go_on()
    assert wire.left == []
    wire.is_valid = True
    wire.sends.go_on()
    assert wire.left == [FIRST, SECOND]
    sending[0].cancel()
    assert wire.cancelled == 1


def test_what_is_given_up_while_it_waits_never_leaves() -> None:
    """Where its rows were given away, a request that waits is forgotten."""
    wire = Wire()
    wire.sends.send(FIRST, nobody).cancel()
    wire.is_valid = True
    wire.sends.go_on()
    assert wire.sends.send(SECOND, nobody) is wire
    assert wire.left == [SECOND]
