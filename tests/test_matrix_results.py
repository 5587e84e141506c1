"""What comes out of a run of a matrix: columns, order, metadata, files of a data set, and whoever reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands.stopping import NotPublishedError
from cometbatch.results import columns
from cometbatch.results.slices import axis_type
from cometbatch.run_state.published import lines_of
from tests.matrix_on_disk import MatrixOnDisk, matrix_job
from tests.workbench import MODEL, Workbench, carry_out, peak_bytes, simulator

ROWS = 10
SIX = [(1, 0), (0, 1), (0, 0), (1, 1), (0, 2), (1, 2)]
"""Slices of two models and three samples, in the order in which they came to be."""


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A folder with ten rows."""
    made = Workbench(tmp_path)
    made.write_rows(ROWS)
    return made


def test_a_line_has_its_cell_sample_and_row_between_the_inputs_columns_and_the_outputs(bench: Workbench) -> None:
    """The input's columns stay first, then one column for each axis, `sample`, `row`, then the output's of any run."""
    MatrixOnDisk(matrix_job(bench, temperatures=(0.0, 0.5)), 4).commit().publish()
    schema = bench.result().schema
    own = ["model", "temperature", "format", "sample", "row"]
    output = [column.name for column in columns.COLUMNS]
    assert schema.names == ["parcel", "note", *own, *output]
    kinds = [pa.string(), pa.float64(), pa.string(), pa.int32(), pa.int64()]
    assert [schema.field(name).type for name in own] == kinds


def test_lines_are_in_the_order_of_cells_samples_and_rows_whatever_the_order_of_slices(bench: Workbench) -> None:
    """The first axis is the slowest; which slice was asked first is no matter."""
    MatrixOnDisk(matrix_job(bench, samples=3), 4, order=SIX).commit().publish()
    table = bench.result()
    keys = [
        (each["model"], each["sample"], each["row"]) for each in table.select(["model", "sample", "row"]).to_pylist()
    ]
    assert keys == [
        (model, sample, row) for model in ("model-a", "model-b") for sample in range(3) for row in range(ROWS)
    ]
    for each in table.to_pylist():
        if each["status"] != "failed":
            assert each["response"] == f"{each['model']} {each['sample']} {each['row']}"
        assert each["custom_id"] == f"{each['row']:04d}"


def test_a_result_names_its_slices_in_order(bench: Workbench) -> None:
    """So that a reader knows what it holds without reading it."""
    MatrixOnDisk(matrix_job(bench, samples=3), 4, order=SIX).commit().publish()
    said = json.loads((pq.read_metadata(bench.output).metadata or {})[b"cometbatch.slices"])
    assert said == [
        {"labels": {"model": model, "format": "chat"}, "sample": sample}
        for model in ("model-a", "model-b")
        for sample in range(3)
    ]


def test_slices_that_the_job_no_longer_names_are_left_out_and_come_back_with_their_names(bench: Workbench) -> None:
    """What was answered stays in the run directory; the result is that of the job as it is now."""
    run = MatrixOnDisk(matrix_job(bench, samples=3), 4, order=SIX).commit()
    assert run.publish().is_finished
    whole = run.manifest
    run.write_manifest(msgspec.structs.replace(whole, named=(0, 3)))
    assert not run.found().is_finished  # the result has slices that are no longer named
    assert run.publish().is_finished
    assert set(zip(*(bench.result().column(name).to_pylist() for name in ("model", "sample")), strict=True)) == {
        ("model-b", 0),
        ("model-b", 1),
    }
    run.write_manifest(whole)
    assert run.publish().is_finished
    assert bench.result().num_rows == 6 * ROWS


def test_renamed_labels_are_published_again(bench: Workbench) -> None:
    """They are what a reader sees of a cell, and they change no request."""
    run = MatrixOnDisk(matrix_job(bench), 4).commit()
    assert run.publish().is_finished
    renamed = [msgspec.structs.replace(each, labels={**each.labels, "format": "x"}) for each in run.manifest.slices]
    run.write_manifest(msgspec.structs.replace(run.manifest, slices=tuple(renamed)))
    assert not run.found().is_finished
    assert run.publish().is_finished
    assert bench.result().column("format").to_pylist() == ["x"] * 2 * ROWS


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ((0, 1), pa.int64()),
        ((0, 0.7), pa.float64()),
        ((True, False), pa.bool_()),
        ((True, 1), pa.string()),
        (("a", 1), pa.string()),
        ((2**60, 0.5), pa.string()),
        ((2**63, 1), pa.string()),
    ],
)
def test_a_column_of_labels_has_the_narrowest_type_that_holds_each_as_it_was_written(
    labels: tuple[str | int | float | bool, ...], kind: pa.DataType
) -> None:
    """No label is rounded, and none becomes another one's."""
    assert axis_type(labels) == kind


