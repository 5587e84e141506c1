"""The adaptive bars in real time: a real server that throttles, falls or fails, and the real command against it.

    .venv/bin/python -m tests.benchmarks.adaptive                       # every case: an hour
    .venv/bin/python -m tests.benchmarks.adaptive steady --bucket 1 --retry-after 1 --rounds 1

`steady` and `fall` are run with each bucket, with and without `Retry-After: 1`, and the median of three rounds is
compared with the bars. What is counted begins 5 s after the first request, and ends with the first attempt of the last
row, at least a minute later: rows that have their own answer, requests that the server took on as a share of what it
could have, the share of requests refused. Of an outage: what was sent during it, and what was answered from five
seconds after its end on, both as a share of the healthy rate. Exits with 1 where a bar is missed. No limits are
configured; the machine must not be busy with anything else.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from msgspec import Struct

CAPACITY = 125.0  # requests a second
BUCKETS_S = (0.1, 1.0)  # seconds of the capacity that the server takes at once
RETRY_AFTER_S = (0, 1)  # what a refusal asks for; 0: nothing
COUNTED_FROM_S, COUNTED_S = 5.0, 60.0
FALL_BEGINS_S, FALL_ENDS_S = 20.0, 40.0
OUTAGE_BEGINS_S, OUTAGE_ENDS_S = 10.0, 20.0
WELL_AGAIN_S = 5.0
LOOKED_AT_S = 4.0  # from then on
SPARE_S = 6.0  # seconds of rows beyond those that are counted, for a run that finds more than the server's rate
OUTAGES = ("outage", "outage, reset", "outage, silent")
CASES = ("steady", "fall", *OUTAGES)
BARS = {"steady": (0.93, 0.05), "fall": (0.85, 0.12)}  # taken on at least, refused at most
MOST_DURING, LEAST_AFTER = 0.10, 0.85
REFUSAL = json.dumps({"error": {"message": "busy", "code": ""}}).encode()


class Settings(Struct, frozen=True):
    """A server: what happens to it, requests a second, seconds of them at once, seconds that a refusal asks for."""

    case: str
    capacity: float
    bucket_s: float
    retry_after_s: int
    latency_s: float

    def rate(self, now: float) -> float:
        """Requests a second that it can do."""
        if self.case == "fall" and FALL_BEGINS_S <= now < FALL_ENDS_S:
            return self.capacity / 5
        return 0.0 if self.case in OUTAGES and OUTAGE_BEGINS_S <= now < OUTAGE_ENDS_S else self.capacity

    def possible(self, start: float, end: float) -> float:
        """Requests that it can do from one time to another."""
        return sum(self.rate(tick / 100) / 100 for tick in range(int(start * 100), int(end * 100)))

    @property
    def rows(self) -> int:
        """Enough of them."""
        return round(self.possible(0, COUNTED_FROM_S + COUNTED_S + SPARE_S))

    def __str__(self) -> str:
        asks = f"Retry-After: {self.retry_after_s}" if self.retry_after_s else "no Retry-After"
        latency = f"{self.latency_s / 2:g} to {self.latency_s * 1.5:g} s"
        return f"{self.case:14} {self.capacity:g}/s, bucket {self.bucket_s:g} s, {asks}, answers in {latency}"


class Seen(Struct):
    """What the server saw, in seconds from its first request."""

    sent: list[float]
    taken: list[float]
    answered: list[float]
    rows: set[str]
    last_first: float = 0.0  # when a row was asked for the first time, of the last one


class Figures(Struct):
    """What came of a run: `taken` and `during` and `after` as shares of what the server can do."""

    rows: int
    taken: float
    refused: float
    counted_s: float
    during: float
    after: float


class Server:
    """A token bucket behind a socket on this machine."""

    def __init__(self, settings: Settings) -> None:
        self.seen = Seen([], [], [], set())
        self._settings = settings
        self._size = self._level = settings.capacity * settings.bucket_s
        self._filled_at, self._began = 0.0, -1.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it lasts."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await self._answer(await reader.readexactly(length), writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        now, settings, seen = self._now(), self._settings, self.seen
        asked = json.loads(body)["messages"][-1]["content"]
        seen.sent.append(now)
        if asked not in seen.rows:
            seen.rows.add(asked)
            seen.last_first = now
        rate = settings.rate(now)
        self._level = min(self._size, self._level + (now - self._filled_at) * rate)
        self._filled_at = now
        if rate == 0 and settings.case != "outage":
            await self._break_off(now, writer)
        elif rate == 0 or self._level < 1:
            wait = b"Retry-After: %d\r\n" % settings.retry_after_s if settings.retry_after_s else b""
            writer.write(_reply(b"503 Down" if rate == 0 else b"429 Busy", REFUSAL, wait))
        else:
            self._level -= 1
            seen.taken.append(now)
            await asyncio.sleep(settings.latency_s * random.uniform(0.5, 1.5))
            seen.answered.append(self._now())
            writer.write(_reply(b"200 OK", _completion(asked)))

    async def _break_off(self, now: float, writer: asyncio.StreamWriter) -> None:
        if self._settings.case == "outage, silent":
            await asyncio.sleep(OUTAGE_ENDS_S - now)
        writer.transport.abort()
        raise EOFError

    def _now(self) -> float:
        if self._began < 0:
            self._began = time.monotonic()
        return time.monotonic() - self._began


def _reply(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (status, headers, len(body)) + body


def _completion(asked: str) -> bytes:
    said = {"message": {"role": "assistant", "content": f"re: {asked}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 5}
    return json.dumps({"id": "c", "model": "m", "choices": [said], "usage": usage}).encode()


async def measured(settings: Settings) -> Figures:
    """Run once."""
    server = Server(settings)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await _run(_written_job(folder, listening.sockets[0].getsockname()[1], settings.rows))
        table = pq.read_table(folder / "out.parquet", columns=["words", "response"]).to_pylist()
    listening.close()
    seen = server.seen
    start, end = COUNTED_FROM_S, seen.last_first
    sent, taken = _between(seen.sent, start, end), _between(seen.taken, start, end)
    well = OUTAGE_ENDS_S + WELL_AGAIN_S
    return Figures(
        rows=sum(row["response"] == f"re: {row['words']}" for row in table),
        taken=taken / settings.possible(start, end),
        refused=1 - taken / sent,
        counted_s=end - start,
        during=_between(seen.sent, OUTAGE_BEGINS_S, OUTAGE_ENDS_S)
        / settings.capacity
        / (OUTAGE_ENDS_S - OUTAGE_BEGINS_S),
        after=_between(seen.answered, well, well + LOOKED_AT_S) / settings.capacity / LOOKED_AT_S,
    )


def _between(times: list[float], start: float, end: float) -> int:
    return sum(start <= at < end for at in times)


def _written_job(folder: Path, port: int, rows: int) -> Path:
    lines = "".join(f"{row},row {row}\n" for row in range(rows))
    (folder / "in.csv").write_text("number,words\n" + lines, encoding="utf-8")
    job = {
        "input": {"path": "in.csv", "id": "number"},
        "output": {"path": "out.parquet"},
        "target": {"base_url": f"http://127.0.0.1:{port}", "format": "chat", "model": "m"},
        "prompt": {"user": "{{ words }}"},
        "prices": "none",
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    return path


async def _run(job: Path) -> None:
    environment = {**os.environ, "COMETAPI_KEY": "sk-needed-by-nobody"}
    command = (sys.executable, "-m", "cometbatch", "run", str(job))
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def report(settings: Settings, rounds: list[Figures]) -> bool:
    """Print the median of the rounds; whether it is within the bars, and no row is lost."""
    taken, refused = (median(getattr(each, name) for each in rounds) for name in ("taken", "refused"))
    is_within = all(each.rows == settings.rows for each in rounds)
    words = f"{settings}: {min(each.rows for each in rounds):,} of {settings.rows:,} rows"
    if settings.case in OUTAGES:
        during, after = (median(getattr(each, name) for each in rounds) for name in ("during", "after"))
        words += f", sent during {during:.1%}, answered after {after:.0%}"
        is_within = is_within and during <= MOST_DURING and after >= LEAST_AFTER
    else:
        least, most = BARS[settings.case]
        counted_s = min(each.counted_s for each in rounds)
        words += f", counted {counted_s:.0f} s, taken on {taken:.1%}, refused {refused:.1%}"
        is_within = is_within and taken >= least and refused <= most and counted_s >= COUNTED_S
    sys.stdout.write(words + ("\n" if is_within else "  MISSED\n"))
    sys.stdout.flush()
    return is_within


def chosen(given: argparse.Namespace) -> Iterator[Settings]:
    """The servers that are asked for."""
    for case in given.cases or CASES:
        buckets: Iterable[float] = given.bucket or (BUCKETS_S[:1] if case in OUTAGES else BUCKETS_S)
        waits: Iterable[int] = given.retry_after or (RETRY_AFTER_S[:1] if case in OUTAGES else RETRY_AFTER_S)
        for bucket_s, wait_s in itertools.product(buckets, waits):
            yield Settings(case, given.capacity, bucket_s, wait_s, given.latency)


def main() -> None:
    """Measure the cases that are named, or all."""
    parser = argparse.ArgumentParser(description="Adaptive concurrency in real time.")
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--capacity", type=float, default=CAPACITY, help=f"requests a second ({CAPACITY:g})")
    parser.add_argument("--bucket", type=float, action="append", help="seconds of these at once (0.1, 1)")
    parser.add_argument("--retry-after", type=int, action="append", help="seconds that a refusal asks for (0, 1)")
    parser.add_argument("--latency", type=float, default=0.2, help="mean seconds that an answer takes (0.2)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median counts (3)")
    given = parser.parse_args()
    within = [
        report(settings, [asyncio.run(measured(settings)) for _ in range(given.rounds)]) for settings in chosen(given)
    ]
    raise SystemExit(0 if all(within) else 1)


if __name__ == "__main__":
    main()
