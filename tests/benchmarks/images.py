"""The memory that a run takes whose prompts have large images.

    python -m tests.benchmarks.images [--rows 2000] [--megabytes 1] [--in-flight 64] [--cells]

Runs the command over a table of images, in files or (`--cells`) in a column, against a server in this process that
answers after half a second and looks at the digest of what came. Says the peak of the command's memory and fails above
the bound: what a run without images takes, for each request in flight four times an image, and the open input.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.measuring import ENVIRONMENT
from tests.images import image

LATENCY_S = 0.5
WITHOUT_IMAGES_MB = 200.0  # the promise for any run
TIMES_AN_IMAGE = 4.0  # base64 is 4/3 of it, and is held twice while a system call takes it
OPEN_INPUT_MB = 100.0  # with images in a column: of open partitions, and what reads and writes them
DISTINCT = 50  # images; the rows share them
BODY = re.compile(rb"base64,([A-Za-z0-9+/=]+)")


class Server:
    """Answers each request, and counts those whose image is none of `digests`."""

    def __init__(self, digests: set[str]) -> None:
        self.digests = digests
        self.answered = self.wrong = self.in_flight = self.most_in_flight = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it lasts."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                found = BODY.search(body)
                data = base64.b64decode(found[1]) if found else b""
                self.wrong += hashlib.sha256(data).hexdigest() not in self.digests
                await asyncio.sleep(LATENCY_S)
                self.in_flight -= 1
                self.answered += 1
                message = {"role": "assistant", "content": "ok"}
                usage = {"prompt_tokens": 800, "completion_tokens": 1, "total_tokens": 801}
                choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
                reply = json.dumps({"id": "1", "model": "m", "choices": choices, "usage": usage}).encode()
                kind = b"content-type: application/json\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (kind, len(reply), reply))
        except (OSError, EOFError):
            writer.close()


def write_job(folder: Path, port: int, rows: int, images: list[bytes], in_flight: int, *, cells: bool) -> Path:
    """A job over a table of these images."""
    for number, data in enumerate(images):
        (folder / f"{number}.img").write_bytes(data)
    photos: list[object] = [images[row % len(images)] if cells else f"{row % len(images)}.img" for row in range(rows)]
    path = folder / "in.parquet"
    schema = pa.schema([("number", pa.int64()), ("photo", pa.binary() if cells else pa.string())])
    with pq.ParquetWriter(path, schema, write_batch_size=8) as writer:
        for start in range(0, rows, 100):
            some = photos[start : start + 100]
            writer.write_table(pa.table([[*range(start, start + len(some))], some], schema=schema))
    job = {
        "input": {"path": str(path)},
        "output": {"path": str(folder / "out.parquet")},
        "target": {"base_url": f"http://127.0.0.1:{port}", "format": "chat", "model": "m"},
        "prompt": {"messages": [{"role": "user", "content": [{"text": "{{ number }}"}, {"image": "{{ photo }}"}]}]},
        "params": {"max_output_tokens": 16},
        "limits": {"concurrency": in_flight, "adaptive": False},
        "prices": "none",
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return folder / "job.json"


def peak_mb(pid: int) -> float:
    """The most memory that a process held so far; 0 of one that is ending."""
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace"))
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


async def measured(rows: int, size: int, in_flight: int, *, cells: bool) -> tuple[float, float, Server]:
    """The peak of the command's memory in MB, its seconds, and what the server saw."""
    images = [image("jpeg", size, seed) for seed in range(min(DISTINCT, rows))]
    server = Server({hashlib.sha256(each).hexdigest() for each in images})
    with tempfile.TemporaryDirectory() as name:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 20)
        job = write_job(Path(name), listening.sockets[0].getsockname()[1], rows, images, in_flight, cells=cells)
        began = time.monotonic()
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cometbatch", "run", str(job), env=ENVIRONMENT, stdout=sys.stderr
        )
        peak = 0.0
        while command.returncode is None:
            peak = max(peak, peak_mb(command.pid))
            await asyncio.wait([asyncio.ensure_future(command.wait())], timeout=0.2)
        listening.close()
        if command.returncode:
            raise SystemExit(f"the run ended with {command.returncode}")
        return peak, time.monotonic() - began, server


def main() -> None:
    """Measure, say it, and fail above the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--cells", action="store_true")
    given = parser.parse_args()
    size = int(given.megabytes * 1e6)
    peak, seconds, server = asyncio.run(measured(given.rows, size, given.in_flight, cells=given.cells))
    bound = WITHOUT_IMAGES_MB + TIMES_AN_IMAGE * given.megabytes * given.in_flight + OPEN_INPUT_MB * given.cells
    sys.stdout.write(
        f"{server.answered} rows in {seconds:.0f} s, at most {server.most_in_flight} in flight, {server.wrong} wrong; "
        f"peak {peak:.0f} MB, bound {bound:.0f} MB\n"
    )
    if server.answered != given.rows or server.wrong or peak > bound:
        sys.exit(os.EX_SOFTWARE)


if __name__ == "__main__":
    main()
