"""The command line: each command parses, calls the library function of the same name, and ends with an exit code."""

import contextlib
import ctypes
import gc
import json
import os
import shlex
import signal
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn, Protocol

import click

import cometbatch
from cometbatch.errors import CometbatchError

ALL_SUCCEEDED = 0
UNEXPECTED = 1
WRONG_USAGE = 2
SOME_ROWS_FAILED = 3
INTERRUPTED = 130
TERMINATED = 143
CLOSED_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
GC_EVERY_OBJECTS = 20_000
M_MMAP_THRESHOLD = -3  # glibc's malloc.h
MAPPED_BYTES = 1280 * 1024  # more than is read or written at a time, which comes and goes all the time
CORRECTED_IN_THE_JOB = {"job", "budget"}  # of `RunStoppedError.fix`
TRACEBACK = "COMETBATCH_TRACEBACK"  # an environment variable for whoever reports a bug

EXIT_CODES = (
    (ALL_SUCCEEDED, "every row succeeded"),
    (UNEXPECTED, "an unexpected error, or the disk would not take what was to be written; resumable"),
    (WRONG_USAGE, "the command, the job file or the input is wrong; nothing was sent"),
    (SOME_ROWS_FAILED, "finished, with failed or incomplete rows; the result is there (`verify`: a check failed)"),
    (4, "stopped at the budget; resumable with a higher one"),
    (5, "the service refuses the job (key, credit, model, address); resumable"),
    (6, "another process has the run"),
    (INTERRUPTED, "interrupted (Ctrl-C); resumable"),
    (TERMINATED, "terminated (SIGTERM); resumable"),
)


class Report(Protocol):
    """What a command has to say, for a person and for a program."""

    def describe(self) -> str:
        """Some lines for a person."""

    def to_dict(self) -> dict[str, Any]:
        """The same, JSON-ready."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(cometbatch.__version__, prog_name="cometbatch")
def cli() -> None:
    """Run every row of a table through a language model, and get a table back."""


job_file = click.argument("job_file", type=click.Path(path_type=Path))
overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the job.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@cli.command()
@job_file
@overrides
@as_json
@click.option("--fresh", is_flag=True, help="Forget an earlier run of the same output, answers included.")
@click.option(
    "--retry", metavar="KIND[,KIND]", help="Answer again: failed, incomplete, an error kind or a finish reason."
)
@click.option("--quiet", is_flag=True, help="No progress line.")
def run(
    job_file: Path, overrides: tuple[str, ...], *, as_json: bool, fresh: bool, retry: str | None, quiet: bool
) -> None:
    """Run a job, or carry on with one that was interrupted."""
    job = cometbatch.load_job(job_file, overrides)
    gc.freeze()  # what is loaded by now stays
    try:
        kinds = () if retry is None else retry.split(",")
        summary = cometbatch.run(job, fresh=fresh, retry=kinds, progress=False if quiet else None)
    except cometbatch.RunStoppedError as stopped:
        _report(stopped.summary, as_json=as_json, warn=False)
        _say(f"{stopped}\n{_way_on(stopped)}")
        sys.exit(stopped.exit_code)
    _report(summary, as_json=as_json, warn=not summary.had_work)  # a session with work says them at its start
    sys.exit(ALL_SUCCEEDED if summary.all_succeeded else SOME_ROWS_FAILED)


@cli.command(short_help="Check a job and show what it would send and cost.")
@job_file
@overrides
@as_json
def plan(job_file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check everything and show the first request, the row count and the estimated cost; sends no prompt."""
    _report(cometbatch.plan(cometbatch.load_job(job_file, overrides)), as_json=as_json)


