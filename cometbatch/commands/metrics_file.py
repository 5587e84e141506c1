"""A run's metrics in a file, for the textfile collector of Prometheus' node exporter: a batch job can't be scraped.

The file is written aside and renamed, each 15 s and at the end, by a thread of its own. A folder that is missing, or a
disk that is full, costs one warning.
"""

import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.commands.observers import Listener, Moment
from cometbatch.errors import CometbatchError, UsageError
from cometbatch.job import Job
from cometbatch.money.exact import EXACT, format_amount
from cometbatch.records import Tally
from cometbatch.results.summary import RunSummary
from cometbatch.run_state.run import Run
from cometbatch.store import local
from cometbatch.version import VERSION

ENDING: Final = ".prom"
"""The collector reads files of this ending, and no other."""

EVERY_S: Final = 15.0
"""Seconds between two writings. The collector is scraped about that often."""

LAST_WRITE_S: Final = 5.0
"""Seconds that the end of a run waits for the last writing, which a dead file system never ends."""

Value: TypeAlias = int | float | Decimal
Samples: TypeAlias = dict[str, dict[tuple[str, ...], Value]]
"""Of each metric its values, by the values of its labels."""


class Metric(Struct, frozen=True):
    """A metric: its kind, what it tells, and the labels that it has beside `name`."""

    kind: Literal["counter", "gauge"]
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: Final[Mapping[str, Metric]] = {
    "cometbatch_run_info": Metric(
        "gauge", "The run that these metrics are of; always 1", ("run_id", "output", "version")
    ),
    "cometbatch_input_rows": Metric("gauge", "Rows of the input; with a matrix, in each cell and sample"),
    "cometbatch_rows_total": Metric(
        "counter", "Rows with an outcome, over all sessions of the run", ("status", "error_kind")
    ),
    "cometbatch_reused_rows_total": Metric("counter", "Rows of these that took an earlier answer"),
    "cometbatch_cost_usd_total": Metric("counter", "What answers cost, in US dollars, as far as it is known"),
    "cometbatch_unpriced_rows_total": Metric("counter", "Answers whose cost is unknown"),
    "cometbatch_possible_charges_usd": Metric(
        "gauge", "What requests without an answer may have cost beyond that, at most, in US dollars"
    ),
    "cometbatch_budget_usd": Metric("gauge", "The budget, in US dollars; absent without one"),
    "cometbatch_tokens_total": Metric(
        "counter", "Tokens of answers; input includes both kinds of cache, output includes reasoning", ("type",)
    ),
    "cometbatch_requests_in_flight": Metric("gauge", "Requests in flight"),
    "cometbatch_window_requests": Metric("gauge", "Requests that may be in flight at once"),
    "cometbatch_pace_per_second": Metric("gauge", "Requests that may be sent per second; +Inf without a bound"),
    "cometbatch_unanswered_seconds": Metric("gauge", "Seconds for which nothing was answered though requests failed"),
    "cometbatch_retries_total": Metric("counter", "Requests that were sent again, in this session"),
    "cometbatch_rate_limited_total": Metric("counter", "Times that the service asked to slow down, in this session"),
    "cometbatch_resent_total": Metric("counter", "Rows in flight when a session ended, over all sessions"),
    "cometbatch_finished": Metric("gauge", "1 where each row has its outcome and the result is written"),
    "cometbatch_exit_code": Metric("gauge", "How the command ended; absent while it runs"),
    "cometbatch_started_timestamp_seconds": Metric("gauge", "When the session began"),
    "cometbatch_updated_timestamp_seconds": Metric("gauge", "When this file was written"),
    "cometbatch_last_success_timestamp_seconds": Metric(
        "gauge", "When a run last ended with exit code 0; kept from the file that stood here before"
    ),
}
"""Each metric by its name. All have the label `name`: the file's own name, which no other file of its folder has."""

LAST_SUCCESS: Final = "cometbatch_last_success_timestamp_seconds"
_LAST_SUCCESS = re.compile(rb"^" + LAST_SUCCESS.encode() + rb"\{[^\n]*\} ([0-9.e+]+)$", re.MULTILINE)

