"""What is surely not meant, told before it is paid for: looked for in a job's texts and in its rows, with numbers.

`plan` looks at every row that remains, `run` at the first of them before it sends anything, and at all of them while it
goes. What has been seen is kept as a hash in a table of fixed size; beyond what fits, only the first rows count.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from cometbatch.commands.checks import Checked
from cometbatch.commands.targets import row_makers
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.prompt.suspicions import describe_stop, suspicions
from cometbatch.records import CallRequest, Failed, Failure
from cometbatch.run_state.partition import Make
from cometbatch.run_state.run import Run
from cometbatch.runner.row_maker import RowMaker

PLAN_BYTES: Final = 31_000_000  # of each of the two tables of what was seen, while a job is planned: 2.9 million rows
RUN_BYTES: Final = 8_000_000  # the same while it runs: 750,000 rows
FIRST_ROWS: Final = 10_000  # rows that remain at which `run` looks before it sends the first request
PLACES_SHOWN: Final = 3
_MIN_SLOTS = 1 << 10
_HASH_BITS = (1 << 64) - 1


def describe_texts(checked: Checked) -> list[str]:
    """What is surely not meant in the texts of a job, in sentences."""
    job = checked.job
    return [*suspicions(checked.template, checked.source.columns), *_cut(job), *describe_stop(job.params.stop)]


def _cut(job: Job) -> Iterator[str]:
    for place, is_cut in zip(job.places, job.cut, strict=True):
        if is_cut:
            yield f"{place}: a # after a space begins a comment in YAML, and cuts this text: put it in quotes"


class Places(Struct):
    """How many rows have something, and which are the first."""

    count: int = 0
    first: tuple[int, ...] = ()

    def add(self, row: int) -> None:
        """One more."""
        self.count += 1
        if self.count <= PLACES_SHOWN:
            self.first += (row,)

    def describe(self) -> str:
        """The first rows, in brackets."""
        return f"(first: {'row' if len(self.first) == 1 else 'rows'} {', '.join(f'{row:,}' for row in self.first)})"


class Seen:
    """A set of hashes in memory of a fixed size. `room`: how many more it takes; `values`: how many were compared."""

    def __init__(self, rows: int, max_bytes: int) -> None:
        self._size = min(max(_MIN_SLOTS, 4 * rows // 3), max_bytes // 8)
        self._slots = memoryview(bytearray(8 * self._size)).cast("Q")
        self.room = 3 * self._size // 4
        self.values = 0

    def add(self, value: object) -> bool:
        """Whether a value was there before; False once there is no room."""
        if not self.room:
            return False
        self.values += 1
        key = hash(value) & _HASH_BITS or 1
        slots, size = self._slots, self._size
        at = key % size
        while (found := slots[at]) != key:
            if not found:
                slots[at] = key
                self.room -= 1
                return False
            at = (at + 1) % size
        return True


class Looks:
    """What was found in the rows that were looked at, one after the other.

    `total`: how many rows remain; `max_bytes`: of each of the two tables of what was seen.
    """

    def __init__(self, checked: Checked, maker: RowMaker, total: int, max_bytes: int) -> None:
        self._template, self._total, self._rows = checked.template, total, 0
        needed = checked.template.columns_needed
        all_but_id = [name for name in maker.columns if name != maker.id_column]
        self._columns = all_but_id if checked.template.needs_all_columns else [*needed]
        self._has_id = maker.id_column is not None
        self._prompts, self._ids = Seen(total, max_bytes), Seen(total if self._has_id else 0, max_bytes)
        self._empty, self._blank, self._same, self._failed = Places(), Places(), Places(), Places()
        self._no_id, self._same_id = Places(), Places()
        self._first_failure = ""

    def note(self, row: int, values: Mapping[str, object], custom_id: str | None, prompt: object) -> None:
        """Look at a row. `prompt`: a value that only the same prompt has, too, or why there is none."""
        self._rows += 1
        if self._has_id:
            if not custom_id:
                self._no_id.add(row)
            elif self._ids.add(custom_id):
                self._same_id.add(row)
        if type(prompt) is Failure:
            self._note_failure(row, prompt)
        elif self._columns:
            for name in self._columns:
                value = values[name]
                if value is not None and not (type(value) is str and (not value or value.isspace())):
                    break
            else:
                self._blank.add(row)
            if self._prompts.add(prompt):
                self._same.add(row)

    def note_made(self, row: int, values: Mapping[str, object], made: CallRequest | Failed) -> None:
        """Look at a row that was made into a request."""
        self.note(row, values, made.custom_id, made.failure if type(made) is Failed else made.request_hash)

    def watching(self, make: Make) -> Make:
        """The same function, with a look at each row."""

        def make_and_look(ordinal: int, values: Mapping[str, object]) -> CallRequest | Failed:
            made = make(ordinal, values)
            self.note_made(ordinal, values, made)
            return made

        return make_and_look

    def _note_failure(self, row: int, failure: Failure) -> None:
        if failure is self._template.empty:
            self._empty.add(row)
        else:
            self._failed.add(row)
            self._first_failure = self._first_failure or failure.message

    def warnings(self) -> Iterator[str]:
        """Sentences with numbers and first places, the costliest first."""
        if self._same.count:
            what = "the same prompt as an earlier row"
            yield f"{self._who(self._same, self._prompts)} {what} {self._same.describe()}; each is sent and paid for"
        if self._blank.count:
            yield f"{self._who(self._blank)} nothing in the columns that the prompt uses {self._blank.describe()}"
        if self._empty.count:
            way = "they fail unsent, unless prompt.allow_empty is true"
            yield f"{self._who(self._empty)} an empty or blank prompt {self._empty.describe()}; {way}"
        if self._failed.count:
            why = f"{self._failed.describe()}; they fail unsent: {self._first_failure}"
            yield f"{self._who(self._failed)} no prompt that can be made {why}"
        if self._no_id.count:
            yield f"input.id: {self._who(self._no_id)} no id {self._no_id.describe()}"
        if self._same_id.count:
            places = self._same_id.describe()
            yield f"input.id: {self._who(self._same_id, self._ids)} the same id as an earlier row {places}"

    def _who(self, places: Places, seen: Seen | None = None) -> str:
        """How many of how many rows have something."""
        rows = self._rows if seen is None or seen.room else seen.values
        scope = f"{rows:,} rows" if rows == self._total else f"the first {rows:,} rows that remain"
        return f"{places.count:,} of {scope} {'has' if places.count == 1 else 'have'}"


def tell_before(checked: Checked, run: Run) -> list[str]:
    """What is told before a run sends anything: the job's texts, and the first rows that remain."""
    asked = row_makers(checked, run.manifest.targets)
    looks = Looks(checked, checked.row_maker(), _remain(run), 8 * 2 * FIRST_ROWS)
    remaining = itertools.chain.from_iterable(_remaining(checked, run, asked.columns))
    for row, values, target in itertools.islice(remaining, FIRST_ROWS):
        maker = asked.makers[target]
        custom_id: Any = None if maker.id_column is None else values[maker.id_column]
        is_text = custom_id is None or type(custom_id) is str
        prompt = maker.render(values) if maker.variant is None else maker.prompt_of(values)
        alike = (target, prompt) if target and type(prompt) is not Failure else prompt
        looks.note(row, values, custom_id if is_text else maker.id_of(values), alike)
    return [*describe_texts(checked), *looks.warnings()]


def rest_of(checked: Checked, run: Run) -> Looks | None:
    """For a look at all rows while they are sent; None where the first look saw them all."""
    remain = _remain(run)
    return Looks(checked, checked.row_maker(), remain, RUN_BYTES) if remain > FIRST_ROWS else None


def _remain(run: Run) -> int:
    return run.rows - run.progress.calls


def _remaining(
    checked: Checked, run: Run, columns: Sequence[str]
) -> Iterator[Iterator[tuple[int, Mapping[str, object], int]]]:
    """The rows that have no outcome yet, with their numbers and targets, partition by partition."""
    recorded = run.progress.recorded
    for partition, table in zip(run.missing, checked.source.tables(run.manifest.input, run.missing), strict=True):
        numbers, targets = itertools.count(partition.first_row), run.open_targets(partition.index)
        of_rows = range(partition.first_row, partition.first_row + partition.row_count)
        asked = [targets.get(row, 0) for row in of_rows] if targets else itertools.repeat(0)
        rows = zip(numbers, row_values(table, columns), asked, strict=False)
        yield (each for each in rows if each[0] not in recorded) if recorded else rows
