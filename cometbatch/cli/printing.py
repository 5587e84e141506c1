"""What a command prints: what was asked for on standard output, everything else on standard error; and how it ends."""

import contextlib
import errno
import importlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click

from cometbatch import process
from cometbatch.errors import logged
from cometbatch.results.terminal import escaped_json, visible

LOG_FORMAT = "--log-format"
JSON = "json"
TRACEBACK = "COMETBATCH_TRACEBACK"  # an environment variable for whoever reports a bug
SAYS_PROMPTS = ("prompt", "params.extra")  # keys of a job that begin so may hold what is said to the model
CLOSED_PIPE = 141  # what a shell reports of a program that SIGPIPE ended


if TYPE_CHECKING:
    from cometbatch.cli.json_log import JsonLog


class Report(Protocol):
    """What a command has to say, for a person and for a program."""

    def describe(self) -> str:
        """Some lines for a person."""

    def to_dict(self) -> dict[str, Any]:
        """The same, JSON-ready."""


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is, by its own word if it has one; None where it is no terminal."""
    if not sys.stdout.isatty():
        return None
    with contextlib.suppress(OSError, ValueError):
        if columns := os.get_terminal_size(sys.stdout.fileno()).columns:
            return columns
    return shutil.get_terminal_size().columns


def write(text: str | bytes) -> None:
    """Write what was asked for on standard output."""
    with writing():
        click.echo(text)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Whoever reads standard output may have seen enough, and a terminal may be gone: neither is an error of ours."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        process.discard_output()
        if error.errno == errno.EPIPE:
            sys.exit(CLOSED_PIPE)
        if error.errno != errno.EIO:  # EIO: the terminal is gone, and the exit code says how the run ended
            raise


def report(found: Report, *, as_json: bool, warn: bool = True, words: str | None = None) -> None:
    """Print a report. `words`: its lines for a person, where they are not the usual ones."""
    for warning in found.to_dict().get("warnings", ()) if warn else ():
        _tell("warning", f"Warning: {warning}", warning)
    write(as_line(found.to_dict()) if as_json else visible(words or found.describe()))


def as_line(said: dict[str, Any]) -> bytes:
    """One line of JSON. A byte of a file's name that is no text becomes an escape, from which Python gets it back.

    So does a character that could do something on a terminal.
    """
    return escaped_json(json.dumps(said, ensure_ascii=False)).encode("utf-8", "backslashreplace")


def say(line: str) -> None:
    """Tell a person something, beside what was asked for."""
    _tell("note", line, line)


def end(code: int, line: str, words: object = None) -> NoReturn:
    """Say why, and end the process with this exit code. `words`: what a log has in place of the line."""
    _tell("error", line, line if words is None else words, exit_code=code)
    sys.exit(code)


def last_line(code: int, words: str) -> bytes:
    """What standard error says where the process ends at once with this exit code; for any thread."""
    log = active_log()
    return process.say_plainly(code, words) if log is None else log.line("error", message=words, exit_code=code)


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for it; known before it is parsed, since the parser's own errors are told so, too."""
    said = ""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if argument == "--":
            break
        name, _, value = argument.partition("=")
        said = argument if before == LOG_FORMAT else value if name == LOG_FORMAT else said
    return said == JSON


def log_as_json() -> None:
    """From now on, all of standard error is JSON lines. What makes them is loaded here, and not for --help."""
    if not _logs:
        _logs.append(importlib.import_module("cometbatch.cli.json_log").JsonLog())
        _logs[0].install()


def active_log() -> "JsonLog | None":
    """What writes standard error as JSON lines; None where it is for people."""
    return _logs[0] if _logs else None


def _without_prompts(words: object) -> str:
    """Words for a log, where a command to paste does not repeat a prompt that was given with `--set`."""
    said, arguments = logged(words), sys.argv[1:]
    for before, argument in zip(("", *arguments), arguments, strict=False):
        given = argument if before == "--set" else argument.removeprefix("--set=")
        if given.startswith(SAYS_PROMPTS):
            said = said.replace(shlex.quote(given), shlex.quote(f"{given.partition('=')[0]}=(not logged)"))
    return said


_logs: "list[JsonLog]" = []  # one at most


def _tell(name: str, line: str, words: object, **fields: Any) -> None:
    if (log := active_log()) is not None:
        log.tell(name, message=_without_prompts(words), **fields)
        return
    with contextlib.suppress(OSError):  # standard error may be gone; the exit code still says how it ended
        click.echo(visible(line), err=True)
