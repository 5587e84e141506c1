"""Connections to one service: as many as there are requests in flight, used again, and none of them trusted.

Guards that a hostile server costs its own attempt alone. Memory: of all replies together, only `LARGE_REPLIES` may be
beyond `SMALL_BODY_BYTES` at a time, and the others wait unread, in the kernel and on the server's side; to wait
rather than to fail, since an honest answer is paid for. Time: one attempt's limit covers all from connecting to the
last byte, whoever waits for whom. Truth: a connection rests between two requests, so that what follows a reply unasked
has come by then.
"""

import asyncio
import contextlib
import itertools
import math
import resource
import select
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from cometbatch.records import HttpResponse, PoolStats
from cometbatch.transport.http1 import decompression as unpacking
from cometbatch.transport.http1.connection import Connection, NoReplyError, WriteBatch, receive_buffer
from cometbatch.transport.http1.dialling import Dialler
from cometbatch.transport.route import Route
from cometbatch.transport.tls import TlsSettings

LARGE_REPLIES = 4  # at a time, whatever is in flight: 32 MiB while their pieces are put together
LARGE_REPLY_S = 60.0  # for the rest of a large reply, so that a slow one does not keep the others waiting for ever
# Of a connection between two requests: what follows a reply unasked arrives in this time, if it does. Less than 40 ms,
# when the system acknowledges a reply by a packet of its own (RFC 1122, 4.2.3.2) rather than along with the next
# request: that would be a twentieth of all CPU.
REST_S = 0.03
LOOKED_AT_ONCE = 32  # connections that have rested, by one system call,
LOOK_S = 0.001  # which holds for so long
IDLE_CONNECTION_S = 15.0  # below the usual keep-alive of servers, so that they rarely close one under a request
CLOSE_S = 1.0  # for connections to be gone, at the end
MAX_OPEN_FILES = 65_536  # that are asked for; each connection takes one

Done: TypeAlias = Callable[[HttpResponse | Exception], None]


