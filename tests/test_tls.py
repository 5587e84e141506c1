"""TLS, client certificates and tunnels: whom we trust, what we show to whom, and that all of it fails as a value.

Certificates come from an authority made for the session; servers and proxies are real ones on this machine. What is
essential is held on both event loops that a run may be on.
"""

import asyncio
import contextlib
import datetime as dt
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import cometbatch
from cometbatch.errors import UsageError
from cometbatch.records import HttpRequest, PoolStats, TransportFailure
from cometbatch.transport import Reply, TlsSettings, Transport, describe_route
from cometbatch.transport.http1 import dialling, pool
from cometbatch.transport.http1.connection import SMALL_BODY_BYTES
from cometbatch.transport.tls import tls_context
from tests.scripted_server import (
    KEY,
    LONG_S,
    OK,
    REQUEST,
    SHORT_S,
    Script,
    answer,
    chunked,
    closing,
    ended,
    endless,
    failure,
    once,
    remember,
    reply,
    serving,
)
from tests.workbench import KEY_ENV, Workbench

Loop: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
HERE = "127.0.0.1"
LARGE = b"x" * (3 * SMALL_BODY_BYTES)


class Authority:
    """An authority of our own, and files of what it has issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = trustme.CA()
        self.ca_file = self._written("ca.pem", self.ca.cert_pem.bytes())
        self.me = self.ca.issue_cert("me@service.test")
        self.cert = self._written("cert.pem", b"".join(each.bytes() for each in self.me.cert_chain_pems))
        self.key = self._written("key.pem", self.me.private_key_pem.bytes())
        self.both = self._written("both.pem", self.me.private_key_and_cert_chain_pem.bytes())
        self.settings = TlsSettings(ca_file=self.ca_file)
        self.as_me = TlsSettings(self.ca_file, self.cert, self.key)

    def server(self, *names: str, needs_client: bool = False, **issued: Any) -> ssl.SSLContext:
        """The TLS of a server with these names; this machine's address where there are none."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(*(names or (HERE,)), **issued).configure_cert(context)
        if needs_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context

    def _written(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for all tests: keys take time to make."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Runs a coroutine on an event loop of this kind."""
    if request.param == "asyncio":
        return asyncio.run
    run: Loop = pytest.importorskip("uvloop").run
    return run


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REST_S", 0.0)


async def asked(tls: ssl.SSLContext, settings: TlsSettings, *replies: bytes | Script, **options: Any) -> Reply:
    """What comes of one request to a server with this TLS."""
    async with serving(*replies, server_tls=tls, tls=settings, **options) as (_, client):
        return await client.exchange(REQUEST)


# -- TLS to the service ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(reply(b"x"), id="small"),
        pytest.param(reply(LARGE), id="large"),
        pytest.param(chunked(*[b"x" * 1000] * 1000), id="large and chunked"),
        pytest.param(closing(OK + b"\r\n" + LARGE), id="large and until closed"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"x"), id="interim"),
    ],
)
def test_a_reply_over_tls_comes_whole(authority: Authority, loop: Loop, sent: bytes | Script) -> None:
    """Also one whose reading is paused half-way, while bytes are already decrypted."""
    result = answer(loop(asked(authority.server(), authority.settings, sent)))
    assert set(result.body) == set(b"x")
    assert len(result.body) in {1, len(LARGE), 1_000_000}


@pytest.mark.usefixtures("_restless")
def test_a_tls_connection_is_used_again(authority: Authority, loop: Loop) -> None:
    """A handshake costs more than a request: four one after the other need one, and the pool counts them."""

    async def main() -> tuple[int, PoolStats | None]:
        async with serving(reply(), server_tls=authority.server(), tls=authority.settings) as (server, client):
            for _ in range(4):
                answer(await client.exchange(REQUEST))
            return server.connections, client.pool_stats

    assert loop(main()) == (1, PoolStats(requests=4, opened=1, most_open=1))


