"""One exchange over HTTP, and the only place that knows the address and the key.

Hides two things. First, httpx's own connection pool collapses from some sixteen requests in flight on (its
bookkeeping is quadratic: encode/httpx #3215, httpcore #929), so httpx is used for its types and its transport seam,
and the pool underneath is aiohttp's. Second, the network: whatever it does to us comes back as a value.
"""

import asyncio
import base64
import ipaddress
import urllib.request
import zlib
from typing import Any, TypeAlias

import aiohttp
import httpx
import yarl

from cometbatch.errors import UsageError
from cometbatch.records import HttpRequest, HttpResponse, TransportFailure

MAX_BODY_BYTES = 32 * 1024 * 1024  # far above any text answer; a reply beyond it is not one
CONNECT_TIMEOUT_S = 30.0
IDLE_CONNECTION_S = 15.0  # below the usual keep-alive of servers, so that they rarely close one under a request
INLINE_INFLATE_BYTES = 64 * 1024  # compressed bodies above this are inflated in a thread
REDACTED = "[key]"
NOT_IN_KEYS = frozenset(" \"'`")  # what comes along when a key is copied with its surroundings
MIN_KEY_CHARS = 11  # of any key of the service (contract sheet, section 1); shorter ones are placeholders like "none"
DETAIL_CHARS = 300  # of a failure's words, which may quote what a broken server sent

BODY_HEADERS = (b"content-encoding", b"content-length", b"transfer-encoding")  # untrue once the body is read

Reply: TypeAlias = HttpResponse | TransportFailure


class BodyTooLargeError(httpx.ReadError):
    """The reply's body passed `MAX_BODY_BYTES`; the rest of it was not read."""


class AiohttpPool(httpx.AsyncBaseTransport):
    """aiohttp's connections behind httpx's transport interface. The caller bounds the requests in flight and the time.

    Redirects are never followed and cookies never kept. Bodies are bounded, before and after inflating.
    """

    def __init__(self, *, use_environment: bool = True) -> None:
        self._use_environment = use_environment
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[yarl.URL, dict[str, Any]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, whole body read. Raises httpx's exceptions, like any httpx transport."""
        try:
            return await self._exchange(request)
        except httpx.HTTPError:
            raise
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise httpx.ConnectTimeout(_words(error), request=request) from error
        except aiohttp.ClientConnectorError as error:
            raise httpx.ConnectError(_words(error), request=request) from error
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
            # ValueError: aiohttp raises it, bare, for some malformed addresses and headers.
            raise httpx.RemoteProtocolError(_words(error), request=request) from error

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        url = yarl.URL(str(request.url), encoded=True)  # as built: a model's slash stays %2F
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        session = self._session or self._open()
        async with session.request(
            request.method,
            url,
            data=request.content or None,
            headers=headers,
            allow_redirects=False,
            **self._proxy_for(url.origin()),
        ) as reply:
            body = await _read_bounded(reply.content)
            coding = reply.headers.get("content-encoding", "").strip().lower() or "identity"
            if body and coding != "identity":
                body = await _inflate(body, coding)
            # As bytes: not every header is ASCII, and a billed answer must not be lost over one that is not.
            received = [(name, value) for name, value in reply.raw_headers if name.lower() not in BODY_HEADERS]
            return httpx.Response(reply.status, headers=received, content=body, request=request)

    def _proxy_for(self, origin: yarl.URL) -> dict[str, Any]:
        if origin not in self._proxies:
            self._proxies[origin] = _environment_proxy(origin) if self._use_environment else {}
        return self._proxies[origin]

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the runner's slots are the bound
                keepalive_timeout=IDLE_CONNECTION_S,
                ssl=httpx.create_ssl_context(trust_env=self._use_environment),
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # it has no bound of ours
            trust_env=False,  # would add ~/.netrc, which it refuses beside our header, and two threads a request
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )
        return self._session


