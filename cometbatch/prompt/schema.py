"""Structured answers: the user's schema or pattern, compiled, and the check of an answer's text against it.

Hides the validator (the extra `schema`), which is loaded only where a job asks for it. Formats are checked, patterns
run on an engine whose time is linear in the text, and nothing is ever fetched.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cometbatch.prompt.answer_text import bare, read_json
from cometbatch.prompt.answers import MAX_LINE_CHARS, MAX_WORDS, Checker, Fits, Misfit, Verdict
from cometbatch.prompt.nulls import Nulls
from cometbatch.prompt.schema_tree import Path, Schema, all_schemas, pointer_of, target_of
from cometbatch.prompt.shape import WHOLE_VALUE, UnfitError, columns_of, converted, converter, has_property_columns

if TYPE_CHECKING:
    import jsonschema_rs

MISSING_EXTRA: Final = "needs the package jsonschema-rs"
_IN_PLACE: Final = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_NAME: Final = str.isidentifier
_TAIL_CHARS: Final = 110  # of a message that is too long: its end says what is wrong, its beginning quotes the value


class SchemaError(ValueError):
    """A schema or pattern can't be used. `path`: where in the schema, as in `#/properties/urgency`."""

    def __init__(self, words: str, path: str = "#") -> None:
        super().__init__(words)
        self.path = path


class MissingExtraError(Exception):
    """The validator is not installed."""


def compile_schema(schema: Schema) -> "jsonschema_rs.Validator":
    """What checks values against a schema. Raises `SchemaError`, and `MissingExtraError` without the validator."""
    _refuse_references(schema)
    return _compiled(schema)


def within(schema: Schema) -> "jsonschema_rs.ValidatorMap":
    """What checks values against each schema within a schema, by `pointer_of` its path. Raises as `compile_schema`."""
    import jsonschema_rs  # noqa: PLC0415 - an extra, and most runs do not need it

    options = jsonschema_rs.RegexOptions()
    return jsonschema_rs.validator_map_for(schema, validate_formats=True, pattern_options=options, offline=True)


