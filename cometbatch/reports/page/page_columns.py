"""Which columns a page has, and where each source has them: found by the result's layout, never by a name's look.

A column's name in the page is made here; its `title` is what the result calls it. Those of the output keep their names
without prefix (`_OUTPUT`), others are `file`, `ordinal`, `row`, `model`, `axis:NAME`, `prompt`, `frame`, `input:NAME`,
`typed:NAME` (columns of answers), `score:NAME`, `score:NAME_answer` and `score:NAME_why`. So no column of a user's can
take the name of another.
"""

import contextlib
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from cometbatch.input.values import is_json
from cometbatch.job.matrix import MODEL
from cometbatch.reports.layout import Layout, layout_of
from cometbatch.reports.page.cells import is_text, value_type
from cometbatch.reports.sources import Source, Tables
from cometbatch.results.columns import CUSTOM_ID
from cometbatch.results.rows import JOB_KEY, output_of
from cometbatch.results.score_columns import ANSWER, WHY
from cometbatch.results.slices import ROW, SAMPLE
from cometbatch.results.told import told

Kind: TypeAlias = Literal["number", "word", "short", "text"]
SHORT: Final = 80  # characters (UTF-16 units) of a cell of the kind `short`; longer ones are cut there, and kept beside
LOOKED_AT: Final = 2_000  # rows of a source that tell how long the texts of a column are
MAX_WORDS: Final = 40  # different texts among these rows; a column with more of them is no column of words

FILE: Final = "file"
ORDINAL: Final = "ordinal"
PROMPT: Final = "prompt"
FRAME: Final = "frame"
REQUEST_HASH: Final = "request_hash"


class PageColumn(Struct, frozen=True):
    """A column of the page.

    `name`: unique, made by us. `title`: what the result calls it. `kind`: how its cells are kept. `group`: what it
    tells of. `unit`: of its numbers: "usd", "s", "tokens", "ms" (a moment, since 1970), or "".
    """

    name: str
    title: str
    kind: Kind
    group: str
    unit: str = ""


class SourceColumns(Struct, frozen=True):
    """Where a source has the page's columns.

    `name`: how a person calls the source. `found`: the columns of the result by the page's names. `models`: the model
    of each target, by the number in the column `target`; without such a column the first is that of every row.
    """

    name: str
    found: Mapping[str, str]
    target: str | None
    models: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        """The columns of the result that the page needs, each once."""
        target = [] if self.target is None else [self.target]
        return list(dict.fromkeys([*self.found.values(), *target]))


_OUTPUT: Final[Mapping[str, tuple[Kind, str, str]]] = {
    "status": ("word", "outcome", ""),
    "finish_reason": ("word", "outcome", ""),
    "error_kind": ("word", "outcome", ""),
    "error_message": ("text", "outcome", ""),
    "http_status": ("number", "outcome", ""),
    "response": ("text", "text", ""),
    "reasoning": ("text", "text", ""),
    "tool_calls": ("text", "text", ""),
    "raw": ("text", "text", ""),
    "input_tokens": ("number", "usage", "tokens"),
    "output_tokens": ("number", "usage", "tokens"),
    "cache_read_input_tokens": ("number", "usage", "tokens"),
    "cache_write_input_tokens": ("number", "usage", "tokens"),
    "cache_write_1h_input_tokens": ("number", "usage", "tokens"),
    "reasoning_output_tokens": ("number", "usage", "tokens"),
    "cost_usd": ("number", "usage", "usd"),
    "rejected_cost_usd": ("number", "usage", "usd"),
    "reported_cost_usd": ("number", "usage", "usd"),
    "reused_cost_usd": ("number", "usage", "usd"),
    "cost_excludes": ("word", "usage", ""),
    "attempts": ("number", "sending", ""),
    "asks": ("number", "sending", ""),
    "latency_s": ("number", "sending", "s"),
    "finished_at": ("number", "sending", "ms"),
    "request_id": ("short", "sending", ""),
    "response_model": ("word", "sending", ""),
    "reused_from": ("word", "sending", ""),
    REQUEST_HASH: ("text", "sending", ""),
}
"""The columns of the output that a page shows: kind, group, unit; in the order in which a reader wants them."""
_GROUPS: Final = ("call", "outcome", "text", "score", "typed", "input", "usage", "sending")


