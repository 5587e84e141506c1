"""Prompt templates: compiled once, then each row becomes messages, or a `Failure`, and nothing else.

Guards three things: a column that the table lacks is found before the first request; the text of a cell is never
itself rendered; the same row always gives the same prompt. What a template may do is the sandbox's.
"""

import difflib
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from jinja2 import TemplateSyntaxError, Undefined, meta, nodes
from jinja2.exceptions import TemplateError as JinjaError

from cometbatch.errors import UsageError
from cometbatch.prompt import questions
from cometbatch.prompt.bounds import MAX_MESSAGE_CHARACTERS
from cometbatch.prompt.cells import column_of, roots
from cometbatch.prompt.choices import ChoicesError
from cometbatch.prompt.content import ContentError, encodable, image_of
from cometbatch.prompt.names import (
    alias_names,
    no_column,
    reach,
    shown,
    shown_columns,
    typed_expression,
    written_columns,
)
from cometbatch.prompt.printing import text_of
from cometbatch.prompt.sandbox import ENVIRONMENT, FUNCTIONS, Row, null_is_nothing
from cometbatch.records import Failure, ImagePart, Message, Part, Role, TextPart

RENDERING: Final = 2
"""The number of the rules by which a row becomes messages. It is part of a job's fingerprint.

Raise it with every change after which some row and job give another prompt than before, or no prompt: how values
print, what a filter does, how messages are put together, which rows a file has. Runs begun under another number are
then refused, not mixed.
"""
WHOLE_ROW = "row"
"""The name that stands for the whole row in a template: `row["order id"]`, `row|tojson`."""
FEW_CELLS: Final = 16  # together not much larger than the row itself, of which each may be one cell
MAX_FAILURE_CHARACTERS = 500  # of a failure's message; the rest is cut off
PartTemplate: TypeAlias = tuple[Literal["text", "image"], str, str]
"""What a part is, its template, and for an image how closely to look at it ("" where that is left to the model)."""

_VALUE = "cometbatch_value"  # the name to which the value of an image's template is assigned

_BRACES_HINT = (
    "for braces as plain text write {% raw %} … {% endraw %}; "
    'a column whose name has spaces or signs in it is row["its name"]'
)
EMPTY_HINT = "prompt.allow_empty: true sends it"
"""What a person can do who means an empty prompt."""

_BLANK = re.compile(r"[\s\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]*")  # nothing that can be seen
_ONE_TEMPLATE_HINT = "a prompt is one template: put its whole text in the job"
_NO_RANDOM_HINT = "prompts must come out the same each time, so nothing random is at hand"


class TemplateError(UsageError):
    """The template of a message can't be used: its syntax is wrong, or it names a column that the table lacks.

    `index` is the message's 0-based position in the prompt, `line` the 1-based line within that message's template.
    """

    def __init__(self, reason: str, *, index: int, role: Role, line: int | None = None, hint: str | None = None):
        """Keep the parts, so that a caller who knows the job file can name the place in it."""
        super().__init__(f"{_place(index, role, line)}: {reason}" + (f" ({hint})" if hint else ""))
        self.index = index
        self.role = role
        self.line = line
        self.reason = reason
        self.hint = hint


class _RefusedError(TemplateSyntaxError):
    """A template that Jinja2 accepts and this module refuses."""

    def __init__(self, reason: str, line: int, hint: str | None = None) -> None:
        super().__init__(reason, line)
        self.hint = hint


class _Constant:
    """A template that is the same for all rows."""

    def __init__(self, text: str) -> None:
        self._text = encodable(text)

    def render(self, values: Mapping[str, object]) -> str:  # noqa: ARG002 - one of three kinds of the same shape
        return self._text


class _Jinja:
    """A template that Jinja2 renders."""

    def __init__(self, tree: nodes.Template, uses: "_Uses") -> None:
        null_is_nothing(tree)
        self._template = ENVIRONMENT.from_string(tree)
        self._functions = {name: FUNCTIONS[name] for name in uses.functions}
        self._names = {name: uses.aliases.get(name, name) for name in uses.names}
        self._row = uses.row

    def render(self, values: Mapping[str, object]) -> str:
        return encodable(self._template.render(self._context(values)))

    def value(self, values: Mapping[str, object]) -> object:
        """What the template has assigned to `_VALUE`."""
        context = self._template.new_context(self._context(values))
        list(self._template.root_render_func(context))  # runs it: an assignment prints nothing
        found = context.vars[_VALUE]
        if isinstance(found, Undefined):
            str(found)  # raises the error that names what is missing
        return found

    def _context(self, values: Mapping[str, object]) -> dict[str, object]:
        columns = {alias: values[name] for name, alias in self._names.items() if name in values}
        context = {**self._functions, **columns}
        if self._row:
            context[WHOLE_ROW] = Row(values)
        return context


