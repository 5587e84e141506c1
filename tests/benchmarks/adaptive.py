"""The adaptive bars in real time: a real server that throttles, falls or fails, and the real command against it.

    .venv/bin/python -m tests.benchmarks.adaptive                 # every case, half a minute each
    .venv/bin/python -m tests.benchmarks.adaptive --latency 1 steady fall

Prints for each case: rows that have their own answer, answers as a share of what the server could have given until the
last one, the share of requests refused; of an outage also what was sent during it, and what was answered from five
seconds after its end on, both as a share of the healthy rate. Exits with 1 where a bar is missed. The bars are for a
server that can do 150 requests a second, with no limits configured; the machine must not be busy with anything else.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from msgspec import Struct

CAPACITY = 150.0  # requests a second
BURST = 15.0  # requests that the server takes at once
TROUBLE_BEGINS_S = 10.0
FALL_ENDS_S, OUTAGE_ENDS_S = 25.0, 20.0
WELL_AGAIN_S = 5.0
LOOKED_AT_S = 4.0  # from then on
ROWS = {"steady": 4000, "steady, with Retry-After": 4000}
MORE_ROWS = 4500
OUTAGES = ("outage", "outage, reset", "outage, silent")
CASES = ("steady", "steady, with Retry-After", "fall", *OUTAGES)
BARS = {"steady": (0.85, 0.10), "fall": (0.75, 0.20)}  # answered at least, refused at most
MOST_DURING, LEAST_AFTER = 0.10, 0.85
REFUSAL = json.dumps({"error": {"message": "busy", "code": ""}}).encode()


class Seen(Struct):
    """What the server saw, in seconds from its first request."""

    sent: list[float]
    answered: list[float]
    refused: int = 0


class Server:
    """A token bucket whose rate is the case's, behind a socket on this machine."""

    def __init__(self, case: str, latency_s: float) -> None:
        self.seen = Seen([], [])
        self._case, self._latency_s = case, latency_s
        self._level, self._filled_at, self._began = BURST, 0.0, -1.0

    def rate(self, now: float) -> float:
        """Requests a second that it can do."""
        if self._case == "fall" and TROUBLE_BEGINS_S <= now < FALL_ENDS_S:
            return CAPACITY / 5
        return 0.0 if self._case in OUTAGES and TROUBLE_BEGINS_S <= now < OUTAGE_ENDS_S else CAPACITY

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
        now = self._now()
        self.seen.sent.append(now)
        rate = self.rate(now)
        self._level = min(BURST, self._level + (now - self._filled_at) * rate)
        self._filled_at = now
        if rate == 0 and self._case != "outage":
            await self._break_off(now, writer)
        elif rate == 0 or self._level < 1:
            self.seen.refused += 1
            asked = b"Retry-After: 1\r\n" if "Retry-After" in self._case else b""
            writer.write(_reply(b"503 Down" if rate == 0 else b"429 Busy", REFUSAL, asked))
        else:
            self._level -= 1
            await asyncio.sleep(self._latency_s * random.uniform(0.5, 1.5))
            self.seen.answered.append(self._now())
            writer.write(_reply(b"200 OK", _completion(json.loads(body)["messages"][-1]["content"])))

    async def _break_off(self, now: float, writer: asyncio.StreamWriter) -> None:
        if self._case == "outage, silent":
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


async def measured(case: str, latency_s: float) -> bool:
    """Run one case and print what came of it; whether it is within the bars."""
    server, rows = Server(case, latency_s), ROWS.get(case, MORE_ROWS)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await _run(_written_job(folder, listening.sockets[0].getsockname()[1], rows))
        table = pq.read_table(folder / "out.parquet", columns=["words", "response"]).to_pylist()
    listening.close()
    own = sum(row["response"] == f"re: {row['words']}" for row in table)
    return _report(case, server, own == rows, own)


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


def _report(case: str, server: Server, is_whole: bool, own: int) -> bool:
    seen = server.seen
    could = sum(server.rate(tick / 100) / 100 for tick in range(int(max(seen.answered) * 100)))
    goodput, refused = len(seen.answered) / could, seen.refused / len(seen.sent)
    sys.stdout.write(f"{case:26} rows {own:,}  answered {goodput:4.0%}  refused {refused:5.1%}")
    least, most = BARS.get(case, (0.0, 1.0))
    is_within = is_whole and goodput >= least and refused <= most
    if case in OUTAGES:
        during = _share(seen.sent, TROUBLE_BEGINS_S, OUTAGE_ENDS_S)
        after = _share(seen.answered, OUTAGE_ENDS_S + WELL_AGAIN_S, OUTAGE_ENDS_S + WELL_AGAIN_S + LOOKED_AT_S)
        sys.stdout.write(f"  sent during {during:5.1%}  answered after {after:4.0%}")
        is_within = is_within and during <= MOST_DURING and after >= LEAST_AFTER
    sys.stdout.write("\n" if is_within else "  MISSED\n")
    return is_within


def _share(times: list[float], start: float, end: float) -> float:
    return sum(start <= at < end for at in times) / (CAPACITY * (end - start))


def main() -> None:
    """Measure the cases that are named, or all."""
    parser = argparse.ArgumentParser(description="Adaptive concurrency in real time.")
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--latency", type=float, default=0.2, help="mean seconds that an answer takes (0.2)")
    given = parser.parse_args()
    within = [asyncio.run(measured(case, given.latency)) for case in given.cases or CASES]
    raise SystemExit(0 if all(within) else 1)


if __name__ == "__main__":
    main()
