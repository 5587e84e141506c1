"""One exchange over HTTP, and the only place that knows the key.

Hides the network: whatever it does to us comes back as a value.
"""

import asyncio
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self, TypeAlias

from cometbatch.errors import UsageError
from cometbatch.job.variables import variables_in
from cometbatch.records import HttpRequest, HttpResponse, PoolStats, TransportFailure
from cometbatch.transport.access import Access as Access
from cometbatch.transport.backends import NO_HEADERS, PoolBackend, Post
from cometbatch.transport.headers import read_values
from cometbatch.transport.http1 import NoReplyError
from cometbatch.transport.http1 import raise_open_files as raise_open_files
from cometbatch.transport.key import check_key
from cometbatch.transport.route import route_to
from cometbatch.transport.tls import USUAL, tls_context
from cometbatch.transport.tls import TlsSettings as TlsSettings

if TYPE_CHECKING:
    import httpx

    from cometbatch.transport.httpx_backend import HttpxBackend

REDACTED = "[key]"
MIN_KEY_CHARS = 11  # of a key of the service (contract sheet, section 1); a shorter one is a placeholder like "none"
DETAIL_CHARS = 300  # of a failure's words at most; they may quote a broken server
CATALOG_TIMEOUT_S = 30.0  # seconds for a request without the key; the official limit (contract sheet, section 1)
SUCCESS = range(200, 300)

Reply: TypeAlias = HttpResponse | TransportFailure


