"""A first look at a table: which column names its rows, which has the longest texts, and what the first rows hold."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from cometbatch.commands.looks import PLAN_BYTES
from cometbatch.input.file_set import AnySource
from cometbatch.input.files import Identity, shown
from cometbatch.input.seen import Seen
from cometbatch.input.table import partitions
from cometbatch.input.values import is_json, row_values
from cometbatch.job.secrets import is_secret

ROWS_SHOWN: Final = 3
COLUMNS_SHOWN: Final = 8  # of a row; the id and the longest texts are always among them
MAX_CHARACTERS: Final = 400  # of a cell that are looked at for a line of a terminal
MAX_ID_NAME: Final = 200  # characters; a job file could not name a column with line breaks or of thousands of letters
MAX_CANDIDATES: Final = 4  # columns looked at whether they name each row: what was seen of each takes up to 31 MB
READ_BYTES: Final = 8 << 20  # of the table in memory at a time
READ_ROWS: Final = 8_192  # the same in rows, at most

_NAMED_ID: Final = ("custom_id", "id", "_id", "uuid", "guid", "uid", "key", "pk")
_LIKE_ID: Final = re.compile(r".*[_\-. ](?:id|uuid|guid|key|no|nr|num|number|code|ref)", re.IGNORECASE | re.DOTALL)
_CAMEL_ID: Final = re.compile(r".*[a-z0-9](?:Id|ID|Uuid|UUID|Guid|Key|No|Nr|Number)", re.DOTALL)


class FirstLook(Struct, frozen=True):
    """What a table was found to hold.

    `id_column`: the first that is named like an id and holds another value, and never none, in each row; None where
    there is no such column. `text_column`: that with the longest texts, all rows together, JSON only where there are no
    other texts; where no column has texts, the first that is not the id. `has_texts`: whether it has some. `rows`: the
    values of the first ones.
    """

    id_column: str | None
    text_column: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, object], ...]
    has_texts: bool = True

    @property
    def messages_column(self) -> str | None:
        """The first column that holds a conversation, a list of messages, in each of the first rows; None for none."""
        every = self.columns if self.rows else ()
        return next((name for name in every if all(_is_conversation(row[name]) for row in self.rows)), None)

    def lines(self, width: int) -> Iterator[str]:
        """The first rows, a line for each cell, cut to this many columns of a terminal."""
        first = [name for name in (self.id_column, self.text_column) if name is not None]
        others = [name for name in self.columns if name not in first]
        chosen = {*first, *others[: COLUMNS_SHOWN - len(first)]}
        names = [name for name in self.columns if name in chosen]
        for number, row in enumerate(self.rows):
            for at, name in enumerate(names):
                lead = f"{number}  " if at == 0 else "   "
                yield cut(f"{lead}{shown(name)}: {as_shown(row[name])}", width)
        if self.rows and len(names) < len(self.columns):
            yield f"   and {len(self.columns) - len(names):,} more columns"


def look_at(source: AnySource, identity: Identity) -> FirstLook:
    """Read a table once, a piece at a time. Raises `InputError` where it changes meanwhile."""
    lengths = {field.name: 0 for field in source.schema if _is_text(field.type)}
    seen = {name: Seen(identity.rows, PLAN_BYTES) for name in _candidates(source.schema)}
    rows: list[Mapping[str, object]] = []
    pieces = partitions(identity.rows, min(READ_ROWS, identity.rows_within(READ_BYTES)))
    for table in source.tables(identity, pieces):
        if not rows:
            rows += row_values(table.slice(0, ROWS_SHOWN), source.columns)
        for name in lengths:
            lengths[name] += pc.sum(pc.utf8_length(table.column(name).cast(pa.large_string()))).as_py() or 0
        for row in row_values(table, [*seen]) if seen else ():
            for name, value in row.items():
                if name in seen and (value in (None, "") or seen[name].add(str(value))):
                    del seen[name]
    named = next(iter(seen), None)
    others = [name for name in source.columns if name != named] or [*source.columns]
    plain = [name for name in others if name in lengths and not is_json(source.schema.field(name))]
    texts = plain or [name for name in others if name in lengths] or others[:1]
    longest = max(texts, key=lambda name: lengths.get(name, 0))
    return FirstLook(named, longest, source.columns, tuple(rows), longest in lengths)


def _candidates(schema: pa.Schema) -> list[str]:
    """Columns that may name each row, by their names and types, the likeliest first."""
    able = [field.name for field in schema if _is_text(field.type) or _is_whole(field.type)]
    able = [name for name in able if name.isprintable() and len(name) <= MAX_ID_NAME]
    exact = [name for known in _NAMED_ID for name in able if name.casefold() == known]
    alike = [name for name in able if _LIKE_ID.fullmatch(name) or _CAMEL_ID.fullmatch(name)]
    return list(dict.fromkeys([*exact, *alike]))[:MAX_CANDIDATES]


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return inner in (pa.string(), pa.large_string()) or getattr(pa.types, "is_string_view", lambda _: False)(inner)


def _is_whole(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or getattr(kind, "extension_name", "") == "arrow.uuid"


def _is_conversation(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in value)
    )


# --- words ---


def as_shown(value: object) -> str:
    """A cell for a person: one line, blanks as single spaces, no control characters, nothing that looks like a key."""
    match value:
        case None:
            return "(null)"
        case bytes():
            return f"({len(value):,} bytes)"
        case dict() | list():
            text = json.dumps(value, ensure_ascii=False, default=str)
        case _:
            text = str(value)
    if is_secret(text):
        return "(looks like a key, so it is not shown)"
    return shown(" ".join(text[:MAX_CHARACTERS].split()), limit=MAX_CHARACTERS) or "(empty)"


def cut(text: str, width: int) -> str:
    """The text in this many columns of a terminal; what does not fit is an ellipsis."""
    used = [0]
    for char in text:
        wide = unicodedata.east_asian_width(char) in "WF"
        used.append(used[-1] + (2 if wide else 0 if unicodedata.combining(char) else 1))
    if used[-1] <= width:
        return text
    return text[: max(at for at, columns in enumerate(used) if columns < width)] + "…"
