"""Bespoke curator (PyPI: bespokelabs-curator): its `LLM` on the OpenAI backend, limits out of reach, cache on.

Its telemetry and its downloads of price lists are switched off. Each row counts 4,096 tokens of its token limit,
whatever is asked for; the limits are as high as that needs.
"""

import argparse
import importlib.util
import os
from pathlib import Path

TOKENIZERS = Path(importlib.util.find_spec("litellm").origin).parent / "litellm_core_utils/tokenizers"
os.environ.update(
    TELEMETRY_ENABLED="false",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TIKTOKEN_CACHE_DIR=str(TOKENIZERS),  # the copy that comes with litellm, else it is downloaded
)

from bespokelabs import curator  # noqa: E402 # reads the settings above
from datasets import Dataset  # noqa: E402 # reads the settings above

UNREACHED_A_MINUTE = 10**9


class Echo(curator.LLM):
    """A prompt a row, and its answer as a column."""

    def prompt(self, row: dict) -> str:
        """What is asked."""
        return row["q"]

    def parse(self, row: dict, response: str) -> dict:
        """What is kept."""
        return {"id": row["id"], "answer": response}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    asker = Echo(
        model_name="m",
        backend="openai",
        system_prompt="Answer in one word.",
        generation_params={"max_tokens": 64},
        backend_params={
            "base_url": f"{given.base_url}/v1",
            "api_key": "sk-needed-by-nobody",
            "max_requests_per_minute": UNREACHED_A_MINUTE,
            "max_tokens_per_minute": UNREACHED_A_MINUTE * 4096,
            "max_concurrent_requests": given.concurrency,
        },
    )
    working_dir = f"{given.output}.work"
    answered = asker(Dataset.from_csv(given.input, cache_dir=working_dir), working_dir=working_dir)
    answered.dataset.to_parquet(given.output)
