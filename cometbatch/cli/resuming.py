"""The command that continues a run: the one that was given, without what counts once, and with what has to change."""

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cometbatch.money.exact import format_amount

if TYPE_CHECKING:
    import cometbatch

BUDGET = "budget.max_cost_usd"
ONCE = ("--fresh", "--yes", "-y")  # options that the command which resumes a run must not have
ONCE_WITH_VALUE = ("--retry", "--set-aside")  # the same, each with a value
LIMIT = "--limit"


def resume_advice(stopped: "cometbatch.RunStoppedError") -> str:
    """Where the run stopped and the command that resumes it, with what has to be other than it was."""
    summary, fix = stopped.summary, stopped.fix
    place = f"stopped at {summary.tally.calls:,} of {summary.rows:,} {'row' if summary.rows == 1 else 'rows'}"
    if fix == "budget" and stopped.budget_to_finish is not None:
        command = same_command({BUDGET: format_amount(stopped.budget_to_finish)})
        most = "at most " if summary.is_deduped or summary.is_reusing else ""  # rows may take answers that are there
        return f"{place}; to finish, {most}about this budget is needed: {command}"
    if fix in ("max_tokens", "max_completion_tokens"):
        return f"{place}; continue with: {same_command({'params.max_tokens_field': fix})}"
    if fix == "response" and not summary.tally.calls and not summary.cells:
        command = same_command({"response.mode": "prompt"})
        return f"{place}; continue with {command} (or with another target.format)"
    if fix == "job" and not summary.tally.calls and not summary.cells:
        command = same_command({"target.model": "MODEL", "target.base_url": "URL"}, add=False)
        return f"{place}; correct the job, then continue with: {command}"
    if fix in ("job", "response") and not summary.cells:  # other settings would be drift
        again = "rows that have ended can be asked in another way with --retry KIND --set KEY=VALUE"
        if summary.reopened is not None:
            again = "to ask the rows that are open in another way, give --retry again, with other settings"
        return f"{place}; continue later with: {same_command()}\n({again}; a whole other job needs another output.path)"
    return f"{place}; continue with: {same_command()}"


def same_command(values: Mapping[str, str] | None = None, *, add: bool = True, without: str = "") -> str:
    """The command that was given, without options that count once, and with these values in `--set`.

    `--fresh` and `--retry` would reset what is done since. A journal that `--set-aside` names may be gone by now.
    `add`: give values also where the command gave none. `without`: a further option, with a value, that is left out.
    """
    arguments, open_values = iter(sys.argv[1:]), dict(values or {})
    left_out = (*ONCE_WITH_VALUE, without)
    kept: list[str] = []
    for argument in arguments:
        name, _, text = argument.partition("=")
        if argument in left_out:
            next(arguments, None)
        elif argument == "--set" or name == "--set":
            key, _, value = (next(arguments, "") if argument == "--set" else text).partition("=")
            kept += ["--set", f"{key}={open_values.pop(key, value) if values and key in values else value}"]
        elif argument not in ONCE and name not in left_out:
            kept.append(argument)
    if add:
        kept += [part for key, value in open_values.items() for part in ("--set", f"{key}={value}")]
    words = shlex.join(["cometbatch", *kept])
    return f"{words}  (with the same job on standard input)" if "-" in kept else words
