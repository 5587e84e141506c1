"""What each cell of a run came to, for its summary."""

import functools
from collections.abc import Mapping

from cometbatch.errors import Quoting
from cometbatch.records import Tally
from cometbatch.results import tallies
from cometbatch.results.cell_summary import CellSummary, LeftOut
from cometbatch.results.slices import Label
from cometbatch.run_state.drift import SAYS_PROMPTS
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.run import Run


def cell_summaries(run: Run) -> tuple[CellSummary, ...]:
    """Each cell that the job names, in its order; none without a matrix."""
    manifest = run.manifest
    if not manifest.has_matrix:
        return ()
    return tuple(
        CellSummary(
            labels=told_labels(manifest, manifest.slices[slices[0]].labels),
            samples=len(slices),
            rows=len(slices) * run.rows,
            tally=sum_of(run.progress.by_slice, slices),
            book=manifest.targets[target].prices,
        )
        for target, slices in slices_by_target(manifest).items()
    )


def told_labels(manifest: Manifest, labels: Mapping[str, Label]) -> dict[str, Label]:
    """The labels of a cell, for people: on an axis over prompts they may be prompts themselves, which no log has."""
    axes = manifest.job.get("matrix", {}).get("axes", ())
    prompts = {axis["column"] for axis in axes if str(axis["name"]).startswith(SAYS_PROMPTS)}
    return {
        name: Quoting(label, "(not logged)") if name in prompts and isinstance(label, str) else label
        for name, label in labels.items()
    }


def slices_by_target(manifest: Manifest) -> dict[int, list[int]]:
    """The numbers of the active slices of each target: the samples of a cell."""
    found: dict[int, list[int]] = {}
    for number in manifest.active:
        found.setdefault(manifest.slices[number].target, []).append(number)
    return found


def left_out(run: Run) -> LeftOut | None:
    """What is recorded of slices that the job does not name any more; None where nothing is."""
    named = frozenset(run.manifest.active)
    found = run.progress.by_slice
    others = [each for each, tally in found.items() if each not in named and (tally.calls or tally.rejected)]
    return LeftOut(len(others), sum_of(run.progress.by_slice, others)) if others else None


def sum_of(by_slice: Mapping[int, Tally], slices: list[int]) -> Tally:
    """The tally of some slices."""
    return functools.reduce(tallies.add, (by_slice[each] for each in slices if each in by_slice), Tally())
