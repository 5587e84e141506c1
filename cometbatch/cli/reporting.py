"""The command that makes a page of results: it parses, calls the library function, and says what it gave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

import cometbatch
from cometbatch.cli.options import as_json, examples, log_format, overrides
from cometbatch.cli.printing import report as print_report
from cometbatch.cli.printing import say, write
from cometbatch.commands.report_defaults import DEFAULT_FILE, DEFAULT_ROWS

_DEFAULT: Final = ParameterSource.DEFAULT


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
    default=DEFAULT_FILE,
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
@click.option(
    "--watch",
    is_flag=True,
    help="Serve the page of a run while it goes on, on this machine alone, and print its address; write no file.",
)
@click.option(
    "--port",
    type=click.IntRange(min=1, max=65_535),
    metavar="NUMBER",
    help="With --watch: the port on 127.0.0.1; default: a free one.",
)
@click.pass_context
@as_json
def report(
    context: click.Context,
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    *,
    output: Path,
    rows: int,
    seed: int,
    overwrite: bool,
    watch: bool,
    port: int | None,
    as_json: bool,
) -> None:
    """Write one HTML file that shows results, a run that is not finished, or several of them side by side.

    The file opens in any browser, also without a network, and sends nothing anywhere. It has the prompts and answers of
    its rows: keep it as you keep the result.

    PATHS: job files, results (Parquet files or folders) or run directories.
    """
    if watch:
        _watch(context, paths, overrides, rows=rows, port=port or 0, as_json=as_json)
        return
    if port is not None:
        raise click.UsageError("--port is for --watch.", context)
    found = cometbatch.report(paths, overrides, output=output, rows=rows, seed=seed, overwrite=overwrite)
    print_report(found, as_json=as_json)
    for note in found.notes:
        say(f"Note: {note}")


def _watch(
    context: click.Context,
    paths: Sequence[Path],
    overrides: Sequence[str],
    *,
    rows: int,
    port: int,
    as_json: bool,
) -> None:
    """Serve the page of one run. The address goes to standard output: a program may open it."""
    given = [name for name in ("output", "seed", "overwrite") if context.get_parameter_source(name) != _DEFAULT]
    if given:
        raise click.UsageError(f"--{given[0]} is for a file, and --watch writes none.", context)
    if len(paths) > 1:
        raise click.UsageError("--watch is for one run. Name one job file, result or run directory.", context)

    def tell(url: str) -> None:
        write(json.dumps({"url": url}) if as_json else url)
        say("Open this address in a browser on this machine. It ends with the run, or with Ctrl-C.")

    cometbatch.watch_report(paths[0], overrides, rows=rows, port=port, tell=tell)
    say("The run has ended. The page stays in the browser as it is, and is not served any more.")


REPORTING: Final = (report,)
