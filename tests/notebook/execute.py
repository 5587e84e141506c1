"""A notebook as a user writes it, executed cell by cell in a kernel: plan, run and table are shown, nothing fails.

For the weekly checks, in an environment that has nbclient, ipykernel and ipywidgets:

    python execute.py
"""

import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

CELLS = [
    """
import cometbatch, polars as pl, pandas as pd
frame = pl.DataFrame({'ticket': [f't{n}' for n in range(30)], 'body': [f'kettle {n} broke' for n in range(30)]})""",
    """
job = {'input': {'id': 'ticket'}, 'output': {'path': 'out/labels.parquet'}, 'prompt': {'user': '{{ body }}'},
       'target': {'base_url': 'simulator', 'format': 'chat', 'model': 'comet-sim-1'}}
cometbatch.plan(job, input=frame)""",
    """
summary = cometbatch.run(job, input=frame)
summary""",
    "summary.to_polars()[['ticket', 'status', 'response', 'cost_usd']]",
    "await cometbatch.run_async(job, input=frame)",
    """
cometbatch.map(frame.to_pandas(), prompt='{{ body }}', model='comet-sim-1', out='out/again.parquet',
               target={'base_url': 'simulator'})""",
]
"""Each after the first ends in a value that the notebook shows."""
SHOWN = ["", "first request:", "30 of 30 rows: 30 succeeded", "shape: (30, 4)", "nothing was sent", "input_tokens"]


def main() -> None:
    """Execute the cells in a new folder; ends with a traceback where one fails or does not show what it should."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
        for cell, expected in zip(notebook.cells, SHOWN, strict=True):
            pages = [str(output.get("data", {}).get("text/html", "")) for output in cell.outputs]
            assert any(expected in page for page in pages) or not expected, (cell.source, cell.outputs)
        widgets = [output for output in notebook.cells[2].outputs if "widget-view" in str(output.get("data", {}))]
        assert widgets, "the progress is no widget"
        assert (Path(folder) / "out" / "labels.parquet").exists()
    sys.stdout.write(f"{len(CELLS)} cells executed\n")


if __name__ == "__main__":
    main()
