"""What is surely not meant in a prompt, seen in its text: other tools' placeholders, escapes, no column at all."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cometbatch.prompt.names import reach, shown
from cometbatch.prompt.template import PromptTemplate

MAX_PLACEHOLDERS: Final = 5  # that are named; one is enough to see what is wrong
_PLACEHOLDERS = re.compile(
    r"""
    \$?\{([^{}\n]{1,200})\}           # {name}  ${name}
    | \$(\w+)                         # $name
    | %\(([^()\n]{1,200})\)s          # %(name)s
    | %(\w{1,200})%                   # %name%
    | \[\[([^\[\]\n]{1,200})\]\]      # [[name]]
    | <<?([^<>\n]{1,200})>>?          # <name>  <<name>>
    """,
    re.VERBOSE,
)
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_LINE_BREAK = r"\n"


def suspicions(template: PromptTemplate, columns: Sequence[str]) -> Iterator[str]:
    """Sentences about the messages of a prompt, for a table with these columns."""
    placeholders = [] if template.needs_all_columns else list(_unused_placeholders(template, columns))
    if template.is_constant:
        likely = f": {_ways(placeholders)}" if placeholders else ""
        yield f"no message of the prompt uses a column of the input, so every row gets the same prompt{likely}"
    elif placeholders:
        yield f"the prompt sends these as they stand, not the cells of the columns: {_ways(placeholders)}"
    if any(_LINE_BREAK in text for text in template.texts):
        yield r"the prompt has \n as two characters; for a line break write the text in double quotes, or after a |"


def describe_stop(stop: Sequence[str]) -> Iterator[str]:
    """A sentence where a stop text is written so that it can never be found."""
    if any(_LINE_BREAK in text for text in stop):
        yield r'params.stop has \n as two characters; for a line break write it in double quotes: "\n"'


def _unused_placeholders(template: PromptTemplate, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What looks like a placeholder for a column that no message uses, with the name of that column.

    A tag such as <text> is common around a text, and one only where no column is used at all.
    """
    unused: Mapping[str, str] = {name.casefold(): name for name in columns if name not in template.columns_needed}
    told = set()
    for text in template.texts:
        for found in _PLACEHOLDERS.finditer(text):
            inner = next(group for group in found.groups() if group is not None)
            name = unused.get(inner.strip().casefold())
            if name is not None and name not in told and (template.is_constant or not found[0].startswith("<")):
                told.add(name)
                yield found[0], name


def _ways(placeholders: Sequence[tuple[str, str]]) -> str:
    ways = [f"for {shown(typed)} write {_expression(name)}" for typed, name in placeholders[:MAX_PLACEHOLDERS]]
    rest = len(placeholders) - len(ways)
    return "; ".join(ways) + (f"; and {rest} more" if rest else "")


def _expression(name: str) -> str:
    return f"{{{{ {name if _IDENTIFIER.fullmatch(name) else reach(name)} }}}}"
