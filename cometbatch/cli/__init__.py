"""The command line: each command parses, calls the library function of the same name, and ends with an exit code."""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import get_completion_class

import cometbatch
from cometbatch import process
from cometbatch.cli.evaluating import EVALUATING, board_width
from cometbatch.cli.exit_codes import (
    ALL_SUCCEEDED,
    HUNG_UP,
    INTERRUPTED,
    SOME_ROWS_FAILED,
    UNEXPECTED,
    WRONG_USAGE,
)
from cometbatch.cli.exit_codes import EXIT_CODES as EXIT_CODES
from cometbatch.cli.options import (
    accept,
    any_path,
    as_json,
    choosing_rows,
    engine,
    examples,
    first_rows,
    job_file,
    log_format,
    overrides,
    updating,
    workers,
)
from cometbatch.cli.printing import (
    TRACEBACK,
    active_log,
    asked_for,
    end,
    last_line,
    log_as_json,
    report,
    say,
    terminal_width,
    write,
    writing,
)
from cometbatch.cli.reporting import REPORTING
from cometbatch.cli.resuming import BUDGET, LIMIT, ONCE, resume_advice, same_command
from cometbatch.cli.simulating import simulate
from cometbatch.errors import CometbatchError
from cometbatch.money.exact import format_rounded
from cometbatch.results.terminal import visible

