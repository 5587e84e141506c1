"""The prompts of a report, rendered again: a result keeps none of them.

Each line is rendered by the result's own job, for the target that it was asked of, from its input columns. Laws: a line
that can't be rendered has a sentence that says why, and never another line's prompt; a row costs its rendering and no
more, since a body is made once for each shape of prompt (`reports.page.requests`).
"""

import contextlib
import functools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from cometbatch.commands.report_images import PageImages
from cometbatch.commands.report_requests import RenderedRow, Settings, TargetPrompts, WholePrompts
from cometbatch.errors import JobError
from cometbatch.input.image_files import ImageFolder
from cometbatch.job import Job, Target
from cometbatch.job.matrix import digest_of, sample_of
from cometbatch.job.secrets import printable
from cometbatch.job.targets import Template
from cometbatch.job.vendor_batch import VENDORS
from cometbatch.prompt.allowance import Allowance
from cometbatch.prompt.foreign import refused
from cometbatch.prompt.names import no_column
from cometbatch.prompt.template import RENDERING, TemplateError
from cometbatch.reports.layout import layout_of
from cometbatch.reports.page.page_columns import REQUEST_HASH
from cometbatch.reports.page.requests import Frames
from cometbatch.reports.sources import RunRows, Source
from cometbatch.results.columns import CUSTOM_ID
from cometbatch.results.rows import JOB_KEY, output_of
from cometbatch.results.slices import SLICES_KEY, SliceColumns, decode_slices
from cometbatch.results.target_column import TARGET_COLUMNS
from cometbatch.run_state.drift import RENDERING_KEY
from cometbatch.run_state.manifest import Manifest, PricedTarget
from cometbatch.run_state.published import TARGETS_KEY, result_slices

NO_INPUT: Final = "The input can't be read any more, so this prompt can't be rendered again."
"""Why a row of an unfinished run has no prompt whose input is gone."""
NO_SLICE: Final = "This line is of no cell that the job of the result names, so its prompt can't be rendered again."
NO_TARGET: Final = (
    "This line was asked again in another way, and the result does not say how, so its prompt can't be rendered again."
)
_OTHER_RULES: Final = (
    "Another version of cometbatch made this run, which renders prompts by other rules, so they are not shown."
)
NAME_THE_JOB: Final = "If you trust it, name its job file in place of the result."
FOREIGN_S: Final = 10.0  # seconds of a processor for all prompts of a source whose templates may be anybody's
FOREIGN_CHARACTERS: Final = 256 << 20  # that such templates make for some rows at a time
MAX_FOREIGN_CHARACTERS: Final = 8 << 20  # of such templates


class SliceTarget(Struct, frozen=True):
    """What the lines of one slice were asked of, where nothing else is said of a line. `number`: of the target."""

    number: int | None
    target: Target


class Asked(Struct, frozen=True):
    """What the lines of a source were asked of.

    `slices`: of the result, in its order; of one without a matrix there is one. `columns`: those that tell slices
    apart. `targets`: by their numbers, where lines may say that they were asked of another one than their slice's own.
    """

    slices: tuple[SliceTarget, ...]
    columns: SliceColumns | None
    targets: tuple[Target, ...]

    def target(self, place: int, number: int | None) -> Target | None:
        """What a line of a slice was asked of that says this number; None where that is not known."""
        own = self.slices[place]
        if number is None or number == own.number:
            return own.target
        return self.targets[number] if 0 <= number < len(self.targets) else None

    @property
    def all_targets(self) -> list[Target]:
        """Each target that a line may have been asked of."""
        return [*(each.target for each in self.slices), *self.targets]


class Prompts:
    """The prompts of one source of a page.

    `why_none`: a sentence for the reader where no prompt can be shown, else None. `columns`: those that `render` needs.
    """

    def __init__(self, why_none: str | None, columns: Sequence[str] = (), lines: "_Lines | None" = None) -> None:
        self.why_none = why_none
        self.columns = tuple(columns)
        self._lines = lines

    def render(self, table: pa.Table) -> list[RenderedRow]:
        """Of each line its frame and the texts of its slots; or, as a text, why it has no prompt."""
        if self._lines is None:
            return [self.why_none or NO_INPUT] * table.num_rows
        return self._lines.render(table)

    @property
    def notes(self) -> list[str]:
        """Sentences for the reader on the prompts that were rendered so far."""
        return [] if self._lines is None else self._lines.notes()