def test_many_large_replies_over_tls_come_whole(authority: Authority, loop: Loop) -> None:
    """They take turns, paused in the middle of what TLS has decrypted."""

    async def main() -> list[Reply]:
        async with serving(reply(LARGE), server_tls=authority.server(), tls=authority.settings) as (_, client):
            return list(await asyncio.gather(*(client.exchange(REQUEST) for _ in range(3 * pool.LARGE_REPLIES))))

    assert {len(answer(each).body) for each in loop(main())} == {len(LARGE)}


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("first", [b"mine", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("surplus", [reply(b"forged"), b"junk"])
def test_what_follows_a_reply_over_tls_is_nobodys_answer(
    authority: Authority, loop: Loop, first: bytes, surplus: bytes
) -> None:
    """Even where it came in the same record as the reply, and was decrypted with it."""

    async def main() -> tuple[Reply, Reply]:
        tls = authority.server()
        async with serving(reply(first) + surplus, reply(b"true"), server_tls=tls, tls=authority.settings) as (
            _,
            client,
        ):
            result = await client.exchange(REQUEST)
            await asyncio.sleep(SHORT_S / 5)
            return result, await client.exchange(REQUEST)

    result, then = loop(main())
    assert answer(result).body == first
    assert answer(then).body == b"true"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(closing(b""), id="closed before the reply"),
        pytest.param(closing(OK + b"Content-Length: 9\r\n\r\nabc"), id="cut short"),
        pytest.param(closing(OK + b"Content-Length: 9000000\r\n\r\n" + LARGE[:400_000]), id="cut short while paused"),
        pytest.param(closing(b"\0" * 100), id="zeros"),
        pytest.param(endless(OK, b"X-More: of the same\r\n"), id="headers without end"),
    ],
)
def test_a_server_that_misbehaves_over_tls_is_a_connection_failure(
    authority: Authority, loop: Loop, sent: Script
) -> None:
    """As over a plain connection."""
    result = failure(loop(asked(authority.server(), authority.settings, sent)))
    assert (result.kind, result.sent, bool(result.detail.strip())) == ("connection", True, True)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(OK, id="silence in the headers"),
        pytest.param(OK + b"Content-Length: 9000000\r\n\r\n" + LARGE[:400_000], id="silence in a large body"),
        pytest.param(endless(OK + b"\r\n", b"x", 0.01), id="drops"),
    ],
)
def test_time_is_up_over_tls_as_well(authority: Authority, loop: Loop, sent: bytes | Script) -> None:
    """The handshake is part of an attempt's time, and so is the last byte."""
    result = failure(loop(asked(authority.server(), authority.settings, sent, timeout_s=3 * SHORT_S)))
    assert result == TransportFailure("timeout", f"no whole reply within {3 * SHORT_S:g} s")