NAME = "cometbatch"
FORMATS = ("chat", "responses", "messages", "gemini")  # as `wire` has them, which --help does not load
INSTEAD = {
    "--dry-run": "`cometbatch plan JOB_FILE` checks a job and sends no prompt",
    "--check": "`cometbatch plan JOB_FILE` checks a job and sends no prompt",
    "--validate": "`cometbatch plan JOB_FILE` checks a job and sends no prompt",
    "--estimate": "`cometbatch plan JOB_FILE` estimates the cost and sends no prompt",
    "--resume": "a run is resumed by the plain command, without an option",
    "--continue": "a run is resumed by the plain command, without an option",
    **dict.fromkeys(("--head", "--rows", "--max-rows", "--sample"), "`--limit ROWS` is for the first rows alone"),
    "--input": "write --set input.path=PATH",
    "--output": "write --set output.path=PATH",
    "--model": "write --set target.model=MODEL",
    "--concurrency": "write --set limits.concurrency=NUMBER",
    "--budget": f"write --set {BUDGET}=AMOUNT",
    "--max-cost": f"write --set {BUDGET}=AMOUNT",
}
"""What to use in place of options that other programs have."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("cometbatch init tickets.csv && cometbatch run job.yaml"),
)
@click.version_option(cometbatch.__version__, prog_name="cometbatch")
def cli() -> None:
    """Run every row of a table through a language model, and get a table back."""


@cli.command(
    short_help="Write a job file for a table; its first run is free.",
    epilog=examples(
        "cometbatch init tickets.csv", "cometbatch init tickets.csv --job my_job.yaml --model your-model-id"
    ),
)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", metavar="ID", help="The model for real answers; it goes into a comment.")
@click.option(
    "--job", "job_file", default="job.yaml", show_default=True, metavar="NAME", help="The job file to write.",
    type=click.Path(path_type=Path),
)  # fmt: skip
@click.option("--encoding", metavar="NAME", help="How the text of a CSV is encoded, such as cp1252; utf-8 by default.")
@click.option("--delimiter", metavar="MARK", help="What stands between two cells of a CSV; found by its header.")
@as_json
def init(data: Path, *, as_json: bool, **options: Any) -> None:
    """Write a commented job file for a table, and beside it a schema for editors. Overwrites nothing, asks nothing.

    DATA: the table. The job asks the built-in simulator, so that its first run costs nothing; comments say what to
    write for real answers.
    """
    report(cometbatch.init(data, **options), as_json=as_json, warn=False)


@cli.command(
    short_help="Run a job, or resume one that was interrupted.",
    epilog=examples(
        "cometbatch run job.yaml",
        "cometbatch run job.yaml --set limits.concurrency=64",
        "cometbatch run job.yaml --retry failed,length",
        "cometbatch run job.yaml --accept failed=1% --accept incomplete=5",
        "cometbatch run job.yaml --log-format json --metrics-file triage.prom",
        "cometbatch run job.yaml --wait 120",
        "cometbatch run job.yaml --otel",
        "cometbatch run job.yaml --update",
        "cometbatch run job.yaml --workers 4",
    ),
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
    help="Answer these rows again: failed, incomplete, an error kind or a finish reason; with --set, in another way.",
)
@click.option(
    "--set-aside",
    multiple=True,
    metavar="FILE",
    help="Go on without what this damaged or lost file of the run knew, and count that as charges; repeatable.",
)
@first_rows
@accept
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait this long for another process that has the run, in place of exit code 6.",
)
@workers
@engine
@updating
@click.option(
    "--forget-earlier",
    is_flag=True,
    help="Once the run is finished, delete what earlier updates have kept of the runs before them.",
)
@click.option("--yes", "-y", is_flag=True, help="Let --fresh delete paid answers of an unfinished run without asking.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@log_format
@click.option(
    "--metrics-file",
    type=click.Path(path_type=Path),
    metavar="FILE.prom",
    help="Keep metrics in this file, for the textfile collector of Prometheus.",
)
@click.option("--otel", is_flag=True, help="Send metrics and spans over OpenTelemetry: `telemetry: otlp` in the job.")
@click.option("--verbose", is_flag=True, help="Show in the summary how connections were used.")
def run(
    job_file: Path,
    overrides: tuple[str, ...],
    *,
    as_json: bool,
    fresh: bool,
    retry: str | None,
    set_aside: tuple[str, ...],
    limit: int | None,
    accept: tuple[str, ...],
    wait: float | None,
    workers: Any,
    engine: Any,
    update: bool,
    forget_earlier: bool,
    yes: bool,
    quiet: bool,
    metrics_file: Path | None,
    otel: bool,
    verbose: bool,
) -> None:
    """Run a job, or resume one that was interrupted. Rows that have an answer are not sent again.

    JOB_FILE: the job, in YAML; - for standard input. The result is written where its output.path says. The summary goes
    to standard output; the progress line, warnings and errors go to standard error.
    """
    job, log = cometbatch.load_job(job_file, (*overrides, "telemetry=otlp") if otel else overrides), active_log()
    if fresh and retry is None and not update:
        _confirm_fresh(job, yes=yes, waits=bool(wait))
    try:
        kinds = () if retry is None else retry.split(",")
        shown = False if quiet else None
        options: dict[str, Any] = {"fresh": fresh, "retry": kinds, "set_aside": set_aside, "limit": limit}
        options |= {"accept": accept, "wait_s": wait, "update": update, "forget_earlier": forget_earlier}
        options |= {"workers": workers, "engine": engine}
        options |= {"events": None if log is None else log.emit, "metrics_file": metrics_file}
        summary = cometbatch.run(job, **options, progress=shown)
    except cometbatch.RunStoppedError as stopped:
        report(stopped.summary, as_json=as_json, warn=False, words=stopped.summary.describe(verbose=verbose))
        say(f"{stopped}\n{resume_advice(stopped)}" if log is None else resume_advice(stopped))
        sys.exit(stopped.exit_code)
    had_work = summary.had_work  # a session with work says its warnings at its start
    words = summary.describe(verbose=verbose, command=same_command(without=LIMIT), width=board_width())
    report(summary, as_json=as_json, warn=not had_work, words=words)
    if as_json and summary.accept.is_used and not summary.ended_well:
        say(summary.accepted.describe().capitalize())
    sys.exit(ALL_SUCCEEDED if summary.ended_well else SOME_ROWS_FAILED)


@cli.command(
    short_help="Check a job and show what it would send and cost.",
    epilog=examples("cometbatch plan job.yaml", "cometbatch plan job.yaml --set target.model=your-model-id"),
)
@log_format
@job_file
@overrides
@first_rows
@accept
@updating
@as_json
def plan(
    job_file: Path,
    overrides: tuple[str, ...],
    *,
    limit: int | None,
    accept: tuple[str, ...],
    update: bool,
    as_json: bool,
) -> None:
    """Check a job and its input. Show the first request, the number of rows and the estimated cost, of the first too.

    Sends no prompt and writes no file. Prices are read from the service's public catalog unless the job has them.
    """
    job = cometbatch.load_job(job_file, overrides)
    report(cometbatch.plan(job, limit=limit, accept=accept, update=update), as_json=as_json)


@cli.command(
    short_help="Show how far a run is and what it has cost.",
    epilog=examples("cometbatch status job.yaml", "cometbatch status out/triage.parquet --json"),
)
@log_format
@any_path
@overrides
@accept
@as_json
def status(path: Path, overrides: tuple[str, ...], accept: tuple[str, ...], as_json: bool) -> None:
    """Show how far a run is and what it has cost, during the run or after it. Sends nothing.

    PATH: its job file (of any name; - for standard input), its output or its run directory.
    """
    report(cometbatch.status(path, overrides, accept=accept), as_json=as_json)


@cli.command(
    short_help="Show answers of a run, finished or not.",
    epilog=examples("cometbatch show job.yaml --failed"),
)
@log_format
@any_path
@overrides
@choosing_rows
@click.option("-n", "limit", default=10, show_default=True, type=click.IntRange(min=1), help="How many rows at most.")
@click.option("--full", is_flag=True, help="Show one row at a time, with all of its cells whole.")
def show(path: Path, limit: int, full: bool, **chosen: Any) -> None:
    """Show rows with their answers, of a run that is finished, goes on or has stopped. Sends nothing.

    A line for each row, cut to the terminal's width. Control characters, and others that could hide text or turn it
    around, are shown as escapes.

    PATH: its job file (of any name; - for standard input), its output or its run directory.
    """
    found = cometbatch.show(path, **_chosen(**chosen), limit=limit, full=full, width=terminal_width())
    with writing():
        for line in found.lines():
            click.echo(line)
    for note in found.notes:
        say(f"Note: {note}")


@cli.command(
    short_help="Write the rows of a run as CSV, JSONL, Parquet or a log.",
    epilog=examples("cometbatch export job.yaml --to csv -o answers.csv"),
)
@any_path
@overrides
@choosing_rows
@click.option("--to", metavar="FORM", help="csv, jsonl, parquet, inspect or openai-evals; with -o, the ending says it.")
@click.option("--as", "shape", metavar="openai|anthropic|gemini", help="Write this vendor's batch results instead.")
@click.option(
    "--shape", "layout", type=click.Choice(["wide"]), help="wide: one line a question, all cells side by side."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write; default: standard output.",
)
@log_format
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
def export(path: Path, output: Path | None, overwrite: bool, **chosen: Any) -> None:
    """Write the rows of a run that have an outcome, with whole cells; of an unfinished run, too.

    inspect and openai-evals are logs for programs that read evaluations, one for each cell: -o names a folder for them.

    PATH: its job file (of any name; - for standard input), its output or its run directory.
    """
    file = None if output is None or str(output) == "-" else output
    shape, layout = chosen.pop("shape"), chosen.pop("layout")
    if shape and layout:
        raise cometbatch.UsageError("--as and --shape exclude each other: a vendor's batch results have one shape.")
    found = cometbatch.export(path, **_chosen(**chosen), shape=shape or layout, output=file)
    if file is not None:
        rows = found.save(overwrite=overwrite)
        say(f"{rows:,} {'row' if rows == 1 else 'rows'} written to {file}")
    else:
        with writing():
            for lines in itertools.chain([[found.head]], found.lines()):
                _print_bytes(b"".join(lines))
    for note in found.notes:
        say(f"Note: {note}")


def _print_bytes(text: bytes) -> None:
    """Print it as it is, but on a terminal with escapes for characters that could do something there."""
    click.echo(visible(text.decode()) if sys.stdout.isatty() else text, nl=False)


def _chosen(*, failed: bool, where: str | None, **options: Any) -> dict[str, Any]:
    words = [*(["failed"] if failed else []), *(where.split(",") if where else [])]
    return {"where": words, **options}


@cli.command(
    short_help="Check a finished run against its files.",
    epilog=examples("cometbatch verify job.yaml"),
)
@log_format
@any_path
@overrides
@click.option(
    "--run-scorers",
    is_flag=True,
    help="Run the job's Python scorers, too, and compare; each file is named before it is imported.",
)
@as_json
def verify(path: Path, overrides: tuple[str, ...], run_scorers: bool, as_json: bool) -> None:
    """Check a finished run against its files: each row is there once, with its own answer and the right cost.

    Reads every file of the run; changes and sends nothing. Ends with exit code 3 where a check fails.

    PATH: its job file (of any name; - for standard input), its output or its run directory.
    """
    found = cometbatch.verify(path, overrides, run_scorers=run_scorers, tell=say)
    report(found, as_json=as_json)
    sys.exit(ALL_SUCCEEDED if found.ok else SOME_ROWS_FAILED)


for command in (*EVALUATING, *REPORTING, simulate):
    cli.add_command(command)


@cli.command(
    short_help="List the models of the service with their prices.",
    epilog=examples("cometbatch models --search mini", "cometbatch models --format messages --json"),
)
@click.option("--search", default="", metavar="WORDS", help="Only models with these words in id, name or maker.")
@click.option("--format", type=click.Choice(FORMATS), help="Only models that speak this request format.")
@click.option("--base-url", metavar="URL", help="Ask another service, or `simulator`.")
@click.option("--refresh", is_flag=True, help="Ask the service again, also within an hour.")
@log_format
@as_json
def models(*, as_json: bool, base_url: str | None, **options: Any) -> None:
    """List the models of the service's public catalog, with prices in US dollars per million tokens. Needs no key.

    The list is kept for an hour, and its age is shown.
    """
    if base_url is not None:
        options["base_url"] = base_url
    report(cometbatch.models(**options), as_json=as_json)


@cli.command(
    short_help="Print the JSON Schema of a job file, for editors.",
    epilog=examples("cometbatch schema > cometbatch.schema.json"),
)
def schema() -> None:
    """Print the JSON Schema of a job file. `init` writes it beside the job file.

    An editor with a YAML language server reads it where the first line of a job file is
    `# yaml-language-server: $schema=cometbatch.schema.json`.
    """
    write(json.dumps(cometbatch.schema(), indent=2, ensure_ascii=False))


@cli.command(
    short_help="Print what makes a shell complete commands and options.",
    epilog=examples("cometbatch completion bash", 'eval "$(cometbatch completion bash)"'),
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script by which a shell completes commands, options and keys of the job file.

    For bash and zsh, put the second example into ~/.bashrc or ~/.zshrc, with the shell's name in it; for fish, write
    the script to ~/.config/fish/completions/cometbatch.fish.
    """
    scripts = get_completion_class(shell)
    assert scripts is not None  # noqa: S101 - for the type checker: click has these three
    write(scripts(cli, {}, NAME, f"_{NAME.upper()}_COMPLETE").source())


