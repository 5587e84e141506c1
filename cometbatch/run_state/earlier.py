"""The runs whose answers may be taken: this output's own earlier ones, and those that a job names. It changes none.

A result file is read where its run directory is gone. Else the run directory is read, with its parts and with the
journals of what was not finished, since a result may be older than its run. Files are known by the run that they name,
wherever they lie. A source that is damaged or missing is refused: to leave it out silently would pay for its answers
again.
"""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import CheckpointError, InputError, JobError, UsageError
from cometbatch.job import Job
from cometbatch.job.paths import RUN_PREFIX, RUN_SUFFIX, run_beside
from cometbatch.job.secrets import printable
from cometbatch.results import columns, parts
from cometbatch.results.reuse_index import ORDINAL, SourceFile
from cometbatch.results.rows import data_set_files, output_of
from cometbatch.results.slices import SLICE_KEY, number_of_slice
from cometbatch.run_state import succession
from cometbatch.run_state.directory import MANIFEST, REOPENED, RunDirectory
from cometbatch.run_state.manifest import SERVICE_KEY, Manifest, decode_manifest
from cometbatch.run_state.progress import look
from cometbatch.run_state.recorded_rows import rows_of
from cometbatch.run_state.run import Run, directory_at, home_of
from cometbatch.store import local

_ENDING: Final = ".parquet"
_WAY: Final = "Restore it from a copy, or take it out of reuse.from: its answers are paid for again then."
_OWN_WAY: Final = "Restore it from a copy, or move that folder away: its answers are paid for again then."


class EarlierRun(Struct, frozen=True):
    """A run that may have answers to take. `directory`: its own; None where there are only `files` with its rows.

    `stamp`: what tells its files from what they are at another time.
    """

    run_id: str
    created_at: str
    service: str
    stamp: str
    directory: RunDirectory | None = None
    files: tuple[SourceFile, ...] = ()
    way: str = _WAY


def own(directory: RunDirectory) -> list[RunDirectory]:
    """The run directories of this output's earlier runs: of an update, the one that it updates is the first.

    Where one of them was begun with --fresh, those before it are left out: only runs count that follow each other back
    to that one, with updates of them that were given up. Raises `CheckpointError` where the manifest of the run itself
    is damaged, `UsageError` where an earlier one's is.
    """
    home = directory.home
    known = {_manifest_before(each).run_id: each for each in succession.earlier_runs(home)}
    if home.read_manifest() is None:
        return list(known.values())
    newest = _manifest(home)
    found, follows, is_fresh = {newest.run_id: home}, newest.follows, newest.is_fresh
    while not is_fresh and follows in known and follows not in found:
        found[follows] = known[follows]
        before = _manifest(known[follows])
        follows, is_fresh = before.follows, before.is_fresh
    found |= {run_id: each for run_id, each in known.items() if not is_fresh or _manifest(each).follows in found}
    return [each for each in found.values() if each is not directory]


def _manifest(directory: RunDirectory) -> Manifest:
    return decode_manifest(directory.read_manifest() or b"", str(directory.path / MANIFEST))


def _manifest_before(directory: RunDirectory) -> Manifest:
    """Of an earlier run: to lose it, nobody has to start over."""
    try:
        return _manifest(directory)
    except CheckpointError as error:
        raise UsageError(
            f"reuse: {directory.path}: the manifest of this earlier run can't be read. {_OWN_WAY}"
        ) from error


def find_runs(
    directory: RunDirectory, result: Path, sources: Sequence[Path], *, takes_own: bool = True
) -> list[EarlierRun]:
    """The runs whose answers a run may take, each once, the newest first.

    `directory`, `result`: of the run itself, which is passed over. `sources`: what the job names. Raises `UsageError`
    where one of these is not there, holds no result, or can't be read.
    """
    found: dict[str, EarlierRun] = {}
    for each in own(directory) if takes_own else ():
        with _refusing(_OWN_WAY):
            run = _of_directory(each, _OWN_WAY)
            found.setdefault(run.run_id, run)
    for source in sources:
        for path, is_match in _places(source):
            with _refusing(_WAY):
                for run in _at(path, (directory.path, result), is_match=is_match):
                    before = found.get(run.run_id)
                    if before is None or before.directory is None:
                        found[run.run_id] = run
    return sorted(found.values(), key=lambda run: (run.created_at, run.run_id), reverse=True)