class Transport:
    """Adds address and key to a request, sends it, and gives the result as a value.

    `base_url` has no trailing version (`/v1`). `timeout_s`: seconds for one whole attempt, from connecting to the last
    byte. The key goes out as a Bearer header, which every route accepts (contract sheet, section 1). It is blanked out
    of every reply, since a service may quote it in its refusal. An answer stays as it is where the key is too short to
    be one of the service's: blanking "none" or "test" would change the model's text. `headers` go out with the key
    alone; what they name of the environment is read here, and blanked out like the key. `environment`: where that is
    read; None is that of this process.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float,
        http: "httpx.AsyncBaseTransport | None" = None,
        tls: TlsSettings = USUAL,
        headers: Mapping[str, str] = NO_HEADERS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        environment = os.environ if environment is None else environment
        given, self._secrets = read_values(headers, environment)
        self._variables = {name: environment[name] for name in variables_in(headers.values())}
        self._headers, self._tls = headers, tls
        self._base_url = base_url.rstrip("/")
        self._key = check_key(key)
        self._key_bytes = self._key.encode()
        self._is_real_key = len(self._key) >= MIN_KEY_CHARS
        self._timeout_s = timeout_s
        self._backend = (
            PoolBackend(self._base_url, tls, given) if http is None else _httpx_backend(self._base_url, http, given)
        )
        self.send: Post = self._backend.poster(timeout_s, self._key)
        """Begin to POST one request, with the key; call back once with the result, which `read` makes a value of.

        It returns something that can be cancelled.
        """

    def __repr__(self) -> str:
        return f"Transport({self._base_url!r})"

    @classmethod
    def reaching(cls, access: Access) -> Self:
        """The same as the transport of another process that has given its `access`."""
        return cls(
            access.base_url,
            access.key,
            timeout_s=access.timeout_s,
            tls=access.tls,
            headers=access.headers,
            environment=access.variables,
        )

    def access(self) -> Access:
        """What another process of this run needs to reach the service as this one does: with the key."""
        return Access(self._base_url, self._key, self._timeout_s, self._tls, dict(self._headers), dict(self._variables))

    @property
    def pool_stats(self) -> PoolStats | None:
        """How connections were used; None where the pool is not ours, or nothing was sent."""
        return self._backend.stats

    def limit_connections(self, most: int) -> None:
        """Keep at most this many connections open, those that rest between two requests included."""
        self._backend.limit_connections(most)

    def read(self, result: Reply | Exception) -> Reply:
        """The result of an exchange as a value without the key. Raises an exception that is a mistake of ours."""
        if isinstance(result, HttpResponse):
            return self._clean(result)
        if isinstance(result, NoReplyError):
            return TransportFailure(result.kind, self._detail(str(result)), result.sent)
        if isinstance(result, Exception):
            raise result
        return result

    def quotes_key(self, text: str) -> bool:
        """Whether the key, or another secret of its requests, is in it."""
        if self._secrets and any(secret in text for secret in self._secrets):
            return True
        return self._key in text

    async def exchange(self, request: HttpRequest) -> Reply:
        """POST one request, with the key, and wait for the result."""
        return await self._exchange("POST", request, self._timeout_s, self._key)

    async def fetch_public(self, path: str, *, timeout_s: float = CATALOG_TIMEOUT_S) -> Reply:
        """GET something that needs no key, such as the catalog."""
        return await self._exchange("GET", HttpRequest(path, {}, b""), timeout_s, None)

    def blank_out(self, text: str | None) -> str | None:
        """The text without the key: what a reply hides in JSON's escapes shows only once it is decoded."""
        if text is None or self._is_real_key:
            return None if text is None else self._redact(text)
        return self._without_secrets(text)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._backend.aclose()

    async def _exchange(self, method: str, request: HttpRequest, timeout_s: float, key: str | None) -> Reply:
        waiter: asyncio.Future[HttpResponse | Exception] = asyncio.get_running_loop().create_future()
        sending = self._backend.send(method, request, timeout_s, key, functools.partial(_settle, waiter))
        try:
            return self.read(await waiter)
        except asyncio.CancelledError:
            sending.cancel()
            raise

    def _clean(self, reply: HttpResponse) -> HttpResponse:
        """The reply without the key."""
        if self._secrets:
            reply = self._without_headers(reply)
        is_in_body = self._key_bytes in reply.body and (self._is_real_key or reply.status not in SUCCESS)
        if not is_in_body and self._key not in "\n".join(reply.headers.values()):
            return reply
        body = reply.body.replace(self._key_bytes, REDACTED.encode()) if is_in_body else reply.body
        return HttpResponse(reply.status, {name: self._redact(each) for name, each in reply.headers.items()}, body)

    def _without_headers(self, reply: HttpResponse) -> HttpResponse:
        """The reply without secrets of the job's own headers."""
        body, headers = reply.body, reply.headers
        for secret in self._secrets:
            body = body.replace(secret.encode(), REDACTED.encode())
        clean = {name: self._without_secrets(value) for name, value in headers.items()}
        return reply if body == reply.body and clean == headers else HttpResponse(reply.status, clean, body)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text

    def _detail(self, words: str) -> str:
        """An error's words in one line, of bounded length."""
        words = " ".join(self._redact(words).split())
        return words if len(words) <= DETAIL_CHARS else words[: DETAIL_CHARS - 1] + "…"

    def _redact(self, text: str) -> str:
        return self._without_secrets(text).replace(self._key, REDACTED)


def _httpx_backend(base_url: str, http: "httpx.AsyncBaseTransport", headers: Mapping[str, str]) -> "HttpxBackend":
    from cometbatch.transport.httpx_backend import HttpxBackend  # noqa: PLC0415 - httpx takes long to load

    return HttpxBackend(base_url, http, headers)


def _settle(waiter: "asyncio.Future[HttpResponse | Exception]", result: HttpResponse | Exception) -> None:
    if not waiter.done():  # whoever waited may have been cancelled a moment ago
        waiter.set_result(result)


def describe_route(base_url: str, tls: TlsSettings = USUAL) -> str:
    """How this address is reached, in a few words without credentials. Raises `UsageError` where it can't be."""
    try:
        route = route_to(base_url)
    except ValueError as error:
        raise UsageError(f"There is no way to the service: {error}.") from None
    if route.service.tls_name is not None and not tls.is_usual:
        tls_context(tls)
    return route.description + tls.description
