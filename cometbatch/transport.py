"""One exchange over HTTP, and the only place that knows the address and the key.

Hides two things. First, httpx's own connection pool collapses from some sixteen requests in flight on (its
bookkeeping is quadratic: encode/httpx #3215, httpcore #929), so httpx is used for its types and its transport seam,
and the pool underneath is aiohttp's. Second, the network: whatever it does to us comes back as a value.

Guards that a hostile server costs its own attempt alone. Memory: of all replies together, only `LARGE_REPLIES` may be
beyond `SMALL_BODY_BYTES` at a time, and the others wait unread, in the kernel and on the server's side; to wait
rather than to fail, since an honest answer is paid for. Time: one attempt's limit covers all from connecting to the
last byte, whoever waits for whom. Truth: a connection on which anything came that nobody asked for is not used again,
since the next row would take it for its answer.
"""

import asyncio
import base64
import functools
import ipaddress
import select
import time
import types
import urllib.request
import zlib
from typing import Any, TypeAlias

import aiohttp
import httpx
import yarl
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

from cometbatch.errors import UsageError
from cometbatch.records import HttpRequest, HttpResponse, TransportFailure

MAX_BODY_BYTES = 4 * 1024 * 1024  # 128,000 tokens of five characters, each escaped (\uXXXX); more is no text answer
SMALL_BODY_BYTES = 256 * 1024  # of each reply, read at once; beyond it, replies take turns
LARGE_REPLIES = 4  # at a time, whatever is in flight: 32 MiB while their pieces are put together
LARGE_REPLY_S = 60.0  # for the rest of a large reply, so that a slow one does not keep the others waiting for ever
MAX_INTERIM_REPLIES = 16  # 1xx, ahead of one reply; servers send one or two
RECEIVED_AT_ONCE_BYTES = 16 * 1024  # parsed in one go: thousands of the tiniest pieces fit, and take milliseconds
REST_S = 0.05  # of a connection between two requests: what follows a reply unasked arrives in this time, if it does
CONNECT_TIMEOUT_S = 30.0
IDLE_CONNECTION_S = 15.0  # below the usual keep-alive of servers, so that they rarely close one under a request
REDACTED = "[key]"
NOT_IN_KEYS = frozenset(" \"'`")  # what comes along when a key is copied with its surroundings
MIN_KEY_CHARS = 11  # of any key of the service (contract sheet, section 1); shorter ones are placeholders like "none"
DETAIL_CHARS = 300  # of a failure's words, which may quote what a broken server sent

BODY_HEADERS = (b"content-encoding", b"content-length", b"transfer-encoding")  # untrue once the body is read
SENT = "sent"  # a request's extension: whether any of it may have left