def sending(listening: socket.socket, tls: ssl.SSLContext, sent: bytes, *, ends_tls: bool) -> None:
    """Answer one request with these bytes, and end the connection: with TLS's own end before it, or without."""
    line, _ = listening.accept()
    with tls.wrap_socket(line, server_side=True) as secure:
        secure.recv(65536)
        secure.sendall(sent)
        with socket.socket(fileno=os.dup(secure.fileno())) as raw, contextlib.suppress(OSError):
            if ends_tls:
                secure.unwrap()
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("sent", "ends_tls", "is_whole"),
    [
        pytest.param(OK + b"\r\nhalf or whole", True, True, id="no length, ended"),
        pytest.param(OK + b"\r\nhalf or whole", False, False, id="no length, cut"),
        pytest.param(OK + b"\r\n", False, False, id="no length, cut before the body"),
        pytest.param(OK + b"\r\n" + LARGE, True, True, id="no length, large, ended"),
        pytest.param(OK + b"\r\n" + LARGE, False, False, id="no length, large, cut"),
        pytest.param(reply(b"whole"), False, True, id="length, cut afterwards"),
        pytest.param(reply(LARGE), False, True, id="length, large, cut afterwards"),
        pytest.param(chunked(b"whole"), False, True, id="chunks, cut afterwards"),
        pytest.param(reply(b"whole")[:-1], False, False, id="length, cut"),
        pytest.param(reply(b"whole")[:-1], True, False, id="length, ended too early"),
        pytest.param(chunked(b"whole")[:-5], True, False, id="chunks, ended too early"),
    ],
)
def test_a_reply_of_no_stated_length_is_whole_only_where_tls_has_ended(
    authority: Authority, loop: Loop, version: ssl.TLSVersion, sent: bytes, *, ends_tls: bool, is_whole: bool
) -> None:
    """Whoever is on the way can end a connection; only the server can end TLS (RFC 8446, 6.1)."""
    tls = authority.server()
    tls.minimum_version = tls.maximum_version = version

    async def main() -> Reply:
        with socket.create_server((HERE, 0)) as listening:
            done = asyncio.create_task(asyncio.to_thread(sending, listening, tls, sent, ends_tls=ends_tls))
            came = await once(f"https://{HERE}:{listening.getsockname()[1]}", tls=authority.settings)
            await done
            return came

    came = loop(main())
    if is_whole:
        assert answer(came).body
        assert sent.endswith(answer(came).body) or answer(came).body == b"whole"
    else:
        assert (failure(came).kind, failure(came).sent) == ("connection", True)
        assert ("close_notify" in failure(came).detail) is not ends_tls


def test_a_large_request_goes_out_whole_over_tls(authority: Authority, loop: Loop) -> None:
    """It is encrypted piece by piece; none is lost or sent twice."""
    body = os.urandom(1_000_003)

    async def main() -> bytes:
        async with serving(reply(), server_tls=authority.server(), tls=authority.settings) as (server, client):
            answer(await client.exchange(HttpRequest("/v1/chat/completions", {}, body)))
            return server.received[0].partition(b"\r\n\r\n")[2]

    assert loop(main()) == body


