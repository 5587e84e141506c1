"""Names in templates: each is its own column, however it is spelt.

Python folds identifiers that Unicode calls compatible (half-width and full-width letters), and Jinja2 makes Python of a
template. Names that would be folded get aliases here that are not. What is written in a template and happens to be a
column's name, but means something else there (`{{ 2024 }}`, `{{ order-id }}`), is found here, too.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Final

from jinja2 import TemplateSyntaxError, nodes
from msgspec import Struct

from cometbatch.prompt.sandbox import ENVIRONMENT

MAX_COLUMNS_SHOWN: Final = 30  # column names in the message about a missing column; of the others, the number is said
MAX_NAME_SHOWN: Final = 80  # characters of a name in a message; the rest is cut off
_ALIAS = "column_"  # and the name in hexadecimal digits
_PLAIN = re.compile(r"[^\W\d]\w*")  # what a template can name as it is
_PARTED = re.compile(r"\w+(?:[.\-/]\w+)+")  # what a template takes for a field of something, or for a sum
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_NO_BRACES = "if the column is not meant: write the text without braces"
_SPACES = "if the column is not meant: put spaces around the sign"
_BLANKS = "its name begins or ends with a blank"
_WHOLE = "if the whole row is meant: write row|tojson"
_OF_MAPPINGS = frozenset({"tojson", "pprint", "dictsort", "items", "list", "length", "count", "xmlattr"})
"""Filters by which a template that applies them to `row` says that it means the whole row."""


# ---------------------------------------------------------------- aliases


def alias_names(tree: nodes.Template) -> dict[str, str]:
    """Give names aliases where Python would fold them, and `self` where it can only be a column; names by alias.

    Raises `TemplateSyntaxError` for the name of an argument, which can't have an alias.
    """
    names: dict[str, str] = {}
    has_blocks = tree.find(nodes.Block) is not None
    named: Iterator[Any] = tree.find_all((nodes.Name, nodes.NSRef, nodes.Macro, nodes.Block))
    for node in named:
        if _is_folded(node.name) or (node.name == "self" and not has_blocks):
            alias = _ALIAS + node.name.encode("utf-8", "surrogatepass").hex()
            names[alias] = node.name
            node.name = alias
    for argument in tree.find_all(nodes.Keyword):
        if _is_folded(argument.key):
            words = f"{shown(argument.key)} can't name an argument: write {shown(_folded(argument.key))}"
            raise TemplateSyntaxError(words, argument.lineno)
    return names


def _folded(name: str) -> str:
    """The name that Python makes of an identifier."""
    return unicodedata.normalize("NFKC", name)


def _is_folded(name: str) -> bool:
    return name.startswith(_ALIAS) or (not name.isascii() and _folded(name) != name)


# ---------------------------------------------------------------- columns written as something else


class Written(Struct, frozen=True):
    """A column's name that stands in a template, where it means something else.

    `line` counts from 1; `otherwise`: what to write where the column is not meant.
    """

    name: str
    line: int
    otherwise: str


def written_columns(source: str, columns: Sequence[str], *, all_signs: bool) -> Iterator[Written]:
    """Columns whose names are written in a template's code as they are, though they are no names there.

    `source` is a template that can be parsed. `all_signs`: look for names with any signs in them, `price (EUR)` too;
    else for those with dots, dashes and slashes alone.
    """
    tree = ENVIRONMENT.parse(source)
    for value, line in _bare_constants(tree):
        yield from (Written(name, line, _NO_BRACES) for name in columns if _spells(name, value))
    if "row" in columns:
        yield from (Written("row", line, _WHOLE) for line in _bare_rows(tree))
    odd = [
        name
        for name in columns
        if (re.search(r"\w", name) and not _PLAIN.fullmatch(name) if all_signs else _PARTED.fullmatch(name))
    ]
    if odd:
        for line, code in _code(source):
            for name in odd:
                if name in code and re.search(rf"(?:(?<![\w.\-])|(?<=row\.)){re.escape(name)}(?![\w\-])", code):
                    yield Written(name, line, _BLANKS if _PLAIN.fullmatch(name.strip()) else _SPACES)


def typed_expression(source: str, line: int) -> str | None:
    """What stands between braces at a line of a template that can't be parsed, if that is what can't be."""
    end = 0
    while (start := source.find("{{", end)) >= 0 and (end := source.find("}}", start) + 2) > 1:
        first = source.count("\n", 0, start) + 1
        if first <= line <= first + source.count("\n", start, end):
            try:
                ENVIRONMENT.parse(source[start:end])
            except TemplateSyntaxError:
                return source[start + 2 : end - 2].strip("-+ \t\r\n")
    return None


def _code(source: str) -> Iterator[tuple[int, str]]:
    """What stands between braces, with its line, and without the texts in quotes."""
    code: list[str] | None = None
    first = 0
    for line, kind, text in ENVIRONMENT.lex(source):
        if kind in ("variable_begin", "block_begin"):
            code, first = [], line
        elif kind in ("variable_end", "block_end"):
            yield first, "".join(code or ())
            code = None
        elif code is not None:
            code.append("''" if kind == "string" else text)


def _bare_constants(tree: nodes.Template) -> Iterator[tuple[object, int]]:
    """Constants that are printed, joined, filtered, asked for, gone through or looked up in the row, with their lines.

    Texts only where they are all that is printed: joined to others they are meant.
    """
    for node in tree.find_all((nodes.Output, nodes.Concat, nodes.If, nodes.For, nodes.Getitem)):
        is_printed = isinstance(node, nodes.Output)
        for value in _values_of(node):
            match _head(value):
                case nodes.Const(value=str()) if not (is_printed and isinstance(value, nodes.Const)):
                    pass
                case nodes.Const(value=constant):
                    yield constant, value.lineno
                case nodes.Neg(node=nodes.Const(value=int() | float() as number)):
                    yield -number, value.lineno


def _bare_rows(tree: nodes.Template) -> Iterator[int]:
    """Lines where `row`, the whole row, is printed, joined, asked for or gone through like a column of that name."""
    for node in tree.find_all((nodes.Output, nodes.Concat, nodes.If, nodes.For)):
        for value in _values_of(node):
            bare = value
            while isinstance(bare, nodes.Filter) and bare.name not in _OF_MAPPINGS and bare.node:
                bare = bare.node
            if isinstance(bare, nodes.Name) and bare.name == "row":
                yield value.lineno


def _values_of(node: Any) -> Sequence[nodes.Node]:
    """What is printed or joined, asked for, gone through, or looked up in the row."""
    match node:
        case nodes.If(test=value) | nodes.For(iter=value) | nodes.Getitem(node=nodes.Name(name="row"), arg=value):
            return [value]
        case nodes.Getitem():
            return []
    found: Sequence[nodes.Node] = node.nodes
    return found


def _head(node: nodes.Node) -> nodes.Node:
    """What is looked into, filtered or tested."""
    while isinstance(node, nodes.Filter | nodes.Test | nodes.Getattr | nodes.Getitem | nodes.Not) and node.node:
        node = node.node
    return node


def _spells(name: str, value: object) -> bool:
    """Whether a constant is written as this name is."""
    if value is None or isinstance(value, bool):
        return name.lower() == str(value).lower()
    if not isinstance(value, float):
        return name == str(value)
    return _FLOAT.fullmatch(name) is not None and float(name) == value


# ---------------------------------------------------------------- words


def reach(name: str) -> str:
    """How a template reaches any column at all."""
    return f'row["{_escaped(name)}"]'


def shown(name: str) -> str:
    """A name in quotes, control characters and the like as escapes, and of a long one the beginning."""
    return repr(name) if len(name) <= MAX_NAME_SHOWN else repr(name[:MAX_NAME_SHOWN]) + "…"


def no_column(name: str, columns: Sequence[str]) -> str:
    """That a table lacks a column, and the one that was probably meant."""
    return f"no column {shown(name)} in the input" + _likely(name, columns)


def _likely(name: str, columns: Sequence[str]) -> str:
    alike = [column for column in columns if _look(column) == _look(name)]
    near = alike or difflib.get_close_matches(name, columns, n=1)
    if not near:
        return ""
    if _looks_the_same(near[0], name):
        return (
            f", but {shown(near[0])}, which looks the same and is written in other Unicode characters: "
            f"it is {reach(near[0])}"
        )
    return f", did you mean {shown(near[0])}?"


def _look(name: str) -> str:
    """What a reader sees of a name, capitals apart."""
    visible = "".join(char for char in _folded(name) if unicodedata.category(char) not in ("Cf", "Cc"))
    return " ".join(visible.split()).casefold()


def _looks_the_same(one: str, other: str) -> bool:
    """Whether two names look the same even in quotes."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def _escaped(name: str) -> str:
    """A name as a text in double quotes in a template; letters in parts are escapes, since nobody can see these."""
    letters = (
        char.encode("unicode_escape").decode() if not char.isprintable() or unicodedata.combining(char) else char
        for char in name.replace("\\", "\\\\").replace('"', '\\"')
    )
    return "".join(letters)


def shown_columns(columns: Sequence[str]) -> str:
    """The names of a table's columns, the first of many."""
    names = ", ".join(map(shown, columns[:MAX_COLUMNS_SHOWN]))
    return names + (f" and {len(columns) - MAX_COLUMNS_SHOWN} more" if len(columns) > MAX_COLUMNS_SHOWN else "")
