"""`export --to inspect` and `--to openai-evals`: a log of each cell of a result, for programs that read evaluations."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.errors import JobError
from cometbatch.evaluation.golds_of_rows import GoldReader
from cometbatch.evaluation.scorers import GoldError
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.job.matrix import Cell
from cometbatch.job.scores import ScoreSettings
from cometbatch.job.targets import Template
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.prompt.template import TemplateError
from cometbatch.records import Failure
from cometbatch.reports import inspect_log, openai_evals
from cometbatch.reports.eval_samples import CellLog, LineScore, Mean, Sample, Totals, gold_texts
from cometbatch.results.columns import CUSTOM_ID
from cometbatch.results.export import values
from cometbatch.results.retry_words import RetryWords
from cometbatch.results.rows import JOB_KEY, Piece, Rows
from cometbatch.results.score_columns import score_columns, scores_of
from cometbatch.results.slices import Label, SliceColumns

COPIED_BYTES: Final = 1 << 20  # of a log's samples at a time
Write: TypeAlias = Callable[[CellLog, Iterable[Sample]], Iterator[bytes]]
"""A log's bytes, some at a time."""


class EvalForm(Struct, frozen=True):
    """A form of logs. `ending`: of their files' names. `write`: makes one of a cell and its lines."""

    ending: str
    write: Write


class CellLogs:
    """The logs of a result's cells, in its order. `kinds`: of rows that are wanted; none for all."""

    def __init__(self, rows: Rows, kinds: RetryWords) -> None:
        self._rows, self._kinds = rows, kinds
        self._slices = SliceColumns(rows.slices, rows.prefix) if rows.slices else None
        self._cells: list[Mapping[str, Label]] = list({each.cell_words: each.labels for each in rows.slices}.values())
        words = [each.cell_words for each in rows.slices]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(words))}
        self._number_of = [numbers[text] for text in words]  # the cell of each slice
        self._scores = scores_of(rows.metadata)
        self._job = _job_of(rows.metadata)
        self._readers = _gold_readers(self._scores, rows.input_names)

    @property
    def count(self) -> int:
        """How many cells the result has."""
        return max(1, len(self._cells))

    def __iter__(self) -> Iterator[tuple[CellLog, Iterator[Sample]]]:
        """Each cell that has a line, with its lines, which are read while they are asked for."""
        for number, lines in itertools.groupby(self._lines(), lambda each: each[0]):
            yield self._log(number), (sample for _, sample in lines)

    def _lines(self) -> Iterator[tuple[int, Sample]]:
        makers: dict[int, _SampleMaker] = {}
        for piece in self._rows.matching(self._kinds):
            for number, some in itertools.groupby(enumerate(self._numbers(piece)), lambda each: each[1]):
                if number not in makers:
                    makers = {number: _SampleMaker(self._rows, self._template(number), self._readers, self._scores)}
                for sample in makers[number].of(piece.only([at for at, _ in some])):
                    yield number, sample

    def _numbers(self, piece: Piece) -> list[int]:
        """The cell of each line."""
        if self._slices is None:
            return [0] * len(piece.ordinals)
        return [self._number_of[place] for place in self._slices.places(piece.table)]

    def _cell(self, number: int) -> Cell | None:
        """The job's cell of this number; None where the job can't be read, or names it otherwise."""
        if self._job is None:
            return None
        labels = self._cells[number] if self._cells else {}
        return next((cell for cell in self._job.cells() if dict(cell.labels) == dict(labels)), None)

    def _template(self, number: int) -> Template | None:
        cell = self._cell(number)
        if cell is None or cell.target.batch is not None:
            return None
        try:
            template = cell.target.prompt_template()
            template.check(self._rows.input_names)
        except TemplateError:
            return None
        return template

    def _log(self, number: int) -> CellLog:
        said, cell = self._rows.metadata, self._cell(number)
        labels = self._cells[number] if self._cells else {}
        name = "" if self._job is None else self._job.input.path.name
        own = [] if self._cells else [1]
        samples = own or [1 + each.sample for each in self._rows.slices if dict(each.labels) == dict(labels)]
        return CellLog(
            run_id=said.get("cometbatch.run_id", ""),
            created=said.get("cometbatch.created_at", ""),
            task="cometbatch" if self._job is None else self._job.output.path.name.removesuffix(".parquet"),
            input_name=name,
            labels=labels,
            model=str(labels.get("model", "")) if cell is None else cell.target.model,
            format=str(labels.get("format", "")) if cell is None else cell.target.format,
            samples=max(samples),
            scorers={each["name"]: each for each in self._scores},
            params={} if cell is None else msgspec.to_builtins(cell.target.params),
        )


