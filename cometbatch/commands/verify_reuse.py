"""`verify` of answers that were taken from earlier runs: each is what the run that paid has, and none stands twice."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cometbatch.commands.reusing import index_of
from cometbatch.commands.verify_report import Findings
from cometbatch.errors import CheckpointError, UsageError
from cometbatch.job import Job
from cometbatch.records import Answered
from cometbatch.results import columns
from cometbatch.results.columns import REUSED_COLUMNS
from cometbatch.results.reuse import Origins
from cometbatch.results.reuse_index import HASH_CHARACTERS, Entry, Index, key_of
from cometbatch.results.reuse_rows import EarlierRows, RowGroup
from cometbatch.run_state import earlier
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest

CHECK: Final = "reused"
_NOT_COMPARED: Final = ("raw", "reasoning", "detail", "cost_excludes")  # that a run has only where its job asks


class ReusedChecks:
    """Looks at the rows of a run that took answers of earlier runs, some at a time.

    `index`: of the sources that are there. `manifest`: of the run. With `dedupe`, rows that ask the same may have the
    same answer, and those that have it from a row of the run itself are looked at elsewhere (`EqualRows`).
    """

    def __init__(
        self, findings: Findings, index: Index | None, rows: EarlierRows | None, why: str, manifest: Manifest
    ) -> None:
        self._findings, self._index, self._rows = findings, index, rows
        self._own, self._is_deduped = manifest.run_id, bool(manifest.job.get("dedupe"))
        self._why = why  # the sources are not all there
        self._seen = Origins()
        self._runs: dict[str, int] = {}
        self._without_source = 0

    def check(self, rows: Sequence[tuple[str, Answered]]) -> None:
        """Rows with an answer: where each is, and its outcome."""
        try:
            self._check(rows)
        except CheckpointError as error:  # a source that was damaged or changed meanwhile
            self._without_source += sum(outcome.reused_from is not None for _, outcome in rows)
            self._why = f": {error}"

    def _check(self, rows: Sequence[tuple[str, Answered]]) -> None:
        chosen: dict[RowGroup, list[tuple[str, Answered, int]]] = {}
        for where, outcome in rows:
            run, ordinal = outcome.reused_from, outcome.reused_ordinal
            if run is None or ordinal is None or (run == self._own and self._is_deduped):
                continue
            number = self._runs.setdefault(run, len(self._runs))
            if self._seen.holds(number, ordinal) and not self._is_deduped:
                self._findings.add(CHECK, f"the answer of row {ordinal} of run {run} was taken twice", where=where)
            self._seen.add(number, ordinal)
            found = self._find(outcome.request_hash, run, ordinal)
            if found is None:
                self._without_source += 1
            else:
                chosen.setdefault(found[0], []).append((where, outcome, found[1].row))
        for group, some in chosen.items():
            for (where, outcome, _), source in zip(some, group.answers([row for _, _, row in some]), strict=True):
                self._compare(where, outcome, source)

    def end(self) -> None:
        """Say what could not be compared. Call this after the last row."""
        if self._without_source:
            words = f"{self._without_source:,} rows took answers of which no source is there"
            self._findings.skip(f"{words}{self._why}", CHECK)

    def _find(self, request_hash: str, run: str, ordinal: int) -> tuple[RowGroup, Entry] | None:
        index, rows = self._index, self._rows
        if index is None or rows is None or len(request_hash) != HASH_CHARACTERS:
            return None
        key = key_of(request_hash)
        for _, entry in index.entries(key, *index.positions(key)):
            if (index.runs[entry.run], entry.ordinal) == (run, ordinal):
                group = rows.group(entry.file, entry.row)
                is_answer = group.cell("status", entry.row) != "failed"  # a --retry may have left it so
                if is_answer and group.cell("request_hash", entry.row) == request_hash:
                    return group, entry
        return None

    def _compare(self, where: str, outcome: Answered, source: Answered) -> None:
        if source.finished_at != outcome.finished_at:  # the row was answered again since: this answer is gone
            self._without_source += 1
            return
        paid = source.cost_usd if source.reused_from is None else source.reused_cost_usd
        if paid != outcome.reused_cost_usd:
            self._findings.add(CHECK, "reused_cost_usd is not what the earlier run paid", where=where)
        then, now = (_comparable(each) for each in (source, outcome))
        names = [name for name, value in now.items() if value != then[name]]
        if names:
            words = f"{', '.join(names)}: not what run {outcome.reused_from} has in its row {outcome.reused_ordinal}"
            self._findings.add(CHECK, words, where=where)


def _comparable(outcome: Answered) -> dict[str, object]:
    """What an answer and a copy of it have in common."""
    completion = {name: getattr(outcome.completion, name) for name in outcome.completion.__struct_fields__}
    beside = ("http_status", "request_id", "latency_s")
    found = {name: value for name, value in completion.items() if name not in _NOT_COMPARED}
    return found | {name: getattr(outcome, name) for name in beside}


@contextlib.contextmanager
def reused_checks(
    directory: RunDirectory,
    result: Path,
    job: Job | None,
    names: Sequence[str],
    findings: Findings,
    *,
    manifest: Manifest,
) -> Iterator[ReusedChecks | None]:
    """The checks of a run with these output columns; None where it can't have taken an answer."""
    if not set(REUSED_COLUMNS) <= set(names):
        yield None
        return
    findings.use(CHECK)
    sources = () if job is None or job.reuse is None else job.reuse.sources
    with contextlib.ExitStack() as stack:
        index, rows, why = None, None, ""
        try:
            if runs := earlier.find_runs(directory, result, sources):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cometbatch-"))
                index = index_of(runs, Path(folder))
                stack.callback(index.close)
                rows = EarlierRows(index.files, [column.name for column in columns.COLUMNS])
                stack.callback(rows.close)
        except (UsageError, CheckpointError) as error:
            why = f": {str(error).splitlines()[0]}"
        yield ReusedChecks(findings, index, rows, why, manifest)
