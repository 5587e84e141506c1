"""One exchange over HTTP, and the only place that knows the address and the key.

Hides two things. First, httpx's own connection pool collapses from some sixteen requests in flight on (its
bookkeeping is quadratic: encode/httpx #3215, httpcore #929), so httpx is used for its types and its transport seam,
and the pool underneath is aiohttp's. Second, the network: whatever it does to us comes back as a value.
"""

import asyncio
import zlib
from collections.abc import Mapping
from typing import TypeAlias

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
            request.method, url, data=request.content or None, headers=headers, allow_redirects=False
        ) as reply:
            body = await _read_bounded(reply.content)
            received = {name.lower(): value for name, value in reply.headers.items()}
            coding = received.pop("content-encoding", "identity").strip().lower()
            if body and coding != "identity":
                body = await _inflate(body, coding)
            received.pop("content-length", None)
            received.pop("transfer-encoding", None)
            return httpx.Response(reply.status, headers=received, content=body, request=request)

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
            trust_env=self._use_environment,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )
        return self._session


class Transport:
    """Adds address and key to a request, carries it out, and returns what came of it as a value.

    `base_url` has no trailing version (`/v1`); `timeout_s` bounds one whole attempt, from connecting to the last
    byte. The key goes out as a Bearer header, which every route accepts (contract sheet, section 1), and is blanked
    out of whatever comes back, since a service may quote it in its refusal.
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
            return TransportFailure("timeout", self._redact(_words(error)))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            return TransportFailure("connection", self._redact(_words(error)))
        return HttpResponse(response.status_code, self._clean(response.headers), self._redact_bytes(content))

    def _url(self, path: str) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(self._base_url + path)
        return url

    def _clean(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name.lower(): self._redact(value) for name, value in headers.items()}

    def _redact(self, text: str) -> str:
        return text.replace(self._key, REDACTED)

    def _redact_bytes(self, body: bytes) -> bytes:
        return body.replace(self._key.encode(), REDACTED.encode())


def check_key(key: str) -> str:
    """The key as it can be sent, without surrounding white space or BOM. Raises `UsageError`, never quoting it."""
    trimmed = key.strip().strip("\ufeff").strip()
    if not trimmed:
        raise UsageError("The API key is empty. Set its environment variable to the key itself.")
    if not trimmed.isascii() or not trimmed.isprintable() or " " in trimmed:
        raise UsageError("The API key holds characters that no key has. Copy it again, without quotes or line breaks.")
    return trimmed


def is_loopback(base_url: str) -> bool:
    """Whether the address is this machine's own; such traffic must not go through a proxy."""
    host = httpx.URL(base_url).host
    return host in ("localhost", "::1") or host.startswith("127.")


def _words(error: BaseException) -> str:
    """An error's own words, or its name where it has none."""
    return str(error).strip() or type(error).__name__


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
    plain = inflater.decompress(body, MAX_BODY_BYTES)
    if inflater.unconsumed_tail:
        raise BodyTooLargeError(f"the reply inflates to more than {MAX_BODY_BYTES:,} bytes")
    if not inflater.eof:
        raise httpx.DecodingError("the compressed reply is cut short")
    return plain
