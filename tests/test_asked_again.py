"""Runs whose answers do not fit: asked again, summed up, proven, and gone on with after a kill -9 or a stop."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.errors import DriftError
from cometbatch.records import Completion, HttpRequest, ModelRequest, Usage
from cometbatch.wire import format_for_path
from tests.stub_server import wait_until
from tests.workbench import FORMATS, KEY, KEY_ENV, MODEL, Network, Workbench, carry_out

ROWS = 30
PRICES = {"input": 1, "output": 10}
GOOD, PROSE = '{"kind":"bill"}', "It is a bill."


class Ledger(Network):
    """A service that answers each ask of a row in turn, and counts what it bills."""

    def __init__(self, *answers: str, cached: bool = False) -> None:
        super().__init__(answer=self._reply)
        self.cost_usd = Decimal(0)
        self.asked = Counter[tuple[str, int]]()  # by the row's words and the ask
        self._answers, self._cached = answers, cached
        self.instead: Callable[[httpx.Request], Ledger] = lambda _: self  # who answers a request

    def _reply(self, request: httpx.Request) -> httpx.Response | None:
        return self.instead(request).reply(request)

    def reply(self, request: httpx.Request) -> httpx.Response | None:
        """The answer to an ask, which is billed; None for what is no ask."""
        path = request.url.raw_path.decode()
        wire = format_for_path(path)
        if wire is None:
            return None
        read = wire.parse_request(HttpRequest(path, dict(request.headers), request.content))
        assert isinstance(read, ModelRequest)
        users = [message.text for message in read.prompt.messages if message.role == "user"]
        ask = len(users)
        self.asked[users[0], ask] += 1
        usage = Usage(len(request.content) // 4, 5, cache_read_input_tokens=3 if self._cached and ask > 1 else None)
        self.cost_usd += (Decimal(usage.input_tokens or 0) + 10 * 5) / 10**6
        text = self._answers[min(ask, len(self._answers)) - 1]
        reply = wire.build_response(MODEL, Completion(text, "stop", usage))
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


def bench_of(folder: Path, rows: int = ROWS) -> Workbench:
    """A table."""
    bench = Workbench(folder)
    bench.write_rows(rows)
    return bench


def settings(wire: str = "chat", **response: Any) -> dict[str, Any]:
    """A job that wants JSON."""
    asked = {"json": True, **response}
    if wire == "messages":
        asked.setdefault("mode", "prompt")  # there is no JSON mode without a schema
    return {"target": {"format": wire}, "response": asked, "prices": PRICES}


def total(bench: Workbench, name: str) -> Decimal:
    """The sum of a column of the result."""
    return sum((value for value in bench.result()[name].to_pylist() if value is not None), Decimal(0))


@pytest.mark.parametrize("wire", FORMATS)
def test_what_rows_and_run_cost_is_what_the_service_billed(tmp_path: Path, wire: str) -> None:
    """In every format, over all asks; the columns tell how many there were, and the run can be proven."""
    bench, service = bench_of(tmp_path), Ledger(PROSE, GOOD)
    first = bench.job(**settings(wire, max_asks=3))
    some = Ledger(GOOD)
    some.instead = lambda request: some if b"note 3," in request.content else service
    summary = carry_out(first, some)
    table = bench.result()
    assert summary.all_succeeded
    assert table["asks"].to_pylist() == [1 if row == 3 else 2 for row in range(ROWS)]
    assert summary.cost_usd == total(bench, "cost_usd") == service.cost_usd + some.cost_usd
    assert 0 < total(bench, "rejected_cost_usd") < service.cost_usd
    assert set(service.asked.values()) == {1}
    assert summary.to_dict()["rejected"]["asks"] == ROWS - 1
    report = cometbatch.verify(first)
    assert report.ok, report.describe()


def test_a_result_whose_asks_or_costs_were_changed_is_noticed(tmp_path: Path) -> None:
    """`verify` computes the cost from what all asks used, a price per request by their number."""
    bench = bench_of(tmp_path, 3)
    job = bench.job(**{**settings(), "prices": {"per_request": 0.5}})
    carry_out(job, Ledger(PROSE, GOOD))
    assert total(bench, "cost_usd") == 3
    assert cometbatch.verify(job).ok
    part = next((bench.run_directory / "parts").iterdir())
    table = pq.read_table(part)
    asks = table.column_names.index("asks")
    for name, values in (("asks", [1, 2, 2]), ("asks", [3, 2, 2]), ("rejected_cost_usd", [Decimal(2)] * 3)):
        at = asks if name == "asks" else table.column_names.index(name)
        changed = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        pq.write_table(changed, part)
        assert not cometbatch.verify(job).ok


def test_a_row_that_never_fits_is_incomplete_and_can_be_asked_again_later(tmp_path: Path) -> None:
    """With the words of the check, the last text and all that it cost; `--retry invalid` takes it back."""
    bench, service = bench_of(tmp_path, 3), Ledger("One.", PROSE)
    job = bench.job(**settings())
    summary = carry_out(job, service)
    row = bench.result().slice(0, 1).to_pylist()[0]
    assert (row["status"], row["finish_reason"], row["response"], row["asks"]) == ("incomplete", "invalid", PROSE, 2)
    assert row["error_message"].startswith("does not fit the schema: $: ")
    assert summary.to_dict()["incompletes"] == {"invalid": 3}
    assert "run with --retry invalid" in summary.describe()
    assert cometbatch.verify(job).ok
    again = Ledger(GOOD)
    later: Any = cometbatch.run(job, retry="invalid", progress=False, http=again)
    assert (later.reopened, later.all_succeeded, again.posts) == (3, True, 3)
    assert later.replaced.cost_usd == service.cost_usd
    assert later.cost_usd == again.cost_usd == total(bench, "cost_usd")
    assert bench.result()["asks"].to_pylist() == [1, 1, 1]
    assert cometbatch.verify(job).ok


def test_a_service_that_ignores_the_schema_stops_the_run_and_the_way_on_keeps_the_bill(tmp_path: Path) -> None:
    """Exit code 5 after twenty answers; then another mode goes on without --fresh, with one call first."""
    bench, prose = bench_of(tmp_path), Ledger(PROSE)
    with pytest.raises(cometbatch.ServiceRefusedError, match="20 answers came, and none of them was JSON") as caught:
        carry_out(bench.job(**settings()), prose)
    assert (caught.value.exit_code, caught.value.fix, prose.posts) == (5, "response", 20)
    assert caught.value.summary.cost_usd == prose.cost_usd
    assert "for 20 answers that did not fit" in caught.value.summary.describe()
    lines = "".join(path.read_text(encoding="utf-8") for path in bench.run_directory.glob("journal/*.jsonl"))
    assert lines.count(PROSE) == 20
    status = cometbatch.status(bench.job(**settings(mode="prompt")))
    assert (status.changed, status.summary.cost_usd) == ((), prose.cost_usd)

    heeding = Ledger(GOOD)
    job = bench.job(**settings(mode="prompt"))
    assert cometbatch.plan(job, http=heeding).done == 0
    summary = carry_out(job, heeding)
    assert (summary.all_succeeded, heeding.posts) == (True, ROWS)
    assert summary.cost_usd == prose.cost_usd + heeding.cost_usd
    assert total(bench, "cost_usd") == heeding.cost_usd
    assert set(bench.result()["asks"].to_pylist()) == {1}
    assert list(bench.run_directory.glob("journal/*")) == []
    assert cometbatch.verify(job).ok
    with pytest.raises(DriftError, match=r"response\.mode"):
        carry_out(bench.job(**settings(mode="json")), heeding)


def test_the_same_job_goes_on_from_the_answers_that_were_paid(tmp_path: Path) -> None:
    """The first answers are shown to the model in the second ask, and none is paid again."""
    bench, prose = bench_of(tmp_path), Ledger(PROSE)
    job = bench.job(**settings())
    with pytest.raises(cometbatch.ServiceRefusedError):
        carry_out(job, prose)
    again = Ledger(PROSE)
    with pytest.raises(cometbatch.ServiceRefusedError, match="21 answers"):
        carry_out(job, again)
    assert again.posts == 1
    good = Ledger(GOOD, GOOD)
    summary = carry_out(job, good)
    assert summary.all_succeeded
    assert Counter(ask for _, ask in good.asked) == {1: ROWS - 21, 2: 21}
    assert summary.cost_usd == total(bench, "cost_usd") == prose.cost_usd + again.cost_usd + good.cost_usd
    assert cometbatch.verify(job).ok


def test_a_row_that_fails_at_its_second_ask_keeps_the_cost_of_the_first(tmp_path: Path) -> None:
    """It has no answer and a bill, in its own columns, in the sums and after `--retry`."""
    bench, service = bench_of(tmp_path, 3), Ledger(PROSE, GOOD)

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if b"note 1," in request.content and b"does not fit" in request.content:
            return httpx.Response(400, json={"error": {"message": "too long for this one", "code": "bad"}})
        return service.reply(request)

    job = bench.job(**settings())
    summary = carry_out(job, Network(answer=refuse))
    row = bench.result().slice(1, 1).to_pylist()[0]
    assert (row["status"], row["response"], row["asks"], row["attempts"]) == ("failed", None, 2, 2)
    assert row["cost_usd"] == row["rejected_cost_usd"] > 0
    assert row["input_tokens"] > 0
    assert summary.cost_usd == total(bench, "cost_usd") == service.cost_usd
    assert cometbatch.verify(job).ok
    later: Any = cometbatch.run(job, retry="failed", progress=False, http=Ledger(GOOD))
    assert later.all_succeeded
    assert later.replaced.cost_usd == row["cost_usd"]
    assert cometbatch.verify(job).ok


def test_cached_input_of_a_later_ask_is_priced_and_proven(tmp_path: Path) -> None:
    """A service counts cached tokens only where there are some: the first ask has none."""
    bench = bench_of(tmp_path, 2)
    job = bench.job(**{**settings(), "prices": {**PRICES, "cache_read": 0.1}})
    carry_out(job, Ledger(PROSE, GOOD, cached=True))
    assert bench.result()["cache_read_input_tokens"].to_pylist() == [3, 3]
    assert cometbatch.verify(job).ok


def test_plan_shows_what_further_asks_can_cost(tmp_path: Path) -> None:
    """Beside the estimate, for the bill and for the budget."""
    bench = bench_of(tmp_path)
    once = cometbatch.plan(bench.job(prices=PRICES))
    assert (once.max_asks, once.worst_cost_usd) == (1, once.cost_usd)
    assert "every row is asked" not in once.describe()
    budget = {"max_cost_usd": 0.03}
    plan = cometbatch.plan(bench.job(**settings(max_asks=3), budget=budget))
    assert plan.cost_usd is not None
    assert plan.worst_cost_usd is not None
    assert 3 * plan.cost_usd < plan.worst_cost_usd < 5 * plan.cost_usd
    assert plan.budget is not None
    assert plan.budget.worst is not None
    assert (plan.budget.is_enough, plan.budget.worst.is_enough) == (True, False)
    assert plan.describe().count("if every row is asked 3 times (response.max_asks)") == 2


# -- a kill -9 between two asks --------------------------------------------------------------------------------------


class Waiting(ThreadingHTTPServer):
    """Room for each row's connection at once: one that finds none is tried again after seconds only."""

    daemon_threads = True
    request_queue_size = 2 * ROWS


