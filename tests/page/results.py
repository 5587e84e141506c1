"""Results to show in a page: real ones, of jobs that ran against the simulator, the same each time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import cometbatch
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour, parse_fault
from cometbatch.simulator.knowledge import right_answer
from tests.workbench import Network, Workbench, carry_out

TOPICS = ("billing", "parcel", "login", "refund", "invoice", "delivery", "naïve café", "字", "🙂")
SHARES = {"comet-sim-1": 0.75, "comet-sim-1-mini": 0.55, "comet-sim-cache": 0.85}
LETTERS = ("A", "B", "C", "D")


def large(folder: Path, rows: int = 2_000) -> Path:
    """A result with typed cells in the input, some rows that failed and some answers that were cut."""
    topics = [TOPICS[row % len(TOPICS)] for row in range(rows)]
    table = pa.table(
        {
            "ticket": [f"T-{row:05d}" for row in range(rows)],
            "topic": topics,
            "note": [
                f"Ticket {row} about {topic}.\n" + "It is long. " * (row % 40) for row, topic in enumerate(topics)
            ],
            "weight_kg": [row / 7 for row in range(rows)],
            "is_urgent": [row % 3 == 0 for row in range(rows)],
        }
    )
    prompt = {"system": "Sort this ticket.", "user": "{{ topic }}: {{ note }}"}
    return ran(
        folder, table, ["400:0.01", "prompt-blocked:0.005", "length:0.01"], input={"id": "ticket"}, prompt=prompt
    )


def failed(folder: Path, rows: int = 120) -> Path:
    """A result with failures of several kinds, and answers that were cut or filtered."""
    table = pa.table({"name": [f"row-{row}" for row in range(rows)], "text": [f"Say {row}." for row in range(rows)]})
    faults = [
        "500:0.3",
        "reset:0.2",
        "400:0.1",
        "prompt-blocked:0.1",
        "length:0.1",
        "content-filter:0.1",
        "no-usage:0.05",
    ]
    prompt = {"user": "{{ text }}"}
    retry = {"max_attempts": 2, "max_wait_s": 1}
    return ran(folder, table, faults, input={"id": "name"}, prompt=prompt, retry=retry)


def evaluated(folder: Path, questions: int = 40) -> Path:
    """A result of three models, two samples and this number of questions of two subjects, scored."""
    texts = [f"Which of these is the {number}. of its kind?" for number in range(questions)]
    choices = [[f"{word} {number}" for word in ("red", "green", "blue", "grey")] for number in range(questions)]
    asked = [
        "\n".join([text, "", *(f"{letter}. {word}" for letter, word in zip(LETTERS, words, strict=True))])
        for text, words in zip(texts, choices, strict=True)
    ]
    table = pa.table(
        {
            "question": texts,
            "choices": choices,
            "answer": [right_answer(text) for text in asked],
            "subject": ["colours" if number % 2 else "order" for number in range(questions)],
        }
    )
    bench = Workbench(folder)
    bench.write_table(table)
    job = {
        "input": {"path": str(bench.input)},
        "output": {"path": str(bench.output)},
        "target": {"base_url": "simulator", "format": "chat"},
        "choices": {"columns": "choices"},
        "prompt": {"user": "{{ question }}\n\n{{ choices | lettered }}\n\nEnd with ANSWER: and the letter."},
        "params": {"max_output_tokens": 64, "temperature": 1},
        "matrix": {"model": list(SHARES), "samples": 2},
        "score": {"correct": {"choice": "answer"}},
        "report": {"by": "model", "groups": "subject"},
    }
    return _ran(bench, job, Behaviour(accuracy=tuple(SHARES.items()), spread=0.5))


def ran(
    folder: Path, table: pa.Table, faults: Sequence[str] = (), **sections: Mapping[str, object] | str | bool
) -> Path:
    """The result of a job over a table, with its job beside it. `sections`: keys of the job over the usual ones."""
    bench = Workbench(folder)
    bench.write_table(table)
    return _ran(bench, bench.settings(**sections), Behaviour(faults=tuple(map(parse_fault, faults)), seed=3))


def _ran(bench: Workbench, job: Mapping[str, Any], behaviour: Behaviour) -> Path:
    path = bench.folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    carry_out(cometbatch.load_job(path), Network(create_app(behaviour)))
    return bench.output