class _Join:
    """A template of plain text and `{{ column }}` alone, joined here at a third of Jinja2's price with the same result.

    If joining fails, Jinja2 renders the row again and raises the error that names the reason.
    """

    def __init__(
        self, pieces: Sequence[nodes.TemplateData | nodes.Name], jinja: _Jinja, names: Mapping[str, str]
    ) -> None:
        texts = (piece.data.replace("%", "%%") if isinstance(piece, nodes.TemplateData) else "%s" for piece in pieces)
        self._frame = "".join(texts)
        self._columns = [names.get(piece.name, piece.name) for piece in pieces if isinstance(piece, nodes.Name)]
        self._jinja = jinja

    def render(self, values: Mapping[str, object]) -> str:
        try:
            cells: list[str] = []
            for name in self._columns:  # a comprehension makes and calls a function for each row
                cell = values[name]
                cells.append(cell if type(cell) is str else text_of(cell))
        except Exception:  # noqa: BLE001 - a missing column, or a value whose `str` fails in any way it likes
            return self._jinja.render(values)
        if len(cells) > FEW_CELLS and sum(map(len, cells)) > MAX_MESSAGE_CHARACTERS:
            return self._jinja.render(values)
        whole = self._frame % tuple(cells)
        if len(whole) > MAX_MESSAGE_CHARACTERS:
            return self._jinja.render(values)
        return whole if whole.isascii() else encodable(whole)


class _Value:
    """A template that is one expression, of which the value is wanted, and not its text."""

    def __init__(self, expression: nodes.Expr, uses: "_Uses") -> None:
        name = nodes.Name(_VALUE, "store", lineno=1)
        tree = nodes.Template([nodes.Assign(name, expression, lineno=1)], lineno=1)
        self._jinja = _Jinja(tree, uses)
        is_column = isinstance(expression, nodes.Name) and not uses.row
        self._column = next(iter(uses.names)) if is_column and len(uses.names) == 1 else None

    def value(self, values: Mapping[str, object]) -> object:
        """What it comes to. Raises whatever Jinja2 raises."""
        return self._jinja.value(values) if self._column is None else values[self._column]


_Renderer: TypeAlias = _Constant | _Join | _Jinja


class _Uses:
    """What a template needs from outside, found in its syntax tree.

    `lines` maps each column that is needed to the first line that names it; `names` are the columns reached as plain
    names. `row`: the template uses `row`. `all_columns`: it uses `row` for more than columns that it names. `aliased`:
    names by the alias that stands for them in the tree; `aliases` the other way round.
    """

    def __init__(self, tree: nodes.Template, aliased: Mapping[str, str]) -> None:
        undeclared = meta.find_undeclared_variables(tree)
        called = {id(call.node) for call in tree.find_all(nodes.Call)}
        free = [node for node in tree.find_all(nodes.Name) if node.name in undeclared]
        functions = {node.name for node in free if id(node) in called and node.name in FUNCTIONS}
        columns = [
            node for node in free if node.name != WHOLE_ROW and not (node.name in functions and id(node) in called)
        ]
        whole = [node for node in free if node.name == WHOLE_ROW]
        parts = list(_row_columns(tree, called)) if whole else []
        self.functions = functions
        self.aliased = aliased
        self.aliases = {name: alias for alias, name in aliased.items()}
        self.names = {aliased.get(node.name, node.name): node.lineno for node in reversed(columns)}
        self.row = bool(whole)
        self.all_columns = len(whole) > len(parts)
        self.lines = dict(reversed(parts)) | self.names
        _refuse_two_meanings(whole, columns, functions)


def _row_columns(tree: nodes.Template, called: set[int]) -> Iterator[tuple[str, int]]:
    """Columns that are named as `row.name` or `row["name"]`, with their lines."""
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
                f"{node.name!r} is a function here: reach the column as {reach(node.name)}", node.lineno
            )


