"""The command line: each command parses, calls the library function of the same name, and ends with an exit code."""

import contextlib
import errno
import json
import os
import shlex
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn, Protocol

import click

import cometbatch
from cometbatch import process
from cometbatch.errors import CometbatchError

ALL_SUCCEEDED = 0
UNEXPECTED = 1
WRONG_USAGE = 2
SOME_ROWS_FAILED = 3
INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129
CLOSED_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
FIRST = {"job": "correct the job, then ", "budget": "raise budget.max_cost_usd, then "}  # by `RunStoppedError.fix`
TRACEBACK = "COMETBATCH_TRACEBACK"  # an environment variable for whoever reports a bug

EXIT_CODES = (
    (ALL_SUCCEEDED, "every row succeeded"),
    (
        UNEXPECTED,
        "an unexpected error or a failing disk (both resumable), or a damaged run directory",
    ),
    (WRONG_USAGE, "the command, the job file or the input is wrong; nothing was sent"),
    (SOME_ROWS_FAILED, "finished, with failed or incomplete rows; the result is there (`verify`: a check failed)"),
    (4, "stopped at the budget; resumable with a higher one"),
    (5, "the service refuses the job (key, credit, model, address); resumable"),
    (6, "another process has the run"),
    (HUNG_UP, "hung up (SIGHUP: the terminal was closed); resumable"),
    (INTERRUPTED, "interrupted (Ctrl-C); resumable"),
    (TERMINATED, "terminated (SIGTERM); resumable"),
)


class Report(Protocol):
    """What a command has to say, for a person and for a program."""

    def describe(self) -> str:
        """Some lines for a person."""

    def to_dict(self) -> dict[str, Any]:
        """The same, JSON-ready."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: cometbatch plan job.yaml && cometbatch run job.yaml",
)
@click.version_option(cometbatch.__version__, prog_name="cometbatch")
def cli() -> None:
    """Run every row of a table through a language model, and get a table back."""


job_file = click.argument("job_file", type=click.Path(path_type=Path))
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value of the job file; repeatable."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@cli.command(
    short_help="Run a job, or resume one that was interrupted.",
    epilog="Example: cometbatch run job.yaml --set limits.concurrency=64",
)
@job_file
@overrides
@as_json
@click.option(
    "--fresh", is_flag=True, help="Delete an earlier run of the same output, with its answers, and start over."
)
@click.option(
    "--retry",
    metavar="KIND[,KIND]",
    help="Answer these rows again: failed, incomplete, an error kind or a finish reason.",
)
@click.option(
    "--set-aside",
    multiple=True,
    metavar="FILE",
    help="Go on without what this damaged or lost file of the run knew, and count that as charges; repeatable.",
)
@click.option("--quiet", is_flag=True, help="Show no progress line.")
def run(
    job_file: Path,
    overrides: tuple[str, ...],
    *,
    as_json: bool,
    fresh: bool,
    retry: str | None,
    set_aside: tuple[str, ...],
    quiet: bool,
) -> None:
    """Run a job, or resume one that was interrupted. Rows that have an answer are not sent again.

    JOB_FILE: the job, in YAML. The result is written where its output.path says. The summary goes to standard output;
    the progress line, warnings and errors go to standard error.
    """
    job = cometbatch.load_job(job_file, overrides)
    try:
        kinds = () if retry is None else retry.split(",")
        summary = cometbatch.run(job, fresh=fresh, retry=kinds, set_aside=set_aside, progress=False if quiet else None)
    except cometbatch.RunStoppedError as stopped:
        _report(stopped.summary, as_json=as_json, warn=False)
        _say(f"{stopped}\n{_resume_advice(stopped)}")
        sys.exit(stopped.exit_code)
    _report(summary, as_json=as_json, warn=not summary.had_work)  # a session with work says them at its start
    sys.exit(ALL_SUCCEEDED if summary.all_succeeded else SOME_ROWS_FAILED)


@cli.command(
    short_help="Check a job and show what it would send and cost.",
    epilog="Example: cometbatch plan job.yaml",
)
@job_file
@overrides
@as_json
def plan(job_file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a job and its input. Show the first request, the number of rows and the estimated cost.

    Sends no prompt and writes no file. Prices are read from the service's public catalog unless the job has them.
    """
    _report(cometbatch.plan(cometbatch.load_job(job_file, overrides)), as_json=as_json)