class Columns:
    """The columns of a page, of all of its sources together. What a source lacks is null there.

    `described`: the page's columns in the order for a reader. `sources`: where each source has them. `golds`: by score,
    the page's column with the right answers, where the score's settings name one of the input.
    """

    def __init__(
        self, described: Iterable[PageColumn], sources: Iterable[SourceColumns], golds: Mapping[str, str]
    ) -> None:
        self.described = tuple(described)
        self.sources = tuple(sources)
        self.golds = dict(golds)

    @classmethod
    def of(cls, sources: Sequence[Source], *, has_prompts: bool) -> "Columns":
        """The columns of these results. `has_prompts`: whether the prompts of some of them are handed in.

        Reads the first rows of each, which tell the length of texts. Raises `InputError` where one can't be read, or
        is no result.
        """
        found = [_Found(each) for each in sources]
        merged: dict[str, PageColumn] = {}
        for each in found:
            for column in each.described:
                other = merged.setdefault(column.name, column)
                merged[column.name] = other if other.kind == column.kind else _wider(other, column)
        if has_prompts:
            merged[PROMPT] = PageColumn(PROMPT, PROMPT, "text", "text")
            merged[FRAME] = PageColumn(FRAME, FRAME, "number", "sending")
        told = {name for each in found for name in each.single}
        varied = {name for name in told if len({each.single.get(name) for each in found}) > 1}
        shown = [column for column in merged.values() if column.name not in told - varied]
        order = {name: at for at, name in enumerate((FILE, ORDINAL, ROW, CUSTOM_ID, MODEL, PROMPT, *_OUTPUT, FRAME))}
        shown.sort(key=lambda column: (_GROUPS.index(column.group), order.get(column.name, _place(column))))
        golds = {score: gold for each in reversed(found) for score, gold in each.golds.items()}
        return cls(_titled_once(shown), [each.columns for each in found], golds)

    def read(self, file: int) -> list[str]:
        """The columns that are read of a source, by their names in the result."""
        return self.sources[file].read

    def to_list(self) -> list[dict[str, str]]:
        """JSON-ready, as the page's meta has them."""
        return [msgspec.structs.asdict(each) for each in self.described]


def axis_column(axis: str) -> str:
    """The page's column with the labels of an axis."""
    return MODEL if axis == MODEL else f"axis:{axis}"


def gold_column(settings: Mapping[str, Any], inputs: Collection[str]) -> str | None:
    """The page's column with the right answers of a score; None where its settings name no column of the input.

    `settings`: of the score; its gold may be a path into a column. `inputs`: the columns of the input.
    """
    named = str(settings.get("gold") or "")
    tried = (named, named.partition(".")[0], named.partition("[")[0])
    return next((f"input:{name}" for name in tried if name in inputs), None)


def _place(column: PageColumn) -> int:
    """Others come after those with a place of their own; the axes before the number of the sample."""
    return 1_001 if column.name == SAMPLE else 1_000


def _titled_once(columns: Sequence[PageColumn]) -> list[PageColumn]:
    """The columns, each with a title of its own: a CSV or JSON of a row can't tell two of one title apart.

    A column of the input keeps its name; of the others the later one gets `cometbatch.` before its title.
    """
    taken = {each.title for each in columns if each.group == "input"}
    titled = []
    for each in columns:
        title = each.title
        if each.group != "input":
            while title in taken:
                title = f"cometbatch.{title}"
            taken.add(title)
        titled.append(msgspec.structs.replace(each, title=title))
    return titled


def _wider(one: PageColumn, other: PageColumn) -> PageColumn:
    """A column of the same name that holds what both hold."""
    kinds = {one.kind, other.kind}
    kind: Kind = "text" if "text" in kinds else "short"
    return PageColumn(one.name, one.title, kind, one.group)