def test_few_handshakes_are_under_way_at_a_time(
    authority: Authority, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes memory until it is done; a server that never answers them holds up no more than their attempts."""
    monkeypatch.setattr(dialling, "HANDSHAKES_AT_ONCE", 2)
    seen: list[int] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    async def main() -> list[Reply]:
        async with await asyncio.start_server(mute, HERE, 0) as listening:
            url = f"https://{HERE}:{listening.sockets[0].getsockname()[1]}"
            client = Transport(url, KEY, timeout_s=SHORT_S, tls=authority.settings)
            came = list(await asyncio.gather(*(client.exchange(REQUEST) for _ in range(6))))
            await client.aclose()
            return came

    came = loop(main())
    assert came == [TransportFailure("timeout", f"no whole reply within {SHORT_S:g} s", sent=False)] * 6
    assert len(seen) == 2


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
def test_an_ipv6_address_is_reached(authority: Authority, loop: Loop, *, is_tls: bool) -> None:
    """In brackets in the URL and in the Host header, and without them in a certificate."""

    async def main() -> tuple[Reply, list[str]]:
        tls = authority.server("::1") if is_tls else None
        async with serving(reply(b"six"), server_tls=tls, tls=authority.settings, host="::1") as (server, client):
            return await client.exchange(REQUEST), server.heads[0]

    with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
    result, head = loop(main())
    assert answer(result).body == b"six"
    assert any(line.startswith("host: [::1]:") for line in head)


# -- whom we trust -----------------------------------------------------------------------------------------------

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("names", "issued", "is_trusted", "words"),
    [
        ((HERE,), {}, False, "unable to get local issuer certificate"),
        (("other.test",), {}, True, "certificate is not valid for '127.0.0.1'"),
        ((HERE,), {"not_after": YESTERDAY}, True, "certificate has expired"),
    ],
    ids=["another authority", "another name", "expired"],
)
def test_a_server_that_is_not_the_one_gets_nothing(
    authority: Authority,
    loop: Loop,
    names: tuple[str, ...],
    issued: dict[str, Any],
    words: str,
    *,
    is_trusted: bool,
) -> None:
    """Whoever can't prove to be the service is told neither key nor prompt, and the failure says why."""

    async def main() -> tuple[Reply, list[bytes]]:
        tls, settings = authority.server(*names, **issued), authority.settings if is_trusted else TlsSettings()
        async with serving(reply(), server_tls=tls, tls=settings) as (server, client):
            return await client.exchange(REQUEST), server.received

    result, received = loop(main())
    assert (failure(result).kind, failure(result).sent, received) == ("connection", False, [])
    assert words in failure(result).detail


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_environments_authorities_count_where_the_job_names_none(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """As for other tools on the machine; and `ca_file` replaces them, rather than adding to them."""
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    monkeypatch.setenv(name, str(authority.ca_file if name == "SSL_CERT_FILE" else hashed))
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    if name == "SSL_CERT_FILE":
        assert answer(asyncio.run(asked(authority.server(), TlsSettings(), reply()))).status == 200
    assert failure(asyncio.run(asked(authority.server(), TlsSettings(ca_file=other), reply()))).sent is False


# -- as whom we appear -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_one_file", [False, True], ids=["two files", "one file"])
def test_a_server_that_asks_for_a_certificate_gets_it(
    authority: Authority, loop: Loop, version: ssl.TLSVersion, *, is_one_file: bool
) -> None:
    """Certificate and key may be in one file or in two."""
    settings = TlsSettings(authority.ca_file, authority.both) if is_one_file else authority.as_me
    tls = authority.server(needs_client=True)
    tls.maximum_version = version
    assert answer(loop(asked(tls, settings, reply(b"known")))).body == b"known"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_a_certificate_a_server_that_needs_one_refuses(
    authority: Authority, loop: Loop, version: ssl.TLSVersion
) -> None:
    """A connection failure, whatever the version of TLS makes of it."""
    tls = authority.server(needs_client=True)
    tls.maximum_version = version
    assert failure(loop(asked(tls, authority.settings, reply(b"unknown")))).kind == "connection"


def refusing(listening: socket.socket, tls: ssl.SSLContext) -> None:
    """Take one connection, say in TLS what is wrong with its certificate, and read on until it is closed."""
    line, _ = listening.accept()
    with tls.wrap_socket(line, server_side=True, do_handshake_on_connect=False) as secure:
        with contextlib.suppress(ssl.SSLError):
            secure.do_handshake()
        with socket.socket(fileno=os.dup(secure.fileno())) as raw, contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_refused_certificate_sent_nothing(authority: Authority, loop: Loop, version: ssl.TLSVersion) -> None:
    """From TLS 1.3 on the refusal comes when the request is on its way, but nobody has read it: it isn't billed."""
    tls = authority.server(needs_client=True)
    tls.minimum_version = tls.maximum_version = version

    async def main() -> Reply:
        with socket.create_server((HERE, 0)) as listening:
            refused = asyncio.create_task(asyncio.to_thread(refusing, listening, tls))
            result = await once(f"https://{HERE}:{listening.getsockname()[1]}", tls=authority.settings)
            await refused
            return result

    result = failure(loop(main()))
    assert (result.kind, result.sent) == ("connection", False)
    assert "ALERT" in result.detail


# -- files that are wrong ----------------------------------------------------------------------------------------


def locked(authority: Authority, path: Path) -> Path:
    """The private key, behind a password."""
    key = serialization.load_pem_private_key(authority.me.private_key_pem.bytes(), None)
    coding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(coding, kind, serialization.BestAvailableEncryption(b"password")))
    return path


@pytest.fixture
def wrong(authority: Authority, tmp_path: Path) -> dict[str, Path]:
    """Files that will not do, by what is wrong with them."""
    paths = {name: tmp_path / f"{name}.pem" for name in ("missing", "empty", "text", "damaged", "folder", "pipe")}
    paths["empty"].write_text("")
    paths["text"].write_text("no certificate")
    paths["damaged"].write_bytes(authority.both.read_bytes()[:120] + b"\n-----END PRIVATE KEY-----\n")
    paths["folder"].mkdir()
    os.mkfifo(paths["pipe"])
    other = authority.ca.issue_cert("other@service.test")
    other.private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    return {**paths, "other": tmp_path / "other.pem", "locked": locked(authority, tmp_path / "locked.pem")}


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "damaged", "folder", "pipe"])
@pytest.mark.parametrize("name", ["ca_file", "client_cert", "client_key"])
def test_a_file_that_will_not_do_is_told_with_its_key(
    authority: Authority, wrong: dict[str, Path], name: str, kind: str
) -> None:
    """The job's key, the file and what is wrong with it; none of what is in it, and no waiting for a pipe."""
    files = {"client_cert": authority.cert} if name == "client_key" else {}
    with pytest.raises(UsageError) as refused:
        tls_context(TlsSettings(**{**files, name: wrong[kind]}))
    assert f"target.{name}: {wrong[kind]} " in str(refused.value)
    inside = wrong[kind].read_text().splitlines() if wrong[kind].is_file() else []
    assert not any(line in str(refused.value) for line in inside if kind == "damaged")


