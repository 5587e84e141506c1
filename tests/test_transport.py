"""Whatever a network does comes back as a value, and the key goes out and never comes back.

The server here is a real one on 127.0.0.1 that sends the bytes it is told to, since no library would send most of
them. A real socket's clock can't be moved, so the few tests of time limits wait for real, a tenth of a second or so.
"""

import asyncio
import gzip
import inspect
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import UsageError
from cometbatch.job.urls import is_loopback
from cometbatch.records import HttpRequest, HttpResponse, TransportFailure
from cometbatch.transport import Reply, Transport
from cometbatch.transport.backends import PoolBackend
from cometbatch.transport.http1 import connection, pool
from cometbatch.transport.key import check_key
from cometbatch.wire.envelope import parse_error
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
    exchanged,
    failure,
    once,
    reply,
    resetting,
    run,
    serving,
)

T = TypeVar("T")


# -- what is sent ------------------------------------------------------------------------------------------------


def test_a_request_goes_out_as_it_was_built_with_the_key_and_nothing_else() -> None:
    """Method, path, body and headers are the caller's; address, key and the wish for a plain body are added."""

    async def main() -> Server:
        async with serving(reply()) as (server, client):
            await client.exchange(REQUEST)
            return server

    server = run(main)
    line, *headers = server.heads[0]
    sent = {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)}
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert sent.pop("host") == server.url.removeprefix("http://")
    assert sent.pop("accept") == "application/json"
    assert sent == {
        "authorization": f"Bearer {KEY}",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "13",
    }
    assert server.received[0].endswith(b"\r\n\r\n" + REQUEST.body)


def test_each_post_has_its_own_path_headers_and_length() -> None:
    """Most have the head of the one before, which is kept; none has another's."""
    headers = {"content-type": "application/json"}
    first = HttpRequest("/v1/a", headers, b"{}")
    posts = [
        first,
        HttpRequest("/v1/a", headers, b"{...}"),
        HttpRequest("/v1/b", headers, b"{}"),
        HttpRequest("/v1/b", {"content-type": "text/plain"}, b"{}"),
        first,
    ]

    async def main() -> list[list[str]]:
        async with serving(*[reply()] * len(posts)) as (server, client):
            for request in posts:
                ended: asyncio.Future[HttpResponse | Exception] = asyncio.get_running_loop().create_future()
                client.send(request, ended.set_result)
                answer(client.read(await ended))
            return server.heads

    sent = [(head[0].split()[1], *sorted(line for line in head if line.startswith("content-"))) for head in run(main)]
    wanted = [
        (post.path, f"content-length: {len(post.body)}", f"content-type: {post.headers['content-type']}")
        for post in posts
    ]
    assert sorted(sent) == sorted(wanted)


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/google%2Fgemini:generateContent",
        "/v1beta/models/a%20b%2Fc%3Ad%25:generateContent",
        "/v1beta/models/%C3%A9:generateContent",
    ],
)
def test_a_percent_encoded_path_arrives_byte_for_byte(path: str) -> None:
    """A model's slash must stay %2F: decoded or encoded twice it is another model, or none."""

    async def main() -> list[str]:
        async with serving(reply()) as (server, client):
            await client.exchange(HttpRequest(path, {}, b"{}"))
            return server.heads[0]

    assert run(main)[0] == f"POST {path} HTTP/1.1"


@pytest.mark.parametrize("base_path", ["", "/", "/gateway", "/gateway/"])
def test_a_base_address_may_have_a_path(base_path: str) -> None:
    """A proxy of one's own may serve the routes below a folder."""

    async def main() -> str:
        async with serving(reply()) as (server, _):
            client = Transport(server.url + base_path, KEY, timeout_s=LONG_S)
            await client.exchange(REQUEST)
            await client.aclose()
            return server.heads[0][0]

    assert run(main) == f"POST {base_path.rstrip('/')}/v1/chat/completions HTTP/1.1"


def test_what_is_public_is_asked_for_without_the_key() -> None:
    """The catalog needs no key, so it gets none."""

    async def main() -> tuple[Reply, Server]:
        async with serving(reply(b"[]")) as (server, client):
            return await client.fetch_public("/api/models"), server

    result, server = run(main)
    assert answer(result).body == b"[]"
    assert server.heads[0][0] == "GET /api/models HTTP/1.1"
    assert KEY.encode() not in server.received[0]
    assert b"authorization" not in server.received[0].lower()


# -- replies that come whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        pytest.param(reply(b'{"a": 1}'), 200, b'{"a": 1}', id="length"),
        pytest.param(reply(b""), 200, b"", id="length 0"),
        pytest.param(chunked(b"ab", b"cd"), 200, b"abcd", id="chunked"),
        pytest.param(chunked(), 200, b"", id="chunked and empty"),
        pytest.param(closing(b"HTTP/1.1 200 OK\r\n\r\nto the end"), 200, b"to the end", id="until closed"),
        pytest.param(closing(b"HTTP/1.0 200 OK\r\n\r\nold"), 200, b"old", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="no content"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"x"), 200, b"x", id="after a 100"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + reply(b"x"), 200, b"x", id="after a 103"),
        pytest.param(reply(b"<html>", status="504 Gateway Timeout"), 504, b"<html>", id="an error status"),
        pytest.param(reply(b"x", status="599 "), 599, b"x", id="a status without words"),
        pytest.param(reply(b"\x00\xff\r\n\r\n"), 200, b"\x00\xff\r\n\r\n", id="any bytes"),
        pytest.param(reply(b"x" * 300_000), 200, b"x" * 300_000, id="more than a buffer"),
    ],
)
def test_a_whole_reply_comes_back_as_it_is(sent: bytes | Script, status: int, body: bytes) -> None:
    """However its end is told, a whole reply is a status and the very bytes of its body."""
    result = answer(exchanged(sent))
    assert (result.status, result.body) == (status, body)


