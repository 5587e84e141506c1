"""Runs of a matrix on a disk, made by hand: parts and journals of chosen slices, without a service."""

import io
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cometbatch.commands.publishing import publish
from cometbatch.commands.row_maker import Maker, row_maker
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.job.batch_lines import open_table
from cometbatch.job.matrix import Axis, CellSettings, Matrix, Prompt
from cometbatch.money.prices import PriceSettings, cost
from cometbatch.records import (
    Answered,
    CallRequest,
    Completion,
    Failed,
    Failure,
    Outcome,
    Partition,
    PriceBook,
    Rates,
    Usage,
)
from cometbatch.results import codec, columns, parts, tallies
from cometbatch.run_state.begin import first_session
from cometbatch.run_state.manifest import MANIFEST_VERSION, Manifest, PricedTarget, Slice, encode_manifest, metadata_of
from cometbatch.run_state.run import Run, find, home_of_job
from tests.run_on_disk import WHO
from tests.scripted_run import NOW, RUN_ID
from tests.workbench import Workbench

RATES = {"model-a": Rates(Decimal(1), Decimal(2)), "model-b": Rates(Decimal(3), Decimal("0.5"))}
FAILING, CUT = 2, 4
"""Rows that fail in the first cell, and that are cut there."""


def matrix_job(
    bench: Workbench,
    models: Sequence[str] = ("model-a", "model-b"),
    temperatures: Sequence[float] = (),
    samples: int = 1,
    **sections: Any,
) -> Job:
    """A job with these axes, the models slowest."""
    job = bench.job(**{"input": {"id": "parcel"}, **sections})
    axes = [Axis("model", "model", tuple(models))]
    if temperatures:
        axes.append(Axis("params.temperature", "temperature", tuple(temperatures)))
    cells = tuple(
        CellSettings(
            labels=(model,) if heat is None else (model, heat),
            format="chat",
            model=model,
            prompt=0,
            params=job.params if heat is None else msgspec.structs.replace(job.params, temperature=heat),
            prices=PriceSettings(),
        )
        for model in models
        for heat in (temperatures or (None,))
    )
    prompts = (Prompt(job.messages, places=job.places, cut=job.cut),)
    moved = ("target.model", "params.temperature")
    matrix = Matrix(tuple(axes), cells, prompts, job.params, samples, moved)
    return msgspec.structs.replace(job, matrix=matrix)