@cli.command(short_help="Tell how a run stands.")
@click.argument("path", type=click.Path(path_type=Path))
@overrides
@as_json
def status(path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell how a run stands, while it goes on or after. PATH: its job file, output or run directory."""
    if path.suffix in (".yaml", ".yml"):
        path = cometbatch.load_job(path, overrides).output.path
    elif overrides:
        raise click.UsageError("--set is for a job file; an output or a run directory is looked at as it is.")
    _report(cometbatch.status(path), as_json=as_json)


@cli.command(short_help="Prove a finished run from its files.")
@click.argument("path", type=click.Path(path_type=Path))
@as_json
def verify(path: Path, as_json: bool) -> None:
    """Prove a finished run from its files: each row once, its own answer, the right cost. Changes and sends nothing.

    PATH: its job file, output or run directory.
    """
    is_job = path.suffix in (".yaml", ".yml")
    found = cometbatch.verify(cometbatch.load_job(path) if is_job else path)
    _report(found, as_json=as_json)
    sys.exit(ALL_SUCCEEDED if found.ok else SOME_ROWS_FAILED)


@cli.command(short_help="Serve a simulated CometAPI on 127.0.0.1.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--seed", default=0, show_default=True, help="The same seed and request give the same reply.")
@click.option("--latency", default="0.5-1.5", show_default=True, metavar="S or MIN-MAX", help="Seconds to an answer.")
@click.option("--rps", type=float, help="Requests admitted per second; beyond that comes 429.")
@click.option("--fault", "faults", multiple=True, metavar="NAME:SHARE", help="For example 429:0.05; repeatable.")
@click.option("--faults", "list_faults", is_flag=True, help="List the faults and end.")
@click.option("--retry-after", is_flag=True, help="A 429 says how long to wait.")
@click.option("--credit", metavar="USD", help="The balance; when it is spent comes 403.")
@click.option("--catalog", default="full", show_default=True, help="Which shape of /api/models to answer.")
@click.option("--no-quirks", is_flag=True, help="Replies without extra or missing fields.")
@click.option("--until-stdin-closes", is_flag=True, help="End when standard input does.")
def simulate(list_faults: bool, port: int, until_stdin_closes: bool, **options: Any) -> None:
    """Serve a simulated CometAPI on 127.0.0.1, to try a job before paying for it.

    Set target.base_url to the address that it prints, and the key's environment variable to anything of the shape
    sk-0123456789.
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
    signal.signal(signal.SIGTERM, _terminate)
    _settle_memory()
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        _end(INTERRUPTED, f"Interrupted. Carry on with: {_same_command()}")
    except KeyboardInterrupt:
        _end(INTERRUPTED, f"Interrupted. Carry on with: {_same_command()}")
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


def _terminate(_signal: int, _frame: object) -> NoReturn:
    _end(TERMINATED, f"Terminated. Carry on with: {_same_command()}")


def _report(report: Report, *, as_json: bool, warn: bool = True) -> None:
    for warning in report.to_dict().get("warnings", ()) if warn else ():
        _say(f"Warning: {warning}")
    try:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else report.describe())
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        sys.exit(CLOSED_PIPE)


def _way_on(stopped: "cometbatch.RunStoppedError") -> str:
    """The same command, but where the job has to be corrected first, so that just the same would stop the same."""
    if stopped.fix in CORRECTED_IN_THE_JOB:
        return f"Correct the job, then run it again: {_same_command()}"
    return f"Carry on with: {_same_command()}"


def _same_command() -> str:
    """The command that was given, but for what would forget, or take back once more, what is done since."""
    arguments = iter(sys.argv[1:])
    kept: list[str] = []
    for argument in arguments:
        if argument == "--retry":
            next(arguments, None)  # its value
        elif argument != "--fresh" and not argument.startswith("--retry="):
            kept.append(argument)
    return shlex.join(["cometbatch", *kept])


def _settle_memory() -> None:
    """How this process holds memory. For the command alone: a program that calls `cometbatch.run` has its own ways.

    Imports and runs make many objects and hardly a cycle: to look for these each 700 objects takes 5 % of the time. And
    Arrow reads when it is loaded which allocator to take: with the system's, which Python has its memory from as well,
    a run needs 20 MB less than with the next best, since what the one gives back is there for the other.
    """
    gc.set_threshold(GC_EVERY_OBJECTS, *gc.get_threshold()[1:])
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ and "glibc.malloc.mmap_threshold" not in tunables:
        _map_large_blocks()


def _map_large_blocks() -> None:
    """Give a large block of memory back when it is freed, from the first row to the last.

    glibc maps such a block by itself, but each time that one is freed it takes the next of its size from a heap
    instead, and what stands between them keeps the heap: a run of 1,000,000 rows ended with 8 MB more than it began
    with. Other C libraries have no such setting, and do not need it.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _end(code: int, line: str) -> NoReturn:
    _say(line)
    sys.exit(code)