def test_header_names_are_lower_case_and_the_last_of_a_repeated_one_counts() -> None:
    """Readers look up one name and get one value."""
    result = answer(exchanged(reply(b"{}", "X-Cometapi-Request-Id: 1", "x-cometapi-REQUEST-id: 2", "Retry-After:  7 ")))
    assert result.headers == {"x-cometapi-request-id": "2", "retry-after": "7", "content-length": "2"}


@pytest.mark.parametrize(("raw", "read"), [("größer".encode(), "größer"), ("größer".encode("latin-1"), "größer")])
def test_a_header_that_is_not_ascii_costs_no_answer(raw: bytes, read: str) -> None:
    """The answer is billed: it must not be thrown away, and paid again, over a header in another alphabet."""
    result = answer(exchanged(reply(b"{}", "X-Note: @").replace(b"@", raw)))
    assert (result.body, result.headers["x-note"]) == (b"{}", read)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 x"])
def test_a_redirect_is_returned_and_not_followed(status: str) -> None:
    """A wrong path answers so (contract sheet, section 1): following it would post prompts, and the key, elsewhere."""

    async def main() -> tuple[Reply, Server]:
        async with serving(reply(b"", "Location: /elsewhere", status=status)) as (server, client):
            return await client.exchange(REQUEST), server

    result, server = run(main)
    assert (answer(result).status, answer(result).headers["location"]) == (int(status[:3]), "/elsewhere")
    assert len(server.received) == 1


def test_cookies_are_not_kept() -> None:
    """Each request is the same whatever came before it."""

    async def main() -> Server:
        async with serving(reply(b"{}", "Set-Cookie: a=b; Path=/")) as (server, client):
            await client.exchange(REQUEST)
            await client.exchange(REQUEST)
            return server

    server = run(main)
    assert b"cookie" not in server.received[1].lower()
    assert server.received[0] == server.received[1]


# -- connections -------------------------------------------------------------------------------------------------


@pytest.fixture
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REST_S", 0.0)


@pytest.mark.usefixtures("_restless")
def test_a_connection_is_used_again() -> None:
    """One after another needs one connection, after error statuses too."""

    async def main() -> Server:
        async with serving(reply(), reply(b"no", status="500 x"), chunked(b"x"), reply()) as (server, client):
            for _ in range(4):
                answer(await client.exchange(REQUEST))
            return server

    assert run(main).connections == 1


