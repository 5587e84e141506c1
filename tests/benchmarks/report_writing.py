"""A report of 100,000 rows with 55 MB of prompts and answers: what writing it takes, and how large it is.

    python -m tests.benchmarks.report_writing [--rows 100000] [--rounds 5] [--folder FOLDER]

The result is of a real job, which a service in the same process answers, so that `report` renders each prompt again as
for any other. `--folder` keeps it, with the page. Ends with 1 above a bar.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.measuring import ROOT, Environments, Measured, Running
from tests.benchmarks.pseudo_english import PseudoEnglish
from tests.workbench import Workbench, carry_out

ROWS: Final = 100_000
ROUNDS: Final = 5
PROMPT_WORDS: Final = range(16, 70)  # of a row, evenly spread: with the answer 550 bytes
ANSWER_WORDS: Final = range(8, 59)
BATCH_ROWS: Final = 5_000  # of the input, made at a time
FAILS, IS_CUT, SLOW = 0.004, 0.006, 0.01  # shares of rows
CPU_BAR_S: Final = 4.0  # of the whole command
MEMORY_BAR_MB: Final = 200.0
SIZE_BAR_MB: Final = 35.0


class EnglishService(httpx.AsyncBaseTransport):
    """Answers each request in its own words; the same requests in the same order get the same answers."""

    def __init__(self) -> None:
        self._words = PseudoEnglish(2)
        self._random = random.Random(3)
        self._count = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """An answer, at a virtual time."""
        number, chance = self._count, self._random.random()
        self._count += 1
        await asyncio.sleep(self._random.lognormvariate(-0.5, 0.4) * (10 if self._random.random() < SLOW else 1))
        headers = {"x-cometapi-request-id": f"2026090112{number:012d}{self._random.getrandbits(40):010x}"}
        if chance < FAILS:
            error = {"message": f"The prompt can't be processed ({number}).", "code": "invalid_prompt"}
            return httpx.Response(400, json={"error": error}, headers=headers)
        words = self._random.choice(ANSWER_WORDS)
        reply = {
            "id": f"chatcmpl-{number:08d}",
            "object": "chat.completion",
            "model": "comet-sim-1-2026-09-01",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self._words.text(words)},
                    "finish_reason": "length" if chance < FAILS + IS_CUT else "stop",
                }
            ],
            "usage": {"prompt_tokens": len(request.content) // 4, "completion_tokens": words * 4 // 3},
        }
        return httpx.Response(200, json=reply, headers=headers)


def make_result(folder: Path, rows: int = ROWS) -> Path:
    """The result of a job over this number of rows, in this folder."""
    bench = Workbench(folder)
    bench.input = folder / "in.parquet"
    with pq.ParquetWriter(bench.input, next(_tables(1)).schema) as writer:
        for table in _tables(rows):
            writer.write_table(table)
    job = bench.job(
        input={"id": "ticket"},
        prompt={"system": "Answer this customer in a friendly way.", "user": "{{ topic }}\n\n{{ body }}"},
        prices={"input": 0.15, "output": 0.6},
        params={"max_output_tokens": 256},
    )
    summary = carry_out(job, EnglishService())
    assert summary.rows == rows
    return bench.output


def _tables(rows: int) -> Iterator[pa.Table]:
    words, chance = PseudoEnglish(0), random.Random(1)
    topics = [words.text(3) for _ in range(200)]
    for begin in range(0, rows, BATCH_ROWS):
        numbers = range(begin, min(rows, begin + BATCH_ROWS))
        yield pa.table(
            {
                "ticket": [f"T-{number:06d}" for number in numbers],
                "topic": [chance.choice(topics) for _ in numbers],
                "body": [words.text(chance.choice(PROMPT_WORDS)) for _ in numbers],
                "priority": [chance.randrange(5) for _ in numbers],
            }
        )


def text_bytes(result: Path) -> int:
    """The bytes of what differs from prompt to prompt, and of all answers."""
    table = pq.read_table(result, columns=["topic", "body", "response"])
    return sum(chunk.buffers()[2].size for column in table.columns for chunk in column.chunks if chunk.buffers()[2])


def write_page(python: Path, result: Path, page: Path) -> Measured:
    """The command, in a process of its own, installed as users have it: pyarrow loads pandas where that is there."""
    command = [str(python), "-m", "cometbatch", "report", str(result), "-o", str(page)]
    return Running(command, page.with_suffix(".out")).end().or_fail(command)


def measure(folder: Path, rows: int, rounds: int) -> bool:
    """Print what writing takes, the medians, and whether all is within the bars."""
    result, page = folder / "out.parquet", folder / "report.html"
    if not result.exists():
        make_result(folder, rows)
    python = Environments(folder / "environments").python("cometbatch", (str(ROOT),))
    took = [write_page(python, result, page) for _ in range(rounds)]
    cpu_s, peak_mb = (statistics.median(getattr(each, field) for each in took) for field in ("cpu_s", "peak_mb"))
    size_mb = page.stat().st_size / 1e6
    print(f"{rows:,} rows, {text_bytes(result) / 1e6:.1f} MB of text; medians of {rounds}")  # noqa: T201
    bars = (("CPU, s", cpu_s, CPU_BAR_S), ("peak, MB", peak_mb, MEMORY_BAR_MB), ("file, MB", size_mb, SIZE_BAR_MB))
    for words, found, bar in bars:
        print(f"{words:10}{found:8.2f}  {'within' if found <= bar else 'ABOVE'} the bar of {bar:g}")  # noqa: T201
    return all(found <= bar for _, found, bar in bars)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        sys.exit(not measure(folder, given.rows, given.rounds))


if __name__ == "__main__":
    main()