def _refuse_other_templates(tree: nodes.Template) -> None:
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        tag = type(node).__name__.lower().removeprefix("from")
        raise _RefusedError(f"there is no other template for {{% {tag} %}}", node.lineno, _ONE_TEMPLATE_HINT)


def _pieces(tree: nodes.Template, columns: Container[str]) -> Sequence[nodes.TemplateData | nodes.Name] | None:
    """The template's plain texts and plain columns in order; None if it holds anything else."""
    pieces = []
    for output in tree.body:
        for piece in output.nodes if isinstance(output, nodes.Output) else [output]:
            if isinstance(piece, nodes.TemplateData) or (isinstance(piece, nodes.Name) and piece.name in columns):
                pieces.append(piece)
            else:
                return None
    return pieces


def _renderer(tree: nodes.Template, uses: _Uses) -> _Renderer:
    pieces = _pieces(tree, {uses.aliases.get(name, name) for name in uses.names})
    if pieces is None:
        return _Jinja(tree, uses)
    texts = [piece.data for piece in pieces if isinstance(piece, nodes.TemplateData)]
    return _Constant("".join(texts)) if len(texts) == len(pieces) else _Join(pieces, _Jinja(tree, uses), uses.aliased)


class _Part:
    """One message of text, or a text in one: its role, its renderer, and the columns that it needs.

    `number`: of a part in its message, from 1; None for a message of text alone.
    """

    has_parts: Literal[False] = False

    def __init__(self, index: int, role: Role, source: str, number: int | None = None) -> None:
        self.index = index
        self.role = role
        self.number = number
        self._source = source
        try:
            tree = ENVIRONMENT.parse(source)
            _refuse_other_templates(tree)
            self.uses = _Uses(tree, alias_names(tree))
            self.text = "\n".join(piece.data for piece in tree.find_all(nodes.TemplateData))
            self.expression = _only_expression(tree)
            renderer = _renderer(tree, self.uses)
        except TemplateSyntaxError as error:
            raise self._error(str(error.message).rstrip("."), error.lineno, _hint(error, source)) from None
        except Exception as error:  # noqa: BLE001 - Jinja2 and Python's compiler fail in many ways on a hostile template
            raise self._error(f"can't be compiled: {_words(error)}", None, None) from None
        self.constant = Message.of_text(role, renderer.render({})) if isinstance(renderer, _Constant) else None
        """The message, if it is the same for all rows."""
        self.render = renderer.render

    def part(self, values: Mapping[str, object]) -> Part:
        """The part for a row."""
        return TextPart(self.render(values))

    def _error(self, reason: str, line: int | None, hint: str | None) -> TemplateError:
        words = reason if self.number is None else f"part {self.number}: {reason}"
        return TemplateError(words, index=self.index, role=self.role, line=line, hint=hint)

    def check(self, columns: Sequence[str]) -> None:
        """Raise `TemplateError` if the template names a column that is not among these, or means one by other words."""
        missing = sorted(self.uses.lines.keys() - set(columns), key=lambda name: (self.uses.lines[name], name))
        for written in written_columns(self._source, columns, all_signs=bool(missing)):
            words = f"this does not reach the column {shown(written.name)}: write {reach(written.name)}"
            raise self._error(words, written.line, written.otherwise)
        if missing:
            reason = "; ".join(no_column(name, columns) for name in missing)
            raise self._error(reason, self.uses.lines[missing[0]], f"the columns are {shown_columns(columns)}")

    def failure(self, error: Exception) -> Failure:
        """What went wrong with a row, with the names that the template has."""
        words = _words(error)
        for alias, name in self.uses.aliased.items():
            words = words.replace(alias, name)
        place = _place(self.index, self.role, _line_of(error))
        of_part = "" if self.number is None else f", part {self.number}"
        return Failure("template", encodable(f"{place}{of_part}: {words}")[:MAX_FAILURE_CHARACTERS])


class _ImagePart(_Part):
    """An image in a message: bytes, an address or a path, as the value of its template, or as its text."""

    def __init__(self, index: int, role: Role, source: str, number: int, detail: str) -> None:
        super().__init__(index, role, source, number)
        self._detail = detail
        self._value = None if self.expression is None else _Value(self.expression, self.uses)

    def part(self, values: Mapping[str, object]) -> ImagePart:
        """The image for a row, unread. Raises `ContentError` for a value that is none."""
        return image_of(self.render(values).strip() if self._value is None else self._value.value(values), self._detail)


