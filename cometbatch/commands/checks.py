"""What `plan` and `run` refuse before the first request: a job whose input, templates, names and budget do not fit."""

import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from cometbatch import wire
from cometbatch.commands.connection import describe_connection, simulator_behaviour
from cometbatch.commands.row_maker import row_maker
from cometbatch.control.bounds import describe_unbounded
from cometbatch.errors import JobError, UsageError
from cometbatch.input.files import Identity, shown
from cometbatch.input.table import Source, open_source
from cometbatch.job import Job, Target
from cometbatch.job.headers import variables_in
from cometbatch.job.secrets import printable
from cometbatch.prompt.names import no_column, shown_columns
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import PriceBook
from cometbatch.results import columns, parts
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import refuse_drift
from cometbatch.run_state.partition_size import suggest_partition_rows
from cometbatch.run_state.run import Run
from cometbatch.runner.row_maker import RowMaker
from cometbatch.service.catalog import CatalogProblem
from cometbatch.transport.headers import looks_secret, read_values
from cometbatch.transport.key import holds_key
from cometbatch.wire.request_extra import template_marks, unkept

if TYPE_CHECKING:
    import httpx


class Checked(Struct, frozen=True):
    """A job whose input, templates and names have been found to fit together."""

    job: Job
    source: Source
    target: Target
    template: PromptTemplate
    format: wire.WireFormat

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what can be run but is surely not meant, as far as the columns tell."""
        told = *self.source.warnings, *describe_extra(self.job)
        asked = columns.columns_for(self.job.asked_columns)
        clashes = columns.case_clashes(self.source.columns, self.job.output.prefix, asked)
        if not clashes:
            return told
        pairs = ", ".join(f'"{shown(theirs)}" and {ours}' for theirs, ours in clashes)
        words = (
            f"columns of the input and of the result differ by case alone ({pairs}), and some programs take them for"
        )
        prefix = columns.working_prefix(self.source.columns)
        return *told, f"{words} one; set output.prefix (for example to {prefix}) to tell them apart"

    def row_maker(self) -> RowMaker:
        """How rows of this job become requests."""
        return row_maker(self.target, self.template, self.source.columns, self.job.input.id)


def check(job: Job) -> Checked:
    """Check what any session of a job needs, without a full read of its input. Raises `UsageError`."""
    refuse_key(job)
    if job.target.is_simulator:
        simulator_behaviour(job)
    opened = open_source(job.input.path, encoding=job.input.encoding, delimiter=job.input.delimiter)
    try:
        return _fitted(job, opened)
    except UsageError as error:
        if opened.layout.hint:
            raise JobError(f"{error}\n{opened.layout.hint}") from error
        raise


def _fitted(job: Job, opened: Source) -> Checked:
    """The job with its input. Raises `UsageError` where a template or the id needs a column that is not there."""
    (target,) = job.targets()
    template = job.prompt_template_for(target, opened.columns)
    named = {} if job.input.id is None else {"input.id": job.input.id}
    for key, column in (named | target.columns).items():
        if column not in opened.columns:
            words = no_column(column, opened.columns)
            raise UsageError(f"{key}: {words} (the columns are {shown_columns(opened.columns)})")
    return Checked(job, opened, target, template, wire.FORMATS[target.format])


def refuse_key(job: Job) -> None:
    """Raise `UsageError` where a text of the job holds the very key, which would go into files and messages."""
    for section, value in job.describe().items():
        name = "prompt" if section == "messages" else section
        if holds_key(value, job.target.key_env):
            raise UsageError(
                f"{name}: this holds the API key that {job.target.key_env} is set to. Nothing was written or sent: "
                "take it out, the key is read from the environment alone."
            )
        for variable in variables_in(job.target.headers.values()):
            if looks_secret(os.environ.get(variable, "")) and holds_key(value, variable):
                raise UsageError(
                    f"{name}: this holds what {variable} is set to. Nothing was written or sent: take it out, "
                    "headers read it from the environment."
                )


def check_session(
    checked: Checked,
    directory: RunDirectory,
    found: Run | None,
    *,
    fresh: bool = False,
    retry: bool = False,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> None:
    """Raise `UsageError` for whatever refuses a session but the job itself, prices and key: `plan` and `run` ask this.

    `found`: the run that the directory holds. One that has begun must be this job's; before that, the result must have
    its place and its names. `retry`: rows are to be asked again, which may be done in another way.
    """
    job = checked.job
    describe_connection(job, http)
    if found is not None and found.is_begun:
        refuse_other_job(found, checked, retry=retry)
        found.refuse_foreign()
        if found.is_finished:
            return
        read_values(job.target.headers)
    else:
        read_values(job.target.headers)
        _refuse_clashes(checked)
        _refuse_taken(job, found, fresh=fresh)
    _refuse_unwritable(directory.path)
    _refuse_unwritable(job.output.path if job.output.is_dataset else job.output.path.parent)


def _refuse_clashes(checked: Checked) -> None:
    """Raise `UsageError` where a new run's columns would be named like the input's.

    A run that is resumed was checked when it began. Its prefix can't be changed any more, so columns that this program
    adds are not held against it.
    """
    job = checked.job
    asked = columns.columns_for(job.asked_columns)
    if clashes := columns.clashes(checked.source.columns, job.output.prefix, asked):
        raise UsageError(
            f"{job.input.path}: the input has columns named like the output's: {', '.join(clashes)}. "
            f"Set output.prefix (for example to {columns.working_prefix(checked.source.columns)}) to tell them apart."
        )


def _refuse_taken(job: Job, found: Run | None, *, fresh: bool) -> None:
    """Raise `UsageError` where something stands in the result's place that no run of ours is to replace."""
    path = job.output.path
    exists = any(path.glob("*.parquet")) if job.output.is_dataset else path.exists()
    if exists and not fresh and to_replace(job, found) is None:
        raise UsageError(
            f"output.path: {path} exists, and there is no run directory beside it to resume. Move it away, "
            "choose another name, or replace it with --fresh."
        )
    if job.output.is_dataset and fresh and (foreign := parts.foreign(path)):
        raise UsageError(
            f"output.path: {foreign[0]} is not a part that cometbatch wrote under this name, so --fresh does not "
            "remove it, and it would be read as answers. Move it away, or choose another folder."
        )


