"""`report`: one HTML file that shows results, also of runs that are not finished. Sends nothing, changes no run."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.commands.clock import now
from cometbatch.commands.judge import judged_so_far
from cometbatch.commands.judge_purse import judge_cost
from cometbatch.commands.locate import UNKNOWN_COMMAND, Located
from cometbatch.commands.open_rows import older_than_run
from cometbatch.commands.report_defaults import DEFAULT_FILE, DEFAULT_ROWS
from cometbatch.commands.report_prompts import Prompts, prompts_of
from cometbatch.commands.report_requests import RenderedRow
from cometbatch.commands.result_sources import NamedResult, named_results
from cometbatch.commands.status import summary_so_far
from cometbatch.commands.tables import JobSource
from cometbatch.errors import CometbatchError, UsageError
from cometbatch.input.files import shown
from cometbatch.job.report import ReportSettings
from cometbatch.reports.layout import layout_of
from cometbatch.reports.page.chosen import chosen_tables
from cometbatch.reports.page.chunks import CHUNK_ROWS, Chunk, Encoder, StoredPrompt
from cometbatch.reports.page.evaluation import Judged, evaluation_of
from cometbatch.reports.page.html import PageWriter, is_page
from cometbatch.reports.page.page_columns import Columns
from cometbatch.reports.page.requests import Frames
from cometbatch.reports.page.survey import Survey, Told, survey
from cometbatch.reports.sources import ResultFiles, RunRows, Tables
from cometbatch.results.notebook import html_of
from cometbatch.results.parts import release_memory, result_metadata
from cometbatch.results.summary_words import count
from cometbatch.run_state.run import Run, find
from cometbatch.version import VERSION

PROMPT_CHARACTERS: Final = 16 << 20  # of prompts in memory at a time, about
FIRST_ROWS: Final = 32  # of a source, whose prompts tell how long the others are
_RUN_ID: Final = "cometbatch.run_id"
_MEGABYTE: Final = 10**6


class ReportFile(Struct, frozen=True):
    """A page that was written. `rows`: of results that it has, `of` how many. `bytes`: its size."""

    path: Path
    rows: int
    of: int
    bytes: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": str(self.path),
            "rows": self.rows,
            "of": self.of,
            "bytes": self.bytes,
            "notes": list(self.notes),
        }

    def describe(self) -> str:
        """A line for a person."""
        rows = count(self.rows, "row") if self.rows == self.of else f"{self.rows:,} of {count(self.of, 'row')}"
        return f"{self.path}: {rows}, {self.bytes / _MEGABYTE:,.1f} MB"

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return html_of(self.describe())


def report(
    targets: JobSource | Sequence[JobSource],
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    overwrite: bool = False,
) -> ReportFile:
    """Write a page that shows these jobs, results or run directories side by side; of a run, its rows so far.

    `overrides`: `--set` strings for job files. `output`: the file to write; `report.html` in the current folder by
    default. An earlier report there is replaced, another file only with `overwrite`. `rows`: how many rows the page has
    at most, of all results together: failed and incomplete ones first, then the dearest and the slowest, then a sample
    that `seed` draws. Of a run that is not finished and scores answers, the Python scorers are imported, each after a
    line on standard error.

    Raises `UsageError` where there is no result or the file can't be written there, `InputError` where a result can't
    be read, `CheckpointError` where a file of a run is damaged or the disk won't take the page.
    """
    if rows < 1:
        raise UsageError("rows: a page has at least one row.")
    path = Path(DEFAULT_FILE if output is None else output)
    results = [_with_run(each) for each in named_results(targets, overrides, purpose="show", needs_scores=False)]
    shown = {(each.located.result.resolve(), type(each.source)) for each in results}
    if min(len(shown), len({each.name for each in results})) < len(results):
        raise UsageError("The same result is named twice. Name each once.")
    for each in results:
        layout_of(each.source.schema, each.name)  # who named no result learns it before anything is written
    _refuse(path, targets, results, overwrite=overwrite)
    try:
        writer = PageWriter(path)
    except OSError as error:
        raise UsageError(f"--output: {_shown(path)}: this folder can't be written ({error.strerror}).") from error
    with writer:
        meta = page_of(results, writer.add, rows=rows, seed=seed)
        writer.finish(meta)
    notes = tuple(note for each in meta["sources"] for note in each["notes"])
    return ReportFile(path, meta["selection"]["rows"], meta["selection"]["of"], path.stat().st_size, notes)


def page_of(results: Sequence[NamedResult], add: Callable[[Chunk], object], *, rows: int, seed: int) -> dict[str, Any]:
    """The page of these results: `add` takes its chunks, and what it says of them is returned. As `report` has it."""
    found = survey([each.source for each in results], [told_of(each) for each in results], limit=rows, seed=seed)
    release_memory()  # of the first pass: 10 MB
    sources, frames = [each.source for each in results], Frames()
    prompts = [prompts_of_result(each, frames) for each in results]
    columns = Columns.of(sources, has_prompts=any(each.why_none is None for each in prompts))
    encoder = Encoder(columns)
    for number, (source, own) in enumerate(zip(sources, prompts, strict=True)):
        names = list(dict.fromkeys([*columns.read(number), *own.columns]))
        for places, table, stored in with_prompts(own, chosen_tables(source, found.chosen.lines[number], names)):
            for chunk in encoder.add(number, places, table, stored):
                add(chunk)
    for chunk in encoder.rest():
        add(chunk)
    title = ", ".join(each.name for each in sources)
    evaluation = evaluation_of_results(results)
    return page_meta(title, found, prompts=prompts, columns=columns, frames=frames, evaluation=evaluation)


def page_meta(
    title: str,
    found: Survey,
    *,
    prompts: Sequence[Prompts],
    columns: Columns,
    frames: Frames,
    evaluation: dict[str, Any] | None,
) -> dict[str, Any]:
    """What a page says of its rows, JSON-ready. `prompts`: of each source, after the last one was rendered.

    `sources`: name, run, state and notes of each; `rows` have an outcome, of `calls` in all (null: not known). `golds`:
    by score, the column with the right answers. `frames`: those that the column `frame` numbers. `watch`: null in a
    file; the server of a watched page says there how often to ask (`every_ms`; `seldom_ms` while nobody answers), which
    page this is (`generation`), and how new its meta is (`version`).
    """
    return {
        "version": 1,
        "program": f"cometbatch {VERSION}",
        "made_at": now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": title,
        "watch": None,
        "sources": described_sources(found, prompts),
        "selection": found.selection.to_dict(),
        "golds": columns.golds,
        "columns": columns.to_list(),
        "frames": frames.items,
        "overview": found.overview(),
        "evaluation": evaluation,
    }


def prompts_of_result(result: NamedResult, frames: Frames) -> Prompts:
    """The prompts of a result that was named. Raises as `prompts_of` does."""
    manifest = None if result.run is None else result.run.manifest
    return prompts_of(result.source, frames, manifest, result.located.job)


def with_prompts(
    prompts: Prompts, tables: Tables
) -> Iterator[tuple[Sequence[int], pa.Table, list[StoredPrompt] | None]]:
    """These lines with their prompts: few at a time where prompts are long, since those are in memory at once."""
    rows = FIRST_ROWS
    for places, table in tables:
        begin = 0
        while begin < table.num_rows:
            some = table.slice(begin, rows)
            stored = stored_prompts(prompts, some)
            yield places[begin : begin + rows], some, stored
            begin += some.num_rows
            length = sum(len(text) for each in stored or () for text in each.texts) // some.num_rows
            rows = max(1, min(CHUNK_ROWS, PROMPT_CHARACTERS // max(1, length)))


def stored_prompts(prompts: Prompts, table: pa.Table) -> list[StoredPrompt] | None:
    """The prompts of these lines, as the page keeps them; None where a source has none."""
    if prompts.why_none is not None:
        return None
    return [_stored(each) for each in prompts.render(table)]


def _stored(rendered: RenderedRow) -> StoredPrompt:
    if isinstance(rendered, str):
        return StoredPrompt((), why=rendered)
    frame, slots = rendered
    return StoredPrompt(slots, frame) if isinstance(frame, int) else StoredPrompt(slots, own=frame)


def described_sources(found: Survey, prompts: Sequence[Prompts]) -> list[dict[str, Any]]:
    """The sources as the page tells of them. `prompts`: of each, after the last one was rendered."""
    return [
        {**said, "no_prompts": each.why_none, "notes": [*said["notes"], *each.notes]}
        for said, each in zip(found.described_sources(), prompts, strict=True)
    ]


def evaluation_of_results(results: Sequence[NamedResult]) -> dict[str, Any] | None:
    """The leaderboard as `compare` has it: shown as the first job says; what judging cost, of one result alone."""
    settings = next((each.located.job.report for each in results if each.located.job is not None), ReportSettings())
    sources = [each.source for each in results]
    if len(results) > 1:
        return evaluation_of(sources, settings)
    located = results[0].located
    said = judged_so_far(located)
    judged = None if said is None else Judged(said.cost_words, tuple(said.tables()), said.notes)
    return evaluation_of(sources, settings, judge_cost_usd=judge_cost(located.result), judged=judged)


def told_of(result: NamedResult) -> Told:
    """What is known of a result beside its rows: of its run as it is now, where the rows are that run's."""
    located, notes = result.located, tuple(result.notes())
    if result.run is not None:
        told = told_of_run(result.run, located)
    else:
        said = result_metadata(result.source.first) or {} if isinstance(result.source, ResultFiles) else {}
        told = Told(run_id=said.get(_RUN_ID), command=known_command(located))
        notes += tuple(older_than_run(located))
    return msgspec.structs.replace(told, judge_usd=judge_cost(located.result), notes=notes)