class _Parts:
    """A message of several parts, or of an image."""

    has_parts: Literal[True] = True
    constant = None

    def __init__(self, index: int, role: Role, parts: Sequence[PartTemplate]) -> None:
        self.index = index
        self.role = role
        self.parts = tuple(
            _ImagePart(index, role, source, number, detail) if kind == "image" else _Part(index, role, source, number)
            for number, (kind, source, detail) in enumerate(parts, 1)
        )
        self.text = "\n".join(part.text for part in self.parts)

    def check(self, columns: Sequence[str]) -> None:
        """The same as of a message of text."""
        for part in self.parts:
            part.check(columns)

    def message(self, values: Mapping[str, object]) -> Message | Failure:
        """The message for a row, its images unread."""
        made: list[Part] = []
        for part in self.parts:
            try:
                made.append(part.part(values))
            except Exception as error:  # noqa: BLE001 - any error of a template is its row's failure alone
                return part.failure(error)
        return Message(self.role, tuple(made))


def _only_expression(tree: nodes.Template) -> nodes.Expr | None:
    """What stands between the braces of a template that has nothing else, blanks around it apart."""
    pieces = [
        piece
        for output in tree.body
        for piece in (output.nodes if isinstance(output, nodes.Output) else [output])
        if not (isinstance(piece, nodes.TemplateData) and not piece.data.strip())
    ]
    only = pieces[0] if len(pieces) == 1 else None
    return only if isinstance(only, nodes.Expr) and not isinstance(only, nodes.TemplateData) else None


def _parts_of(message: "_Part | _Parts") -> Sequence[_Part]:
    return message.parts if isinstance(message, _Parts) else (message,)


def _same_text(part: _Part) -> str | None:
    """The text of a part that is the same for all rows; None where it is not, and for an image."""
    return None if part.constant is None or isinstance(part, _ImagePart) else part.constant.text


class PromptTemplate:
    """A compiled prompt, which turns rows into messages. `compile_prompt` makes it; nothing changes it."""

    def __init__(
        self,
        messages: Sequence[tuple[Role, str | Sequence[PartTemplate]]],
        *,
        refuse_empty: bool,
        choices_of: questions.ChoiceSettings | None = None,
    ) -> None:
        self._parts = tuple(
            _Part(index, role, source) if isinstance(source, str) else _Parts(index, role, source)
            for index, (role, source) in enumerate(messages)
        )
        templates = [part for message in self._parts for part in _parts_of(message)]
        named = frozenset(name for part in templates for name in part.uses.lines)
        self.needs_all_columns = any(part.uses.all_columns for part in templates)
        self._choices_of = choices_of if self.needs_all_columns or questions.NAME in named else None
        computed = frozenset[str]() if self._choices_of is None else questions.columns_of(self._choices_of)
        self.columns_needed = named if self._choices_of is None else (named - {questions.NAME}) | computed
        """The columns that the templates name, and those in which the choices may be that they show."""
        """Whether a template uses the row as a whole, so that `render` needs every column."""
        self.texts = tuple(part.text for part in self._parts)
        """The plain text of each message's template, with a line break for what stands between braces."""
        self._same_texts = tuple(tuple(map(_same_text, _parts_of(part))) for part in self._parts)
        asked = [part.index for part in self._parts if part.role == "user"] or [len(self._parts) - 1]
        self._question = asked[-1] if refuse_empty else None
        place = _place(asked[-1], self._parts[asked[-1]].role, None)
        self.empty = Failure("template", f"{place}: empty or blank, so nothing was sent ({EMPTY_HINT})")
        """What `render` gives for a row whose prompt is empty."""

    @property
    def is_constant(self) -> bool:
        """Whether no message uses a column, so that all rows get the same prompt."""
        return not self.columns_needed and not self.needs_all_columns

    def same_texts(self, messages: Sequence[Message]) -> tuple[tuple[str | None, ...], ...]:  # noqa: ARG002 - as a conversation's
        """Of each part of a row's messages the text, where it is the same for all rows; None for all others."""
        return self._same_texts

    @property
    def shows_choices(self) -> bool:
        """Whether a template shows the choices of a question that the job tells of."""
        return self._choices_of is not None

    def check(self, columns: Sequence[str]) -> None:
        """Raise `TemplateError` for a table with these columns, if a template names one that is not among them."""
        if self._choices_of is not None:
            self._check_choices(self._choices_of, columns)
            columns = list(dict.fromkeys([*columns, questions.NAME]))
        for part in self._parts:
            part.check(columns)

    def _check_choices(self, settings: questions.ChoiceSettings, columns: Sequence[str]) -> None:
        for path in settings.columns:
            if column_of(path, columns) is None:
                words = f"choices.columns: {no_column(roots(path)[-1], columns)}"
                raise TemplateError(words, index=0, role=self._parts[0].role)

    def render(self, values: Mapping[str, object]) -> tuple[Message, ...] | Failure:
        """The messages for a row, given as column -> value; a `Failure` of kind "template" if it can't be rendered.

        Values print as `printing.text_of` writes them, lone surrogates become U+FFFD. A prompt whose last message of a
        user shows nothing is refused with `empty`, where it is to be. Raises nothing.
        """
        messages: list[Message] = []
        if self._choices_of is not None:
            try:
                values = questions.over(self._choices_of, values)
            except Exception as error:  # noqa: BLE001 - a value can fail to print in any way it likes
                return Failure("template", encodable(f"choices: {_words(error)}")[:MAX_FAILURE_CHARACTERS])
        try:
            for part in self._parts:
                if part.has_parts is True:
                    made = part.message(values)
                    if isinstance(made, Failure):
                        return made
                    messages.append(made)
                else:
                    message = part.constant or Message(part.role, (TextPart(part.render(values)),))
                    messages.append(message)  # in a loop, because their number tells which one failed
        except Exception as error:  # noqa: BLE001 - any error of a template is its row's failure alone
            return _parts_of(self._parts[len(messages)])[0].failure(error)
        if self._question is not None and _BLANK.fullmatch(messages[self._question].content[0].text) is not None:
            return self.empty if is_blank(messages[self._question].content) else tuple(messages)
        return tuple(messages)


