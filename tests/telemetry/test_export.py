"""What a collector gets of a run, and what a run owes to a collector: nothing, and no time.

The real exporters send to a server on 127.0.0.1, which reads with the protocol's own messages.
"""

import contextlib
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cometbatch
from cometbatch.commands import telemetry
from cometbatch.records import Outcome, Usage
from cometbatch.telemetry import names
from cometbatch.telemetry.batch import Batch, Session
from cometbatch.telemetry.counts import Counts
from cometbatch.telemetry.delivery import Delivery
from cometbatch.telemetry.settings import read_settings
from cometbatch.telemetry.spans import RowSpans
from tests import otlp_collector
from tests.otlp_collector import Collector, attributes, collector
from tests.telemetry.outcomes import ASKED, answered, completion, failed
from tests.test_cli import COMMAND, LIMIT_S, command, environment
from tests.workbench import FORMATS, KEY, MODEL, SYSTEM, Workbench, carry_out, simulator

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
KINDS = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{}"
SHORT_S = 0.3  # seconds that a run's end waits here, so that tests of dead collectors are soon over


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACEPARENT", "TRACESTATE", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names."""
    with collector() as found:
        monkeypatch.setenv(ENDPOINT, found.address)
        yield found


def told(bench: Workbench, *faults: str, **sections: Any) -> cometbatch.RunSummary:
    """Run a job with telemetry on virtual time, against a simulator with faults."""
    return carry_out(bench.job(telemetry="otlp", **sections), simulator(*faults))


@pytest.mark.parametrize("format_name", FORMATS)
def test_what_comes_adds_up_to_the_summary(bench: Workbench, hears: Collector, format_name: str) -> None:
    """Tokens by kind, cost, rows by status and error, requests that were sent again: in each format."""
    bench.write_rows(150)
    summary = told(bench, "429:0.2", "400:0.1", "length:0.1", target={"format": format_name})
    tally = summary.tally
    assert min(tally.succeeded, tally.incomplete, tally.failed, summary.retries) > 0
    for field, metric in names.USAGE.items():
        assert hears.total(metric.name, **{"gen_ai.token.modality": "unknown"}) == getattr(tally, field)
    assert hears.total("cometbatch.cost_usd") == pytest.approx(float(tally.cost_usd), rel=1e-12)
    for status in ("succeeded", "incomplete", "failed"):
        assert hears.total("cometbatch.rows", status=status) == getattr(tally, status)
    for kind, rows in tally.failures.items():
        assert hears.total("cometbatch.rows", error_kind=kind) == rows
    assert hears.total("cometbatch.resent") == summary.retries
    assert hears.total("cometbatch.in_flight") == 0
    assert hears.total("cometbatch.pace") > 0
    durations = hears.points("gen_ai.client.inference.duration")
    assert sum(point.count for _, point in durations) == 150
    assert sum(point.count for each, point in durations if "error.type" in each) == tally.failed
    inputs = hears.points("gen_ai.client.inference.operation.input_tokens")
    assert sum(point.sum for _, point in inputs) == tally.input_tokens
    asked = {"chat": "openai", "responses": "openai", "messages": "anthropic", "gemini": "gcp.gemini"}[format_name]
    operation = "generate_content" if format_name == "gemini" else "chat"
    for each, _ in durations:
        assert (each["gen_ai.provider.name"], each["gen_ai.operation.name"]) == (asked, operation)
        assert (each["gen_ai.request.model"], each["server.address"]) == (MODEL, "simulator")


