"""`report`: a page of whatever a person names, on the command line and in Python; or a clear error."""

import json
import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import cometbatch
from cometbatch.cli import cli
from cometbatch.commands.report_prompts import NO_INPUT
from cometbatch.errors import CheckpointError, InputError, UsageError
from tests import virtual_time
from tests.make_version_3 import BEGUN
from tests.page.browser import Opener
from tests.page.reading import Page, read_page
from tests.reports.results import failed, right, write, wrong
from tests.workbench import KEY, KEY_ENV, Network, Workbench, carry_out, simulator

ROWS = 30


def command(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def page_of(folder: Path, *targets: object, **options: Any) -> Page:
    """The page of what is named."""
    path = folder / "page.html"
    found = cometbatch.report([Path(str(each)) for each in targets], output=path, **options)
    page = read_page(path)
    assert found.rows == len(page.rows) == page.meta["selection"]["rows"]
    assert found.bytes == path.stat().st_size
    return page


def finished(folder: Path, **sections: Any) -> tuple[Workbench, Path]:
    """A finished run with some failures, and its job file."""
    bench = Workbench(folder)
    bench.write_rows(ROWS)
    path = bench.write_job(**{"output": {"partition_rows": 8}, **sections})
    carry_out(cometbatch.load_job(path), simulator("400:0.1", "length:0.1"))
    return bench, path


def answers(page: Page) -> list[str | None]:
    """The answers of a page's rows."""
    return [None if (cell := row.texts["response"]) is None else cell.text for row in page.rows]


def test_a_job_its_result_and_its_run_directory_are_the_same_page(tmp_path: Path) -> None:
    """Only the job knows the command; all know the run."""
    bench, path = finished(tmp_path)
    pages = [page_of(tmp_path, each) for each in (path, bench.output, bench.run_directory)]
    whole = bench.result().column("response").to_pylist()
    for page in pages:
        assert answers(page) == whole
        assert page.meta["overview"]["sources"] == pages[0].meta["overview"]["sources"]
        (source,) = page.meta["sources"]
        assert (source["state"], source["rows"], source["calls"]) == ("finished", ROWS, ROWS)
        assert source["run_id"] == cometbatch.status(path).summary.run_id
        prompt = page.rows[3].texts["prompt"]
        assert prompt is not None
        assert "Parcel 0003 says: note 3, in two\nlines" in prompt.text
    assert [page.meta["sources"][0]["command"] for page in pages] == [f"cometbatch run {path}", None, None]


def test_results_of_the_first_version_are_shown(tmp_path: Path) -> None:
    """They lack columns that later ones have: what those would tell is not known, or nothing."""
    for name, told in {"finished": (8, 1, 1), "dataset": (8, 1, 1), "stopped": (4, 1, 1), "retried": (8, 1, 1)}.items():
        folder = shutil.copytree(BEGUN / name, tmp_path / name)
        result = folder / ("answers" if name == "dataset" else "out.parquet")
        page = page_of(tmp_path, result if result.exists() else folder / "_out.parquet.run")
        (found,) = page.meta["overview"]["sources"]
        assert tuple(found["outcomes"][kind] for kind in ("succeeded", "incomplete", "failed")) == told, name
        assert (found["tokens"]["cache_write"], found["cost"]["at_least"]) == (0, 0)
        assert Decimal(found["cost"]["usd"]) == Decimal("0.0000085") * sum(told[:2])


def test_a_data_set_is_shown_like_a_file(tmp_path: Path) -> None:
    """With its parts in their order."""
    _, path = finished(tmp_path, output={"path": f"{tmp_path}/set/", "partition_rows": 8})
    assert answers(page_of(tmp_path, path)) == answers(page_of(tmp_path, tmp_path / "set"))
    assert len(answers(page_of(tmp_path, path))) == ROWS


def test_several_results_stand_side_by_side(tmp_path: Path) -> None:
    """In the order in which they are named; the limit is for all of them together."""
    paths = [
        write(tmp_path / f"{name}.parquet", [({"model": name}, [[right(), wrong(), failed()] * 10])], has_matrix=False)
        for name in ("a", "b")
    ]
    page = page_of(tmp_path, *paths)
    assert [each["name"] for each in page.meta["sources"]] == list(map(str, paths))
    assert [row.short["file"] for row in page.rows] == [str(paths[0])] * 30 + [str(paths[1])] * 30
    assert page.meta["selection"]["words"] == ""
    assert page.meta["title"] == ", ".join(map(str, paths))
    some = page_of(tmp_path, *paths, rows=24)
    assert len(some.rows) == 24
    assert some.meta["selection"]["parts"]["failed"] == 20
    assert [each["in_page"] for each in some.meta["sources"]] == [
        sum(row.short["file"] == str(path) for row in some.rows) for path in paths
    ]
    assert some.meta["selection"]["words"].startswith("This page has 24 of 60 rows: all 20 failed,")


def test_a_run_that_is_not_finished_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    """With a note, and with what remains."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    path = bench.write_job()
    virtual_time.run(cometbatch.run_async(cometbatch.load_job(path), limit=11, progress=False, http=simulator()))
    page = page_of(tmp_path, path)
    (source,) = page.meta["sources"]
    assert (source["state"], source["rows"], source["calls"], source["in_page"]) == ("stopped", 11, ROWS, 11)
    assert source["notes"] == [f"this run is not finished: 11 of {ROWS} rows have an outcome so far"]
    assert page.meta["overview"]["sources"][0]["outcomes"]["remaining"] == ROWS - 11
    assert command(path, "-o", tmp_path / "page.html").stderr == f"Note: {source['notes'][0]}\n"


@pytest.mark.parametrize("later", ["parcel,note\n1,other\n", "other\n1\n", None], ids=["changed", "another", "gone"])
def test_an_unfinished_run_without_its_input_is_shown_without_scores(tmp_path: Path, later: str | None) -> None:
    """It says why; rows that have no part yet have no prompt either. `compare`, which needs scores, names the input."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    path = bench.write_job(score={"ok": {"contains": "note"}})
    virtual_time.run(cometbatch.run_async(cometbatch.load_job(path), limit=11, progress=False, http=simulator()))
    assert page_of(tmp_path, path).meta["evaluation"] is not None
    bench.input.unlink()
    if later is not None:
        bench.input.write_text(later, encoding="utf-8")
    page = page_of(tmp_path, path)
    (source,) = page.meta["sources"]
    assert (source["state"], source["rows"], page.meta["evaluation"]) == ("stopped", 11, None)
    assert source["notes"][1].startswith("the input can't be read, so some rows are without its columns (")
    assert source["notes"][2:] == ["the input can't be read, so the answers are not scored"]
    assert page.rows[0].more["why"] == NO_INPUT
    with pytest.raises(UsageError, match=r"in\.csv: (can't be read|it is not what it was)"):
        cometbatch.compare(path)


def test_a_run_without_an_outcome_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that nothing is there yet."""
    monkeypatch.setenv(KEY_ENV, KEY)
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    path = bench.write_job()
    refuses = Network(answer=lambda _: httpx.Response(401, json={"error": {"message": "no", "code": "invalid_key"}}))
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(cometbatch.load_job(path), refuses)
    page = page_of(tmp_path, path)
    assert page.rows == []
    assert page.meta["overview"]["series"] is None
    assert page.meta["overview"]["failures"] == []
    assert page.meta["sources"][0]["rows"] == 0


def test_a_result_without_a_row_has_a_page(tmp_path: Path) -> None:
    """With the columns that it has."""
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [[right()]])], has_matrix=False)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)
    page = page_of(tmp_path, path)
    assert page.rows == []
    assert page.meta["overview"]["sources"][0]["outcomes"] == {
        "succeeded": 0, "incomplete": 0, "failed": 0, "remaining": 0,
    }  # fmt: skip


def test_a_run_that_is_not_published_is_shown_by_its_parts(tmp_path: Path) -> None:
    """All answers are there, whatever became of the file."""
    bench, path = finished(tmp_path)
    whole = bench.result().column("response").to_pylist()
    bench.output.unlink()
    assert answers(page_of(tmp_path, path)) == whole


def test_a_result_that_is_older_than_its_run_says_so(tmp_path: Path) -> None:
    """The file is shown as it stands."""
    bench, path = finished(tmp_path)
    job = cometbatch.load_job(path)
    stops = Network(answer=lambda _: httpx.Response(402, json={"error": {"message": "no", "code": "no_credit"}}))
    with pytest.raises(cometbatch.RunStoppedError):
        virtual_time.run(cometbatch.run_async(job, retry=["failed"], progress=False, http=stops))
    page = page_of(tmp_path, bench.output)
    assert len(page.rows) == ROWS
    (note,) = page.meta["sources"][0]["notes"]
    assert note.startswith("this is the result as it was; a run of this output is not finished")


def test_the_command_says_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a person and as JSON; an earlier report is replaced, in the current folder by default."""
    monkeypatch.chdir(tmp_path)
    finished(tmp_path)
    first = command("job.yaml")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("report.html: 30 rows, 0.")
    second = command("job.yaml", "--json", "--rows", 12, "--seed", 3)
    said = json.loads(second.stdout)
    size = (tmp_path / "report.html").stat().st_size
    assert said == {"path": "report.html", "rows": 12, "of": ROWS, "bytes": size, "notes": []}
    assert str(cometbatch.report("job.yaml", rows=12)).startswith("report.html: 12 of 30 rows, 0.")
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_the_same_seed_makes_the_same_page(tmp_path: Path) -> None:
    """But for the moment at which it was made."""
    rows = [right(cost_usd=None, latency_s=None, output_tokens=None)] * ROWS
    path = write(tmp_path / "a.parquet", [({"model": "m"}, [rows])], has_matrix=False)
    first, again, other = (page_of(tmp_path, path, rows=15, seed=seed) for seed in (7, 7, 8))
    assert first.rows == again.rows
    assert {**first.meta, "made_at": ""} == {**again.meta, "made_at": ""}
    assert first.rows != other.rows


def test_a_file_that_is_no_report_is_kept(tmp_path: Path) -> None:
    """Unless it may be overwritten; and a file of the run never is."""
    bench, path = finished(tmp_path)
    other = tmp_path / "mine.html"
    other.write_text("<html>my own page</html>", encoding="utf-8")
    with pytest.raises(UsageError, match=r"mine\.html exists, and is no report\. Choose another name, or replace it"):
        cometbatch.report(path, output=other)
    assert other.read_text(encoding="utf-8") == "<html>my own page</html>"
    cometbatch.report(path, output=other, overwrite=True)
    assert len(read_page(other).rows) == ROWS
    for needed in (path, bench.output, bench.input):
        before = needed.read_bytes()
        with pytest.raises(UsageError, match="is a file that the run needs"):
            cometbatch.report(path, output=needed, overwrite=True)
        assert needed.read_bytes() == before


def test_a_page_that_can_not_be_made_leaves_the_earlier_one(tmp_path: Path) -> None:
    """And no other file beside it."""
    bench, path = finished(tmp_path)
    page = tmp_path / "page.html"
    cometbatch.report(path, output=page)
    before = page.read_bytes()
    content = bytearray(bench.output.read_bytes())
    content[40:400] = bytes(360)
    bench.output.write_bytes(content)
    names = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises((InputError, CheckpointError), match="this can't be read as a result"):
        cometbatch.report(bench.output, output=page)
    assert page.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == names


def no_folder(folder: Path, bench: Workbench) -> list[object]:
    """A page in a folder that is not there."""
    return [bench.output, "-o", folder / "none" / "page.html"]


def is_folder(folder: Path, bench: Workbench) -> list[object]:
    """A folder in place of a page."""
    return [bench.output, "-o", folder]


def is_pipe(folder: Path, bench: Workbench) -> list[object]:
    """A pipe, as a device would be; nobody reads it, and nothing takes its place."""
    os.mkfifo(folder / "pipe")
    return [bench.output, "-o", folder / "pipe", "--overwrite"]


def not_begun(folder: Path, bench: Workbench) -> list[object]:
    """A job without a run."""
    path = folder / "other.yaml"
    path.write_text(json.dumps(bench.settings(output={"path": str(folder / "other.parquet")})), encoding="utf-8")
    return [path, "-o", folder / "page.html"]


def nothing_there(folder: Path, bench: Workbench) -> list[object]:
    """A path that leads nowhere."""
    return [folder / "nothing.parquet"]


def a_table(folder: Path, bench: Workbench) -> list[object]:
    """The input."""
    return [bench.input]


def no_result(folder: Path, bench: Workbench) -> list[object]:
    """A Parquet file of another program."""
    pq.write_table(pa.table({"a": [1]}), folder / "table.parquet")
    return [folder / "table.parquet", "-o", folder / "page.html"]


def empty_folder(folder: Path, bench: Workbench) -> list[object]:
    """A folder without a file."""
    (folder / "empty").mkdir()
    return [folder / "empty", "-o", folder / "page.html"]


def twice(folder: Path, bench: Workbench) -> list[object]:
    """The same result, twice."""
    return [bench.output, bench.output, "-o", folder / "page.html"]


def twice_by_two_names(folder: Path, bench: Workbench) -> list[object]:
    """A result, and the job that made it."""
    (folder / "job.json").write_text(json.dumps(bench.settings()), encoding="utf-8")
    return [bench.output, folder / "job.json", "-o", folder / "page.html"]


def two_of_a_name(folder: Path, bench: Workbench) -> list[object]:
    """A result to which somebody has added a column that it had."""
    table = bench.result()
    pq.write_table(table.append_column(table.schema.field("status"), table["status"]), folder / "two.parquet")
    return [folder / "two.parquet", "-o", folder / "page.html"]


def set_without_a_job(folder: Path, bench: Workbench) -> list[object]:
    """A key of a job, for a result."""
    return [bench.output, "--set", "params.max_output_tokens=3"]


def cut_off(folder: Path, bench: Workbench) -> list[object]:
    """A result whose end is missing."""
    shutil.copy(bench.output, folder / "cut.parquet")
    (folder / "cut.parquet").write_bytes(bench.output.read_bytes()[:-100])
    return [folder / "cut.parquet", "-o", folder / "page.html"]


WRONG: dict[Callable[[Path, Workbench], list[object]], str] = {
    no_folder: "there is no such folder. Make it first.",
    is_folder: "is a folder. Name a file in it.",
    is_pipe: "is a device or a pipe, and no file. Choose another name.",
    not_begun: "This job has not begun",
    nothing_there: "there is no run here. Give the job file, its output or its run directory.",
    a_table: "this is a table, and no run that cometbatch made of one",
    no_result: "this is no result of cometbatch. Give a job file, or the result of a run.",
    empty_folder: "there is no Parquet file here, so no result of cometbatch.",
    twice: "The same result is named twice. Name each once.",
    twice_by_two_names: "The same result is named twice. Name each once.",
    two_of_a_name: "it has two columns named 'status'.",
    set_without_a_job: "--set is for a job file.",
    cut_off: "this can't be read as a result",
}


@pytest.mark.parametrize("make", WRONG)
def test_what_can_not_be_shown_ends_with_2(tmp_path: Path, make: Callable[[Path, Workbench], list[object]]) -> None:
    """And says what to do; no page is there."""
    bench, _ = finished(tmp_path)
    result = command(*make(tmp_path, bench))
    assert isinstance(result.exception, UsageError), result.output
    assert result.exception.exit_code == 2
    assert WRONG[make] in str(result.exception)
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_part_of_an_unfinished_run_is_named(tmp_path: Path) -> None:
    """Never half of the rows without a word."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    path = bench.write_job(output={"partition_rows": 5})
    virtual_time.run(cometbatch.run_async(cometbatch.load_job(path), limit=12, progress=False, http=simulator()))
    part = next((bench.run_directory / "parts").glob("*.part"))
    content = bytearray(part.read_bytes())
    content[40:120] = bytes(80)
    part.write_bytes(content)
    with pytest.raises(CheckpointError, match=part.name):
        cometbatch.report(path, output=tmp_path / "page.html")


@pytest.fixture
def shown_page(tmp_path: Path) -> Path:
    """The page of a run."""
    _, path = finished(tmp_path)
    return cometbatch.report(path, output=tmp_path / "page.html").path


def test_a_run_opens_in_a_browser(shown_page: Path, browser_page: Opener) -> None:
    """The whole way: a job, its run, its page, and what the reader sees; without an error of the console."""
    page = browser_page(shown_page)
    page.wait_for_selector("text=What went wrong")
    assert "30 of 30 rows" in page.inner_text("main")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a page needs none."""
    monkeypatch.delenv(KEY_ENV, raising=False)
