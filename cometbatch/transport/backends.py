"""The usual way to the service: our own pool, bytes in and bytes out.

A request object, a response object and their headers take several times the time of all else. And httpx's own pool
collapses from some sixteen requests in flight on (its bookkeeping is quadratic: encode/httpx #3215, encode/httpcore
#929). The other way, which looks the same from above, is `httpx_lane`.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from cometbatch.records import HttpRequest, HttpResponse, PoolStats
from cometbatch.transport.http1.connection import NoReplyError
from cometbatch.transport.http1.pool import Done, Exchange, Pool, cancelled, ignore
from cometbatch.transport.route import Route, route_to, target_of
from cometbatch.transport.tls import TlsSettings

T = TypeVar("T")


class PoolBackend:
    """Our own pool, along the way that the environment names."""

    def __init__(self, base_url: str, trust: TlsSettings) -> None:
        self._base_url = base_url
        self._trust = trust
        self._pool: Pool | None = None

    @property
    def stats(self) -> PoolStats | None:
        """How connections were used; None where nothing was sent."""
        return None if self._pool is None else self._pool.stats

    def send(self, method: str, request: HttpRequest, timeout_s: float, key: str | None, done: Done) -> "Begun":
        """Begin one exchange, with this key; call back once with the reply, or with why there is none."""
        try:
            pool, head = self._pool or self._open_pool(), self._head_of(method, request, key)
        except ValueError as error:
            return Refused(NoReplyError("connection", str(error), sent=False), done)
        return pool.send(_whole(head, request.body), timeout_s, done)

    def poster(self, timeout_s: float, key: str) -> "Post":
        """What begins POSTs as `send` does. Where path and headers are those of the one before, so is the head."""
        head, path, headers = b"", "", dict[str, str]()

        def post(request: HttpRequest, done: Done) -> "Begun":
            nonlocal head, path, headers
            pool = self._pool
            if pool is not None and request.headers is headers and request.path is path:
                return pool.send(_whole(head, request.body), timeout_s, done)
            begun = self.send("POST", request, timeout_s, key, done)
            if not isinstance(begun, Refused):
                head, path, headers = self._head_of("POST", request, key), request.path, request.headers
            return begun

        return post

    async def aclose(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            await self._pool.aclose()

    @functools.cached_property
    def _route(self) -> Route:
        """The way, looked up once: pool and heads must not go different ways."""
        return route_to(self._base_url)

    def _open_pool(self) -> Pool:
        self._pool = Pool(self._route, self._trust)
        return self._pool

    def _head_of(self, method: str, request: HttpRequest, key: str | None) -> bytes:
        """A request up to the number that is its content-length: the same for all rows."""
        route = self._route
        target = route.target_prefix + target_of(self._base_url, request.path)
        named = {"host": route.address, **with_key(request.headers, key), **dict(route.headers)}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        return "\r\n".join([*lines, "content-length: "]).encode()


def _whole(head: bytes, body: bytes) -> bytes:
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


class InTask(Generic[T]):
    """An exchange that is a coroutine, carried out; its result, or what it raises, is called back with."""

    def __init__(self, exchange: Callable[[], Coroutine[Any, Any, T]], done: Callable[[T | Exception], None]) -> None:
        self._done = done
        self._task = asyncio.get_running_loop().create_task(self._carry_out(exchange))

    def cancel(self) -> None:
        """Give it up."""
        self._done = ignore
        self._task.cancel()

    async def _carry_out(self, exchange: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            came = await exchange()
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            self._done(error)
        except asyncio.CancelledError:
            self._done(cancelled())  # which nobody hears where it was `cancel`
            raise
        else:
            self._done(came)


class Refused:
    """An exchange that can't begin; which is told afterwards, as all others tell."""

    def __init__(self, error: NoReplyError, done: Done) -> None:
        self._handle = asyncio.get_running_loop().call_soon(done, error)

    def cancel(self) -> None:
        """Say nothing of it."""
        self._handle.cancel()


Begun: TypeAlias = Exchange | InTask[HttpResponse] | Refused
"""An exchange that can be cancelled."""
Post: TypeAlias = Callable[[HttpRequest, Done], Begun]


def with_key(headers: Mapping[str, str], key: str | None) -> dict[str, str]:
    """A request's own headers, and those that all have."""
    own = {"accept": "*/*", "accept-encoding": "identity"}
    return {**own, **headers, **({} if key is None else {"authorization": f"Bearer {key}"})}
