"""What a run of a thousand million rows costs beside its calls: parts, notes of parts, a look at all of them.

    python -m tests.benchmarks.many_parts [--parts 500000] [--folder FOLDER]

The parts are made, not run: each is a small file that stands for one of 2,048 rows, with the note that its worker made
of it. Each look has a process of its own. Prints a line for each figure.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from cometbatch.commands.due_ranges import ranges_due
from cometbatch.input.files import Identity
from cometbatch.records import Partition, Tally
from cometbatch.results import parts
from cometbatch.results.parts import PartInfo
from cometbatch.run_state.begin import first_session
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest, encode_manifest
from cometbatch.run_state.owner_files import CommittedPart
from cometbatch.run_state.progress import look
from cometbatch.run_state.run import Run
from tests.run_on_disk import WHO, RunOnDisk

PART_ROWS: Final = 2048
FEW: Final = 5_000  # parts whose footers are read
COMMITS: Final = 200
OWNER: Final = (1, 1)


def main(arguments: Sequence[str]) -> None:
    """Make the parts, then look at them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", type=int, default=500_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--look", action="store_true", help="what a process of its own does")
    told = parser.parse_args(arguments)
    if told.look:
        assert told.folder is not None
        say_look(told.folder)
        return
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        _measure(Path(folder), told.parts)


def _measure(folder: Path, count: int) -> None:
    few = _made(folder / "few", FEW, noted=0)
    _say(f"footers of {FEW:,} parts", _looked(few))
    many = _made(folder / "many", count, noted=count)
    _say(f"notes of {count:,} parts", _looked(many))
    size = sum(path.stat().st_size for path in (many / "committed").iterdir())
    sys.stdout.write(f"notes: {size / 1e6:.0f} MB, {size / count:.0f} bytes a part\n")
    directory, manifest = RunDirectory(many), _manifest(many, count + COMMITS)
    began, cpu = time.perf_counter(), time.process_time()
    for index in range(count, count + COMMITS):
        _commit(directory, manifest, index)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    each_ms, cpu_ms = took / COMMITS * 1e3, used / COMMITS * 1e3
    sys.stdout.write(f"{COMMITS} commits beside {count:,} parts: {each_ms:.2f} ms each, {cpu_ms:.2f} ms of CPU\n")


def _manifest(path: Path, count: int) -> Manifest:
    made = RunOnDisk(path.parent / f"{path.name}-shape", 1, PART_ROWS).manifest
    rows = count * PART_ROWS
    return msgspec.structs.replace(made, input=Identity("in.parquet", rows, "0" * 64, rows, ("n",), rows))


def _made(path: Path, count: int, *, noted: int) -> Path:
    """A run directory with parts; of the first `noted`, a worker noted what they are."""
    directory, manifest = RunDirectory(path), _manifest(path, count)
    directory.create()
    directory.owners.committed.mkdir()
    first_session(directory, manifest.run_id, WHO)
    directory.write_manifest(encode_manifest(manifest))
    template = path.parent / "template.part"
    for index in range(count):
        if not noted or index == 0:
            with template.open("wb") as file:
                _write(file, manifest, index)
            content = template.read_bytes()
        (directory.parts.folder / f"{index:05d}.part").write_bytes(content)
    if noted:
        for index in range(noted):
            directory.owners.note_part(*OWNER, _note(manifest, index, len(content)))
    return path


def _write(file: Any, manifest: Manifest, index: int) -> None:
    schema = pa.schema([("n", pa.int64())])
    partition = Partition(index, index * PART_ROWS, PART_ROWS)
    table = pa.table({"n": pa.array([0] * PART_ROWS)})
    info = PartInfo(manifest.run_id, partition, Tally(succeeded=PART_ROWS))
    parts.write_part(file, schema, [table], lambda: info, is_result=False)


def _note(manifest: Manifest, index: int, size: int) -> CommittedPart:
    return CommittedPart(manifest.run_id, index, size, Tally(succeeded=PART_ROWS), "0" * 8, owners=("1-1",))


def _commit(directory: RunDirectory, manifest: Manifest, index: int) -> None:
    assert directory.commit_part(
        index, lambda file: _write(file, manifest, index), owner="1-1", is_current=lambda: True
    )
    directory.owners.note_part(*OWNER, _note(manifest, index, directory.parts.path(index).stat().st_size))


def _looked(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.many_parts", "--look", "--folder", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return] # our own line


def say_look(path: Path) -> None:
    """Look at a run as a session does that resumes it, and print what that took."""
    directory = RunDirectory(path)
    count = len(directory.parts.there())
    manifest = _manifest(path, count + 10)
    before_mb = _peak_mb()
    began, cpu = time.perf_counter(), time.process_time()
    progress = look(directory, manifest)
    looked, used = time.perf_counter() - began, time.process_time() - cpu
    assert len(progress.committed) == count
    began = time.perf_counter()
    run = Run(directory, manifest, progress, path)
    assert len(ranges_due(run, None)) == 10
    due = time.perf_counter() - began
    told = {"look_s": looked, "cpu_s": used, "due_s": due, "parts": count, "more_mb": _peak_mb() - before_mb}
    sys.stdout.write(json.dumps(told))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(what: str, told: dict[str, float]) -> None:
    each = told["look_s"] / told["parts"] * 1e6
    sys.stdout.write(
        f"{what}: look {told['look_s']:.2f} s ({each:.1f} us a part), CPU {told['cpu_s']:.2f} s, which are due "
        f"{told['due_s']:.2f} s, memory +{told['more_mb']:.0f} MB\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