def test_names_units_and_kinds_are_those_of_the_table(bench: Workbench, hears: Collector) -> None:
    """All of cumulative temporality, from one start to moments that follow each other."""
    bench.write_rows(400)
    told(bench, limits={"concurrency": 4, "requests_per_minute": 300})  # a minute and more, so several exports
    assert len(hears.metrics) > 1
    for metric in names.METRICS:
        found = hears.last[metric.name]
        kind = found.WhichOneof("data")
        assert (found.unit, found.description, kind) == (metric.unit, metric.meaning, KINDS[metric.kind])
        data = getattr(found, kind)
        if kind != "gauge":
            assert data.aggregation_temporality == 2  # CUMULATIVE
            assert kind != "sum" or data.is_monotonic
        for point in data.data_points:
            assert kind != "histogram" or tuple(point.explicit_bounds) == metric.bounds
            assert 0 < point.start_time_unix_nano <= point.time_unix_nano or kind == "gauge"
    rows, times, starts = [], [], set()
    for request in hears.metrics:
        (scope,) = request.resource_metrics[0].scope_metrics
        assert (scope.scope.name, scope.scope.version) == ("cometbatch", cometbatch.__version__)
        (metric_,) = [each for each in scope.metrics if each.name == "cometbatch.rows"]
        (point,) = metric_.sum.data_points
        rows.append(point.as_int)
        times.append(point.time_unix_nano)
        starts.add(point.start_time_unix_nano)
    assert rows == sorted(rows)
    assert rows[-1] == 400
    assert times == sorted(times)
    assert len(starts) == 1


