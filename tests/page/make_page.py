"""A page of published results, without prompts, overview and evaluation.

python -m tests.page.make_page RESULT... OUT.html
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cometbatch.commands.leaderboard import result_at
from cometbatch.reports.page.chunks import Encoder
from cometbatch.reports.page.html import PageWriter
from cometbatch.reports.page.page_columns import Columns
from cometbatch.reports.sources import Source


def meta_of(columns: Columns, rows: Sequence[int]) -> dict[str, Any]:
    """What a page says of its rows. `rows`: how many each source has."""
    total = sum(rows)
    return {
        "version": 1,
        "program": "cometbatch 0.1.0",
        "made_at": "2026-11-30T19:00:00Z",
        "title": columns.sources[0].name,
        "watch": None,
        "sources": [
            {
                "name": each.name,
                "run_id": None,
                "command": None,
                "state": "finished",
                "rows": count,
                "calls": count,
                "in_page": count,
                "no_prompts": "This page was made without prompts.",
                "notes": [],
            }
            for each, count in zip(columns.sources, rows, strict=True)
        ],
        "selection": {"rows": total, "of": total, "limit": 100_000, "seed": 0, "parts": {}, "words": ""},
        "golds": columns.golds,
        "columns": columns.to_list(),
        "frames": [],
        "overview": None,
        "evaluation": None,
    }


def make_page(sources: Sequence[Source], out: Path) -> None:
    """Write the page of all rows of these results."""
    columns = Columns.of(sources, has_prompts=False)
    encoder, counts = Encoder(columns), [0] * len(sources)
    with PageWriter(out) as page:
        for file, source in enumerate(sources):
            for ordinals, table in source.tables(columns.read(file)):
                counts[file] += table.num_rows
                for chunk in encoder.add(file, ordinals, table):
                    page.add(chunk)
        for chunk in encoder.rest():
            page.add(chunk)
        page.finish(meta_of(columns, counts))


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    make_page([result_at(path) for path in given.result], given.out)


if __name__ == "__main__":
    main()
