"""saturate (PyPI): its `pump`, at a fixed window, without looking at the endpoint's gauges; parts of 2,000 rows.

By default it writes a file every ten rows; this is twenty times leaner.
"""

import argparse
import csv

import saturate


def to_request(row: dict[str, str]) -> dict[str, object]:
    """The body of a row's request."""
    messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": row["q"]}]
    return {"model": "m", "messages": messages, "max_tokens": 64}


def parse(_row: dict[str, str], reply: dict) -> dict[str, object]:
    """What is kept of a reply."""
    usage = reply["usage"]
    return {
        "answer": reply["choices"][0]["message"]["content"],
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    given = parser.parse_args()
    with open(given.input, encoding="utf-8", newline="") as file:  # noqa: PTH123 # as scripts do
        saturate.pump(
            csv.DictReader(file),
            to_request,
            parse,
            endpoint=f"{given.base_url}/v1",
            output=given.output,
            window=saturate.Fixed(given.concurrency),
            flush_every=2000,
            id_key="id",
            signal_source="none",
        )
