"""Calls that ask the same: one of them is sent, the others wait for it and take its answer.

Calls ask the same where their `request_hash` is the same: format, model and body. A call that waits takes no slot and
no task, and little memory: the request of the one that was sent serves for it, too. What was answered earlier is looked
up among the run's records while other calls are sent.

Guards: no two calls that ask the same are in flight, but where a call that may never be answered holds the others up
(`next_waiting`). A call that was asked before and not answered well goes on from its own answers, which are paid for.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.records import Answered, CallRequest, Outcome
from cometbatch.results.answered import AnsweredCalls
from cometbatch.runner.slots import OpenCall

MAX_WANTED: Final = 8192
"""Calls whose answers are to be looked up. From this many on no further call is read: they are in memory."""
MAX_WANTED_BYTES: Final = 16 * 1024 * 1024
"""The same, by the bytes of their bodies."""
MAX_WAITING: Final = 100_000
"""Calls that wait for another's answer, some 200 bytes each. From this many on no partition is opened beyond the room
for the sake of calls that wait for long."""
WRITTEN_BYTES: Final = 1024 * 1024
"""Bytes of answers that are written at a time for calls that have waited: thousands may take one long answer."""
OUTCOME_BYTES: Final = 1024
"""What an outcome takes beside its texts, about."""

Find = Callable[[Sequence[int]], Awaitable[Mapping[int, Answered]]]
"""Reads the answers of these calls, by ordinal; one that is not there is left out."""


class _Twin(Struct, frozen=True, gc=False):
    """A call that waits: what tells it from the one that it waits for."""

    ordinal: int
    custom_id: str | None
    target: int


class _First(Struct, eq=False):
    """The call that is sent for all that ask the same. `request`: None where its answer is only to be written yet."""

    ordinal: int
    request: CallRequest | None
    twins: deque[_Twin] = msgspec.field(default_factory=deque)


class Twins:
    """The calls that wait, and those whose answers are looked up.

    `answered`: the calls of the run that have an answer; those of this session are added. `find`: what reads these.
    `run_id`: of this run. `advance`: called once something was found.
    """

    def __init__(self, answered: AnsweredCalls, run_id: str, find: Find) -> None:
        self.waiting = 0
        self.found: list[Answered] = []  # outcomes to be recorded
        self.freed: deque[CallRequest] = deque()  # to be sent: the one that each had waited for has failed
        self.error: Exception | None = None  # of looking up
        self.advance: Callable[[], None] = lambda: None
        self._answered = answered
        self._run_id = run_id
        self._find = find
        self._open: dict[str, _First] = {}
        self._wanted: list[tuple[int, CallRequest]] = []  # each with the call that has probably its answer
        self._wanted_bytes = 0
        self._looking: asyncio.Task[Mapping[int, Answered]] | None = None

    @property
    def has_room(self) -> bool:
        """Whether further calls may be read."""
        return len(self._wanted) < MAX_WANTED and self._wanted_bytes < MAX_WANTED_BYTES

    @property
    def is_looking(self) -> bool:
        """Whether answers are being looked up."""
        return self._looking is not None

    @property
    def is_busy(self) -> bool:
        """Whether calls will be sent or recorded for which nothing in flight is waited for."""
        return bool(self._wanted or self._looking or self.found or self.freed)

    def admits(self, request: CallRequest) -> bool:
        """Whether a call is to be sent now. Else it waits for the one that was sent, or its answer is looked up."""
        if request.request_hash not in self._open and self._is_wanted(request):
            return False
        return self._is_first(request)

    def note_own(self, request: CallRequest) -> None:
        """A call is sent, whatever else is: it goes on from earlier asks of its own."""
        self._open.setdefault(request.request_hash, _First(request.ordinal, request))

    def note_taken(self, answer: Answered) -> None:
        """A call has its answer from an earlier run, which is to be written yet."""
        self._open.setdefault(answer.request_hash, _First(answer.ordinal, None))

    def goes_on(self, call: OpenCall) -> bool:
        """Whether a call that was sent before is to be sent again: not if its like was answered meanwhile."""
        if call.rejected or call.is_reserved or call.request.request_hash in self._open:
            return True
        return not self._is_wanted(call.request)

    def settle(self, outcomes: Sequence[Outcome]) -> Iterator[list[Answered]]:
        """Outcomes were written. Gives those of the calls that had waited for them, to be written some at a time."""
        for outcome in outcomes:
            if isinstance(outcome, Answered):
                self._answered.add(outcome.request_hash, outcome.ordinal)
                first = self._open.pop(outcome.request_hash, None)
                if first is not None and first.twins:
                    self.waiting -= len(first.twins)
                    yield from self._given(outcome, first.twins)
            elif outcome.request_hash is not None:
                first = self._open.get(outcome.request_hash)
                if first is not None and first.ordinal == outcome.ordinal:
                    if first.twins:
                        self.freed.append(self._next_of(first))
                    else:
                        del self._open[outcome.request_hash]

    def left(self, request: CallRequest) -> list[int]:
        """The calls that get no outcome in this session, since the one that they wait for gets none."""
        first = self._open.get(request.request_hash)
        if first is None or first.ordinal != request.ordinal:
            return []
        del self._open[request.request_hash]
        self.waiting -= len(first.twins)
        return [twin.ordinal for twin in first.twins]

    def next_waiting(self) -> CallRequest | None:
        """A call that waits, to be sent all the same, since only further calls can show whether others are answered.

        None where no call waits. From now on the others wait for this one.
        """
        waited_for = next((first for first in self._open.values() if first.twins), None)
        return None if waited_for is None else self._next_of(waited_for)

    def close(self) -> None:
        """Look up no more."""
        if self._looking is not None:
            self._looking.cancel()
        self._wanted.clear()

    async def aclose(self) -> None:
        """Wait for the task that looks up, once it is cancelled."""
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)

    def _is_first(self, request: CallRequest) -> bool:
        first = self._open.get(request.request_hash)
        if first is None:
            self._open[request.request_hash] = _First(request.ordinal, request)
            return True
        first.twins.append(_Twin(request.ordinal, request.custom_id, request.target))
        if first.request is None:
            first.request = request  # its body serves for all
        self.waiting += 1
        return False

    def _next_of(self, first: _First) -> CallRequest:
        """The next call becomes the first."""
        twin = first.twins.popleft()
        self.waiting -= 1
        assert first.request is not None  # noqa: S101 - whoever waits has brought one
        names = {"ordinal": twin.ordinal, "custom_id": twin.custom_id, "target": twin.target}
        first.ordinal, first.request = twin.ordinal, msgspec.structs.replace(first.request, **names)
        return first.request

    def _given(self, answer: Answered, twins: deque[_Twin]) -> Iterator[list[Answered]]:
        completion = answer.completion
        texts = (completion.text, completion.raw, completion.reasoning)
        at_once = max(1, WRITTEN_BYTES // (OUTCOME_BYTES + sum(len(text) for text in texts if text)))
        while twins:
            some = [twins.popleft() for _ in range(min(at_once, len(twins)))]
            yield [taken(answer, self._run_id, twin.ordinal, twin.custom_id, twin.target) for twin in some]

    # -- looking up --------------------------------------------------------------------------------------------------

    def _is_wanted(self, request: CallRequest) -> bool:
        ordinal = self._answered.find(request.request_hash)
        if ordinal is None:
            return False
        self._wanted.append((ordinal, request))
        self._wanted_bytes += len(request.http.body)
        self._look_up()
        return True

    def _look_up(self) -> None:
        """Look up all that is wanted by now, if that is not under way."""
        if self._looking is None and self._wanted:
            wanted, self._wanted = self._wanted, []
            ordinals = sorted({ordinal for ordinal, _ in wanted})
            self._looking = asyncio.get_running_loop().create_task(_awaited(self._find, ordinals))
            self._looking.add_done_callback(lambda looking: self._has_found(looking, wanted))

    def _has_found(
        self, looking: "asyncio.Task[Mapping[int, Answered]]", wanted: Sequence[tuple[int, CallRequest]]
    ) -> None:
        self._looking = None
        self._wanted_bytes -= sum(len(request.http.body) for _, request in wanted)
        if looking.cancelled():
            return
        if isinstance(error := looking.exception(), Exception):
            self.error = error
        else:
            self._take(looking.result(), wanted)
            self._look_up()
        self.advance()

    def _take(self, answers: Mapping[int, Answered], wanted: Sequence[tuple[int, CallRequest]]) -> None:
        """Give the calls their answers. One whose like asked something else, whatever its hash's first bits, is new."""
        for ordinal, request in wanted:
            answer = answers.get(ordinal)
            if answer is not None and answer.request_hash == request.request_hash:
                names = request.ordinal, request.custom_id, request.target
                self.found.append(taken(answer, self._run_id, *names))
            elif self._is_first(request):
                self.freed.append(request)


async def _awaited(find: Find, ordinals: Sequence[int]) -> Mapping[int, Answered]:
    return await find(ordinals)


def taken(answer: Answered, run_id: str, ordinal: int, custom_id: str | None, target: int) -> Answered:
    """The outcome of a call that takes another's answer, which `run_id` paid for unless it names an earlier run."""
    is_own = answer.reused_from is None
    return msgspec.structs.replace(
        answer,
        ordinal=ordinal,
        custom_id=custom_id,
        target=target,
        attempts=0,
        asks=1,
        cost_usd=Decimal(0),
        rejected_cost_usd=Decimal(0),
        max_cost_usd=None,
        answered_attempts=(),
        input_above_bytes=0,
        largest_tokens=(0, 0),
        reused_from=run_id if is_own else answer.reused_from,
        reused_ordinal=answer.ordinal if is_own else answer.reused_ordinal,
        reused_cost_usd=answer.cost_usd if is_own else answer.reused_cost_usd,
    )
