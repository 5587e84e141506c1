"""`dedupe`: puts together what has rows that ask the same sent once."""

import contextlib
from collections.abc import AsyncIterator

from cometbatch.errors import UsageError
from cometbatch.job import Job
from cometbatch.results.columns import REUSED_FROM
from cometbatch.run_state.answers import RecordedAnswers
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.run import Run
from cometbatch.runner.twins import Twins


def is_deduped(job: Job, run: Run | None) -> bool:
    """Whether rows that ask the same are sent once: the run has the columns that say whose answer a row has."""
    return job.dedupe and (run is None or REUSED_FROM in run.columns)


def refuse_samples(job: Job, run: Run | None) -> None:
    """Raise `UsageError` where each row is asked several times: samples of a row ask the same, and all are sent."""
    if job.dedupe and run is not None and len(run.manifest.slices) > 1:
        raise UsageError(
            "dedupe: the run asks each row several times, and dedupe would send one of these calls alone. Leave dedupe "
            "out."
        )


@contextlib.asynccontextmanager
async def sent_once(job: Job, run: Run, partitions: Partitions) -> AsyncIterator[Twins | None]:
    """What has the calls of these partitions sent once that ask the same; None where each is sent.

    Raises `CheckpointError` where what was answered so far can't be read.
    """
    if not is_deduped(job, run):
        yield None
        return
    with contextlib.closing(RecordedAnswers(run, partitions.opened)) as answers:
        yield Twins(await answers.calls(), run.manifest.run_id, answers.find)
