"""The benchmark: every figure that docs/performance.md states, measured on this machine, and whether it meets its bar.

    .venv/bin/python -m tests.benchmarks.compare                      # every case; an hour or two, mostly the rivals
    .venv/bin/python -m tests.benchmarks.compare rivals --rounds 3    # one case
    .venv/bin/python -m tests.benchmarks.compare memory --rows 10000,100000,1000000,10000000
    .venv/bin/python -m tests.benchmarks.compare --report FILE        # the tables again, of an earlier session

Linux. Each contender gets a virtual environment of its own, made when it is first needed, with today's versions; these
are part of the results. What is measured is the whole process of a client, from its start to its end: CPU seconds
(user and system, threads and children included), wall time and peak memory. Since some rivals are so slow that they
get fewer rows, everyone also carries out a table of one row, and what that takes is subtracted before CPU is divided
by rows. In the same session contenders take turns, and medians of the rounds are compared. Every answer is checked.

The machine must not be busy with anything else. The server needs a core of its own; the tables say how busy it was.
Environments, inputs and the stopped run that `resume` goes on from stay in the folder: remove its `stopped-*` when what
a run keeps on disk has changed.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import cases
from tests.benchmarks.cases import Record, Workshop
from tests.benchmarks.measuring import ROOT
from tests.benchmarks.report import Records, describe, verdicts
from tests.benchmarks.rivals import CONTENDERS, Contender

FOLDER = ROOT / "build/benchmarks"
MANY_LENGTHS = (10_000, 100_000, 1_000_000)
Case = tuple[Callable[..., None], tuple[int, ...]]
CASES: dict[str, Case] = {
    "rivals": (cases.rivals, (20_000,)),
    "many": (cases.many, (100_000,)),
    "at-once": (cases.at_once, (100_000,)),
    "tls": (cases.tls, (50_000,)),
    "memory": (cases.memory, MANY_LENGTHS),
    "resume": (cases.resume, (1_000_000,)),
    "limit": (cases.limit, (20,)),
    "start": (cases.start, (100,)),
}
"""What to call, and with which numbers of rows it is called in turn; `limit` takes seconds."""


def main() -> None:
    """Measure what is asked for."""
    given = _arguments()
    if given.report:
        sys.stdout.write(describe(Records(read(given.report))))
        return
    given.results.parent.mkdir(parents=True, exist_ok=True)
    with given.results.open("a", encoding="utf-8") as file:
        session: list[Record] = []

        def keep(record: Record) -> None:
            session.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
            sys.stdout.write(_line(record))
            sys.stdout.flush()

        shop = Workshop(given.folder, keep, given.rounds)
        keep(_machine())
        for name in given.cases or CASES:
            _measure(name, shop, given)
    records = Records(session)
    sys.stdout.write(f"\n{describe(records)}\nraw results: {given.results}\n")
    raise SystemExit(0 if all(found.is_met for found in verdicts(records)) else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Every figure of docs/performance.md, on this machine.")
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument(
        "--rows", type=_numbers, help="rows of every case that is measured; some take several: 100,1000"
    )
    parser.add_argument("--only", type=_contenders, default=CONTENDERS, help="of the rivals: cometbatch,floor")
    parser.add_argument("--slow-rows", type=int, default=5000, help="at most this many for slow rivals (5000)")
    parser.add_argument("--rounds", "--repeats", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="environments, inputs, work (build/benchmarks)")
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl", help="raw results are appended to it")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing; the tables of these raw results")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    return given


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split(","))


def _contenders(words: str) -> list[Contender]:
    names = words.split(",")
    if unknown := set(names) - {who.name for who in CONTENDERS}:
        raise argparse.ArgumentTypeError(f"no such contender: {', '.join(unknown)}")
    return [who for who in CONTENDERS if who.name in names]


def _measure(name: str, shop: Workshop, given: argparse.Namespace) -> None:
    measure, usual = CASES[name]
    if name == "rivals":
        for who in given.only:
            shop.keep({"versions of": who.name, **shop.environments.versions(who.name, who.packages)})
    for rows in given.rows or usual:
        if name == "rivals":
            cases.rivals(shop, rows, min(rows, given.slow_rows), given.only)
        else:
            measure(shop, rows)


def _machine() -> Record:
    """What it is measured on, and when."""
    models = [line for line in _cpu_info() if line.startswith("model name")]
    return {
        "machine": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cometbatch": importlib.metadata.version("cometbatch"),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _cpu_info() -> list[str]:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()


def _line(record: Record) -> str:
    """A record as a line to look at while it goes on."""
    words = (f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in record.items())
    return ", ".join(words)[:600] + "\n"


def read(path: Path) -> list[Record]:
    """Raw results from a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
