"""`verify` of a matrix: the run has the slices that its job names, and the result just these, under their labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cometbatch.commands.verify_report import Findings
from cometbatch.job import Job
from cometbatch.results.slices import Label
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.published import result_paths
from cometbatch.run_state.slice_files import slice_files

CHECK: Final = "slices"


def check_job_slices(manifest: Manifest, jobs: Sequence[tuple[str, Job | None]], findings: Findings) -> None:
    """Whether the run's slices are those that these jobs name, in their order, with their labels.

    Slices of the run that no job names any more are no mistake: what was answered there stays.
    """
    if not manifest.has_matrix:
        return
    findings.use(CHECK)
    then = [
        (each.cell, each.sample, dict(each.labels)) for each in (manifest.slices[number] for number in manifest.active)
    ]
    for whose, job in jobs:
        if job is None or job.matrix is None:
            continue
        now = list(_named(job))
        if now != then:
            findings.add(CHECK, f"names other slices than the run has: {_difference(then, now)}", where=whose)


def _named(job: Job) -> Iterator[tuple[str, int, dict[str, Label]]]:
    for cell in job.cells():
        yield from ((cell.digest, sample, dict(cell.labels)) for sample in range(job.samples))


def _difference(then: Sequence[tuple[str, int, object]], now: Sequence[tuple[str, int, object]]) -> str:
    known, named = {each[:2] for each in then}, {each[:2] for each in now}
    if known == named:
        return "in another order, or under other labels"
    return f"{len(named - known):,} that the run lacks, and it lacks {len(known - named):,} of the run's"


def check_files(directory: RunDirectory, manifest: Manifest, result: Path, findings: Findings) -> list[Path]:
    """The files of the result, in its order. Of a data set, each slice must have its file, and no other have one."""
    due, folder = result_paths(directory, manifest, result), directory.slices
    there = due if folder is None else slice_files(folder)
    for path in due:
        if path not in there:
            findings.add(CHECK, "the file of this slice is missing", where=path.name)
    for path in there:
        if path not in due:
            findings.add(CHECK, "this file is of no slice that the job names", where=path.name)
    return due
