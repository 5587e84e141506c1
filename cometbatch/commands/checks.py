"""What `plan` and `run` refuse before the first request: a job whose input, templates, names and budget do not fit."""

import contextlib
import itertools
import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cometbatch import wire
from cometbatch.commands.answers import answer_columns, checker_of, refuse_answer_clashes
from cometbatch.commands.checked import Checked, CheckedCell, PromptKey, prompt_key
from cometbatch.commands.connection import describe_connection, simulator_behaviour
from cometbatch.commands.deduping import refuse_samples
from cometbatch.commands.growth import adds_calls
from cometbatch.commands.row_changes import row_changes
from cometbatch.commands.telemetry import check_telemetry
from cometbatch.errors import CheckpointError, JobError, UsageError
from cometbatch.input.file_set import AnySource, FileSet
from cometbatch.input.files import Identity, ending_of
from cometbatch.job import Job, Target
from cometbatch.job.batch_lines import open_table
from cometbatch.job.paths import run_beside
from cometbatch.job.secrets import printable
from cometbatch.job.targets import Template
from cometbatch.job.variables import variables_in
from cometbatch.prompt.answers import Checker
from cometbatch.prompt.names import no_column, shown_columns
from cometbatch.records import PriceBook
from cometbatch.results import column_names, columns, parts
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.results.slices import slice_names
from cometbatch.results.summary_words import count
from cometbatch.run_state import earlier
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.drift import drift, refuse_drift
from cometbatch.run_state.partition_size import range_rows, suggest_partition_rows
from cometbatch.run_state.run import Run, directory_of, find, refuse_foreign
from cometbatch.service.catalog import CatalogProblem
from cometbatch.transport.headers import looks_secret, read_values
from cometbatch.transport.image_fetch import proxy_in_the_way
from cometbatch.transport.key import KeySource, holds_key
from cometbatch.wire.whole_bodies import cap_words

if TYPE_CHECKING:
    import httpx


FILES_SHOWN: Final = 10  # that changed, in a message; of the others, the number is said


def check(job: Job) -> Checked:
    """Check what any session of a job needs, without a full read of its input. Raises `UsageError`."""
    refuse_key(job)
    check_telemetry(job)
    if job.target.is_simulator:
        simulator_behaviour(job)
    opened = open_table(job)
    _refuse_unfinished(opened)
    try:
        checked = fitted_to(job, opened)
        return _with_scoring(checked) if job.scores else checked
    except UsageError as error:
        if opened.hint:
            raise JobError(f"{error}\n{opened.hint}") from error
        raise


def _refuse_unfinished(opened: AnySource) -> None:
    """Raise `UsageError` where the input is a data set of which a run has not written all parts yet."""
    if not isinstance(opened, FileSet):
        return
    for folder in {source.path.parent for source in opened.sources}:
        run = None
        if run_beside(folder).is_dir():
            with contextlib.suppress(CheckpointError):  # whatever is wrong with that run, its files are a table
                run = find(directory_of(folder, is_dataset=True), folder)
        if run is not None and not (run.is_complete if run.directory.slices is None else run.is_finished):
            done = f"{len(run.progress.committed):,} of {run.partition_count:,} partitions are there"
            raise UsageError(
                f"input.path: {folder} is the data set of a run that is not finished ({done}), so rows are missing. "
                "Finish that run first, or copy the files to another folder."
            )


def fitted_to(job: Job, opened: AnySource) -> Checked:
    """The job with its input, without its scores.

    Raises `UsageError` where a template or the id needs a column that is not there.
    """
    if job.images.fetch and proxy_in_the_way():
        raise UsageError(
            "prompt.images.fetch: the environment names a proxy (HTTPS_PROXY or ALL_PROXY), and behind it no image's "
            "address can be checked. Leave fetch out, so that the service fetches the images, or take the proxy out."
        )
    templates: dict[PromptKey, Template] = {}
    checkers: dict[str, Checker | None] = {}
    cells = []
    for cell in job.cells():
        target, key = cell.target, prompt_key(cell.target)
        if key not in templates:
            templates[key] = job.prompt_template_for(target, opened.columns)
        _refuse_missing(job, target, opened)
        if target.format not in checkers:
            checkers[target.format] = checker_of(target)
        cells.append(CheckedCell(cell, templates[key], checkers[target.format]))
    # Where a format adds nulls to what is asked, its checker takes answers with and without them.
    first = next((each for each in cells if job.response.adds_nulls(each.target.format)), cells[0])
    checked = Checked(job, opened, tuple(cells), answer_columns(first.target, first.checker))
    refuse_axis_clashes(checked)
    return checked


