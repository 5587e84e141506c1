"""The environment in which a template runs: what it may reach, print and build up.

Hides Jinja2's sandbox. Guards four things: a template reaches nothing outside its row; a prompt is the same in every
process (no clock, no local time zone, nothing random, no memory address); values become text as `printing` writes them,
and null is nothing; one expression can't repeat or pad a text beyond the size of a message. The author of a job is
trusted with the rest: a template that loops for an hour will do so. Jinja2's limit on the length of `range` holds.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from cometbatch.prompt.allowance import current
from cometbatch.prompt.bounds import bounded, refuse_growth, refuse_sizes
from cometbatch.prompt.filters import EACH, filters
from cometbatch.prompt.printing import METHODS, Method, formatted, percent, text_of

FUNCTIONS: Mapping[str, Callable[..., Any]] = {"range": safe_range, "dict": dict, "namespace": Namespace}

# Methods that take a width or a count, which is at most MAX_REPEATS.
_SIZED_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "to_bytes", "zfill"})
# Methods of dates and times whose result depends on the clock or on the machine's time zone.
_CLOCK_AND_ZONE = frozenset({"now", "today", "utcnow", "fromtimestamp", "utcfromtimestamp", "astimezone"})


class Row(dict[str, object]):
    """The whole row in a template."""


class _Formatter(SandboxedFormatter):
    """`str.format` with values as prompts print them."""

    def format_field(self, value: object, format_spec: str) -> str:
        return formatted(value, format_spec)

    def convert_field(self, value: object, conversion: str | None) -> object:
        if conversion in ("r", "a"):
            raise TemplateRuntimeError(f"!{conversion} writes Python's notation: leave it out, or use |tojson")
        return value


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox without clock, local time zone and memory addresses, and with bounds on size."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})  # Jinja2 also leaves these uncomputed while compiling

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`left operator right` in a template."""
        if (allowed := current()) is not None:
            allowed.operation(operator, left, right)
        if operator == "%" and isinstance(left, str):
            return percent(left, right)
        match operator, left, right:
            case ("+", str() as text, None) | ("+", None, str() as text):
                return text
        refuse_growth(operator, left, right)
        made = super().call_binop(context, operator, left, right)
        if allowed is not None:
            allowed.charge(made)
        return made

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The pieces of a rendered template, or of a block in it, as one text."""
        return "".join(bounded(pieces))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute` in a template: a column or a field hides a method of the same name."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return _callable_only(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]` in a template, which falls back to attributes."""
        return _callable_only(super().getitem(obj, argument))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` and `str.format_map` as functions that print values as prompts do; None for anything else."""
        if super().wrap_str_format(value) is None:
            return None
        text, takes_mapping = str(value.__self__), value.__name__ == "format_map"

        def format_(*args: Any, **kwargs: Any) -> str:
            if takes_mapping:
                return _Formatter(self).vformat(text, (), *args)
            return _Formatter(self).vformat(text, args, kwargs)

        format_.__name__ = value.__name__
        return format_

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have this attribute at all."""
        if isinstance(obj, date):
            naive = isinstance(obj, datetime) and obj.tzinfo is None
            if attr in _CLOCK_AND_ZONE or (attr == "timestamp" and naive):
                return False
        return super().is_safe_attribute(obj, attr, value)


class _NullAsNothing(NodeTransformer):
    """Jinja2 joins texts with `str`, and refuses to go through null: here both go through filters."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja2 finds it by this name
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the same
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, EACH, [], [], None, None, lineno=node.lineno)
        return node


def null_is_nothing(tree: nodes.Template) -> None:
    """Change a template so that `~` and loops take null for nothing."""
    _NullAsNothing().visit(tree)


def _callable_only(value: object) -> object:
    if not isinstance(value, METHODS):
        return value
    return Method(value, refuse_sizes if value.__name__ in _SIZED_METHODS else None)


def _new_environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, finalize=text_of, keep_trailing_newline=True, autoescape=False)
    environment.globals.clear()  # FUNCTIONS go to templates that call them alone: a column may have such a name
    environment.filters = filters()
    return environment


ENVIRONMENT = _new_environment()