class _Found:
    """The page's columns of one source. `single`: the label of each axis that has no other one here."""

    def __init__(self, source: Source) -> None:
        self._schema, self._layout = source.schema, layout_of(source.schema, source.name)
        self._look = _Look(source, self._schema)
        self._id = _name_column(self._schema, self._layout)
        self.described: list[PageColumn] = []
        self._names: dict[str, str] = {}
        self.single: dict[str, object] = {}
        layout = self._layout
        self.described.extend(
            [
                PageColumn(FILE, FILE, "word", "call"),
                PageColumn(ORDINAL, ORDINAL, "number", "call"),
                PageColumn(ROW, layout.row or ROW, "number", "call"),
                PageColumn(MODEL, layout.axes.get(MODEL, MODEL), "word", "call"),
            ]
        )
        self._calls()
        self._outputs()
        self._others()
        self.columns = SourceColumns(source.name, self._names, layout.target, layout.models)
        golds = {name: gold_column(settings, layout.inputs) for name, settings in layout.scores.items()}
        self.golds = {name: gold for name, gold in golds.items() if gold is not None}

    def _add(self, name: str, column: str, kind: Kind, group: str, unit: str = "") -> None:
        self._names[name] = column
        self.described.append(PageColumn(name, column, kind, group, unit))

    def _calls(self) -> None:
        layout = self._layout
        if layout.row is not None:
            self._names[ROW] = layout.row
        if layout.custom_id is not None:
            self._add(CUSTOM_ID, layout.custom_id, "short", "call")
            if self._id is not None:
                self.described[-1] = msgspec.structs.replace(self.described[-1], title=self._id)
        for axis, column in layout.axes.items():
            if axis == MODEL:
                self._names[MODEL] = column
                continue
            self._add(axis_column(axis), column, "word", "call")
            labels = {repr(cell.get(axis)) for cell in layout.cells}
            if len(labels) == 1:
                self.single[axis_column(axis)] = labels.pop()
        if layout.axes and layout.prefix + SAMPLE in self._schema.names:
            self._add(SAMPLE, layout.prefix + SAMPLE, "number", "call")

    def _outputs(self) -> None:
        found = output_of(self._schema)
        for column in found[1] if found is not None else ():
            if column.name in _OUTPUT:
                self._add(column.name, self._layout.prefix + column.name, *_OUTPUT[column.name])

    def _others(self) -> None:
        """Scores, answers' own columns, and the input's, in the order of the result."""
        layout = self._layout
        scores = {
            start + end: (f"score:{name}{end}", end)
            for name, start in layout.score_columns.items()
            for end in ("", ANSWER, WHY)
        }
        own = {layout.prefix + each for each in (SAMPLE, ROW)} | set(layout.axes.values()) if layout.axes else set()
        found = output_of(self._schema)
        own |= {layout.prefix + column.name for column in (found[1] if found is not None else ())}
        for field in self._schema:
            if field.name in layout.inputs:
                if field.name not in (layout.custom_id, self._id):
                    self._add(f"input:{field.name}", field.name, self._look.kind(field), "input")
            elif field.name in scores:
                name, end = scores[field.name]
                kind = "number" if not end else self._look.kind(field, words=end == WHY)
                self._add(name, field.name, kind, "score")
            elif field.name not in own and field.name != layout.target:
                name = field.name.removeprefix(layout.prefix)
                self._add(f"typed:{name}", field.name, self._look.kind(field, words=True), "typed")


def _name_column(schema: pa.Schema, layout: Layout) -> str | None:
    """The input's own column of names, if it is one of texts: the same as `custom_id`, so that it is shown once."""
    try:
        name = told((schema.metadata or {})[JOB_KEY.encode()].decode(errors="replace"))["input"]["id"]
    except (KeyError, TypeError):
        return None
    is_same = isinstance(name, str) and name in layout.inputs and layout.custom_id not in layout.inputs
    return name if is_same and is_text(value_type(schema.field(name).type)) else None


class _Look:
    """The first rows of a source: how long the texts of its columns are."""

    def __init__(self, source: Source, schema: pa.Schema) -> None:
        self._texts = [field.name for field in schema if _may_be_short(field)]
        self._tables = source.tables(self._texts)
        self._first: pa.Table | None = None

    def _rows(self) -> pa.Table | None:
        if self._first is None and self._texts:
            with contextlib.closing(_generator(self._tables)) as tables:
                self._first = next((table.slice(0, LOOKED_AT) for _, table in tables), None)
        return self._first

    def kind(self, field: pa.Field, *, words: bool = False) -> Kind:
        """Of a column. `words`: whether texts that repeat are words."""
        kind = value_type(field.type)
        if pa.types.is_boolean(kind):
            return "word"
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return "number"
        if not _may_be_short(field):
            return "short" if pa.types.is_temporal(kind) else "text"
        first = self._rows()
        if first is None or first.column(field.name).null_count == first.num_rows:
            return "text"
        texts = first.column(field.name).combine_chunks()
        texts = (texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts).cast(pa.large_string())
        if pc.max(pc.binary_length(texts)).as_py() > SHORT and pc.max(pc.utf8_length(texts)).as_py() > SHORT // 2:
            return "text"
        return "word" if words and pc.count_distinct(texts).as_py() <= MAX_WORDS else "short"


def _may_be_short(field: pa.Field) -> bool:
    return is_text(value_type(field.type)) and not is_json(field)


def _generator(tables: Tables) -> Generator[tuple[Sequence[int], pa.Table], None, None]:
    yield from tables
