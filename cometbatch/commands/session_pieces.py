"""What a session's loop is put together from, in a process that sends everything as well as in each of several."""

from cometbatch.commands.checked import Checked
from cometbatch.commands.looks import Looks
from cometbatch.commands.targets import RowMakers
from cometbatch.job import Job
from cometbatch.results.reuse import EarlierAnswers
from cometbatch.run_state.input_passes import Tables
from cometbatch.run_state.making import Make
from cometbatch.run_state.ownership import Ownership
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.run import Run
from cometbatch.runner.ports import Policy


def policy_of(job: Job, concurrency: int) -> Policy:
    """How much a loop does at once, and how long it bears with failures."""
    patience = job.retry
    return Policy(
        concurrency=concurrency,
        max_attempts=patience.max_attempts,
        max_wait_s=patience.max_wait_s,
        max_pushback_s=patience.max_pushback_s,
        adaptive=job.limits.adaptive,
        max_alike=patience.max_alike,
        max_row_s=patience.max_row_s,
    )


def partitions_of(
    checked: Checked,
    run: Run,
    asked: RowMakers,
    session: int,
    *,
    slots: int,
    limit: int | None,
    tables: Tables | None = None,
    looks: Looks | None = None,
    earlier: EarlierAnswers | None = None,
    ownership: Ownership | None = None,
) -> Partitions:
    """The partitions that a session works on.

    `asked`: how rows become requests. `session`: its number. `slots`: requests in flight at most. `limit`: of each
    slice, the rows below it. `tables`: what reads the input; None is its own source. `looks`: what looks at each row;
    `earlier`: answers of earlier runs. `ownership`: one owner's claims, where several share the run.
    """
    manifest = run.manifest
    makers: list[Make] = [each.make for each in asked.makers]
    of_slices: list[Make] = [each.make for each in asked.of_slices]
    if looks is not None:
        makers = makers if manifest.has_matrix else list(map(looks.watching, makers))
        of_slices[looks.slice_number] = looks.watching(of_slices[looks.slice_number])
    return Partitions(
        run,
        session,
        (lambda wanted: checked.source.tables(manifest.input, wanted)) if tables is None else tables,
        makers,
        asked.columns,
        slots=slots,
        slice_makers=of_slices,
        queues=manifest.queues(),
        limit=limit,
        reads_files=asked.reads_files,
        further=checked.answers,
        take=None if earlier is None else earlier.take,
        ownership=ownership,
    )
