"""Several files as one table: those of a folder, or those that a pattern names, in the order of their names.

Guards: the same files in the same order on every machine; a name that begins with `_` or `.` is passed over, so that a
run's directory and files that are being written count for nothing. What a run has begun with is a list of files with
sizes and digests: one that changed, is new or is gone is named.
"""

import collections
import fnmatch
import functools
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputChangedError
from cometbatch.input import files
from cometbatch.input.files import Content, FileIdentity, Identity, refuse, shown
from cometbatch.input.jsonl import JsonlLayout, schema_of
from cometbatch.input.table import JSONL_KIND, Layout, Source, open_layout, open_source
from cometbatch.input.values import is_json
from cometbatch.records import Partition

HIDDEN: Final = ("_", ".")
"""How names begin that are passed over."""
MAX_FILES: Final = 100_000  # of a table; their list is in memory and in the run's manifest
_HIDDEN_WORDS: Final = ", and names that begin with _ or . are passed over"
_MAGIC: Final = re.compile(r"[*?\[]")


class FileSet(Struct, frozen=True):
    """A table in several files, each of which is open to be read: its columns are known, and nothing more.

    `path`: the folder or the pattern. `names`: of the files, from the folder on. `schema`: the columns of all.
    """

    path: pathlib.Path
    names: tuple[str, ...]
    sources: tuple[Source, ...]
    schema: pa.Schema
    warnings: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The column names, in order; no two are the same."""
        return tuple(self.schema.names)

    @property
    def hint(self) -> str:
        """Why the first file's header may be read otherwise than meant; "" for no reason."""
        return self.sources[0].hint

    def check(self) -> Identity:
        """Read all files once: after this, every row is known to be readable. Raises `InputError` at the first not."""
        found = [source.check() for source in self.sources]
        listed = tuple(
            FileIdentity(shown(name, limit=files.MAX_PATH_SHOWN), each.size, each.sha256, each.rows)
            for name, each in zip(self.names, found, strict=True)
        )
        size, sha256 = _digest(listed)
        decoded = sum(each.decoded_size for each in found)
        rows = sum(each.rows for each in found)
        return Identity(shown(self.path.name), size, sha256, rows, self.columns, decoded, listed)

    def digest(self) -> tuple[int, str]:
        """Size in bytes of all files, and a SHA-256 (hex) over the list of their names, sizes and digests."""
        return _digest(self._listed())

    def changes(self, was: Identity) -> list[str]:
        """What became of the files that a run began with, in words: which one changed, is new or is gone."""
        before, now = {each.name: each for each in was.files}, {each.name: each for each in self._listed()}
        told = [f"{name} is gone" for name in before if name not in now]
        told += [f"{name} is new" for name in now if name not in before]
        both = [(before[name], now[name]) for name in before if name in now]
        told += [
            f"{one.name} changed (was {one.size:,} bytes, sha256 {one.sha256[:12]}, is {other.size:,} bytes, sha256 "
            f"{other.sha256[:12]})"
            for one, other in both
            if (one.size, one.sha256) != (other.size, other.sha256)
        ]
        return told

    def begins_with(self, size: int, sha256: str) -> bool:  # noqa: ARG002 - a file's; files can't grow by their end alone
        """Whether the first bytes are these: never known of several files."""
        return False

    def tables(self, identity: Identity, partitions: Iterable[Partition]) -> Iterator[pa.Table]:
        """One table for each partition, as `Source.tables` gives them. One file is open at a time."""
        if tuple(each.name for each in identity.files) != self._shown_names():
            raise files.changed(self.path)
        starts = list(itertools.accumulate((each.rows for each in identity.files), initial=0))
        reader = _Reader(self, identity)
        try:
            number = 0
            for partition in partitions:
                first, end = partition.first_row, partition.first_row + partition.row_count
                pieces = []
                while first < end:
                    if first >= starts[-1]:
                        raise files.changed(self.path)
                    while first >= starts[number + 1]:
                        number += 1
                    count = min(end, starts[number + 1]) - first
                    pieces.append(reader.take(number, Partition(partition.index, first - starts[number], count)))
                    first += count
                table = pa.concat_tables(pieces)
                has_dictionary = any(pa.types.is_dictionary(kind) for kind in self.schema.types)
                yield table.unify_dictionaries() if has_dictionary else table
        finally:
            reader.close()

    def _shown_names(self) -> tuple[str, ...]:
        return tuple(shown(name, limit=files.MAX_PATH_SHOWN) for name in self.names)

    def _listed(self) -> tuple[FileIdentity, ...]:
        digests = (source.digest() for source in self.sources)
        return tuple(FileIdentity(name, *each) for name, each in zip(self._shown_names(), digests, strict=True))