def prompts_of(source: Source, frames: Frames, manifest: Manifest | None = None, named: Job | None = None) -> Prompts:
    """How the prompts of a source are rendered again. `frames`: of the page.

    `manifest`: of the run whose result or rows the source has, where that is known. `named`: the job that the reader
    named. Templates that it does not have may be anybody's: they are rendered within bounds, or not at all.

    Raises `InputError` where the source can't be read.
    """
    schema = source.schema
    said = schema.metadata or {}
    metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in said.items()}
    if manifest is not None and manifest.run_id != metadata.get("cometbatch.run_id"):
        manifest = None  # a result that another run has replaced, or is to replace
    try:
        job = _job(metadata)
        if manifest is not None and manifest.fingerprint.get(RENDERING_KEY) != RENDERING:
            return Prompts(_OTHER_RULES)
        asked = _asked(job, metadata, manifest, layout_of(schema, source.name).prefix)
        lines = _Lines(job, asked, source, frames, trusted=_templates_of(named))
    except JobError as error:
        return Prompts(f"The prompts can't be rendered again: {error}")
    return Prompts(None, lines.columns, lines)


def _job(metadata: Mapping[str, str]) -> Job:
    """The job in a result's metadata. Raises `JobError` where there is none that this program knows."""
    try:
        return Job.from_description(msgspec.json.decode(metadata.get(JOB_KEY, ""), type=dict[str, object]))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise JobError("the result does not say by which job it was made.") from error


def _asked(job: Job, metadata: Mapping[str, str], manifest: Manifest | None, prefix: str) -> Asked:
    """What the lines of a result were asked of. Raises `JobError` where its job names other slices than it has."""
    if manifest is not None:
        targets = tuple(each.target for each in manifest.targets)
        of_run = [manifest.slices[number] for number in manifest.active]
        own = tuple(SliceTarget(each.target, sample_of(targets[each.target], each.sample)) for each in of_run)
        columns = SliceColumns(result_slices(manifest), prefix) if manifest.has_matrix else None
        return Asked(own, columns, targets)
    targets = _told_targets(metadata)
    if job.matrix is None:
        return Asked((SliceTarget(0, job.targets()[0]),), None, targets)
    slices = decode_slices(metadata.get(SLICES_KEY, "")) or ()
    named = [(cell, sample) for cell in job.cells() for sample in range(job.samples)]
    if [(dict(each.labels), each.sample) for each in slices] != [(cell.labels, sample) for cell, sample in named]:
        raise JobError("its job names other cells than the result has.")
    numbers = {digest_of(target): number for number, target in enumerate(targets)}
    own = tuple(SliceTarget(numbers.get(cell.digest), cell.target_of(sample)) for cell, sample in named)
    return Asked(own, SliceColumns(slices, prefix), targets)


def _told_targets(metadata: Mapping[str, str]) -> tuple[Target, ...]:
    """The targets that a result's metadata tell of, by their numbers; none where they don't."""
    try:
        found = msgspec.json.decode(metadata.get(TARGETS_KEY, "[]"), type=tuple[PricedTarget, ...])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise JobError(f"the result tells of targets that this version does not know ({error})") from error
    return tuple(each.target for each in found)


