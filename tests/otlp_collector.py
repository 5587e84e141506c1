"""A collector of OpenTelemetry on 127.0.0.1 that parses what comes, for tests. It shares no code with our side.

Only the messages of the protocol itself (opentelemetry-proto) are read with its own library.
"""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Collector:
    """What came: requests as they were, and what they say.

    `metrics` and `spans` are in the order of arrival, `raw` are whole bodies, unpacked.
    """

    address: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        """The metrics of the last export by name."""
        (of_resource,) = self.metrics[-1].resource_metrics
        (of_scope,) = of_resource.scope_metrics
        assert len({each.name for each in of_scope.metrics}) == len(of_scope.metrics)
        return {each.name: each for each in of_scope.metrics}

    @property
    def spans(self) -> list[Any]:
        """All spans."""
        return [
            span
            for request in self.traces
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The points of a metric of the last export, each with its attributes; a number stands for itself."""
        metric = self.last[name]
        kind = metric.WhichOneof("data")
        found = []
        for point in getattr(metric, kind).data_points:
            value = point if kind == "histogram" else getattr(point, point.WhichOneof("value"))
            found.append((attributes(point.attributes), value))
        assert len({tuple(sorted(each.items())) for each, _ in found}) == len(found), "two points, one identity"
        return found

    def total(self, name: str, **chosen: object) -> Any:
        """The sum over the points that have these attributes."""
        return sum(value for each, value in self.points(name) if chosen.items() <= each.items())


def attributes(pairs: Any) -> dict[str, Any]:
    """Attributes as a mapping; a list is a tuple."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return tuple(_value(each) for each in found.values) if kind == "array_value" else found


def taken(handler: BaseHTTPRequestHandler) -> None:
    """The reply of a collector that took it."""
    handler.send_response(200)
    handler.send_header("content-type", "application/x-protobuf")
    handler.send_header("content-length", "0")
    handler.end_headers()


def status(code: int, **headers: str) -> Reply:
    """A reply with this status."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return reply


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """No HTTP at all."""
    handler.wfile.write(b"\x00\xff not HTTP \r\n\r\n")
    handler.close_connection = True


def hangs(handler: BaseHTTPRequestHandler) -> None:
    """No answer for longer than any test waits, or until the other side gives up."""
    handler.connection.settimeout(20)
    with suppress(OSError):
        handler.connection.recv(1)
    handler.close_connection = True


def dribbles(handler: BaseHTTPRequestHandler) -> None:
    """An answer of which a byte comes now and then, so that no single read takes long."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.1)
    handler.close_connection = True


@contextmanager
def collector(reply: Reply = taken) -> Iterator[Collector]:
    """A collector for the length of a `with` block, which gives this reply to everything."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.paths.append(self.path)
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            found.raw.append(body)
            if self.path.endswith("metrics"):
                found.metrics.append(ExportMetricsServiceRequest.FromString(body))
            else:
                found.traces.append(ExportTraceServiceRequest.FromString(body))
            reply(self)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """A client that gave up is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