def to_replace(job: Job, found: Run | None) -> str | None:
    """The stamp of the file that --fresh told an earlier session to replace, if that still stands there."""
    is_it = found is not None and found.manifest.replaces is not None and found.place == "free"
    return parts.file_stamp(job.output.path) if is_it else None


def _refuse_unwritable(folder: Path) -> None:
    """Raise `UsageError` where a run could not make its files; nothing is written to find out."""
    place = folder
    try:
        while not place.exists():
            place = place.parent
        is_open = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    except OSError:  # a folder above it that may not be looked into
        is_open = False
    if not is_open:
        raise UsageError(f"output.path: can't write to {folder}: {place} is no folder, or not ours to write to.")


def refuse_other_job(run: Run, checked: Checked, *, retry: bool) -> None:
    """Raise `DriftError` where the job or its input is not what the run began with, nor what it was asked with since.

    `retry`: rows are to be asked again. Model, parameters and prompt may be others for them.
    """
    manifest = run.manifest
    was, (size, sha256) = manifest.input, checked.source.digest()
    has_grown = size > was.size and checked.source.begins_with(was.size, was.sha256)
    advice = describe_growth(checked.job.input.path, was.size) if has_grown else ""
    fingerprint = checked.job.fingerprint()
    refuse_drift(manifest, fingerprint, size, sha256, input_advice=advice, targets=run.targets, other_target=retry)


def describe_growth(path: Path, size: int) -> str:
    """How a run is finished whose input has only grown: by a copy of the bytes that it had."""
    copy = path.with_name(f"{path.stem}.before{path.suffix}")
    make = f"head -c {size} {shlex.quote(printable(path))} > {shlex.quote(printable(copy))}"
    return (
        f"It has only grown: its first {size:,} bytes are the table as it was. To finish this run, copy these with "
        f"`{make}`, and run the same command with {shlex.quote(f'--set=input.path={printable(copy)}')}; for the new "
        "rows, give a table that holds only these and another output.path."
    )


def check_budget(job: Job, target: Target, books: Sequence[PriceBook]) -> None:
    """Raise `UsageError` where the job's budget could not be held: no price, no cap on an answer, input not ours.

    `books`: of the target, and of the models that rows name themselves. Rows of a model without a price fail alone.
    """
    if job.budget.max_cost_usd is None:
        return
    if not job.budget.allow_unbounded and (added := describe_unbounded(target.params.extra)):
        raise UsageError(
            f"budget: the service may add input that is billed beyond what is sent, by {added}, so a budget can't be "
            "held. Take it out, or set budget.allow_unbounded: true to run all the same."
        )
    if job.budget.allow_unpriced:
        return
    known = [book.rates for book in books if book.rates is not None]
    if not known:
        unread = books[0].unread_catalog
        reason = f"there is no price for {books[0].model}" if unread is None else str(CatalogProblem(unread))
        raise UsageError(
            f"budget: {reason}, so a budget can't be held. Set prices, or budget.allow_unpriced: true to go without."
        )
    cap = wire.output_cap(target.format, target.params)
    if cap is None and any(rates.per_request is None for rates in known):
        raise UsageError("budget: without params.max_output_tokens an answer has no highest cost. Set it.")


def partition_rows(checked: Checked, identity: Identity) -> int:
    """How many rows a partition of a new run has: fewer where whole replies are kept beside the answers."""
    settings, cap = checked.job.output, checked.target.max_output_tokens
    kept = 1 + settings.raw + settings.reasoning
    return settings.partition_rows or suggest_partition_rows(identity, None if cap is None else cap * kept)


def describe_extra(job: Job) -> Iterator[str]:
    """What whoever pays should know of `params.extra`: marks that are no template there, and what is not kept."""
    for path, mark in template_marks(job.params.extra):
        yield f"params.extra.{path} holds {mark}: params.extra is no template, so it is sent as it stands"
    for path, setting in unkept(job.params.extra):
        if not job.output.raw and not (setting == "reasoning" and job.output.reasoning):
            yield (
                f"params.extra.{path} is asked for and paid, but not kept: set output.{setting}: true to have it in a "
                f"column `{setting}`"
            )


def describe_missing_columns(job: Job, names: Collection[str]) -> Iterator[str]:
    """Which columns the job asks for that a run has not: it keeps those that it began with."""
    for name in sorted(job.asked_columns.difference(names)):
        yield f"the run began without a column `{name}`, so it has none; to have it, begin anew with --fresh"
