"""`verify`: proves a finished run from its files alone, some rows at a time, and changes none of them.

Guards: each check is named in the report, as ok, failed with its first places, or skipped with the reason. It can't see
an answer that was changed in the same way in every file that holds it: no file is signed.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cometbatch.commands.answers import answer_columns, checker_of
from cometbatch.commands.checks import FILES_SHOWN
from cometbatch.commands.locate import Located, locate
from cometbatch.commands.scoring import to_stderr
from cometbatch.commands.tables import JobSource
from cometbatch.commands.verify_equal import EqualRows
from cometbatch.commands.verify_files import FileChecks
from cometbatch.commands.verify_makers import has_same_rendering, makers_of
from cometbatch.commands.verify_report import CHECKS, Findings, Verification
from cometbatch.commands.verify_reuse import reused_checks
from cometbatch.commands.verify_rows import PublishedResult, RowChecks
from cometbatch.commands.verify_scores import ScoreChecks, Scorers
from cometbatch.commands.verify_slices import check_files, check_job_slices
from cometbatch.errors import CheckpointError, InputError, JobError, UsageError
from cometbatch.input.file_set import AnySource, is_there
from cometbatch.job import Job
from cometbatch.job.batch_lines import open_table
from cometbatch.records import Partition
from cometbatch.results import parts
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.results.slices import SLICES_KEY, encode_slices
from cometbatch.run_state.answers import PartRows
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.drift import OWN_RULES, drift
from cometbatch.run_state.manifest import Manifest, decode_manifest
from cometbatch.run_state.published import ROUNDS_KEY, result_partitions, result_paths, result_slices
from cometbatch.run_state.run import refuse_unreleased


def verify(
    job: JobSource,
    overrides: Sequence[str] = (),
    *,
    run_scorers: bool = False,
    tell: Callable[[str], object] | None = None,
) -> Verification:
    """Prove a finished run from its files: a job's, or that of an output or run directory, wherever they were moved.

    A job may be given as its file, with `--set` strings to put over it. `run_scorers`: also compute again what Python
    scorers of the job gave, which imports their files; a line on standard error, or handed to `tell`, names each
    before. Changes nothing and sends nothing. Raises `UsageError` where there is no run, or one that is not finished,
    and says how it begins or goes on.
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
    _refuse_unfinished(located, manifest)
    _check_run(directory, result, manifest, partitions, asked=asked, findings=findings)
    scorers = Scorers(asked, run_scorers, tell or to_stderr)
    ScoreChecks(directory, manifest, result, scorers, findings).check()
    return Verification(result, manifest.run_id, manifest.input.rows, findings.checks())


def _manifest_content(located: Located) -> bytes:
    """The manifest's bytes. Raises `UsageError` where there is no run, `CheckpointError` where it is too old."""
    content = located.directory.read_manifest()
    if content is None:
        refuse_unreleased(located.result)
        raise located.no_run()
    return content


def _refuse_unfinished(located: Located, manifest: Manifest) -> None:
    """A run with gaps is unfinished. But where its result is there and no journal can fill them, a part was lost."""
    directory, paths = located.directory, result_paths(located.directory, manifest, located.result)
    partitions = [each.index for _, each in result_partitions(manifest)]
    missing = set(partitions) - set(_committed(directory, manifest))
    said = next(filter(None, map(parts.result_metadata, paths)), {})
    is_ours = said.get("cometbatch.run_id") == manifest.run_id
    # Another file in the result's place, or a damaged one, is for the checks to tell.
    is_stale = is_ours and not _says_the_state(said, directory, manifest)
    is_published = directory.parts.is_dataset or (any(path.exists() for path in paths) and not is_stale)
    ranges = {manifest.range_of(index) for index in missing}
    if missing and is_ours and not ranges & {file.range for file in directory.journals.all()}:
        return
    if missing or not is_published:
        done = len(partitions) - len(missing)
        way = "It is going on: wait for its end." if directory.lock.is_held() else f"Finish it with: {located.command}"
        raise UsageError(
            f"{directory.path}: this run is not finished ({done:,} of {len(partitions):,} partitions are done"
            f"{'' if missing else ', the result is not published'}). {way}"
        )


def _says_the_state(said: Mapping[str, str], directory: RunDirectory, manifest: Manifest) -> bool:
    """Whether a result is of the run's present round, and of the slices that it has now."""
    slices = result_slices(manifest)
    has_slices = not slices or said.get(SLICES_KEY) == encode_slices(slices)
    return has_slices and said.get(ROUNDS_KEY) == str(directory.reopened().rounds)


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
    makers = None if job is None else makers_of(manifest, job, findings)
    added = directory.reopened().target_column
    names = manifest.columns if added is None else (*manifest.columns, added)
    opened = _input(manifest, asked or job, findings)
    answers = _answers(manifest, findings)
    files = FileChecks(directory, manifest, names, findings, answers)
    files.check_strays(partitions)
    files.check_notes()
    check_job_slices(manifest, [("the job given", asked), ("manifest.json", job)], findings)
    paths = check_files(directory, manifest, result, findings)
    published = PublishedResult(result, findings, files.check_metadata, paths)
    same_rendering = job is None or has_same_rendering(manifest, job)
    if not same_rendering:
        findings.skip("this version of cometbatch renders prompts by other rules than the run's", "requests")
    due = list(result_partitions(manifest))
    originals = _originals(manifest, [each for _, each in due], opened, findings)
    prefix = str(manifest.fingerprint.get("output.prefix") or "")
    equal = EqualRows(manifest, prefix, PartRows(directory, manifest, prefix, names), findings)
    with reused_checks(directory, result, asked or job, names, findings, manifest=manifest) as reused:
        options: dict[str, Any] = {"same_rendering": same_rendering, "answers": answers}
        options |= {"reused": reused, "equal": equal, "makers": makers}
        rows = RowChecks(directory, manifest, names, published, findings, **options)
        for place, partition in due:
            schema, original = files.check_part(partition, opened), next(originals)
            if schema is None:
                published.skip(partition.row_count)
            else:
                rows.check_part(place, partition, schema, original)
        equal.end()
        if reused is not None:
            reused.end()
    for partition in files.unnamed(partitions, [each for _, each in due]):
        files.check_part(partition, opened)
    published.check_row_count(manifest.calls)


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
    for key, _, _ in drift(manifest, job.fingerprint(), targets, matrix=job.matrix):
        if key not in OWN_RULES:
            findings.add("job", f"{key} is not what the run began with", where=whose)


def _input(manifest: Manifest, job: Job | None, findings: Findings) -> AnySource | None:
    """The input, if it is still there and the same."""
    if job is None or not is_there(job.input.path):
        reason = "the input is not known" if job is None else f"{job.input.path} is gone"
        findings.skip(reason, "input", "rows")
        return None
    try:
        opened = open_table(job)
        if opened.digest() == (manifest.input.size, manifest.input.sha256):
            if has_same_rendering(manifest, job) or opened.check().rows == manifest.input.rows:
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
    """The input's own rows for each partition, slice by slice; `None` from where they can't be had."""
    if opened is not None:
        try:
            for _, of_slice in itertools.groupby(partitions, lambda each: each.slice):
                yield from opened.tables(manifest.input, list(of_slice))
        except InputError as error:
            findings.add("rows", str(error))
    yield from itertools.repeat(None)
