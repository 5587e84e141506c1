"""The model service of a life, and its ledger: the witness against which the run's own words are held."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.control.acceptance import accept_all
from cometbatch.control.classify import classify
from cometbatch.records import Completion, ErrorDetail, HttpRequest, HttpResponse, TransportFailure, Usage
from cometbatch.runner.ports import ExchangeResult, Service
from cometbatch.wire.envelope import build_error, request_id_of
from tests.scripted_run import CHAT, MODEL, NOW, read
from tests.workers.simulated.world import KilledError, Process, World

WORST_USD: Final = Decimal("0.01")  # what any request costs at most
UNIT_USD: Final = Decimal("0.000001")  # an answer costs so much for each token of it, and each has another number
SENDING_S: Final = 0.002  # of a request on its way to the service, at most


class Faults(Struct, frozen=True):
    """What the service does wrong. Chances are of each request.

    `per_s`: more requests than this are refused with 429, for lack of capacity. `refuses`: chance of a 429 all the
    same; `retry_after_s`: what a 429 says; None says nothing. `fails`: chance of a 503. `loses`: chance that no reply
    comes, though the request was carried out, or not. `stops_at`: number of the request from which on all get a 401.
    `latency_s`: of an answer, at least and at most.
    """

    per_s: float = math.inf
    refuses: float = 0.0
    retry_after_s: float | None = None
    fails: float = 0.0
    loses: float = 0.0
    stops_at: int | None = None
    latency_s: tuple[float, float] = (0.05, 0.5)


class Request(Struct):
    """A request as the ledger has it. `cost_usd`: what was billed; None is nothing.

    `left_at`: when it left its process, by the world's time. `is_late`: its process had stood still between its
    decision to send it and that moment. `status`: of the reply; 0 before it. `heard_at`: when its process took it.
    """

    number: int
    owner: str
    session: int
    worker: int
    ordinal: int
    left_at: float
    is_late: bool
    lease_left_s: float
    status: int = 0
    cost_usd: Decimal | None = None
    retry_after_s: float | None = None
    replied_at: float = math.inf
    heard_at: float = math.inf


class Sender(Struct):
    """Who sends: the process, and what its newest lease says of how long it may still send, in seconds."""

    process: Process
    session: int
    worker: int
    lease_left_s: Callable[[], float]


class SimulatedService:
    """The service, and all that it was ever asked."""

    def __init__(self, world: World, faults: Faults) -> None:
        self.faults = faults
        self.ledger: list[Request] = []
        self.unsent = 0  # requests whose process was killed right before they left
        self._world = world

    def as_service(self, sender: Sender) -> Service:
        """The service as one process reaches it."""
        return Service(
            send=lambda request, done: self._send(sender, request, done),
            read=read,
            max_cost=lambda _request, _inputs, _outputs, _hour: WORST_USD,
            classify=lambda reply, parsed: classify(reply, parsed, now=lambda: NOW),
            accept=accept_all,
            request_id=request_id_of,
            price=lambda _request, usage: UNIT_USD * (usage.output_tokens or 0),
            is_reached=lambda: bool(self.ledger),
        )

    def _send(self, sender: Sender, request: HttpRequest, done: Callable[[ExchangeResult], None]) -> "_OnItsWay":
        process, world = sender.process, self._world
        try:
            process.operation("send")
        except KilledError:
            self.unsent += 1
            raise
        asked = msgspec.json.decode(request.body)
        ordinal = int(asked["messages"][0]["content"])
        way = _OnItsWay(done)
        is_late, left = process.is_frozen, sender.lease_left_s()

        def leave() -> None:
            if process.is_dead:
                self.unsent += 1
                return
            entry = Request(
                len(self.ledger) + 1,
                process.name,
                sender.session,
                sender.worker,
                ordinal,
                world.now,
                is_late,
                left,
            )
            self.ledger.append(entry)
            world.after(world.chance.random() * SENDING_S, lambda: self._arrive(sender, entry, way))

        process.once_it_goes(leave)
        return way

    def _arrive(self, sender: Sender, entry: Request, way: "_OnItsWay") -> None:
        world, faults = self._world, self.faults
        reply: HttpResponse | TransportFailure
        takes_s = world.chance.uniform(*faults.latency_s)
        status = self._status(entry)
        if status == 200:
            entry.cost_usd = UNIT_USD * (1000 + entry.number)
            completion = Completion(f"{entry.ordinal} by {entry.number}", "stop", Usage(3, 1000 + entry.number))
            reply = CHAT.build_response(MODEL, completion)
            if world.chance.random() < faults.loses:
                status, reply = -1, TransportFailure("timeout", "no reply in time")
        elif status == -1:
            reply = TransportFailure("timeout", "no reply in time")
        else:
            takes_s = min(takes_s, 0.05)
            reply = _refused(status, entry.retry_after_s)
        entry.status = status

        def come() -> None:
            entry.replied_at = world.now
            sender.process.deliver(lambda: way.come(entry, reply, math.inf if sender.process.is_dead else world.now))

        world.after(takes_s, come)

    def _status(self, entry: Request) -> int:
        faults, chance = self.faults, self._world.chance
        if faults.stops_at is not None and entry.number >= faults.stops_at:
            return 401
        lot = chance.random()
        recent = sum(1 for each in self.ledger[-200:] if each.status == 200 and each.left_at > self._world.now - 1.0)
        if lot < faults.refuses or recent >= faults.per_s:
            entry.retry_after_s = faults.retry_after_s
            return 429
        if lot < faults.refuses + faults.fails:
            return 503
        return -1 if lot < faults.refuses + faults.fails + faults.loses else 200


class _OnItsWay:
    """An exchange, as the runner holds it."""

    def __init__(self, done: Callable[[ExchangeResult], None]) -> None:
        self._done: Callable[[ExchangeResult], None] | None = done

    def come(self, entry: Request, reply: ExchangeResult, now: float) -> None:
        done, self._done = self._done, None
        if done is not None:
            entry.heard_at = now
            done(reply)

    def cancel(self) -> None:
        self._done = None


def _refused(status: int, retry_after_s: float | None) -> HttpResponse:
    reply = build_error(ErrorDetail(status, code="", message="no"), "openai")
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    return HttpResponse(reply.status, reply.headers | headers, reply.body)


def answered_number(text: str) -> int:
    """Which request an answer's text belongs to."""
    return int(text.rpartition(" ")[2])
