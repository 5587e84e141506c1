"""Arguments and options that several commands have."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import click

from cometbatch.cli.printing import JSON, LOG_FORMAT
from cometbatch.cli.resuming import LIMIT

Command: TypeAlias = Callable[..., None]

job_file = click.argument("job_file", type=click.Path(path_type=Path))
any_path = click.argument("path", type=click.Path(path_type=Path))


def examples(*commands: str) -> str:
    """The end of a help page: a command to paste in each line."""
    return "\b\n" + "\n".join(f"Example: {command}" for command in commands)


def _keys_like(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """What a shell completes after --set: the keys of a job file."""
    jobs = importlib.import_module("cometbatch.job")  # loaded when a shell asks, and not for --help
    return [f"{key.path}=" for key in jobs.job_keys() if key.path.startswith(begun)]


overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the job file; repeatable.",
    shell_complete=_keys_like,
)
first_rows = click.option(
    LIMIT,
    type=click.IntRange(min=1),
    metavar="ROWS",
    help="Only the first rows, to try a job; a later run goes on from there.",
)
accept = click.option(
    "--accept",
    multiple=True,
    metavar="KIND=BOUND",
    help="End with exit code 0 where at most this many rows failed, or are incomplete: failed=1%, incomplete=5; "
    "repeatable.",
)
log_format = click.option(
    LOG_FORMAT,
    type=click.Choice(("text", JSON)),
    default="text",
    show_default=True,
    expose_value=False,  # `main` has seen it
    help="Write standard error as lines of JSON.",
)


def _number_or_auto(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | str | None:
    """A number of workers, or `auto`. Its range is the run's affair, as a job may say it, too."""
    if text is None or text.casefold() == "auto":
        return None if text is None else "auto"
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number; write a number, or auto.") from None


workers = click.option(
    "--workers",
    callback=_number_or_auto,
    metavar="N|auto",
    help="Send the rows from N processes, with one rate and one budget; auto: as many as there are cores.",
)
engine = click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    help="Where the workers are: processes of this machine, or actors of Ray, as engine.ray in the job says.",
)
updating = click.option(
    "--update",
    is_flag=True,
    help="Where the table or the prompt changed since the run, send only new and changed rows and keep other answers.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
choice = (
    click.option("--failed", is_flag=True, help="Only failed rows; the same as --where failed."),
    click.option(
        "--where",
        metavar="KIND[,KIND]",
        help="Only these rows: succeeded, failed, incomplete, an error kind or a finish reason.",
    ),
    click.option("--columns", multiple=True, metavar="NAME[,NAME]", help="Only these columns, in this order."),
)


def choosing_rows(command: Command) -> Command:
    """Give a command the options that choose rows and columns."""
    return functools.reduce(lambda made, option: option(made), reversed(choice), command)
