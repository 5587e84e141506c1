"""Logs of a small evaluation, for Inspect to read back: `python -m tests.inspect_logs.make FOLDER`.

Two models, two samples, ten questions, of which the first model fails at one and is cut at another.
"""

import sys
import tempfile
from pathlib import Path

import cometbatch
from cometbatch.evaluation.score_columns import ScoreColumns
from cometbatch.job.scores import ScoreSettings
from tests.matrix_on_disk import MatrixOnDisk, matrix_job
from tests.workbench import Workbench

ROWS = 10
SCORE = ScoreSettings("correct", "contains", gold="parcel")


def published(bench: Workbench) -> MatrixOnDisk:
    """A run whose result has a score: whether the answer names its parcel, as none does."""
    bench.write_rows(ROWS)
    run = MatrixOnDisk(matrix_job(bench, samples=2), 4).commit()
    run.publish(joined=[ScoreColumns([SCORE], None, run.manifest.input.columns)])
    return run


def main(folder: Path) -> None:
    """Write the logs."""
    with tempfile.TemporaryDirectory() as place:
        bench = Workbench(Path(place))
        published(bench)
        cometbatch.export(bench.output, to="inspect", output=folder).save()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
