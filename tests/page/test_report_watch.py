"""`report --watch`: the page of a run while it goes on, and what looking at it does to the run: nothing."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from playwright.sync_api import expect

import cometbatch
from cometbatch.commands import report_watch, watched_page
from cometbatch.commands.locate import locate
from cometbatch.commands.open_rows import rows_of_run
from cometbatch.commands.report import told_of_run
from cometbatch.commands.report_watch import Watch
from cometbatch.commands.watch_server import PageServer
from cometbatch.errors import CheckpointError, UsageError
from cometbatch.reports.page.survey import Told
from cometbatch.reports.sources import RunRows
from cometbatch.results.rows import Piece, gathered
from cometbatch.run_state.new_rows import NewRows
from cometbatch.run_state.recorded_rows import all_pieces
from cometbatch.run_state.run import Run, directory_of_job, find
from tests import virtual_time
from tests.file_openings import counted_openings
from tests.page.browser import Opener, elsewhere
from tests.page.reading import Row, read_page
from tests.workbench import Workbench, files, simulator

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROWS = 60
LIMIT_S = 60  # for a process that takes a second on an idle machine


class Going:
    """A job whose run goes on by steps, and a watch of it that looks when it is told to."""

    def __init__(self, folder: Path, **watched: Any) -> None:
        self.bench = Workbench(folder)
        self.bench.write_rows(ROWS)
        output = {"path": str(self.bench.output), "partition_rows": watched.get("partition_rows", 1_000)}
        self.path = self.bench.write_job(output=output)
        self.job = cometbatch.load_job(self.path)
        self.network = simulator()
        self.watch = Watch(self.path, (), watched.get("rows", 1_000))
        self.watch.look()

    def run(self, rows: int | None = None, **options: Any) -> None:
        """A process that does these rows, or all, and ends."""
        run = cometbatch.run_async(self.job, limit=rows, progress=False, http=self.network, **options)
        elsewhere(lambda: virtual_time.run(run))

    def look(self, *, is_running: bool = True) -> None:
        """Look, while a process has the run or once none has."""
        if not is_running:
            elsewhere(self.watch.look)
            return
        with directory_of_job(self.job).locked():
            elsewhere(self.watch.look)

    def found(self) -> Run:
        """The run."""
        run = find(directory_of_job(self.job), self.job.output.path)
        assert run is not None
        return run

    @property
    def said(self) -> dict[str, Any]:
        """What the page says by now."""
        text = self.watch.page.page().body.decode()
        begin = text.index('id="meta">') + len('id="meta">')
        said: dict[str, Any] = json.loads(text[begin : text.index("</script>", begin)])
        return said

    @property
    def outcomes(self) -> dict[str, int]:
        """How many rows have which outcome, as the page says by now."""
        found: dict[str, int] = self.said["overview"]["sources"][0]["outcomes"]
        return found

    def rows(self) -> Sequence[Row]:
        """The rows that the page has by now."""
        page = self.bench.folder / "page.html"
        page.write_bytes(self.watch.page.page().body)
        return read_page(page).rows


@pytest.fixture
def going(tmp_path: Path) -> Going:
    """One that has not begun."""
    return Going(tmp_path)


@pytest.fixture
def server(going: Going) -> Iterator[PageServer]:
    """Its page's server."""
    with PageServer(going.watch.page) as running:
        yield running


def told(new: NewRows, run: Run) -> list[int]:
    """The rows that are new in a look."""
    return [ordinal for _, _, piece in new.pieces(run, None, None) for ordinal in piece.ordinals]


