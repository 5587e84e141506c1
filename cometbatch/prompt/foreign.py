"""Templates that another person wrote, of a job that came with a result: which of them are rendered.

Law: such a template has loops, conditions, filters and methods whose work grows with the row alone, and nothing that
keeps or doubles what it made before: no macro, no recursion, no namespace, no list that it builds itself. What is left
is stopped between two steps (`allowance`).
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Final

from jinja2 import TemplateSyntaxError, nodes

from cometbatch.prompt.sandbox import ENVIRONMENT

MAX_TOKENS: Final = 10_000  # between braces; a text between them counts as one. Compiling more takes many seconds
MAX_INDENT: Final = 100  # characters before a line
_PLAIN: Final[tuple[type[nodes.Node], ...]] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.UnaryExpr, nodes.BinExpr, nodes.Concat,
    nodes.Test, nodes.Keyword, nodes.Assign, nodes.AssignBlock, nodes.With,
)  # fmt: skip
_FILTERS: Final = frozenset(
    {
        "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape",
        "fromjson", "groupby", "int", "items", "labels", "last", "length", "lettered", "list", "lower", "max", "min",
        "rejectattr", "reverse", "round", "safe", "selectattr", "sort", "string", "title", "trim", "unique", "upper",
        "urlencode", "wordcount",
    }
)  # fmt: skip
"""Filters whose result is about as long as what goes in."""
_METHODS: Final = frozenset(
    {
        "capitalize", "casefold", "count", "cycle", "date", "endswith", "find", "get", "isalpha", "isdigit",
        "isoformat", "items", "keys", "lower", "lstrip", "removeprefix", "removesuffix", "rfind", "rstrip", "split",
        "splitlines", "startswith", "strftime", "strip", "time", "title", "upper", "values", "weekday",
    }
)  # fmt: skip
"""Methods of which the same holds."""


def refused(source: str) -> str | None:
    """What a template has that only a trusted one may have, with its line; None where it has nothing of that kind.

    Of one that can't be parsed, compiling says what is wrong.
    """
    try:
        if next(itertools.islice(ENVIRONMENT.lex(source), MAX_TOKENS, None), None) is not None:
            return f"more than {MAX_TOKENS:,} words and signs"
        for node in ENVIRONMENT.parse(source).find_all(nodes.Node):
            if not (isinstance(node, _PLAIN) or _RULES.get(type(node), _never)(node)):
                return f"{_words(node)} in line {node.lineno}"
    except TemplateSyntaxError:
        return None
    except RecursionError:
        return "too many levels of nesting"
    return None


def _never(node: nodes.Node) -> bool:  # noqa: ARG001 - one of several rules
    return False


def _is_plain_loop(node: nodes.Node) -> bool:
    return isinstance(node, nodes.For) and not node.recursive


def _is_constant(node: nodes.Node) -> bool:
    """Whether a list or mapping has nothing of a row, so that none of its parts was made before; or a loop's target."""
    inner = [*node.iter_child_nodes()]
    is_target = isinstance(node, nodes.Tuple) and node.ctx == "store"
    return is_target or all(isinstance(each, nodes.Const | nodes.Pair | nodes.List | nodes.Tuple) for each in inner)


def _is_known_call(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.Call) or node.dyn_args is not None or node.dyn_kwargs is not None:
        return False
    called = node.node
    is_range = isinstance(called, nodes.Name) and called.name == "range"
    return is_range or (isinstance(called, nodes.Getattr) and called.attr in _METHODS)


def _is_known_filter(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.Filter) or node.dyn_args is not None or node.dyn_kwargs is not None:
        return False
    rule = _FILTER_RULES.get(node.name)
    return node.name in _FILTERS if rule is None else rule(node)


def _maps_plainly(node: nodes.Filter) -> bool:
    return not node.args or (isinstance(node.args[0], nodes.Const) and node.args[0].value in _FILTERS)


def _selects_plainly(node: nodes.Filter) -> bool:
    return not node.args or isinstance(node.args[0], nodes.Const)


def _indents_a_little(node: nodes.Filter) -> bool:
    return all(map(_is_small, [*node.args, *[each.value for each in node.kwargs]]))


def _sums_numbers(node: nodes.Filter) -> bool:
    return not node.args and all(each.key == "attribute" for each in node.kwargs)


def _has_no_settings(node: nodes.Filter) -> bool:
    return not node.args and not node.kwargs


def _is_bounded(node: nodes.Filter) -> bool:  # noqa: ARG001 - one of several rules
    """By the length of a message."""
    return True


def _is_small(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and (not isinstance(node.value, int | str) or _size(node.value) <= MAX_INDENT)


def _size(value: int | str) -> int:
    return value if isinstance(value, int) else len(value)


_FILTER_RULES: Final[Mapping[str, Callable[[nodes.Filter], bool]]] = {
    "indent": _indents_a_little,
    "join": _is_bounded,
    "map": _maps_plainly,
    "reject": _selects_plainly,
    "replace": _is_bounded,
    "select": _selects_plainly,
    "sum": _sums_numbers,
    "tojson": _has_no_settings,
    "truncate": _is_bounded,
}
"""What a filter must be like that may make much of little."""
_RULES: Final[Mapping[type[nodes.Node], Callable[[nodes.Node], bool]]] = {
    nodes.For: _is_plain_loop,
    nodes.List: _is_constant,
    nodes.Tuple: _is_constant,
    nodes.Dict: _is_constant,
    nodes.Pair: _is_constant,
    nodes.Call: _is_known_call,
    nodes.Filter: _is_known_filter,
}
"""What a node must be of which some are plain and some are not."""


def _words(node: nodes.Node) -> str:
    """What a node is called where templates are written."""
    match node:
        case nodes.Filter():
            return f"the filter {node.name}"
        case nodes.Call(node=nodes.Getattr(attr=name)):
            return f"the method {name}"
        case nodes.Call(node=nodes.Name(name=name)):
            return f"a call of {name}"
        case nodes.List() | nodes.Tuple() | nodes.Dict() | nodes.Pair():
            return "a list or mapping that is made of the row"
        case nodes.For():
            return "a recursive loop"
    return f"a {type(node).__name__.lower()}"
