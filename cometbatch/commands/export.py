"""`export`: the rows of a run as text for other programs, also while it goes on. Takes no lock, and changes no run."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from cometbatch.commands.export_batch import batch_encoder
from cometbatch.commands.open_rows import chosen_kinds, chosen_names, open_rows
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.input.files import shown
from cometbatch.results.export import ENCODERS, Encoder
from cometbatch.results.retry_words import RetryWords
from cometbatch.results.rows import Rows
from cometbatch.store.local import write_aside

PACKED: Final = (".gz", ".zst", ".bz2", ".xz", ".zip")


class Export(Struct, frozen=True):
    """Rows that are ready to be written, with a form to write them in. `output`: the file for them, if there is one."""

    rows: Rows
    kinds: RetryWords
    encoder: Encoder
    output: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for a person on what is missing."""
        return self.rows.notes

    @property
    def head(self) -> bytes:
        """What comes before the first row."""
        return self.encoder.head

    def lines(self) -> Iterator[list[bytes]]:
        """All rows, some at a time, each with its line end.

        Raises `CheckpointError` or `InputError` where a file can't be read.
        """
        for piece in self.rows.matching(self.kinds):
            yield list(self.encoder.lines(piece))

    def save(self, *, overwrite: bool = False) -> int:
        """Write all rows into the file, which is whole or absent; returns how many.

        Raises `UsageError` where the file is there already and `overwrite` is not set, or is one that the run needs,
        `CheckpointError` where the disk won't take it, and what `lines` raises.
        """
        path = self.output
        if path is None:
            raise UsageError("--output: name the file to write.")
        self._refuse(path, overwrite=overwrite)
        written = 0

        def write_to(file: IO[bytes]) -> None:
            nonlocal written
            file.write(self.head)
            for lines in self.lines():
                file.writelines(lines)
                written += len(lines)

        write_aside(path, write_to)
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


def _form(to: str | None, path: Path | None) -> str:
    """The form to write in: the one that is named, or that a file's ending says. Raises `UsageError`."""
    ending = "" if path is None else path.suffix.lower()
    if ending in PACKED:
        raise UsageError(
            f"--output: nothing is compressed here. Leave out -o, and write `| gzip > {path}` or the like."
        )
    form = to or ending.removeprefix(".")
    if form not in ENCODERS:
        raise UsageError(f"--to: write one of {', '.join(ENCODERS)}, the form to write in.")
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

    `to`: csv or jsonl; without it, the ending of `output` decides. `shape`: openai, anthropic or gemini, whose batch
    results are written instead, a line of JSON for each row. `output`: the file to write. `where`: only rows of
    these kinds: `succeeded`, `failed`, `incomplete`, an error kind or a finish reason. `columns`: only these.
    `Export.save` writes the file, `Export.lines` gives the lines. Raises `UsageError` where there is nothing to export,
    `CheckpointError` where a file of the run is damaged.
    """
    kinds, wanted = chosen_kinds(where), tuple(columns)
    if shape is not None:
        if to is not None or wanted:
            raise UsageError("--as: a vendor's batch results have one form: leave out --to and --columns.")
        rows = open_rows(target, overrides)
        return Export(rows, kinds, batch_encoder(target, shape, overrides, rows), output)
    form = _form(to, output)
    rows = open_rows(target, overrides)
    return Export(rows, kinds, ENCODERS[form](chosen_names(rows, wanted)), output)
