"""Who is compared: what to install for each, how to start it, and how to read the answers that it leaves behind."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from msgspec import Struct

from tests.benchmarks.measuring import ROOT

SCRIPTS = Path(__file__).parent / "contenders"
SYSTEM = "Answer in one word."
QUESTION = "What is the capital of place {}? If it has none, name the largest town; do not explain the answer."
STUB = ("uvloop", "trustme")
CA_FILE = "ca.pem"  # as the stub names it
COMETBATCH, COMETBATCH_ON_ASYNCIO, COMETBATCH_ADAPTIVE = "cometbatch", "cometbatch-asyncio", "cometbatch-adaptive"
ON_ASYNCIO = (
    "import sys; sys.modules['uvloop'] = None; from cometbatch.cli import main; main()"  # as if it were not there
)

Answers = Iterator[tuple[str, str]]
"""Id and answer of each row."""


class Contender(Struct, frozen=True):
    """Somebody who carries a table to its answers. `is_slow`: gets fewer rows, since a row costs it milliseconds.

    `is_rival`: can go on after a crash, as cometbatch can, so that the bar for those counts.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    answers: Callable[[Path], Answers]
    is_slow: bool = False
    is_rival: bool = False

    def command(self, python: Path, base_url: str, source: Path, output: Path, concurrency: int) -> list[str]:
        """How to start it."""
        given = {"base-url": base_url, "input": source, "output": output, "concurrency": concurrency}
        options = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        return [str(python), str(SCRIPTS / f"{self.name}.py"), *options]


class Cometbatch(Contender, frozen=True):
    """The command of this package, from this checkout, as a user runs it."""

    def command(self, python: Path, base_url: str, source: Path, output: Path, concurrency: int) -> list[str]:
        """How to start it; its job file is written beside the output."""
        job = write_job(base_url, source, output, concurrency, adaptive=self.name == COMETBATCH_ADAPTIVE)
        start = ["-c", ON_ASYNCIO] if self.name == COMETBATCH_ON_ASYNCIO else ["-m", "cometbatch"]
        return [str(python), *start, "run", str(job)]


def write_job(base_url: str, source: Path, output: Path, concurrency: int, **limits: object) -> Path:
    """A job file beside the output: no limits but these, a price for every row; TLS by the authority beside it."""
    tls = {"ca_file": str(output.with_name(CA_FILE))} if base_url.startswith("https:") else {}
    job = {
        "input": {"path": str(source), "id": "id"},
        "output": {"path": str(output)},
        "target": {"base_url": base_url, "format": "chat", "model": "m", **tls},
        "prompt": {"system": SYSTEM, "user": "{{ q }}"},
        "params": {"max_output_tokens": 64},
        "limits": {"concurrency": concurrency, "adaptive": False, **limits},
        "prices": {"input": 0.5, "output": 1.5},
    }
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    return path


def write_rows(folder: Path, rows: int) -> Path:
    """A CSV file of this many rows, made once."""
    path = folder / f"{rows}.csv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".tmp")
        with staged.open("w", encoding="utf-8") as file:
            file.write("id,q\n")
            file.writelines(f'{row},"{QUESTION.format(row)}"\n' for row in range(rows))
        staged.rename(path)
    return path


def count_right(answers: Answers, rows: int) -> int:
    """How many rows have an answer, their own, and once."""
    seen = bytearray(rows)
    for name, answer in answers:
        row = int(name)
        seen[row] = 2 if seen[row] or answer != QUESTION.format(row) else 1
    return seen.count(1)


def from_parquet(column: str) -> Callable[[Path], Answers]:
    """A reader of one file with ids and this column."""

    def read(path: Path) -> Answers:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(8192, columns=["id", column]):
                yield from zip(map(str, batch["id"].to_pylist()), batch[column].to_pylist(), strict=True)

    return read


def from_lines(path: Path) -> Answers:
    """A reader of lines, each a JSON array of id and answer."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            name, answer = json.loads(line)
            yield name, answer


def from_parts(folder: Path) -> Answers:
    """A reader of saturate's parts."""
    for part in sorted(folder.glob("part-*.parquet")):
        yield from from_parquet("answer")(part)


def from_count(path: Path) -> Answers:
    """What the floor has checked by itself, as if it had kept it."""
    count: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return ((str(row), QUESTION.format(row)) for row in range(count["right"]))


SUBJECT = Cometbatch(COMETBATCH, "cometbatch", (str(ROOT),), from_parquet("response"))
SUBJECT_ON_ASYNCIO = Cometbatch(COMETBATCH_ON_ASYNCIO, "cometbatch on asyncio", (str(ROOT),), from_parquet("response"))
FLOOR = Contender("floor", "the floor: bare callbacks", ("msgspec", "uvloop"), from_count)
CONTENDERS = (
    SUBJECT,
    Cometbatch(COMETBATCH_ADAPTIVE, "cometbatch, adaptive, as by default", (str(ROOT),), from_parquet("response")),
    FLOOR,
    Contender("lean_aiohttp", "aiohttp, workers, nothing kept", ("aiohttp",), from_lines),
    Contender("bare_aiohttp", "bare aiohttp, cookbook's shape", ("aiohttp",), from_lines),
    Contender("curator_llm", "curator", ("bespokelabs-curator",), from_parquet("answer"), is_slow=True, is_rival=True),
    Contender("saturate_pump", "saturate", ("saturate",), from_parts, is_slow=True, is_rival=True),
    Contender(
        "openai_semaphore",
        "AsyncOpenAI, semaphore, tqdm",
        ("openai", "tqdm", "pyarrow"),
        from_parquet("answer"),
        is_slow=True,
    ),
    Contender(
        "async_batch_llm_stream",
        "async-batch-llm",
        ("async-batch-llm[openai,progress]",),
        from_lines,
        is_slow=True,
        is_rival=True,
    ),
)