def test_each_row_is_told_once(going: Going) -> None:
    """However the run stands when somebody looks: open, resumed, committed."""
    new = NewRows()
    going.run(10)
    assert told(new, going.found()) == list(range(10))
    assert told(new, going.found()) == []
    going.run(35)
    assert told(new, going.found()) == list(range(10, 35))
    going.run()
    assert told(new, going.found()) == list(range(35, ROWS))
    assert told(new, going.found()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of openings")
def test_what_was_told_is_not_read_again(tmp_path: Path) -> None:
    """No journal that is as it was, and no part of a partition that is done, however many there are."""
    going, new = Going(tmp_path, partition_rows=10), NewRows()

    def opened(*rows: int) -> set[str]:
        run = going.found()
        with counted_openings(run.directory.parts.folder, run.directory.journals.folder) as found:
            assert told(new, run) == list(rows)
        return set(found)

    going.run(15)
    assert opened(*range(15)) == {"00000.part", "00001.1.jsonl"}
    assert opened() == set()
    going.run(35)
    assert opened(*range(15, 35)) == {"00001.part", "00002.part", "00003.2.jsonl"}
    assert opened() == set()
    going.run()
    assert opened(*range(35, ROWS)) == {"00003.part", "00004.part", "00005.part"}
    assert opened() == set()


@pytest.mark.parametrize("later", [20, None], ids=["still open", "committed meanwhile"])
def test_what_is_read_is_what_was_counted(going: Going, later: int | None) -> None:
    """Rows that come between counting and reading are the next look's: a page has no more rows than outcomes."""

    def told(run: Run, new: NewRows) -> list[int]:
        return [ordinal for _, _, piece in new.pieces(run, None, None) for ordinal in piece.ordinals]

    going.run(10)
    run, new = going.found(), NewRows()
    going.run(later)
    assert [each for _, _, piece in all_pieces(run, None, None) for each in piece.ordinals] == list(range(10))
    assert told(run, new) == list(range(10))
    assert told(going.found(), new) == list(range(10, later or ROWS))


def test_small_pieces_of_a_run_are_read_together(going: Going) -> None:
    """Each piece costs the same, however few rows it has; a look at a run of many partitions is not slower for that."""
    pieces = [Piece(range(at, at + 3), pa.table({"n": range(at, at + 3)})) for at in range(0, 12, 3)]
    pieces.append(Piece([12], pa.table({"n": pa.nulls(1)})))
    found = list(gathered(iter(pieces), 6, 1 << 20))
    assert [list(piece.ordinals) for piece in found] == [[*range(6)], [*range(6, 12)], [12]]
    assert [piece.table.column("n").to_pylist() for piece in found] == [[*range(6)], [*range(6, 12)], [None]]
    assert [piece.table.num_rows for piece in gathered(iter(pieces), 6, 1)] == [3, 3, 3, 3, 1]
    going.job = going.bench.job(output={"partition_rows": 5})
    going.run(25)
    run = going.found()
    source = RunRows("run", rows_of_run(run, locate(going.job)))
    assert [len(ordinals) for ordinals, _ in source.tables(["status"])] == [25]


def test_a_look_changes_nothing(going: Going) -> None:
    """No file of the run, and it takes no lock that a process might want."""
    going.run(10)
    before = files(going.bench.folder)
    going.look(is_running=False)
    assert files(going.bench.folder) == before
    going.run()


def test_a_job_that_has_not_begun_is_waited_for(going: Going) -> None:
    """And so is one that stopped before; it ends with the process that takes it up."""
    assert not going.watch.is_over
    assert going.said["sources"][0]["notes"] == ["This job has not begun."]
    going.run(10)
    again = Watch(going.path, (), 1_000)
    again.look()
    assert not again.is_over
    going.run(20)
    again.look()
    assert again.is_over


def test_a_run_that_is_removed_is_told_and_the_next_one_waited_for(going: Going) -> None:
    """It has begun, so the page doesn't say that it has not; a short run that takes its place ends the watch."""
    going.run(10)
    going.run(20)
    again = Watch(going.path, (), 1_000)
    again.look()
    shutil.rmtree(directory_of_job(going.job).path)
    again.look()
    page = again.page.page().body.decode()
    assert "was removed while it was watched" in page
    assert "has not begun" not in page
    assert not again.is_over
    going.run()
    again.look()
    assert again.is_over


def test_the_page_says_what_there_is_by_now(going: Going) -> None:
    """Outcomes, cost and rows of each look; at the end what `report` would say of the finished run."""
    going.run(10)
    going.look()
    assert (going.said["sources"][0]["state"], going.said["sources"][0]["in_page"]) == ("running", 10)
    assert not going.watch.is_over
    going.run()
    going.look(is_running=False)
    assert going.watch.is_over
    whole = cometbatch.report(going.path, output=going.bench.folder / "report.html").path.read_text(encoding="utf-8")
    begin = whole.index('id="meta">') + len('id="meta">')
    expected = json.loads(whole[begin : whole.index("</script>", begin)])
    for name in ("overview", "frames", "evaluation"):
        assert going.said[name] == expected[name], name
    assert going.said["selection"]["rows"] == ROWS


def test_a_job_file_that_is_changed_meanwhile_is_not_read_again(going: Going) -> None:
    """The run goes on with what it began with, and so does its page, to the end."""
    going.run(10)
    going.look()
    going.path.write_text("input: [", encoding="utf-8")
    going.run()
    going.look(is_running=False)
    assert going.watch.is_over
    assert going.said["selection"]["rows"] == ROWS


def test_an_input_that_is_overwritten_meanwhile_leaves_its_columns_empty(tmp_path: Path) -> None:
    """The page says so and goes on with the answers; rows of parts, which have these columns, keep their prompts."""
    going = Going(tmp_path, partition_rows=10)
    going.run(15)
    going.look()
    assert going.said["sources"][0]["notes"] == []
    going.run(35)
    content = going.job.input.path.read_bytes()
    going.job.input.path.write_bytes(b"other,columns\n1,2\n")
    going.look()  # it fails where the input is read
    going.look()
    assert "the input can't be read" in going.said["sources"][0]["notes"][0]
    assert [row.texts["prompt"] is not None for row in going.rows()] == [True] * 30 + [False] * 5
    going.job.input.path.write_bytes(content)
    going.run()
    going.look(is_running=False)
    assert going.watch.is_over
    assert len(going.rows()) == ROWS


def test_an_input_that_is_removed_meanwhile_is_still_read(tmp_path: Path) -> None:
    """It was opened when its first rows were needed, and its content is there as long as somebody has it open."""
    going = Going(tmp_path, partition_rows=10)
    going.run(15)
    going.look()
    going.run(35)
    going.job.input.path.unlink()
    going.look()
    assert going.said["sources"][0]["notes"] == []
    assert all(row.texts["prompt"] for row in going.rows())


@pytest.mark.parametrize("is_running", [True, False], ids=["on the way", "at the end"])
def test_a_look_that_fails_loses_no_row(going: Going, monkeypatch: pytest.MonkeyPatch, is_running: bool) -> None:
    """What it had read before it failed comes with the next one, and the end is told then."""
    going.run(10)
    going.look()
    failures = iter([CheckpointError("just now a file is replaced")])

    def failing(*given: Any, **named: Any) -> Told:
        for error in failures:
            raise error
        return told_of_run(*given, **named)

    monkeypatch.setattr(report_watch, "told_of_run", failing)
    going.run(20 if is_running else None)
    going.look(is_running=is_running)
    assert not going.watch.is_over
    going.look(is_running=is_running)
    assert going.watch.is_over != is_running
    assert [row.short["ordinal"] for row in going.rows()] == list(range(20 if is_running else ROWS))


def test_the_page_has_no_more_rows_than_were_asked_for(tmp_path: Path) -> None:
    """It says which ones it has, and counts all of them."""
    going = Going(tmp_path, rows=25)
    going.run(20)
    going.look()
    going.run()
    going.look(is_running=False)
    selection = going.said["selection"]
    assert selection["rows"] <= 25
    assert selection["of"] == ROWS
    assert f"of {ROWS} rows so far" in selection["words"]
    assert (
        sum(going.said["overview"]["sources"][0]["outcomes"][name] or 0 for name in ("succeeded", "incomplete")) == ROWS
    )


def test_a_run_that_had_finished_is_shown_whole(going: Going) -> None:
    """With the rows that `report` chooses; it is over once somebody has fetched it."""
    going.run()
    watch = Watch(going.path, (), 1_000)
    watch.look()
    assert watch.is_over
    assert not watch.page.is_done
    generation = json.loads(watch.page.data({"from": "0", "of": "1", "meta": "0", "page": "a"}).body)
    assert (generation["ended"], generation["more"]) == (True, False)
    assert watch.page.is_done


def test_rows_that_were_reset_make_another_page(going: Going) -> None:
    """What an open page has of them no longer holds, so it is told to reload."""
    going.run(10)
    going.look()
    asked = {"from": "1", "of": str(going.said["watch"]["generation"]), "meta": "0", "page": "a"}
    assert "chunks" in json.loads(going.watch.page.data(asked).body)
    going.run(fresh=True)
    going.look()
    assert json.loads(going.watch.page.data(asked).body) == {"generation": 0}


@pytest.mark.parametrize("query", [{}, {"from": "x", "of": "1", "meta": "1"}, {"from": "-1", "of": "1", "meta": "1"}])
def test_a_query_that_no_page_sends_gets_nothing(going: Going, query: dict[str, str]) -> None:
    """And no error."""
    assert b"chunks" not in going.watch.page.data(query).body


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    """As by other commands."""
    with pytest.raises(UsageError, match="there is no run here"):
        Watch(tmp_path / "nothing.parquet", (), 10).look()


def ask(page: "Page") -> None:
    """Let the page ask now, and not within a second."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_rows_come_into_an_open_page(browser_page: Opener, going: Going, server: PageServer) -> None:
    """From the waiting for the run to its end; the browser asks nobody but this server."""
    page = browser_page(server.url, width=320)
    expect(page.locator("#watch")).to_contain_text("live")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    going.run(10)
    going.look()
    expect(page.locator("#subtitle")).to_contain_text("10 rows")  # within a second it asks, and reloads for the columns
    going.run()
    going.look(is_running=False)
    ask(page)
    expect(page.locator("#watch")).to_contain_text("ended")
    expect(page.locator("#watch-ended")).to_have_text("The run has ended. This page stays as it is.")
    expect(page.locator("#subtitle")).to_contain_text(f"{ROWS} rows")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert going.watch.page.is_done


def test_new_rows_leave_a_reader_where_he_is(browser_page: Opener, going: Going, server: PageServer) -> None:
    """The open call, the search, the filter, how far he has scrolled; of the new rows those are shown that fit."""
    going.network = simulator("length:0.3")
    going.run(40)
    going.look()
    page = browser_page(server.url + "#rows", height=500)
    expect(page.locator("#subtitle")).to_contain_text("40 rows")
    box = page.locator("[role=grid]").first
    search = page.get_by_role("searchbox").first
    search.fill("note")
    page.locator("summary", has_text="Status").click()
    page.locator(".grid-filter[open] label", has_text="succeeded").click()
    page.keyboard.press("Escape")
    shown = page.locator("#grid-count")
    expect(shown).to_have_text(f"{going.outcomes['succeeded']} of 40 rows")
    box.evaluate("(node) => { node.scrollTop = 200; }")
    page.evaluate("location.hash = '#call=0.5'")
    drawer = page.locator("#drawer")
    expect(drawer).to_contain_text("note 5")
    before = box.evaluate("(node) => node.scrollTop")
    assert before > 0
    for rows in (50, None):
        going.run(rows)
        going.look(is_running=rows is not None)
        ask(page)
        expect(page.locator("#watch")).to_contain_text("live" if rows else "ended")
        expect(shown).to_have_text(f"{going.outcomes['succeeded']} of {rows or ROWS} rows")
        expect(page.get_by_role("button", name="Remove the filter Status: succeeded")).to_have_count(1)
        expect(drawer).to_contain_text("note 5")
        assert page.evaluate("location.hash") == "#call=0.5"
        assert search.input_value() == "note"
        assert box.evaluate("(node) => node.scrollTop") == before


def test_a_page_whose_server_is_silent_goes_on_asking(
    browser_page: Opener, going: Going, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays as it is and says so, and goes on once it is answered: after a machine slept, or a tunnel was cut."""
    monkeypatch.setattr(watched_page, "SELDOM_MS", 100)
    going.run(10)
    going.look()
    with PageServer(going.watch.page) as server:
        page = browser_page(server.url)
        expect(page.locator("#watch")).to_contain_text("live")
    for _ in range(4):
        ask(page)
        page.wait_for_timeout(50)
    expect(page.locator("#watch")).to_contain_text("server gone")
    expect(page.locator("#watch-ended")).to_contain_text("asks again now and then")
    expect(page.locator("#subtitle")).to_contain_text("10 rows")
    going.run(20)
    going.look()
    again = PageServer(going.watch.page, server.port)
    again.token = server.token
    with again:
        expect(page.locator("#watch")).to_contain_text("live")
        expect(page.locator("#watch-ended")).to_be_hidden()
        expect(page.locator("#subtitle")).to_contain_text("20 rows")
    visit = browser_page.visit(page)
    assert all("ERR_CONNECTION_REFUSED" in each for each in visit.errors)
    visit.errors.clear()


def watching(bench: Workbench, *options: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "cometbatch", "report", str(bench.write_job()), "--watch", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_prints_the_address_and_ends_with_ctrl_c(bench: Workbench) -> None:
    """On standard output, once; with the exit code of every command that is interrupted. The token is in no log."""
    with watching(bench) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
                assert b"<!doctype html>" in answer.read(100)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert url.split("/")[3] not in err
    assert "Traceback" not in err


def test_a_program_may_open_the_address_and_read_the_log(bench: Workbench) -> None:
    """With --json the address is an object; a log as JSON has what a person is told. It ends once it was fetched."""
    virtual_time.run(cometbatch.run_async(bench.job(), progress=False, http=simulator()))
    with watching(bench, "--json", "--log-format", "json") as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with urllib.request.urlopen(f"{url}data?from=0&of=1&meta=0&page=a", timeout=LIMIT_S) as answer:
                assert json.load(answer)["ended"]
            out, err = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "")
    told = [json.loads(line) for line in err.splitlines()]
    assert [(each["event"], each["message"][:16]) for each in told] == [
        ("note", "Open this addres"),
        ("note", "The run has ende"),
    ]
    assert url.split("/")[3] not in err
