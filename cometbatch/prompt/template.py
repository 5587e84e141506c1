"""Prompt templates: compiled once, then row -> `Prompt` or `Failure`, and never anything else.

Hides Jinja2. Guards four things: a column that the table lacks is found before the first request; a cell's text is
never itself rendered; the same row always gives the same prompt (nothing random, no clock, no memory address);
a template reaches nothing outside its row (sandbox). What one expression repeats or pads, and what a message comes
to, is bounded; the author of a job is trusted with the rest: Jinja2's limit on the length of `range` holds, but a
template that loops for an hour, or doubles a text in a loop with `~`, will do so.
"""

import difflib
import functools
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, TypeAlias
from uuid import UUID

import msgspec
from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from cometbatch.errors import UsageError
from cometbatch.records import Failure, Message, Role, TextPart

WHOLE_ROW = "row"
"""The name that stands for the whole row in a template: `row["order id"]`, `row|tojson`."""
MAX_FAILURE_CHARACTERS = 500
MAX_MESSAGE_CHARACTERS = 64 << 20
"""What one message may come to; the service takes far less."""
MAX_REPEATS = 1_000_000
"""The widest padding, and the longest list made by repeating."""
MAX_COLUMNS_SHOWN = 30

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"range": safe_range, "dict": dict, "namespace": Namespace}
_LAZY_FILTERS = (
    "batch",
    "items",
    "map",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "slice",
    "unique",
)
_SIZED_FILTERS = ("batch", "center", "indent", "round", "slice", "tojson")
_SIZED_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "to_bytes", "zfill"})
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\d*\.)?(?:\d{7,}|\*)")
_WIDE_BRACES = re.compile(r":[^{}]*\d{7}")
_MAX_POWER_BITS = 1 << 16
_CLOCK_AND_ZONE = frozenset({"now", "today", "utcnow", "fromtimestamp", "utcfromtimestamp", "astimezone"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_BRACES_HINT = (
    "for braces as plain text write {% raw %} … {% endraw %}; "
    'a column whose name has spaces or signs in it is row["its name"]'
)
_ONE_TEMPLATE_HINT = "a prompt is one template: put its whole text in the job"
_TOO_LONG = f"too long: a message may have {MAX_MESSAGE_CHARACTERS >> 20} Mi characters, a list {MAX_REPEATS} items"
_TOO_WIDE = f"too wide: a width or count is at most {MAX_REPEATS}"
_NO_RANDOM_HINT = "prompts must come out the same each time, so nothing random is at hand"


class TemplateError(UsageError):
    """A prompt's template can't be used: its syntax is wrong, or it asks for columns that the table lacks.

    `index` is the message's 0-based position in the prompt, `line` the 1-based line within that message's template.
    """

    def __init__(self, reason: str, *, index: int, role: Role, line: int | None = None, hint: str | None = None):
        """Keep the parts, so that a caller who knows the job file can say where in it they are."""
        super().__init__(f"{_place(index, role, line)}: {reason}" + (f" ({hint})" if hint else ""))
        self.index = index
        self.role = role
        self.line = line
        self.reason = reason
        self.hint = hint


class _Row(dict[str, object]):
    """The whole row in a template; a column comes before a dict method of the same name."""


class _Method:
    """A method that can be called but not printed: its printed form is a memory address, new in every process."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self._method.__name__ in _SIZED_METHODS:
            _refuse_sizes(*args, *kwargs.values())
        return self._method(*args, **kwargs)

    def __repr__(self) -> str:
        name = self._method.__name__
        raise TemplateRuntimeError(f"{name!r} is a method, not a value: call it, as in .{name}()")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, without clock, local time zone, memory addresses and room for more than a message takes."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})  # which Jinja2 then does not work out while compiling, either

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`left operator right` in a template."""
        _refuse_growth(operator, left, right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """The pieces of a rendered template, or of a block in it, as one text."""
        return "".join(_bounded(pieces))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute` in a template."""
        if isinstance(obj, str) and attribute in ("format", "format_map") and _WIDE_BRACES.search(obj):
            raise TemplateRuntimeError(_TOO_WIDE)
        if isinstance(obj, _Row) and attribute in obj:
            return obj[attribute]
        return _callable_only(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]` in a template, which falls back to attributes."""
        return _callable_only(super().getitem(obj, argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have this attribute at all."""
        if isinstance(obj, date):
            naive = isinstance(obj, datetime) and obj.tzinfo is None
            if attr in _CLOCK_AND_ZONE or (attr == "timestamp" and naive):
                return False
        return super().is_safe_attribute(obj, attr, value)


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    room = MAX_MESSAGE_CHARACTERS
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise TemplateRuntimeError(_TOO_LONG)
        yield piece


def _refuse_growth(operator: str, left: object, right: object) -> None:
    """Raise `TemplateRuntimeError` for an operation whose result would be far larger than what goes into it."""
    match operator, left, right:
        case "*", str() | bytes() | list() | tuple(), int():
            _refuse_repeats(left, right)
        case "*", int(), str() | bytes() | list() | tuple():
            _refuse_repeats(right, left)
        case "+", str(), str() if len(left) + len(right) > MAX_MESSAGE_CHARACTERS:
            raise TemplateRuntimeError(_TOO_LONG)
        case "+", list() | tuple(), list() | tuple() if len(left) + len(right) > MAX_REPEATS:
            raise TemplateRuntimeError(_TOO_LONG)
        case "**", int(), int() if left.bit_length() * right > _MAX_POWER_BITS:
            raise TemplateRuntimeError("the power is too large a number")
        case "%", str(), _ if _WIDE_PERCENT.search(left):
            raise TemplateRuntimeError(_TOO_WIDE)


def _refuse_repeats(what: str | bytes | list[Any] | tuple[Any, ...], times: int) -> None:
    if len(what) * times > (MAX_MESSAGE_CHARACTERS if isinstance(what, str | bytes) else MAX_REPEATS):
        raise TemplateRuntimeError(_TOO_LONG)


def _refuse_sizes(*sizes: object) -> None:
    if any(isinstance(size, int) and size > MAX_REPEATS for size in sizes):
        raise TemplateRuntimeError(_TOO_WIDE)


def _sized(function: Callable[..., object]) -> Callable[..., object]:
    """The same filter, for widths and counts within bounds; what it is used on is no width."""

    @functools.wraps(function)  # also copies Jinja2's own marks on the function
    def sized(*args: Any, **kwargs: Any) -> object:
        _refuse_sizes(*args[1:], *kwargs.values())
        return function(*args, **kwargs)

    return sized


def _format(value: object, *args: object, **kwargs: object) -> object:
    """The filter `format`, which is the operator `%`."""
    _refuse_growth("%", str(value), args)
    return FILTERS["format"](value, *args, **kwargs)


class _RefusedError(TemplateSyntaxError):
    """Jinja2 would take this template; we don't."""

    def __init__(self, reason: str, line: int, hint: str | None = None) -> None:
        super().__init__(reason, line)
        self.hint = hint


_PRINTABLE = (str, int, float, Decimal, date, time, timedelta, list, tuple, dict, bytes, UUID, Undefined, _Method)
"""Data, and two that raise their own words when they are printed."""


def _callable_only(value: object) -> object:
    return _Method(value) if isinstance(value, BuiltinMethodType | MethodType | FunctionType) else value


def _listed(lazy: Callable[..., Iterable[object]]) -> Callable[..., list[object]]:
    """The same filter with a list as its result, which prints as what it holds."""

    @functools.wraps(lazy)  # also copies Jinja2's own marks on the function
    def as_list(*args: Any, **kwargs: Any) -> list[object]:
        return list(lazy(*args, **kwargs))

    return as_list


def _to_json(value: object, indent: int | None = None) -> str:
    """A value as JSON, as it would stand in a file: nothing escaped for HTML, key order kept.

    Decimals and times become strings, NaN and infinities null.
    """
    text = msgspec.json.encode(value)
    return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()


def _printed(value: object) -> object:
    """What to print for a value (always through `str`): nothing for null; no objects that are no data."""
    if value is None:
        return ""
    if isinstance(value, _PRINTABLE):
        return value
    raise TemplateRuntimeError(f"{type(value).__name__!r} is not a value that can be printed: try |list or |join")


def _new_environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, finalize=_printed, keep_trailing_newline=True, autoescape=False)
    environment.globals.clear()  # functions are given by `_Jinja.render` alone, so that columns may have their names
    environment.filters.update({name: _listed(FILTERS[name]) for name in _LAZY_FILTERS})
    environment.filters |= {"tojson": _to_json, "format": _format}
    environment.filters.update({name: _sized(environment.filters[name]) for name in _SIZED_FILTERS})
    del environment.filters["random"]
    return environment


_ENVIRONMENT = _new_environment()


class _Constant:
    """A template with nothing in it to fill."""

    def __init__(self, text: str) -> None:
        self._text = _encodable(text)

    def render(self, values: Mapping[str, object]) -> str:  # noqa: ARG002 - one of three kinds of the same shape
        return self._text


class _Jinja:
    """Any other template."""

    def __init__(self, tree: nodes.Template, uses: "_Uses") -> None:
        self._template = _ENVIRONMENT.from_string(tree)
        self._functions = {name: _FUNCTIONS[name] for name in uses.functions}
        self._names = tuple(uses.names)
        self._row = uses.row

    def render(self, values: Mapping[str, object]) -> str:
        context = {**self._functions, **{name: values[name] for name in self._names if name in values}}
        if self._row:
            context[WHOLE_ROW] = _Row(values)
        return _encodable(self._template.render(context))


class _Join:
    """A template of plain text and `{{ column }}` alone, at a third of Jinja2's price and with the same result.

    Where the short way fails, Jinja2 does it again and says why.
    """

    def __init__(self, pieces: Sequence[nodes.TemplateData | nodes.Name], jinja: _Jinja) -> None:
        texts = (piece.data.replace("%", "%%") if isinstance(piece, nodes.TemplateData) else "%s" for piece in pieces)
        self._frame = "".join(texts)
        self._columns = [piece.name for piece in pieces if isinstance(piece, nodes.Name)]
        self._jinja = jinja

    def render(self, values: Mapping[str, object]) -> str:
        try:
            cells: list[str] = []
            for name in self._columns:  # a comprehension would be a function made and called for each row
                cell = values[name]
                cells.append(cell if type(cell) is str else str(_printed(cell)))
        except Exception:  # noqa: BLE001 - a missing column, or a value whose `str` fails in any way it likes
            return self._jinja.render(values)
        whole = self._frame % tuple(cells)
        if len(whole) > MAX_MESSAGE_CHARACTERS:
            return self._jinja.render(values)
        return whole if whole.isascii() else _encodable(whole)


_Renderer: TypeAlias = _Constant | _Join | _Jinja


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no request could carry."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class _Uses:
    """What one template takes from outside itself, read off its syntax tree.

    `lines` maps each column needed to the first line that names it; `names` are those reached as plain names;
    `row` says whether the template has `row`, `all_columns` whether it uses more of it than columns named outright.
    """

    def __init__(self, tree: nodes.Template) -> None:
        undeclared = meta.find_undeclared_variables(tree)
        called = {id(call.node) for call in tree.find_all(nodes.Call)}
        free = [node for node in tree.find_all(nodes.Name) if node.name in undeclared]
        functions = {node.name for node in free if id(node) in called and node.name in _FUNCTIONS}
        columns = [
            node for node in free if node.name != WHOLE_ROW and not (node.name in functions and id(node) in called)
        ]
        whole = [node for node in free if node.name == WHOLE_ROW]
        parts = list(_row_columns(tree, called)) if whole else []
        self.functions = functions
        self.names = {node.name: node.lineno for node in reversed(columns)}
        self.row = bool(whole)
        self.all_columns = len(whole) > len(parts)
        self.lines = dict(reversed(parts)) | self.names
        _refuse_two_meanings(whole, columns, functions)


def _row_columns(tree: nodes.Template, called: set[int]) -> Iterator[tuple[str, int]]:
    """Columns named outright, as `row.name` or `row["name"]`, with their lines."""
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        match node:
            case nodes.Getattr(node=nodes.Name(name="row"), attr=name) if id(node) not in called:
                yield name, node.lineno
            case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str(name))):
                yield name, node.lineno