class _refusing:  # noqa: N801 - used as a function
    """Turns what reading a source raises into `UsageError`, with the ways on."""

    def __init__(self, way: str) -> None:
        self._way = way

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CheckpointError | InputError | JobError):
            raise UsageError(f"reuse: {error}\n{self._way}") from error


def _places(source: Path) -> Iterator[tuple[Path, bool]]:
    """What a path stands for, and whether a pattern found it, which may find nothing."""
    if os.path.lexists(source) or run_beside(source).is_dir():
        yield source, False
    elif glob.has_magic(str(source)):
        patterns = source, run_beside(source)  # of a run that is not finished there is no result yet
        found = {match for each in patterns for match in glob.glob(str(each), recursive=True)}  # noqa: PTH207 - absolute
        yield from ((Path(match), True) for match in sorted(found))
    else:
        raise UsageError(
            f"reuse.from: {printable(source)} is not there. Give a result, the folder of a data set or a run "
            "directory; a pattern, such as out/*/, may match nothing."
        )


def _at(path: Path, passed: Sequence[Path], *, is_match: bool) -> Iterator[EarlierRun]:
    """The runs at a path; none where that is the run itself, or where a pattern found what holds no answers.

    So a run that was killed before its first request does not keep the runs of later nights from beginning.
    """
    if any(path == each or (each.exists() and path.samefile(each)) for each in passed):
        return
    directory = _directory_of(path)
    content = None if directory is None else directory.read_manifest()
    if directory is not None and content is not None:
        if any(each.exists() and directory.path.samefile(each) for each in passed):
            return
        run = _of_directory(directory, _WAY)
        yield run
        yield from (_of_directory(each, _WAY) for each in own(directory))
        if path.is_file() and (parts.result_metadata(path) or {}).get("cometbatch.run_id") != run.run_id:
            yield from _of_files([path])  # of an earlier run, whose place the other one is to take
    elif path.is_dir():
        files = [] if _is_run(path) else data_set_files(path)
        if not files:
            if is_match and _holds_no_answers(path):
                return
            raise UsageError(
                f"reuse.from: {printable(path)} is a folder with no part of a data set, and no run directory. Name the "
                f"results in it, for example {printable(path)}/*{_ENDING}, or take it out."
            )
        yield from _of_files(files)
    elif path.suffix == _ENDING or not is_match:
        yield from _of_files([path])


def _holds_no_answers(folder: Path) -> bool:
    """Whether there is neither a table nor a part nor a journal in a folder, however deep."""
    return not any(path.suffix in (_ENDING, ".part", ".jsonl") for path in folder.rglob("*"))


def _is_run(path: Path) -> bool:
    return path.name.startswith(RUN_PREFIX) and path.name.endswith(RUN_SUFFIX)


def _directory_of(path: Path) -> RunDirectory | None:
    """The run directory that a path is, or that stands beside a result."""
    if path.is_dir() and ((path / MANIFEST).exists() or _is_run(path)):
        return directory_at(path)[0] if _is_run(path) else RunDirectory(path)
    beside = run_beside(path)
    return home_of(path, is_dataset=path.is_dir()) if beside.is_dir() else None


def _of_directory(directory: RunDirectory, way: str) -> EarlierRun:
    content = directory.read_manifest() or b""
    manifest = decode_manifest(content, str(directory.path / MANIFEST))
    folders = (directory.path, directory.parts.folder, directory.journals.folder)
    names = (
        (folder / name)
        for folder in folders
        for name in local.entries(folder)
        if folder != directory.path or name in (MANIFEST, REOPENED)
    )
    stamp = _stamp(path for path in names if path.is_file())
    return EarlierRun(manifest.run_id, manifest.created_at, manifest.service, stamp, directory, way=way)


def _of_files(paths: Sequence[Path]) -> Iterator[EarlierRun]:
    """The runs that these files are of: one, unless somebody put several runs' parts into one folder."""
    found: dict[str, EarlierRun] = {}
    for path in paths:
        said = parts.result_metadata(path)
        run_id = None if said is None else said.get("cometbatch.run_id")
        if said is None or run_id is None:
            raise UsageError(
                f"reuse.from: {printable(path)} is no Parquet file that cometbatch wrote, or another program wrote it "
                "anew and left out whose it is. Give the result as it was, or its run directory; or take it out of "
                "reuse.from."
            )
        file = _source_file(path, said)
        before = found.get(run_id)
        files = (file,) if before is None else (*before.files, file)
        stamp = _stamp(Path(each.path) for each in files)
        found[run_id] = EarlierRun(run_id, said.get("cometbatch.created_at", ""), file.service, stamp, None, files)
    yield from found.values()