def _with_scoring(checked: Checked) -> Checked:
    """The same with how its answers are scored. Raises `JobError` where that does not fit the input."""
    from cometbatch.commands.scoring import refuse_score_names, scoring_of  # noqa: PLC0415 - loads every scorer

    scoring = scoring_of(checked.job, checked.source.schema)
    if scoring is not None:
        refuse_score_names(scoring, _names_before_scores(checked.job, checked.source, checked.answers))
    return msgspec.structs.replace(checked, scoring=scoring)


def _refuse_missing(job: Job, target: Target, opened: AnySource) -> None:
    """Raise `UsageError` where a column that a target needs is not there, or the folder of its images."""
    named = {} if job.input.id is None else {"input.id": job.input.id}
    for key, column in (named | target.columns).items():
        if column not in opened.columns:
            words = no_column(column, opened.columns)
            raise UsageError(f"{key}: {words} (the columns are {shown_columns(opened.columns)})")
    if target.may_have_images and not job.image_root.is_dir():
        raise UsageError(f"prompt.images.root: {printable(job.image_root)} is no folder, and images lie below it.")


def _names_before_scores(job: Job, opened: AnySource, answers: AnswerColumns | None) -> list[str]:
    """The names of all columns of the result but those of scores."""
    output = [column.name for column in columns.columns_for(job.asked_columns, job.columns_there)]
    own = [] if job.matrix is None else slice_names(job.matrix.columns)
    named = [job.output.prefix + name for name in (*own, *output)]
    return [*opened.columns, *named, *(() if answers is None else answers.names)]


def refuse_limit(limit: int | None) -> None:
    """Raise `UsageError` where a limit is no number of rows."""
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UsageError(f"--limit: {limit!r} is no number of rows; write a whole number from 1.")


def refuse_key(job: Job) -> None:
    """Raise `UsageError` where a text of the job holds the very key, which would go into files and messages."""
    keys = list(KeySource.of(job.target).sought())
    for section, value in job.describe().items():
        name = "prompt" if section == "messages" else section
        for words, key in keys:
            if holds_key(value, key):
                raise UsageError(
                    f"{name}: this holds {words}. Nothing was written or sent: take it out, the key is read from there "
                    "alone."
                )
        for variable in variables_in(job.target.headers.values()):
            held = os.environ.get(variable, "")
            if looks_secret(held) and holds_key(value, held):
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
    updated: Run | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> None:
    """Raise `UsageError` for whatever refuses a session but the job itself, prices and key: `plan` and `run` ask this.

    `found`: the run that the directory holds. One that has begun must be this job's; before that, the result must have
    its place and its names. `retry`: rows are to be asked again, which may be done in another way. `updated`: the run
    whose place a new one is to take.
    """
    job = checked.job
    describe_connection(job, http)
    refuse_samples(job, found)
    if found is not None and found.is_begun:
        refuse_other_job(found, checked, retry=retry)
        refuse_foreign(found)
        if found.is_finished and not adds_calls(found.manifest, job):
            return
        read_values(job.target.headers)
        if checked.survey is not None and job.budget.max_cost_usd is not None:
            checked.source.check()  # a budget may be new, and each line decides whether it can be held
    else:
        read_values(job.target.headers)
        refuse_clashes(checked)
        if updated is not None:
            refuse_foreign(updated)
        else:
            _refuse_taken(job, found, fresh=fresh)
    if job.reuse is not None:  # which a session looks for again; what can't be had is told before anything is written
        takes_own = not fresh and not (found is not None and found.manifest.is_fresh)
        earlier.find_runs(directory, job.output.path, job.reuse.sources, takes_own=takes_own)
    _refuse_unwritable(directory.path)
    _refuse_unwritable(job.output.path if job.output.is_dataset else job.output.path.parent)


def gives_way(found: Run | None, job: Job) -> bool:
    """Whether a run that the simulator answered stands where the job, which names a real service, puts its own.

    A data set with a matrix has its files elsewhere than one without: there only --fresh replaces the one by the other.
    """
    if found is None or not found.manifest.is_simulated or job.target.is_simulator:
        return False
    return not job.output.is_dataset or found.manifest.has_matrix == (job.matrix is not None)


def describe_replaced(found: Run | None, job: Job) -> str | None:
    """What is said of a run that gives way to the job's own without `--fresh`; None where there is no such run.

    Its answers cost nothing, so nothing is lost. Raises `UsageError` where its result is not the one that it wrote.
    """
    if found is None or not gives_way(found, job):
        return None
    refuse_foreign(found)
    rows = f"{found.tally.calls:,} of {count(found.manifest.calls, 'row')}"
    return (
        f"an earlier run of this output ({rows}) asked the simulator and cost nothing; the job names a service by now, "
        "so a new run replaces it"
    )