def test_a_locked_key_is_refused_and_nobody_is_asked_for_its_password(
    authority: Authority, wrong: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at night would wait at the terminal for ever."""
    monkeypatch.setattr("getpass.getpass", None)
    with pytest.raises(UsageError, match=r"target\.client_key: .*locked\.pem is locked with a password"):
        tls_context(TlsSettings(client_cert=authority.cert, client_key=wrong["locked"]))


def test_a_key_of_another_certificate_is_told(authority: Authority, wrong: dict[str, Path]) -> None:
    """Both files are named, since either may be the wrong one."""
    with pytest.raises(UsageError, match=r"client_key: .*other\.pem holds another private key than .*cert\.pem"):
        tls_context(TlsSettings(client_cert=authority.cert, client_key=wrong["other"]))


def test_a_certificate_without_its_key_says_where_to_name_it(authority: Authority) -> None:
    """The usual mistake: two files, and only one of them named."""
    with pytest.raises(UsageError, match=r"client_cert: .*cert\.pem holds no private key.*target\.client_key"):
        tls_context(TlsSettings(client_cert=authority.cert))


@pytest.mark.parametrize(("name", "kind"), [("SSL_CERT_FILE", "missing"), ("SSL_CERT_FILE", "text"),
                                            ("SSL_CERT_DIR", "missing")])  # fmt: skip
def test_a_wrong_file_of_the_environment_is_told_with_its_variable(
    wrong: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """Else every row would fail, in words that name neither."""
    monkeypatch.setenv(name, str(wrong[kind]))
    with pytest.raises(UsageError, match=f"{name}: .*{kind}"):
        describe_route("https://service.test")


# -- through a proxy ---------------------------------------------------------------------------------------------

GRANTED = b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n"


@dataclass
class Proxy:
    """Answers each CONNECT with these bytes, and if they grant it passes bytes on to the service, wherever it says."""

    answer: bytes | Script = GRANTED
    service: int = 0
    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    passed: bytearray = field(default_factory=bytearray)  # from client to service, as they are on the wire
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Proxy"]:
        """While it is there."""
        async with await asyncio.start_server(self._serve, HERE, 0, ssl=tls) as listening:
            self.port = listening.sockets[0].getsockname()[1]
            yield self
            listening.close()
            await ended(self.tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remember(self.tasks)
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if not isinstance(self.answer, bytes):
                await self.answer(writer)
            else:
                writer.write(self.answer)
            if self.service:
                await self._pass(reader, writer)
            else:
                self.passed += await reader.read()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inwards, outwards = await asyncio.open_connection(HERE, self.service)

        async def there() -> None:
            while data := await reader.read(65536):
                self.passed += data
                outwards.write(data)
            outwards.close()

        async def back() -> None:
            while data := await inwards.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        with contextlib.closing(outwards):
            await asyncio.gather(there(), back())


def port_of(url: str) -> int:
    """The port that a URL ends in."""
    return int(url.rpartition(":")[2])


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[Proxy, str], None]:
    """Makes a proxy the environment's."""

    def set_proxy(proxy: Proxy, prefix: str = "http://") -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"{prefix}{HERE}:{proxy.port}")

    return set_proxy


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
def test_a_tunnel_hides_everything_from_the_proxy(
    authority: Authority, loop: Loop, through: Callable[..., None], body: bytes
) -> None:
    """The proxy learns host, port and its own credentials; key, prompt and answer pass it in TLS, on one line."""

    async def main() -> tuple[list[Reply], Proxy, PoolStats | None]:
        tls = authority.server("service.test")
        async with serving(reply(body), server_tls=tls) as (server, _), Proxy().running() as proxy:
            proxy.service = port_of(server.url)
            through(proxy, "http://me:p%40ss@")
            client = Transport("https://service.test", KEY, timeout_s=LONG_S, tls=authority.settings)
            result = [await client.exchange(REQUEST) for _ in range(3)]
            await client.aclose()
            return result, proxy, client.pool_stats

    result, proxy, stats = loop(main())
    assert [answer(each).body for each in result] == [body] * 3
    assert proxy.asked[0].split(b"\r\n") == [
        b"CONNECT service.test:443 HTTP/1.1",
        b"host: service.test:443",
        b"proxy-authorization: Basic bWU6cEBzcw==",
        b"",
        b"",
    ]
    assert stats == PoolStats(requests=3, opened=1, most_open=1)
    assert KEY.encode() not in proxy.passed
    assert REQUEST.body not in proxy.passed