def compile_prompt(
    messages: Sequence[tuple[Role, str | Sequence[PartTemplate]]],
    *,
    refuse_empty: bool = False,
    choices_of: questions.ChoiceSettings | None = None,
) -> PromptTemplate:
    """Compile (role, template) pairs; in place of a template a list of parts.

    Text in a template is sent as it is written, including a line break at its end. `refuse_empty`: a row whose prompt
    is empty or blank can't be rendered. `choices_of`: where the choices of a question are, which the name `choices`
    stands for then. Raises `TemplateError`.
    """
    return PromptTemplate(messages, refuse_empty=refuse_empty, choices_of=choices_of)


def is_blank(content: Sequence[Part]) -> bool:
    """Whether a message shows nothing: no image, and no text that can be seen."""
    return all(type(part) is TextPart and _BLANK.fullmatch(part.text) for part in content)


def _place(index: int, role: Role, line: int | None) -> str:
    return f"prompt message {index + 1} ({role})" + (f", template line {line}" if line else "")


def _words(error: Exception) -> str:
    if isinstance(error, JinjaError):
        return str(error.message)
    if isinstance(error, ContentError | ChoicesError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _line_of(error: Exception) -> int | None:
    """The template line of an error while rendering, which Jinja2 writes into the traceback."""
    line, trace = None, error.__traceback__
    while trace:
        line = trace.tb_lineno if "__jinja_exception__" in trace.tb_frame.f_globals else line
        trace = trace.tb_next
    return line


def _hint(error: TemplateSyntaxError, source: str) -> str | None:
    if isinstance(error, _RefusedError):
        return error.hint
    unknown = re.fullmatch(r"No (filter|test) named '(\w+)'\.", str(error.message))
    if unknown:
        return _unknown_name_hint(unknown[1], unknown[2])
    typed = typed_expression(source, error.lineno)
    return _BRACES_HINT + (f", here {reach(typed)}" if typed else "")


def _unknown_name_hint(kind: str, name: str) -> str | None:
    if name == "random":
        return _NO_RANDOM_HINT
    known = ENVIRONMENT.filters if kind == "filter" else ENVIRONMENT.tests
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else None
