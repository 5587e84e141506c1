"""Our numbers and spans in OpenTelemetry's types, sent by its own exporters. The only module that loads them.

It is loaded in the thread that sends, and only where a job asks for telemetry.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cometbatch.telemetry import names
from cometbatch.telemetry.attributes import MAX_INT64, Attributes
from cometbatch.telemetry.batch import Batch, Session
from cometbatch.telemetry.counts import Histogram, Points
from cometbatch.telemetry.settings import Settings, Signal
from cometbatch.transport.route import route_to
from cometbatch.version import VERSION

_LOGGERS: Final = ("opentelemetry", "urllib3")
"""Those below would say at each export what is said here once, and some quote headers or addresses."""
UNWRITTEN: Final = "they could not be written"
"""What stands for a failure before anything was sent."""
_SCHEMA: Final = ""  # the conventions' v0.1.0 has no address of a schema


class Exporter:
    """The exporters of one session, for one thread, in which nothing of theirs is logged from then on."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._silence = _Silence()
        self._loggers = [
            logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS
        ]
        for logger in self._loggers:
            logger.addFilter(self._silence)
        resource = _resource(session.resource)
        self._signals: list[_Metrics | _Traces] = []
        if settings.metrics is not None:
            self._signals.append(_Metrics(settings.metrics, session, resource))
        if settings.traces is not None:
            self._signals.append(_Traces(settings.traces, session, resource))
        self._sending: _Metrics | _Traces | None = None

    def export(self, batch: Batch) -> str:
        """Send numbers and spans; returns why that failed, in words that quote nothing, or ""."""
        failures = [self._send(each, batch) for each in self._signals]
        return next(filter(None, failures), "")

    @property
    def under_way(self) -> str:
        """What the export that goes on has met so far. For any thread."""
        return "" if self._sending is None else self._sending.failure

    @property
    def unconnected(self) -> int:
        """How many requests found no connection. For any thread."""
        return sum(each.http.unconnected for each in self._signals)

    def shutdown(self) -> None:
        """Give up what is under way. For any thread."""
        for each in self._signals:
            each.exporter.shutdown()

    def close(self) -> None:
        """The thread's end."""
        for logger in self._loggers:
            logger.removeFilter(self._silence)

    def _send(self, signal: "_Metrics | _Traces", batch: Batch) -> str:
        self._sending = signal
        signal.http.ended = UNWRITTEN
        try:
            is_taken = signal.export(batch)
        except Exception:  # noqa: BLE001 - older exporters raise what the network did
            is_taken = False
        return "" if is_taken else signal.failure


def _resource(ours: Mapping[str, str | int]) -> Resource:
    """What we say of the service, below what the environment does (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES)."""
    return Resource({**Resource.create().attributes, **ours, **OTELResourceDetector().detect().attributes})


def _metric(metric: names.Metric, points: Points, start_ns: int, at_ns: int) -> Metric:
    return Metric(metric.name, metric.meaning, metric.unit, _points_of(metric, points, start_ns, at_ns))


def _points_of(metric: names.Metric, points: Points, start_ns: int, at_ns: int) -> HistogramData | Gauge | Sum:
    if metric.kind == "histogram":
        histograms = [_histogram(attributes, value, start_ns, at_ns) for attributes, value in points]
        return HistogramData(histograms, AggregationTemporality.CUMULATIVE)
    numbers = [
        NumberDataPoint(attributes, start_ns, at_ns, _number(value))
        for attributes, value in points
        if not isinstance(value, Histogram)
    ]
    return Gauge(numbers) if metric.kind == "gauge" else Sum(numbers, AggregationTemporality.CUMULATIVE, True)


def _number(value: float | Decimal) -> int | float:
    """A number that the protocol has room for."""
    return value if isinstance(value, int) and value <= MAX_INT64 else float(value)


def _histogram(attributes: Attributes, value: object, start_ns: int, at_ns: int) -> HistogramDataPoint:
    assert isinstance(value, Histogram)  # noqa: S101 - the metric's kind says so
    assert value.least is not None and value.most is not None  # noqa: S101, PT018 - one without values is no point
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start_ns,
        time_unix_nano=at_ns,
        count=value.count,
        sum=value.sum,
        bucket_counts=value.counts,
        explicit_bounds=value.bounds,
        min=value.least,
        max=value.most,
    )