def _compiled(schema: Schema) -> "jsonschema_rs.Validator":
    try:
        import jsonschema_rs  # noqa: PLC0415 - an extra, and most runs do not need it
    except ModuleNotFoundError:
        raise MissingExtraError(MISSING_EXTRA) from None
    try:
        return jsonschema_rs.validator_for(
            schema, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except jsonschema_rs.ValidationError as error:
        path = pointer_of(tuple(error.instance_path))
        if error.message.endswith('is not a "regex"'):
            raise SchemaError(f"{_cut(error.message)}: look-around and back-references can't be used", path) from None
        raise SchemaError(_cut(error.message), path) from None


def _refuse_references(root: Schema) -> None:
    """Raise `SchemaError` for a `$ref` to somewhere else, to nowhere, or back to itself by way of others."""
    for path, schema in all_schemas(root):
        for word in ("$ref", "$dynamicRef", "$recursiveRef"):
            if word not in schema:
                continue
            if target_of(root, schema[word]) is None:
                named = f"{word} {_cut(str(schema[word]))}"
                is_elsewhere = not str(schema[word]).startswith("#")
                words = "is not in the schema itself, and nothing is fetched: copy it into $defs"
                raise SchemaError(f"{named} {words if is_elsewhere else 'leads nowhere'}", pointer_of(path))
            if word != "$ref":
                raise SchemaError(f"{word} is not known here: use $ref", pointer_of(path))
    for path, schema in all_schemas(root):
        if _leads_back(root, schema, (path,)):
            raise SchemaError("$ref leads back to itself, so that it says nothing", pointer_of(path))


def _leads_back(root: Schema, schema: Schema, seen: tuple[Path, ...]) -> bool:
    """Whether what applies to the same value as a schema comes back to a place that was seen."""
    for path, inner in _applied_in_place(root, schema, seen[-1]):
        if path in seen or _leads_back(root, inner, (*seen, path)):
            return True
    return False


def _applied_in_place(root: Schema, schema: Schema, path: Path) -> Iterator[tuple[Path, Schema]]:
    for word in _IN_PLACE if isinstance(schema, Mapping) else ():
        value = schema.get(word)
        if word == "$ref" and value is not None:
            found = target_of(root, value)
            if found is not None:
                yield found
        elif isinstance(value, Mapping):
            yield (*path, word), value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from (((*path, word, at), each) for at, each in enumerate(value))


class SchemaChecker:
    """Checks answers against a schema, and makes the cells of its columns. `columns`: their shapes by name.

    `nulls_are_added`: answers may hold null for a property that the schema leaves optional, because the schema that was
    sent allows it; such a null is left out. Raises what `compile_schema` raises.
    """

    def __init__(self, schema: Schema, *, nulls_are_added: bool = False) -> None:
        self._validator = compile_schema(schema)
        self._nulls = Nulls(schema, within(schema)) if nulls_are_added else None
        self.columns = columns_of(schema)
        self._is_whole = not has_property_columns(schema)
        made = [(name, converter(shape)) for name, shape in self.columns.items()]
        self._converters = [(name, each) for name, each in made if each is not None]

    def check(self, text: str) -> Verdict:
        """The value in a text that fits, or what is wrong with it."""
        found = self._fitting(text)
        return found if isinstance(found, Misfit) else Fits(found[0])

    def cells(self, text: str) -> dict[str, Any] | None:
        """The cells of an answer by column, in Python's types; None where the text does not fit.

        A property that is missing has no cell.
        """
        found = self._fitting(text)
        return None if isinstance(found, Misfit) else found[1]

    def _fitting(self, text: str) -> tuple[Any, dict[str, Any]] | Misfit:
        """The value, and the cells that it makes."""
        value = read_json(text)
        if isinstance(value, Misfit):
            return value
        if not self._validator.is_valid(value):
            if self._nulls is not None and "null" in text:
                value = self._nulls.without(value)
            if lines := self._words(value):
                return Misfit(lines, is_json=True)
        row = {WHOLE_VALUE: value} if self._is_whole else value if isinstance(value, dict) else {}
        try:
            return value, row | converted(row, self._converters)
        except UnfitError as error:
            path = error.path[1:] if self._is_whole else error.path
            return Misfit((f"{_place(path)}: {error}"[:MAX_LINE_CHARS],), is_json=True)

    def _words(self, value: Any) -> tuple[str, ...]:
        """What is wrong with a value, one line for each."""
        errors = itertools.islice(self._validator.iter_errors(value), MAX_WORDS)
        lines = (line for error in errors for line in _lines(error))
        return tuple(itertools.islice(dict.fromkeys(lines), MAX_WORDS))


def _lines(error: "jsonschema_rs.ValidationError") -> Iterator[str]:
    """The words for an error. Of a choice in which none fits, those of the branch that comes nearest."""
    path = tuple(error.instance_path)
    branches = getattr(error.kind, "context", None)
    if branches and error.kind.name in {"anyOf", "oneOf"}:
        deeper = [branch for branch in branches if branch and not _is_other_type(branch, path)]
        if len(deeper) == 1:
            for each in deeper[0]:
                yield from _lines(each)
            return
    message = error.message
    room = MAX_LINE_CHARS - len(_place(path)) - 2
    if len(message) > room > _TAIL_CHARS:
        message = f"{message[: room - _TAIL_CHARS - 3]}...{message[-_TAIL_CHARS:]}"
    yield f"{_place(path)}: {message}"[:MAX_LINE_CHARS]


def _is_other_type(branch: "Sequence[jsonschema_rs.ValidationError]", place: Path) -> bool:
    """Whether a branch of a choice, which is about the value at `place`, is for values of another type altogether."""
    return any(error.kind.name == "type" and tuple(error.instance_path) == place for error in branch)


def _place(path: Path) -> str:
    """Where a value is in an answer: `$.items[3].name`."""
    steps = (
        f"[{step}]" if not isinstance(step, str) else f".{step}" if _NAME(step) else f"[{step!r}]" for step in path
    )
    return "$" + "".join(steps)


def _cut(words: str) -> str:
    return words if len(words) <= MAX_LINE_CHARS else f"{words[: MAX_LINE_CHARS - 3]}..."


class JsonChecker:
    """Takes every answer that is JSON and nothing else."""

    def check(self, text: str) -> Verdict:
        """The value in a text that is JSON, or why it is none."""
        value = read_json(text)
        return value if isinstance(value, Misfit) else Fits(value)


class PatternChecker:
    """Takes every answer that a regular expression matches as a whole, a fence and space around it left out.

    Raises `SchemaError` for a pattern that the linear engine does not take, and `MissingExtraError`.
    """

    def __init__(self, pattern: str) -> None:
        _compiled({"type": "string", "pattern": pattern})  # by itself: a bracket too many must not end the next one
        self._validator = _compiled({"type": "string", "pattern": f"^(?:{pattern})$"})
        self._words = _cut(f"$: the answer does not match the pattern {pattern}")

    def check(self, text: str) -> Verdict:
        """The bare text where it matches."""
        answer = bare(text)
        if self._validator.is_valid(answer):
            return Fits(answer)
        return Misfit((self._words,), is_json=not isinstance(read_json(text), Misfit))


def checker_for(
    *, schema: Schema = None, pattern: str | None = None, json: bool = False, nulls_are_added: bool = False
) -> Checker | None:
    """What checks answers by these settings, of which one at most is set; None where none is.

    Raises `SchemaError`, and `MissingExtraError` where the validator is not installed.
    """
    if schema is not None:
        return SchemaChecker(schema, nulls_are_added=nulls_are_added)
    if pattern is not None:
        return PatternChecker(pattern)
    return JsonChecker() if json else None