def test_any_number_of_requests_may_be_in_flight() -> None:
    """The runner's slots are the bound, not the pool: a hundred at once are a hundred connections, each its own."""
    waiting: list[asyncio.StreamWriter] = []

    async def together(writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        if len(waiting) == 100:
            for number, each in enumerate(waiting):
                each.write(reply(b"%d" % number))

    async def main() -> list[Reply]:
        async with serving(together) as (_, client):
            return list(await asyncio.gather(*(client.exchange(REQUEST) for _ in range(100))))

    assert sorted(int(answer(result).body) for result in run(main)) == list(range(100))


def test_a_connection_that_the_server_has_closed_meanwhile_costs_at_most_one_failure() -> None:
    """Servers close idle connections when they like: the next request works, or fails as a value, and then works."""

    async def main() -> list[Reply]:
        async with serving(closing(reply()), reply()) as (_, client):
            return [await client.exchange(REQUEST) for _ in range(4)]

    first, second, third, fourth = run(main)
    assert answer(first).status == 200
    assert isinstance(second, HttpResponse) or second.kind == "connection"
    assert answer(third).status == 200
    assert answer(fourth).status == 200


@pytest.mark.usefixtures("_restless")
def test_a_request_on_a_dying_connection_is_not_sent_twice_behind_our_back() -> None:
    """A repeated POST is billed again (contract sheet, section 1): whether to repeat is the retry table's to say."""

    async def main() -> tuple[Reply, Server]:
        async with serving(reply(), closing(b"")) as (server, client):
            await client.exchange(REQUEST)
            return await client.exchange(REQUEST), server

    result, server = run(main)
    assert failure(result).kind == "connection"
    assert len(server.received) == 2


@pytest.mark.usefixtures("_restless")
def test_bytes_after_a_reply_are_not_taken_for_the_next_one() -> None:
    """What nobody asked for must not become some row's answer."""

    async def main() -> Reply:
        async with serving(reply(b"mine") + reply(b"forged"), reply(b"true")) as (_, client):
            assert answer(await client.exchange(REQUEST)).body == b"mine"
            return await client.exchange(REQUEST)

    result = run(main)
    assert isinstance(result, TransportFailure) or result.body == b"true"


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("surplus", [reply(b"forged"), b"HTTP/1.1 200 OK\r\nContent-Le", b"junk", b"\n", b""])
def test_a_connection_that_spoke_or_ended_while_it_rested_is_not_used_again(surplus: bytes) -> None:
    """What comes between two requests is nobody's answer, even where it still lies unread in the socket."""

    async def speak_later(writer: asyncio.StreamWriter) -> None:
        writer.write(reply(b"mine"))
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []

    async def main(*, unread: bool) -> tuple[Reply, Server]:
        async with serving(speak_later, reply(b"true")) as (server, client):
            assert answer(await client.exchange(REQUEST)).body == b"mine"
            line = writers.pop().get_extra_info("socket").dup()
            line.send(surplus) if surplus else line.shutdown(socket.SHUT_WR)
            line.close()
            if not unread:
                await asyncio.sleep(SHORT_S / 10)
            return await client.exchange(REQUEST), server

    for unread in (False, True):
        result, server = asyncio.run(main(unread=unread))
        assert answer(result).body == b"true"
        assert server.connections == 2


def test_a_connection_rests_before_it_is_used_again() -> None:
    """What follows a reply closely, unasked, has come by the time that the connection would be used."""

    async def main() -> int:
        async with serving(reply()) as (server, client):
            for pause_s in (0.0, 2 * pool.REST_S, 0.0):
                answer(await client.exchange(REQUEST))
                await asyncio.sleep(pause_s)
            return server.connections

    assert run(main) == 2


@pytest.mark.usefixtures("_restless")
def test_a_request_that_is_given_up_at_once_never_leaves() -> None:
    """Requests of one moment are written together, after all of them are made; until then nothing is paid."""

    async def main() -> Server:
        async with serving(reply()) as (server, client):
            answer(await client.exchange(REQUEST))
            client.send(REQUEST, lambda _came: None).cancel()
            answer(await client.exchange(REQUEST))
            return server

    assert len(run(main).received) == 2


def test_a_cancelled_request_lets_go_of_its_connection() -> None:
    """Cancellation is the runner's and passes through; the server sees us leave, and the next request works."""

    async def main() -> Reply:
        hanging = asyncio.Event()

        async def hang(_: asyncio.StreamWriter) -> None:
            hanging.set()

        async with serving(hang, reply()) as (server, client):
            task = asyncio.create_task(client.exchange(REQUEST))
            await hanging.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.gone.wait()
            return await client.exchange(REQUEST)

    assert answer(run(main)).status == 200


def test_a_transport_that_was_never_used_closes() -> None:
    """Nothing was opened, so nothing is to close; closing twice is once too often and no more."""

    async def main() -> None:
        client = Transport("https://api.cometapi.com", KEY, timeout_s=LONG_S)
        await client.aclose()
        await client.aclose()

    run(main)


# -- a server that misbehaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(closing(b""), id="closed before the reply"),
        pytest.param(resetting(b""), id="reset before the reply"),
        pytest.param(closing(OK), id="closed in the headers"),
        pytest.param(resetting(OK + b"Content-Length: 9\r\n\r\nabc"), id="reset in the body"),
        pytest.param(closing(OK + b"Content-Length: 9\r\n\r\nabc"), id="a body cut short"),
        pytest.param(closing(chunked(b"abc")[:-7]), id="a chunk cut short"),
        pytest.param(closing(chunked(b"abc")[:-5]), id="no last chunk"),
        pytest.param(closing(OK + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\nabc"), id="a chunk of no size"),
        pytest.param(closing(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc"), id="a chunk of negative size"),
        pytest.param(closing(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcdefg"), id="a chunk past its size"),
        pytest.param(closing(OK + b"no colon\r\n\r\n"), id="a header without a colon"),
        pytest.param(closing(OK + b": no name\r\n\r\n"), id="a header without a name"),
        pytest.param(closing(OK + b"A: b\x00c\r\n\r\n"), id="a header with a zero"),
        pytest.param(closing(OK + b"Content-Length: -5\r\n\r\nabc"), id="a negative length"),
        pytest.param(closing(OK + b"Content-Length: x\r\n\r\nabc"), id="a length that is no number"),
        pytest.param(closing(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), id="two lengths"),
        pytest.param(closing(b"HTTP/1.1 abc\r\n\r\n"), id="no status"),
        pytest.param(closing(b"HTTP/9.9 20000 OK\r\n\r\n"), id="a status of five digits"),
        pytest.param(closing(b"SSH-2.0-OpenSSH_9.6\r\n"), id="another protocol"),
        pytest.param(closing(b"\x15\x03\x01\x00\x02\x02\x16"), id="TLS"),
        pytest.param(closing(b"\0" * 100), id="zeros"),
        pytest.param(closing(b"<html>no head at all</html>\r\n\r\n"), id="a body alone"),
        pytest.param(endless(OK, b"X-More: of the same\r\n"), id="headers without end"),
        pytest.param(endless(OK + b"X-Long: ", b"x" * 1000), id="a header without end"),
        pytest.param(endless(b"HTTP/1.1 200 ", b"x" * 1000), id="a status line without end"),
    ],
)
def test_a_reply_that_is_none_is_a_connection_failure(sent: Script) -> None:
    """Refused, cut, reset or garbled: the row may be tried again, and nothing is raised."""
    result = failure(exchanged(sent))
    assert result.kind == "connection"
    assert result.detail.strip()
    assert len(result.detail) <= 300
    assert "\n" not in result.detail


@settings(max_examples=40, deadline=None)
@given(
    sent=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from([b"HTTP/1.1 200 OK", b"\r\n", b":", b"Content-Length", b"7", b"\xff", b" ", b"x"])
        ).map(b"".join),
        st.binary(max_size=60).map(lambda body: OK + b"Transfer-Encoding: chunked\r\n\r\n" + body),
        st.binary(max_size=60).map(lambda body: OK + b"Content-Encoding: gzip\r\n\r\n" + body),
    )
)
def test_any_bytes_whatever_come_back_as_a_value(sent: bytes) -> None:
    """There is no reply that raises."""
    assert isinstance(exchanged(closing(sent)), HttpResponse | TransportFailure)


def test_a_refused_connection_is_a_connection_failure() -> None:
    """Nobody listens: a value that says where."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening, so that nobody else takes it
        port = taken.getsockname()[1]
        result = failure(run(lambda: once(f"http://127.0.0.1:{port}")))
    assert result.kind == "connection"
    assert f"127.0.0.1:{port}" in result.detail


def test_a_name_that_does_not_resolve_is_a_connection_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt host is a value that names it."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    result = failure(run(lambda: once("https://api.cometapi.example")))
    assert result.kind == "connection"
    assert "api.cometapi.example" in result.detail


def test_a_server_without_tls_is_a_connection_failure() -> None:
    """An https address that speaks plain HTTP is a value too."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(status="400 Bad Request"))
        writer.close()

    async def main() -> Reply:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as listening:
            return await once(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")

    assert failure(run(main)).kind == "connection"


@pytest.mark.parametrize("base_url", ["http://[::1", "http://a b", "http://127.0.0.1:99999", "http://"])
def test_an_address_that_is_none_is_a_connection_failure(base_url: str) -> None:
    """Addresses are checked long before; one that slips through still raises nothing out of an exchange."""
    client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S)
    client._backend._base_url = base_url

    async def main() -> Reply:
        try:
            return await client.exchange(REQUEST)
        finally:
            await client.aclose()

    assert failure(run(main)).kind == "connection"


# -- time --------------------------------------------------------------------------------------------------------


async def _silence(_: asyncio.StreamWriter) -> None:
    """Take the request and never answer."""


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(_silence, id="silence"),
        pytest.param(OK, id="silence in the headers"),
        pytest.param(OK + b"Content-Length: 9\r\n\r\nabc", id="silence in the body"),
        pytest.param(OK + b"\r\nabc", id="silence where the end is a close"),
        pytest.param(endless(OK + b"\r\n", b"x", 0.01), id="a body in drops"),
        pytest.param(endless(OK + b"X: ", b"x", 0.01), id="headers in drops"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), id="nothing but 100"),
    ],
)
def test_an_attempt_ends_when_its_time_is_up(sent: bytes | Script) -> None:
    """The limit holds for the whole attempt, however the server spends it; real time, since sockets know no other."""
    result = failure(exchanged(sent, timeout_s=SHORT_S))
    assert result == TransportFailure("timeout", f"no whole reply within {SHORT_S:g} s")