TOKENS: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_input_tokens",
    "cache_write": "cache_write_input_tokens",
    "reasoning": "reasoning_output_tokens",
}
"""The types of tokens, each with its count in a tally."""


class MetricsFile(Listener):
    """Keeps a run's metrics in a file. Raises `UsageError` where the file's name has another ending than `.prom`."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        write: Callable[[Path, bytes], None] = local.write_bytes,
    ) -> None:
        if path.suffix != ENDING:
            raise UsageError(
                f"--metrics-file: {path}: the name must end in {ENDING}; the collector reads no other file."
            )
        self._clock = clock
        self._writer = Writer(path, write)
        self._samples: Samples = {}
        self._next = -math.inf
        self._retries = self._refusals = 0
        self._is_told = False
        self._is_of_others = False

    def locked(self, *, by_others: bool) -> None:
        """See `Listener`."""
        self._is_of_others = by_others

    def began(self, job: Job, run: Run, limit: int | None) -> None:  # noqa: ARG002 - as it is told
        """See `Listener`."""
        cap, charged = job.budget.max_cost_usd, run.progress.with_charges
        self._set("cometbatch_run_info", {(run.manifest.run_id, str(job.output.path), VERSION): 1})
        self._set("cometbatch_input_rows", run.manifest.calls)
        self._set("cometbatch_possible_charges_usd", EXACT.add(charged.charges_usd, run.replaced.charges_usd))
        self._set("cometbatch_resent_total", charged.charges_in_flight + run.replaced.charges_in_flight)
        self._set("cometbatch_finished", 0)
        self._set("cometbatch_started_timestamp_seconds", round(self._clock(), 3))
        if cap is not None:
            self._set("cometbatch_budget_usd", cap)

    def asked_to_slow_down(self, wait_s: float) -> None:  # noqa: ARG002 - as it is told
        """See `Listener`."""
        self._refusals += 1

    def retried(self) -> None:
        """See `Listener`."""
        self._retries += 1

    def looked(self, moment: Moment) -> None:
        """See `Listener`."""
        pace = moment.pace
        self._set("cometbatch_requests_in_flight", moment.in_flight)
        self._set("cometbatch_window_requests", pace.window)
        self._set("cometbatch_pace_per_second", math.inf if pace.per_s is None else round(pace.per_s, 3))
        self._set("cometbatch_unanswered_seconds", round(moment.unanswered_s, 1))
        if moment.at >= self._next:
            self._next = moment.at + EVERY_S
            self._count(moment.tally)
            self._write()

    def ended(self, summary: RunSummary | None, error: BaseException | None) -> None:
        """See `Listener`. Where another process has the run, also where a wait for it ended, the file is that one's."""
        if self._is_of_others:
            return
        if summary is not None:
            charges = summary.possible_charges
            self._set("cometbatch_run_info", {(summary.run_id, str(summary.output), VERSION): 1})
            self._set("cometbatch_input_rows", summary.rows)
            self._count(summary.tally)
            self._set("cometbatch_possible_charges_usd", charges.charges_usd)
            self._set("cometbatch_resent_total", summary.resent)
            self._set("cometbatch_finished", int(summary.finished))
        exit_code = _exit_code(summary, error)
        self._set("cometbatch_exit_code", exit_code)
        self._set("cometbatch_requests_in_flight", 0)
        if exit_code == 0:
            self._set(LAST_SUCCESS, round(self._clock(), 3))
        self._write()
        self._writer.close()
        self._tell_problem()

    def _count(self, tally: Tally) -> None:
        rows: dict[tuple[str, ...], Value] = {("succeeded", ""): tally.succeeded}
        rows |= {("incomplete", reason): number for reason, number in sorted(tally.incompletes.items())}
        rows |= {("failed", kind): number for kind, number in sorted(tally.failures.items())}
        self._set("cometbatch_rows_total", rows)
        self._set("cometbatch_reused_rows_total", tally.reused)
        self._set("cometbatch_cost_usd_total", EXACT.add(tally.cost_usd, tally.rejected_cost_usd))
        self._set("cometbatch_unpriced_rows_total", tally.unpriced)
        self._set("cometbatch_tokens_total", {(kind,): getattr(tally, name) for kind, name in TOKENS.items()})

    def _set(self, name: str, values: Value | dict[tuple[str, ...], Value]) -> None:
        self._samples[name] = values if isinstance(values, dict) else {(): values}

    def _write(self) -> None:
        self._set("cometbatch_retries_total", self._retries)
        self._set("cometbatch_rate_limited_total", self._refusals)
        self._set("cometbatch_updated_timestamp_seconds", round(self._clock(), 3))
        self._writer.write(self._samples.copy())
        self._tell_problem()

    def _tell_problem(self) -> None:
        if self._writer.problem and not self._is_told:
            self._is_told = True
            self.complain(f"the metrics file can't be written: {self._writer.problem} The run goes on.")


