"""`export`: the rows of a run in other programs' forms, also while it goes on. Takes no lock, and changes no run."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from cometbatch.commands.export_batch import batch_encoder
from cometbatch.commands.export_evals import EVAL_FORMS, CellLogs, EvalForm
from cometbatch.commands.open_rows import chosen_kinds, chosen_names, open_rows
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.input.files import shown
from cometbatch.reports.eval_samples import CellLog, Sample
from cometbatch.results.export import ENCODERS, PARQUET, Encoder, write_parquet
from cometbatch.results.retry_words import RetryWords
from cometbatch.results.rows import Rows
from cometbatch.results.wide import wide
from cometbatch.run_state.slice_files import cell_name
from cometbatch.store.local import make_folder, write_aside

PACKED: Final = (".gz", ".zst", ".bz2", ".xz", ".zip")
WIDE: Final = "wide"
"""The shape with one line for each question."""
FORMS: Final = (*ENCODERS, PARQUET, *EVAL_FORMS)


class Export(Struct, frozen=True):
    """Rows that are ready to be written, with a form to write them in. `output`: the file for them, if there is one.

    `form`: the word for it. `encoder`: of a form that is text, else None. `names`: of the columns.
    """

    rows: Rows
    kinds: RetryWords
    form: str
    names: tuple[str, ...]
    encoder: Encoder | None = None
    output: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for a person on what is missing."""
        return self.rows.notes

    @property
    def head(self) -> bytes:
        """What comes before the first row."""
        return b"" if self.encoder is None else self.encoder.head

    def lines(self) -> Iterator[list[bytes]]:
        """All rows, some at a time, each with its line end; of a log, its bytes.

        Raises `UsageError` for a form that needs a file, `CheckpointError` or `InputError` where a file can't be read.
        """
        if self.encoder is not None:
            for piece in self.rows.matching(self.kinds):
                yield list(self.encoder.lines(piece))
            return
        if self.form == PARQUET:
            raise UsageError("--to parquet: name the file to write: -o FILE.")
        logs = CellLogs(self.rows, self.kinds)
        if logs.count > 1:
            raise UsageError(
                f"--to {self.form}: there is a log for each of {logs.count:,} cells. Name a folder for them: -o FOLDER/"
            )
        for cell, samples in logs:
            yield from ([some] for some in EVAL_FORMS[self.form].write(cell, samples))

    def save(self, *, overwrite: bool = False) -> int:
        """Write all rows into the file, which is whole or absent; returns how many.

        Of logs, `output` may be a folder, which gets a file for each cell. Raises `UsageError` where a file is there
        already and `overwrite` is not set, or is one that the run needs, `CheckpointError` where the disk won't take
        it, and what `lines` raises.
        """
        path = self.output
        if path is None:
            raise UsageError("--output: name the file to write.")
        if self.form in EVAL_FORMS:
            return self._save_logs(path, overwrite=overwrite)
        self._refuse(path, overwrite=overwrite)
        return _written(path, self._write)

    def _write(self, file: IO[bytes]) -> int:
        if self.form == PARQUET:
            return write_parquet(file, self.rows, self.rows.matching(self.kinds), self.names)
        file.write(self.head)
        written = 0
        for lines in self.lines():
            file.writelines(lines)
            written += len(lines)
        return written

    def _save_logs(self, path: Path, *, overwrite: bool) -> int:
        """One file, or a file for each cell in a folder."""
        form, logs, written = EVAL_FORMS[self.form], CellLogs(self.rows, self.kinds), 0
        is_folder = path.is_dir() or logs.count > 1
        if is_folder and path.suffix == form.ending and not path.is_dir():
            raise UsageError(
                f"--output: there is a log for each of {logs.count:,} cells: name a folder for them, such as "
                f"{shown(path.stem)}/."
            )
        if is_folder:
            try:
                make_folder(path)
            except OSError as error:
                raise UsageError(f"--output: {shown(str(path))} can't be made ({error.strerror}).") from error
        for number, (cell, samples) in enumerate(logs):
            place = path / f"{cell_name(number, cell.labels)}{form.ending}" if is_folder else path
            self._refuse(place, overwrite=overwrite)
            written += _written(place, functools.partial(_write_log, form, cell, samples))
        return written

    def _refuse(self, path: Path, *, overwrite: bool) -> None:
        name = shown(str(path), limit=1_000)
        if not path.parent.is_dir():
            raise UsageError(f"--output: {name}: there is no such folder. Make it first.")
        if path.is_dir():
            raise UsageError(f"--output: {name} is a folder. Name a file in it.")
        for other in self.rows.files:
            with contextlib.suppress(OSError):
                if path.samefile(other):
                    raise UsageError(f"--output: {name} is a file that the run needs. Choose another name.")
        if not overwrite and (path.exists() or path.is_symlink()):
            raise UsageError(f"--output: {name} exists. Choose another name, or replace it with --overwrite.")


