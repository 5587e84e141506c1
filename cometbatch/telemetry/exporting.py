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
from cometbatch.telemetry.attributes import Attributes
from cometbatch.telemetry.counts import Histogram, Points
from cometbatch.telemetry.delivery import Batch, Session
from cometbatch.telemetry.settings import Settings, Signal
from cometbatch.transport.route import route_to
from cometbatch.version import VERSION

_LOGGERS: Final = ("opentelemetry", "urllib3")
"""Those below would say at each export what is said here once, and some quote headers or addresses."""
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
        self._session = session
        self._resource = _resource(session.resource)
        self._scope = InstrumentationScope(names.SCOPE, VERSION, _SCHEMA)
        self._metrics = None if settings.metrics is None else _Metrics(settings.metrics)
        self._traces = None if settings.traces is None else _Traces(settings.traces, session, self._resource)
        self._sending: _Metrics | _Traces | None = None

    def export(self, batch: Batch) -> str:
        """Send numbers and spans; returns why that failed, in words that quote nothing, or ""."""
        failures = []
        if self._metrics is not None:
            self._sending = self._metrics
            failures.append(self._metrics.export(self._data(batch.points, batch.at_ns)))
        if self._traces is not None:
            self._sending = self._traces
            failures.append(self._traces.export(batch))
        return next(filter(None, failures), "")

    @property
    def under_way(self) -> str:
        """What the export that goes on has met so far. For any thread."""
        return "" if self._sending is None else self._sending.failure

    def shutdown(self) -> None:
        """Give up what is under way. For any thread."""
        for each in (self._metrics, self._traces):
            if each is not None:
                each.exporter.shutdown()

    def close(self) -> None:
        """The thread's end."""
        for logger in self._loggers:
            logger.removeFilter(self._silence)

    def _data(self, points: Mapping[str, Points], at_ns: int) -> MetricsData:
        start = self._session.start_ns
        metrics = [_metric(each, points[each.name], start, at_ns) for each in names.METRICS if points[each.name]]
        return MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(self._scope, metrics, _SCHEMA)], _SCHEMA)])


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
        NumberDataPoint(attributes, start_ns, at_ns, float(value) if isinstance(value, Decimal) else value)
        for attributes, value in points
        if not isinstance(value, Histogram)
    ]
    return Gauge(numbers) if metric.kind == "gauge" else Sum(numbers, AggregationTemporality.CUMULATIVE, True)


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


class _Metrics:
    def __init__(self, signal: Signal) -> None:
        self._http = _Http(signal)
        self.exporter = OTLPMetricExporter(session=self._http, timeout=signal.timeout_s)

    def export(self, data: MetricsData) -> str:
        return "" if self.exporter.export(data) is MetricExportResult.SUCCESS else self.failure

    @property
    def failure(self) -> str:
        return f"metrics: {self._http.ended}"


class _Traces:
    """Rows' spans below the session's, which has the environment's span (TRACEPARENT) as its parent, if there is one.

    Which are recorded is up to the parent and to OTEL_TRACES_SAMPLER, as everywhere.
    """

    def __init__(self, signal: Signal, session: Session, resource: Resource) -> None:
        self._http = _Http(signal)
        self.exporter = OTLPSpanExporter(session=self._http, timeout=signal.timeout_s)
        self._ended = _Ended()
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer(names.SCOPE, VERSION)
        parent = TraceContextTextMapPropagator().extract(session.parent, Context())
        self._root = self._tracer.start_span(
            names.ROOT_SPAN, parent, attributes=session.attributes, start_time=session.start_ns
        )
        self._below = set_span_in_context(NonRecordingSpan(self._root.get_span_context()), Context())

    def export(self, batch: Batch) -> str:
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
        is_done = not spans or self.exporter.export(spans) is SpanExportResult.SUCCESS
        return "" if is_done else self.failure

    @property
    def failure(self) -> str:
        return f"traces: {self._http.ended}"


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
        self.ended = "they could not be written"
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
