"""How to get to an address: directly, or through the proxy that the environment names.

Hides the two ways of proxies: what goes out in the clear is sent to them with its whole address, and for TLS they are
asked for a tunnel. This machine's own address is never looked for behind one.
"""

import base64
import ipaddress
import urllib.request

import httpx
from msgspec import Struct

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
        return f"Route({self.words!r})"

    @property
    def words(self) -> str:
        """The way in a few words for a person, without credentials."""
        return f"through the proxy {self.proxy}" if self.proxy is not None else "directly"

    @property
    def has_tunnel(self) -> bool:
        """Whether the proxy is asked for a tunnel."""
        return self.proxy is not None and self.service.tls_name is not None


def route_to(url: httpx.URL, *, use_environment: bool) -> Route:
    """The way to a URL's host. Raises `ValueError` where that is none."""
    if url.scheme not in _PORTS or not url.host:
        raise ValueError(f"{str(url)[:100]!r} is no http or https address")
    service = _hop(url)
    address = url.netloc.decode("ascii")
    proxy = _environment_proxy(url) if use_environment else None
    if proxy is None:
        return Route(address, service)
    headers = _credentials(proxy)
    if service.tls_name is not None:
        return Route(address, service, _hop(proxy), tunnel_headers=headers)
    return Route(address, service, _hop(proxy), f"{url.scheme}://{address}", headers)


def is_loopback(base_url: str) -> bool:
    """Whether the address is this machine's own; such traffic must not go through a proxy."""
    host = httpx.URL(base_url).host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, and names that begin like an address can be anyone's
        return False


def _hop(url: httpx.URL) -> Hop:
    host = url.raw_host.decode("ascii").strip("[]")
    return Hop(host, url.port or _PORTS.get(url.scheme, 80), host if url.scheme == "https" else None)


def _environment_proxy(url: httpx.URL) -> httpx.URL | None:
    """Raises `ValueError` in words that never quote it, since it may hold a password."""
    known = urllib.request.getproxies()
    named = known.get(url.scheme) or known.get("all")
    if not named or urllib.request.proxy_bypass(url.host):
        return None
    try:
        proxy = httpx.URL(named if "://" in named else f"http://{named}")
    except httpx.InvalidURL:
        proxy = httpx.URL("")
    if proxy.scheme not in _PORTS or not proxy.host:
        variables = f"{url.scheme.upper()}_PROXY or ALL_PROXY"
        raise ValueError(f"the environment's proxy ({variables}) is no http:// or https:// address")
    return proxy


def _credentials(proxy: httpx.URL) -> tuple[tuple[str, str], ...]:
    if not proxy.userinfo:
        return ()
    coded = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    return (("proxy-authorization", f"Basic {coded}"),)
