"""The commands that evaluate answers: each parses, calls the library function of its name, and says what it gave."""

import sys
from pathlib import Path
from typing import Final

import click

import cometbatch
from cometbatch.cli.exit_codes import ALL_SUCCEEDED, SOME_ROWS_FAILED
from cometbatch.cli.options import as_json, examples, job_file, log_format, overrides
from cometbatch.cli.printing import report


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
    found = cometbatch.score(job_file, overrides)
    report(found, as_json=as_json)
    sys.exit(ALL_SUCCEEDED if found.ended_well else SOME_ROWS_FAILED)


EVALUATING: Final = (score,)
