"""The tables that a judge is asked about: a pair of cells, or one cell, each in a file of its own beside its verdicts.

A file for each pair, because a run's input can't change: a model that comes later has pairs of its own, and the others
stay as they are. A file is known by what its cells ask, so that labels may be renamed, and axes put in another order.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.input.files import shown
from cometbatch.job import Job
from cometbatch.job.judging import ANSWER, FIRST, SECOND, Pairwise
from cometbatch.job.matrix import digest_of
from cometbatch.results import parts
from cometbatch.results.slices import Label, text_of, words_of
from cometbatch.run_state.manifest import Manifest, Slice
from cometbatch.run_state.run import Run
from cometbatch.store import local

MAX_TABLES: Final = 1_000  # that one job is judged in
ROW: Final = "judged_row"
SAMPLE: Final = "judged_sample"
"""Columns of a table that say which row of the job's input a line is of, and which sample."""
TABLE_SUFFIX: Final = ".answers.parquet"
SAYS: Final = b"cometbatch.judged"
"""Metadata of a table: the digests of its cells in its order, and how many answers lack."""
NAME_CHARACTERS: Final = 80  # of labels, in the name of a file
DIGEST_DIGITS: Final = 12  # in the name of a file: what tells it from others
_OTHERS: Final = re.compile(r"[^A-Za-z0-9._+-]+")


class JudgedCell(Struct, frozen=True):
    """A cell whose answers are judged. `slices`: the numbers of its slices, one for each sample. `words`: for people.

    `name`: its labels in the name of a file.
    """

    digest: str
    labels: dict[str, Label]
    words: str
    name: str
    slices: tuple[int, ...]


class Says(Struct, frozen=True):
    """What a table says of itself: `cells`: their digests, `missing`: lines that lack an answer, and are not in it."""

    cells: tuple[str, ...]
    rows: int
    missing: int


class JudgedTable(Struct, frozen=True):
    """A pair of cells, the second of which is compared with, or one cell; and where its verdicts go."""

    cells: tuple[JudgedCell, ...]
    result: Path

    @property
    def words(self) -> str:
        """For a person."""
        return " against ".join(each.words for each in self.cells)

    @property
    def path(self) -> Path:
        """Where the answers stand that the judge is asked about. A name that readers of a folder pass over."""
        return self.result.with_name(f"_{self.result.name}{TABLE_SUFFIX}")

    def in_order_of(self, said: Says) -> "JudgedTable":
        """The same pair, its cells in the order in which a table has them that is there already."""
        if said.cells == tuple(each.digest for each in reversed(self.cells)):
            return msgspec.structs.replace(self, cells=tuple(reversed(self.cells)))
        return self


def judged_cells(manifest: Manifest, job: Job) -> tuple[JudgedCell, ...]:
    """The cells of a run that its job names, in the job's order."""
    by_cell: dict[int, list[int]] = {}
    for number in manifest.active:
        by_cell.setdefault(manifest.slices[number].target, []).append(number)
    first = [manifest.slices[numbers[0]] for numbers in by_cell.values()]
    telling = _telling(first)
    found = []
    for (target, numbers), each in zip(by_cell.items(), first, strict=True):
        labels = {name: label for name, label in each.labels.items() if name in telling}
        words = text_of(*labels.values()) if len(labels) == 1 else words_of(labels) or job.target.model
        name = "-".join(map(text_of, labels.values())) or job.target.model
        digest = each.cell or digest_of(manifest.targets[target].target)
        found.append(JudgedCell(digest, dict(each.labels), words, _OTHERS.sub("_", name), tuple(numbers)))
    return tuple(found)


def _telling(slices: Sequence[Slice]) -> set[str]:
    """The axes that tell cells apart; the model, where nothing does."""
    names = dict.fromkeys(name for each in slices for name in each.labels)
    found = {name for name in names if len({text_of(each.labels[name]) for each in slices}) > 1}
    return found or {"model"} & names.keys()


def judged_tables(job: Job, cells: Sequence[JudgedCell], folder: Path) -> list[JudgedTable]:
    """The tables of a job, in the order in which they are told. Raises `UsageError` where there are too many."""
    way = None if job.judge is None else job.judge.way
    chosen = [tuple(each) for each in (_pairs(way, cells) if isinstance(way, Pairwise) else zip(cells))]
    if len(chosen) > MAX_TABLES:
        raise UsageError(
            f"judge: there are {len(chosen):,} pairs of cells, and a job is judged in {MAX_TABLES:,} at most. Set "
            "judge.pairwise.baseline, or take values out of the matrix."
        )
    return [JudgedTable(each, _result_of(each, folder)) for each in chosen]


def _pairs(way: Pairwise, cells: Sequence[JudgedCell]) -> Iterator[tuple[JudgedCell, JudgedCell]]:
    """Each cell with the one that has the baseline's label and else its own labels; or each with each other one."""
    if way.baseline is None:
        yield from itertools.combinations(cells, 2)
        return
    axis = next(name for cell in cells for name, label in cell.labels.items() if text_of(label) == way.baseline)
    for cell in cells:
        partner = next((each for each in cells if _is_partner(cell, each, axis, way.baseline)), None)
        if partner is not None and partner is not cell:
            yield cell, partner


