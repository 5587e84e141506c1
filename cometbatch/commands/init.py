"""`init`: a job file from a table, whose first run is free.

Guards: nothing is overwritten; nothing is asked; a job that is written can be planned and run as it stands.
"""

import contextlib
import functools
import itertools
import os
import re
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.commands.checks import check, refuse_clashes
from cometbatch.commands.first_look import FirstLook, look_at
from cometbatch.commands.job_text import WIDTH, batch_job_text, job_text, placeholder
from cometbatch.commands.schema import schema_text
from cometbatch.errors import InputError, UsageError
from cometbatch.input.file_set import AnySource, FileSet, open_input
from cometbatch.input.files import Identity, shown
from cometbatch.input.table import DELIMITERS, open_source
from cometbatch.job import load_job
from cometbatch.job.paths import run_beside
from cometbatch.job.secrets import printable
from cometbatch.job.sources import STANDARD_INPUT
from cometbatch.job.urls import SIMULATOR
from cometbatch.job.vendor_batch import BatchStart, told_by
from cometbatch.results.column_names import working_prefix
from cometbatch.results.summary_words import count

SCHEMA_FILE: Final = "cometbatch.schema.json"
"""The file beside a job file from which an editor completes and checks it."""
SIMULATED_MODEL: Final = "comet-sim-1"
OUTPUT_TOKENS: Final = 500
"""The cap on an answer of a new job: room for a paragraph, and for some thinking before it."""
LATENCY_S: Final = (0.05, 0.2)
"""Seconds that the simulator takes in a new job: nobody waits long for a first look."""
INSTRUCTION: Final = "Sum up the text in one short sentence."

Settings = dict[str, dict[str, Any]]


class JobBegun(Struct, frozen=True):
    """A job file that was written, and what was found in the table.

    `id_column`: None where no column names each row. `prompt_column`: the column that the prompt begins with; None
    for a vendor's batch file, whose lines are whole requests. `prompt_words`: how the prompt came about, for a person.
    `first_rows`: lines that show them. `notes`: sentences on what was chosen, or left as it was. `next_command`: runs
    the job, with the simulator in the place of a service.
    """

    job_file: Path
    schema_file: Path
    input: Path
    rows: int
    columns: tuple[str, ...]
    id_column: str | None
    prompt_column: str | None
    first_rows: tuple[str, ...]
    notes: tuple[str, ...]
    next_command: str
    prompt_words: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "job_file": printable(self.job_file),
            "schema_file": printable(self.schema_file),
            "input": printable(self.input),
            "rows": self.rows,
            "columns": list(self.columns),
            "id_column": self.id_column,
            "prompt_column": self.prompt_column,
            "notes": list(self.notes),
            "next_command": self.next_command,
        }

    def describe(self) -> str:
        """Some lines for a person, the next command last."""
        job, schema = (shown(printable(path), limit=1_000) for path in (self.job_file, self.schema_file))
        named = "none: no column is named like an id and has another value in each row"
        notes = [line for note in self.notes for line in textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="  ")]
        lines = [
            f"{shown(printable(self.input))}: {count(self.rows, 'row')}, {count(len(self.columns), 'column')}",
            *(f"  {line}" for line in self.first_rows),
            f"id: {named if self.id_column is None else shown(self.id_column)}",
            *textwrap.wrap(f"prompt: {self.prompt_words}", WIDTH, subsequent_indent="  "),
            f"written: {job}",
            f"beside it, for editors: {schema}",
            *notes,
            "The first run is free: the built-in simulator answers, with words at random",
            f"and a bill that nobody pays. {job} says what to change for real answers.",
            f"Next: {self.next_command}",
        ]
        return "\n".join(lines)


