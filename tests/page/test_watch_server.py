"""The server of `report --watch`: who gets the page, and that nobody else gets anything, or keeps it from others."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from errno import ECONNRESET, ENOTCONN, EPIPE

import pytest

from cometbatch.commands import watch_server
from cometbatch.commands.watch_server import Answer, PageServer
from cometbatch.errors import UsageError

PAGE = b"<!doctype html><p>page"


class Fixed:
    """A page that never changes, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, str]] = []

    def page(self) -> Answer:
        return Answer(PAGE, "text/html; charset=utf-8", "default-src 'none'; connect-src 'self'")

    def data(self, query: Mapping[str, str]) -> Answer:
        self.asked.append(query)
        return Answer(b"{}", "application/json")


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    """A server of such a page."""
    with PageServer(Fixed()) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[PageServer]:
    """One that other tests don't ask."""
    with PageServer(Fixed()) as running:
        yield running


@contextlib.contextmanager
def suppressed(*numbers: int) -> Iterator[None]:
    """Let errors of the operating system with these numbers pass."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in numbers:
            raise


def sent(server: PageServer, raw: bytes) -> bytes:
    """What comes back for these bytes until the server closes, which it may do before it has read them all."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        found = bytearray()
        with suppressed(ECONNRESET, EPIPE, ENOTCONN):
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
        with suppressed(ECONNRESET, ENOTCONN):
            while piece := connection.recv(65_536):
                found += piece
        return bytes(found)


def asked(
    server: PageServer, path: str, *lines: str, method: str = "GET", host: str | None = None
) -> tuple[str, bytes]:
    """The head and the body that come back for a request, with its own host unless another is given."""
    name = f"127.0.0.1:{server.port}" if host is None else host
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *([f"Host: {name}"] if name else []), *lines])
    found = sent(server, f"{head}\r\n\r\n".encode("latin-1")).partition(b"\r\n\r\n")
    return found[0].decode(), found[2]


def own(server: PageServer, name: str = "") -> str:
    """A path with the token."""
    return f"/{server.token}/{name}"


def is_refused(answer: tuple[str, bytes]) -> bool:
    """Whether an answer is the one that tells nothing."""
    return answer[0].startswith("HTTP/1.0 404") and answer[1] == b"Not found.\n"


def test_who_has_the_url_gets_the_page(server: PageServer) -> None:
    """Under both names of the loopback interface."""
    for host in ("127.0.0.1", "localhost", "LOCALHOST"):
        head, body = asked(server, own(server), host=f"{host}:{server.port}")
        assert head.startswith("HTTP/1.0 200")
        assert body == PAGE


def test_the_token_is_long_and_never_the_same() -> None:
    """At least 128 bits of chance."""
    with PageServer(Fixed()) as one, PageServer(Fixed()) as other:
        assert one.token != other.token
        assert len(one.token) * 6 >= 128
        assert one.url == f"http://127.0.0.1:{one.port}/{one.token}/"


def test_it_listens_on_the_loopback_interface_alone(server: PageServer) -> None:
    """No other machine reaches it."""
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_head_has_no_body(server: PageServer) -> None:
    """With the length that it would have."""
    head, body = asked(server, own(server), method="HEAD")
    assert f"Content-Length: {len(PAGE)}" in head
    assert body == b""


def test_increments_are_asked_for_with_a_query(server: PageServer) -> None:
    """Its fields reach the page's own part."""
    head, body = asked(server, own(server, "data?from=3&meta=2"))
    assert (head.split("\r\n")[0], body) == ("HTTP/1.0 200 OK", b"{}")
    assert isinstance(server.content, Fixed)
    assert server.content.asked == [{"from": "3", "meta": "2"}]


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "localhost", "example.com", "example.com:{port}", "127.0.0.1:1", "127.0.0.1.example.com:{port}",
     "[::1]:{port}", "0.0.0.0:{port}", " ", "127.0.0.1:{port}, example.com"],
)  # fmt: skip
def test_a_host_of_another_name_is_refused(server: PageServer, host: str) -> None:
    """A site whose name leads to this machine (DNS rebinding) gets nothing, even if it knew the token."""
    assert is_refused(asked(server, own(server), host=host.format(port=server.port)))


def test_two_hosts_are_refused(server: PageServer) -> None:
    """Of which a proxy might have looked at the other one."""
    name = f"127.0.0.1:{server.port}"
    assert is_refused(asked(server, own(server), f"Host: {name}"))
    assert is_refused(asked(server, own(server), "Host: example.com"))