# -- size and compression ----------------------------------------------------------------------------------------

BOUND = 20_000  # more than comes at once


@pytest.fixture
def _small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_BODY_BYTES", BOUND)
    monkeypatch.setattr(connection, "SMALL_BODY_BYTES", BOUND // 2)


def compressed(body: bytes, coding: str = "gzip") -> bytes:
    """A reply that is compressed although a plain one was asked for."""
    packed = zlib.compress(body) if coding == "deflate" else gzip.compress(body)
    return reply(packed, f"Content-Encoding: {coding}")


@pytest.mark.usefixtures("_small_bound")
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(reply(b"x" * (BOUND + 1)), id="length"),
        pytest.param(chunked(*[b"x" * 1000] * 21), id="chunked"),
        pytest.param(endless(OK + b"\r\n", b"x" * 1000), id="without end"),
        pytest.param(compressed(b"x" * (BOUND + 1)), id="gzip"),
        pytest.param(compressed(b"\0" * 50_000_000), id="a bomb"),
        pytest.param(compressed(b"x" * (BOUND + 1), "deflate"), id="deflate"),
        pytest.param(reply(b"x" * (BOUND + 1), status="500 x"), id="an error status"),
    ],
)
def test_a_body_beyond_the_bound_is_too_large(sent: bytes | Script) -> None:
    """Neither a server gone mad nor a bomb takes our memory; the row is told why."""
    result = failure(exchanged(sent))
    assert result.kind == "too_large"
    assert f"{BOUND:,} bytes" in result.detail


@pytest.mark.usefixtures("_small_bound")
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(reply(b"x" * BOUND), id="length"),
        pytest.param(chunked(*[b"x" * 1000] * 20), id="chunked"),
        pytest.param(compressed(b"x" * BOUND), id="gzip"),
        pytest.param(compressed(b"x" * BOUND, "x-gzip"), id="x-gzip"),
        pytest.param(compressed(b"x" * BOUND, "GZIP"), id="in capitals"),
        pytest.param(compressed(b"x" * BOUND, "deflate"), id="deflate"),
    ],
)
def test_a_body_at_the_bound_is_whole(sent: bytes) -> None:
    """The bound itself is allowed, compressed or not, and headers tell of the body as it is handed on."""
    result = answer(exchanged(sent))
    assert result.body == b"x" * BOUND
    assert result.headers == {"content-length": str(BOUND)}


@pytest.mark.parametrize("coding", ["identity", "", "gzip"])
def test_an_empty_body_needs_no_unpacking(coding: str) -> None:
    """Some servers name a coding where there is no body."""
    assert answer(exchanged(reply(b"", f"Content-Encoding: {coding}"))).body == b""


