"""What a user writes who checks types: mypy --strict and pyright find nothing in it. The weekly checks run both."""

from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl

import cometbatch


def label(frame: pl.DataFrame, out: Path) -> pl.DataFrame:
    """A frame in, the same kind back."""
    return cometbatch.map(frame, prompt="Classify: {{ body }}", model="comet-sim-1", out=out, id="ticket_id")


def label_pandas(frame: pd.DataFrame, out: str) -> pd.DataFrame:
    """A section of a job file is a mapping."""
    return cometbatch.map(
        frame,
        prompt={"system": "Answer in one word.", "user": "{{ body }}"},
        model="comet-sim-1",
        out=out,
        params={"max_output_tokens": 8},
        budget={"max_cost_usd": 5},
    )


def run_job(job_file: Path) -> Decimal:
    """A job file, its plan, its run, and its rows."""
    job = cometbatch.load_job(job_file, ["limits.concurrency=64"])
    planned = cometbatch.plan(job)
    assert planned.rows, str(planned)
    try:
        summary = cometbatch.run(job, retry=["failed", "length"], progress=False)
    except cometbatch.RunStoppedError as stopped:
        summary = stopped.summary
    answers = [row["response"] for row in summary.iter_rows()]
    assert len(answers) == summary.to_polars().height == summary.succeeded + summary.incomplete + summary.failed
    return summary.cost_usd or Decimal(0)


async def run_table(table: pl.DataFrame) -> cometbatch.RunSummary:
    """In a program with an event loop of its own."""
    return await cometbatch.run_async({"output": {"path": "out.parquet"}}, input=table, progress=True)