class Writer:
    """Writes samples to a file in a thread, the newest of them. `problem`: why that failed; "" where it did not."""

    def __init__(self, path: Path, write: Callable[[Path, bytes], None]) -> None:
        self.problem = ""
        self._path = path
        self._write_bytes = write
        self._waiting: queue.SimpleQueue[Samples | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="metrics-file", daemon=True)

    def write(self, samples: Samples) -> None:
        """Have them written soon."""
        if self._thread.ident is None:
            self._thread.start()
        self._waiting.put(samples)

    def close(self) -> None:
        """Wait for the last of them to be written, but no longer than `LAST_WRITE_S`."""
        self._waiting.put(None)
        self._thread.join(LAST_WRITE_S)
        if self._thread.is_alive():
            self.problem = f"{self._path}: the disk did not answer for {LAST_WRITE_S:g} s."

    def _run(self) -> None:
        last_success = _last_success(self._path)
        while (samples := self._waiting.get()) is not None:
            if self._waiting.qsize() > 1:
                continue  # a newer one waits, and perhaps the end
            kept: Samples = {} if last_success is None else {LAST_SUCCESS: {(): last_success}}
            try:
                self._write_bytes(self._path, text_of(kept | samples, self._path.stem).encode())
            except CometbatchError as error:
                self.problem = str(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
                self.problem = f"{self._path}: {type(error).__name__}."


def text_of(samples: Samples, name: str) -> str:
    """The file's content, in the text format 0.0.4 of Prometheus."""
    return "".join(f"{line}\n" for line in _lines(samples, name))


def _lines(samples: Samples, name: str) -> Iterator[str]:
    for metric, about in METRICS.items():
        if metric not in samples:
            continue
        yield f"# HELP {metric} {about.meaning}"
        yield f"# TYPE {metric} {about.kind}"
        for labels, value in samples[metric].items():
            pairs = zip(("name", *about.labels), (name, *labels), strict=True)
            said = ",".join(f'{label}="{_escaped(text)}"' for label, text in pairs)
            yield f"{metric}{{{said}}} {_number(value)}"


def _escaped(text: str) -> str:
    """A label's value. Bytes of a file's name that are no text become escapes."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: Value) -> str:
    if isinstance(value, Decimal):
        return format_amount(value)
    return "+Inf" if value == math.inf else str(value)


def _last_success(path: Path) -> float | None:
    """When a run last ended well, as the file that stands there says it; None where nothing says so."""
    try:
        found = _LAST_SUCCESS.search(path.read_bytes()) if path.is_file() else None
        return None if found is None else float(found[1])
    except (OSError, ValueError):
        return None


def _exit_code(summary: RunSummary | None, error: BaseException | None) -> int:
    """What the command ends with."""
    if isinstance(error, CometbatchError):
        return error.exit_code
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if error is not None or summary is None:
        return 1 if isinstance(error, Exception) else 130
    return 0 if summary.ended_well else 3
