"""What a run publishes: which files, of which partitions, how their lines are made, and what they say of the run.

Guards: a file that says another state of the run than there is now is published again: after a crash between the last
commit and publishing, after growth, and where labels were renamed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cometbatch.input.table import partitions
from cometbatch.money.exact import format_amount
from cometbatch.records import Partition
from cometbatch.results import columns, parts
from cometbatch.results.lines import Joined, Lines
from cometbatch.results.slices import SLICE_KEY, SLICES_KEY, ResultSlice, SliceColumns, encode_slice, encode_slices
from cometbatch.results.target_column import TARGET_COLUMNS
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.slice_files import slice_files, slice_names

if TYPE_CHECKING:
    from cometbatch.run_state.run import Run

ROUNDS_KEY: Final = "cometbatch.rounds"
TARGETS_KEY: Final = "cometbatch.targets"
BILL_KEY: Final = "cometbatch.bill"


def result_slices(manifest: Manifest) -> tuple[ResultSlice, ...]:
    """The slices of the result, in its order; none without a matrix."""
    if not manifest.has_matrix:
        return ()
    found = (manifest.slices[number] for number in manifest.active)
    return tuple(ResultSlice(each.labels, each.sample) for each in found)


def result_partitions(manifest: Manifest) -> Iterator[tuple[int, Partition]]:
    """The partitions of the result in its order, each with the place of its slice there."""
    of_rows = partitions(manifest.input.rows, manifest.partition_rows)
    for place, number in enumerate(manifest.active):
        for each in of_rows:
            index = number * len(of_rows) + each.index
            yield place, Partition(index, each.first_row, each.row_count, number)


def lines_of(manifest: Manifest, names: Sequence[str], joined: Sequence[Joined] = ()) -> Lines:
    """How lines of the result are made of those of parts. `names`: of the output columns; `joined`: as of `Lines`."""
    prefix = str(manifest.fingerprint.get("output.prefix") or "")
    slices = SliceColumns(result_slices(manifest), prefix) if manifest.has_matrix else None
    return Lines(manifest.input.columns, prefix, columns.columns_of(names), slices, joined)


def state_of(run: "Run") -> dict[str, str]:
    """What the result says of this state of the run: rounds, slices with labels, the whole bill.

    Where rows were asked of several targets, also what these are, in the order of their numbers.
    """
    now, before, slices = run.progress.with_charges, run.replaced, result_slices(run.manifest)
    amounts = {
        "cost_usd": now.cost_usd,
        "rejected_usd": now.rejected_cost_usd,
        "charges_usd": now.charges_usd,
        "replaced_usd": before.cost_usd,
        "replaced_charges_usd": before.charges_usd,
    }
    bill: dict[str, Any] = {name: format_amount(amount) for name, amount in amounts.items()}
    bill |= {"unpriced": now.unpriced, "charges_unknown": now.charges_unknown}
    has_targets = not TARGET_COLUMNS.isdisjoint(run.columns)
    return {
        ROUNDS_KEY: str(run.directory.reopened().rounds),
        SLICES_KEY: encode_slices(slices) if slices else _json(run.manifest.slices),
        BILL_KEY: _json(bill),
    } | ({TARGETS_KEY: _json(run.manifest.targets)} if has_targets else {})


def result_files(run: "Run") -> dict[Path, dict[str, str]]:
    """The files of the result, in its order, each with what its metadata say of the run's state as it is now.

    One; of a data set with slices, one for each slice.
    """
    state, paths = state_of(run), result_paths(run.directory, run.manifest, run.result)
    if run.directory.slices is None:
        return dict.fromkeys(paths, state)
    found = zip(paths, result_slices(run.manifest), run.manifest.active, strict=True)
    return {path: state | {SLICE_KEY: encode_slice(each, number)} for path, each, number in found}


def result_paths(directory: RunDirectory, manifest: Manifest, result: Path) -> list[Path]:
    """The files of a result that is no data set of parts, in its order."""
    folder = directory.slices
    return [result] if folder is None else [folder / name for name in slice_names(result_slices(manifest))]


def is_published(run: "Run") -> bool:
    """Whether the files of the result are there, and no slice beside them, and each says the state of now."""
    due, folder = result_files(run), run.directory.slices
    if folder is not None and slice_files(folder) != list(due):
        return False
    return all(_says(path, state) for path, state in due.items())


def _says(path: Path, state: Mapping[str, str]) -> bool:
    said = parts.result_metadata(path) or {}
    return all(said.get(key) == value for key, value in state.items())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
