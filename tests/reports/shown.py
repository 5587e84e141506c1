"""The leaderboard that docs/compare.md shows, made from a result with fixed chance."""

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
from tests.reports.results import failed, incomplete, right, write, wrong

QUESTIONS, SAMPLES = 250, 4


def shown(folder: Path) -> Figures:
    """Three models on 250 questions with four samples."""
    chance = random.Random(5)
    hard = [chance.betavariate(2, 1) for _ in range(QUESTIONS)]
    cells = []
    for model, better, cost, tokens, seconds in (
        ("model-a", 0.9, "0.000613", 277, 1.1),
        ("model-b", 1.05, "0.001430", 312, 1.7),
        ("model-c", 1.1, "0.004120", 655, 4.9),
    ):
        usual: dict[str, Any] = {"cost_usd": Decimal(cost), "output_tokens": tokens}
        samples = []
        for _ in range(SAMPLES):
            rows = []
            for likely in hard:
                drawn, latency = chance.random(), round(seconds * chance.lognormvariate(0, 0.5), 3)
                row = right if drawn < min(1.0, likely * better) else wrong
                if model == "model-c" and drawn < 0.006:
                    row = failed
                elif model == "model-b" and drawn < 0.006:
                    row = incomplete
                rows.append(row() if row is failed else row(**usual, latency_s=latency))
            samples.append(rows)
        cells.append(({"model": model, "format": "chat"}, samples))
    subjects = ["geometry" if at % 5 < 2 else "algebra" for at in range(QUESTIONS)]
    inputs = {"answer": [str(at) for at in range(QUESTIONS)], "subject": subjects}
    bill = {"charges_usd": "0.012", "replaced_charges_usd": "0"}
    path = write(folder / "exam.parquet", cells, inputs=inputs, metadata={"cometbatch.bill": bill})
    found = figures([ResultFiles("exam.parquet", (path,))], ReportSettings(baseline="model-a", groups="subject"))
    assert found is not None
    return found
