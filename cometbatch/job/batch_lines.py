"""The lines of a vendor's batch file as a table: one row a line, the body as it is written, each line checked.

Law: what `measure` lets pass is made into a request without an error, and as the file has it.
"""

import io
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.control.bounds import remote_parts, unbounded
from cometbatch.input import files
from cometbatch.input.file_set import AnySource, open_input
from cometbatch.input.files import Identity, Measured, refuse, shown
from cometbatch.input.lines import Line, lines
from cometbatch.input.packed import coding_of, unpacked
from cometbatch.input.seen import Seen
from cometbatch.job.settings import Job
from cometbatch.job.vendor_batch import (
    VENDORS,
    Vendor,
    WrongLineError,
    body_of,
    cells_of,
    format_of,
    is_filled,
)
from cometbatch.wire import FormatName
from cometbatch.wire.request_extra import unkept
from cometbatch.wire.whole_bodies import WholeRequest, is_streamed, request_reader, second_answer

BATCH_BYTES = 1 << 20  # of lines in one batch of rows; a longer line is a batch by itself
BATCH_ROWS = 4_096  # lines in one batch at most
IDS_BYTES: Final = 31_000_000  # of the table of ids: 2.9 million are compared
_MIN_LINE = 32  # bytes of a line at least; a line with less has no request in it
_CONVERSATION: Final[dict[FormatName, tuple[str, ...]]] = {
    "chat": ("messages",),
    "responses": ("input", "prompt"),
    "messages": ("messages",),
    "gemini": ("contents",),
}
"""Where a body has what is asked; one of them must be there."""


class Lines(Struct):
    """How many lines have something, and where the first is. `words`: what it has."""

    count: int = 0
    first: str = ""
    words: str = ""

    def add(self, place: str, words: str = "") -> None:
        """One more."""
        if not self.count:
            self.first, self.words = place, words
        self.count += 1

    def __str__(self) -> str:
        return self.first + (f" and {self.count - 1:,} more" if self.count > 1 else "")


class Survey(Struct):
    """What all lines have that matters to whoever pays.

    `streamed` ask for a stream; `uncapped` set no cap on the answer; to `unbounded` the service adds input of unknown
    size; of `unkept` a part of the reply is paid and not kept. `max_cap`: the largest cap. `lines` were looked at, and
    the ids of `compared` of them compared with each other, which is all unless there was no room for more.
    """

    streamed: Lines = msgspec.field(default_factory=Lines)
    uncapped: Lines = msgspec.field(default_factory=Lines)
    unbounded: Lines = msgspec.field(default_factory=Lines)
    unkept: dict[str, Lines] = msgspec.field(default_factory=dict)
    lines: int = 0
    compared: int = 0
    max_cap: int = 0

    def notes(self) -> Iterator[str]:
        """Sentences for whoever runs the file."""
        if self.streamed.count:
            yield f"stream: true is taken out ({self.streamed}): each answer comes whole"
        for setting, found in self.unkept.items():
            yield (
                f"{found.words} is asked for and paid, but not kept ({found}): set output.{setting}: true to have it "
                f"in a column `{setting}`"
            )
        if self.compared < self.lines:
            yield f"the ids of the first {self.compared:,} lines alone were compared with each other"


class LookAtLines:
    """One look at all lines of a file, or of several one after the other; each look begins anew.

    `survey`: what the last one found. `paths`: the files that it has seen so far, in the order of the rows.
    `max_lines`: more than all files can have.
    """

    def __init__(self) -> None:
        self.survey = Survey()
        self.paths: list[pathlib.Path] = []
        self.max_lines = 0
        self._ids = Seen(0, IDS_BYTES)

    def begin(self, path: pathlib.Path, *, is_first: bool) -> None:
        """Look at a file."""
        if is_first:
            self.survey, self.paths, self._ids = Survey(), [], Seen(self.max_lines, IDS_BYTES)
        self.paths.append(path)

    def is_new(self, row_id: str) -> bool:
        """Whether no earlier line can have this id: hashes are compared."""
        is_seen = self._ids.add(row_id)
        self.survey.lines += 1
        self.survey.compared = self._ids.values
        return not is_seen


class LineReader(Struct, frozen=True):
    """What a line has to be, for one job: each line's cells, and what its request is."""

    vendor: Vendor
    format: FormatName
    model: str
    request: Callable[[bytes], WholeRequest]
    keeps: tuple[str, ...]
    """The settings of `output` that are on, which keep what is asked for beside the answer."""

    def cells(self, line: bytes) -> tuple[str, ...]:
        """The cells of a line: id, other texts, body. Raises `WrongLineError` for a line of another shape."""
        return cells_of(self.vendor, line)

    def check(self, place: str, line: bytes, survey: Survey) -> str:
        """The id of a line, once all of it was looked at. Raises `WrongLineError` for one that is not to be sent."""
        cells = self.cells(line)
        body = body_of(self.vendor, cells[-1])
        self._check_target(cells, body)
        if (path := second_answer(body)) is not None:
            raise WrongLineError(f"{path} asks for something else than one whole answer; take it out")
        try:
            request = self.request(cells[-1].encode())
            self._note(place, body, request, survey)
        except ValueError as error:
            raise WrongLineError(f"{self.vendor.body} can't be sent ({error})") from None
        return cells[0]

    def _check_target(self, cells: tuple[str, ...], body: dict[str, Any]) -> None:
        if (other := format_of(self.vendor, cells)) != self.format:
            raise WrongLineError(f"asks the {other} format, and lines before it {self.format}: split the file by url")
        model = body.get("model", self.model if self.vendor.name == "gemini" else None)
        if not isinstance(model, str):
            raise WrongLineError(f"{self.vendor.body} names no model")
        if model not in (self.model, f"models/{self.model}"):
            words = f"asks for the model {shown(model)}, and others for {shown(self.model)}"
            raise WrongLineError(f"{words}: a run has one model, so split the file by model")
        keys = _CONVERSATION[self.format]
        if not any(key in body for key in keys):
            raise WrongLineError(f"{self.vendor.body} asks nothing: it has no {' or '.join(keys)}")

    def _note(self, place: str, body: dict[str, Any], request: WholeRequest, survey: Survey) -> None:
        if is_streamed(body):
            survey.streamed.add(place)
        if request.cap is None:
            survey.uncapped.add(place)
        survey.max_cap = max(survey.max_cap, request.cap or 0)
        if (added := next(_added(body), None)) is not None:
            survey.unbounded.add(place, added)
        for path, setting in unkept(body):
            if "raw" not in self.keeps and setting not in self.keeps:
                survey.unkept.setdefault(setting, Lines()).add(place, path)