def test_columns_of_a_matrix_have_the_outputs_prefix(bench: Workbench) -> None:
    """It is the way out where the input has a column `model`."""
    lines = lines_of(MatrixOnDisk(matrix_job(bench, output={"prefix": "out_"}), 4).manifest, ["status", "response"])
    assert [field.name for field in lines.slice_fields] == ["out_model", "out_format", "out_sample", "out_row"]


def test_axis_columns_cost_nothing_on_the_disk(bench: Workbench) -> None:
    """Their values are a number a run of lines: 8 slices of 200 rows take less than a byte a line for all of them."""
    bench.write_rows(200)
    MatrixOnDisk(matrix_job(bench, samples=4), 200).commit().publish()
    with pq.ParquetFile(bench.output) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    found = [group.column(at) for group in groups for at in range(group.num_columns)]
    axes = [each for each in found if each.path_in_schema in ("model", "format", "sample")]
    assert all("RLE_DICTIONARY" in each.encodings for each in axes)
    assert sum(each.total_compressed_size for each in axes) < 8 * 200


def test_a_data_set_of_a_matrix_has_a_file_for_each_slice(bench: Workbench) -> None:
    """Its name tells cell and sample, names sort as the result does, and its parts are in the run directory."""
    folder = bench.folder / "out"
    run = MatrixOnDisk(matrix_job(bench, samples=2, output={"path": f"{folder}/"}), 4).commit()
    assert not list(folder.glob("*.parquet"))
    assert run.publish().is_finished
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        f"0000{cell}-0000{sample}-model-{'ab'[cell]}-chat.parquet" for cell in range(2) for sample in range(2)
    ]
    tables = [pq.read_table(folder / name) for name in names]
    assert [table.num_rows for table in tables] == [ROWS] * 4
    assert [set(table.column("sample").to_pylist()) for table in tables] == [{0}, {1}] * 2
    rows = list(cometbatch.status(folder).summary.iter_rows())
    assert [(row["model"], row["sample"], row["row"]) for row in rows] == [
        (f"model-{cell}", sample, row) for cell in "ab" for sample in range(2) for row in range(ROWS)
    ]


def test_a_file_of_a_data_set_goes_with_its_slice(bench: Workbench) -> None:
    """Whoever reads the folder never sees a slice that the job no longer names, nor a half of one."""
    folder = bench.folder / "out"
    run = MatrixOnDisk(matrix_job(bench, samples=2, output={"path": f"{folder}/"}), 4).commit()
    run.publish()
    (folder / "00009-00000-model-z.parquet").write_bytes(b"")
    assert not run.found().is_finished
    run.write_manifest(msgspec.structs.replace(run.manifest, named=(2,)))
    assert run.publish().is_finished
    assert [path.name for path in folder.iterdir()] == ["00000-00000-model-b-chat.parquet"]


def test_verify_checks_each_slice_against_its_own_settings_and_prices(bench: Workbench) -> None:
    """Requests are made again with the model, the temperature and the seed of each slice, costs by its own prices."""
    job = matrix_job(bench, temperatures=(0.0, 0.5), samples=2, params={"seed": 7})
    run = MatrixOnDisk(job, 4).commit()
    run.publish()
    found = cometbatch.verify(bench.output)
    assert found.ok, found.describe()
    assert {check.name: check.state for check in found.checks}["slices"] == "ok"
    assert {check.state for check in found.checks} == {"ok"}, found.describe()


def changed(table: pa.Table, column: str, values: Sequence[object]) -> pa.Table:
    """The table with other values in a column."""
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))


def tampered(bench: Workbench, how: str) -> pa.Table:
    """A result of two models and two samples in which something was changed."""
    table = bench.result()
    if how == "labels of two slices change places":
        names = ["model-a"] * ROWS + ["model-b"] * 2 * ROWS + ["model-a"] * ROWS
        return changed(table, "model", names)
    if how == "a sample has another number":
        return changed(table, "sample", [0] * ROWS + [2] * ROWS + [0] * ROWS + [1] * ROWS)
    if how == "a slice is missing":
        return table.slice(0, 3 * ROWS)
    if how == "a line is missing":
        return pa.concat_tables([table.slice(0, 15), table.slice(16)])
    return table.take([*range(ROWS, 2 * ROWS), *range(ROWS), *range(2 * ROWS, 4 * ROWS)])