def test_a_tunnel_to_a_server_that_is_not_the_one_gets_nothing(
    authority: Authority, loop: Loop, through: Callable[..., None]
) -> None:
    """A proxy may lead where it likes: the certificate is checked inside of the tunnel."""

    async def main() -> tuple[Reply, list[bytes]]:
        async with (
            serving(reply(), server_tls=authority.server("evil.test")) as (server, _),
            Proxy().running() as proxy,
        ):
            proxy.service = port_of(server.url)
            through(proxy)
            return await once("https://service.test", tls=authority.settings), server.received

    result, received = loop(main())
    assert (failure(result).kind, failure(result).sent, received) == ("connection", False, [])
    assert "not valid for 'service.test'" in failure(result).detail


async def _mute(_: asyncio.StreamWriter) -> None:
    """Take what comes, and never answer."""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407 Proxy Authentication"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", "502 Bad Gateway"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "refuses a tunnel to service.test:443"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0"),
        (b"\0\xff\r\n\r\n", "refuses a tunnel"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100), "a reply without end"),
        (closing(b""), "closed the connection"),
        (closing(b"HTTP/1.1 200 OK\r\n"), "closed the connection"),
        (closing(GRANTED), ""),
        (GRANTED + b"\0" * 100, ""),
        (GRANTED + GRANTED, ""),
    ],
    ids=["407", "502", "four digits", "SSH", "garbage", "endless", "closes", "half", "opens, closes", "zeros", "twice"],
)
def test_a_proxy_that_opens_no_tunnel_is_a_connection_failure(
    authority: Authority, loop: Loop, through: Callable[..., None], said: bytes | Script, words: str
) -> None:
    """Whatever it says instead, and it is not told the key. Where it wants a password, the run stops."""

    async def main() -> tuple[Reply, Proxy, float]:
        async with Proxy(said).running() as proxy:
            through(proxy)
            started = asyncio.get_running_loop().time()
            result = await once("https://service.test", tls=authority.settings, timeout_s=3.0)
            return result, proxy, asyncio.get_running_loop().time() - started

    result, proxy, took_s = loop(main())
    wants_password = b" 407 " in said if isinstance(said, bytes) else False
    assert (failure(result).kind, failure(result).sent) == ("proxy" if wants_password else "connection", False)
    assert words in failure(result).detail
    assert KEY.encode() not in b"".join(proxy.asked) + proxy.passed
    assert took_s < 2.0