def init(
    data: str | os.PathLike[str],
    *,
    model: str | None = None,
    job_file: str | os.PathLike[str] = "job.yaml",
    encoding: str | None = None,
    delimiter: str | None = None,
) -> JobBegun:
    """Write a commented job file for a table, and beside it the schema that editors read.

    The id column is one that is named like an id and has another value in each row; the prompt has the column with the
    longest texts. The job asks the simulator, so that its first run is free; the address and `model` of the real
    service stand in comments beside. `encoding` and `delimiter` are those of a CSV; where its header is one cell with
    `;`, a tab or `|` in it, it is split there if all rows can be. A vendor's batch file gets the short job of its kind:
    no prompt, and no model where its lines name one. The table is read twice, a piece at a time.

    Raises `InputError` for a table that can't be read, `UsageError` where the job file is there already or can't be
    written, `JobError` for a model or a path that no job can name.
    """
    table, path = Path(data), Path(job_file)
    _refuse_taken(path)
    batch = told_by(table, has_prompt=True)  # with a prompt, rows with further keys are a table's
    written = _of_table if batch is None else functools.partial(_of_batch, batch)
    layout = {key: value for key, value in (("encoding", encoding), ("delimiter", delimiter)) if value is not None}
    look, rows, text, notes = written(table, path, model, layout)  # the text is made before a file is
    schema = path.with_name(SCHEMA_FILE)
    if not _write_new(schema, schema_text()) and not _holds(schema, schema_text()):
        notes.append(
            f"{printable(schema)} was there and was left as it is; to renew it: cometbatch schema > {_typed(schema)}"
        )
    if not _write_new(path, text):
        _refuse_taken(path)
    return JobBegun(
        job_file=path,
        schema_file=schema,
        input=table,
        rows=rows,
        columns=look.columns,
        id_column=look.id_column,
        prompt_column=(look.messages_column or look.text_column) if batch is None else None,
        prompt_words=_prompt_words(look, batch),
        first_rows=tuple(look.lines(WIDTH - 2)),
        notes=tuple(notes),
        next_command=f"cometbatch run {_typed(path)}",
    )


def _prompt_words(look: FirstLook, batch: BatchStart | None) -> str:
    if batch is not None:
        model = "" if batch.model is None else f", all of the model {shown(batch.model)}"
        return (
            f"none: the lines are whole requests in {batch.vendor.title}'s batch shape{model}; they go out as they are"
        )
    if look.messages_column is not None:
        return f"{shown(look.messages_column)}, which holds a conversation in each row; it is sent as it is"
    if look.has_texts:
        return f"{shown(look.text_column)}, the column with the longest texts"
    return f"{shown(look.text_column)}; no column holds texts, so look at what the prompt says"


def _typed(path: Path) -> str:
    """A path as a person types it in a shell, in one line."""
    return shown(shlex.quote(printable(path)), limit=1_000)


# --- the table ---


def _opened(table: Path, layout: Mapping[str, str]) -> tuple[AnySource, Identity, Mapping[str, str]]:
    """The table, read once, with how its text is written as it was given or found. Raises `InputError`."""
    encoding, delimiter = layout.get("encoding", "utf-8"), layout.get("delimiter")
    try:
        source = open_input(table, encoding=encoding, delimiter=delimiter)
        if isinstance(source, FileSet):
            return source, source.check(), layout
        first, *others = source.columns
        if first.casefold().startswith("sep="):
            raise UsageError(f"{printable(table)}: {source.layout.hint}")
        marks = [] if others or delimiter is not None else [mark for mark in ";\t|," if mark in first]
        for mark in sorted(marks, key=first.count, reverse=True):
            with contextlib.suppress(InputError):  # not every row can be split there: it is a mark of the text
                split = open_source(table, encoding=encoding, delimiter=mark)
                if len(split.columns) > 1:
                    return split, split.check(), {**layout, "delimiter": mark}
        return source, source.check(), layout
    except InputError as error:
        if table.suffix.lower() not in DELIMITERS or not table.is_file():
            raise
        raise InputError(
            f"{error}\nHow a text is written is said with --encoding NAME and --delimiter MARK."
        ) from error


# --- the job ---

_Written = tuple[FirstLook, int, str, list[str]]
"""What was seen, the number of rows, the job file's text, and notes."""


def _of_table(table: Path, path: Path, model: str | None, layout: Mapping[str, str]) -> _Written:
    """The job of a table."""
    source, identity, layout = _opened(table, layout)
    look = look_at(source, identity)
    settings, notes = _fitting(_settings(table, path, look, layout), path, model), list(source.warnings)
    if prefix := settings["output"].get("prefix"):
        notes.append(f"the table has columns named like the result's, so those of the result begin with {prefix}")
    text = job_text(settings, look, table=_typed(table), job_file=_typed(path), schema=SCHEMA_FILE, model=model)
    return look, identity.rows, text, notes


