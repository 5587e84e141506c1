"""The usual backend: our own pool, bytes in and bytes out.

httpx's request, response and header objects take several times the time of everything else, and its pool collapses from
some sixteen requests in flight on (its bookkeeping is quadratic: encode/httpx #3215, encode/httpcore #929). The backend
for a transport with httpx's interface, which has the same methods, is in `httpx_backend`.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar

from cometbatch.records import HttpRequest, HttpResponse, PoolStats
from cometbatch.transport.http1 import Done, Exchange, NoReplyError, Pool, cancelled, ignore
from cometbatch.transport.route import Route, route_to, target_of
from cometbatch.transport.tls import TlsSettings

T = TypeVar("T")
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class PoolBackend:
    """Our own pool, along the route that the environment names."""

    def __init__(self, base_url: str, tls: TlsSettings, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._base_url = base_url
        self._headers = headers
        self._tls = tls
        self._pool: Pool | None = None
        self._most_connections: int | None = None

    def limit_connections(self, most: int) -> None:
        """Keep at most this many connections open. The caller keeps fewer requests than that in flight."""
        self._most_connections = most
        if self._pool is not None:
            self._pool.most_connections = most

    @property
    def stats(self) -> PoolStats | None:
        """How connections were used; None where nothing was sent."""
        return None if self._pool is None else self._pool.stats

    def send(self, method: str, request: HttpRequest, timeout_s: float, key: str | None, done: Done) -> "Begun":
        """Begin one exchange, with this key; call back once with the reply or a `NoReplyError`."""
        try:
            pool, head = self._pool or self._open_pool(), self._head_of(method, request, key)
        except ValueError as error:
            return Refused(NoReplyError("connection", str(error), sent=False), done)
        return pool.send(_whole(head, request.body), timeout_s, done)

    def poster(self, timeout_s: float, key: str) -> "Post":
        """A function that begins POSTs as `send` does, and keeps a head for the next request with the same headers."""
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
        """Looked up once: pool and heads must use the same route."""
        return route_to(self._base_url)

    def _open_pool(self) -> Pool:
        self._pool = Pool(self._route, self._tls)
        if self._most_connections is not None:
            self._pool.most_connections = self._most_connections
        return self._pool

    def _head_of(self, method: str, request: HttpRequest, key: str | None) -> bytes:
        """The head of a request up to the value of content-length: the same for all rows."""
        route = self._route
        target = route.target_prefix + target_of(self._base_url, request.path)
        named = {"host": route.address, **with_key(request.headers, key, self._headers), **dict(route.headers)}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        return "\r\n".join([*lines, "content-length: "]).encode()


def _whole(head: bytes, body: bytes) -> bytes:
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


class InTask(Generic[T]):
    """An exchange that is a coroutine, run in a task. `done` gets its result, or the exception that it raises."""

    def __init__(self, exchange: Callable[[], Coroutine[Any, Any, T]], done: Callable[[T | Exception], None]) -> None:
        self._done = done
        self._task = asyncio.get_running_loop().create_task(self._run(exchange))

    def cancel(self) -> None:
        """Give it up: nothing is called back."""
        self._done = ignore
        self._task.cancel()

    async def _run(self, exchange: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            result = await exchange()
        except Exception as error:  # noqa: BLE001 - the caller is told
            self._done(error)
        except asyncio.CancelledError:
            self._done(cancelled())  # `cancel` has set `_done` to `ignore`
            raise
        else:
            self._done(result)


class Refused:
    """An exchange that can't begin. `done` is called in the next iteration of the loop, as for all others."""

    def __init__(self, error: NoReplyError, done: Done) -> None:
        self._handle = asyncio.get_running_loop().call_soon(done, error)

    def cancel(self) -> None:
        """Don't call back."""
        self._handle.cancel()


Begun: TypeAlias = Exchange | InTask[HttpResponse] | Refused
"""An exchange that can be cancelled."""
Post: TypeAlias = Callable[[HttpRequest, Done], Begun]


def with_key(headers: Mapping[str, str], key: str | None, given: Mapping[str, str] = NO_HEADERS) -> dict[str, str]:
    """A request's own headers and those of all requests. `given`: the job's own, which go where the key goes."""
    own = {"accept": "application/json", "accept-encoding": "identity"}
    return {**own, **headers, **({} if key is None else {**given, "authorization": f"Bearer {key}"})}