def test_a_large_compressed_body_is_unpacked_without_holding_up_the_loop() -> None:
    """Noise that hardly compresses stays above what is unpacked in place, and comes out as it was."""
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(40_000))
    assert answer(exchanged(compressed(noise))).body == noise


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "br", "zstd"])
def test_half_a_compressed_body_is_a_connection_failure(coding: str) -> None:
    """Half a compressed answer is no answer: the rest may come with the next attempt."""
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(2_000))
    came = failure(exchanged(reply(PACKED[coding](noise)[:-9], f"Content-Encoding: {coding.rsplit(maxsplit=1)[-1]}")))
    assert came == TransportFailure("connection", "the compressed reply is cut short")


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": _raw_deflate,
    "br": lambda body: pa.compress(body, codec="brotli", asbytes=True),
    "zstd": lambda body: pa.compress(body, codec="zstd", asbytes=True),
}
SAID = '{"id": "é", "choices": [1, 2, 3, 4, 5, 6, 7]}'.encode()
DECODED = {
    **{f"{name} as named": (packed(SAID), name.split()[-1]) for name, packed in PACKED.items()},
    **{f"plain under {name}": (SAID, name.split()[-1]) for name in PACKED},
    "plain under a character set": (SAID, "UTF-8"),
    "plain under nonsense": (SAID, "z" * 5_000),
    "plain under two codings": (SAID, "gzip, br"),
    "plain and not quite UTF-8": (SAID + b"\xff", "br"),
    "gzip under zstd": (gzip.compress(SAID), "zstd"),
    "zstd under gzip": (PACKED["zstd"](SAID), "gzip"),
    "two codings": (PACKED["br"](gzip.compress(SAID)), "gzip, br"),
    "two codings of which one was undone": (gzip.compress(SAID), "gzip, br"),
    "a character set and a coding": (gzip.compress(SAID), "gzip, utf-8"),
    "in capitals": (PACKED["br"](SAID), "BR"),
    "identity": (b"\0\1", "identity"),
    "nothing": (b"\0\1", ","),
}
KEPT = {
    "two members": (gzip.compress(b"half") + gzip.compress(b"an answer"), "gzip"),
    "a wrong sum": (gzip.compress(b"x")[:-8] + b"\0" * 8, "gzip"),
    "no gzip": (b"\0\1\2", "gzip"),
    "no deflate": (b"\xff" * 20 + b"\0", "deflate"),
    "no brotli": (b"\xff" * 20 + b"\0", "br"),
    "no zstd": (b"\0\1\2", "zstd"),
    "a foreign coding": (b"\0\1\2", "lzma"),
    "a character set": (b"\0\1\2", "utf-8"),
    "many codings": (gzip.compress(SAID), "gzip, gzip, gzip, gzip"),
}


def coded(body: bytes, coding: str) -> tuple[bytes, httpx.MockTransport]:
    """The same reply for both backends: as bytes of a server, and of a transport with httpx's interface."""
    stream = Pieces(body)
    headers = {"content-encoding": coding}
    return reply(body, f"Content-Encoding: {coding}"), httpx.MockTransport(
        lambda _: httpx.Response(200, headers=headers, stream=stream)
    )


class Pieces(httpx.AsyncByteStream):
    """A body as a network brings it: in pieces, not decoded."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body[:7]
        yield self._body[7:]


def over_both(body: bytes, coding: str) -> tuple[Reply, Reply]:
    """What both backends make of a reply."""
    sent, network = coded(body, coding)

    async def main() -> Reply:
        client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S, http=network)
        try:
            return await client.exchange(REQUEST)
        finally:
            await client.aclose()

    return exchanged(sent), run(main)


@pytest.mark.parametrize(("body", "coding"), DECODED.values(), ids=DECODED)
def test_a_body_under_any_coding_is_read_where_it_can_be(body: bytes, coding: str) -> None:
    """Foreign codings, false ones and ones that are none (contract sheet, section 13), over both backends alike."""
    expected = body if body[:1] in (b"{", b"\0") else SAID
    for came in map(answer, over_both(body, coding)):
        assert came.body == expected
        assert "content-encoding" not in came.headers


@pytest.mark.parametrize(("body", "coding"), KEPT.values(), ids=KEPT)
def test_a_body_that_cannot_be_decoded_is_handed_on_as_it_came(body: bytes, coding: str) -> None:
    """It came whole, so it is no failure of the connection; its coding is still named, for whoever tells of it."""
    for came in map(answer, over_both(body, coding)):
        assert came.body == body
        assert came.headers["content-encoding"] == coding
        assert came.headers["content-length"] == str(len(body))


@pytest.mark.usefixtures("_small_bound")
@pytest.mark.parametrize("coding", PACKED)
def test_no_coding_inflates_beyond_the_bound(coding: str) -> None:
    """A thousandfold bomb is refused in every coding that is read, and so is one in the other."""
    bomb = PACKED[coding](b"\0" * 20_000_000)
    named = coding.rsplit(maxsplit=1)[-1]
    for body, name in ((bomb, named), (gzip.compress(bomb), f"{named}, gzip")):
        came = failure(exchanged(reply(body, f"Content-Encoding: {name}")))
        assert came.kind == "too_large"
        assert f"{BOUND:,} bytes" in came.detail


def test_a_plain_body_beyond_the_bound_is_too_large_over_any_backend() -> None:
    """A transport that is handed in has the same bound."""
    came = failure(over_both(b"x" * (connection.MAX_BODY_BYTES + 1), "identity")[1])
    assert came.kind == "too_large"


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=60), coding=st.sampled_from([*PACKED, "utf-8", "gzip, br", ",", "x" * 9]))
def test_any_bytes_under_any_coding_come_back_as_the_same_value_from_both_backends(body: bytes, coding: str) -> None:
    """Which backend brought a reply makes no difference to what it says."""
    one, other = over_both(body, coding.rsplit(maxsplit=1)[-1] if coding in PACKED else coding)
    if isinstance(one, HttpResponse) and isinstance(other, HttpResponse):
        assert one.body == other.body
        assert one.headers.get("content-encoding") == other.headers.get("content-encoding")
    else:
        assert one == other


@pytest.mark.usefixtures("_small_bound")
def test_large_replies_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is for a few large replies at a time, whatever is in flight; small ones never wait."""
    monkeypatch.setattr(pool, "LARGE_REPLIES", 2)
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()
    body = b"x" * BOUND

    async def in_halves(writer: asyncio.StreamWriter) -> None:
        whole = reply(body)
        writer.write(whole[:-100])
        begun.release()
        await go_on.wait()
        writer.write(whole[-100:])

    async def main() -> tuple[list[Reply], int, Reply]:
        async with serving(*[in_halves] * 6, reply(b"small")) as (_, client):
            tasks = [asyncio.create_task(client.exchange(REQUEST)) for _ in range(6)]
            for _ in tasks:
                await begun.acquire()
            small = await client.exchange(REQUEST)
            assert isinstance(client._backend, PoolBackend)
            assert client._backend._pool is not None
            free = client._backend._pool.large._value
            go_on.set()
            return list(await asyncio.gather(*tasks)), free, small

    result, free, small = run(main)
    assert [answer(each).body for each in result] == [body] * 6
    assert answer(small).body == b"small"
    assert free == 0