def _refuse_two_meanings(whole: Sequence[nodes.Name], columns: Sequence[nodes.Name], functions: set[str]) -> None:
    for node in whole:
        if node.ctx != "load":
            raise _RefusedError(f"{WHOLE_ROW!r} is the whole row: give this variable another name", node.lineno)
    for node in columns:
        if node.name in functions:
            raise _RefusedError(
                f'{node.name!r} is a function here: reach the column as row["{node.name}"]', node.lineno
            )


def _refuse_other_templates(tree: nodes.Template) -> None:
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        tag = type(node).__name__.lower().removeprefix("from")
        raise _RefusedError(f"there is no other template for {{% {tag} %}}", node.lineno, _ONE_TEMPLATE_HINT)


def _pieces(tree: nodes.Template, columns: Container[str]) -> Sequence[nodes.TemplateData | nodes.Name] | None:
    """Plain text and plain columns, if the template has nothing else."""
    pieces = []
    for output in tree.body:
        for piece in output.nodes if isinstance(output, nodes.Output) else [output]:
            if isinstance(piece, nodes.TemplateData) or (isinstance(piece, nodes.Name) and piece.name in columns):
                pieces.append(piece)
            else:
                return None
    return pieces


def _renderer(tree: nodes.Template, uses: _Uses) -> _Renderer:
    pieces = _pieces(tree, uses.names)
    if pieces is None:
        return _Jinja(tree, uses)
    texts = [piece.data for piece in pieces if isinstance(piece, nodes.TemplateData)]
    return _Constant("".join(texts)) if len(texts) == len(pieces) else _Join(pieces, _Jinja(tree, uses))


