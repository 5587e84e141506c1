"""The command that makes a page of results: it parses, calls the library function, and says what it gave."""

from pathlib import Path
from typing import Final

import click

import cometbatch
from cometbatch.cli.options import as_json, examples, log_format, overrides
from cometbatch.cli.printing import report as print_report
from cometbatch.cli.printing import say

DEFAULT_ROWS: Final = 100_000


@click.command(
    short_help="Write a page to look at results: one file, no network.",
    epilog=examples("cometbatch report job.yaml", "cometbatch report a.parquet b.parquet -o both.html --rows 5000"),
)
@log_format
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@overrides
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="The page to write. An earlier report there is replaced.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=DEFAULT_ROWS,
    show_default=True,
    metavar="ROWS",
    help="How many rows the page has at most: failed and incomplete ones first, then the dearest and slowest, then a "
    "random sample.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="NUMBER", help="Which sample is drawn."
)
@click.option("--overwrite", is_flag=True, help="Replace the file also where it is no report.")
@as_json
def report(
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    *,
    output: Path,
    rows: int,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write one HTML file that shows results, a run that is not finished, or several of them side by side.

    The file opens in any browser, also without a network, and sends nothing anywhere. It has the prompts and answers of
    its rows: keep it as you keep the result.

    PATHS: job files, results (Parquet files or folders) or run directories.
    """
    found = cometbatch.report(paths, overrides, output=output, rows=rows, seed=seed, overwrite=overwrite)
    print_report(found, as_json=as_json)
    for note in found.notes:
        say(f"Note: {note}")


REPORTING: Final = (report,)