class Pool:
    """Carries out exchanges with one service. The caller bounds how many are in flight."""

    def __init__(self, route: Route, trust: TlsSettings) -> None:
        self._dialler = Dialler(route, self._make, trust)
        self._buffer, self._outbox = receive_buffer(), WriteBatch()
        self._resting: deque[Connection] = deque()  # in the order in which they were let go
        self._rested: deque[Connection] = deque()  # in the same order; the last one is used first
        self._looked_at = 0  # of these, the last so many,
        self._look_again = -math.inf  # until this time of the loop
        self._open: set[Connection] = set()
        self._sent: dict[Exchange, float] = {}  # what is in flight, and until when
        self._sweep: asyncio.TimerHandle | None = None
        self._next_end = math.inf  # of `_sweep`
        self.large = asyncio.Semaphore(LARGE_REPLIES)
        self._requests = self._opened = self._most_open = 0
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        raise_open_files()

    @property
    def stats(self) -> PoolStats:
        """How connections were used so far."""
        return PoolStats(self._requests, self._opened, self._most_open)

    def send(self, request: bytes, timeout_s: float, done: Done) -> "Exchange":
        """Send a whole request, and call back once with its whole reply, or with why there is none.

        The reply's headers tell of its body as it is handed on, unpacked and in one piece.
        """
        now = self._loop.time()
        exchange = Exchange(self, now + timeout_s, timeout_s, done)
        if (connection := self._take(now)) is None:
            exchange.dial(request)
        else:
            exchange.begin(connection, request)
        return exchange

    async def aclose(self) -> None:
        """Close every connection, also under requests that are in flight, and those that are still being opened."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while any(connection.opened for connection in self._open):  # noqa: ASYNC110 - the loop closes them
                    await asyncio.sleep(0)
        self._open.clear()
        self._resting.clear()
        self._rested.clear()
        self._looked_at = 0

    # -- connections ---------------------------------------------------------------------------------------------

    def _make(self) -> Connection:
        return Connection(self._buffer, self._outbox)

    def _take(self, now: float) -> Connection | None:
        """A connection that has rested long enough, if nothing came meanwhile, and hardly longer."""
        if now >= self._look_again:
            self._looked_at = 0
        while self._looked_at or self._look(now):
            self._looked_at -= 1
            connection = self._rested.pop()
            if not connection.is_dead:
                return connection
            self.drop(connection)
        return None

    def _look(self, now: float) -> bool:
        """Look at some that have rested, whether anything came that the loop has not read yet."""
        self._move_on(now)
        looked_at = list(itertools.islice(reversed(self._rested), LOOKED_AT_ONCE))
        poll = select.poll()
        for connection in looked_at:
            poll.register(connection.fileno, select.POLLIN)  # the connection's end included
        spoke = {fileno for fileno, _ in poll.poll(0)} if looked_at else ()
        for connection in looked_at:
            connection.is_dead = connection.is_dead or connection.fileno in spoke
        self._looked_at, self._look_again = len(looked_at), now + LOOK_S
        return bool(looked_at)

    def _move_on(self, now: float) -> None:
        """From resting to rested, and from there to the end of those that nobody needed for long."""
        resting, rested = self._resting, self._rested
        while resting and resting[0].rested_since <= now - REST_S:
            rested.append(resting.popleft())
        while rested and rested[0].rested_since <= now - IDLE_CONNECTION_S:
            self.drop(rested.popleft())

    async def dial(self, deadline: float, timeout_s: float) -> Connection:
        """A new connection. Raises `NoReplyError`."""
        try:
            connection = await self._dialler.open(deadline)
        except TimeoutError:
            raise out_of_time(timeout_s, sent=False) from None
        if self._is_closed:
            connection.abort()
            raise NoReplyError("connection", "the connections were closed meanwhile", sent=False)
        self._open.add(connection)
        self._opened += 1
        self._most_open = max(self._most_open, len(self._open))
        return connection

    def let_go(self, connection: Connection) -> None:
        """It may be used again, if it can."""
        if connection.is_dead:
            self.drop(connection)
        else:
            connection.rested_since = self._loop.time()
            self._resting.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close it at once."""
        connection.abort()
        self._open.discard(connection)

    # -- time ----------------------------------------------------------------------------------------------------

    def watch(self, exchange: "Exchange") -> None:
        """Its request is being sent. One timer for all: a timer each would cost as much as the request."""
        self._requests += 1
        self._sent[exchange] = exchange.deadline
        if exchange.deadline < self._next_end:
            self._sweep_at(exchange.deadline)

    def unwatch(self, exchange: "Exchange") -> None:
        """It is over, or looks after its time by itself."""
        self._sent.pop(exchange, None)

    def _sweep_at(self, next_end: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._next_end = next_end
        self._sweep = self._loop.call_at(next_end, self._end_late)

    def _end_late(self) -> None:
        now = max(self._loop.time(), self._next_end)  # timers may fire a little early
        self._sweep, self._next_end = None, math.inf
        for exchange in [each for each, deadline in self._sent.items() if deadline <= now]:
            exchange.end_late()
        if self._sent and self._sweep is None:
            self._sweep_at(min(self._sent.values()))


class Exchange(Struct, eq=False):
    """One request and its reply, from the connection that it waits for to the last byte.

    `deadline` is a time of the event loop, and `timeout_s` what it was from the beginning.
    """

    pool: Pool
    deadline: float
    timeout_s: float
    done: Done
    connection: Connection | None = None
    task: asyncio.Task[None] | None = None

    def dial(self, request: bytes) -> None:
        """Send the request on a new connection."""
        self.task = asyncio.get_running_loop().create_task(self._dial(request))

    def begin(self, connection: Connection, request: bytes) -> None:
        """Send the request."""
        self.connection = connection
        self.pool.watch(self)
        connection.send(request, self._ended)

    def end_late(self) -> None:
        """Time is up."""
        self.pool.unwatch(self)
        if self.connection is not None:
            self.connection.fail(out_of_time(self.timeout_s))

    def cancel(self) -> None:
        """Give it up: what is done is not called any more."""
        self.done = ignore
        self.pool.unwatch(self)
        if self.task is not None:
            self.task.cancel()
        if self.connection is not None:
            self.pool.drop(self.connection)

    async def _dial(self, request: bytes) -> None:
        try:
            connection = await self.pool.dial(self.deadline, self.timeout_s)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, also of mistakes of ours
            self.done(error)
        except asyncio.CancelledError:
            self.done(cancelled(sent=False))  # which nobody hears where it was `cancel`
            raise
        else:
            self.begin(connection, request)

    def _ended(self) -> None:
        """The connection has a whole reply, or part of a large one, or none."""
        connection, pool = self.connection, self.pool
        assert connection is not None  # noqa: S101 - it calls back, once
        pool.unwatch(self)
        if connection.error is not None:
            self.connection = None
            self._fail(connection, connection.error)
        elif connection.is_whole and "content-encoding" not in connection.headers:
            self.connection = None
            pool.let_go(connection)
            self.done(_reply(connection, connection.take_body()))
        else:
            self.task = asyncio.get_running_loop().create_task(self._read_large(connection))

    def _fail(self, connection: Connection, error: Exception) -> None:
        self.pool.drop(connection)
        self.done(error)

    async def _read_large(self, connection: Connection) -> None:
        """The rest of a reply that is large, or may be once it is unpacked; one of few at a time."""
        try:
            async with asyncio.timeout_at(self.deadline), self.pool.large:
                body = await _read_rest(connection)
        except TimeoutError:
            self._fail(connection, out_of_time(self.timeout_s))
        except Exception as error:  # noqa: BLE001 - whoever asked is told, also of mistakes of ours
            self._fail(connection, error)
        except asyncio.CancelledError:
            self._fail(connection, cancelled())
            raise
        else:
            self.pool.let_go(connection)
            self.done(_reply(connection, body))


def ignore(_came: object) -> None:
    """Nobody waits for it any more."""


async def _read_rest(connection: Connection) -> bytes:
    limit = asyncio.timeout(LARGE_REPLY_S)
    try:
        async with limit:
            await connection.rest()
            coding = connection.headers.get("content-encoding", "").lower() or "identity"
            body = connection.take_body()
            is_plain = coding == "identity" or not body
            return body if is_plain else await unpacking.unpacked(body, coding)
    except TimeoutError:
        if not limit.expired():
            raise
        raise NoReplyError("timeout", f"a large reply did not end within {LARGE_REPLY_S:g} s") from None


def raise_open_files() -> None:
    """Let this process open as many files as it may; the limit that it starts with is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # a system may refuse, and go on with what it has
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def cancelled(*, sent: bool = True) -> NoReplyError:
    """What an exchange comes to whose task was cancelled by somebody else."""
    return NoReplyError("connection", "the exchange was cancelled", sent=sent)


def out_of_time(timeout_s: float, *, sent: bool = True) -> NoReplyError:
    """What an exchange comes to that has had its time."""
    return NoReplyError("timeout", f"no whole reply within {timeout_s:g} s", sent=sent)


def _reply(connection: Connection, body: bytes) -> HttpResponse:
    headers = connection.headers
    if "content-encoding" in headers or "transfer-encoding" in headers:
        headers.pop("content-encoding", None)
        headers.pop("transfer-encoding", None)
        headers["content-length"] = str(len(body))
    return HttpResponse(connection.status, headers, body)
