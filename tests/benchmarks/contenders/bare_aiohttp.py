"""A bare aiohttp script in the cookbook's shape, which keeps nothing that a second run could go on from.

One loop starts a task a row, looks after each whether there is capacity, and pauses for a millisecond; each answer is
appended to a file that is opened for it. So it never does more than a thousand requests a second, however many may
be in flight; `lean_aiohttp.py` is what it becomes without the pause.
"""

import argparse
import asyncio
import csv
import json
from pathlib import Path

import aiohttp

PAUSE_S = 0.001
MOST_ATTEMPTS = 5


class Status:
    """What the loop looks at."""

    in_progress = 0
    failed = 0


async def ask(session: aiohttp.ClientSession, url: str, row: dict[str, str], output: Path, status: Status) -> None:
    """One row, until it is answered or out of attempts."""
    messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": row["q"]}]
    body = {"model": "m", "messages": messages, "max_tokens": 64}
    for _ in range(MOST_ATTEMPTS):
        try:
            async with session.post(url, headers={"Authorization": "Bearer sk-needed-by-nobody"}, json=body) as reply:
                answer = await reply.json()
        except aiohttp.ClientError:
            continue
        if "error" not in answer:
            append(output, [row["id"], answer["choices"][0]["message"]["content"]])
            break
    else:
        status.failed += 1
    status.in_progress -= 1


def append(output: Path, record: list[str]) -> None:
    """One more line."""
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


async def main(base_url: str, source: str, output: Path, concurrency: int) -> None:
    """Start every row, in turn."""
    status = Status()
    tasks = set()
    with open(source, encoding="utf-8", newline="") as file:  # noqa: ASYNC230, PTH123 # as scripts do
        unread = csv.DictReader(file)
        row = next(unread, None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
            while row is not None or status.in_progress:
                if row is not None and status.in_progress < concurrency:
                    status.in_progress += 1
                    task = asyncio.create_task(ask(session, f"{base_url}/v1/chat/completions", row, output, status))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    row = next(unread, None)
                await asyncio.sleep(PAUSE_S)
    if status.failed:
        raise SystemExit(f"{status.failed} rows failed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(main(given.base_url, given.input, given.output, given.concurrency))
