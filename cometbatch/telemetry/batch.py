"""What the thread that sends is given."""

from collections.abc import Mapping

from msgspec import Struct

from cometbatch.telemetry.attributes import Attributes
from cometbatch.telemetry.counts import Points
from cometbatch.telemetry.spans import RowSpan


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
