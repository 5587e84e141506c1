"""`report --watch`: the page of a run while it goes on, on the loopback interface. It only reads, and takes no lock.

Law: looking takes about a tenth of a processor at most, and what a look costs depends on what is new: of partitions
that have not changed no row is read. In memory are the page's rows, at most `--rows` of them, compressed.
"""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import msgspec

from cometbatch.commands.locate import Located, locate
from cometbatch.commands.open_rows import input_tables, lacks_input, rows_of_run
from cometbatch.commands.report import (
    evaluation_of_results,
    known_command,
    page_meta,
    page_of,
    stored_prompts,
    told_of_run,
)
from cometbatch.commands.report_defaults import DEFAULT_ROWS
from cometbatch.commands.report_prompts import Prompts, prompts_of
from cometbatch.commands.result_sources import NamedResult, name_of, named_result, scores_of_run
from cometbatch.commands.tables import JobSource
from cometbatch.commands.watch_server import PageServer
from cometbatch.commands.watched_page import WatchedPage
from cometbatch.errors import CheckpointError, CometbatchError, InputError, UsageError
from cometbatch.job import Job
from cometbatch.records import PriceBook, Tally
from cometbatch.reports.page.chosen import PARTS, Chosen, Selection
from cometbatch.reports.page.chunks import CHUNK_ROWS, Chunk, Encoder
from cometbatch.reports.page.page_columns import Columns
from cometbatch.reports.page.requests import Frames
from cometbatch.reports.page.survey import SourceSurvey, Survey, Surveying, Times, Told
from cometbatch.reports.sources import GATHERED_BYTES, RunRows
from cometbatch.results.lines import Joined
from cometbatch.results.rows import SUCCEEDED, Piece, Rows, gathered
from cometbatch.results.summary import RunSummary
from cometbatch.results.summary_words import count
from cometbatch.run_state.new_rows import NewRows
from cometbatch.run_state.recorded_rows import Tables
from cometbatch.run_state.run import Run, find

LOOK_S: Final = 1.0  # seconds between two looks, at least
LOOK_SHARE: Final = 10  # the least pause after a look, in multiples of the processor time that the look took
SLOWEST_LOOK_S: Final = 10.0  # seconds between two looks, at most
LONG_RUN: Final = 600
"""A pause is at least the time so far divided by this: a night's run does not become a thousand small chunks."""
FAILED_LOOKS: Final = 5  # in a row that raise: one may fall between two renames, and is taken again
KEPT_FOR_TROUBLE: Final = 10  # 1/10 of the page is kept for rows that failed or are incomplete
END_S: Final = 0.2  # seconds after which it looks whether the page was fetched
NOT_BEGUN: Final = "This job has not begun."
REMOVED: Final = (
    "The directory of this run was removed while it was watched. This page waits for another run of the job."
)


def watch_report(
    target: JobSource,
    overrides: Sequence[str] = (),
    *,
    rows: int = DEFAULT_ROWS,
    port: int = 0,
    tell: Callable[[str], object] = print,
) -> None:
    """Serve the page of a job's run at a URL with a random token, until the run has ended and the page was fetched.

    The job may be one that has not begun: then its run is waited for, and so is the next session of one that has
    stopped. `overrides`: `--set` strings for a job file. `rows`: how many rows the page has at most. `port`: on
    127.0.0.1; 0 for one that is free. `tell` is called with the URL, once. Of a job that scores answers, the Python
    scorers are imported, each after a line on standard error. Ctrl-C ends it. Where the input can't be read, or is
    another one by now, rows that need it are without its columns, prompts and scores, and the page says so.

    Raises `UsageError` where there is no job or run, or the port is taken; `CheckpointError` where a file of the run is
    damaged.
    """
    if rows < 1:
        raise UsageError("rows: a page has at least one row.")
    watch = Watch(target, overrides, rows)
    watch.look()
    begun = time.monotonic()
    with PageServer(watch.page, port) as server:
        tell(server.url)
        while not watch.is_over:
            wanted = max(LOOK_S, LOOK_SHARE * watch.look_s, (time.monotonic() - begun) / LONG_RUN)
            time.sleep(min(wanted, SLOWEST_LOOK_S))
            watch.look()
        while not watch.page.is_done:
            time.sleep(END_S)