def main() -> NoReturn:
    """The entry point: whatever happens becomes a sentence on standard error and an exit code."""
    process.prepare(_end_by_signal, last_line)
    if asked_for(sys.argv[1:]):
        log_as_json()
    try:
        _run_command()
    except KeyboardInterrupt:  # a further one, while the first is told
        process.settle(INTERRUPTED)
        sys.exit(INTERRUPTED)
    except SystemExit as ending:
        process.settle(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
        raise


def _run_command() -> NoReturn:
    try:
        process.check_system()
        cli.main(prog_name=NAME, standalone_mode=False)
    except click.exceptions.Abort:
        end(INTERRUPTED, f"Interrupted. Continue with: {same_command()}")
    except KeyboardInterrupt:
        end(INTERRUPTED, f"Interrupted. Continue with: {same_command()}")
    except click.ClickException as error:
        told = _with_hint(error)
        if active_log() is not None:
            end(WRONG_USAGE, told.format_message())
        told.show()
        sys.exit(WRONG_USAGE)
    except CometbatchError as error:
        end(error.exit_code, f"Error: {error}", error.args[0])
    except Exception as error:
        if (log := active_log()) is not None:
            log.tell_unexpected(error, words="Unexpected error; what is recorded is safe. ", exit_code=UNEXPECTED)
            sys.exit(UNEXPECTED)
        if TRACEBACK in os.environ:
            raise
        words = f"{type(error).__name__}: {error}"
        end(UNEXPECTED, f"Unexpected error: {words}\nWhat is recorded is safe. Set {TRACEBACK}=1 to see where.")
    sys.exit(ALL_SUCCEEDED)


def _end_by_signal(code: int) -> NoReturn:
    sys.stderr = sys.__stderr__ or sys.stderr  # a scorer of the user's own may be running, whose words go nowhere
    end(code, f"{'Hung up' if code == HUNG_UP else 'Terminated'}. Continue with: {same_command()}")


def _with_hint(error: click.ClickException) -> click.ClickException:
    """The same error, with what to use instead. A slip of the pen never leads to `--fresh`, which deletes answers."""
    if not isinstance(error, click.NoSuchOption):
        return error
    name = error.option_name
    words = f"No such option {name!r}." + (f" Instead, {INSTEAD[name]}." if name in INSTEAD else "")
    near = [] if name in INSTEAD else [each for each in error.possibilities or () if each not in ONCE]
    return click.NoSuchOption(name, words, near, error.ctx)


def _confirm_fresh(job: "cometbatch.Job", *, yes: bool, waits: bool) -> None:
    """Say what `--fresh` deletes. Ends the process where that is paid, not finished, and nobody agrees to it."""
    way = f"Continue the run with: {same_command()}"
    try:
        found = cometbatch.status(job)
        updated = found.updated()
    except cometbatch.UsageError:
        return  # there is no run
    except CometbatchError as error:
        forgets, is_dear = f"a run that can't be read, and so what it cost ({error})", True
    else:
        runs = [each for each in (found, updated) if each is not None and each.summary.tally.calls]
        if (found.running and not waits) or not runs:
            return  # `run` refuses the one, and the other holds nothing
        told = [("" if each is found else "the run that it updates: ") + _described(each.summary) for each in runs]
        forgets = "the answers of " + ", and of ".join(told)
        if found.changed:
            way = f"To keep it, give output.path another name; or {found.advice}continue the run without --fresh."
        is_dear = any(_is_paid_for(each.summary) and not each.gives_way for each in runs)
    if not is_dear or yes:
        say(f"--fresh deletes {forgets}.")
    elif sys.stdin.isatty() and sys.stderr.isatty():
        if not click.confirm(f"--fresh deletes {forgets}, of a run that is not finished. Delete them?", err=True):
            end(WRONG_USAGE, f"Nothing was deleted. {way}")
    else:
        words = f"Error: --fresh would delete {forgets}, of a run that is not finished. Nothing was deleted."
        end(WRONG_USAGE, f"{words}\n{way}\nTo delete it, add --yes.")


def _described(summary: "cometbatch.RunSummary") -> str:
    """How many rows have an answer, and what they cost."""
    cost = "at an unknown cost" if summary.cost_usd is None else f"which cost {format_rounded(summary.cost_usd)}"
    return f"{summary.tally.calls:,} of {summary.rows:,} {'row' if summary.rows == 1 else 'rows'}, {cost}"


def _is_paid_for(summary: "cometbatch.RunSummary") -> bool:
    """Whether a run is not finished and has answers that cost something, or may have."""
    return summary.succeeded + summary.incomplete > 0 and summary.cost_usd != 0 and not summary.finished