@pytest.mark.parametrize(
    "how",
    [
        "labels of two slices change places",
        "a sample has another number",
        "a slice is missing",
        "a line is missing",
        "slices are in another order",
    ],
)
def test_verify_finds_slices_that_are_not_the_jobs(bench: Workbench, how: str) -> None:
    """Just its slices, in order, each whole, under its labels: whatever else holds is no excuse."""
    MatrixOnDisk(matrix_job(bench, samples=2), 4).commit().publish()
    assert cometbatch.verify(bench.output).ok
    pq.write_table(tampered(bench, how), bench.output)
    states = {check.name: check.state for check in cometbatch.verify(bench.output).checks}
    assert states["slices"] == "failed"


def test_verify_names_the_file_of_a_slice_that_is_missing_or_too_many(bench: Workbench) -> None:
    """A reader of the folder would see fewer answers than were paid for, or somebody else's."""
    folder = bench.folder / "out"
    MatrixOnDisk(matrix_job(bench, samples=2, output={"path": f"{folder}/"}), 4).commit().publish()
    assert cometbatch.verify(folder).ok
    name = "00001-00000-model-b-chat.parquet"
    (folder / name).rename(folder / "00007-00000-model-b-chat.parquet")
    (check,) = [each for each in cometbatch.verify(folder).checks if each.name == "slices"]
    assert check.state == "failed"
    assert {name, "00007-00000-model-b-chat.parquet"} <= {place.split(":")[0] for place in check.places}


def test_verify_accepts_what_is_left_of_slices_that_the_job_no_longer_names(bench: Workbench) -> None:
    """Parts, and journals of what never came to its end: they wait for the day on which the job names them again."""
    run = MatrixOnDisk(matrix_job(bench, samples=3), 4, order=SIX).commit([0, 1, 2, 3])
    run.journal(4, range(4))
    now = matrix_job(bench, samples=2)
    run.write_manifest(msgspec.structs.replace(run.manifest, named=(2, 1, 0, 3), job=now.describe()))
    assert run.publish().is_finished
    found = cometbatch.verify(bench.output)
    assert found.ok, found.describe()


def test_verify_holds_each_slice_against_its_own_price(bench: Workbench) -> None:
    """A cost at the price of another model is no cost of this one."""
    run = MatrixOnDisk(matrix_job(bench), 4).commit()
    run.publish()
    books = list(reversed(run.manifest.books))
    run.write_manifest(run.manifest.with_prices(books))
    states = {check.name: check.state for check in cometbatch.verify(bench.output).checks}
    assert states["costs"] == "failed"


def test_show_tells_the_calls_of_a_row_from_each_other(bench: Workbench) -> None:
    """A line a call, with the row's number and the axes that have several values first."""
    MatrixOnDisk(matrix_job(bench, samples=2), 4).commit().publish()
    for target in (bench.output, bench.run_directory):
        lines = list(cometbatch.show(target, limit=100).lines())
        assert lines[0].split("\t") == ["row", "model", "sample", "custom_id", "status", "answer"]
        assert lines[1].split("\t") == ["0", "model-a", "0", "0000", "succeeded", "model-a 0 0"]
        assert lines[-1].split("\t") == ["9", "model-b", "1", "0009", "succeeded", "model-b 1 9"]
        assert len(lines) == 1 + 4 * ROWS


def test_rows_of_a_run_that_goes_on_are_lines_of_its_result(bench: Workbench) -> None:
    """What has an outcome is read in the result's order, with its cell, from parts and journals alike."""
    run = MatrixOnDisk(matrix_job(bench, samples=2), 4, order=[(1, 1), (0, 0), (0, 1), (1, 0)]).commit([1])
    run.journal(0, [1, 3])
    rows = list(cometbatch.status(bench.run_directory).summary.iter_rows())
    keys = [(row["model"], row["sample"], row["row"], row["note"]) for row in rows]
    assert keys == [
        *(("model-a", 0, row, f"note {row}, in two\nlines") for row in range(ROWS)),
        *(("model-b", 1, row, f"note {row}, in two\nlines") for row in (1, 3)),
    ]
    frame = cometbatch.status(bench.run_directory).summary.to_polars()
    assert frame.columns == list(rows[0])
    assert frame.height == ROWS + 2