class Watch:
    """Looks at a run again and again, and puts what is new into the page. `is_over`: the run has ended.

    `look_s`: the seconds for which the last look had the processor.
    """

    def __init__(self, target: JobSource, overrides: Sequence[str], limit: int) -> None:
        self._target, self._overrides, self._limit = target, overrides, limit
        self._located = locate(target, overrides)
        self._name = name_of(target, self._located)
        self.page = WatchedPage(self._name)
        self.is_over = False
        self.look_s = 0.0
        self._view: _View | None = None
        self._scores: dict[str, tuple[Joined, ...]] = {}
        self._key: object = None
        self._first_session: int | None = None
        self._has_run = False
        self._had_run = False
        self._failed_looks = 0

    def look(self) -> None:
        """Look once. Raises as `watch_report` does; what may pass by itself is raised at the fifth look in a row."""
        begun = time.thread_time()
        try:
            self._look()
            self._failed_looks = 0
        except CometbatchError as error:
            self._failed_looks += 1
            may_pass = isinstance(error, CheckpointError | InputError)  # the next look finds what the input is by then
            if self._view is None or not may_pass or self._failed_looks >= FAILED_LOOKS:
                raise
        self.look_s = time.thread_time() - begun

    def _look(self) -> None:
        located = self._locate()
        is_running = located.directory.lock.is_held()  # before the look: what a process wrote that has ended is found
        run = find(located.directory, located.result)
        if self._view is None and not is_running and self._is_finished(run):
            self._show_finished(located)
            return
        session = 0 if run is None or run.progress.last is None else run.progress.last.number
        if self._first_session is None or run is None:
            self._first_session = session  # of a run that takes the place of a removed one, sessions count anew
        self._had_run = self._had_run or run is not None
        self._has_run = self._has_run or is_running or session > self._first_session
        is_ended = self._has_run and not is_running and run is not None
        if self._view is None or _key_of(run) != self._key:
            absent = REMOVED if self._had_run else NOT_BEGUN
            self._key, self._view = _key_of(run), _View(self._name, self._limit, absent)
            self.page.begin(self._view.meta(run, located))
        try:
            self._show(self._view, run, located, is_ended=is_ended)
        except CometbatchError:
            self._key = object()  # rows that were read are not in the page: the next look begins with another one
            raise
        self.is_over = is_ended

    def _show(self, view: "_View", run: Run | None, located: Located, *, is_ended: bool) -> None:
        """Put what is new into the page."""
        had_rows = view.has_rows
        found = [] if run is None else view.read(run, located, self._scores_of(run, located))
        if view.has_rows != had_rows:
            self.page.begin(view.meta(run, located))
        is_scored = is_ended and run is not None and (run.is_finished or not view.notes)
        evaluation = evaluation_of_results([self._result(located)]) if is_scored else None
        self.page.add(found, view.meta(run, located, evaluation), is_ended=is_ended)

    def _scores_of(self, run: Run, located: Located) -> tuple[Joined, ...]:
        """What makes the scores of a run's rows. Its job and input are looked at once: both may be changed later."""
        known = run.manifest.run_id
        if known not in self._scores:
            self._scores = {known: scores_of_run(run, located, self._name, needs_scores=False)}
        return self._scores[known]

    def _locate(self) -> Located:
        """Where the run is now: an update of it may have begun, or taken its place. The job file is read once."""
        job = self._located.job
        if job is None:
            return locate(self._target, self._overrides)
        return msgspec.structs.replace(locate(job), command=self._located.command)

    def _is_finished(self, run: Run | None) -> bool:
        """Whether the run has finished, or there is a result alone. Raises `UsageError` where there is neither."""
        if run is not None:
            return run.is_finished
        if self._located.job is not None:
            return False
        if not self._located.result.exists():
            raise self._located.no_run()
        return True

    def _show_finished(self, located: Located) -> None:
        """The page of a run that had finished before, with the rows that `report` would choose."""
        chunks: list[Chunk] = []
        meta = page_of([self._result(located)], chunks.append, rows=self._limit, seed=0)
        self.page.begin(meta)
        self.page.add(chunks, meta, is_ended=True)
        self.is_over = True

    def _result(self, located: Located) -> NamedResult:
        return named_result(self._target, located, needs_scores=False)


def _key_of(run: Run | None) -> object:
    """Two looks with the same key are of the same rows: what was told of them still holds."""
    if run is None:
        return None
    return run.manifest.run_id, run.directory.reopened().rounds, run.columns, run.manifest.active


