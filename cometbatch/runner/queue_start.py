"""What a session knows of a queue when it begins. A queue has the calls of one model."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec import Struct

from cometbatch.control.first_answers import FirstAnswers
from cometbatch.control.window import Rate
from cometbatch.records import RejectedAsk, Tally
from cometbatch.runner.slots import OpenCall
from cometbatch.runner.twins import Twins


class QueueStart(Struct, frozen=True):
    """What a session knows of a queue when it begins.

    `name`: of its model, for words where a run has several queues. `earlier`: what earlier sessions recorded of its
    calls, from which this one learns whether the model answers, and how large bills can be. `rejected`: the asks of
    its calls that are open still, by ordinal: they are part of the outcome's sums. `first_answers`: where the queue
    asks for JSON, and none of its answers was any yet; None else. `twins`: what has calls that ask the same sent once;
    None where each is sent. `is_exact`: every bill is what was reserved for it, as with a price for each request.
    `rate`: where the adaptive rate is not the queue's own to find; None else.
    """

    name: str = ""
    earlier: Tally = Tally()
    rejected: Mapping[int, Sequence[RejectedAsk]] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    first_answers: FirstAnswers[OpenCall] | None = None
    twins: Twins | None = None
    is_exact: bool = False
    rate: Rate | None = None
