"""Which rows of a table are new, gone or edited since a run began, in words: by their ids, else by their requests."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import polars as pl
from msgspec import Struct

from cometbatch.commands.checked import Checked
from cometbatch.errors import CometbatchError
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.records import CallRequest
from cometbatch.results import parts
from cometbatch.results.columns import outcomes_in
from cometbatch.results.summary_words import count
from cometbatch.run_state.progress import journaled
from cometbatch.run_state.run import Run

COMPARED_ROWS: Final = 200_000  # at most, then and now: more of them would take minutes, and memory
IMAGES_COMPARED: Final = 1_000  # the same, where images are opened to make a request
PARTITION_ROWS: Final = 8_192  # read at a time

Said: TypeAlias = tuple[str | None, str | None]
"""A row's id, or what stands for it, and the hash of its request."""


class RowChanges(Struct, frozen=True):
    """How many rows differ between what a run has recorded and a table. `is_whole`: all of the run's rows are recorded.

    `by_request`: rows have no ids, so that an edited row can't be told from one that is gone and one that is new.
    """

    added: int
    removed: int
    edited: int
    same: int
    is_whole: bool = True
    by_request: bool = False

    def describe(self) -> str:
        """A sentence."""
        words = [f"{count(self.same, 'row')} come out the same"]
        if self.is_whole:
            words.insert(0, f"{self.added:,} added")
        words.insert(-1, f"{self.removed:,} removed")
        if not self.by_request:
            words.insert(-1, f"{self.edited:,} edited")
        whose = "" if self.is_whole else " with an outcome so far"
        note = " (rows have no input.id, so an edited one counts as removed and added)" if self.by_request else ""
        return f"Rows{whose}: {', '.join(words)}{note}."


class UpdatePlan(Struct, frozen=True):
    """Which run an update takes the place of, and how its rows differ; `changes` is None where nobody compared them."""

    run_id: str
    created_at: str
    changes: RowChanges | None

    def describe(self) -> str:
        """A line."""
        changes = "" if self.changes is None else f" {self.changes.describe()}"
        return f"updates the run that was begun {self.created_at}; its result stands until this one is whole.{changes}"


def update_plan(updated: Run, checked: Checked) -> UpdatePlan:
    """What an update is of, for a plan."""
    return UpdatePlan(updated.manifest.run_id, updated.manifest.created_at, row_changes(updated, checked))


def row_changes(run: Run, checked: Checked) -> RowChanges | None:
    """How the rows of a job differ from those of a run; None where there are too many, or where they can't be read."""
    limit = IMAGES_COMPARED if checked.target.may_have_images else COMPARED_ROWS
    if run.rows > limit:
        return None
    try:
        identity = checked.source.check()
        if identity.rows > limit:
            return None
        was, size = run.manifest.input, identity.size
        is_same_table = (was.size, was.sha256) == (size, identity.sha256)
        has_ids = checked.job.input.id is not None and run.manifest.fingerprint.get("input.id") == checked.job.input.id
        then, now = list(_recorded(run)), list(_made(checked, identity.rows))
    except CometbatchError:  # whatever is wrong there, that something changed is known
        return None
    old: list[Said]
    new: list[Said]
    if is_same_table:  # a row is told by its place
        old = [(str(ordinal), request) for ordinal, _, request in then]
        new = [(str(ordinal), request) for ordinal, _, request in now]
    elif has_ids:
        old, new = [each[1:] for each in then], [each[1:] for each in now]
    else:
        old, new = [(None, request) for *_, request in then], [(None, request) for *_, request in now]
    return compare(old, new, run.rows, by_request=not (is_same_table or has_ids))


def compare(old: Sequence[Said], new: Sequence[Said], rows: int, *, by_request: bool = False) -> RowChanges:
    """How two lists of rows differ, each told by its id, or else by its request. `rows`: of the run's input, in all."""
    same = _common(old, new, ["id", "request"])
    kept = same if by_request else _common(old, new, ["id"])
    return RowChanges(
        added=len(new) - kept,
        removed=len(old) - kept,
        edited=kept - same,
        same=same,
        is_whole=len(old) == rows,
        by_request=by_request,
    )


def _common(old: Sequence[Said], new: Sequence[Said], keys: list[str]) -> int:
    """How many rows are in both, each as often as in the one that has it less often."""
    one, other = (_frame(rows).group_by(keys).len() for rows in (old, new))
    together = one.join(other, on=keys, nulls_equal=True)
    return int(together.select(pl.min_horizontal("len", "len_right").sum()).item())


def _frame(rows: Sequence[Said]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"id": pl.String, "request": pl.String}, orient="row")


def _recorded(run: Run) -> Iterator[tuple[int, str | None, str | None]]:
    """Number, id and request of each row that has an outcome in the first slice of the result."""
    committed, first = set(run.progress.committed), run.manifest.active[0]
    for partition in run.manifest.partitions():
        if partition.slice != first:
            continue
        if partition.index in committed:
            path = run.directory.parts.path(partition.index)
            columns = [parts.read_column(path, run.prefix + name).to_pylist() for name in ("custom_id", "request_hash")]
            ordinals: Iterable[int] = range(partition.first_row, partition.first_row + partition.row_count)
            yield from zip(ordinals, *columns, strict=True)
        else:
            for some in journaled(run.directory, run.manifest, partition.index, run.progress.last):
                for each in outcomes_in(some):
                    yield each.ordinal % run.rows, each.custom_id, each.request_hash


def _made(checked: Checked, rows: int) -> Iterator[tuple[int, str | None, str | None]]:
    """The same of each row of the job's input, as it would be sent in its first cell."""
    maker, all_rows = checked.row_maker(), partitions(rows, PARTITION_ROWS)
    tables = checked.source.tables(checked.source.check(), all_rows)
    for partition, table in zip(all_rows, tables, strict=True):
        for row, values in enumerate(row_values(table, maker.columns), partition.first_row):
            made = maker.make(row, values)
            yield row, made.custom_id, made.request_hash if isinstance(made, CallRequest) else None
