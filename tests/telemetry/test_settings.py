"""The OTEL_* variables: what they say, and what is refused before anything is sent."""

import pytest

from cometbatch.errors import UsageError
from cometbatch.telemetry.settings import Settings, Signal, read_settings

E = "OTEL_EXPORTER_OTLP"
LOCAL = "http://localhost:4318"


@pytest.mark.parametrize(
    ("variables", "metrics", "traces"),
    [
        ({}, f"{LOCAL}/v1/metrics", f"{LOCAL}/v1/traces"),
        ({f"{E}_ENDPOINT": ""}, f"{LOCAL}/v1/metrics", f"{LOCAL}/v1/traces"),
        ({f"{E}_ENDPOINT": "https://c.example/otlp/"}, "https://c.example/otlp/v1/metrics", "https://c.example/otlp/v1/traces"),
        ({f"{E}_METRICS_ENDPOINT": "http://m.example/x"}, "http://m.example/x", f"{LOCAL}/v1/traces"),
        ({"OTEL_TRACES_EXPORTER": "none"}, f"{LOCAL}/v1/metrics", None),
        ({"OTEL_METRICS_EXPORTER": "None"}, None, f"{LOCAL}/v1/traces"),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, f"{LOCAL}/v1/metrics", f"{LOCAL}/v1/traces"),
        ({"OTEL_SDK_DISABLED": "TRUE"}, None, None),
        ({f"{E}_PROTOCOL": "http/protobuf"}, f"{LOCAL}/v1/metrics", f"{LOCAL}/v1/traces"),
    ],
)  # fmt: skip
def test_where_what_goes(variables: dict[str, str], metrics: str | None, traces: str | None) -> None:
    """As the exporter itself reads the addresses; a signal without an exporter is not sent."""
    found = read_settings(variables)
    assert found.metrics is None if metrics is None else found.metrics == Signal(metrics)
    assert found.traces is None if traces is None else found.traces == Signal(traces)


@pytest.mark.parametrize(("text", "seconds"), [("", 10.0), ("2.5", 2.5), ("15", 15.0), ("10000", 15.0), ("inf", 15.0)])
def test_an_export_never_takes_longer_than_the_time_to_the_next(text: str, seconds: float) -> None:
    """Some programs write milliseconds there."""
    found = read_settings({f"{E}_TIMEOUT": text})
    assert found.metrics is not None
    assert found.metrics.timeout_s == seconds


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (f"{E}_ENDPOINT", "localhost:4318"),
        (f"{E}_ENDPOINT", "collector"),
        (f"{E}_ENDPOINT", "grpc://secret.example:4317"),
        (f"{E}_ENDPOINT", "http://"),
        (f"{E}_ENDPOINT", "http://secret:port"),
        (f"{E}_TRACES_ENDPOINT", "secret.example/v1/traces"),
        (f"{E}_TIMEOUT", "secret"),
        (f"{E}_TIMEOUT", "0"),
        (f"{E}_TIMEOUT", "nan"),
        (f"{E}_METRICS_TIMEOUT", "-1"),
        (f"{E}_HEADERS", "Bearer secret"),
        (f"{E}_METRICS_HEADERS", "a=b,secret"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team:secret"),
        (f"{E}_PROTOCOL", "grpc"),
        (f"{E}_TRACES_PROTOCOL", "gRPC"),
    ],
)
def test_what_can_not_work_is_refused_by_name(variable: str, value: str) -> None:
    """The message names the variable, and never its value, which may be a secret."""
    with pytest.raises(UsageError) as refused:
        read_settings({variable: value})
    assert str(refused.value).startswith(f"{variable}: ")
    assert "secret" not in str(refused.value)


def test_an_address_is_shown_without_its_secrets() -> None:
    """A name and password, a path and a query stay out."""
    signal = Signal("https://name:password@c.example:4318/token/v1/metrics?key=abc")
    assert signal.shown == "https://c.example:4318"


def test_nothing_is_left_where_all_is_off() -> None:
    """No thread is begun for it."""
    assert read_settings({"OTEL_SDK_DISABLED": "true"}) == Settings(None, None)