# Before a connection, nothing can be sent over it.
UNSENT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)

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
        self._large = asyncio.Semaphore(LARGE_REPLIES)
        self._proxies: dict[yarl.URL, dict[str, Any]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, whole body read. Raises httpx's exceptions, like any httpx transport.

        The request's extension `SENT` is False as long as certainly none of it has left.
        """
        request.extensions[SENT] = False
        try:
            return await self._exchange(request)
        except httpx.HTTPError:
            raise
        except aiohttp.ConnectionTimeoutError as error:
            raise httpx.ConnectTimeout(_words(error), request=request) from error
        except TimeoutError as error:
            raise httpx.ReadTimeout(_words(error), request=request) from error
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
            trace_request_ctx=request.extensions,
            **self._proxy_for(url.origin()),
        ) as reply:
            body = await self._read(reply)
            # As bytes: not every header is ASCII, and a billed answer must not be lost over one that is not.
            received = [(name, value) for name, value in reply.raw_headers if name.lower() not in BODY_HEADERS]
            return httpx.Response(reply.status, headers=received, content=body, request=request)

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        coding = reply.headers.get("content-encoding", "").strip().lower() or "identity"
        body = await _read_beyond(reply.content, b"", SMALL_BODY_BYTES)
        if not body or (coding == "identity" and len(body) <= SMALL_BODY_BYTES):
            return body
        async with self._large:
            try:
                async with asyncio.timeout(LARGE_REPLY_S):
                    body = await _read_bounded(reply.content, body)
            except TimeoutError:
                raise TimeoutError(f"a large reply did not end within {LARGE_REPLY_S:g} s") from None
            return body if coding == "identity" else await _inflate(body, coding)

    def _proxy_for(self, origin: yarl.URL) -> dict[str, Any]:
        if origin not in self._proxies:
            self._proxies[origin] = _environment_proxy(origin) if self._use_environment else {}
        return self._proxies[origin]

    def _open(self) -> aiohttp.ClientSession:
        connector = _Connections(
            limit=0,  # the runner's slots are the bound
            keepalive_timeout=IDLE_CONNECTION_S,
            ssl=httpx.create_ssl_context(trust_env=self._use_environment),
        )
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=connector,
            trace_configs=[tracing],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # it has no bound of ours
            trust_env=False,  # would add ~/.netrc, which it refuses beside our header, and two threads a request
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )
        return self._session


class _Connections(aiohttp.TCPConnector):
    """aiohttp's pool, of connections that are not trusted. It has no public place for this; tests/hostile holds it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        line: type[ResponseHandler] = _Line
        self._factory = functools.partial(line, loop=asyncio.get_running_loop())

    async def _get(self, key: Any, traces: Any) -> Any:
        """The connection that has rested longest, if long enough; a further one is opened otherwise."""
        resting = self._conns.get(key)
        if resting and time.monotonic() - resting[0][1] < REST_S:
            return None
        return await super()._get(key, traces)


class _Line(ResponseHandler):
    """A connection that is not trusted: bounds what one reply is made of, and is done for once it speaks unasked."""

    _interim = 0  # 1xx so far, ahead of the reply that is waited for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read little at a time, so that many connections at once do not hold up the loop."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # asyncio's own, without TLS; others read as much as they like
            transport.max_size = RECEIVED_AT_ONCE_BYTES

    def is_connected(self) -> bool:
        """Asked by the pool before a connection is used again: not if anything came after the last reply's end.

        What still lies in the socket counts, whether it is a forged reply or the connection's end.
        """
        return super().is_connected() and not self.should_close and not _has_input(self.transport)

    def set_response_params(self, **params: Any) -> None:
        """The next reply is waited for."""
        self._interim = 0
        self._payload = None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """In pieces, so that one that breaks a bound is the last to be parsed."""
        for start in range(0, len(data) or 1, RECEIVED_AT_ONCE_BYTES):
            if data and self._payload is not None and self._payload.is_eof():
                self.close()  # the reply is over; this is nobody's
                break
            super().data_received(data[start : start + RECEIVED_AT_ONCE_BYTES])
            if self._exception is not None:
                break

    def feed_data(self, data: Any, size: int = 0) -> None:
        """A reply's head was read; those of interim replies are counted."""
        if 100 <= data[0].code < 200:  # noqa: PLR2004 - the bounds are what 1xx means
            self._interim += 1
            self._payload = None  # the end of its body is not the reply's
        if self._interim > MAX_INTERIM_REPLIES:
            self.set_exception(HttpProcessingError(message=f"more than {MAX_INTERIM_REPLIES} interim replies"))
            if self.transport is not None:
                self.transport.abort()
            return
        super().feed_data(data, size)


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

    def blank_out(self, text: str | None) -> str | None:
        """The text without the key: what a reply hides in JSON's escapes shows only once it is decoded."""
        return text if text is None or len(self._key) < MIN_KEY_CHARS else self._redact(text)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Reply:
        request: httpx.Request | None = None
        try:
            async with asyncio.timeout(timeout_s):
                request = httpx.Request(method, self._url(path), headers=headers, content=body)
                response = await self._http.handle_async_request(request)
                content = await response.aread()
                await response.aclose()
        except BodyTooLargeError as error:
            return TransportFailure("too_large", str(error))
        except TimeoutError:
            return TransportFailure("timeout", f"no whole reply within {timeout_s:g} s", _may_have_left(request))
        except httpx.TimeoutException as error:
            return TransportFailure("timeout", self._detail(error), _may_have_left(request, error))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict, OSError) as error:
            return TransportFailure("connection", self._detail(error), _may_have_left(request, error))
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


def _may_have_left(request: httpx.Request | None, error: BaseException | None = None) -> bool:
    """Whether anything of a request may have reached the service; False only where that is certain."""
    if request is None or isinstance(error, UNSENT_ERRORS):
        return False
    return bool(request.extensions.get(SENT, True))  # a transport that is not ours does not say


async def _note_sent(
    _: aiohttp.ClientSession, context: types.SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
) -> None:
    """Called just before the first byte is written."""
    context.trace_request_ctx[SENT] = True


def _has_input(line: asyncio.BaseTransport | None) -> bool:
    """Whether something waits to be read from a connection, its end included."""
    opened = line.get_extra_info("socket") if line is not None else None
    if opened is None:
        return True
    waiting = select.poll()
    waiting.register(opened, select.POLLIN)
    return bool(waiting.poll(0))


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


async def _read_beyond(stream: aiohttp.StreamReader, start: bytes, bound: int) -> bytes:
    """`start` and what follows it, up to the first piece that goes beyond the bound, or to the end."""
    chunks, size = [start], len(start)
    while size <= bound and (chunk := await stream.readany()):
        size += len(chunk)
        chunks.append(chunk)
    return b"".join(chunks)


async def _read_bounded(stream: aiohttp.StreamReader, start: bytes) -> bytes:
    body = await _read_beyond(stream, start, MAX_BODY_BYTES)
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLargeError(f"the reply's body is larger than {MAX_BODY_BYTES:,} bytes")
    return body


async def _inflate(body: bytes, coding: str) -> bytes:
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"the reply is encoded as {coding[:40]!r}, which was not asked for")
    return await asyncio.to_thread(_inflate_bounded, body)  # whatever its size: a bomb is small


def _inflate_bounded(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: tell gzip from zlib by its header
    plain = inflater.decompress(body, MAX_BODY_BYTES + 1)
    if len(plain) > MAX_BODY_BYTES:
        raise BodyTooLargeError(f"the reply inflates to more than {MAX_BODY_BYTES:,} bytes")
    if not inflater.eof:
        raise httpx.DecodingError("the compressed reply is cut short")
    if inflater.unused_data:  # half an answer must not be taken for a whole one
        raise httpx.DecodingError("the compressed reply goes on after its end")
    return plain