def _added(body: dict[str, Any]) -> Iterator[str]:
    """In words: by what the service may add input beyond the bytes of a body."""
    yield from (f"{path} ({what})" for path, what in unbounded(body))
    yield from (f"{part} (what it names is fetched)" for part in remote_parts(body))


class BatchLayout(Struct, frozen=True):
    """A vendor's batch file: a column for each key of a line, all of them text.

    `look`: shared by all files of an input, of which this one `is_first`, or is the only one.
    """

    path: pathlib.Path
    reader: LineReader
    look: LookAtLines
    is_first: bool = True
    hint: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The vendor's keys."""
        return pa.schema([(key, pa.string()) for key in self.reader.vendor.keys])

    def measure(self, raw: io.BufferedReader) -> Measured:
        """Look at every line. Raises `InputError` with the number of the first that can't be sent."""
        size, sha256 = files.digest(raw)
        self.look.begin(self.path, is_first=self.is_first)
        rows = decoded_size = 0
        with unpacked(self.path, raw) as stream:
            for line in _filled(lines(self.path, stream)):
                place = f"{shown(self.path.name)}, line {line.number:,}"
                try:
                    row_id = self.reader.check(place, line.data, self.look.survey)
                except WrongLineError as error:
                    refuse(self.path, str(error), line.number)
                if not self.look.is_new(row_id):
                    self._refuse_twice(row_id, line.number)
                rows, decoded_size = rows + 1, decoded_size + len(line.data)
        return Measured(rows, size, sha256, decoded_size)

    def _refuse_twice(self, row_id: str, number: int) -> None:
        """Raise `InputError` where an earlier line really has the same id: hashes alone may be the same by chance."""
        for path in self.look.paths:
            with files.opened(path) as file, unpacked(path, file.raw) as stream:
                for line in _filled(lines(path, stream)):
                    if path == self.path and line.number >= number:
                        return
                    if self.reader.cells(line.data)[0] == row_id:
                        place = f"line {line.number:,}" + ("" if path == self.path else f" of {shown(path.name)}")
                        refuse(self.path, f"has the same {self.reader.vendor.id} as {place}: {shown(row_id)}", number)

    @contextmanager
    def feed(self, raw: io.BufferedReader, identity: Identity) -> Iterator["BatchFeed"]:  # noqa: ARG002  # Parquet needs it
        """Batches of about 1 MiB of lines."""
        with unpacked(self.path, raw) as stream:
            yield BatchFeed(self, _batches(_filled(lines(self.path, stream))))


class BatchFeed:
    """Lines can't be skipped: those before a wanted one are read and dropped."""

    def __init__(self, layout: BatchLayout, batches: Iterator[list[Line]]) -> None:
        self._layout = layout
        self._batches = batches
        self._next = 0  # ordinal of the next row

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        """The next batch that reaches row `wanted`, with the ordinal of its first row; None at the end."""
        for batch in self._batches:
            first, self._next = self._next, self._next + len(batch)
            if wanted < self._next:
                columns = zip(*map(self._cells, batch), strict=True)
                arrays = [pa.array(cells, pa.string()) for cells in columns]
                return first, pa.RecordBatch.from_arrays(arrays, schema=self._layout.schema)
        return None

    def _cells(self, line: Line) -> tuple[str, ...]:
        try:
            return self._layout.reader.cells(line.data)
        except WrongLineError as error:
            refuse(self._layout.path, str(error), line.number)


def _filled(every: Iterable[Line]) -> Iterator[Line]:
    """The lines that are not blank."""
    return (line for line in every if is_filled(line.data))


def _batches(every: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in every:
        batch.append(line)
        size += len(line.data)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def open_table(job: Job) -> AnySource:
    """The table that a job's input is: cheap, whatever its size. Raises `InputError` where it can't be read."""
    target = job.targets()[0]  # a batch file has no matrix
    if job.batch is None:
        return open_input(job.input.path, encoding=job.input.encoding, delimiter=job.input.delimiter)
    keeps = tuple(name for name in ("raw", "reasoning") if getattr(job.output, name))
    request = request_reader(target.format, target.model, target.params)
    reader = LineReader(VENDORS[job.batch], target.format, target.model, request, keeps)
    look, is_first = LookAtLines(), itertools.chain([True], itertools.repeat(False))

    def layout_of(path: pathlib.Path) -> BatchLayout:
        with files.opened(path) as file:
            is_packed = coding_of(path.name, file.raw.read(4)) is not None
            look.max_lines += file.size if is_packed else file.size // _MIN_LINE
            return BatchLayout(path, reader, look, next(is_first))

    return open_input(job.input.path, layout_of=layout_of)
