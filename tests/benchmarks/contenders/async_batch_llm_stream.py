"""async-batch-llm (PyPI): a stream over bounded queues with its JSONL checkpoint, and a progress bar.

Of its two checkpoints the one that costs less for a table of this size, flushed for each row and not synced. Its
connection pool is given as many connections as rows may be in flight.
"""

import argparse
import asyncio
import csv
import json

from async_batch_llm import ArtifactIdentity, JsonlArtifactStore, ProcessorConfig, ResumePolicy, llm, process_stream


def read(path: str) -> list[tuple[str, str]]:
    """Id and prompt of each row."""
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123 # as scripts do
        return [(row["id"], row["q"]) for row in csv.DictReader(file)]


async def main(base_url: str, source: str, output: str, concurrency: int) -> None:
    """Every row, in order of completion."""
    strategy = llm(
        "openai-compatible:m",
        base_url=f"{base_url}/v1",
        api_key="sk-needed-by-nobody",
        system_instruction="Answer in one word.",
        generation_config={"max_tokens": 64},
        max_connections=concurrency,
    )
    identity = ArtifactIdentity(provider="stub", model="m", prompt_version="1")
    store = JsonlArtifactStore(f"{output}.checkpoint", identity=identity)
    config = ProcessorConfig(
        concurrency=concurrency, max_queue_size=4 * concurrency, max_result_queue_size=4 * concurrency
    )
    with open(output, "w", encoding="utf-8") as kept:  # noqa: ASYNC230, PTH123 # as scripts do
        async for result in process_stream(
            strategy,
            read(source),
            config=config,
            progress=True,
            artifact_store=store,
            resume=ResumePolicy.REUSE_SUCCESSES,
        ):
            kept.write(json.dumps([result.item_id, result.output]) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(main(given.base_url, given.input, given.output, given.concurrency))
