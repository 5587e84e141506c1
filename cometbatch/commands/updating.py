"""`--update`: which run an update is of, what it may replace, and what is given up for it."""

import functools
from collections.abc import Collection
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import differs, gives_way, in_folders
from cometbatch.errors import CheckpointError, UsageError
from cometbatch.job.settings import ReuseSettings
from cometbatch.records import Tally
from cometbatch.results import tallies
from cometbatch.run_state import succession
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import decode_manifest
from cometbatch.run_state.run import Run, find

UNKNOWN: Final = Tally(charges=1, charges_unknown=1)
"""What counts for a run that was given up and can't be read."""


class Chosen(Struct, frozen=True):
    """The run that a command is about. `found`: one that is resumed, or begun anew where it has no outcomes.

    `directory`: where its files are, or will be. `updated`: the run whose place a new one is to take. `given_up`: an
    update whose job or input changed since.
    """

    directory: RunDirectory
    found: Run | None
    updated: Run | None = None
    given_up: Run | None = None


def refuse_with_update(*, fresh: bool, retry: bool, set_aside: bool) -> None:
    """Raise `UsageError` where another option says the contrary of `--update`."""
    if fresh:
        raise UsageError(
            "--update and --fresh exclude each other: --update keeps every answer that still fits, --fresh forgets all."
        )
    if retry:
        raise UsageError(
            "--update and --retry exclude each other: --update asks rows that are new or changed, --retry rows of a "
            "finished table. Run --update first, and then --retry."
        )
    if set_aside:
        raise UsageError(
            "--update and --set-aside exclude each other: --set-aside mends a run that is resumed. Run the job as it "
            "was with --set-aside, and then --update."
        )


def choose(checked: Checked, home: RunDirectory, accept: Collection[str] = (), *, update: bool) -> Chosen:
    """Find the run that a job is about, and whether an update of it is to begin; changes nothing.

    Raises `CheckpointError` where a run is damaged, `UsageError` where an update is asked for and can't be made.
    """
    job, result = checked.job, checked.job.output.path
    directory, given_up = succession.looked_at(home), None
    found: Run | None = find(directory, result, accept)
    stands = directory is home or succession.is_decided(home, directory, result)
    if found is not None and not stands and (gives_way(found, job) or (update and differs(found, checked))):
        directory, given_up = home, found
        found = find(home, result, accept)
    if not update or found is None or not found.is_begun or not differs(found, checked):
        return Chosen(directory, found, given_up=given_up)
    if job.output.is_dataset:
        if gives_way(found, job):
            return Chosen(directory, found)
        raise UsageError(f"--update: {in_folders(job)}")
    return Chosen(succession.next_of(home), None, found, given_up)


def as_begun(checked: Checked, found: Run | None, *, update: bool) -> Checked:
    """The job as a session has it: an update, and what `--update` begins, takes earlier answers, whatever the job says.

    `found`: as of `Chosen`. An update may be resumed, or begun anew, by the plain command.
    """
    is_update = found is not None and found.directory is not found.directory.home
    is_new = update and (found is None or not found.is_begun)
    if checked.job.reuse is not None or not (is_update or is_new):
        return checked
    return msgspec.structs.replace(checked, job=msgspec.structs.replace(checked.job, reuse=ReuseSettings()))


def spent_before(home: RunDirectory, updated: Run) -> Tally | None:
    """What runs had cost that never came to a result since that of the run that is updated; None where none was.

    These are updates of it that were given up, and itself where it never came to a result. One whose result was moved
    away did: its cost was told with that.
    """
    bills = [] if updated.is_complete or updated.has_earlier_result else [_bill(updated)]
    if bills and updated.manifest.given_up is not None:
        bills.append(updated.manifest.given_up)
    for directory in succession.earlier_runs(home):
        try:
            content = directory.read_manifest() or b""
            if decode_manifest(content, str(directory.path)).follows != updated.manifest.run_id:
                continue
            found = find(directory, updated.result)
            bills.append(UNKNOWN if found is None else _bill(found))
        except CheckpointError:
            bills.append(UNKNOWN)
    paid = [bill for bill in bills if bill.attempts or bill.rejected or bill.charges]
    return functools.reduce(tallies.add, paid) if paid else None


def _bill(run: Run) -> Tally:
    return tallies.add(run.bill, run.progress.charges)
