"""`verify`: proves a finished run from its files alone, some rows at a time, and changes none of them.

Guards: each check is named in the report, as ok, failed with its first places, or skipped with the reason. It can't see
an answer that was changed in the same way in every file that holds it: no file is signed.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from cometbatch.commands.answers import answer_columns, checker_of
from cometbatch.commands.checks import FILES_SHOWN
from cometbatch.commands.locate import Located, locate
from cometbatch.commands.row_maker import Maker, images_for, row_maker
from cometbatch.commands.tables import JobSource
from cometbatch.commands.verify_equal import EqualRows
from cometbatch.commands.verify_files import FileChecks
from cometbatch.commands.verify_report import CHECKS, Findings, Verification
from cometbatch.commands.verify_reuse import reused_checks
from cometbatch.commands.verify_rows import PublishedResult, RowChecks
from cometbatch.errors import CheckpointError, InputError, JobError, UsageError
from cometbatch.input.file_set import AnySource, is_there
from cometbatch.job import Job, Target
from cometbatch.job.batch_lines import open_table
from cometbatch.job.targets import Template
from cometbatch.prompt.template import TemplateError
from cometbatch.records import MaxTokensField, Partition
from cometbatch.results import parts
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.run_state.answers import PartRows
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.drift import OWN_RULES, drift
from cometbatch.run_state.manifest import Manifest, decode_manifest
from cometbatch.run_state.published import ROUNDS_KEY
from cometbatch.run_state.run import refuse_unreleased


def verify(job: JobSource, overrides: Sequence[str] = ()) -> Verification:
    """Prove a finished run from its files: a job's, or that of an output or run directory, wherever they were moved.

    A job may be given as its file, with `--set` strings to put over it. Changes nothing and sends nothing. Raises
    `UsageError` where there is no run, or one that is not finished, and says how it begins or goes on.
    """
    located = locate(job, overrides)
    directory, result, asked = located.directory, located.result, located.job
    content, findings = _manifest_content(located), Findings()
    try:
        manifest = decode_manifest(content, str(directory.path / "manifest.json"))
        partitions = manifest.partitions()
        directory.reopened()
    except (CheckpointError, ValueError) as error:  # ValueError: partitions of no rows
        findings.add("manifest", str(error))
        findings.skip("the manifest can't be read", *CHECKS)
        return Verification(result, None, None, findings.checks())
    _refuse_unfinished(located, manifest, partitions)
    _check_run(directory, result, manifest, partitions, asked=asked, findings=findings)
    return Verification(result, manifest.run_id, manifest.input.rows, findings.checks())


def _manifest_content(located: Located) -> bytes:
    """The manifest's bytes. Raises `UsageError` where there is no run, `CheckpointError` where it is too old."""
    content = located.directory.read_manifest()
    if content is None:
        refuse_unreleased(located.result)
        raise located.no_run()
    return content


def _refuse_unfinished(located: Located, manifest: Manifest, partitions: list[Partition]) -> None:
    """A run with gaps is unfinished. But where its result is there and no journal can fill them, a part was lost."""
    directory, result = located.directory, located.result
    missing = {each.index for each in partitions} - set(_committed(directory, manifest))
    said = parts.result_metadata(result) or {}
    is_ours = said.get("cometbatch.run_id") == manifest.run_id
    # Another file in the result's place, or a damaged one, is for the checks to tell.
    is_stale = is_ours and said.get(ROUNDS_KEY) != str(directory.reopened().rounds)
    is_published = directory.parts.is_dataset or (result.exists() and not is_stale)
    if missing and is_ours and not missing & {file.range for file in directory.journals.all()}:
        return
    if missing or not is_published:
        done = len(partitions) - len(missing)
        way = "It is going on: wait for its end." if directory.lock.is_held() else f"Finish it with: {located.command}"
        raise UsageError(
            f"{directory.path}: this run is not finished ({done:,} of {len(partitions):,} partitions are done"
            f"{'' if missing else ', the result is not published'}). {way}"
        )


def _committed(directory: RunDirectory, manifest: Manifest) -> Iterator[int]:
    """The partitions with a part of their round; one that can't be read is there, and is told of later."""
    for index in directory.parts.there():
        try:
            round_ = parts.read_info(directory.parts.path(index), manifest.run_id, index).round
        except CheckpointError:
            yield index
        else:
            if round_ == directory.reopened().round_of(index).round:
                yield index


def _check_run(
    directory: RunDirectory,
    result: Path,
    manifest: Manifest,
    partitions: list[Partition],
    *,
    asked: Job | None,
    findings: Findings,
) -> None:
    """Every check but the manifest's own. `asked`: the job that the run is compared with, where one was given."""
    job = _job(manifest, asked, directory.reopened().target, findings)
    makers = [] if job is None else _makers(manifest, job, findings)
    added = directory.reopened().target_column
    names = manifest.columns if added is None else (*manifest.columns, added)
    opened = _input(manifest, asked or job, findings)
    answers = _answers(manifest, findings)
    files = FileChecks(directory, manifest, names, findings, answers)
    files.check_strays(partitions)
    published = PublishedResult(result, findings, files.check_metadata)
    same_rendering = job is None or _has_same_rendering(manifest, job)
    if not same_rendering:
        findings.skip("this version of cometbatch renders prompts by other rules than the run's", "requests")
    originals = _originals(manifest, partitions, opened, findings)
    prefix = str(manifest.fingerprint.get("output.prefix") or "")
    equal = EqualRows(manifest, prefix, PartRows(directory, manifest, prefix, names), findings)
    with reused_checks(directory, result, asked or job, names, findings, manifest=manifest) as reused:
        options: dict[str, Any] = {"same_rendering": same_rendering, "answers": answers}
        options |= {"reused": reused, "equal": equal}
        rows = RowChecks(manifest, names, published, makers, findings, **options)
        for partition in partitions:
            schema, original = files.check_part(partition, opened), next(originals)
            if schema is None:
                published.skip(partition.row_count)
            else:
                rows.check_part(directory.parts.path(partition.index), partition, schema, original)
        equal.end()
        if reused is not None:
            reused.end()
    published.check_row_count(manifest.input.rows)