def _source_file(path: Path, said: dict[str, str]) -> SourceFile:
    """A result, or a part of a data set, whose run directory is gone. `said`: its metadata."""
    schema, rows = parts.shape_of(path)
    found = output_of(schema)
    if found is None:
        raise InputError(f"{path}: this file lacks columns of a result.")
    prefix, output = found
    first = 0
    if (told := said.get(parts.PART_KEY.decode())) is not None:
        first = msgspec.json.decode(told, type=parts.PartInfo).partition.first_row
    elif (told := said.get(SLICE_KEY)) is not None:
        first = rows * number_of_slice(told)
    names = tuple(column.name for column in output)
    return SourceFile(str(path), 0, _service_in(said), prefix, names, first, rows, parts.file_stamp(path) or "")


def _service_in(said: dict[str, str]) -> str:
    """Who answered, by a file's metadata; those of earlier programs tell it by their job alone."""
    if SERVICE_KEY in said:
        return said[SERVICE_KEY]
    try:
        job = Job.from_description(msgspec.json.decode(said.get("cometbatch.job", "")))
    except (JobError, msgspec.MsgspecError) as error:
        raise InputError("this result does not tell which service was asked.") from error
    return job.target.service


def _stamp(paths: Iterable[Path]) -> str:
    """What tells these files from what they are once they have changed."""
    told = hashlib.sha256()
    for path in sorted(paths):
        told.update(f"{printable(path)}\n{parts.file_stamp(path)}\n".encode())
    return told.hexdigest()


def sources_of(runs: Sequence[EarlierRun]) -> str:
    """What tells these sources from others, and from what they are once they have changed."""
    return hashlib.sha256(msgspec.json.encode([(run.run_id, run.stamp) for run in runs])).hexdigest()


def source_files(runs: Sequence[EarlierRun], folder: Path) -> list[SourceFile]:
    """The files with the rows of these runs, whose numbers are their places among them.

    What journals tell of unfinished runs is written into files in `folder`. Raises `UsageError` where a file of a run
    can't be read.
    """
    found: list[SourceFile] = []
    for number, run in enumerate(runs):
        with _refusing(run.way):
            files = (
                run.files if run.directory is None else _files_of(run.directory, folder / f"outcomes-{number}{_ENDING}")
            )
            found += (msgspec.structs.replace(file, run=number) for file in files)
    return found


def _files_of(directory: RunDirectory, outcomes: Path) -> Iterator[SourceFile]:
    """The parts of a run, and a file with what its journals tell of partitions without a part."""
    content = directory.read_manifest() or b""
    manifest = decode_manifest(content, str(directory.path / MANIFEST))
    run = Run(directory, manifest, look(directory, manifest), directory.path)
    names = manifest.columns
    committed = set(run.progress.committed)
    for partition in manifest.partitions():
        if partition.index in committed:
            path = directory.parts.path(partition.index)
            first, rows = manifest.first_ordinal(partition), partition.row_count
            stamp = parts.file_stamp(path) or ""
            yield SourceFile(str(path), 0, manifest.service, run.prefix, names, first, rows, stamp)
    if run.progress.recorded:
        rows = _write_outcomes(run, outcomes)
        stamp = parts.file_stamp(outcomes) or ""
        yield SourceFile(str(outcomes), 0, manifest.service, "", names, None, rows, stamp)


def _write_outcomes(run: Run, path: Path) -> int:
    """Write what journals tell of open partitions as a table of output columns and ordinals; returns its rows."""
    output = columns.columns_of(run.manifest.columns)
    schema = pa.schema([(ORDINAL, pa.int64()), *((column.name, column.type) for column in output)])
    wanted = sorted({run.manifest.partition_of(ordinal) for ordinal in run.progress.recorded})
    partitions, rows = run.manifest.partitions(), 0
    with path.open("wb") as file, pq.ParquetWriter(file, schema, compression="lz4", write_statistics=False) as writer:
        for index in wanted:
            for piece in rows_of(run, partitions[index], lambda _: None):
                cells = [piece.table.column(run.prefix + column.name) for column in output]
                table = pa.table([pa.array(piece.ordinals, pa.int64()), *cells], schema=schema)
                table = table.filter(pc.not_equal(table.column("status"), "failed"))
                writer.write_table(table)
                rows += table.num_rows
    return rows
