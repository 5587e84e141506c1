"""What is surely not meant in a prompt, seen in its text: other tools' placeholders, escapes, no column at all."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cometbatch.prompt.conversation import ConversationTemplate
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
_OF_FORMAT = re.compile(r"(![ras])?(:.?[<>=^]?[-+ ]?#?0?\d*[,_]?(\.\d+)?[bcdeEfFgGnosxX%]?)?$")
"""What Python's `str.format` takes after a name: `{name!r}`, `{name:>8.2f}`."""
_OF_ROW = re.compile(r"row(?:\.|\[['\"]?)(.*?)['\"]?\]?")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_LINE_BREAK = r"\n"
_ESCAPES: Final = {_LINE_BREAK: "line break", r"\r": "carriage return", r"\t": "tab"}
"""What nobody means as two characters in a stop text, but where a command of TeX begins so, as in \\text."""


def suspicions(template: PromptTemplate | ConversationTemplate, columns: Sequence[str]) -> Iterator[str]:
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
    for escape, meaning in _ESCAPES.items():
        end = "" if escape == _LINE_BREAK else "(?![a-z])"
        if any(re.search(re.escape(escape) + end, text) for text in stop):
            yield f'params.stop has {escape} as two characters; for a {meaning} write it in double quotes: "{escape}"'


def _unused_placeholders(
    template: PromptTemplate | ConversationTemplate, columns: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """What looks like a placeholder for a column that no message uses, with the name of that column.

    A tag such as <text> is common around a text, and one only where no column is used at all.
    """
    unused: Mapping[str, str] = {name.casefold(): name for name in columns if name not in template.columns_needed}
    told = set()
    for text in template.texts:
        for found in _PLACEHOLDERS.finditer(text):
            inner = next(group for group in found.groups() if group is not None).strip()
            in_row = _OF_ROW.fullmatch(inner)
            meant = (inner, _OF_FORMAT.sub("", inner, count=1), in_row[1] if in_row else inner)
            name = next((unused[each.casefold()] for each in meant if each.casefold() in unused), None)
            if name is not None and name not in told and (template.is_constant or not found[0].startswith("<")):
                told.add(name)
                yield found[0], name


def _ways(placeholders: Sequence[tuple[str, str]]) -> str:
    ways = [f"for {shown(typed)} write {_expression(name)}" for typed, name in placeholders[:MAX_PLACEHOLDERS]]
    rest = len(placeholders) - len(ways)
    return "; ".join(ways) + (f"; and {rest} more" if rest else "")


def _expression(name: str) -> str:
    return f"{{{{ {name if _IDENTIFIER.fullmatch(name) else reach(name)} }}}}"