def _job(manifest: Manifest, asked: Job | None, target: int, findings: Findings) -> Job | None:
    """The job as the manifest describes it. `target`: of the newest `--retry`; the job given may be that one's."""
    if asked is not None:
        _check_fingerprint(manifest, asked, "the job given", findings, {0, target})
    try:
        job = Job.from_description(manifest.job)
        _check_fingerprint(manifest, job, "the manifest's job", findings, {0})
    except JobError as error:
        findings.add("job", str(error), where="manifest.json")
        findings.skip("the manifest's job can't be read", "ids", "requests")
        return None
    return job


def _answers(manifest: Manifest, findings: Findings) -> AnswerColumns | None:
    """What makes the columns of answers again; None where the run has none, or where that can't be done."""
    target = manifest.targets[0].target
    if target.response.schema is None:
        return None
    findings.use("answers")
    try:
        return answer_columns(target, checker_of(target))
    except JobError as error:
        findings.skip(f"the job's {error}", "answers", "columns")
        return None


def _check_fingerprint(manifest: Manifest, job: Job, whose: str, findings: Findings, targets: Iterable[int]) -> None:
    for key, _, _ in drift(manifest, job.fingerprint(), targets):
        if key not in OWN_RULES:
            findings.add("job", f"{key} is not what the run began with", where=whose)


def _has_same_rendering(manifest: Manifest, job: Job) -> bool:
    now = job.fingerprint()
    return all(manifest.fingerprint.get(key) == now.get(key) for key in OWN_RULES)


def _makers(manifest: Manifest, job: Job, findings: Findings) -> list[list[Maker]]:
    """How requests are made again, for each target: as it says, then in the other ways that sessions may have used.

    These are other names of the token cap, and empty prompts that are sent.
    """
    targets = *job.targets(), *(each.target for each in manifest.targets[1:])
    if any(target.has_images for target in targets) and not job.image_root.is_dir():
        findings.skip(f"the folder of images {job.image_root} is gone", "ids", "requests")
        return []
    known: dict[object, tuple[Template, Template]] = {}
    try:
        for target in targets:
            if (prompt := (target.messages, target.conversation)) not in known:
                known[prompt] = target.prompt_template(refuse_empty=True), target.prompt_template()
                known[prompt][0].check(manifest.input.columns)
    except TemplateError as error:
        if _has_same_rendering(manifest, job):
            findings.add("job", str(error), where="manifest.json")
        findings.skip("the manifest's templates can't be used", "ids", "requests")
        return []
    return [_ways(target, known[target.messages, target.conversation], manifest, job) for target in targets]


def _ways(target: Target, templates: Sequence[Template], manifest: Manifest, job: Job) -> list[Maker]:
    names: tuple[MaxTokensField, ...] = ("max_completion_tokens", "max_tokens") if target.format == "chat" else ()
    spelt = [msgspec.structs.replace(target.params, max_tokens_field=name) for name in names]
    targets = [target, *(msgspec.structs.replace(target, params=params) for params in spelt)]
    pairs = itertools.product(templates, targets)
    images, columns = images_for(job, target), manifest.input.columns
    return [row_maker(each, template, columns, job.input.id, images) for template, each in pairs]


def _input(manifest: Manifest, job: Job | None, findings: Findings) -> AnySource | None:
    """The input, if it is still there and the same."""
    if job is None or not is_there(job.input.path):
        reason = "the input is not known" if job is None else f"{job.input.path} is gone"
        findings.skip(reason, "input", "rows")
        return None
    try:
        opened = open_table(job)
        if opened.digest() == (manifest.input.size, manifest.input.sha256):
            if _has_same_rendering(manifest, job) or opened.check().rows == manifest.input.rows:
                return opened
            findings.skip("this version reads the input's blank lines as rows, and the run's did not", "rows")
            return None
        told = "; ".join(opened.changes(manifest.input)[:FILES_SHOWN])
        words = f"its content changed since the run began{f': {told}' if told else ''}"
        findings.add("input", f"{job.input.path}: {words}")
    except InputError as error:
        findings.add("input", str(error))
    findings.skip("the input is not the one that was read", "rows")
    return None


def _originals(
    manifest: Manifest, partitions: list[Partition], opened: AnySource | None, findings: Findings
) -> Iterator[pa.Table | None]:
    """The input's own rows for each partition; `None` from where they can't be had."""
    if opened is not None:
        try:
            yield from opened.tables(manifest.input, partitions)
        except InputError as error:
            findings.add("rows", str(error))
    yield from itertools.repeat(None)
