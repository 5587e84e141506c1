"""How a job's answers are scored: checked against its input before anything is sent, put together when it is published.

Guards that a gold which is missing or can't be read is told with its row before anything is paid, and that nothing of a
Python scorer runs before its file was told.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pyarrow as pa
from msgspec import Struct

from cometbatch.commands.python_scorers import ScorerFile, scorer_file
from cometbatch.errors import JobError, UsageError, did_you_mean
from cometbatch.evaluation.golds_of_rows import GoldReader, lacking, place_shown
from cometbatch.evaluation.score_columns import READ_HINT, SKIP_HINT, Loaded, ScoreColumns
from cometbatch.evaluation.scorers import GoldError
from cometbatch.evaluation.scorers.patterns import PatternError
from cometbatch.input.file_set import AnySource
from cometbatch.input.files import Identity, shown
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.job.matrix import ALWAYS
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.cells import column_of
from cometbatch.prompt.names import no_column, shown_columns
from cometbatch.prompt.template import TemplateError
from cometbatch.results.score_columns import SCORES_KEY
from cometbatch.results.summary_words import count
from cometbatch.results.terminal import visible

READ_ROWS: Final = 4_096  # rows of the input in memory at a time, at most
READ_BYTES: Final = 8 << 20
SAME_PLACE: Final = 0.95  # of the rows: a right choice that is more often at one place can be guessed by its place
FEW_ROWS: Final = 20  # below, that may well be chance


class Scoring(Struct, frozen=True):
    """What is known of a job's scores before any code of the user's own is imported. `files`: of Python scorers."""

    job: Job
    columns: tuple[str, ...]
    planned: ScoreColumns
    files: dict[str, ScorerFile]

    @property
    def metadata(self) -> str:
        """What a result that is scored so says of its scores."""
        return self.planned.metadata[SCORES_KEY]

    def load(self, tell: Callable[[str], object]) -> ScoreColumns:
        """What makes the columns, with Python scorers imported; each is told before. Raises `UsageError`."""
        for file in self.files.values():
            tell(file.describe())
        loaded = {name: file.load() for name, file in self.files.items()}
        return ScoreColumns(self.job.scores, self.job.choices, self.columns, self.job.output.prefix, loaded)

    def check_golds(self, source: AnySource, identity: Identity) -> tuple[str, ...]:
        """Look at the gold of each row of the input; returns what is worth a warning.

        Raises `UsageError` with the number of the first row whose gold is missing or can't be read.
        """
        looks = [_Look(*each) for each in self.planned.readers]
        if not looks:
            return ()
        names = list(dict.fromkeys(name for look in looks for name in look.reader.columns))
        row = 0
        pieces = partitions(identity.rows, min(READ_ROWS, identity.rows_within(READ_BYTES)))
        for table in source.tables(identity, pieces):
            for values in row_values(table, names):
                for look in looks:
                    look.add(row, values)
                row += 1
        for look in looks:
            look.refuse()
        return tuple(words for look in looks for words in look.warnings())


def scoring_of(job: Job, schema: pa.Schema) -> Scoring | None:
    """How a job's answers are scored; None where it has no scores. `schema`: of its input.

    Reads the files of Python scorers, and runs none. Raises `JobError` for a column that the input lacks, a pattern
    that can't be used, a module that is not there.
    """
    if not job.scores:
        return None
    for score in job.scores:
        _refuse_lacking(job, score, schema)
    files = {score.name: scorer_file(score) for score in job.scores if score.scorer == "python"}
    digests = {name: Loaded(file.digest) for name, file in files.items()}
    planned = []
    for score in job.scores:
        try:
            planned.append(ScoreColumns([score], job.choices, schema.names, job.output.prefix, digests))
        except GoldError as error:
            raise JobError(f"{score.where}: {error}") from error
        except PatternError as error:
            words = f"{error} (patterns run on Rust's engine: docs/scores.md#regex)"
            raise JobError(f"{score.where}.pattern: {words}") from error
        except TemplateError as error:
            raise JobError(f"{score.where}.{score.scorer}: {error.reason}") from error
    _refuse_report(job, schema)
    together = ScoreColumns(job.scores, job.choices, schema.names, job.output.prefix, digests)
    return Scoring(job, tuple(schema.names), together, files)


def to_stderr(line: str) -> None:
    """Tell a person something before it is done."""
    sys.stderr.write(visible(f"{line}\n"))
    sys.stderr.flush()


def refuse_score_names(scoring: Scoring, taken: Sequence[str]) -> None:
    """Raise `JobError` where columns of scores would be named like others of the result, or like each other."""
    names = [field.name for field in scoring.planned.fields]
    twice = next((name for name in names if name in taken or names.count(name) > 1), None)
    if twice is not None:
        score = next(each for each in scoring.job.scores if twice.startswith(scoring.job.output.prefix + each.name))
        words = f"the result would have two columns named {twice}"
        raise JobError(f"{score.where}: {words}: give this score another name.")


class _Look:
    """What was seen of one score's golds."""

    def __init__(self, settings: ScoreSettings, reader: GoldReader) -> None:
        self.settings, self.reader = settings, reader
        self._rows = self._bad = self._missing = 0
        self._first: tuple[str, str] | None = None  # what is wrong with the first bad row, and what to do
        self._places: Counter[int | None] = Counter()

    def add(self, row: int, values: dict[str, object]) -> None:
        """Look at a row."""
        try:
            found = self.reader.of(values)
        except GoldError as error:
            self._refuse_later(f"row {row:,}: {error}", READ_HINT)
            return
        if found.gold is not None:
            self._rows += 1
            if found.choices:
                self._places[place_shown(found)] += 1
        elif self.settings.skip_missing:
            self._missing += 1
        else:
            self._refuse_later(f"row {row:,} has no gold", SKIP_HINT)

    def _refuse_later(self, words: str, hint: str) -> None:
        self._bad += 1
        self._first = self._first or (words, hint)

    def refuse(self) -> None:
        """Raise `UsageError` where a row has no gold that can be read."""
        if self._first is not None:
            more = f" (and {count(self._bad - 1, 'more row')})" if self._bad > 1 else ""
            raise UsageError(f"{self.settings.where}: {self._first[0]}{more}. {self._first[1]}")
        if not self._rows and self._missing:
            raise UsageError(f"{self.settings.where}: no row has a gold.")

    def warnings(self) -> Iterator[str]:
        """What is surely not meant."""
        if self._missing:
            yield f"score {self.settings.name}: {count(self._missing, 'row')} without gold will have no score"
        place, often = max(self._places.items(), key=lambda item: item[1], default=(None, 0))
        if place is not None and self._rows >= FEW_ROWS and often > SAME_PLACE * self._rows:
            where = f"in {often:,} of {count(self._rows, 'row')} the right choice is at place {place + 1}"
            words = f"{where}, so a model that always takes it looks right: set choices.shuffle"
            yield f"score {self.settings.name}: {words}"