@pytest.mark.usefixtures("_small_bound")
def test_a_slow_large_reply_does_not_keep_its_turn_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for it, so it has less time than an attempt."""
    monkeypatch.setattr(pool, "LARGE_REPLY_S", SHORT_S)
    result = failure(exchanged(endless(OK + b"\r\n" + b"x" * (BOUND - 1000), b"x", 0.01)))
    assert result == TransportFailure("timeout", f"a large reply did not end within {SHORT_S:g} s")


def test_interim_replies_have_an_end() -> None:
    """One or two may come ahead of a reply; a flood of them would keep us busy for the whole time limit."""
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    most = connection.MAX_INTERIM_REPLIES
    assert answer(exchanged(interim * most + reply(b"x"))).body == b"x"
    assert "interim" in failure(exchanged(interim * (most + 1) + reply(b"x"))).detail


def test_a_refused_reply_is_told_also_where_another_error_is_being_handled() -> None:
    """What the caller is handling is no part of it, and nothing is printed."""
    flood = b"HTTP/1.1 103 Early Hints\r\n\r\n" * (connection.MAX_INTERIM_REPLIES + 1)
    try:
        next(iter(()))
    except StopIteration:
        assert "interim" in failure(exchanged(flood + reply(b"x"))).detail


# -- whether anything was sent -----------------------------------------------------------------------------------


def test_what_never_left_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bill counts attempts that may have been billed: without a connection, none can have been."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def no_tls() -> Reply:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as listening:
            return await once(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = run(lambda: once(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    unresolved = run(lambda: once("http://no-such-host.invalid"))
    assert [failure(each).sent for each in (refused, unresolved, run(no_tls))] == [False] * 3


def test_a_time_limit_that_ends_before_a_connection_sent_nothing() -> None:
    """Time also runs out in the handshake, where the request still waits here."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()  # until the client leaves
        writer.close()
        gone.set()

    connected, gone = asyncio.Event(), asyncio.Event()

    async def main() -> Reply:
        listening = await asyncio.start_server(mute, "127.0.0.1", 0)
        client = Transport(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}", KEY, timeout_s=SHORT_S)
        try:
            return await client.exchange(REQUEST)
        finally:
            await client.aclose()
            if connected.is_set():  # on a busy machine, time may run out before
                await gone.wait()
            listening.close()

    assert run(main) == TransportFailure("timeout", f"no whole reply within {SHORT_S:g} s", sent=False)


@pytest.mark.parametrize(
    "sent", [closing(b""), resetting(b""), closing(OK), closing(b"junk"), closing(reply(b"x")[:-1])]
)
def test_what_may_have_left_counts_as_sent(sent: Script) -> None:
    """Whatever the server did afterwards, it may have read the request and billed it."""
    assert failure(exchanged(sent)).sent


def test_a_time_limit_that_ends_in_silence_may_have_been_billed() -> None:
    """The model may go on after we have left."""
    assert failure(exchanged(_silence, timeout_s=SHORT_S)).sent


@pytest.mark.parametrize(
    ("kind", "sent"),
    [(httpx.ConnectError, False), (httpx.ConnectTimeout, False), (httpx.ReadTimeout, True), (httpx.WriteError, True)],
)
def test_another_transport_tells_by_its_errors(kind: Callable[[str], Exception], *, sent: bool) -> None:
    """Only errors that come before a connection prove that nothing left."""

    def handle(_: httpx.Request) -> httpx.Response:
        raise kind("words")

    client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S, http=httpx.MockTransport(handle))
    assert failure(run(lambda: client.exchange(REQUEST))).sent is sent


# -- every error has a value -------------------------------------------------------------------------------------


def subclasses(kind: type[T]) -> Iterator[type[T]]:
    """A class and all that derive from it."""
    yield kind
    for each in kind.__subclasses__():
        yield from subclasses(each)


HTTPX_ERRORS = sorted(
    {each for _, each in inspect.getmembers(httpx, inspect.isclass) if issubclass(each, Exception)}
    | {each for kind in (httpx.HTTPError, httpx.StreamError) for each in subclasses(kind)},
    key=lambda kind: kind.__name__,
)