class _Part:
    """One message: its role, its renderer, and what that needs."""

    def __init__(self, index: int, role: Role, source: str) -> None:
        self.index = index
        self.role = role
        try:
            tree = _ENVIRONMENT.parse(source)
            _refuse_other_templates(tree)
            self.uses = _Uses(tree)
            renderer = _renderer(tree, self.uses)
        except TemplateSyntaxError as error:
            raise self._error(str(error.message).rstrip("."), error.lineno, _hint(error)) from None
        except Exception as error:  # noqa: BLE001 - Jinja2 and Python's compiler fail in many ways on a hostile template
            raise self._error(f"can't be compiled: {_words(error)}", None, None) from None
        self.constant = Message.of_text(role, renderer.render({})) if isinstance(renderer, _Constant) else None
        """The message, where it is the same for all rows."""
        self.render = renderer.render

    def _error(self, reason: str, line: int | None, hint: str | None) -> TemplateError:
        return TemplateError(reason, index=self.index, role=self.role, line=line, hint=hint)

    def check(self, columns: Sequence[str]) -> None:
        """Raise `TemplateError` if the template names a column that is not among these."""
        missing = sorted(self.uses.lines.keys() - set(columns), key=lambda name: (self.uses.lines[name], name))
        if missing:
            reason = "; ".join(_no_column(name, columns) for name in missing)
            raise self._error(reason, self.uses.lines[missing[0]], f"the columns are {_shown_columns(columns)}")

    def failure(self, error: Exception) -> Failure:
        place = _place(self.index, self.role, _line_of(error))
        return Failure("template", _encodable(f"{place}: {_words(error)}")[:MAX_FAILURE_CHARACTERS])