@pytest.mark.parametrize("said", [_mute, b"HTTP/1.1 200 OK\r\n", GRANTED], ids=["mute", "half a head", "mute tunnel"])
def test_a_silent_proxy_does_not_outlast_an_attempt(
    authority: Authority, loop: Loop, through: Callable[..., None], said: bytes | Script
) -> None:
    """Opening a tunnel is part of an attempt's time, and nothing was sent."""

    async def main() -> Reply:
        async with Proxy(said).running() as proxy:
            through(proxy)
            return await once("https://service.test", tls=authority.settings, timeout_s=SHORT_S)

    assert loop(main()) == TransportFailure("timeout", f"no whole reply within {SHORT_S:g} s", sent=False)


def test_a_proxy_may_speak_tls_itself(authority: Authority, loop: Loop, through: Callable[..., None]) -> None:
    """TLS in TLS; the proxy proves who it is, too, and is not shown the certificate that is for the service."""

    async def main() -> tuple[Reply, Proxy]:
        service = authority.server("service.test", needs_client=True)
        front = authority.server(HERE)
        front.verify_mode = ssl.CERT_OPTIONAL
        authority.ca.configure_trust(front)
        async with serving(reply(LARGE), server_tls=service) as (server, _), Proxy().running(front) as proxy:
            proxy.service = port_of(server.url)
            through(proxy, "https://me:pass@")
            return await once("https://service.test", tls=authority.as_me), proxy

    result, proxy = loop(main())
    assert answer(result).body == LARGE
    assert KEY.encode() not in proxy.passed


def test_a_proxy_that_is_not_the_one_is_told_nothing(
    authority: Authority, loop: Loop, through: Callable[..., None]
) -> None:
    """An https proxy's name is checked before its password is sent."""

    async def main() -> tuple[Reply, Proxy]:
        async with Proxy().running(authority.server("evil.test")) as proxy:
            through(proxy, "https://me:pass@")
            return await once("https://service.test", tls=authority.settings), proxy

    result, proxy = loop(main())
    assert (failure(result).kind, failure(result).sent, proxy.asked) == ("connection", False, [])


# -- who leaves early --------------------------------------------------------------------------------------------


def test_requests_that_are_cancelled_while_they_connect_leave_nothing_open(authority: Authority, loop: Loop) -> None:
    """Whichever step of the handshake they are in, the server sees each of them leave."""

    async def main() -> None:
        async with serving(reply(), server_tls=authority.server(), tls=authority.settings) as (server, client):
            for turns in range(40):
                task = asyncio.create_task(client.exchange(REQUEST))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            answer(await client.exchange(REQUEST))
            await client.aclose()
            async with asyncio.timeout(LONG_S):
                await server.all_gone()

    loop(main())


def test_a_request_that_is_still_connecting_when_the_pool_closes_is_not_sent(
    authority: Authority, loop: Loop, through: Callable[..., None]
) -> None:
    """What leaves after the end of a run is billed and recorded by nobody."""

    async def main() -> tuple[Reply, list[bytes]]:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def late(writer: asyncio.StreamWriter) -> None:
            asked.set()
            await go_on.wait()
            writer.write(GRANTED)

        tls = authority.server("service.test")
        async with serving(reply(), server_tls=tls) as (server, _), Proxy(late).running() as proxy:
            proxy.service = port_of(server.url)
            through(proxy)
            client = Transport("https://service.test", KEY, timeout_s=LONG_S, tls=authority.settings)
            task = asyncio.create_task(client.exchange(REQUEST))
            await asked.wait()
            await client.aclose()
            go_on.set()
            return await task, server.received

    result, received = loop(main())
    assert (failure(result).kind, failure(result).sent, received) == ("connection", False, [])


