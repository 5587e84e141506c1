"""`verify`, of scores: each is computed again from the result's own lines, by the settings that the result names.

Guards that no code of the user's own runs unless it was asked for, and then only the file that scored the result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.commands.python_scorers import scorer_file
from cometbatch.commands.score_publishing import scores_path
from cometbatch.commands.scoring import to_stderr
from cometbatch.commands.verify_report import Findings
from cometbatch.errors import UsageError
from cometbatch.evaluation.score_columns import Loaded, ScoreColumns
from cometbatch.evaluation.scorers import GoldError
from cometbatch.evaluation.scorers.patterns import PatternError
from cometbatch.job import Job
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.results import parts
from cometbatch.results.score_columns import scores_of
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.published import result_partitions, result_paths

CHECK: Final = "scores"
BY_WORD: Final = "verify --run-scorers computes it again"


class Scorers(Struct, frozen=True):
    """Whether Python scorers may run, for which job, and how that is told before."""

    job: Job | None = None
    may_run: bool = False
    tell: Callable[[str], object] = to_stderr


class ScoreChecks:
    """Computes the scores of a published result again. `result`: where it is."""

    def __init__(
        self, directory: RunDirectory, manifest: Manifest, result: Path, scorers: Scorers, findings: Findings
    ) -> None:
        self._directory, self._manifest, self._scorers, self._findings = directory, manifest, scorers, findings
        self._is_dataset = directory.parts.is_dataset
        self._files = [scores_path(result)] if self._is_dataset else result_paths(directory, manifest, result)

    def check(self) -> None:
        """Look at each file that says it has scores."""
        for path in self._files:
            if said := scores_of(parts.result_metadata(path) or {}):
                self._findings.use(CHECK)
                try:
                    self._check_file(path, said)
                except UsageError as error:
                    self._findings.add(CHECK, str(error), where=path.name)
                except (OSError, ValueError, pa.ArrowException) as error:
                    words = f"can't be read ({' '.join(str(error).split())})"
                    self._findings.add(CHECK, words, where=path.name)

    def _check_file(self, path: Path, said: Sequence[Mapping[str, Any]]) -> None:
        prefix = str(self._manifest.fingerprint.get("output.prefix") or "")
        columns = _columns(said, self._manifest.input.columns, prefix, self._scorers, self._findings)
        if columns is None:
            return
        apart = _Apart(_lines(path)) if self._is_dataset else None
        at, rows = 0, self._manifest.input.rows
        for table in _lines_of_parts(self._directory, self._manifest) if self._is_dataset else _lines(path):
            found = table if apart is None else apart.take(table.num_rows)
            numbers = [number % rows for number in range(at, at + table.num_rows)] if rows else []
            if words := _misfit(found, table.num_rows, [field.name for field in columns.fields]):
                self._findings.add(CHECK, words, where=path.name)
                return
            for field, made in zip(columns.fields, columns.cells(table, numbers), strict=True):
                self._compare(path, field.name, found.column(field.name).combine_chunks(), made, at)
            at += table.num_rows

    def _compare(self, path: Path, name: str, found: pa.Array, made: pa.Array, first: int) -> None:
        if not found.equals(made):
            for number, (was, due) in enumerate(zip(found.to_pylist(), made.to_pylist(), strict=True), first):
                if was != due:
                    words = f"line {number:,}: {name} is {was!r:.60}, and comes to {due!r:.60}"
                    self._findings.add(CHECK, words, where=path.name)


def _columns(
    said: Sequence[Mapping[str, Any]], columns: Sequence[str], prefix: str, scorers: Scorers, findings: Findings
) -> ScoreColumns | None:
    """What computes the scores again; None where none can be."""
    settings, loaded, choices = [], {}, None
    for each in said:
        try:
            found = msgspec.convert(dict(each), ScoreSettings)
            own = msgspec.convert(each.get("choices"), ChoiceSettings | None)
        except msgspec.ValidationError:
            findings.note(CHECK, f"{each['name']}: this version does not know its scorer")
            continue
        if found.scorer == "python":
            made = _loaded(found, str(each.get("digest")), scorers, findings)
            if made is None:
                continue
            loaded[found.name] = made
        choices = own or choices
        settings.append(found)
    if not settings:
        findings.skip("none could be computed again", CHECK)
        return None
    try:
        return ScoreColumns(settings, choices, columns, prefix, loaded)
    except (GoldError, PatternError) as error:
        raise UsageError(str(error)) from error


def _loaded(settings: ScoreSettings, digest: str, scorers: Scorers, findings: Findings) -> Loaded | None:
    """A Python scorer that may run and is the one that scored the result; None with a note where it is not."""
    if not scorers.may_run:
        findings.note(CHECK, f"{settings.name} is a Python scorer: {BY_WORD}")
        return None
    given = next((each for each in scorers.job.scores if each.name == settings.name), None) if scorers.job else None
    if given is None or given.entry != settings.entry:
        findings.note(CHECK, f"{settings.name}: give the job file, which says where {settings.entry} is")
        return None
    try:
        file = scorer_file(given)
        if file.digest != digest:
            findings.note(CHECK, f"{settings.name}: {file.path.name} is not the file that scored the result")
            return None
        scorers.tell(file.describe())
        return file.load()
    except UsageError as error:
        findings.note(CHECK, f"{settings.name}: {error}")
        return None


def _lines(path: Path) -> Iterator[pa.Table]:
    with path.open("rb") as raw, pq.ParquetFile(raw, pre_buffer=False, buffer_size=parts.READ_BYTES) as file:
        yield from parts.pieces(file)


class _Apart:
    """The scores of a data set, which stand in a file of their own; some rows in memory at a time."""

    def __init__(self, pieces: Iterator[pa.Table]) -> None:
        self._pieces, self._held = pieces, next(pieces)

    def take(self, count: int) -> pa.Table:
        """The next rows, or fewer where the file ends."""
        while self._held.num_rows < count and (piece := next(self._pieces, None)) is not None:
            self._held = pa.concat_tables([self._held, piece])
        taken, self._held = self._held.slice(0, count), self._held.slice(count)
        return taken


def _lines_of_parts(directory: RunDirectory, manifest: Manifest) -> Iterator[pa.Table]:
    for _, partition in result_partitions(manifest):
        yield from parts.read_pieces(directory.parts.path(partition.index))


def _misfit(found: pa.Table, rows: int, names: Sequence[str]) -> str | None:
    """Why a table has not the scores of these lines, in words; None where it has."""
    missing = next((name for name in names if name not in found.column_names), None)
    if missing is not None:
        return f"there is no column {missing}"
    return None if found.num_rows == rows else f"{found.num_rows:,} scores for {rows:,} rows"