class PromptTemplate:
    """A prompt to be filled from a row. Made by `compile_prompt`; never changed after."""

    def __init__(self, messages: Sequence[tuple[Role, str]]) -> None:
        self._parts = tuple(_Part(index, role, source) for index, (role, source) in enumerate(messages))
        self.columns_needed = frozenset(name for part in self._parts for name in part.uses.lines)
        """The columns that the templates name."""
        self.needs_all_columns = any(part.uses.all_columns for part in self._parts)
        """Whether a template goes over the row as a whole, so that `render` must get every column."""

    def check(self, columns: Sequence[str]) -> None:
        """Raise `TemplateError` for a table with these columns, if a template names one that is not among them."""
        for part in self._parts:
            part.check(columns)

    def render(self, values: Mapping[str, object]) -> tuple[Message, ...] | Failure:
        """The messages for a row, which is given as column -> value.

        A `Failure` of kind "template" where the row can't be rendered. Values print as `str` has them, null as nothing.
        Lone surrogates become U+FFFD. Raises nothing.
        """
        messages: list[Message] = []
        try:
            for part in self._parts:
                message = part.constant or Message(part.role, (TextPart(part.render(values)),))
                messages.append(message)  # in a loop: how many there are tells which one failed
        except Exception as error:  # noqa: BLE001 - whatever a template does with a row is that row's failure alone
            return self._parts[len(messages)].failure(error)
        return tuple(messages)


def compile_prompt(messages: Sequence[tuple[Role, str]]) -> PromptTemplate:
    """Compile (role, template) pairs.

    The text of a template is sent as it is written, a last line break included. Raises `TemplateError`.
    """
    return PromptTemplate(messages)


def _place(index: int, role: Role, line: int | None) -> str:
    return f"prompt message {index + 1} ({role})" + (f", template line {line}" if line else "")


def _words(error: Exception) -> str:
    if isinstance(error, JinjaError):
        return str(error.message)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _line_of(error: Exception) -> int | None:
    """The template line of an error while rendering; Jinja2 rewrites tracebacks so that they have it."""
    line, trace = None, error.__traceback__
    while trace:
        line = trace.tb_lineno if "__jinja_exception__" in trace.tb_frame.f_globals else line
        trace = trace.tb_next
    return line


def _hint(error: TemplateSyntaxError) -> str | None:
    if isinstance(error, _RefusedError):
        return error.hint
    unknown = re.fullmatch(r"No (filter|test) named '(\w+)'\.", str(error.message))
    return _unknown_name_hint(unknown[1], unknown[2]) if unknown else _BRACES_HINT


def _unknown_name_hint(kind: str, name: str) -> str | None:
    if name == "random":
        return _NO_RANDOM_HINT
    known = _ENVIRONMENT.filters if kind == "filter" else _ENVIRONMENT.tests
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _no_column(name: str, columns: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, columns, n=1)
    return f"no column {name!r} in the input" + (f", did you mean {near[0]!r}?" if near else "")


def _shown_columns(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in columns[:MAX_COLUMNS_SHOWN])
    return shown + (f" and {len(columns) - MAX_COLUMNS_SHOWN} more" if len(columns) > MAX_COLUMNS_SHOWN else "")