def _is_partner(cell: JudgedCell, other: JudgedCell, axis: str, baseline: str) -> bool:
    own = {name: label for name, label in cell.labels.items() if name != axis}
    return text_of(other.labels[axis]) == baseline and own.items() <= other.labels.items()


def _result_of(cells: Sequence[JudgedCell], folder: Path) -> Path:
    """Where the verdicts on these cells go: where they are already, whatever the cells were called then."""
    digests = "\n".join(sorted(each.digest for each in cells))
    digest = hashlib.sha256(digests.encode()).hexdigest()[:DIGEST_DIGITS]
    end = f"-{digest}.parquet"
    there = [name for name in local.entries(folder) if name.startswith("_") and name.endswith(end + TABLE_SUFFIX)]
    if there:
        return folder / there[0][1 : -len(TABLE_SUFFIX)]
    return folder / f"{'-vs-'.join(each.name for each in cells)[:NAME_CHARACTERS]}{end}"


# --- what is in them ---


def answer_names(*, is_pairwise: bool) -> tuple[str, ...]:
    """The columns of a table that hold answers: of two cells, or of one."""
    return (FIRST, SECOND) if is_pairwise else (ANSWER,)


class Answers:
    """The answers of a run, by slice, as a table of a judge has them.

    `columns`: of the input, that a prompt shows; `names`: of the columns that hold answers.
    """

    def __init__(self, run: Run, columns: Sequence[str], names: Sequence[str]) -> None:
        self._run = run
        self._columns = list(columns)
        self._names = tuple(names)
        ours = {ROW, SAMPLE, *names}
        if taken := [name for name in columns if name in ours]:
            raise UsageError(
                f"judge.prompt: the input has a column named {shown(taken[0])}, which stands for an answer here. Give "
                "that column another name."
            )

    def write(self, table: JudgedTable, place: Path) -> Says:
        """Write a table, a range of rows at a time, and say what is in it."""
        rows = missing = 0

        def written(file: IO[bytes]) -> None:
            nonlocal rows, missing
            writer: pq.ParquetWriter | None = None
            for sample in range(min(len(each.slices) for each in table.cells)):
                for lines, lacking in self._ranges(table, sample):
                    rows, missing = rows + lines.num_rows, missing + lacking
                    writer = writer or pq.ParquetWriter(file, lines.schema, compression=parts.COMPRESSION)
                    writer.write_table(lines, row_group_size=max(1, lines.num_rows))
            if writer is None:
                raise UsageError("judge: the input has no rows, so there is nothing to judge.")
            said = Says(tuple(each.digest for each in table.cells), rows, missing)
            writer.add_key_value_metadata({SAYS: msgspec.json.encode(said)})
            writer.close()

        local.write_aside(place, written)
        return Says(tuple(each.digest for each in table.cells), rows, missing)

    def _ranges(self, table: JudgedTable, sample: int) -> Iterator[tuple[pa.Table, int]]:
        """The lines of a sample, and how many of each range lack an answer."""
        manifest = self._run.manifest
        count = manifest.partitions_in_slice
        for partition in manifest.partitions()[:count]:
            indexes = [each.slices[sample] * count + partition.index for each in table.cells]
            texts = [self._texts(index) for index in indexes]
            there = pc.is_valid(texts[0])
            for each in texts[1:]:
                there = pc.and_(there, pc.is_valid(each))
            first, length = partition.first_row, partition.row_count
            path = self._run.directory.parts.path(indexes[0])
            made = {name: parts.read_column(path, name) for name in self._columns}
            made |= {
                ROW: pa.chunked_array([pa.array(range(first, first + length), pa.int64())]),
                SAMPLE: pa.chunked_array([pa.array([sample] * length, pa.int32())]),
                **dict(zip(self._names, texts, strict=True)),
            }
            lines = pa.table(made).filter(there)
            yield lines.combine_chunks(), length - lines.num_rows

    def _texts(self, index: int) -> pa.ChunkedArray:
        """The answers of a partition; null where a row has no whole answer."""
        path, prefix = self._run.directory.parts.path(index), self._run.prefix
        texts, statuses = parts.read_column(path, f"{prefix}response"), parts.read_column(path, f"{prefix}status")
        return pc.if_else(pc.equal(statuses, "succeeded"), texts, pa.scalar(None, texts.type))


def said_by(path: Path) -> Says | None:
    """What a table says of itself; None where there is none."""
    found = (parts.result_metadata(path) or {}).get(SAYS.decode())
    return None if found is None else msgspec.json.decode(found, type=Says)


def is_same(one: Path, other: Path) -> bool:
    """Whether two tables have the same lines. The bytes of a file depend on the library that wrote it, too."""
    if parts.shape_of(one) != parts.shape_of(other):
        return False
    with one.open("rb") as left, other.open("rb") as right:
        first, second = pq.ParquetFile(left), pq.ParquetFile(right)
        if first.num_row_groups != second.num_row_groups:
            return False
        groups = range(first.num_row_groups)
        return all(first.read_row_group(each).equals(second.read_row_group(each)) for each in groups)


def cell_dict(cell: JudgedCell) -> dict[str, Any]:
    """A cell's labels, JSON-ready."""
    found: dict[str, Any] = json.loads(json.dumps(cell.labels))
    return found