# -- what plan and run say of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("", "directly"),
        ("http://me:pass@proxy.test:3128", "through the proxy proxy.test:3128"),
        ("proxy.test", "through the proxy proxy.test:80"),
        ("https://[::1]", "through the proxy [::1]:443"),
    ],
)
def test_a_plan_names_the_way_to_the_service(
    authority: Authority,
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    words: str,
) -> None:
    """In a line and in its JSON, with what is unusual about trust, and without credentials."""
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("ALL_PROXY", proxy)
    usual = cometbatch.plan(bench.job(target={"base_url": "https://service.test"}, prices="none"))
    files = {"ca_file": str(authority.ca_file), "client_cert": str(authority.cert), "client_key": str(authority.key)}
    unusual = cometbatch.plan(bench.job(target={"base_url": "https://service.test", **files}, prices="none"))
    assert usual.to_dict()["way"] == words
    trusting = f", trusting {authority.ca_file} alone, with the client certificate {authority.cert}"
    assert f"\nconnection: {words}{trusting}\n" in unusual.describe()
    assert "pass" not in usual.describe() + unusual.describe()


@pytest.mark.parametrize("proxy", ["socks5://me:secret-word@127.0.0.1:1", "http://me:secret-word@h:port", "http://"])
def test_a_proxy_that_is_none_is_refused_before_anything_is_sent(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """By plan and run alike, and without quoting it: it may hold a password."""
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    job = bench.job(target={"base_url": "https://service.test"}, prices="none")
    for command in (cometbatch.plan, cometbatch.run):
        with pytest.raises(
            UsageError, match=r"HTTPS_PROXY or ALL_PROXY\) is no http:// or https:// address"
        ) as refused:
            command(job)
        assert "secret-word" not in str(refused.value)
    assert not bench.output.with_name(bench.output.name + ".run").exists()


def test_a_wrong_file_is_refused_before_anything_is_sent(
    authority: Authority, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plan and run alike, and no run directory is made."""
    monkeypatch.setenv(KEY_ENV, KEY)
    job = bench.job(target={"base_url": "https://service.test", "ca_file": "missing.pem"}, prices="none")
    for command in (cometbatch.plan, cometbatch.run):
        with pytest.raises(UsageError, match=r"target\.ca_file: .*missing\.pem can't be read"):
            command(job)
    assert not bench.output.with_name(bench.output.name + ".run").exists()


def test_a_run_shows_its_certificate_and_counts_its_connections(
    authority: Authority, bench: Workbench, monkeypatch: pytest.MonkeyPatch, loop: Loop
) -> None:
    """A whole job over TLS with a private authority and a client certificate; the summary tells of the pool."""
    monkeypatch.setenv(KEY_ENV, KEY)
    said = b'{"id": "c", "model": "m", "choices": [{"message": {"role": "assistant", "content": "yes"}, \
"finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'

    async def main() -> cometbatch.RunSummary:
        tls = authority.server(needs_client=True)
        async with serving(reply(said, "Content-Type: application/json"), server_tls=tls) as (server, _):
            files = {"ca_file": authority.ca_file, "client_cert": authority.cert, "client_key": authority.key}
            target = {"base_url": server.url, **{name: str(path) for name, path in files.items()}}
            job = bench.job(target=target, prices="none", limits={"concurrency": 2})
            return await cometbatch.run_async(job, progress=False)

    summary = loop(main())
    counted = summary.to_dict()["pool"]
    assert summary.all_succeeded
    assert (counted["requests"], counted["most_open"] <= counted["opened"] <= 12) == (12, True)
    assert f"this session: 12 requests over {counted['opened']} connection" in summary.describe(verbose=True)
    assert cometbatch.status(bench.output).to_dict()["pool"] is None