def refuse_clashes(checked: Checked) -> None:
    """Raise `UsageError` where a new run's columns would be named like the input's.

    A run that is resumed was checked when it began. Its prefix can't be changed any more, so columns that this program
    adds are not held against it.
    """
    job = checked.job
    asked = columns.columns_for(job.asked_columns, job.columns_there)
    if clashes := column_names.clashes(checked.source.columns, job.output.prefix, asked):
        is_id = clashes == [job.output.prefix + columns.CUSTOM_ID]
        ids = f"If that column names the rows, set input.id: {clashes[0]}. Else set" if is_id else "Set"
        prefix = column_names.working_prefix(checked.source.columns)
        raise UsageError(
            f"{job.input.path}: the input has columns named like the output's: {', '.join(clashes)}. "
            f"{ids} output.prefix (for example to {prefix}) to tell them apart."
        )
    refuse_answer_clashes(checked.answers, checked.source.columns, job.output.prefix, asked)


def refuse_axis_clashes(checked: Checked) -> None:
    """Raise `UsageError` where a column that the matrix adds would be named like one of the input, or of the answers.

    These columns are made when the result is published, so that axes may come later than the run has begun.
    """
    job = checked.job
    if job.matrix is None:
        return
    names = [job.output.prefix + name for name in slice_names(job.matrix.columns)]
    if taken := [name for name in names if name in checked.source.columns]:
        prefix = column_names.working_prefix(checked.source.columns)
        raise UsageError(
            f"{job.input.path}: the input has columns named like those that the matrix adds: {', '.join(taken)}. "
            f"Set output.prefix (for example to {prefix}) to tell them apart."
        )
    ours, answers = {name.casefold() for name in names}, () if checked.answers is None else checked.answers.names
    if clash := next((name for name in answers if name.casefold() in ours), None):
        raise UsageError(
            f"response.schema: the matrix adds a column named {clash!r}, like a property of the schema. Set "
            "response.prefix (for example to answer_) to tell them apart."
        )


def _refuse_taken(job: Job, found: Run | None, *, fresh: bool) -> None:
    """Raise `UsageError` where something stands in the result's place that no run of ours is to replace."""
    path = job.output.path
    exists = any(path.glob("*.parquet")) if job.output.is_dataset else path.exists()
    if found is not None and found.manifest.follows is not None:
        refuse_foreign(found)
    elif exists and not fresh and to_replace(job, found) is None:
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
    if (size, sha256) != (was.size, was.sha256) and (was.files or checked.source.path.is_dir()):
        advice = describe_changes(checked.source.changes(was))
    refuse_drift(
        manifest,
        checked.job.fingerprint(),
        size,
        sha256,
        input_advice=advice,
        update_advice=lambda: describe_update(run, checked),
        targets=run.targets,
        other_target=retry and not manifest.has_matrix,
        matrix=checked.job.matrix,
    )


def differs(run: Run, checked: Checked) -> bool:
    """Whether the job or its input is not what the run began with. Raises `InputError` where that can't be read."""
    was, (size, sha256) = run.manifest.input, checked.source.digest()
    if (size, sha256) != (was.size, was.sha256):
        return True
    return bool(drift(run.manifest, checked.job.fingerprint(), run.targets, matrix=checked.job.matrix))


def describe_update(run: Run, checked: Checked) -> str:
    """Which rows changed since a run began, and how only these are answered."""
    if checked.job.output.is_dataset:
        return in_folders(checked.job)
    changes = row_changes(run, checked)
    return (
        f"{'' if changes is None else changes.describe() + ' '}To answer only new and changed rows and take the other "
        "answers as they are, add --update (in Python: update=True). `cometbatch plan` with --update says what that "
        "sends and costs."
    )


def in_folders(job: Job) -> str:
    """What to do where a data set is to be brought up to date."""
    path = job.output.path
    names = itertools.chain(["2026-11-30"], (f"{path.name}-{number}" for number in itertools.count(2)))
    free = next(name for name in names if not is_taken(path.with_name(name)))
    above = printable(path.parent)
    return (
        f"{printable(path)} is a data set, which is not updated in place. To send only new and changed rows, give each "
        f"state of the table a folder of its own, such as output.path: {above}/{printable(free)}/, and set "
        f"reuse.from: ['{above}/*/']."
    )