def test_accepted_shares_are_of_calls(bench: Workbench) -> None:
    """One of 20 calls failed, which is 5% of them, and not 10% of the rows."""
    MatrixOnDisk(matrix_job(bench), 4).commit().publish()
    accepted = cometbatch.status(bench.output, accept={"failed": "5%", "incomplete": "5%"}).summary.accepted
    assert (accepted.rows, accepted.failed.most, accepted.is_within) == (20, 1, True)


def test_publishing_many_slices_takes_the_memory_of_one(bench: Workbench) -> None:
    """However many there are, parts are read one after the other, and the result is written a row group at a time."""
    bench.write_rows(12)
    few, many = (MatrixOnDisk(matrix_job(bench, samples=count), 12).commit() for count in (1, 30))
    del few
    many.write_manifest(msgspec.structs.replace(many.manifest, named=(0,)))
    one = peak_bytes(many.publish)
    many.write_manifest(msgspec.structs.replace(many.manifest, named=msgspec.UNSET))
    assert peak_bytes(many.publish) < one + 20 * 2**20
    assert bench.result().num_rows == 60 * 12


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_a_result_follows_its_job_and_verify_proves_it_each_time(bench: Workbench, output: str) -> None:
    """Further models and samples, fewer, other orders: only what is new is asked, and the result is the job's."""
    network, whole = simulator(), {"model": [MODEL, f"{MODEL}-mini"], "params.temperature": [0, 1], "samples": 2}
    steps: list[tuple[dict[str, Any], int, int]] = [
        ({**whole, "model": [MODEL]}, 4, 4),
        (whole, 4, 8),
        ({**whole, "params.temperature": [1], "samples": 3}, 2, 6),
        ({"params.temperature": [1, 0], "model": whole["model"]}, 0, 4),
        (whole, 0, 8),
    ]
    for matrix, new, slices in steps:
        settings = bench.settings(output={"path": f"{bench.folder}/{output}", "partition_rows": 4}, matrix=matrix)
        job, before = (
            cometbatch.load_job({**settings, "target": {"base_url": "simulator", "format": "chat"}}),
            network.posts,
        )
        summary = carry_out(job, network)
        assert network.posts - before == new * ROWS
        assert (summary.finished, summary.rows) == (True, slices * ROWS)
        assert cometbatch.verify(job).ok
        rows = list(summary.iter_rows())
        assert len({(row["model"], row["temperature"], row["sample"], row["row"]) for row in rows}) == slices * ROWS
        axes = [name for name in rows[0] if name in ("model", "temperature")]
        assert axes == [key.split(".")[-1] for key in matrix if key != "samples"]
        assert not carry_out(job, network).had_work


def test_a_data_set_that_is_given_up_half_way_has_whole_slices_and_is_published_again(bench: Workbench) -> None:
    """Each file appears by a rename of its own, so that whoever reads meanwhile finds some slices, and no halves."""
    folder = bench.folder / "out"
    run = MatrixOnDisk(matrix_job(bench, samples=2, output={"path": f"{folder}/"}), 4).commit()
    asked = iter([False] * 7)
    with pytest.raises(NotPublishedError):
        run.publish(is_given_up=lambda: next(asked, True))
    assert [pq.read_metadata(path).num_rows for path in sorted(folder.iterdir())] == [ROWS, ROWS]
    assert not run.found().is_finished
    assert run.publish().is_finished


@pytest.mark.parametrize("first", ["plain", "matrix"])
def test_fresh_leaves_nothing_of_a_data_set_of_the_other_kind(bench: Workbench, first: str) -> None:
    """With a matrix and without, the files of a data set have other names and lie elsewhere."""
    bench.write_rows(3)
    bench.output = bench.folder / "out"
    output = {"path": f"{bench.output}/"}
    plain = bench.job(output=output)
    matrix = bench.job(output=output, target={"model": None}, matrix={"model": [MODEL], "samples": 2})
    begun, then = (plain, matrix) if first == "plain" else (matrix, plain)
    carry_out(begun, simulator())
    with pytest.raises(cometbatch.UsageError):
        carry_out(then, simulator())
    assert carry_out(then, simulator(), fresh=True).finished
    names = ["00000-00000-comet-sim-1-chat.parquet", "00000-00001-comet-sim-1-chat.parquet"]
    assert sorted(path.name for path in bench.output.iterdir()) == (names if then is matrix else ["00000.parquet"])
    assert len(list(bench.run_directory.glob("parts/*"))) == (2 if then is matrix else 0)
    assert cometbatch.verify(then).ok
