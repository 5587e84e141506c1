"""The backend for a transport with httpx's interface, which a caller hands in: for tests and unusual networks."""

import asyncio
from collections.abc import Mapping
from typing import cast

import httpx

from cometbatch.records import HttpRequest, HttpResponse, TransportFailureKind
from cometbatch.transport.backends import NO_HEADERS, InTask, Post, with_key
from cometbatch.transport.http1 import MAX_BODY_BYTES, Done, NoReplyError, out_of_time, too_large, whole_reply

# Errors from before there is a connection: nothing was sent.
UNSENT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
HTTPX_ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict, OSError)


class HttpxBackend:
    """Any transport with httpx's interface."""

    stats = None

    def __init__(self, base_url: str, http: httpx.AsyncBaseTransport, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._base_url = base_url
        self._headers = headers
        self._http = http

    def limit_connections(self, most: int) -> None:
        """Nothing: connections are the transport's own."""

    def send(
        self, method: str, request: HttpRequest, timeout_s: float, key: str | None, done: Done
    ) -> InTask[HttpResponse]:
        """Begin one exchange, with this key; call back once with the reply or a `NoReplyError`."""
        return InTask(lambda: self._exchange(method, request, timeout_s, key), done)

    def poster(self, timeout_s: float, key: str) -> Post:
        """A function that begins POSTs as `send` does."""
        return lambda request, done: self.send("POST", request, timeout_s, key, done)

    async def _exchange(self, method: str, request: HttpRequest, timeout_s: float, key: str | None) -> HttpResponse:
        is_sent = False
        try:
            async with asyncio.timeout(timeout_s):
                asked = self._request(method, request, key)
                is_sent = True  # a transport that is not ours does not say
                return await _read(await self._http.handle_async_request(asked))
        except TimeoutError:
            raise out_of_time(timeout_s, sent=is_sent) from None
        except HTTPX_ERRORS as error:
            kind: TransportFailureKind = "timeout" if isinstance(error, httpx.TimeoutException) else "connection"
            may_be_sent = is_sent and not isinstance(error, UNSENT_ERRORS)
            raise NoReplyError(kind, str(error) or type(error).__name__, sent=may_be_sent) from error

    async def aclose(self) -> None:
        """Close what was handed to us."""
        await self._http.aclose()

    def _request(self, method: str, request: HttpRequest, key: str | None) -> httpx.Request:
        headers = with_key(request.headers, key, self._headers)
        return httpx.Request(method, self._base_url + request.path, headers=headers, content=request.body)


async def _read(response: httpx.Response) -> HttpResponse:
    """The whole reply, as our own pool gives it. httpx itself decodes what it knows, without a bound, and fails else.

    Raises `NoReplyError`.
    """
    body = bytearray()
    try:
        async for piece in cast("httpx.AsyncByteStream", response.stream):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise too_large()
    finally:
        await response.aclose()
    headers = {name.lower(): value for name, value in response.headers.multi_items()}
    return await whole_reply(response.status_code, headers, bytes(body))