def _write_log(form: EvalForm, cell: CellLog, samples: Iterable[Sample], file: IO[bytes]) -> int:
    """Write the log of a cell; returns how many lines it tells of."""
    counted = itertools.count()
    file.writelines(form.write(cell, (sample for sample, _ in zip(samples, counted, strict=False))))
    return next(counted)


def _written(path: Path, write: Callable[[IO[bytes]], int]) -> int:
    """Write a file aside; returns what `write` does."""
    found = [0]

    def write_to(file: IO[bytes]) -> None:
        found[0] = write(file)

    write_aside(path, write_to)
    return found[0]


def _form(to: str | None, path: Path | None) -> str:
    """The form to write in: the one that is named, or that a file's ending says. Raises `UsageError`."""
    ending = "" if path is None else path.suffix.lower()
    if ending in PACKED:
        raise UsageError(
            f"--output: nothing is compressed here. Leave out -o, and write `| gzip > {path}` or the like."
        )
    form = to or ending.removeprefix(".")
    if form not in FORMS:
        raise UsageError(f"--to: write one of {', '.join(FORMS)}, the form to write in.")
    return form


def export(
    target: JobSource,
    overrides: Sequence[str] = (),
    *,
    to: str | None = None,
    shape: str | None = None,
    output: Path | None = None,
    where: str | Iterable[str] = (),
    columns: Iterable[str] = (),
) -> Export:
    """The rows with an outcome of a run, finished or not: of a job, a job file, its output or a run directory.

    `to`: csv, jsonl or parquet; without it, the ending of `output` decides. Or inspect or openai-evals: an evaluation
    log of each cell. `shape`: wide, for one line a question, with the columns of all cells and samples side by side. Or
    openai, anthropic or gemini, whose batch results are written instead, a line of JSON for each row. `output`: the
    file to write; of logs, a folder for them. `where`: only rows of these kinds: `succeeded`, `failed`, `incomplete`,
    an error kind or a finish reason. `columns`: only these. `Export.save` writes the file, `Export.lines` gives the
    lines. Raises `UsageError` where there is nothing to export, `CheckpointError` where a file of the run is damaged.
    """
    kinds, wanted = chosen_kinds(where), tuple(columns)
    if shape is not None and shape != WIDE:
        if to is not None or wanted:
            raise UsageError("--as: a vendor's batch results have one form: leave out --to and --columns.")
        rows = open_rows(target, overrides)
        return Export(rows, kinds, shape, rows.names, batch_encoder(target, shape, overrides, rows), output)
    form = _form(to, output)
    if form in EVAL_FORMS and (wanted or shape):
        raise UsageError(f"--to {form}: a log has one form: leave out --columns and --shape.")
    rows = open_rows(target, overrides)
    names = chosen_names(rows, wanted)
    if shape == WIDE and rows.slices:
        rows, names = _wide(rows, kinds, names)
        kinds = RetryWords()
    encoder = ENCODERS[form](names) if form in ENCODERS else None
    return Export(rows, kinds, form, names, encoder, output)


def _wide(rows: Rows, kinds: RetryWords, names: Sequence[str]) -> tuple[Rows, tuple[str, ...]]:
    found = wide(rows, functools.partial(rows.matching, kinds), names)
    return msgspec.structs.replace(found, notes=rows.notes, files=rows.files), found.names
