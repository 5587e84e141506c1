"""What a connection and a pool bear, and what they do when time, memory or files run out; on both event loops."""

import asyncio
import os
import resource
import socket
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from cometbatch.records import HttpRequest, HttpResponse, PoolStats, TransportFailure
from cometbatch.transport import Reply, Transport
from cometbatch.transport.backends import PoolBackend
from cometbatch.transport.http1 import connection, pool
from tests.scripted_server import (
    KEY,
    LONG_S,
    OK,
    REQUEST,
    SHORT_S,
    Script,
    Server,
    answer,
    chunked,
    closing,
    endless,
    failure,
    reply,
    serving,
)

Loop: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Runs a coroutine on an event loop of this kind."""
    if request.param == "asyncio":
        return asyncio.run
    run: Loop = pytest.importorskip("uvloop").run
    return run


async def asked(*replies: bytes | Script, **options: Any) -> Reply:
    """What comes of one request that is answered so."""
    async with serving(*replies, **options) as (_, client):
        return await client.exchange(REQUEST)


# -- on both loops -----------------------------------------------------------------------------------------------


def test_replies_of_every_shape_come_whole_on_either_loop(loop: Loop) -> None:
    """Small and large, by length, in chunks and until closed, one connection after the other."""
    large = b"x" * (2 * connection.SMALL_BODY_BYTES)
    replies: list[bytes | Script] = [
        reply(b"x"),
        chunked(b"x", b"x"),
        reply(large),
        chunked(large),
        closing(OK + b"\r\n" + large),
        reply(),
    ]

    async def main() -> list[Reply]:
        async with serving(*replies) as (_, client):
            return [await client.exchange(REQUEST) for _ in replies]

    assert [len(answer(each).body) for each in loop(main())] == [1, 2, len(large), len(large), len(large), 2]


def test_connections_are_used_again_and_counted(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten at once and ten more need ten; the most that were open is what it says."""
    monkeypatch.setattr(pool, "REST_S", 0.0)

    async def main() -> tuple[int, PoolStats | None]:
        async with serving(reply()) as (server, client):
            for _ in range(2):
                await asyncio.gather(*(client.exchange(REQUEST) for _ in range(10)))
            return server.connections, client.pool_stats

    assert loop(main()) == (10, PoolStats(requests=20, opened=10, most_open=10))