def httpx_error(kind: type[Exception]) -> Exception:
    """One of these, with words in it."""
    request = httpx.Request("POST", "http://127.0.0.1")
    for arguments in ((), ("words",)):
        for named in ({}, {"request": request, "response": httpx.Response(500)}):
            try:
                return kind(*arguments, **named)
            except TypeError:
                continue
    raise AssertionError(f"{kind} needs other arguments")


@pytest.mark.parametrize("kind", HTTPX_ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("while_reading", [False, True], ids=["sending", "reading"])
def test_every_httpx_error_is_a_value(kind: type[Exception], *, while_reading: bool) -> None:
    """Whatever transport is plugged in: none of httpx's exceptions, of this version or a later one, ends a run."""

    class _Breaking(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"some"
            raise httpx_error(kind)

    def handle(_: httpx.Request) -> httpx.Response:
        if while_reading:
            return httpx.Response(200, stream=_Breaking())
        raise httpx_error(kind)

    client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S, http=httpx.MockTransport(handle))
    result = failure(run(lambda: client.exchange(REQUEST)))
    expected = "timeout" if issubclass(kind, httpx.TimeoutException) else "connection"
    assert result.kind == expected
    assert result.detail


def test_a_bug_is_not_taken_for_the_network() -> None:
    """What no network does is raised: hiding it would turn a mistake of ours into failed rows."""

    def handle(_: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S, http=httpx.MockTransport(handle))
    with pytest.raises(ZeroDivisionError):
        run(lambda: client.exchange(REQUEST))


def test_a_transport_that_lets_its_own_cancellation_out_ends_its_exchange() -> None:
    """Nobody cancelled ours: to wait for it would have no end."""

    def handle(_: httpx.Request) -> httpx.Response:
        raise asyncio.CancelledError

    client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S, http=httpx.MockTransport(handle))
    assert failure(run(lambda: client.exchange(REQUEST))) == TransportFailure(
        "connection", "the exchange was cancelled"
    )


def test_any_httpx_transport_will_do() -> None:
    """The network can be replaced: what is sent and what comes back go through the same hands."""

    def handle(request: httpx.Request) -> httpx.Response:
        told = {"path": request.url.raw_path.decode(), "key": request.headers["authorization"] == f"Bearer {KEY}"}
        headers = [("X-Id", "1"), ("X-Id", "2")]
        return httpx.Response(201, headers=headers, content=json.dumps(told).encode())

    client = Transport("https://service.test/a/", KEY, timeout_s=LONG_S, http=httpx.MockTransport(handle))
    result = answer(run(lambda: client.exchange(HttpRequest("/b%2Fc", {}, b""))))
    assert result.status == 201
    assert json.loads(result.body) == {"path": "/a/b%2Fc", "key": True}
    assert result.headers["x-id"] == "2"


# -- the key -----------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_repr() -> None:
    """A transport may end up in a log or a traceback."""
    client = Transport("https://api.cometapi.com", KEY, timeout_s=LONG_S)
    assert repr(client) == "Transport('https://api.cometapi.com')"
    assert KEY not in repr(client) + str(client)


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
def test_a_reply_that_quotes_the_key_comes_back_without_it(status: str) -> None:
    """Services do quote a key in refusing it; outcomes go to files, so it is blanked before anyone sees it."""
    body = f'{{"error": "Invalid token: {KEY} (Bearer {KEY})"}}'.encode()
    result = answer(exchanged(reply(body, f"X-Echo: <{KEY}>", status=status)))
    assert result.body == b'{"error": "Invalid token: [key] (Bearer [key])"}'
    assert result.headers["x-echo"] == "<[key]>"
    assert KEY not in repr(result)


@pytest.mark.parametrize(
    "sent",
    [
        closing(b"HTTP/1.1 " + KEY.encode() + b"\r\n\r\n"),
        closing(OK + KEY.encode() + b"\r\n\r\n"),
        closing(OK + b"Content-Length: " + KEY.encode() + b"\r\n\r\n"),
        closing(OK + b"Transfer-Encoding: chunked\r\n\r\n" + KEY.encode() + b"\r\n"),
    ],
)
def test_a_failure_that_quotes_the_key_comes_back_without_it(sent: Script) -> None:
    """Error messages quote what a server sent, and a server can send anything."""
    result = failure(exchanged(sent))
    assert KEY not in repr(result)
    assert KEY[:15] not in repr(result)


@pytest.mark.parametrize("coding", [KEY.encode(), b"z" * 25 + KEY.encode()])
@pytest.mark.parametrize("body", [b"x", b"\0"])
def test_a_coding_that_is_the_key_comes_back_without_it(coding: bytes, body: bytes) -> None:
    """Whether the body is read under it or not, and also where an error tells of the coding."""
    result = answer(exchanged(closing(OK + b"Content-Encoding: " + coding + b"\r\n\r\n" + body)))
    for told in (repr(result), repr(parse_error(result))):
        assert KEY not in told
        assert KEY[:15] not in told


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadTimeout, httpx.InvalidURL, httpx.StreamError, OSError])
def test_an_error_that_quotes_the_key_comes_back_without_it(kind: Callable[[str], Exception]) -> None:
    """Nor do a library's own words carry it out."""

    def handle(_: httpx.Request) -> httpx.Response:
        raise kind(f"could not send {KEY}")

    client = Transport("http://127.0.0.1", KEY, timeout_s=LONG_S, http=httpx.MockTransport(handle))
    assert failure(run(lambda: client.exchange(REQUEST))).detail == "could not send [key]"


