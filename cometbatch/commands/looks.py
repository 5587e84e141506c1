"""What is surely not meant, told before it is paid for: looked for in a job's texts and in its rows, with numbers.

`plan` looks at every row that remains, `run` at the first of them before it sends anything, and at all of them while it
goes. What has been seen is kept as a hash in a table of fixed size; beyond what fits, only the first rows count.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from msgspec import Struct

from cometbatch.commands.checked import Checked, prompt_key
from cometbatch.commands.row_maker import Maker
from cometbatch.commands.targets import row_makers
from cometbatch.errors import quoting
from cometbatch.input.seen import Seen
from cometbatch.input.values import row_values
from cometbatch.job import Job
from cometbatch.prompt.content import images_in
from cometbatch.prompt.names import shown
from cometbatch.prompt.suspicions import describe_stop, suspicions
from cometbatch.records import CallRequest, Failed, Failure, Partition
from cometbatch.run_state.making import Make
from cometbatch.run_state.run import Run

PLAN_BYTES: Final = 31_000_000  # of each of the two tables of what was seen, while a job is planned: 2.9 million rows
RUN_BYTES: Final = 8_000_000  # the same while it runs: 750,000 rows
FIRST_ROWS: Final = 10_000  # rows that remain at which `run` looks before it sends the first request
PLACES_SHOWN: Final = 3


def describe_texts(checked: Checked) -> list[str]:
    """What is surely not meant in the texts of a job, in sentences."""
    job = checked.job
    told = [*suspicions(checked.template, checked.source.columns), *_cut(job), *describe_stop(job.params.stop)]
    return [*told, *_printed_messages(checked)]


def _printed_messages(checked: Checked) -> Iterator[str]:
    """A column of messages that a template prints as text."""
    needed = checked.template.columns_needed if checked.target.conversation is None else frozenset()
    for name in needed & set(checked.source.columns):
        kind = checked.source.schema.field(name).type
        inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
        if inner is not None and pa.types.is_struct(inner) and {"role", "content"} <= {field.name for field in inner}:
            words = "which holds messages, and is printed as text; prompt.messages_column sends them as messages"
            yield f"the prompt uses the column {shown(name)}, {words}"


def _cut(job: Job) -> Iterator[str]:
    for place, is_cut in zip(job.places, job.cut, strict=False):  # a column with messages has a place alone
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


class Looks:
    """What was found in the rows that were looked at, one after the other.

    `total`: how many rows remain; `max_bytes`: of each of the two tables of what was seen. `slice_number`: of the slice
    whose rows they are, and `first_call` the ordinal of its first row.
    """

    def __init__(
        self, checked: Checked, maker: Maker, total: int, max_bytes: int, *, slice_number: int = 0, first_call: int = 0
    ) -> None:
        self.slice_number, self._first_call = slice_number, first_call
        self._template, self._total, self._rows = checked.template, total, 0
        needed = checked.template.columns_needed
        all_but_id = [name for name in maker.columns if name != maker.id_column]
        there = [name for name in checked.source.columns if name in needed]
        self._columns = all_but_id if checked.template.needs_all_columns else there
        self._has_id = maker.id_column is not None
        self._prompts, self._ids = Seen(total, max_bytes), Seen(total if self._has_id else 0, max_bytes)
        self._empty, self._blank, self._same, self._failed = Places(), Places(), Places(), Places()
        self._no_id, self._same_id, self._answered = Places(), Places(), Places()
        self._images, self._bounds = Places(), None if maker.images is None else maker.images.bounds
        self._is_deduped = checked.job.dedupe
        self._has_budget = checked.job.budget.max_cost_usd is not None
        self._is_reusing = checked.job.reuse is not None
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
        if self._bounds is not None and isinstance(made, CallRequest) and made.image_tokens:
            self._images.add(row)
        self.note(row, values, made.custom_id, made.failure if type(made) is Failed else made.request_hash)

    def note_images(self, row: int, prompt: object) -> None:
        """Look for images in a prompt that is not made into a request."""
        if self._bounds is not None and isinstance(prompt, tuple) and images_in(prompt):
            self._images.add(row)

    def note_end(self, row: int, prompt: object) -> None:
        """Look at the last message of a conversation that is data."""
        if isinstance(prompt, tuple) and prompt[-1].role == "assistant":
            self._answered.add(row)

    def watching(self, make: Make) -> Make:
        """The same function, with a look at each row."""

        def make_and_look(ordinal: int, values: Mapping[str, object]) -> CallRequest | Failed:
            made = make(ordinal, values)
            self.note_made(ordinal - self._first_call, values, made)
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
        if self._same.count and not self._is_deduped:
            what = f"the same prompt as an earlier row {self._same.describe()}"
            rest = ", but for those that take an earlier answer" if self._is_reusing else ""
            paid = f"each is sent and paid for{rest} (dedupe: true sends one)"
            yield f"{self._who(self._same, self._prompts)} {what}; {paid}"
        if self._blank.count:
            yield f"{self._who(self._blank)} nothing in the columns that the prompt uses {self._blank.describe()}"
        if self._answered.count:
            what = f"an answer as last message {self._answered.describe()}"
            yield f"{self._who(self._answered)} {what}; it is sent, and the model goes on with it"
        if self._images.count and self._has_budget and self._bounds is not None:
            tokens = f"{self._bounds.tokens:,} input tokens are set aside for each (prompt.images.tokens)"
            yield f"budget: {self._who(self._images)} images; {tokens}, and a model that counts more can pass it"
        if self._empty.count:
            way = "they fail unsent, unless prompt.allow_empty is true"
            yield f"{self._who(self._empty)} an empty or blank prompt {self._empty.describe()}; {way}"
        if self._failed.count:
            why = f"{self._failed.describe()}; they fail unsent: {self._first_failure}"
            yield quoting(f"{self._who(self._failed)} no prompt that can be made {why}", self._first_failure)
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


def tell_before(checked: Checked, run: Run, limit: int | None = None) -> list[str]:
    """What is told before a run sends anything: the job's texts, and the first rows that remain, of those it sends."""
    asked, due = row_makers(checked, run.manifest.targets), _looked_at(checked, run, limit)
    looks = Looks(checked, checked.row_maker(), _rows_in(run, due, limit), 8 * 2 * FIRST_ROWS)
    remaining = itertools.chain.from_iterable(_remaining(checked, run, asked.columns, due, limit))
    for row, values, target in itertools.islice(remaining, FIRST_ROWS):
        maker = asked.makers[target]
        custom_id: Any = None if maker.id_column is None else values[maker.id_column]
        is_text = custom_id is None or type(custom_id) is str
        prompt = maker.render(values)
        alike = maker.alike(values, prompt)
        looks.note(row, values, custom_id if is_text else maker.id_of(values), alike)
        looks.note_images(row, prompt)
        if run.manifest.targets[target].target.conversation is not None:
            looks.note_end(row, prompt)
    return [*describe_texts(checked), *looks.warnings()]