@cli.command(
    short_help="Show how far a run is and what it has cost.",
    epilog="Example: cometbatch status job.yaml",
)
@click.argument("path", type=click.Path(path_type=Path))
@overrides
@as_json
def status(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show how far a run is and what it has cost, during the run or after it. Sends nothing.

    PATH: its job file, its output or its run directory.
    """
    if path.suffix in (".yaml", ".yml"):
        found = cometbatch.status(
            cometbatch.load_job(path, overrides).output.path, resume_command=_run_command(path, overrides)
        )
    elif overrides:
        raise click.UsageError("--set is for a job file. Give the job file, or leave out --set.")
    else:
        found = cometbatch.status(path)
    _report(found, as_json=as_json)


@cli.command(
    short_help="Check a finished run against its files.",
    epilog="Example: cometbatch verify job.yaml",
)
@click.argument("path", type=click.Path(path_type=Path))
@as_json
def verify(path: Path, as_json: bool) -> None:
    """Check a finished run against its files: each row is there once, with its own answer and the right cost.

    Reads every file of the run; changes and sends nothing. Ends with exit code 3 where a check fails.

    PATH: its job file, its output or its run directory.
    """
    is_job = path.suffix in (".yaml", ".yml")
    found = cometbatch.verify(cometbatch.load_job(path) if is_job else path)
    _report(found, as_json=as_json)
    sys.exit(ALL_SUCCEEDED if found.ok else SOME_ROWS_FAILED)


@cli.command(
    short_help="Serve a simulated CometAPI on 127.0.0.1.",
    epilog="Example: cometbatch simulate --port 8000 --rps 50 --fault 429:0.05",
)
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one."
)
@click.option("--seed", default=0, show_default=True, help="The same seed and request get the same reply.")
@click.option(
    "--latency", default="0.5-1.5", show_default=True, metavar="S or MIN-MAX", help="Seconds that an answer takes."
)
@click.option("--rps", type=float, help="Requests per second; those above get 429.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME:SHARE",
    help="A fault for a share of requests, such as 429:0.05; repeatable.",
)
@click.option("--faults", "list_faults", is_flag=True, help="List the names of all faults and exit.")
@click.option("--retry-after", is_flag=True, help="Each 429 says how long to wait.")
@click.option("--credit", metavar="USD", help="The account's balance; requests get 403 when it is spent.")
@click.option("--catalog", default="full", show_default=True, help="Which form of /api/models to serve.")
@click.option("--no-quirks", is_flag=True, help="Serve replies without extra or missing fields.")
@click.option("--until-stdin-closes", is_flag=True, help="Exit when standard input is closed.")
def simulate(list_faults: bool, port: int, until_stdin_closes: bool, **options: Any) -> None:
    """Serve a simulated CometAPI on 127.0.0.1, to try a job before paying for it.

    Set target.base_url in the job to the address that it prints, and the environment variable COMETAPI_KEY to any text
    such as sk-0123456789. For a job that needs no server of its own, target.base_url: simulator is enough.
    """
    if list_faults:
        for name, meaning in cometbatch.FAULTS.items():
            click.echo(f"{name:22} {meaning}")
        return
    try:
        behaviour = _behaviour(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    cometbatch.simulate(
        behaviour,
        port=port,
        announce=lambda base_url: click.echo(f"listening on {base_url}"),
        until_stdin_closes=until_stdin_closes,
    )


def _behaviour(
    *, latency: str, faults: tuple[str, ...], credit: str | None, no_quirks: bool, **options: Any
) -> "cometbatch.Behaviour":
    """Raises `ValueError` with what is wrong with an option."""
    try:
        credit_usd = None if credit is None else Decimal(credit)
    except InvalidOperation as error:
        raise ValueError(f"credit {credit!r}: write an amount in US dollars, such as 0.50") from error
    return cometbatch.Behaviour(
        latency_s=cometbatch.parse_latency(latency),
        faults=tuple(cometbatch.parse_fault(fault) for fault in faults),
        credit_usd=credit_usd,
        quirks=not no_quirks,
        **options,
    )


def main() -> NoReturn:
    """The entry point: whatever happens becomes a sentence on standard error and an exit code."""
    process.prepare(_end_by_signal)
    try:
        process.check_system()
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        _end(INTERRUPTED, f"Interrupted. Continue with: {_same_command()}")
    except KeyboardInterrupt:
        _end(INTERRUPTED, f"Interrupted. Continue with: {_same_command()}")
    except click.ClickException as error:
        error.show()
        sys.exit(WRONG_USAGE)
    except CometbatchError as error:
        _end(error.exit_code, f"Error: {error}")
    except Exception as error:
        if TRACEBACK in os.environ:
            raise
        words = f"{type(error).__name__}: {error}"
        _end(UNEXPECTED, f"Unexpected error: {words}\nWhat is recorded is safe. Set {TRACEBACK}=1 to see where.")
    sys.exit(ALL_SUCCEEDED)


def _end_by_signal(code: int) -> NoReturn:
    _end(code, f"{'Hung up' if code == HUNG_UP else 'Terminated'}. Continue with: {_same_command()}")


def _report(report: Report, *, as_json: bool, warn: bool = True) -> None:
    for warning in report.to_dict().get("warnings", ()) if warn else ():
        _say(f"Warning: {warning}")
    try:
        click.echo(_json(report.to_dict()) if as_json else report.describe())
    except OSError as error:
        process.discard_output()
        if error.errno == errno.EPIPE:  # whoever read the output has seen enough
            sys.exit(CLOSED_PIPE)
        if error.errno != errno.EIO:  # EIO: the terminal is gone, and the exit code says how the run ended
            raise


def _json(said: dict[str, Any]) -> bytes:
    """One line of JSON. A byte of a file's name that is no text becomes an escape, from which Python gets it back."""
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _resume_advice(stopped: "cometbatch.RunStoppedError") -> str:
    """Where the run stopped and the command that resumes it, after a correction where it would stop again without."""
    summary = stopped.summary
    place = f"stopped at {summary.tally.calls:,} of {summary.rows:,} {'row' if summary.rows == 1 else 'rows'}"
    return f"{place}; {FIRST.get(stopped.fix, '')}continue with: {_same_command()}"


def _run_command(path: Path, overrides: tuple[str, ...]) -> str:
    """The command that runs this job with these values."""
    return shlex.join(["cometbatch", "run", str(path), *(part for each in overrides for part in ("--set", each))])


def _same_command() -> str:
    """The command that was given, without options that count once.

    `--fresh` and `--retry` would reset what is done since. A journal that `--set-aside` names may be gone by now.
    """
    arguments = iter(sys.argv[1:])
    kept: list[str] = []
    for argument in arguments:
        if argument in ("--retry", "--set-aside"):
            next(arguments, None)  # its value
        elif argument != "--fresh" and not argument.startswith(("--retry=", "--set-aside=")):
            kept.append(argument)
    return shlex.join(["cometbatch", *kept])


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be gone; the exit code still says how it ended
        click.echo(line, err=True)


def _end(code: int, line: str) -> NoReturn:
    _say(line)
    sys.exit(code)