def is_taken(folder: Path) -> bool:
    """Whether a data set would not be the first thing in this place."""
    return os.path.lexists(folder) or os.path.lexists(run_beside(folder))


def describe_changes(changes: Sequence[str]) -> str:
    """Which files of an input changed, are new or are gone since a run began, and how it is finished all the same."""
    told = [f"  {words}" for words in changes[:FILES_SHOWN]]
    if len(changes) > FILES_SHOWN:
        told.append(f"  and {len(changes) - FILES_SHOWN:,} more")
    way = (
        "To finish this run, put its files back as they were and move away the new ones; for new rows, give a table "
        "that holds only these and another output.path."
    )
    return "\n".join(["Of the input's files:", *told, way])


def goes_on(found: Run, checked: Checked) -> bool:
    """Whether a session goes on with what is recorded of a run: outcomes, or answers that were paid for and not taken.

    The latter belong to the very job that they were given for. Before the first outcome the job may be changed; then
    they are money alone. Raises `InputError` where the input can't be read.
    """
    if found.is_begun or not found.progress.asks:
        return found.is_begun
    was, (size, sha256) = found.manifest.input, checked.source.digest()
    job = checked.job
    return not drift(found.manifest, job.fingerprint(), matrix=job.matrix) and (size, sha256) == (was.size, was.sha256)


def describe_growth(path: Path, size: int) -> str:
    """How a run is finished whose input has only grown: by a copy of the bytes that it had."""
    end = len(ending_of(path.name))
    copy = path.with_name(f"{path.name[:-end]}.before{path.name[-end:]}")
    make = f"head -c {size} {shlex.quote(printable(path))} > {shlex.quote(printable(copy))}"
    return (
        f"It has only grown: its first {size:,} bytes are the table as it was. To finish this run, copy these with "
        f"`{make}`, and run the same command with {shlex.quote(f'--set=input.path={printable(copy)}')}; for the new "
        "rows, give a table that holds only these and another output.path."
    )


def check_budget(checked: Checked, target: Target, books: Sequence[PriceBook], *, shared: bool = False) -> None:
    """Raise `UsageError` where the job's budget could not be held: no price, no cap on an answer, input not ours.

    `target`: one that the run asks. `books`: of it, and of the models that rows name themselves. Rows of a model
    without a price fail alone. The lines of a batch file have been looked at. `shared`: there is a cap over several
    runs, which has to be held as well.
    """
    job = checked.job
    if job.budget.max_cost_usd is None and not shared:
        return
    if not job.budget.allow_unbounded and (added := checked.added_to(target)):
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
    if all(rates.per_request is not None for rates in known):
        return
    if checked.survey is None and wire.output_cap(target.format, target.params) is None:
        raise UsageError("budget: without params.max_output_tokens an answer has no highest cost. Set it.")
    if checked.survey is not None and checked.survey.uncapped.count:
        raise UsageError(
            f"budget: {checked.survey.uncapped}: without {cap_words(target.format)} in the body an "
            "answer has no highest cost. Set it there, or set params.max_output_tokens with params.override: true, "
            "which lays it over every body."
        )


def partition_rows(checked: Checked, identity: Identity) -> int:
    """How many rows a partition of a new run has.

    Fewer where whole replies are kept beside the answers, and where the same rows are asked in many slices: also than
    the job says then, since the partitions of the same rows in all slices are open together.
    """
    job = checked.job
    settings, caps = job.output, [target.max_output_tokens for target in job.targets()]
    known = [cap for cap in caps if cap is not None]
    cap = max(known) if len(known) == len(caps) else None
    if checked.survey is not None and not checked.survey.uncapped.count:
        cap = checked.survey.max_cap or None
    kept = 1 + settings.raw + settings.reasoning
    slices = len(caps) * job.samples
    if settings.partition_rows is not None:
        return settings.partition_rows if slices == 1 else min(settings.partition_rows, range_rows(slices))
    return suggest_partition_rows(identity, None if cap is None else cap * kept, slices)


def describe_missing_columns(job: Job, names: Collection[str]) -> Iterator[str]:
    """Which columns the job asks for that a run has not: it keeps those that it began with."""
    missing = job.asked_columns.difference(names)
    if columns.REUSED_FROM in missing:
        yield (
            "the run began without a column `reused_from`, which tells whose answer a row has: it takes no answers; to "
            "have some taken, begin anew with --fresh"
        )
    for name in sorted(missing.difference(columns.REUSED_COLUMNS)):
        yield f"the run began without a column `{name}`, so it has none; to have it, begin anew with --fresh"