class _SampleMaker:
    """Makes lines of a log of those of one cell."""

    def __init__(
        self,
        rows: Rows,
        template: Template | None,
        readers: Sequence[GoldReader],
        scores: Sequence[Mapping[str, Any]],
    ) -> None:
        self._rows, self._template, self._readers = rows, template, readers
        self._names = [each["name"] for each in scores]
        self._input = list(rows.input_names)
        self._output = [column.name for column in rows.columns]

    def of(self, piece: Piece) -> Iterator[Sample]:
        """The lines of a piece."""
        rows, prefix, table = self._rows, self._rows.prefix, piece.table
        own = table.select([prefix + name for name in self._output]).rename_columns(self._output)
        shown = [values(table, name) for name in self._input]
        samples = table.column(f"{prefix}sample").to_pylist() if rows.slices else [0] * table.num_rows
        scores = [table.column(name).to_pylist() for name in score_columns(self._names, prefix)]
        lines = zip(
            rows.row_numbers(piece), samples, row_values(own, self._output), row_values(table, self._input), strict=True
        )
        for at, (row, number, cells, given) in enumerate(lines):
            gold, choices = self._gold(given)
            yield Sample(
                row=row,
                sample=number,
                cells={CUSTOM_ID: given.get(prefix + CUSTOM_ID), **cells},
                messages=self._messages(given),
                choices=choices,
                target=gold,
                scores={
                    name: LineScore(*(column[at] for column in scores[3 * place : 3 * place + 3]))
                    for place, name in enumerate(self._names)
                },
                metadata={name: column[at] for name, column in zip(self._input, shown, strict=True)},
            )

    def _messages(self, given: Mapping[str, object]) -> list[tuple[str, str]]:
        made = None if self._template is None else self._template.render(given)
        return [] if made is None or isinstance(made, Failure) else [(each.role, each.text) for each in made]

    def _gold(self, given: Mapping[str, object]) -> tuple[list[str], list[str]]:
        """What is right for a row by the first score that says it, and the choices of its question."""
        for reader in self._readers:
            try:
                found = reader.of(given)
            except GoldError:
                continue
            if found.gold is not None:
                return gold_texts(found.gold), [each.text for each in found.choices]
        return [], []


def _job_of(metadata: Mapping[str, str]) -> Job | None:
    try:
        return Job.from_description(msgspec.json.decode(metadata.get(JOB_KEY, "")))
    except (JobError, msgspec.MsgspecError):
        return None


def _gold_readers(scores: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[GoldReader]:
    """What finds the golds of these scores, as far as the table still has what they need."""
    found = []
    for each in scores:
        try:
            settings = msgspec.convert(each, ScoreSettings, strict=False)
            choices = msgspec.convert(each["choices"], ChoiceSettings) if each.get("choices") else None
            if settings.scorer != "python":
                found.append(GoldReader(settings, choices, columns))
        except (msgspec.ValidationError, GoldError, TemplateError):
            continue
    return found


def inspect_json(cell: CellLog, lines: Iterable[Sample]) -> Iterator[bytes]:
    """A log of Inspect. Its samples come last, and are in a file until the sums before them are known."""
    totals = Totals(cell.scorers)
    with tempfile.TemporaryFile() as kept:
        for number, line in enumerate(lines):
            totals.add(line)
            kept.write((b",\n" if number else b"\n") + _json(inspect_log.sample(cell, line)))
        head = _json(inspect_log.head(cell, totals, _means(totals)))
        yield head.removesuffix(b"}") + b', "samples": ['
        kept.seek(0)
        while some := kept.read(COPIED_BYTES):
            yield some
    yield b"\n]}\n"


def openai_lines(cell: CellLog, lines: Iterable[Sample]) -> Iterator[bytes]:
    """A record of OpenAI's evals, a line of JSON for each event."""
    totals, number = Totals(cell.scorers), 0
    yield _json(openai_evals.spec(cell)) + b"\n"
    for line in lines:
        totals.add(line)
        for event in openai_evals.events(cell, line, number):
            yield _json(event) + b"\n"
            number += 1
    yield _json(openai_evals.final_report(cell, totals, _means(totals))) + b"\n"


def _means(totals: Totals) -> dict[str, Mean]:
    return {name: totals.mean(name, _error(list(known.values()))) for name, known in totals.known.items()}


def _error(scores: Sequence[Sequence[float]]) -> float | None:
    """The standard error of the mean, clustered by question; None without the libraries for statistics."""
    try:
        from cometbatch.evaluation.statistics.means import estimate  # noqa: PLC0415 - loads numpy and scipy
        from cometbatch.evaluation.statistics.sums import Sums  # noqa: PLC0415 - slow to load, as above
    except ImportError:
        return None
    found = estimate(Sums.of(scores)) if scores else None
    return None if found is None else found.se


def _json(value: object) -> bytes:
    """JSON in which a score that is no number is NaN, as Inspect writes it."""
    return json.dumps(value, ensure_ascii=False, default=_plain).encode()


def _plain(value: object) -> object:
    """A cell that is JSON text already; anything else as text."""
    return json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else str(value)


EVAL_FORMS: Final[Mapping[str, EvalForm]] = {
    "inspect": EvalForm(".json", inspect_json),
    "openai-evals": EvalForm(".jsonl", openai_lines),
}
"""The forms of logs, by the words of `--to`."""
