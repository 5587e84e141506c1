"""The route to an address: directly, or through the proxy that the environment names.

Hides the two ways to use a proxy: a request without TLS goes to it with its whole address, and for TLS it is asked for
a tunnel. This machine's own address is never behind a proxy.
"""

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from msgspec import Struct

from cometbatch.job.urls import is_loopback
from cometbatch.transport.no_proxy import is_exempt

if TYPE_CHECKING:
    import httpx

_SAFE = "/%:@!$&+'(),;=~*?"  # in a path and its query, beside letters, digits and -._
_PORTS = {"http": 80, "https": 443}


class Hop(Struct, frozen=True):
    """Where to connect to. `tls_name`: whose certificate to ask for; None is no TLS."""

    host: str
    port: int
    tls_name: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Route(Struct, frozen=True):
    """The hops to a service, the proxy first where there is one.

    `address` is the Host header's value. `target_prefix` goes before the path in a request, `headers` among its headers
    (they may hold a proxy's password), and `tunnel_headers` into the request for a tunnel.
    """

    address: str
    service: Hop
    proxy: Hop | None = None
    target_prefix: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    tunnel_headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Route({self.description!r})"

    @property
    def description(self) -> str:
        """The route in a few words for a person, without credentials."""
        return f"through the proxy {self.proxy}" if self.proxy is not None else "directly"

    @property
    def has_tunnel(self) -> bool:
        """Whether the proxy is asked for a tunnel."""
        return self.proxy is not None and self.service.tls_name is not None


def route_to(base_url: str) -> Route:
    """The route to a service, by the environment's proxy where one is named. Raises `ValueError` where there is none.

    The URL is read without httpx, which takes a twentieth of a second to load: a base URL is plain by now.
    """
    url = urlsplit(base_url)
    if url.scheme not in _PORTS or not url.hostname or not url.netloc.isascii():
        raise ValueError(f"{base_url[:100]!r} is no http or https address")
    host, usual = url.hostname, _PORTS[url.scheme]
    service = Hop(host, url.port or usual, host if url.scheme == "https" else None)
    written = f"[{host}]" if ":" in host else host
    address = written if service.port == usual else f"{written}:{service.port}"
    proxy = None if is_loopback(base_url) else _environment_proxy(url.scheme, host, service.port)
    if proxy is None:
        return Route(address, service)
    headers = _credentials(proxy)
    if service.tls_name is not None:
        return Route(address, service, _hop(proxy), tunnel_headers=headers)
    return Route(address, service, _hop(proxy), f"{url.scheme}://{address}", headers)


def target_of(base_url: str, path: str) -> str:
    """The target of a request line: the base URL's own path, then the request's, with its query if it has one."""
    return quote(urlsplit(base_url).path + path, safe=_SAFE)


def _hop(url: "httpx.URL") -> Hop:
    host = url.raw_host.decode("ascii").strip("[]")
    return Hop(host, url.port or _PORTS.get(url.scheme, 80), host if url.scheme == "https" else None)


def _environment_proxy(scheme: str, host: str, port: int) -> "httpx.URL | None":
    """Raises `ValueError` in words that never quote it, since it may hold a password."""
    import urllib.request  # noqa: PLC0415 - loads a mail parser, which no run on this machine needs

    environment = urllib.request.getproxies_environment()
    known = environment or urllib.request.getproxies()  # where no variable is set, macOS has settings of its own
    named = known.get(scheme) or known.get("all")
    is_direct = is_exempt(host, port, environment.get("no", "")) if environment else urllib.request.proxy_bypass(host)
    if not named or is_direct:
        return None
    import httpx  # noqa: PLC0415 - as above

    try:
        proxy = httpx.URL(named if "://" in named else f"http://{named}")
    except httpx.InvalidURL:
        proxy = httpx.URL("")
    if proxy.scheme not in _PORTS or not proxy.host:
        variables = f"{scheme.upper()}_PROXY or ALL_PROXY"
        raise ValueError(f"the environment's proxy ({variables}) is no http:// or https:// address")
    return proxy


def _credentials(proxy: "httpx.URL") -> tuple[tuple[str, str], ...]:
    if not proxy.userinfo:
        return ()
    coded = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    return (("proxy-authorization", f"Basic {coded}"),)