def test_a_placeholder_for_a_key_does_not_change_answers() -> None:
    """A local server may take any word for a key: blanking that word in answers would change what the model said."""
    said = httpx.MockTransport(lambda _: httpx.Response(200, content=b"none of these", headers={"x-echo": "none"}))
    refused = httpx.MockTransport(lambda _: httpx.Response(401, content=b"Invalid token: none"))

    async def main() -> list[Reply]:
        clients = [Transport("http://127.0.0.1", "none", timeout_s=LONG_S, http=http) for http in (said, refused)]
        return [await client.exchange(REQUEST) for client in clients]

    spoken, refusal = map(answer, run(main))
    assert spoken.body == b"none of these"
    assert spoken.headers["x-echo"] == "[key]"
    assert refusal.body == b"Invalid token: [key]"


@pytest.mark.parametrize("given", [KEY, f"  {KEY}\n", f"\ufeff{KEY}", f"\ufeff {KEY}\r\n", f"{KEY}\ufeff\t", "x"])
def test_a_key_is_taken_without_what_clings_to_it(given: str) -> None:
    """White space and a byte order mark come from files and are no part of a key (contract sheet, section 1)."""
    assert check_key(given) == given.strip("\ufeff \r\n\t")


@pytest.mark.parametrize(
    "given",
    [
        "",
        " \n",
        "\ufeff",
        f"Bearer {KEY}",
        f"{KEY} # mine",
        f'"{KEY}"',
        f"'{KEY}'",
        f"`{KEY}`",
        f"{KEY}\nsecond",
        f"{KEY}\r\nX-Injected: 1",
        f"{KEY}\0",
        f"{KEY}\x7f",
        f"{KEY}é",
        f"{KEY}\u200b",
        f"{KEY}…",
    ],
)
def test_what_no_key_can_be_is_refused_without_being_quoted(given: str) -> None:
    """A damaged key is found before the first request, and the message shows none of it."""
    with pytest.raises(UsageError) as refused:
        check_key(given)
    assert KEY not in str(refused.value)
    assert "key" in str(refused.value)


def test_a_transport_is_not_made_with_a_key_that_cannot_be_sent() -> None:
    """A line break in a header would be a header of somebody else's."""
    with pytest.raises(UsageError):
        Transport("https://api.cometapi.com", f"{KEY}\r\nX-Injected: 1", timeout_s=LONG_S)


# -- proxies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://localhost", True),
        ("http://LOCALHOST:8000", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.255.255.254", True),
        ("http://[::1]:8000/a", True),
        ("https://api.cometapi.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://127.example.com", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://[fe80::1]", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_that_looks_like_it(base_url: str, *, expected: bool) -> None:
    """What is taken for this machine bypasses the proxy, so a name that only begins so must not be."""
    assert is_loopback(base_url) is expected


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the proxy of the environment, and nothing else in it."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)

    def proxy(address: str) -> None:
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("http_proxy", address)

    return proxy


def test_a_proxy_of_the_environment_is_ignored_for_this_machine(proxied: Callable[[str], None]) -> None:
    """The simulator is here: a company's proxy can't reach it, and must not see what is sent to it."""

    async def main() -> tuple[Reply, Server]:
        async with serving(reply(b"proxy")) as (proxy, _), serving(reply(b"here")) as (_, client):
            proxied(proxy.url)
            return await client.exchange(REQUEST), proxy

    result, proxy = run(main)
    assert answer(result).body == b"here"
    assert proxy.connections == 0


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_is_used_for_everyone_else(proxied: Callable[[str], None], scheme: str) -> None:
    """Where only a proxy leads out, it is used, with its own credentials."""

    async def main() -> tuple[list[Reply], Server]:
        async with serving(reply(b"through")) as (proxy, _):
            proxied(scheme + proxy.url.replace("http://", "me:pass@"))
            return [await once("http://service.test") for _ in range(2)], proxy

    result, proxy = run(main)
    assert [answer(each).body for each in result] == [b"through"] * 2
    assert proxy.heads[0][0] == "POST http://service.test/v1/chat/completions HTTP/1.1"
    sent = {name.lower(): value for name, _, value in (line.partition(": ") for line in proxy.heads[0])}
    assert sent["proxy-authorization"] == "Basic bWU6cGFzcw=="
    assert sent["authorization"] == f"Bearer {KEY}"


def test_a_host_without_proxy_is_reached_directly(
    proxied: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`NO_PROXY` holds as everywhere."""
    monkeypatch.setenv("no_proxy", "service.test")

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    async def main() -> tuple[Reply, Server]:
        async with serving(reply(b"through")) as (proxy, _):
            proxied(proxy.url)
            monkeypatch.setattr(socket, "getaddrinfo", fail)
            return await once("http://service.test"), proxy

    result, proxy = run(main)
    assert failure(result).kind == "connection"
    assert proxy.connections == 0


def test_credentials_of_other_tools_are_not_mixed_in(
    proxied: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A ~/.netrc with an entry for every host neither replaces the key nor makes every request fail."""
    (tmp_path / "netrc").write_text("default login someone password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def main() -> tuple[Reply, Server]:
        async with serving(reply()) as (proxy, _):
            proxied(proxy.url)
            return await once("http://service.test"), proxy

    result, proxy = run(main)
    assert answer(result).status == 200
    assert any(line.lower() == f"authorization: bearer {KEY}".lower() for line in proxy.heads[0])
