"""What most people write: AsyncOpenAI, a semaphore, a task a row, a progress bar, and a table at the end."""

import argparse
import asyncio

import openai
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from tqdm.asyncio import tqdm


async def main(base_url: str, rows: list[dict[str, object]], concurrency: int) -> list[str | None]:
    """The answers, in the rows' order."""
    slots = asyncio.Semaphore(concurrency)
    async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="sk-needed-by-nobody", timeout=600) as client:

        async def ask(question: object) -> str | None:
            messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": question}]
            async with slots:
                answer = await client.chat.completions.create(model="m", messages=messages, max_tokens=64)
            return answer.choices[0].message.content

        return await tqdm.gather(*(ask(row["q"]) for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    table = pyarrow.csv.read_csv(given.input)
    answers = asyncio.run(main(given.base_url, table.to_pylist(), given.concurrency))
    pq.write_table(pa.table({"id": table["id"].cast(pa.string()), "answer": answers}), given.output)