class _Sent:
    """One signal."""

    def __init__(self, signal: Signal, name: str) -> None:
        self.http = _Http(signal)
        self._name = name

    @property
    def failure(self) -> str:
        """Why it can't be sent, as it looks at present."""
        return f"{self._name}: {self.http.ended}"


class _Metrics(_Sent):
    """The numbers, each time all of them."""

    def __init__(self, signal: Signal, session: Session, resource: Resource) -> None:
        super().__init__(signal, "metrics")
        self.exporter = OTLPMetricExporter(session=self.http, timeout=signal.timeout_s)
        self._start_ns = session.start_ns
        self._resource = resource
        self._scope = InstrumentationScope(names.SCOPE, VERSION, _SCHEMA)

    def export(self, batch: Batch) -> bool:
        """Whether they were taken."""
        metrics = [
            _metric(each, batch.points[each.name], self._start_ns, batch.at_ns)
            for each in names.METRICS
            if batch.points[each.name]
        ]
        scope = ScopeMetrics(self._scope, metrics, _SCHEMA)
        data = MetricsData([ResourceMetrics(self._resource, [scope], _SCHEMA)])
        return self.exporter.export(data) is MetricExportResult.SUCCESS


class _Traces(_Sent):
    """Rows' spans below the session's, which has the environment's span (TRACEPARENT) as its parent, if there is one.

    Which are recorded is up to the parent and to OTEL_TRACES_SAMPLER, as everywhere.
    """

    def __init__(self, signal: Signal, session: Session, resource: Resource) -> None:
        super().__init__(signal, "traces")
        self.exporter = OTLPSpanExporter(session=self.http, timeout=signal.timeout_s)
        self._ended = _Ended()
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer(names.SCOPE, VERSION)
        parent = TraceContextTextMapPropagator().extract(session.parent, Context())
        self._root = self._tracer.start_span(
            names.ROOT_SPAN, parent, attributes=session.attributes, start_time=session.start_ns
        )
        self._below = set_span_in_context(NonRecordingSpan(self._root.get_span_context()), Context())

    def export(self, batch: Batch) -> bool:
        """Whether they were taken."""
        for each in batch.spans:
            kind = SpanKind.CLIENT if each.is_sent else SpanKind.INTERNAL
            span = self._tracer.start_span(each.name, self._below, kind, each.attributes, start_time=each.start_ns)
            if each.is_failed:
                span.set_status(Status(StatusCode.ERROR))
            span.end(each.end_ns)
        if batch.end is not None:
            self._root.set_attributes(batch.end)
            if names.ERROR_TYPE in batch.end:
                self._root.set_status(Status(StatusCode.ERROR))
            self._root.end(batch.at_ns)
        spans = self._ended.take()
        return not spans or self.exporter.export(spans) is SpanExportResult.SUCCESS


class _Ended(SpanProcessor):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is to be done."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it, if it is sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._spans.append(span)

    def take(self) -> Sequence[ReadableSpan]:
        """The spans since the last time."""
        spans, self._spans = self._spans, []
        return spans


class _Http(requests.Session):
    """What the exporter sends with: on the route that the environment gives, and with a word for how it ended."""

    def __init__(self, signal: Signal) -> None:
        super().__init__()
        self.ended = UNWRITTEN
        self.unconnected = 0
        self._is_direct = route_to(signal.endpoint).proxy is None

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Proxies as for the model service: NO_PROXY as curl reads it, and none for this machine's own address."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return {**settings, "proxies": {}} if self._is_direct else settings

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send one request."""
        self.ended = "no answer in time"
        try:
            response = super().send(request, **kwargs)
        except requests.Timeout:
            raise
        except requests.exceptions.ProxyError:
            self.ended = "no connection through the proxy"
            raise
        except requests.exceptions.SSLError:
            self.ended = "no connection with a certificate that is trusted"
            raise
        except requests.ConnectionError:
            self.ended = "no connection"
            self.unconnected += 1
            raise
        except Exception as error:
            self.ended = type(error).__name__
            raise
        self.ended = f"HTTP {response.status_code}"
        return response


class _Silence(logging.Filter):
    """Drops what is logged in the thread that made it."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged."""
        return record.thread != self._thread