def _of_batch(batch: BatchStart, table: Path, path: Path, model: str | None, layout: Mapping[str, str]) -> _Written:
    """The job of a vendor's batch file. Raises `InputError` where a line of it can't be used."""
    if model is not None and batch.model is not None:
        raise UsageError(
            f"--model: the lines of {printable(table)} name their model, {shown(batch.model)}. Leave it out."
        )
    if layout:
        raise UsageError(f"--{next(iter(layout))}: {printable(table)} is a batch file, which is JSON. Leave it out.")
    settings: Settings = {
        "input": {"path": _from(path, table)},
        "output": {"path": _free_result(table, path.parent)},
        "target": {"base_url": SIMULATOR, **({} if batch.model is not None else {"model": SIMULATED_MODEL})},
        "simulator": {"latency_s": list(LATENCY_S)},
    }
    if model is not None:
        load_job(settings | {"target": {"model": model}}, base_dir=path.parent)
    checked = check(load_job(settings, base_dir=path.parent))
    identity = checked.source.check()
    look = look_at(checked.source, identity)
    look = msgspec.structs.replace(look, id_column=batch.vendor.id, text_column=batch.vendor.body)
    text = batch_job_text(
        settings,
        look,
        vendor=batch.vendor.title,
        table=_typed(table),
        job_file=_typed(path),
        schema=SCHEMA_FILE,
        model=model,
    )
    return look, identity.rows, text, list(checked.warnings)


def _settings(table: Path, path: Path, look: FirstLook, layout: Mapping[str, str]) -> Settings:
    """What the job says, without comments. Its paths start at the folder of the job file."""
    named = {} if look.id_column is None else {"id": look.id_column}
    return {
        "input": {"path": _from(path, table), **named, **layout},
        "output": {"path": _free_result(table, path.parent)},
        "target": {"base_url": SIMULATOR, "model": SIMULATED_MODEL, "format": "chat"},
        "prompt": (
            {"system": INSTRUCTION, "user": placeholder(look.text_column)}
            if look.messages_column is None
            else {"messages_column": look.messages_column}
        ),
        "params": {"max_output_tokens": OUTPUT_TOKENS},
        "simulator": {"latency_s": list(LATENCY_S)},
    }


def _from(path: Path, table: Path) -> str:
    """The table's path as the job file has it: one that was given absolute stays so."""
    if table.is_absolute():
        return str(table)
    relative = os.path.relpath(table, path.parent)
    return f"./{relative}" if relative.startswith("~") else relative


def _free_result(table: Path, folder: Path) -> str:
    """A place for the result where neither a file nor a run is, named like the table."""
    stem = re.sub(r"[^\w-]+", "_", table.name.split(".")[0]).strip("_") or "answers"
    for number in itertools.count(1):
        name = f"out/{stem}.parquet" if number == 1 else f"out/{stem}_{number}.parquet"
        if not os.path.lexists(folder / name) and not os.path.lexists(run_beside(folder / name)):
            return name
    raise AssertionError("there are numbers without end")


def _fitting(settings: Settings, path: Path, model: str | None) -> Settings:
    """The settings, with a prefix where the table has columns named like the result's.

    Raises `UsageError` for what no job can say, and for what a run would refuse.
    """
    if model is not None:
        load_job(settings | {"target": {"format": "chat", "model": model}}, base_dir=path.parent)
    checked = check(load_job(settings, base_dir=path.parent))
    try:
        refuse_clashes(checked)
        if checked.warnings == checked.source.warnings:
            return settings
    except UsageError:
        pass
    return settings | {"output": settings["output"] | {"prefix": working_prefix(checked.source.columns)}}


# --- files ---


def _refuse_taken(path: Path) -> None:
    if str(path) in (STANDARD_INPUT, "") or path.name in (SCHEMA_FILE, ""):
        raise UsageError(f"--job: {printable(path)} can't be the name of a job file.")
    if not path.parent.is_dir():
        raise UsageError(f"{printable(path)}: can't be written: there is no folder {printable(path.parent)}.")
    if os.path.lexists(path):
        raise UsageError(
            f"{printable(path)} is there already, and nothing is overwritten. Give the new job file another name, "
            "with --job NAME."
        )


def _write_new(path: Path, text: str) -> bool:
    """Write a file that is not there yet, whole or not at all; whether it was not there. Raises `UsageError`."""
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except BaseException:
                path.unlink()
                raise
    except FileExistsError:
        return False
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a file name"
        raise UsageError(f"{printable(path)}: can't be written ({reason}).") from error
    return True


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False