def test_a_connection_that_ends_while_rows_are_made_is_not_used(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are looked at at once, and again where what is done between two requests takes its time."""
    monkeypatch.setattr(pool, "REST_S", 0.0)
    monkeypatch.setattr(pool, "LOOK_S", 0.0)  # as if it took longer

    async def main() -> tuple[object, int]:
        ends: list[int] = []

        async def noted(writer: asyncio.StreamWriter) -> None:
            ends.append(writer.get_extra_info("socket").fileno())
            writer.write(reply())

        async with serving(noted) as (server, client):
            await asyncio.gather(*(client.exchange(REQUEST) for _ in range(3)))
            client.send(REQUEST, lambda _came: None)
            for end in ends:
                with socket.socket(fileno=os.dup(end)) as ended:  # uvloop's own has no such method
                    ended.shutdown(socket.SHUT_WR)
            result = asyncio.get_running_loop().create_future()
            client.send(REQUEST, result.set_result)
            return await result, server.connections

    result, connections = loop(main())
    assert isinstance(result, HttpResponse)
    assert connections == 4


@pytest.mark.parametrize("sent", [b"", OK, OK + b"Content-Length: 9\r\n\r\nabc", OK + b"\r\nabc"])
def test_time_is_up_on_either_loop(loop: Loop, sent: bytes) -> None:
    """Wherever the server has stopped."""
    result = failure(loop(asked(sent, timeout_s=SHORT_S)))
    assert result == TransportFailure("timeout", f"no whole reply within {SHORT_S:g} s")


# -- what one reply may be ---------------------------------------------------------------------------------------


def headers(count: int) -> bytes:
    """A reply with this many headers."""
    return reply(b"x", *(f"X-{number}: y" for number in range(count - 1)))


def test_a_reply_may_have_many_headers_but_not_any_number(loop: Loop) -> None:
    """Each takes memory for as long as the reply is looked at."""
    assert len(answer(loop(asked(headers(connection.MAX_HEADERS)))).headers) == connection.MAX_HEADERS
    assert "more than 1,000 headers" in failure(loop(asked(headers(connection.MAX_HEADERS + 1)))).detail


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (endless(OK + b"X: ", b"y" * 10_000), "head is larger than 1,048,576 bytes"),
        (endless(CHUNKED + b"0\r\n", b"".join(b"X-%d: y\r\n" % at for at in range(2000))), "more than 1,000 headers"),
        (endless(CHUNKED + b"0\r\n", b"X: y\r\n" * 100), "more than 1,000 headers"),
        (endless(CHUNKED + b"0\r\nX: ", b"y" * 10_000), "head is larger than 1,048,576 bytes"),
        (endless(CHUNKED + b"1;", b"e" * 10_000), "head is larger than 1,048,576 bytes"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "transferred as 'gzip, chunked'"),
        (OK + b"Transfer-Encoding: x\r\n\r\n", "transferred as 'x'"),
    ],
    ids=[
        "long head",
        "trailers",
        "one trailer again and again",
        "a long trailer",
        "a long extension",
        "101",
        "gzip, chunked",
        "unknown coding",
    ],
)
def test_what_has_no_end_or_was_not_asked_for_is_a_connection_failure(
    loop: Loop, sent: bytes | Script, words: str
) -> None:
    """Each has its own words, and comes long before the time limit."""
    result = failure(loop(asked(sent, timeout_s=LONG_S)))
    assert (result.kind, result.sent) == ("connection", True)
    assert words in result.detail


def test_trailers_are_nobodys_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those of their own reply, nor of the next one on the same connection."""
    monkeypatch.setattr(pool, "REST_S", 0.0)
    trailing = CHUNKED + b"1\r\nx\r\n0\r\nX-Trailer: 1\r\nRetry-After: 5\r\n\r\n"

    async def main() -> tuple[list[Reply], int]:
        async with serving(trailing, reply()) as (server, client):
            return [await client.exchange(REQUEST), await client.exchange(REQUEST)], server.connections

    result, connections = asyncio.run(main())
    assert connections == 1
    assert not any({"x-trailer", "retry-after"} & answer(each).headers.keys() for each in result)


def test_a_status_below_100_is_no_interim_reply() -> None:
    """Llhttp lets it have a body, which must not run together with the next reply's."""
    odd = b"HTTP/1.1 099 X\r\nContent-Length: 5\r\n\r\nHELLO"
    result = answer(asyncio.run(asked(odd + reply(b"{}"))))
    assert (result.status, result.body) == (99, b"HELLO")


@pytest.mark.parametrize("body", [b"HELLO", b"H" * 100_000], ids=["small", "large"])
def test_what_an_interim_reply_says_is_no_part_of_the_reply(body: bytes) -> None:
    """It has no body by the standard; llhttp lets those of unknown statuses have one."""
    interim = b"HTTP/1.1 199 Odd\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    result = answer(asyncio.run(asked(interim + reply(b"{}"))))
    assert (result.status, result.body) == (200, b"{}")


INTERIM = b"HTTP/1.1 103 Early Hints\r\nretry-after: 5\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [INTERIM, INTERIM + OK[:-2], INTERIM + OK + b"Content-Length: 2\r\n"],
    ids=["nothing", "a line", "half a head"],
)
def test_an_interim_reply_and_the_end_are_no_reply(loop: Loop, sent: bytes) -> None:
    """A head without a length, of whatever came before, once made a reply of status 0 of what was cut after it."""
    result = failure(loop(asked(closing(sent))))
    assert (result.kind, result.sent) == ("connection", True)
    assert "before the end of its reply" in result.detail


