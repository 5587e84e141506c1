"""The commands that evaluate answers: each parses, calls the library function of its name, and says what it gave."""

import sys
from pathlib import Path
from typing import Any, Final

import click

import cometbatch
from cometbatch.cli.exit_codes import ALL_SUCCEEDED, SOME_ROWS_FAILED
from cometbatch.cli.options import as_json, examples, job_file, log_format, overrides, updating
from cometbatch.cli.printing import report, say, terminal_width
from cometbatch.cli.resuming import same_command
from cometbatch.money.exact import format_amount

NARROWEST, USUAL_WIDTH, WIDEST = 80, 100, 120  # columns of a leaderboard: on any terminal, where there is none, at most


def board_width() -> int:
    """How many columns a leaderboard may have."""
    return min(WIDEST, max(NARROWEST, terminal_width() or USUAL_WIDTH))


@click.command(
    short_help="Score the answers of a finished run anew; sends nothing.",
    epilog=examples("cometbatch score job.yaml"),
)
@log_format
@job_file
@overrides
@as_json
def score(job_file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Score the answers of a finished run as the job's section `score` says now. Sends nothing and needs no key.

    The result is replaced by one rename, and no other file of the run changes. A Python scorer is imported, after a
    line that names its file. Ends with exit code 3 where it fails on more than a tenth of the rows.

    JOB_FILE: the job, in YAML; - for standard input.
    """
    found = cometbatch.score(job_file, overrides, tell=say)
    report(found, as_json=as_json, words=found.describe(board_width()))
    sys.exit(ALL_SUCCEEDED if found.ended_well else SOME_ROWS_FAILED)


@click.command(
    short_help="Compare models, samples or results by their scores.",
    epilog=examples(
        "cometbatch compare job.yaml", "cometbatch compare a.parquet b.parquet --baseline a.parquet --json"
    ),
)
@log_format
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@overrides
@as_json
@click.option("--score", metavar="NAME", help="The score to show first.")
@click.option("--by", multiple=True, metavar="AXIS[,AXIS]", help="The axes that tell lines apart, of all that differ.")
@click.option("--baseline", metavar="LINE", help="The line to compare with; default: the best.")
@click.option("--cluster", metavar="COLUMN", help="The input column whose equal values make a cluster of questions.")
@click.option("--groups", metavar="COLUMN", help="The input column that says which group a question belongs to.")
def compare(paths: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool, **report_settings: Any) -> None:
    """Compare models, samples or results by their scores, with intervals and costs. Sends nothing.

    Shows the leaderboard of a run, or of several results of the same input. It needs `pip install 'cometbatch[eval]'`.

    PATHS: job files, results (Parquet files or folders) or run directories.
    """
    found = cometbatch.compare(paths, overrides, **report_settings)
    report(found, as_json=as_json, words=found.describe(board_width()))


@click.command(
    short_help="Let another model compare or rate the answers of a finished run.",
    epilog=examples("cometbatch judge job.yaml --plan", "cometbatch judge job.yaml"),
)
@log_format
@job_file
@overrides
@as_json
@click.option("--plan", "is_plan", is_flag=True, help="Show what the judge would be asked and cost; send no prompt.")
@updating
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait this long for another process that has a run of the judge, in place of exit code 6.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def judge(
    job_file: Path,
    overrides: tuple[str, ...],
    *,
    as_json: bool,
    is_plan: bool,
    update: bool,
    wait: float | None,
    quiet: bool,
) -> None:
    """Ask the judge of a job about the answers of its finished run, or go on where that was interrupted.

    The job's section `judge` says which model is asked, and whether it compares the answers of cells in pairs or rates
    each one. What has a verdict is not asked again: a model that comes later costs its own pairs alone.

    JOB_FILE: the job, in YAML; - for standard input.
    """
    if is_plan:
        report(cometbatch.plan_judge(job_file, overrides, update=update), as_json=as_json)
        return
    try:
        found = cometbatch.judge(job_file, overrides, update=update, wait_s=wait, progress=False if quiet else None)
    except cometbatch.RunStoppedError as stopped:
        report(stopped.summary, as_json=as_json, warn=False)
        needed = stopped.budget_to_finish if stopped.fix == "budget" else None
        budget = {} if needed is None else {"judge.budget.max_cost_usd": format_amount(needed)}
        say(f"{stopped}\nstopped; continue with: {same_command(budget)}")
        sys.exit(stopped.exit_code)
    report(found, as_json=as_json, warn=not found.had_work, words=found.describe(board_width()))
    sys.exit(ALL_SUCCEEDED if found.ended_well else SOME_ROWS_FAILED)


EVALUATING: Final = (score, compare, judge)