def test_spans_stand_below_that_of_the_session(
    bench: Workbench, hears: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has the span that the environment names as its parent; each failed row is there, up to ten a second."""
    monkeypatch.setenv("TRACEPARENT", PARENT.format(1))
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    bench.write_rows(60)
    summary = told(bench, "400:0.1")
    (root,) = [each for each in hears.spans if each.name == "cometbatch run"]
    rows = [each for each in hears.spans if each is not root]
    assert {each.trace_id.hex() for each in hears.spans} == {PARENT[3:35]}
    assert root.parent_span_id.hex() == PARENT[36:52]
    assert root.trace_state == "vendor=1"
    said = attributes(root.attributes)
    assert (said["cometbatch.run_id"], said["cometbatch.session"]) == (summary.run_id, 1)
    assert (said["cometbatch.succeeded"], said["cometbatch.failed"]) == (summary.succeeded, summary.failed)
    failed = [each for each in rows if each.status.code == 2]
    assert 0 < len(failed) == min(10, summary.failed)
    assert len(rows) in (len(failed), len(failed) + 1)  # the first row of all may have failed
    for span in rows:
        each = attributes(span.attributes)
        assert (span.name, span.kind) == (f"chat {MODEL}", 3)  # CLIENT
        assert span.parent_span_id == root.span_id
        assert each["gen_ai.request.model"] == MODEL
        assert ("error.type" in each) == (span.status.code == 2)
        assert not span.status.message
        assert span.start_time_unix_nano < span.end_time_unix_nano


def test_a_parent_that_is_not_sampled_has_no_spans_below_it(
    bench: Workbench, hears: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere in OpenTelemetry; the numbers come all the same."""
    monkeypatch.setenv("TRACEPARENT", PARENT.format(0))
    told(bench)
    assert (hears.spans, hears.total("cometbatch.rows")) == ([], 12)


def test_no_prompt_no_answer_and_no_key_leaves(
    bench: Workbench, hears: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in any byte of what is sent. Nor is the row's own name, or what the service said of an error."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    bench.write_rows(60)
    told(bench, "400:0.3")
    table = bench.result()
    texts = {text for column in ("response", "error_message") for text in table[column].to_pylist() if text}
    assert len(texts) > 3
    secrets = [*texts, SYSTEM, "Parcel", "note 1", KEY]
    for body in hears.raw:
        assert not [text for text in secrets if text.encode() in body]


def test_the_exporter_s_own_variables_hold(bench: Workbench, hears: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression, headers, the service's name and further attributes of it; an address for one signal alone."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue,authorization=Bearer%20abc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{hears.address}/elsewhere/traces")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=data,service.name=other")
    summary = told(bench)
    for headers in hears.headers:
        assert headers["content-encoding"] == "gzip"
        assert (headers["x-tenant"], headers["authorization"]) == ("blue", "Bearer abc")
    assert set(hears.paths) == {"/v1/metrics", "/elsewhere/traces"}
    said = attributes(hears.metrics[-1].resource_metrics[0].resource.attributes)
    assert (said["service.name"], said["team"]) == ("nightly", "data")
    assert said["service.instance.id"] == f"{summary.run_id}-1"
    assert (said["cometbatch.run_id"], said["cometbatch.session"]) == (summary.run_id, 1)


def test_a_signal_that_is_switched_off_is_not_sent(
    bench: Workbench, hears: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some collectors take metrics alone."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    told(bench)
    assert set(hears.paths) == {"/v1/metrics"}
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    told(bench, output={"path": str(bench.folder / "other.parquet")})
    assert len(hears.paths) == 1


def test_proxies_are_those_of_the_model_service(
    bench: Workbench, hears: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own address is never behind the environment's proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    told(bench)
    assert hears.total("cometbatch.rows") == 12


def test_a_session_counts_its_own_rows(bench: Workbench, hears: Collector) -> None:
    """A run that stops tells of it, too; the sessions of a run add up to it, and one without work sends nothing."""
    job = bench.settings(telemetry="otlp", limits={"concurrency": 2, "adaptive": False})
    with pytest.raises(cometbatch.BudgetReachedError):
        carry_out(cometbatch.load_job({**job, "budget": {"max_cost_usd": 0.0004}}), simulator())
    first = hears.total("cometbatch.rows")
    (root,) = [each for each in hears.spans if each.name == "cometbatch run"]
    assert attributes(root.attributes)["error.type"] == "BudgetReachedError"
    assert root.status.code == 2
    carry_out(cometbatch.load_job(job), simulator())
    assert 0 < first < 12 == first + hears.total("cometbatch.rows")
    sent = len(hears.paths)
    assert not carry_out(cometbatch.load_job(job), simulator()).had_work
    assert len(hears.paths) == sent


def test_asks_count_together_as_their_row(bench: Workbench, hears: Collector) -> None:
    """A row that was asked twice is one row, with the tokens and the cost of both asks."""
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    summary = told(bench, "wrong_type:0.5", response={"schema": schema, "max_asks": 3})
    assert summary.tally.reasked > 0
    assert hears.total("gen_ai.client.inference.usage.output_tokens") == summary.tally.output_tokens
    assert hears.total("cometbatch.cost_usd") == pytest.approx(float(summary.tally.cost_usd), rel=1e-12)
    assert hears.total("cometbatch.rows") == 12
    assert sum(point.count for _, point in hears.points("gen_ai.client.inference.duration")) == 12


def test_numbers_beyond_whole_ones_are_sent_all_the_same(hears: Collector) -> None:
    """A service may count any number of tokens; a sum that has no room as a whole number is a rounded one."""
    counts, spans = Counts(ASKED), RowSpans(ASKED)
    rows: list[Outcome] = [
        answered(0, completion=completion(usage=Usage(2**63 - 1, 2**63 - 1))),
        failed(1, usage=Usage(2**64, 1), asks=3),
    ]
    spans.record(rows, counts.record(rows), 2)
    delivery = Delivery(Session(1, {}, {}, {}), read_settings())
    delivery.put(Batch(2, counts.points(), spans.take(), {}))
    delivery.finish(LIMIT_S)
    assert delivery.failure == ""
    assert hears.total("gen_ai.client.inference.usage.input_tokens") == pytest.approx(2**63 + 2**64)
    assert len(hears.spans) == 3


DEAD = {
    "hangs": otlp_collector.hangs,
    "dribbles": otlp_collector.dribbles,
    "garbage": otlp_collector.garbage,
    "500": otlp_collector.status(500),
    "503": otlp_collector.status(503, retry_after="3600"),
    "401": otlp_collector.status(401),
    "refuses": None,
}
WORDS = {
    "500": "HTTP 500",
    "503": "HTTP 503",
    "401": "HTTP 401",
    "refuses": "no connection",
    "garbage": "no connection",
}


@contextlib.contextmanager
def dead(kind: str) -> Iterator[str]:
    """The address of a collector that takes nothing."""
    reply = DEAD[kind]
    if reply is None:
        with socket.socket() as bound:  # bound, and nobody listens
            bound.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    else:
        with collector(reply) as found:
            yield found.address


@pytest.mark.parametrize("kind", DEAD)
def test_a_dead_collector_costs_one_warning_and_no_time(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Whatever it does: the run comes to its end and says once who took nothing and why, with nothing secret in it."""
    monkeypatch.setattr(telemetry, "ENDS_WITHIN_S", SHORT_S)
    logged = logging.StreamHandler(sys.stderr)  # as an application has it
    logging.getLogger().addHandler(logged)
    try:
        with dead(kind) as address:
            monkeypatch.setenv(ENDPOINT, f"{address}/secret-token")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret")
            began = time.monotonic()
            summary = told(bench, limits={"concurrency": 1, "requests_per_minute": 6})  # 2 minutes: eight exports
            took_s = time.monotonic() - began
    finally:
        logging.getLogger().removeHandler(logged)
    assert summary.all_succeeded
    assert took_s < 5
    said = capsys.readouterr().err
    assert said.count("Warning: telemetry is not taken by") == 1, said
    assert said.startswith(f"Warning: telemetry is not taken by {address} (")
    assert len(said.splitlines()) == 1
    assert WORDS.get(kind, "") in said
    assert "secret" not in said


def test_the_end_of_a_run_waits_for_some_seconds_at_most() -> None:
    """Three, and one where whoever stopped it counts the seconds until it kills the process."""
    assert (telemetry.ENDS_WITHIN_S, telemetry.STOPS_WITHIN_S) == (3.0, 1.0)


def test_a_run_that_is_told_to_stop_ends_in_time(bench: Workbench) -> None:
    """With a collector that hangs: a second after what was in flight. What is recorded was told in its summary."""
    bench.write_rows(2_000)
    path = bench.write_job(telemetry="otlp", simulator={"latency_s": 0.05}, limits={"concurrency": 4})
    with dead("hangs") as address:
        variables = {**environment(), ENDPOINT: address, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        with subprocess.Popen(
            [*COMMAND, "run", str(path), "--json"],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.monotonic() + LIMIT_S
            while not list(bench.run_directory.glob("journal/*")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            out, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143
    assert time.monotonic() - began < 10  # on a machine that does nothing else, 1.5
    assert json.loads(out)["finished"] is False
    assert said.count("telemetry is not taken by") == 1
    assert "Traceback" not in said


def test_it_is_on_by_an_option_and_by_nothing_else(bench: Workbench, hears: Collector) -> None:
    """`--otel` does what the key does; the variables alone do nothing: no packet, and no module of OpenTelemetry."""
    path = bench.write_job(simulator={"latency_s": 0})
    code = (
        "import sys, cometbatch\n"
        f"cometbatch.run({str(path)!r}, progress=False)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests', 'google'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert hears.paths == []
    done = command("run", path, "--fresh", "--yes", "--otel")
    assert done.returncode == 0, done.stderr
    assert hears.total("cometbatch.rows") == 12
    assert "telemetry" not in done.stderr


@pytest.mark.parametrize("name", ["plan", "run"])
def test_a_missing_extra_is_refused_with_the_command_that_installs_it(bench: Workbench, name: str) -> None:
    """Before anything is sent, by `plan` as by `run`."""
    path = bench.write_job(telemetry="otlp")
    code = (
        "import sys\n"
        "from cometbatch.__main__ import main\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'opentelemetry':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        f"sys.argv = ['cometbatch', {name!r}, {str(path)!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 2
    assert "telemetry: needs the packages of OpenTelemetry: " in done.stderr
    assert "install 'cometbatch[otel]'" in done.stderr
    assert not bench.run_directory.exists()


def test_what_can_not_work_is_refused_by_the_plan(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody asks for telemetry, nobody looks at the variables."""
    monkeypatch.setenv(ENDPOINT, "localhost:4318")
    assert cometbatch.plan(bench.job()).rows == 12
    with pytest.raises(cometbatch.UsageError, match=f"{ENDPOINT}: expected an address that begins with http"):
        cometbatch.plan(bench.job(telemetry="otlp"))
    assert not Path(bench.run_directory).exists()