def told_of_run(run: Run, located: Located) -> Told:
    """What a run's files tell of it by now. Reads no part."""
    is_running = run.directory.lock.is_held()
    return Told(
        run_id=run.manifest.run_id,
        command=known_command(located),
        state="running" if is_running else "finished" if run.is_finished else "stopped",
        summary=summary_so_far(run, located, is_running=is_running),
    )


def known_command(located: Located) -> str | None:
    """What runs the job, to be pasted; None where its file is not known."""
    return None if located.command == UNKNOWN_COMMAND else located.command


def _with_run(result: NamedResult) -> NamedResult:
    """A result file that was named itself with the run that published it, unless that is gone, or further by now."""
    if result.run is not None:
        return result
    located = result.located
    with contextlib.suppress(CometbatchError):  # a damaged run is no reason not to show the result
        run = find(located.directory, located.result)
        if run is not None and run.is_finished:
            return msgspec.structs.replace(result, run=run)
    return result


def _refuse(
    path: Path, targets: JobSource | Sequence[JobSource], results: Sequence[NamedResult], *, overwrite: bool
) -> None:
    """Raises `UsageError` where the page can't be written to this path, or would replace what is no page of ours."""
    if not path.parent.is_dir():
        raise UsageError(f"--output: {_shown(path)}: there is no such folder. Make it first.")
    if path.is_dir():
        raise UsageError(f"--output: {_shown(path)} is a folder. Name a file in it.")
    if path.exists() and not path.is_file():  # a rename would put the page in the place of a device, for all programs
        raise UsageError(f"--output: {_shown(path)} is a device or a pipe, and no file. Choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--output: {_shown(path)}: this folder can't be written. Choose another one.")
    given = [targets] if isinstance(targets, str | Path) or not isinstance(targets, Sequence) else targets
    named = [Path(each) for each in given if isinstance(each, str | Path)]
    for other in (*named, *(file for each in results for file in _files(each))):
        with contextlib.suppress(OSError):
            if path.samefile(other):
                raise UsageError(f"--output: {_shown(path)} is a file that the run needs. Choose another name.")
    if not overwrite and (path.exists() or path.is_symlink()) and not is_page(path):
        raise UsageError(
            f"--output: {_shown(path)} exists, and is no report. Choose another name, or replace it with --overwrite."
        )


def _files(result: NamedResult) -> list[Path]:
    """The files that hold a result, its input and its job, as far as they are known."""
    source, job = result.source, result.located.job
    own = list(source.rows.files) if isinstance(source, RunRows) else []
    own += [*source.files, *source.scores] if isinstance(source, ResultFiles) else []
    return [*own, result.located.result, *([] if job is None else [job.input.path])]


def _shown(path: Path) -> str:
    return shown(str(path), limit=1_000)