class Transport:
    """Adds address and key to a request, carries it out, and returns what came of it as a value.

    `base_url` has no trailing version (`/v1`); `timeout_s` bounds one whole attempt, from connecting to the last
    byte. The key goes out as a Bearer header, which every route accepts (contract sheet, section 1), and is blanked
    out of whatever comes back, since a service may quote it in its refusal. Only an answer is left as it is where
    the key is too short to be one of the service's: blanking "none" or "test" would change what the model said.
    """

    def __init__(
        self, base_url: str, key: str, *, timeout_s: float, http: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = check_key(key)
        self._timeout_s = timeout_s
        self._http = http or AiohttpPool(use_environment=not is_loopback(base_url))
        self._urls: dict[str, httpx.URL] = {}

    def __repr__(self) -> str:
        return f"Transport({self._base_url!r})"

    async def exchange(self, request: HttpRequest) -> Reply:
        """POST one request, with the key."""
        headers = {**request.headers, "authorization": f"Bearer {self._key}", "accept-encoding": "identity"}
        return await self._send("POST", request.path, headers, request.body, self._timeout_s)

    async def fetch_public(self, path: str, *, timeout_s: float = 30.0) -> Reply:
        """GET something that needs no key, such as the catalog; 30 s is the official limit (sheet, section 1)."""
        return await self._send("GET", path, {"accept-encoding": "identity"}, b"", timeout_s)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Reply:
        try:
            async with asyncio.timeout(timeout_s):
                request = httpx.Request(method, self._url(path), headers=headers, content=body)
                response = await self._http.handle_async_request(request)
                content = await response.aread()
                await response.aclose()
        except BodyTooLargeError as error:
            return TransportFailure("too_large", str(error))
        except TimeoutError:
            return TransportFailure("timeout", f"no whole reply within {timeout_s:g} s")
        except httpx.TimeoutException as error:
            return TransportFailure("timeout", self._detail(error))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict, OSError) as error:
            return TransportFailure("connection", self._detail(error))
        if len(self._key) >= MIN_KEY_CHARS or not response.is_success:
            content = content.replace(self._key.encode(), REDACTED.encode())
        return HttpResponse(response.status_code, self._clean(response.headers), content)

    def _url(self, path: str) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(self._base_url + path)
        return url

    def _clean(self, headers: httpx.Headers) -> dict[str, str]:
        return {name.lower(): self._redact(value) for name, value in headers.multi_items()}

    def _detail(self, error: BaseException) -> str:
        """An error's own words, or its name where it has none; in one line and of bounded length."""
        words = " ".join(self._redact(str(error)).split()) or type(error).__name__
        return words if len(words) <= DETAIL_CHARS else words[: DETAIL_CHARS - 1] + "…"

    def _redact(self, text: str) -> str:
        return text.replace(self._key, REDACTED)


def check_key(key: str) -> str:
    """The key as it can be sent, without surrounding white space or BOM. Raises `UsageError`, never quoting it."""
    trimmed = key.strip().strip("\ufeff").strip()
    if not trimmed:
        raise UsageError("The API key is empty. Set its environment variable to the key itself.")
    if not trimmed.isascii() or not trimmed.isprintable() or not NOT_IN_KEYS.isdisjoint(trimmed):
        raise UsageError("The API key holds characters that no key has. Copy it again, without quotes or line breaks.")
    return trimmed


def is_loopback(base_url: str) -> bool:
    """Whether the address is this machine's own; such traffic must not go through a proxy."""
    host = httpx.URL(base_url).host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, and names that begin like an address can be anyone's
        return False


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _environment_proxy(origin: yarl.URL) -> dict[str, Any]:
    """The proxy that the environment names for an address, and its credentials, as aiohttp's arguments."""
    named = urllib.request.getproxies().get(origin.scheme)
    if not named or origin.host is None or urllib.request.proxy_bypass(origin.host):
        return {}
    proxy = yarl.URL(named if "://" in named else f"http://{named}")
    if proxy.user is None:
        return {"proxy": proxy}
    credentials = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    # aiohttp renames this one to proxy-authorization, with and without TLS; under that name it gets lost without.
    return {"proxy": proxy.with_user(None), "proxy_headers": {"authorization": f"Basic {credentials}"}}


async def _read_bounded(stream: aiohttp.StreamReader) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyTooLargeError(f"the reply's body is larger than {MAX_BODY_BYTES:,} bytes")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _inflate(body: bytes, coding: str) -> bytes:
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"the reply is encoded as {coding[:40]!r}, which was not asked for")
    if len(body) <= INLINE_INFLATE_BYTES:
        return _inflate_bounded(body)
    return await asyncio.to_thread(_inflate_bounded, body)


def _inflate_bounded(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: tell gzip from zlib by its header
    plain = inflater.decompress(body, MAX_BODY_BYTES + 1)
    if len(plain) > MAX_BODY_BYTES:
        raise BodyTooLargeError(f"the reply inflates to more than {MAX_BODY_BYTES:,} bytes")
    if not inflater.eof:
        raise httpx.DecodingError("the compressed reply is cut short")
    return plain