class _Lines:
    """Renders the lines of a source, each for the target that it was asked of."""

    def __init__(self, job: Job, asked: Asked, source: Source, frames: Frames, *, trusted: Collection[str]) -> None:
        """`trusted`: templates. Raises `JobError` where one can't be used, or needs a column that there is not."""
        self._job = job
        self._asked = asked
        self._is_run = isinstance(source, RunRows)
        self._lacks_input = isinstance(source, RunRows) and source.rows.lacks_input
        schema = source.schema
        inputs = _input_columns(job, schema)
        self._allowance = _allowance(self._asked.all_targets, trusted)
        self._templates: dict[object, Template] = {}
        self._needed = self._needed_of(inputs)
        folder = ImageFolder(job.image_root, job.images.max_bytes)
        images = PageImages(folder, is_fetching=job.images.fetch)
        self._settings = Settings(inputs, job.target, images, frames)
        prefix, output = output_of(schema) or ("", ())
        self._hash = prefix + REQUEST_HASH
        self._target_column = next((prefix + each.name for each in output if each.name in TARGET_COLUMNS), None)
        self._made: dict[tuple[int, int | None], TargetPrompts | WholePrompts | str] = {}
        of_slices = [] if asked.columns is None else asked.columns.names[:-1]
        of_targets = [] if self._target_column is None else [self._target_column]
        self.columns = tuple(dict.fromkeys([*self._needed, *of_slices, *of_targets, self._hash]))

    def _needed_of(self, inputs: Sequence[str]) -> list[str]:
        """The columns of the input that prompts are made of; compiles each prompt once."""
        needed: set[str] = set()
        for target in self._asked.all_targets:
            needed.update(target.columns.values())
            if (key := _prompt_of(target)) in self._templates:
                continue
            try:
                with self._allowance:
                    template = self._templates[key] = target.prompt_template()
                template.check(inputs)
            except TemplateError as error:
                raise JobError(str(error)) from error
            own = template.columns_needed if target.batch is None else {VENDORS[target.batch].body}
            needed.update(inputs if template.needs_all_columns else own)
        if missing := sorted(needed.difference(inputs)):
            raise JobError(no_column(missing[0], inputs))
        return [name for name in inputs if name in needed]

    def render(self, table: pa.Table) -> list[RenderedRow]:
        """The prompt of each line."""
        hashes: list[str | None] = table.column(self._hash).to_pylist()
        keys = self._keys(table)
        kinds = set(keys)
        if len(kinds) == 1:
            return self._render(kinds.pop(), table, hashes)
        found: list[RenderedRow] = [NO_INPUT] * table.num_rows
        for key in kinds:
            places = [at for at, each in enumerate(keys) if each == key]
            some = self._render(key, table.take(pa.array(places, pa.int64())), [hashes[at] for at in places])
            for at, row in zip(places, some, strict=True):
                found[at] = row
        return found

    def _render(
        self, key: tuple[int, int | None] | str, table: pa.Table, hashes: Sequence[str | None]
    ) -> list[RenderedRow]:
        """The prompts of lines that were asked of one target."""
        prompts = key if isinstance(key, str) else self._prompts(key)
        if isinstance(prompts, str):
            return [prompts] * table.num_rows
        with self._allowance:
            return prompts.render(table, hashes)

    def _prompts(self, key: tuple[int, int | None]) -> TargetPrompts | WholePrompts | str:
        found = self._made.get(key)
        if found is None:
            target = self._asked.target(*key)
            found = NO_TARGET
            if target is not None:
                kind = TargetPrompts if target.batch is None else WholePrompts
                found = kind(target, self._templates[_prompt_of(target)], self._settings)
            self._made[key] = found
        return found

    def _keys(self, table: pa.Table) -> list[tuple[int, int | None] | str]:
        """Of each line its slice and the number of its target; or why it can't be rendered."""
        count = table.num_rows
        numbers = [None] * count if self._target_column is None else table.column(self._target_column).to_pylist()
        places = [0] * count
        if self._asked.columns is not None:
            try:
                places = self._asked.columns.places(table)
            except KeyError:
                return [NO_SLICE] * count
        keys: list[tuple[int, int | None] | str] = list(zip(places, numbers, strict=True))
        if self._is_run and self._needed and (self._lacks_input or self._has_no_input(table)):
            is_null = functools.reduce(pc.and_, [pc.is_null(table.column(name)) for name in self._needed])
            keys = [NO_INPUT if gone else key for key, gone in zip(keys, is_null.to_pylist(), strict=True)]
        return keys

    def _has_no_input(self, table: pa.Table) -> bool:
        """Whether the input could not be read for these lines, which may happen while a run goes on."""
        return all(pa.types.is_null(table.schema.field(name).type) for name in self._needed)

    def notes(self) -> list[str]:
        """Sentences for the reader on what was rendered so far."""
        found = []
        if self._settings.compared and not self._settings.same:
            found.append(
                "The prompts were rendered again, and those that were compared are not the ones that were sent: "
                "another version of cometbatch may have made this run."
            )
        if unread := self._settings.images.unread:
            files = "1 image file was" if unread == 1 else f"{unread:,} image files were"
            found.append(
                f"{files} not read below {printable(self._job.image_root)}, so requests with them have names in the "
                "place of digests and can't be compared with those that were sent."
            )
        return found


def _templates_of(job: Job | None) -> frozenset[str]:
    """Each template of a job."""
    return frozenset(_texts_of([] if job is None else job.targets()))


def _texts_of(targets: Iterable[Target]) -> Iterator[str]:
    for target in targets:
        for message in target.messages:
            yield message.template
            yield from (part.template for part in message.parts)


def _allowance(targets: Sequence[Target], trusted: Collection[str]) -> AbstractContextManager[object]:
    """What these targets' templates may take; all, where each is trusted. Raises `JobError` for one that is not run."""
    foreign = set(_texts_of(targets)).difference(trusted)
    if not foreign:
        return contextlib.nullcontext()
    words = (
        f"more than {MAX_FOREIGN_CHARACTERS:,} characters" if sum(map(len, foreign)) > MAX_FOREIGN_CHARACTERS else None
    )
    for text in sorted(foreign) if words is None else ():
        words = words or refused(text)
    if words is not None:
        raise JobError(f"a template of its job has {words}, and may be from anybody, so it is not run. {NAME_THE_JOB}")
    return Allowance(time.thread_time, seconds=FOREIGN_S, characters=FOREIGN_CHARACTERS)


def _prompt_of(target: Target) -> object:
    return target.messages, target.conversation, target.format


def _input_columns(job: Job, schema: pa.Schema) -> list[str]:
    """The input's columns in a result. The user's own ids may be the last of them, under the output's name for ids."""
    layout = layout_of(schema, "")
    own_id = layout.prefix + CUSTOM_ID
    is_kept = CUSTOM_ID in job.columns_there and own_id in schema.names and own_id not in layout.inputs
    return [*layout.inputs, *([own_id] if is_kept else [])]
