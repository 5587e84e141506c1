"""Puts together what checks the answers of a job, and what makes columns of them."""

import itertools
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cometbatch.errors import JobError, UsageError
from cometbatch.job import Target
from cometbatch.prompt.answers import Checker
from cometbatch.prompt.schema import MissingExtraError, SchemaChecker, SchemaError
from cometbatch.results import columns
from cometbatch.results.answer_columns import AnswerColumns


def checker_of(target: Target) -> Checker | None:
    """What checks the answers of a target; None where any will do. Raises `JobError` where it can't be made."""
    key = "response.pattern" if target.response.pattern is not None else "response.schema"
    try:
        return target.response.checker(target.format)
    except MissingExtraError as error:
        raise JobError(f"{key}: {error}: {install_extra('schema')}") from None
    except SchemaError as error:
        raise JobError(f"{key}: {error.path}: {error}") from None


def install_extra(name: str) -> str:
    """The command that installs an extra where this program runs, which may be an environment without a pip."""
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip" if find_spec("pip") else f"python3 -m pip --python {python}"
    return f"{pip} install 'cometbatch[{name}]'"


def answer_columns(target: Target, checker: Checker | None) -> AnswerColumns | None:
    """The typed columns of a target's answers; None where its job gives no schema."""
    return AnswerColumns(checker, target.response.prefix) if isinstance(checker, SchemaChecker) else None


def refuse_answer_clashes(
    answers: AnswerColumns | None, input_columns: Sequence[str], prefix: str, asked: Sequence[columns.Column]
) -> None:
    """Raise `UsageError` where a column of answers would have the name of an input or an output column.

    Names that differ by case alone are the same to many readers of tables.
    """
    if answers is None:
        return
    ours = {prefix + column.name: "the output" for column in asked}
    taken = {
        name.casefold(): (name, whose) for name, whose in (dict.fromkeys(input_columns, "the input") | ours).items()
    }
    found = [taken[name.casefold()] for name in answers.names if name.casefold() in taken]
    if not found:
        return
    name, whose = found[0]
    prefixes = (f"answer{number or ''}_" for number in itertools.chain([0], itertools.count(2)))
    other = next(each for each in prefixes if not any((each + one).casefold() in taken for one in answers.properties))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise UsageError(
        f"response.schema: {whose} has a column named {name!r}, like a property of the schema{more}. Set "
        f"response.prefix (for example to {other}) to tell them apart."
    )
