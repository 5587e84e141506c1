"""Connections to one service: as many as there are requests in flight, used again, and none of them trusted.

Guards that a hostile server harms its own attempt alone.
Memory: only `LARGE_REPLIES` replies may be larger than `SMALL_BODY_BYTES` at a time. The others wait unread, in the
kernel and at the server. They wait and don't fail, since an honest answer is paid for.
Time: an attempt's limit covers everything from connecting to the last byte, waiting for other replies included.
Truth: a connection rests between two requests. Bytes that follow a reply unasked arrive in that time, and the
connection is dropped, so that they are never taken for the next row's answer.
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
from cometbatch.transport.http1.connection import Connection, NoReplyError, WriteBatch, receive_buffer
from cometbatch.transport.http1.decompression import described, whole_reply
from cometbatch.transport.http1.dialling import Dialler
from cometbatch.transport.route import Route
from cometbatch.transport.tls import TlsSettings

LARGE_REPLIES = 4  # large replies that are read at the same time; more need more memory (4 need up to 32 MiB)
LARGE_REPLY_S = 60.0  # seconds to read the rest of a large reply; above it the reply fails and the next one is read
# Seconds that a connection stays unused between two requests. Below it, bytes that a server sends unasked after a reply
# may arrive only after the next request, and be taken for its reply. From 0.04 s on, the system sends a packet of its
# own to acknowledge the reply (RFC 1122, 4.2.3.2); below it, the next request carries the acknowledgement, which saves
# a twentieth of all CPU.
REST_S = 0.03
LOOKED_AT_ONCE = 32  # connections that one system call checks for unasked bytes before they are used again
LOOK_S = 0.001  # seconds for which the result of such a check is used; above it the connections are checked again
IDLE_CONNECTION_S = 15.0  # seconds after which an unused connection is closed: servers usually keep theirs longer
CLOSE_S = 1.0  # seconds to wait for connections to close when the pool does
MAX_OPEN_FILES = 65_536  # open files that the process asks the system for; each connection takes one

Done: TypeAlias = Callable[[HttpResponse | Exception], None]


class Pool:
    """Exchanges with one service. The caller bounds how many are in flight."""

    def __init__(self, route: Route, tls: TlsSettings) -> None:
        self.most_connections = MAX_OPEN_FILES  # above it, resting connections are closed before another one is opened
        self.dialling: set[Exchange] = set()  # exchanges for which a connection is being opened
        self._dialler = Dialler(route, self._make, tls)
        self._buffer, self._write_batch = receive_buffer(), WriteBatch()
        # Connections that were used less than REST_S ago; the one used longest ago is first.
        self._resting: deque[Connection] = deque()
        # Connections that may be used again, in the same order. The last one is used first: then the first ones stay
        # unused, and are closed after IDLE_CONNECTION_S.
        self._rested: deque[Connection] = deque()
        self._looked_at = 0  # number of connections at the end of `_rested` that were checked and may be used
        self._look_again = -math.inf  # the time of the loop from which on they must be checked again
        self._open: set[Connection] = set()
        self._sent: dict[Exchange, float] = {}  # exchanges in flight, with the time of the loop at which each ends
        self._sweep: asyncio.TimerHandle | None = None
        self._next_end = math.inf  # the time of the loop at which `_sweep` fires
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
        """Send a whole request; call back once with its whole reply or a `NoReplyError`.

        The reply's headers describe its body as it is handed on: decompressed and in one piece.
        """
        now = self._loop.time()
        exchange = Exchange(self, now + timeout_s, timeout_s, done)
        if (connection := self._take(now)) is None:
            self._make_room()
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
        return Connection(self._buffer, self._write_batch)

    def _take(self, now: float) -> Connection | None:
        """A connection that has rested long enough and on which nothing came; the one that rested last. None: dial."""
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
        """Check some rested connections for bytes that the loop has not read yet. False: there is none."""
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
        """Move connections from resting to rested, and close those that were not needed for long."""
        resting, rested = self._resting, self._rested
        while resting and resting[0].rested_since <= now - REST_S:
            rested.append(resting.popleft())
        while rested and rested[0].rested_since <= now - IDLE_CONNECTION_S:
            self.drop(rested.popleft())

    def _make_room(self) -> None:
        """Close the connection that rests longest where one more would be too many for the process's open files."""
        if len(self._open) + len(self.dialling) >= self.most_connections and (idle := self._rested or self._resting):
            self.drop(idle.popleft())
            self._looked_at = 0

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
        """Keep it for another request, unless it is dead."""
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
        """End the exchange at its deadline. One timer for all: a timer each would cost as much as the request."""
        self._requests += 1
        self._sent[exchange] = exchange.deadline
        if exchange.deadline < self._next_end:
            self._sweep_at(exchange.deadline)

    def unwatch(self, exchange: "Exchange") -> None:
        """The exchange is over, or watches its deadline itself."""
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
    """One request and its reply, from waiting for a connection to the last byte.

    `deadline`: a time of the event loop. `timeout_s`: seconds from the start to the deadline, for messages.
    """

    pool: Pool
    deadline: float
    timeout_s: float
    done: Done
    connection: Connection | None = None
    task: asyncio.Task[None] | None = None

    def dial(self, request: bytes) -> None:
        """Send the request on a new connection."""
        self.pool.dialling.add(self)
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
        """Give it up: `done` is not called any more."""
        self.done = ignore
        self.pool.unwatch(self)
        self.pool.dialling.discard(self)
        if self.task is not None:
            self.task.cancel()
        if self.connection is not None:
            self.pool.drop(self.connection)

    async def _dial(self, request: bytes) -> None:
        try:
            connection = await self.pool.dial(self.deadline, self.timeout_s)
        except Exception as error:  # noqa: BLE001 - the caller is told, also of mistakes of ours
            self.done(error)
        except asyncio.CancelledError:
            self.done(cancelled(sent=False))  # `cancel` has set `done` to `ignore`
            raise
        else:
            self.begin(connection, request)
        finally:
            self.pool.dialling.discard(self)

    def _ended(self) -> None:
        """The connection has a whole reply, part of a large one, or none."""
        connection, pool = self.connection, self.pool
        assert connection is not None  # noqa: S101 - it calls back, once
        pool.unwatch(self)
        if connection.error is not None:
            self.connection = None
            self._fail(connection, connection.error)
        elif connection.is_whole and "content-encoding" not in connection.headers:
            self.connection = None
            pool.let_go(connection)
            self.done(described(connection.status, connection.headers, connection.take_body()))
        else:
            self.task = asyncio.get_running_loop().create_task(self._read_large(connection))

    def _fail(self, connection: Connection, error: Exception) -> None:
        self.pool.drop(connection)
        self.done(error)

    async def _read_large(self, connection: Connection) -> None:
        """Read the rest of a reply that is large, or may be once it is decompressed; few at a time."""
        try:
            async with asyncio.timeout_at(self.deadline), self.pool.large:
                reply = await _read_rest(connection)
        except TimeoutError:
            self._fail(connection, out_of_time(self.timeout_s))
        except Exception as error:  # noqa: BLE001 - the caller is told, also of mistakes of ours
            self._fail(connection, error)
        except asyncio.CancelledError:
            self._fail(connection, cancelled())
            raise
        else:
            self.pool.let_go(connection)
            self.done(reply)


def ignore(_came: object) -> None:
    """The callback of an exchange that nobody waits for any more."""


async def _read_rest(connection: Connection) -> HttpResponse:
    limit = asyncio.timeout(LARGE_REPLY_S)
    try:
        async with limit:
            await connection.rest()
            return await whole_reply(connection.status, connection.headers, connection.take_body())
    except TimeoutError:
        if not limit.expired():
            raise
        raise NoReplyError("timeout", f"a large reply did not end within {LARGE_REPLY_S:g} s") from None


def raise_open_files() -> int:
    """Let this process open as many files as it is allowed to, and return how many that are.

    The limit at its start is often 1,024. Without any limit, `MAX_OPEN_FILES` is returned.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # a system may refuse; then the limit stays
        return soft
    return most


def cancelled(*, sent: bool = True) -> NoReplyError:
    """The error of an exchange whose task was cancelled from outside."""
    return NoReplyError("connection", "the exchange was cancelled", sent=sent)


def out_of_time(timeout_s: float, *, sent: bool = True) -> NoReplyError:
    """The error of an exchange whose time is up."""
    return NoReplyError("timeout", f"no whole reply within {timeout_s:g} s", sent=sent)
