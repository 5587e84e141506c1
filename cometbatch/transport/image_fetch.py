"""Images from addresses that cells name: over https alone, from public addresses of the internet alone.

Guards: a cell can't make this machine ask its own network. A name is looked up here, every address that it has must be
public, and the connection is opened to one of these very addresses, so that no second look-up can lead elsewhere. No
redirect is followed, no proxy is used, and neither key nor headers of the job's service are sent.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from cometbatch.transport.route import route_to
from cometbatch.transport.tls import USUAL, tls_context
from cometbatch.version import VERSION

if TYPE_CHECKING:
    import httpx

TIMEOUT_S: Final = 30.0
"""Seconds that one attempt to fetch an image may take, the look-up of its name included."""
AT_ONCE: Final = 16
"""Images fetched at a time; each may be held in memory as a whole."""
MAX_WORDS: Final = 200
"""Characters of a failure's words; they may quote a broken server."""
NOT_PUBLIC: Final = "is not fetched: its host has an address that is not of the public internet"
PAUSES_S: Final = (0.5, 2.0)
"""Seconds before each further attempt, where a host is busy or breaks the connection."""
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_REDIRECTS: Final = range(300, 400)
_OK: Final = 200
_HTTPS_PORT: Final = 443
_SAFE: Final = "/%:@!$&+'(),;=~*?"  # in a path and its query, beside letters, digits and -._
_NEVER: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # of a cloud's own machines, for their settings; no machine of the internet answers there
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/3",
        "::/8",  # loopback, unspecified, and IPv4 addresses mapped into IPv6
        "64:ff9b::/96",  # IPv4 addresses behind a translator, and below
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/32",
        "2002::/16",
        "3fff::/20",
        "fc00::/7",
        "fe80::/9",  # link-local, and the site-local ones of old
        "ff00::/8",
    )
)


class FetchError(Exception):
    """An image was not fetched; the words say why."""


class _BusyError(Exception):
    """The host asks to come again."""


def is_public(address: str) -> bool:
    """Whether an address is of the public internet: not of this machine, of its networks, or a translation of these."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if "%" in address or not found.is_global or found.is_multicast or found.is_reserved:
        return False
    return not any(found.version == network.version and found in network for network in _NEVER)


def proxy_in_the_way(host: str = "images.invalid", port: int = _HTTPS_PORT) -> bool:
    """Whether the environment sends https requests to this host, or to hosts in general, through a proxy."""
    written = f"[{host}]" if ":" in host else host
    try:
        return route_to(f"https://{written}:{port}").proxy is not None
    except ValueError:  # a proxy that can't be used
        return True


class ImageFetcher:
    """Fetches images, some at a time.

    `is_allowed`: whether an address may be connected to. `timeout_s`: of one attempt. `pauses_s`: before each further
    one.
    """

    def __init__(
        self,
        is_allowed: Callable[[str], bool] = is_public,
        *,
        timeout_s: float = TIMEOUT_S,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        import httpx  # noqa: PLC0415 - takes long to load, and few runs fetch images

        self._is_allowed = is_allowed
        self._timeout_s = timeout_s
        self._pauses_s = (*pauses_s, 0.0)
        self._failures = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError)
        # Each image has a connection of its own: one that was kept could be used for another host at the same address.
        self._client = httpx.AsyncClient(
            verify=tls_context(USUAL, as_client=False),
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._room = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str, max_bytes: int) -> bytes:
        """What an https:// address gives, at most `max_bytes`. Raises `FetchError`."""
        async with self._room:
            for pause_s in self._pauses_s:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await self._get(url, max_bytes)
                except _BusyError as error:
                    words = str(error)
                except self._failures as error:
                    words = f"can't be fetched: {' '.join(str(error).split())[:MAX_WORDS] or 'no reply in time'}"
                await asyncio.sleep(pause_s)
        raise FetchError(words)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _get(self, url: str, max_bytes: int) -> bytes:
        host, port, target = _parts_of(url)
        address = await self._address_of(host, port)
        named = host if port == _HTTPS_PORT else f"{host}:{port}"
        headers = {
            "host": f"[{host}]{named.removeprefix(host)}" if ":" in host else named,
            "accept": "image/*",
            "accept-encoding": "identity",
            "user-agent": f"cometbatch/{VERSION}",
        }
        written = f"[{address}]" if ":" in address else address
        request = self._client.build_request(
            "GET", f"https://{written}:{port}{target}", headers=headers, extensions={"sni_hostname": host}
        )
        reply = await self._client.send(request, stream=True)
        try:
            peer = reply.extensions["network_stream"].get_extra_info("server_addr")
            if not self._is_allowed(str(peer[0])):
                raise FetchError(NOT_PUBLIC)
            return await _image_in(reply, max_bytes)
        finally:
            await reply.aclose()

    async def _address_of(self, host: str, port: int) -> str:
        """The address to connect to. Raises `FetchError` where the name has one that is not public."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise FetchError(NOT_PUBLIC)
        return min(addresses, key=lambda each: ":" in each)  # IPv4 first: not every machine has a way to IPv6


def _parts_of(url: str) -> tuple[str, int, str]:
    """Host, port, and path with query. Raises `FetchError` for what is not to be fetched."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _HTTPS_PORT
    except ValueError:
        raise FetchError("is no address") from None
    if parts.scheme != "https" or parts.username is not None or not re.fullmatch(r"[a-z0-9.:_-]+", host):
        raise FetchError("is no https:// address that can be fetched (a host's name is in its xn-- form)")
    if proxy_in_the_way(host, port):
        raise FetchError("is not fetched: the environment names a proxy, behind which no address can be checked")
    return host, port, quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)


async def _image_in(reply: "httpx.Response", max_bytes: int) -> bytes:
    status = reply.status_code
    if status in _REDIRECTS:
        raise FetchError(f"is redirected (HTTP {status}), and no redirect is followed")
    if status in _BUSY:
        raise _BusyError(f"can't be fetched: HTTP {status}")
    if status != _OK:
        raise FetchError(f"can't be fetched: HTTP {status}")
    if reply.headers.get("content-encoding", "identity") != "identity":
        raise FetchError("can't be fetched: it comes compressed, which was not asked for")
    pieces, size = [], 0
    async for piece in reply.aiter_raw():
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise FetchError(f"has more than {max_bytes:,} bytes (prompt.images.max_bytes)")
    return b"".join(pieces)