@pytest.mark.parametrize(
    "path",
    ["/", "/favicon.ico", "/data", "/{token}", "/{token}x/", "/x{token}/", "/{token}/x", "/{token}/data/", "/{token}//",
     "//{token}//", "/{token}/../{token}/x", "/%2e/", "http://127.0.0.1/{token}/", "*",
     "/{token}/data?a&b&c&d&e&f&g&h&i", "/{token}/index.html", "/{token}/%64ata", "/{half}/", "/\xe9/"],
)  # fmt: skip
def test_every_other_path_is_refused_alike(server: PageServer, path: str) -> None:
    """Nothing tells how near it was; there is no list of what is there."""
    assert is_refused(asked(server, path.format(token=server.token, half=server.token[:16])))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "X" * 100])
def test_every_other_method_is_refused_alike(server: PageServer, method: str) -> None:
    """Also of who has the token."""
    assert is_refused(asked(server, own(server), method=method))


def test_nothing_is_kept_embedded_or_passed_on(server: PageServer) -> None:
    """Not the page, not its address, and no browser guesses its type."""
    for path in (own(server), own(server, "data"), "/"):
        head, _ = asked(server, path)
        lines = head.split("\r\n")
        for line in (
            "Cache-Control: no-store",
            "Referrer-Policy: no-referrer",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: DENY",
            "Cross-Origin-Resource-Policy: same-origin",
        ):
            assert line in lines, path
        assert sum(line.startswith("Content-Security-Policy: default-src 'none'") for line in lines) == 1
        assert "Server:" not in head
        assert "Access-Control" not in head


NONSENSE = {
    "nothing": b"",
    "line breaks": b"\r\n\r\n\r\n",
    "no version": b"GET /",
    "two words": b"GET / \r\n\r\n",
    "a version of its own": b"GET / HTTP/9.9\r\n\r\n",
    "no number": b"GET / HTTP/x\r\n\r\n",
    "an endless line": b"GET /" + b"a" * 200_000,
    "an endless header": b"GET / HTTP/1.1\r\nHost: " + b"a" * 200_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    "NULs": b"\0" * 1_000 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 500,
    "no UTF-8": b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost:\r\n 127.0.0.1\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n: x\r\n\r\n",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_nobodys_error(server: PageServer, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is refused or hung up on, no traceback is printed, and the next request is answered."""
    found = sent(server, NONSENSE[what])
    assert PAGE not in found
    assert asked(server, own(server))[1] == PAGE
    assert capfd.readouterr() == ("", "")


def test_a_client_that_goes_away_is_nobodys_error(server: PageServer, capfd: pytest.CaptureFixture[str]) -> None:
    """Before its request is whole, or before it has the answer."""
    for raw in (b"GET /", f"GET {own(server)} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(raw)
    assert asked(server, own(server))[1] == PAGE
    assert capfd.readouterr() == ("", "")


def test_slow_clients_are_hung_up_on(own_server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they drip, and however many of them there are: then others are served again."""
    monkeypatch.setattr(watch_server, "READ_S", 0.2)
    slow = [
        socket.create_connection(("127.0.0.1", own_server.port), timeout=20) for _ in range(watch_server.CONNECTIONS)
    ]
    try:
        for each in slow:
            with contextlib.suppress(OSError):
                each.sendall(b"GET / HTTP/1.1\r\n")
        for each in slow:
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(100) == b""
        assert asked(own_server, own(own_server))[1] == PAGE
    finally:
        for each in slow:
            each.close()


def test_many_clients_are_bounded(own_server: PageServer) -> None:
    """Those beyond the bound are hung up on at once, and take no thread."""
    before = threading.active_count()
    many = [
        socket.create_connection(("127.0.0.1", own_server.port), timeout=20)
        for _ in range(2 * watch_server.CONNECTIONS)
    ]
    try:
        with contextlib.suppress(ConnectionResetError):
            assert many[-1].recv(100) == b""
        assert threading.active_count() <= before + watch_server.CONNECTIONS
    finally:
        for each in many:
            each.close()


def test_a_port_that_is_taken_is_told(server: PageServer) -> None:
    """With what to do."""
    with pytest.raises(UsageError, match=rf"--port {server.port}: .*Leave it out"):
        PageServer(Fixed(), server.port)