def test_a_reply_without_a_length_does_not_end_the_next_one(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a 204 the connection goes on, and what is cut on it is cut."""
    monkeypatch.setattr(pool, "REST_S", 0.0)

    async def main() -> tuple[list[Reply], int]:
        async with serving(b"HTTP/1.1 204 X\r\nX: y\r\n\r\n", closing(b"")) as (server, client):
            return [await client.exchange(REQUEST) for _ in range(2)], server.connections

    (first, second), connections = loop(main())
    assert (answer(first).status, connections) == (204, 1)
    assert failure(second).kind == "connection"


def test_headers_are_counted_for_each_head(loop: Loop) -> None:
    """Five interim replies of 300 headers each are no head of 1,500."""
    lines = b"".join(b"X-%d: %b\r\n" % (at, b"y" * 50) for at in range(300))
    interim = (b"HTTP/1.1 103 Early Hints\r\n" + lines + b"\r\n") * 5
    assert answer(loop(asked(interim + reply(b"{}")))).body == b"{}"


def test_the_first_and_the_last_line_of_a_head_are_no_headers() -> None:
    """Lines are counted where a head comes in pieces, and the body after it."""
    line = connection.Connection(connection.receive_buffer(), connection.WriteBatch())
    line.is_whole = False
    receive(line, headers(connection.MAX_HEADERS).removesuffix(b"x"))
    receive(line, b"x")
    assert (line.error, len(line.headers)) == (None, connection.MAX_HEADERS)
    assert line.take_body() == b"x"


def speak(line: connection.Connection) -> None:
    """The server says something unasked."""
    line.get_buffer(-1)[:3] = b"HTT"
    line.buffer_updated(3)


@pytest.mark.parametrize(
    "happens",
    [speak, connection.Connection.eof_received, lambda line: line.fail(pool.out_of_time(1.0))],
    ids=["the server speaks", "the server ends", "time is up"],
)
def test_a_request_that_was_not_written_yet_was_not_sent(
    loop: Loop, happens: Callable[[connection.Connection], None]
) -> None:
    """Requests of one moment are written together; what ends a connection before that costs nothing."""

    async def main() -> tuple[connection.NoReplyError | None, bytes]:
        near, far = socket.socketpair()
        with far:
            outbox, ended = connection.WriteBatch(), asyncio.Event()
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: connection.Connection(connection.receive_buffer(), outbox), sock=near
            )
            line.send(b"request", ended.set)
            happens(line)
            await ended.wait()
            while line.opened:  # noqa: ASYNC110 - the loop closes it
                await asyncio.sleep(0)
            return line.error, far.recv(100)

    error, received = loop(main())
    assert error is not None
    assert (error.sent, received) == (False, b"")


def receive(line: connection.Connection, data: bytes) -> None:
    """Bytes arrive, as many at a time as there is room for."""
    for start in range(0, len(data), connection.RECEIVED_AT_ONCE_BYTES):
        piece = data[start : start + connection.RECEIVED_AT_ONCE_BYTES]
        line.get_buffer(-1)[: len(piece)] = piece
        line.buffer_updated(len(piece))


def test_the_tiniest_chunks_take_no_more_memory_than_a_large_one() -> None:
    """A list of pieces would take twenty times their bytes, for every reply that is in flight."""
    size = connection.SMALL_BODY_BYTES // 2
    tiny = CHUNKED + b"2\r\nxy\r\n" * (size // 2) + b"0\r\n\r\n"
    tracemalloc.start()
    line = connection.Connection(connection.receive_buffer(), connection.WriteBatch())
    line.is_whole = False
    before = tracemalloc.get_traced_memory()[0]
    receive(line, tiny[:-5])
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(line.take_body()) == size
    assert taken < 2 * size


def test_long_header_names_are_not_kept_for_the_next_reply() -> None:
    """Names are remembered since nearly all replies have the same; a hostile server could make that gigabytes."""
    long = "X-" + "y" * connection.MAX_NAME_KEPT_BYTES
    assert answer(asyncio.run(asked(reply(b"x", f"{long}: 1")))).headers[long.lower()] == "1"
    assert max(map(len, connection._names)) <= connection.MAX_NAME_KEPT_BYTES


# -- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short_first", [False, True])
def test_time_limits_of_different_length_hold_side_by_side(loop: Loop, *, short_first: bool) -> None:
    """The request for prices has a limit of its own; the shorter one ends, and the longer one goes on."""

    async def main() -> tuple[Reply, Reply]:
        go_on = asyncio.Event()

        async def later(writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            writer.write(reply(b"late"))

        async with serving(later, timeout_s=LONG_S) as (_, client):
            begin: list[Callable[[], Coroutine[Any, Any, Reply]]] = [
                lambda: client.exchange(REQUEST),
                lambda: client.fetch_public("/api/models", timeout_s=SHORT_S),
            ]
            tasks = [asyncio.ensure_future(each()) for each in (reversed(begin) if short_first else begin)]
            long, short = reversed(tasks) if short_first else tasks
            ended = await short
            assert not long.done()
            go_on.set()
            return await long, ended

    long, short = loop(main())
    assert answer(long).body == b"late"
    assert short == TransportFailure("timeout", f"no whole reply within {SHORT_S:g} s")


def test_waiting_for_a_large_reply_s_turn_is_part_of_an_attempts_time(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits behind slow large replies ends in time, and those go on."""
    monkeypatch.setattr(pool, "LARGE_REPLIES", 1)
    body = b"x" * (2 * connection.SMALL_BODY_BYTES)

    async def main() -> tuple[Reply, Reply]:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def in_halves(writer: asyncio.StreamWriter) -> None:
            whole = reply(body)
            writer.write(whole[:-100])
            begun.set()
            await go_on.wait()
            writer.write(whole[-100:])

        async with serving(in_halves, reply(body), timeout_s=3 * SHORT_S) as (_, client):
            slow = asyncio.create_task(client.fetch_public("/slow", timeout_s=LONG_S))
            await begun.wait()
            assert isinstance(client._backend, PoolBackend)
            assert client._backend._pool is not None
            while not client._backend._pool.large.locked():  # noqa: ASYNC110 - the pool tells nobody
                await asyncio.sleep(0)
            late = await client.exchange(REQUEST)
            go_on.set()
            return await slow, late

    slow, late = loop(main())
    assert answer(slow).body == body
    assert late == TransportFailure("timeout", f"no whole reply within {3 * SHORT_S:g} s")


def test_time_that_ends_just_after_a_packed_reply_costs_no_answer() -> None:
    """The last byte came in time, though its unpacking waits for a turn."""

    async def main() -> Reply:
        async with serving(reply(b"", "Content-Encoding: gzip")) as (_, client):
            task = asyncio.create_task(client.exchange(REQUEST))
            assert isinstance(client._backend, PoolBackend)
            while not (sent := client._backend._pool._sent if client._backend._pool else {}):  # noqa: ASYNC110 # as above
                await asyncio.sleep(0)
            assert client._backend._pool is not None
            line = next(iter(sent)).connection
            while line is not None and not line.is_whole:  # noqa: ASYNC110 - one turn of the loop is what this is about
                await asyncio.sleep(0)
            client._backend._pool._next_end = float("inf")  # as if all time had passed, before the task has its turn
            client._backend._pool._end_late()
            return await task

    assert answer(asyncio.run(main())).body == b""


# -- the end -----------------------------------------------------------------------------------------------------


def test_a_pool_that_closes_under_its_requests_ends_them_as_values(loop: Loop) -> None:
    """In flight, paused half-way, or asked for afterwards: each is a connection failure, and nothing stays open."""
    half = reply(b"x" * (2 * connection.SMALL_BODY_BYTES))[:-100]

    async def main() -> tuple[list[Reply], Reply, Server]:
        async with serving(b"", b"", half, half) as (server, client):
            tasks = [asyncio.create_task(client.exchange(REQUEST)) for _ in range(4)]
            while len(server.received) < 4:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0)
            await client.aclose()
            ended, late = await asyncio.gather(*tasks), await client.exchange(REQUEST)
            async with asyncio.timeout(LONG_S):
                await server.all_gone()
            return list(ended), late, server

    ended, late, server = loop(main())
    assert [(failure(each).kind, failure(each).sent) for each in ended] == [("connection", True)] * 4
    assert (failure(late).kind, failure(late).sent, len(server.received)) == ("connection", False, 4)