def _refuse_report(job: Job, schema: pa.Schema) -> None:
    """Raise `JobError` where the section `report` names a column or an axis that is not there."""
    report, axes = job.report, ALWAYS if job.matrix is None else job.matrix.columns
    for key, column in (("cluster", report.cluster), ("groups", report.groups)):
        if column is not None and column not in schema.names:
            words = no_column(column, schema.names)
            raise JobError(f"report.{key}: {words} (the columns are {shown_columns(schema.names)})")
    for axis in report.by:
        if axis not in axes:
            near = did_you_mean(axis, axes) or f"the axes are {', '.join(axes)}"
            raise JobError(f"report.by: there is no axis {axis!r}; {near}")


def _refuse_lacking(job: Job, score: ScoreSettings, schema: pa.Schema) -> None:
    found = lacking(score, job.choices, schema.names)
    if found is not None:
        key, path = found
        place = f"{score.where}: {key}" if key == "choices.columns" else f"{score.where}.{key}"
        words = no_column(path.partition(".")[0], schema.names)
        raise JobError(f"{place}: {words} (the columns are {shown_columns(schema.names)})")
    choices = () if job.choices is None or score.scorer != "choice" else job.choices.columns
    for path in (score.gold, *choices):
        if (column := column_of(path, schema.names)) is not None and column != path:
            _refuse_field(score, path, path.removeprefix(f"{column}.").split("."), schema.field(column).type)


def _refuse_field(score: ScoreSettings, path: str, names: Sequence[str], kind: pa.DataType) -> None:
    """Raise `JobError` where a path leads to a field that the structures of a column lack. Text may hold JSON."""
    for name in names:
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if not pa.types.is_struct(kind):
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                return
            raise JobError(f"{score.where}: {shown(path)}: a value of type {kind} has no field {name!r}.")
        fields = [each.name for each in kind]
        if name not in fields:
            near = did_you_mean(name, fields) or f"the fields are {', '.join(fields)}"
            raise JobError(f"{score.where}: {shown(path)}: there is no field {name!r}; {near}")
        kind = kind.field(name).type