def rest_of(checked: Checked, run: Run, limit: int | None = None) -> Looks | None:
    """For a look at all rows while they are sent; None where the first look saw them all."""
    due = _looked_at(checked, run, limit)
    remain = _rows_in(run, due, limit)
    if remain <= FIRST_ROWS:
        return None
    number = due[0].slice
    return Looks(checked, checked.row_maker(), remain, RUN_BYTES, slice_number=number, first_call=number * run.rows)


def _looked_at(checked: Checked, run: Run, limit: int | None) -> list[Partition]:
    """The partitions whose rows are looked at: those that remain, but of a matrix those of one slice alone.

    It is the first that has some and asks as `checked` does: samples of a row are meant to be equal.
    """
    manifest, due = run.manifest, run.due(limit)
    if not manifest.has_matrix:
        return due
    prompt = prompt_key(checked.target)
    fitting = (
        each.slice for each in due if prompt_key(manifest.targets[manifest.slices[each.slice].target].target) == prompt
    )
    number = next(fitting, None)
    return [each for each in due if each.slice == number]


def _rows_in(run: Run, due: Sequence[Partition], limit: int | None) -> int:
    """How many rows of these partitions are sent."""
    if not run.manifest.has_matrix:
        return run.calls_due(limit)
    rows = sum(each.row_count if limit is None else min(each.row_count, limit - each.first_row) for each in due)
    done = (divmod(ordinal, run.rows) for ordinal in run.progress.recorded)
    number, end = (due[0].slice, run.rows if limit is None else limit) if due else (-1, 0)
    return rows - sum(each == number and row < end for each, row in done)


def _remaining(
    checked: Checked, run: Run, columns: Sequence[str], due: Sequence[Partition], limit: int | None
) -> Iterator[Iterator[tuple[int, Mapping[str, object], int]]]:
    """The rows of these partitions that have no outcome yet and are sent, with their numbers and targets."""
    recorded = run.progress.recorded
    for partition, table in zip(due, checked.source.tables(run.manifest.input, due), strict=True):
        sent = table if limit is None else table.slice(0, limit - partition.first_row)
        first, targets = run.manifest.first_ordinal(partition), run.open_targets(partition.index)
        own = run.manifest.slices[partition.slice].target
        calls = range(first, first + partition.row_count)
        asked = [targets.get(call, own) for call in calls] if targets else itertools.repeat(own)
        found = zip(itertools.count(partition.first_row), row_values(sent, columns), asked, strict=False)
        yield (each for call, each in zip(calls, found, strict=False) if call not in recorded) if recorded else found