class Held(BaseHTTPRequestHandler):
    """Answers first asks at once, later ones when it is told to: in prose, but for row 0 and every later ask."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        """One request."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        users = [turn["content"] for turn in body["messages"] if turn["role"] == "user"]
        server: Any = self.server
        with self.lock:
            server.asked[users[0], len(users)] += 1
        if len(users) > 1:
            server.go_on.wait(30)
        is_json = len(users) > 1 or "note 0," in users[0]
        usage = {"prompt_tokens": 7 * len(users), "completion_tokens": 5}
        message = {"role": "assistant", "content": GOOD if is_json else PROSE}
        reply = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
        try:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)
            self.wfile.flush()
        except OSError:
            return  # who asked is dead, and nothing is billed
        with self.lock:
            server.cost_usd += Decimal(usage["prompt_tokens"] * 1 + 5 * 10) / 10**6


def test_a_kill_between_two_asks_forgets_and_repeats_nothing(tmp_path: Path) -> None:
    """What the first asks cost is in the bill to the last digit, and no first ask is sent again."""
    bench = bench_of(tmp_path)
    server: Any = Waiting(("127.0.0.1", 0), Held)
    server.asked, server.go_on, server.cost_usd = Counter(), threading.Event(), Decimal(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = {"base_url": f"http://127.0.0.1:{server.server_port}"}
    job = bench.write_job(**{**settings(), "target": target}, limits={"concurrency": ROWS, "adaptive": False})
    command = [sys.executable, "-m", "cometbatch", "run", "--json", "--quiet", str(job)]
    environment = {**os.environ, KEY_ENV: KEY}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: sum(ask == 2 for _, ask in server.asked) == ROWS - 1, "second asks")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert server.cost_usd == ROWS * Decimal("0.000057")
    between = cometbatch.status(job)
    assert between.summary.cost_usd == server.cost_usd
    assert between.summary.possible_charges.charges == ROWS - 1
    server.go_on.set()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert {count for (_, ask), count in server.asked.items() if ask == 1} == {1}
    assert {count for (_, ask), count in server.asked.items() if ask == 2} == {2}
    due = ROWS * Decimal("0.000057") + (ROWS - 1) * Decimal("0.000064")
    assert Decimal(json.loads(done.stdout)["cost_usd"]) == due == total(bench, "cost_usd")
    assert cometbatch.verify(job).ok