AnySource: TypeAlias = Source | FileSet
"""A table in one file or in several."""


def contents_of(source: AnySource) -> tuple[Content, ...]:
    """What each file of a table was found to hold, for another process of this machine that reads them, too."""
    return tuple(each.content for each in (source.sources if isinstance(source, FileSet) else (source,)))


def with_contents(source: AnySource, contents: Sequence[Content]) -> AnySource:
    """A table with what another process of this machine found in its files, in place of what was found here.

    So a file that has changed since then is noticed, and one that has not is not read whole.
    """
    sources = source.sources if isinstance(source, FileSet) else (source,)
    if len(sources) != len(contents):  # other files by now, which is told when they are read
        return source
    own = tuple(map(_with_content, sources, contents))
    return msgspec.structs.replace(source, sources=own) if isinstance(source, FileSet) else own[0]


def _with_content(source: Source, content: Content) -> Source:
    return msgspec.structs.replace(source, content=content)


class _Reader:
    """Takes ranges of rows, in ascending order, out of one file after the other."""

    def __init__(self, of: FileSet, identity: Identity) -> None:
        self._of = of
        self._identity = identity
        self._number = -1
        self._asked: collections.deque[Partition] = collections.deque()
        self._tables: Iterator[pa.Table] | None = None

    def take(self, number: int, wanted: Partition) -> pa.Table:
        """The rows of one file, under the columns of all."""
        if number != self._number:
            self.close()
            self._number, file = number, self._identity.files[number]
            one = Identity(file.name, file.size, file.sha256, file.rows, self._of.columns, self._decoded_size(file))
            self._tables = self._of.sources[number].tables(one, iter(self._asked.popleft, None))
        self._asked.append(wanted)
        try:
            table = next(self._tables)  # type: ignore[arg-type]  # opened above
        except InputChangedError as error:
            if error.as_it_was is None:
                raise
            raise files.changed(self._of.sources[number].path) from None  # the first bytes of one file are no table
        columns = [
            pa.nulls(table.num_rows, field.type) if pa.types.is_null(column.type) else column
            for column, field in zip(table.columns, self._of.schema, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=self._of.schema)

    def _decoded_size(self, file: FileIdentity) -> int:
        """Of a file, as large as its share of all rows."""
        return self._identity.decoded_size * file.rows // max(1, self._identity.rows)

    def close(self) -> None:
        """Close the file that is open."""
        if self._tables is not None:
            self._tables.close()  # type: ignore[attr-defined]  # a generator
            self._tables = None


def _digest(listed: Iterable[FileIdentity]) -> tuple[int, str]:
    sha256, size = hashlib.sha256(), 0
    for each in listed:
        sha256.update(msgspec.json.encode([each.name, each.size, each.sha256]) + b"\n")
        size += each.size
    return size, sha256.hexdigest()


# ---------------------------------------------------------------- opening


def first_file(path: pathlib.Path) -> pathlib.Path:
    """The file of an input with which its rows begin. Raises `InputError` where there is none."""
    return _files_of(path).paths[0] if is_several(path) else path


def open_input(
    path: pathlib.Path,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    layout_of: Callable[[pathlib.Path], Layout] | None = None,
) -> AnySource:
    """Look at the columns of a file, of a folder's files, or of those that a pattern names.

    `encoding` and `delimiter` are for CSV and TSV. `layout_of`: how each file is read, where its ending does not say
    it; called in the order of the rows. Raises `InputError` as `open_source` does, where no file is found,
    and where the files are not of one kind and one schema.
    """
    if not is_several(path):
        if layout_of is not None:
            return Source(path, layout_of(path))
        if not files.ending_of(path.name) and not os.path.lexists(path):
            refuse(path, "there is no such folder")
        return open_source(path, encoding=encoding, delimiter=delimiter)
    found = _files_of(path)
    kind = _kind_of(path, found.paths)
    read = layout_of or functools.partial(_opened, kind=kind, encoding=encoding, delimiter=delimiter)
    several = [read(each) for each in found.paths]
    layouts = [each for each in several if isinstance(each, JsonlLayout)]
    if layouts:
        schema = schema_of(layout.scan for layout in layouts)
        opened: list[Layout] = [msgspec.structs.replace(layout, schema=schema) for layout in layouts]
        if not schema.names:
            refuse(path, "has no columns: no line of its files has a name and a value")
    else:
        opened, schema = several, _common_schema(found.paths, several)
    warnings = dict.fromkeys((*found.warnings, *(words for layout in opened for words in layout.warnings)))
    sources = tuple(Source(each, layout) for each, layout in zip(found.paths, opened, strict=True))
    names = tuple(os.path.relpath(each, found.root) for each in found.paths)
    return FileSet(path, names, sources, schema, tuple(warnings))


def is_several(path: pathlib.Path) -> bool:
    """Whether an input is a folder or a pattern. A part of a path that exists as it is written is no pattern."""
    return os.path.isdir(path) or _pattern_of(path) is not None  # noqa: PTH112 - False for names that are too long


def is_there(path: pathlib.Path) -> bool:
    """Whether an input is there: a file, a folder, or a file that fits a pattern; also one that can't be looked at."""
    try:
        return os.path.lexists(path) or next(_matching(path), None) is not None
    except OSError:
        return True


def would_take(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether a table at `other` would be one of the files of an input that is a folder or a pattern."""
    if not is_several(path) or not files.ending_of(other.name):
        return False
    root, parts = _pattern_of(path) or (path, ("*",))
    places = [(other, root), (other.parent.resolve() / other.name, root.resolve())]
    return any(place.is_relative_to(start) and _fits(place.relative_to(start).parts, parts) for place, start in places)


class _Found(Struct, frozen=True):
    root: pathlib.Path
    paths: list[pathlib.Path]
    warnings: tuple[str, ...] = ()


def _pattern_of(path: pathlib.Path) -> tuple[pathlib.Path, tuple[str, ...]] | None:
    """The folder from which a pattern starts, and its parts; None for a path that is none."""
    root = pathlib.Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    for at, part in enumerate(parts):
        if _MAGIC.search(part) and not os.path.lexists(root / part):
            return root, parts[at:]
        root /= part
    return None


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a file, by its names from the root of a pattern on, is one that the pattern names."""
    if not names or not parts:
        return not names and not parts
    rest = not names[0].startswith(HIDDEN) and (parts[0] == "**" or fnmatch.fnmatchcase(names[0], parts[0]))
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (rest and (len(parts) == len(names) == 1 or _fits(names[1:], parts)))
    return rest and _fits(names[1:], parts[1:])


def _matching(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that a pattern names, in any order. Raises `OSError` where a folder can't be read: it is not empty."""
    found = _pattern_of(path)
    if found is not None and found[0].is_dir():
        yield from _below(*found)


def _below(folder: pathlib.Path, parts: Sequence[str]) -> Iterator[pathlib.Path]:
    """The files below a folder that these parts of a pattern name. `**` passes through no link, which may be a loop."""
    first, rest = parts[0], parts[1:]
    if first == "**" and rest:
        yield from _below(folder, rest)
    for path in folder.iterdir():
        if path.name.startswith(HIDDEN) or not (first == "**" or fnmatch.fnmatchcase(path.name, first)):
            continue
        if not path.is_dir():
            if not rest:
                yield path
        elif first == "**" and not path.is_symlink():
            yield from _below(path, parts)
        elif first != "**" and rest:
            yield from _below(path, rest)


def _files_of(path: pathlib.Path) -> _Found:
    """The files of a folder or a pattern, in the order of their names. Raises `InputError` where there is none."""
    with files.refusing(path):
        found = _in_folder(path) if os.path.isdir(path) else _of_pattern(path)  # noqa: PTH112 - the same
    if len(found.paths) > MAX_FILES:
        refuse(path, f"holds {len(found.paths):,} files; a table may have {MAX_FILES:,}")
    return found


def _in_folder(folder: pathlib.Path) -> _Found:
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith(HIDDEN))
    folders = [name for name in names if (folder / name).is_dir()]
    there = [name for name in names if name not in set(folders)]
    tables = [name for name in there if files.ending_of(name)]
    others = [name for name in there if not files.ending_of(name)]
    told = [(folders, "folder"), (others, "file of another kind")]
    warnings = tuple(_passed_over(folder, each, what) for each, what in told if each)
    if not tables:
        hint = f"; for the files of its folders write {shown(str(folder))}/**/*.parquet, or the like" if folders else ""
        refuse(folder, f"is a folder without a table: its files must end in {files.KNOWN_ENDINGS}{_HIDDEN_WORDS}{hint}")
    return _Found(folder, [folder / name for name in tables], warnings)


def _passed_over(folder: pathlib.Path, names: Sequence[str], what: str) -> str:
    first, rest = shown(names[0]), f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"input.path: {shown(str(folder))} holds a {what} that is passed over: {first}{rest}"


def _of_pattern(path: pathlib.Path) -> _Found:
    root, _ = _pattern_of(path) or (path, ())
    found = sorted(set(_matching(path)), key=lambda each: each.relative_to(root).parts)
    if not found:
        refuse(path, f"no file fits this pattern{_HIDDEN_WORDS}")
    unknown = next((each for each in found if not files.ending_of(each.name)), None)
    if unknown is not None:
        refuse(unknown, f"fits {shown(path.name)}, and its ending is none of {files.KNOWN_ENDINGS}: narrow the pattern")
    return _Found(root, found)


def _kind_of(path: pathlib.Path, paths: Sequence[pathlib.Path]) -> str:
    kinds = {files.kind_of(each.name): each.name for each in reversed(paths)}
    if len(kinds) > 1:
        (one, first), (other, second), *_ = sorted(kinds.items())
        words = f"holds {one} and {other} files ({shown(first)}, {shown(second)}), and a table is of one kind"
        refuse(path, f"{words}: name one with a pattern, such as *{one}")
    return next(iter(kinds))


def _opened(path: pathlib.Path, kind: str, encoding: str, delimiter: str | None) -> Layout:
    """A file of a set. One of JSON Lines may be empty: what writes in pieces leaves such ones."""
    with files.refusing(path), files.opened(path) as file:
        if file.size == 0 and kind != JSONL_KIND:
            refuse(path, "is empty; a table needs at least a header line")
        layout = open_layout(file, kind, encoding, delimiter)
        files.refuse_duplicates(path, layout.schema.names)
        return layout


def _common_schema(paths: Sequence[pathlib.Path], layouts: Sequence[Layout]) -> pa.Schema:
    """The schema of the first file, which all must have. Raises `InputError` with the first file and column not.

    A column that has no type in a file, since all its cells are null, has that of the first file where it has one.
    """
    first = layouts[0].schema
    fields = list(first)
    for path, layout in zip(paths[1:], layouts[1:], strict=True):
        if words := _difference(fields, layout.schema):
            refuse(path, f"{words}; all files of a table must have the columns of the first, {shown(paths[0].name)}")
        fields = [two if pa.types.is_null(one.type) else one for one, two in zip(fields, layout.schema, strict=True)]
    fields = [pa.field(each.name, each.type, nullable=True, metadata=each.metadata) for each in fields]
    return pa.schema(fields, first.metadata)


def _difference(first: Sequence[pa.Field], other: pa.Schema) -> str:
    """In which column another file differs, in words; "" where it does not."""
    names = {field.name for field in first}
    lacks = [field.name for field in first if field.name not in set(other.names)]
    more = [name for name in other.names if name not in names]
    if lacks or more:
        told = [f'column "{shown(name)}" is missing' for name in lacks[:1]]
        told += [f'column "{shown(name)}" is not in the first file' for name in more[:1]]
        return " and ".join(told)
    for position, (one, two) in enumerate(zip(first, other, strict=True), start=1):
        if one.name != two.name:
            return f'column {position} is "{shown(two.name)}", not "{shown(one.name)}"'
        if pa.types.is_null(one.type) or pa.types.is_null(two.type):
            continue
        if one.type != two.type or is_json(one) != is_json(two):
            is_of = [f"{each.type}{' (JSON)' if is_json(each) else ''}" for each in (two, one)]
            return f'column "{shown(two.name)}" is {shown(is_of[0])}, not {shown(is_of[1])}'
    return ""
