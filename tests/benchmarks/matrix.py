"""What a call of a run with 160 slices takes beside a plain row: CPU and memory of the whole command, in turns.

    python -m tests.benchmarks.matrix [--calls 64000] [--rounds 3]

Each run is `cometbatch run` in a process of its own against the stub server. The matrix has 4 models, 5 temperatures
and 8 samples, so that its table has a 160th of the rows. Ends with 1 above a bar.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.benchmarks.measuring import Measured, Running, StubServer
from tests.benchmarks.rivals import write_job, write_rows

MATRIX: Final = {
    "model": [f"m{number}" for number in range(4)],
    "params.temperature": [0, 0.25, 0.5, 0.75, 1],
    "samples": 8,
}
SLICES: Final = 160
CPU_BAR: Final = 1.25  # times the CPU of a plain row
MEMORY_BAR_MB: Final = 60  # above a plain run
IN_FLIGHT: Final = 64


def main() -> int:
    """Measure, print a line for each round, and judge the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=64_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    plain, matrix = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            plain.append(measured(Path(folder), f"plain{number}", given.calls, slices=1))
            matrix.append(measured(Path(folder), f"matrix{number}", given.calls, slices=SLICES))
            words = [
                f"{each.cpu_s / given.calls * 1e6:.1f} us, {each.peak_mb:.0f} MB" for each in (plain[-1], matrix[-1])
            ]
            sys.stdout.write(f"a plain row {words[0]}; a call of 160 slices {words[1]}\n")
    times = statistics.median(one.cpu_s / other.cpu_s for one, other in zip(matrix, plain, strict=True))
    more_mb = statistics.median(one.peak_mb - other.peak_mb for one, other in zip(matrix, plain, strict=True))
    sys.stdout.write(f"CPU {times:.3f} times a plain row's; {more_mb:+.1f} MB\n")
    return int(times > CPU_BAR or more_mb > MEMORY_BAR_MB)


def measured(folder: Path, name: str, calls: int, *, slices: int) -> Measured:
    """One run of this many calls."""
    source, output = write_rows(folder, calls // slices), folder / f"{name}.parquet"
    with StubServer(Path(sys.executable), latency_s=0.01) as stub:
        path = write_job(stub.base_url, source, output, IN_FLIGHT)
        if slices > 1:
            job = json.loads(path.read_text(encoding="utf-8"))
            del job["target"]["model"]
            path.write_text(json.dumps(job | {"matrix": MATRIX}), encoding="utf-8")
        command = [sys.executable, "-m", "cometbatch", "run", "--quiet", str(path)]
        return Running(command, folder / f"{name}.txt").end().or_fail(command)


if __name__ == "__main__":
    sys.exit(main())
