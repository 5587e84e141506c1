"""Fetching the images of addresses in cells: from the public internet alone, bounded, and with nothing of ours."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import trustme

import cometbatch
from cometbatch.input.image_files import ImageFolder
from cometbatch.records import GenerationParams, HttpRequest, ImagePart, Message, ModelRequest, TransportFailure
from cometbatch.runner.images import ImageBounds, Images, ImageSender
from cometbatch.transport.image_fetch import FetchError, ImageFetcher, is_public
from cometbatch.wire import FORMATS
from tests.images import digest, image
from tests.scripted_server import OK, Script, Server, chunked, endless, reply, resetting, serving
from tests.workbench import Workbench, carry_out, simulator

PNG = image(size=3000)
PROXIES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "all_proxy", "no_proxy")
Fetched = bytes | str
"""What came, or why nothing did."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who has issued the certificates of all servers here."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server of the name localhost, whose authority is trusted."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def fetched(
    tls: ssl.SSLContext | None,
    *replies: bytes | Script,
    is_allowed: Callable[[str], bool] = lambda _: True,
    url: str = "https://localhost:{port}/a%20b.png?size=2",
    **options: Any,
) -> tuple[Fetched, Server]:
    """What comes of fetching an image from a server with these replies."""

    async def main() -> tuple[Fetched, Server]:
        async with serving(*replies, server_tls=tls) as (server, _):
            fetcher = ImageFetcher(is_allowed, **{"pauses_s": (0.0, 0.0), **options})
            try:
                return await fetcher.fetch(url.format(port=server.url.rpartition(":")[2]), 5000), server
            except FetchError as error:
                return str(error), server
            finally:
                await fetcher.aclose()

    return asyncio.run(main())


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::127.0.0.1", "fc00::1",
    "fdff::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "64:ff9b::7f00:1", "64:ff9b:1::1",
    "2002:7f00:1::", "2001::1", "2001:db8::1", "100::1", "", "localhost", "8.8.8", "2606:4700::1111%eth0",
    "168.63.129.16", "192.88.99.1", "3fff::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_of_the_public_internet_is_never_connected_to(address: str) -> None:
    """None of this machine, its networks or a carrier's, no multicast, and no IPv4 address that is written in IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"])
def test_an_address_of_the_public_internet_is(address: str) -> None:
    """Neighbours of the networks above included."""
    assert is_public(address)


def test_an_image_is_fetched_with_nothing_of_ours(tls: ssl.SSLContext) -> None:
    """One GET, with the host's own name: no key, no cookie, no header of the job's service."""
    found, server = fetched(tls, reply(PNG, "Content-Type: text/html"))
    assert found == PNG
    head = [line.lower() for line in server.heads[0]]
    assert head[0] == "get /a%20b.png?size=2 http/1.1"
    assert f"host: localhost:{server.url.rpartition(':')[2]}" in head
    names = {line.partition(":")[0] for line in head[1:]}
    assert names <= {"host", "accept", "accept-encoding", "user-agent", "connection"}


@pytest.mark.parametrize("sent", [chunked(PNG[:9], PNG[9:]), reply(PNG)])
def test_an_image_may_come_in_pieces(tls: ssl.SSLContext, sent: bytes) -> None:
    """Every byte of it."""
    assert fetched(tls, sent)[0] == PNG


REFUSED: list[tuple[bytes | Script, str]] = [
    (reply(b"", "Location: https://localhost/", status="302 Found"), "is redirected (HTTP 302), and no redirect"),
    (reply(b"", "Location: http://169.254.169.254/", status="307 Temporary Redirect"), "is redirected (HTTP 307)"),
    (reply(b"", status="404 Not Found"), "can't be fetched: HTTP 404"),
    (reply(b"", status="204 No Content"), "can't be fetched: HTTP 204"),
    (reply(bytes(5001)), "has more than 5,000 bytes (prompt.images.max_bytes)"),
    (endless(OK + b"\r\n", bytes(1000)), "has more than 5,000 bytes"),
    (reply(PNG, "Content-Encoding: gzip"), "it comes compressed"),
    (resetting(OK), "can't be fetched"),
    (b"nonsense\r\n\r\n", "can't be fetched"),
]


@pytest.mark.parametrize(("sent", "words"), REFUSED)
def test_what_is_no_image_of_this_address_is_refused(tls: ssl.SSLContext, sent: bytes | Script, words: str) -> None:
    """No redirect is followed, and no more is read than an image may have."""
    found, _ = fetched(tls, sent)
    assert isinstance(found, str)
    assert words in found


def test_a_busy_host_is_asked_again(tls: ssl.SSLContext) -> None:
    """Twice; then the row fails."""
    busy = reply(b"", status="503 Service Unavailable")
    assert fetched(tls, busy, resetting(b""), reply(PNG))[0] == PNG
    found, server = fetched(tls, busy)
    assert found == "can't be fetched: HTTP 503"
    assert len(server.received) == 3


def test_a_host_that_is_too_slow_is_left(tls: ssl.SSLContext) -> None:
    """An image has its time, however it is spent."""
    found, _ = fetched(tls, endless(OK + b"Content-Length: 4000\r\n\r\n", b"x", 0.05), timeout_s=0.3, pauses_s=())
    assert isinstance(found, str)
    assert "can't be fetched" in found


@pytest.mark.parametrize("url", ["https://localhost:{port}/a", "https://127.0.0.1:{port}/a", "https://2130706433:{port}/a",
                                 "https://[::1]:{port}/a", "https://[::ffff:127.0.0.1]:{port}/a"])  # fmt: skip
def test_a_host_on_this_machine_is_not_connected_to(tls: ssl.SSLContext, url: str) -> None:
    """By whatever name: what it is looked up to decides."""
    found, server = fetched(tls, reply(PNG), url=url, is_allowed=is_public)
    assert isinstance(found, str)
    assert "is not of the public internet" in found or "can't be fetched" in found
    assert server.connections == 0


def test_one_private_address_among_others_is_enough_to_refuse_a_host(tls: ssl.SSLContext) -> None:
    """A name that leads here and elsewhere is not asked twice until it leads elsewhere."""
    seen: list[str] = []

    def only_first(address: str) -> bool:
        seen.append(address)
        return len(seen) == 1

    found, server = fetched(tls, reply(PNG), is_allowed=only_first)
    assert isinstance(found, str)  # at the second look: another address of the name, or that of the connection
    assert "not of the public internet" in found
    assert len(server.received) <= 1


@pytest.mark.parametrize("url", ["http://localhost:{port}/a", "https://me@localhost:{port}/a", "https://", "https://h:x/",
                                 "https://exämple.test/", "https://[::1", "ftp://localhost/"])  # fmt: skip
def test_other_addresses_are_not_fetched(tls: ssl.SSLContext, url: str) -> None:
    """Https alone, without a name and password."""
    found, server = fetched(tls, reply(PNG), url=url)
    assert isinstance(found, str)
    assert server.connections == 0


def test_a_certificate_of_another_name_is_refused(tls: ssl.SSLContext) -> None:
    """Trust is in the name that the cell has, not in the address that it was looked up to."""
    found, _ = fetched(tls, reply(PNG), url="https://127.0.0.1:{port}/a")
    assert isinstance(found, str)
    assert "certificate" in found.lower()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_nothing_is_fetched_through_a_proxy(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Behind it no address can be checked; a host that goes without it is fetched."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    found, server = fetched(tls, reply(PNG), url="https://images.test:{port}/a")
    assert isinstance(found, str)
    assert "the environment names a proxy" in found
    assert server.connections == 0


def test_plan_refuses_to_fetch_through_a_proxy(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent, with the key and a way out."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(cometbatch.UsageError, match=r"prompt.images.fetch: the environment names a proxy"):
        cometbatch.plan(fetching(bench, ["https://images.test/a.png"]))


def fetching(bench: Workbench, photos: list[str], **sections: Any) -> cometbatch.Job:
    """A job that fetches its images."""
    bench.write_table(pa.table({"photo": photos}))
    messages = [{"role": "user", "content": [{"image": "{{ photo }}"}]}]
    prompt = {"system": None, "user": None, "messages": messages, "images": {"fetch": True}}
    return bench.job(input={"id": None}, prompt=prompt, **sections)


def test_a_row_whose_image_can_not_be_fetched_fails_unsent(bench: Workbench) -> None:
    """The service is not asked, nothing is charged, and the run goes on with the others."""
    job = fetching(bench, ["https://127.0.0.1/a.png", "https://localhost/b.png"], target={"format": "gemini"})
    network = simulator()
    summary = carry_out(job, network)
    assert (summary.tally.failures, summary.tally.charges) == ({"template": 2}, 0)
    assert network.posts == 0
    for message in bench.result().column("error_message").to_pylist():
        assert "is not fetched: its host has an address that is not of the public internet" in message
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize("name", FORMATS)
def test_a_fetched_image_is_sent_as_bytes_and_identified_by_its_address(tls: ssl.SSLContext, name: str) -> None:
    """So that a run can be verified without the internet; formats that take no address get the bytes, too."""
    wire, address = FORMATS[name], "https://localhost:{port}/a.png"

    async def main() -> tuple[HttpRequest, HttpRequest, str]:
        async with serving(reply(PNG), server_tls=tls) as (server, _):
            url = address.format(port=server.url.rpartition(":")[2])
            bounds = ImageBounds(10_000, 10_000, 1000)
            images = Images(ImageFolder(Path(), 10_000), bounds, wire.unsupported_image, is_fetching=True)
            messages = images.identified((Message("user", (ImagePart(url),)),))
            assert isinstance(messages, tuple)
            request = wire.request_builder("m", GenerationParams(max_output_tokens=9))(messages)
            marked = HttpRequest(request.path, request.headers, request.body, (ImagePart(url),))
            fetcher = ImageFetcher(lambda _: True)
            with ThreadPoolExecutor(1) as threads:
                sender = ImageSender(lambda *_: pytest.fail("sent"), images, threads, fetcher.fetch)
                whole = await sender.filled(marked)
            await fetcher.aclose()
            return marked, whole, url

    marked, whole, url = asyncio.run(main())
    read = wire.parse_request(whole)
    assert isinstance(read, ModelRequest)
    (part,) = read.prompt.messages[0].content
    assert isinstance(part, ImagePart)
    assert part.reference == digest(PNG)
    assert url.encode() in marked.body
    assert hashlib.sha256(PNG).hexdigest().encode() not in marked.body


def test_an_image_that_is_lost_is_a_failure_of_its_row_and_not_of_the_network() -> None:
    """The loop is told that nothing was sent, so that nothing can have been billed."""
    images = Images(ImageFolder(Path("/"), 9), ImageBounds(9, 9, 9), lambda _: None, is_fetching=False)
    gone = ImagePart("nowhere/at/all.png", media_type="image/png", digest="0" * 64)
    results: list[object] = []

    async def main() -> None:
        over = asyncio.Event()

        def done(result: object) -> None:
            results.append(result)
            over.set()

        with ThreadPoolExecutor(1) as threads:
            sender = ImageSender(lambda *_: pytest.fail("sent"), images, threads, None)
            sender.send(HttpRequest("/", {}, b"\xffx\xff", (gone,)), done)
            await over.wait()

    asyncio.run(main())
    (result,) = results
    assert isinstance(result, TransportFailure)
    assert (result.kind, result.sent) == ("image", False)