def test_a_name_that_is_not_found_is_looked_up_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that is down takes seconds to say so: a hundred requests must not wait for each other's turn."""
    asked_for: list[str] = []

    def fail(host: str, *_: object, **__: object) -> None:
        asked_for.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    async def main() -> list[Reply]:
        client = Transport("http://service.test", KEY, timeout_s=LONG_S)
        result = await asyncio.gather(*(client.exchange(REQUEST) for _ in range(100)))
        await client.aclose()
        return list(result)

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    result = asyncio.run(main())
    assert {(failure(each).kind, failure(each).sent) for each in result} == {("connection", False)}
    assert "Temporary failure in name resolution" in failure(result[-1]).detail
    assert asked_for == ["service.test"]


# -- open files --------------------------------------------------------------------------------------------------

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1_024, 4_096, 4_096),
        (1_024, 1_000_000, pool.MAX_OPEN_FILES),
        (1_024, INFINITY, pool.MAX_OPEN_FILES),
        (100_000, 1_000_000, None),
        (4_096, 4_096, None),
        (INFINITY, INFINITY, None),
    ],
)
def test_a_process_asks_for_as_many_files_as_it_may_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int | None
) -> None:
    """Up to a bound, never for less than it has, and never for another hard limit."""
    wanted: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: wanted.append(limits))
    pool.raise_open_files()
    assert wanted == ([] if expected is None else [(expected, hard)])


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), OSError("no")])
def test_a_system_that_refuses_more_files_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Fewer connections are no reason not to run."""

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    pool.raise_open_files()
    assert answer(asyncio.run(asked(reply()))).status == 200


def test_a_process_without_a_free_file_sends_nothing() -> None:
    """No connection, so no bill: the row is tried again."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> Reply:
        async with serving(reply()) as (_, client):
            await client.fetch_public("/api/models")  # opens the pool, which raises the limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                return await client.exchange(HttpRequest("/v1/other", {}, b""))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)

    result = failure(asyncio.run(main()))
    assert (result.kind, result.sent) == ("connection", False)
