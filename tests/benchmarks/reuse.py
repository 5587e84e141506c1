"""What answers of earlier runs take: the index over many of them, and a reused row against a sent one.

`python -m tests.benchmarks.reuse [ANSWERS] [ROWS]` prints both. The bars: an index of 10,000,000 answers takes at most
250 MB in the whole process and at most three times the CPU of reading the column of hashes alone; a reused row takes at
most the CPU of a sent one. Figures are CPU seconds of this process, so that they compare on a busy machine, too.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import cometbatch
from cometbatch.results import parts
from cometbatch.results.reuse_index import SourceFile, build, key_of
from cometbatch.results.reuse_rows import READ_ROWS, batches

ANSWERS, ROWS = 10_000_000, 20_000
LOOKED_UP = 8_192
GROUP_ROWS = 16_384


def write_hashes(path: Path, rows: int) -> None:
    """A column of hashes, as a result has it."""
    schema = pa.schema([("request_hash", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for start in range(0, rows, GROUP_ROWS):
            count = min(GROUP_ROWS, rows - start)
            offsets = pa.array(range(0, 64 * (count + 1), 64), pa.int32()).buffers()[1]
            text = pa.py_buffer(os.urandom(32 * count).hex().encode())
            writer.write_table(pa.table([pa.StringArray.from_buffers(count, offsets, text)], schema=schema))


def measure_index(folder: Path, rows: int) -> None:
    """The index, reading the column alone, and look-ups."""
    path = folder / "hashes.parquet"
    write_hashes(path, rows)
    began = time.process_time()
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for _ in file.iter_batches(READ_ROWS, columns=["request_hash"], use_threads=False):
            pass
    alone_s = time.process_time() - began
    stamp = parts.file_stamp(path) or ""
    source = SourceFile(str(path), 0, "", "", ("request_hash",), 0, rows, stamp)
    (folder / "index").mkdir()
    began = time.process_time()
    index = build(folder / "index", "", ["run"], [source], batches)
    built_s = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    hashes = next(pq.ParquetFile(path).iter_batches(LOOKED_UP)).column(0).to_pylist()
    began = time.process_time()
    for row, each in enumerate(hashes):
        key = key_of(each)
        assert [entry.row for _, entry in index.entries(key, *index.positions(key))] == [row]
    looked_us = (time.process_time() - began) / len(hashes) * 1e6
    index.close()
    sys.stdout.write(
        f"index of {rows:,}: {built_s:.2f} s, {built_s / alone_s:.1f} times reading the column ({alone_s:.2f} s), "
        f"{peak:,} MB in the process; a look-up: {looked_us:.1f} us\n"
    )


def measure_rows(folder: Path, rows: int) -> None:
    """The same job twice: the first night is sent to the simulator, in a process of its own, the second is reused."""
    pq.write_table(pa.table({"text": [f"Parcel {row} is late. " * 8 for row in range(rows)]}), folder / "in.parquet")
    for night, what in enumerate(("sent", "reused")):
        job = cometbatch.load_job(
            {
                "input": {"path": str(folder / "in.parquet")},
                "output": {"path": str(folder / f"night-{night}.parquet")},
                "target": {"base_url": "simulator", "format": "chat", "model": "comet-sim-1"},
                "prompt": {"user": "{{ text }}"},
                "simulator": {"latency_s": [0.05, 0.1]},
                "reuse": {"from": str(folder / "night-*.parquet")},
            }
        )
        began = time.process_time()
        summary = cometbatch.run(job, progress=False)
        assert summary.tally.reused == night * rows
        sys.stdout.write(f"a row that was {what}: {(time.process_time() - began) / rows * 1e6:.0f} us of CPU\n")


def main() -> None:
    """Measure both."""
    answers, rows, *_ = (*map(int, sys.argv[1:]), *(ANSWERS, ROWS)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        measure_index(Path(folder), answers)
    with tempfile.TemporaryDirectory() as folder:
        measure_rows(Path(folder), rows)


if __name__ == "__main__":
    main()
