"""Scores in a result: whether they are those that the job asks for, and how they get there without a request.

Guards: no part is changed. Each file appears whole, by one rename, so that a crash leaves the old one or the new one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cometbatch.commands.publishing import publish
from cometbatch.commands.stopping import NotPublishedError
from cometbatch.results import parts
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.results.columns import CUSTOM_ID
from cometbatch.results.score_columns import SCORES_KEY, score_columns
from cometbatch.results.scored import ScoreCounts
from cometbatch.results.slices import ROW
from cometbatch.run_state.manifest import metadata_of
from cometbatch.run_state.published import result_files, state_of
from cometbatch.run_state.run import Run
from cometbatch.store.local import write_aside

if TYPE_CHECKING:  # a run without scores loads nothing of them
    from cometbatch.commands.scoring import Scoring
    from cometbatch.evaluation.score_columns import ScoreColumns

SCORES_ENDING: Final = ".scores.parquet"
"""What follows the name of a data set in that of the file with its scores."""


def scores_path(result: Path) -> Path:
    """The file with the scores of a data set, beside it."""
    return result.with_name(result.name + SCORES_ENDING)


def is_scored(run: Run, scoring: "Scoring | None") -> bool:
    """Whether the published result has the scores that the job asks for, of the run's state as it is now."""
    due = None if scoring is None else scoring.metadata
    if not run.directory.parts.is_dataset:
        said = [parts.result_metadata(path) or {} for path in result_files(run)]
        return all(each.get(SCORES_KEY) == due for each in said)
    if due is None:
        return True
    found = parts.result_metadata(scores_path(run.result)) or {}
    state = metadata_of(run.manifest) | state_of(run) | {SCORES_KEY: due}
    return all(found.get(key) == value for key, value in state.items())


def counts_of(run: Run, scoring: "Scoring") -> ScoreCounts | None:
    """How the scoring of the published result went; None where nothing of it can fail."""
    if not scoring.files:
        return None
    from cometbatch.evaluation.score_columns import SCORER_ERROR  # noqa: PLC0415 - slow to load, as above

    paths = [scores_path(run.result)] if run.directory.parts.is_dataset else list(result_files(run))
    counts = ScoreCounts(run.manifest.calls)
    for name in scoring.files:
        _, answer, why = score_columns([name], run.prefix)
        for path in paths:
            is_failed = pc.equal(parts.read_column(path, why), SCORER_ERROR)
            if pc.any(is_failed).as_py():
                counts.note(name, parts.read_column(path, answer).filter(is_failed).to_pylist())
    return counts


def publish_scored(
    run: Run,
    input_schema: pa.Schema,
    answers: AnswerColumns | None,
    scores: "ScoreColumns | None",
    *,
    is_given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Make the result appear with its scores. Those of a data set get a file of their own, beside it.

    Raises what `publish` raises, and `UsageError` where a row has no gold that can be read.
    """
    joined = () if scores is None else (scores,)
    publish(run, input_schema, answers, joined, is_given_up=is_given_up)
    if run.directory.parts.is_dataset and scores is not None:
        metadata = metadata_of(run.manifest) | state_of(run) | scores.metadata
        write_aside(scores_path(run.result), _Written(run, scores, metadata, is_given_up).write)


class _Written:
    """The file with the scores of a data set: row, custom_id, then the scores."""

    def __init__(
        self, run: Run, scores: "ScoreColumns", metadata: dict[str, str], is_given_up: Callable[[], bool]
    ) -> None:
        self._run, self._scores, self._metadata, self._is_given_up = run, scores, metadata, is_given_up

    def write(self, file: IO[bytes]) -> None:
        """Write it, a row group of a part in memory at a time."""
        fields = [pa.field(ROW, pa.int64()), pa.field(CUSTOM_ID, pa.string()), *self._scores.fields]
        schema = pa.schema(fields)
        with pq.ParquetWriter(file, schema, compression=parts.COMPRESSION) as writer:
            for partition in self._run.manifest.partitions():
                if self._is_given_up():
                    raise NotPublishedError
                path, first = self._run.directory.parts.path(partition.index), partition.first_row
                names = parts.shape_of(path)[0].names
                for index, count in enumerate(parts.rows_of_groups(path)):
                    lines = parts.read_group(path, index, [*self._scores.needed(names), *self._ids(names)])
                    rows = range(first, first + count)
                    writer.write_table(self._group(lines, rows, schema))
                    first += count
            writer.add_key_value_metadata(self._metadata)

    def _group(self, lines: pa.Table, rows: range, schema: pa.Schema) -> pa.Table:
        ids = self._ids(lines.column_names)
        names = lines.column(ids[0]).cast(pa.string()) if ids else pa.nulls(len(rows), pa.string())
        cells = [pa.array(rows, pa.int64()), names, *self._scores.cells(lines, rows)]
        return pa.Table.from_arrays(cells, schema=schema)

    def _ids(self, names: list[str]) -> list[str]:
        return [name for name in (self._run.prefix + CUSTOM_ID,) if name in names]
