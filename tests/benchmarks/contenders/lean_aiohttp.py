"""The least that aiohttp lets one write: no retry, no progress, no price, and a file that is open all the time."""

import argparse
import asyncio
import csv
import json
from typing import TextIO

import aiohttp


async def main(base_url: str, source: TextIO, output: TextIO, concurrency: int) -> None:
    """As many workers as may be in flight, on one iterator of rows."""
    rows = csv.DictReader(source)
    headers = {"Authorization": "Bearer sk-needed-by-nobody"}
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(base_url, headers=headers, connector=connector) as session:

        async def work() -> None:
            for row in rows:
                messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": row["q"]}]
                body = {"model": "m", "messages": messages, "max_tokens": 64}
                async with session.post("/v1/chat/completions", json=body) as reply:
                    answer = await reply.json()
                output.write(json.dumps([row["id"], answer["choices"][0]["message"]["content"]]) + "\n")

        await asyncio.gather(*(work() for _ in range(concurrency)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    with open(given.input, encoding="utf-8", newline="") as opened, open(given.output, "w", encoding="utf-8") as kept:  # noqa: PTH123 # as scripts do
        asyncio.run(main(given.base_url, opened, kept, given.concurrency))