class MatrixOnDisk:
    """A run of such a job. `order`: its slices in the order of the manifest, as (number of the cell, sample)."""

    def __init__(self, job: Job, partition_rows: int = 4, order: Sequence[tuple[int, int]] | None = None) -> None:
        self.job = job
        self.source = open_table(job)
        self.cells = job.cells()
        self._makers: dict[int, Maker] = {}
        in_order = [(cell, sample) for cell in range(len(self.cells)) for sample in range(job.samples)]
        self.order = list(order or in_order)
        self.directory = home_of_job(job)
        self.directory.create()
        books = [PriceBook(cell.target.model, "job", RATES.get(cell.target.model)) for cell in self.cells]
        self.manifest = Manifest(
            version=MANIFEST_VERSION,
            cometbatch="0.1.0",
            run_id=RUN_ID,
            created_at="2026-09-01T12:00:00+00:00",
            fingerprint=job.fingerprint(),
            input=self.source.check(),
            partition_rows=partition_rows,
            columns=tuple(each.name for each in columns.columns_for(job.asked_columns, job.columns_there)),
            targets=tuple(PricedTarget(cell.target, book) for cell, book in zip(self.cells, books, strict=True)),
            job=job.describe(),
            slices=tuple(
                Slice(target=cell, sample=sample, labels=self.cells[cell].labels, cell=self.cells[cell].digest)
                for cell, sample in self.order
            ),
            needs=("matrix",),
            named=tuple(self.order.index(each) for each in in_order),
        )
        if self.directory.last_session() is None:
            first_session(self.directory, RUN_ID, WHO)
        self.write_manifest(self.manifest)
        (self.table,) = self.source.tables(self.manifest.input, partitions(self.manifest.input.rows, 10**6)[:1])

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        self.manifest = manifest
        self.directory.write_manifest(encode_manifest(manifest))

    def maker(self, number: int) -> Maker:
        """What makes the requests of a slice."""
        if number not in self._makers:
            self._makers[number] = self._made(number)
        return self._makers[number]

    def _made(self, number: int) -> Maker:
        each = self.manifest.slices[number]
        target = self.cells[each.target].target_of(each.sample)
        template = target.prompt_template(refuse_empty=True)
        template.check(self.manifest.input.columns)
        return row_maker(target, template, self.manifest.input.columns, self.job.input.id)

    def outcome(self, number: int, row: int) -> Outcome:
        """What a row of a slice comes to: text that names model, sample and row."""
        cell, sample = self.order[number]
        first = number * self.manifest.input.rows
        maker = self.maker(number)
        (values,) = row_values(self.table.slice(row, 1), maker.columns)
        made = maker.make(first + row, values)
        assert isinstance(made, CallRequest)
        if cell == 0 and row == FAILING:
            failure = Failure("blocked", "not this one")
            return Failed(made.ordinal, made.custom_id, 1, 0.5, NOW, made.request_hash, failure)
        usage = Usage(10 + cell, 3 + sample)
        is_cut = cell == 0 and row == CUT
        text = f"{self.cells[cell].target.model} {sample} {row}"
        said = Completion(text, "length" if is_cut else "stop", usage, "id", self.cells[cell].target.model)
        return Answered(
            made.ordinal, "incomplete" if is_cut else "succeeded", made.custom_id, 1, 0.25, NOW, made.request_hash,
            200, "r", said, cost(usage, self.manifest.books[cell].rates),
        )  # fmt: skip

    def partitions_of(self, number: int) -> list[Partition]:
        """The partitions of a slice."""
        return [each for each in self.manifest.partitions() if each.slice == number]

    def commit(self, numbers: Collection[int] | None = None) -> "MatrixOnDisk":
        """Write the parts of these slices; of all, without."""
        for number in range(len(self.order)) if numbers is None else numbers:
            for each in self.partitions_of(number):
                rows = range(each.first_row, each.first_row + each.row_count)
                outcomes = [self.outcome(number, row) for row in rows]
                of_run = columns.columns_of(self.manifest.columns)
                table = columns.join(self.table.slice(each.first_row, each.row_count), outcomes, "", self.said, of_run)
                info = parts.PartInfo(RUN_ID, each, tallies.tally(outcomes))
                content = io.BytesIO()
                parts.write_part(content, table.schema, [table], lambda info=info: info)  # type: ignore[misc]
                self.directory.commit_part(each.index, lambda file, held=content: file.write(held.getvalue()))  # type: ignore[misc]
        return self

    @property
    def said(self) -> dict[str, str]:
        """The metadata of each part."""
        return metadata_of(self.manifest)

    def journal(self, number: int, rows: Sequence[int]) -> None:
        """Leave a journal behind with outcomes of these rows of a slice."""
        if not (self.directory.path / "in_flight.1").exists():
            self.directory.new_marks(RUN_ID, 1, 1).close()
        journal = self.directory.journals.begin(RUN_ID, self.manifest.range_of(self.manifest.partition_of(rows[0])), 1)
        journal.append([codec.encode_record(self.outcome(number, row)) for row in rows])
        journal.close()

    def found(self) -> Run:
        """The run as a process finds it."""
        run = find(self.directory, self.job.output.path)
        assert run is not None
        return run

    def publish(self, **options: Any) -> Run:
        """Publish the result; the run after that."""
        publish(self.found(), self.source.schema, **options)
        return self.found()
