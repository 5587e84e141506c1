"""`dedupe`: puts together what has rows that ask the same sent once."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.job import Job
from cometbatch.money.exact import format_amount, format_rounded
from cometbatch.results.answered import BYTES_EACH, AnsweredCalls
from cometbatch.results.summary_words import count
from cometbatch.run_state.answers import RecordedAnswers, answered_calls
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.run import Run
from cometbatch.runner.twins import Twins


def is_deduped(job: Job, run: Run | None) -> bool:
    """Whether rows that ask the same are sent once: the job says so, and did when the run began."""
    return job.dedupe and (run is None or bool(run.manifest.job.get("dedupe")))


def describe_late(job: Job, run: Run) -> Iterator[str]:
    """What is said where the run began without: its files say that no two of its rows have the same answer."""
    if job.dedupe and not is_deduped(job, run):
        yield "dedupe: the run began without it, so each row is sent; to have equal rows sent once, begin with --fresh"


def refuse_samples(job: Job, run: Run | None) -> None:
    """Raise `UsageError` where each row is asked several times: samples of a row ask the same, and all are sent."""
    of_run = () if run is None else (run.manifest.slices[each].sample for each in run.manifest.active)
    if job.dedupe and max(job.samples - 1, *of_run, 0):
        raise UsageError(
            "dedupe: the run asks each row several times, and dedupe would send one of these calls alone. Leave dedupe "
            "out."
        )


class DedupePlan(Struct, frozen=True):
    """What it comes to that rows which ask the same are sent once.

    `requests`: different ones that remain to be sent. `rows`: those that take the answer of an equal row. `saved_usd`:
    what these would cost, at most, in US dollars; None is unknown. `memory_bytes`: of the table of what was asked.
    """

    requests: int
    rows: int
    saved_usd: Decimal | None
    memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the amount of money is a string, so that it stays exact."""
        saved = None if self.saved_usd is None else format_amount(self.saved_usd)
        return {"requests": self.requests, "rows": self.rows, "saved_usd": saved, "memory_bytes": self.memory_bytes}

    def describe(self) -> Iterator[str]:
        """A line for a person."""
        saved = "" if self.saved_usd is None else f", which saves up to about {format_rounded(self.saved_usd)}"
        taking = f"{count(self.rows, 'row')} {'takes' if self.rows == 1 else 'take'} the answer of an equal row{saved}"
        megabytes = max(1, -(-self.memory_bytes // 1_000_000))
        memory = f"at most {megabytes:,} MB of memory, {BYTES_EACH} bytes for each different request"
        yield f"dedupe: {count(self.requests, 'different request')} sent, {taking} ({memory})"


def asked_so_far(job: Job, known: Run | None) -> AnsweredCalls | None:
    """The calls that a run has asked already, for a plan that adds the others; None where each is sent.

    Raises `CheckpointError` where what was answered so far can't be read.
    """
    if not is_deduped(job, known):
        return None
    return AnsweredCalls() if known is None else answered_calls(known)


@contextlib.asynccontextmanager
async def sent_once(job: Job, run: Run, partitions: Partitions) -> AsyncIterator[tuple[Twins | None, ...]]:
    """For each queue what has its calls sent once that ask the same; None where each is sent.

    Calls of two queues never ask the same, since their models differ. Raises `CheckpointError` where what was answered
    so far can't be read.
    """
    queues = len(partitions.queues)
    if not is_deduped(job, run):
        yield (None,) * queues
        return
    with contextlib.closing(RecordedAnswers(run, partitions.opened)) as answers:
        known = await answers.calls()
        yield tuple(Twins(known, run.manifest.run_id, answers.find) for _ in range(queues))