class _View:
    """What the page has of one run, as long as no row of it is reset.

    `has_rows`: whether there is one, so that the page's columns are known. `notes`: sentences on what rows lack.
    """

    def __init__(self, name: str, limit: int, absent: str) -> None:
        """`absent`: what the page says where there is no run."""
        self._name, self._limit, self._absent = name, limit, absent
        self._new, self._surveying = NewRows(), Surveying(limit, 0)
        self._columns, self._frames = Columns((), (), {}), Frames()
        self._prompts = Prompts(None)
        self._encoder: Encoder | None = None
        self._tables: Tables | None = None
        self._no_input: str | None = None
        self._rows = 0
        self._in_page = array("q")  # ordinals
        self._kinds = Counter[str]()  # rows of the page by status

    @property
    def has_rows(self) -> bool:
        """Whether a row has come."""
        return self._encoder is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """For the reader; none where rows have all that they can have."""
        return () if self._no_input is None else (lacks_input(self._no_input),)

    def read(self, run: Run, located: Located, scores: Sequence[Joined]) -> list[Chunk]:
        """The rows that are new, as chunks. Raises what reading them raises."""
        rows = rows_of_run(run, located, scores, walk=self._new.pieces, tables_of=self._tables_of)
        chunks: list[Chunk] = []
        for piece in gathered(
            rows.pieces(), CHUNK_ROWS, GATHERED_BYTES
        ):  # what a piece costs hardly depends on its size
            for begin in range(0, piece.table.num_rows, CHUNK_ROWS):
                some = Piece(piece.ordinals[begin : begin + CHUNK_ROWS], piece.table.slice(begin, CHUNK_ROWS))
                chunks += self._take(_source(self._name, rows, some), some, run, located.job)
        return chunks if self._encoder is None else [*chunks, *self._encoder.rest()]

    def _tables_of(self, run: Run, job: Job) -> Tables:
        """The input, of which it is looked at once whether it is the run's. Raises `UsageError` where it is not."""
        if self._no_input is not None:
            raise UsageError(self._no_input)
        if self._tables is None:
            try:
                self._tables = input_tables(run, job)
            except UsageError as error:
                self._no_input = str(error)
                raise
        return self._tables

    def _take(self, source: RunRows, piece: Piece, run: Run, job: Job | None) -> Iterator[Chunk]:
        """Count these rows, and put those into the page for which there is room."""
        if self._encoder is None:
            self._prompts = prompts_of(source, self._frames, run.manifest, job)
            self._columns = Columns.of([source], has_prompts=self._prompts.why_none is None)
            self._encoder = Encoder(self._columns)
        self._surveying.add(0, source)
        self._rows += piece.table.num_rows
        statuses = piece.table.column(f"{run.prefix}status").to_pylist()
        fitting = self._fitting(statuses)
        chosen = piece if len(fitting) == len(statuses) else piece.only(fitting)
        if fitting:
            self._kinds.update(statuses[at] for at in fitting)
            self._in_page.extend(chosen.ordinals)
            prompts = stored_prompts(self._prompts, chosen.table)
            yield from self._encoder.add(0, chosen.ordinals, chosen.table, prompts)

    def _fitting(self, statuses: Sequence[str]) -> list[int]:
        """The places of the rows for which there is room; the last of it is kept for those that did not succeed."""
        found: list[int] = []
        left = self._limit - len(self._in_page)
        kept = self._limit // KEPT_FOR_TROUBLE
        for at, status in enumerate(statuses):
            if left > (kept if status == SUCCEEDED else 0):
                found.append(at)
                left -= 1
        return found

    def meta(self, run: Run | None, located: Located, evaluation: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the page says by now."""
        told = self._no_run(located) if run is None else told_of_run(run, located)
        told = msgspec.structs.replace(told, notes=told.notes + self.notes)
        found = self._surveying.found([told]) if self.has_rows else self._no_rows(told, located)
        meta = page_meta(
            self._name,
            found,
            prompts=[self._prompts],
            columns=self._columns,
            frames=self._frames,
            evaluation=evaluation,
        )
        rows = len(self._in_page)
        parts = dict.fromkeys(PARTS, 0) | {kind: self._kinds[kind] for kind in ("failed", "incomplete")}
        meta["selection"] |= {"rows": rows, "of": self._rows, "words": "", "parts": parts}
        meta["sources"][0] |= {"in_page": rows, "calls": None if run is None else meta["sources"][0]["calls"]}
        if rows < self._rows:
            parts["sample"] = self._kinds[SUCCEEDED]
            meta["selection"]["words"] = (
                f"This page has {rows:,} of {count(self._rows, 'row')} so far: those that came first, and then those "
                "that failed or are incomplete, as far as there was room. Totals and charts of the overview count all "
                "rows. Once the run has ended, cometbatch report chooses among all of them."
            )
            _leave_out(meta["overview"], frozenset(self._in_page))
        return meta

    def _no_run(self, located: Located) -> Told:
        return Told(command=known_command(located), state="stopped", notes=(self._absent,))

    def _no_rows(self, told: Told, located: Located) -> Survey:
        """What is found where there is no row."""
        nothing = PriceBook("", "none")
        no_run = RunSummary(run_id="", output=located.result, rows=0, tally=Tally(), prices=nothing, finished=False)
        own = SourceSurvey(self._name, 0, told, told.summary or no_run, Times())
        selection = Selection(0, 0, self._limit, 0, dict.fromkeys(PARTS, 0))
        return Survey((own,), (), None, (), (), (), "tokens", Chosen((None,)), selection)


def _source(name: str, rows: Rows, piece: Piece) -> RunRows:
    """A source of these rows alone."""
    return RunRows(name, msgspec.structs.replace(rows, pieces=lambda: iter([piece])))


def _leave_out(overview: dict[str, Any], in_page: Collection[int]) -> None:
    """Take rows that the page does not have out of lists that lead to rows."""
    for trouble in overview["failures"]:
        if trouble["example"] is not None and trouble["example"]["ordinal"] not in in_page:
            trouble["example"] = None
    for name, rows in overview["extremes"].items():
        if isinstance(rows, list):
            overview["extremes"][name] = [each for each in rows if each["ordinal"] in in_page]
