"""A job that has been found to fit its input: what every command works with after the checks."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from cometbatch import wire
from cometbatch.commands.matrix_notes import describe_matrix
from cometbatch.commands.row_maker import Maker, images_for, row_maker
from cometbatch.control.bounds import describe_unbounded
from cometbatch.input.file_set import AnySource, FileSet
from cometbatch.input.files import shown
from cometbatch.job import Job, Target
from cometbatch.job.batch_lines import BatchLayout, Survey
from cometbatch.job.matrix import Cell
from cometbatch.job.targets import Template
from cometbatch.prompt.answers import Checker
from cometbatch.results import column_names, columns
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.wire.request_extra import template_marks, unkept

if TYPE_CHECKING:
    from cometbatch.commands.scoring import Scoring  # a job without scores loads nothing of them

PromptKey: TypeAlias = tuple[Any, ...]
"""What targets have in common that share a compiled prompt."""


def prompt_key(target: Target) -> PromptKey:
    """What tells the compiled prompt of a target from others: rows' own messages are fitted to its format, too."""
    return target.messages, target.conversation, None if target.conversation is None else target.format


class CheckedCell(Struct, frozen=True):
    """A cell of the matrix with what was found to fit: its compiled prompt, and what answers must be, if that is said.

    Cells with the same prompt share the template.
    """

    cell: Cell
    template: Template
    checker: Checker | None = None

    @property
    def target(self) -> Target:
        """What is asked."""
        return self.cell.target

    @property
    def format(self) -> wire.WireFormat:
        """How it is asked."""
        return wire.FORMATS[self.cell.target.format]


class Checked(Struct, frozen=True):
    """A job whose input, templates and names have been found to fit together.

    `cells`: of its matrix; one where it has none. `answers`: the columns that answers get; `scoring`: how they are
    scored; None where the job does not say. `target`, `template`, `format` and `checker` are those of the first cell.
    """

    job: Job
    source: AnySource
    cells: tuple[CheckedCell, ...]
    answers: AnswerColumns | None = None
    scoring: "Scoring | None" = None

    @property
    def target(self) -> Target:
        """What the first cell asks."""
        return self.cells[0].target

    @property
    def template(self) -> Template:
        """The compiled prompt of the first cell."""
        return self.cells[0].template

    @property
    def format(self) -> wire.WireFormat:
        """The wire format of the first cell."""
        return self.cells[0].format

    @property
    def checker(self) -> Checker | None:
        """What checks the answers of the first cell; None where any will do."""
        return self.cells[0].checker

    @property
    def templates(self) -> Mapping[PromptKey, Template]:
        """Each compiled prompt once."""
        return {prompt_key(each.target): each.template for each in self.cells}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what can be run but is surely not meant, as far as the columns tell."""
        notes = () if self.survey is None else self.survey.notes()
        told = *self.source.warnings, *notes, *describe_extra(self.job), *describe_matrix(self.job)
        if self.survey is not None and self.survey.unbounded.count and self.job.budget.max_cost_usd is not None:
            added = self.added_to(self.target)
            told = *told, f"the budget may be passed: the service may add input, by {added}"
        asked = columns.columns_for(self.job.asked_columns, self.job.columns_there)
        clashes = column_names.case_clashes(self.source.columns, self.job.output.prefix, asked)
        if not clashes:
            return told
        pairs = ", ".join(f'"{shown(theirs)}" and {ours}' for theirs, ours in clashes)
        words = (
            f"columns of the input and of the result differ by case alone ({pairs}), and some programs take them for"
        )
        prefix = column_names.working_prefix(self.source.columns)
        return *told, f"{words} one; set output.prefix (for example to {prefix}) to tell them apart"

    @property
    def survey(self) -> Survey | None:
        """What all lines of a vendor's batch file have, once they were looked at; None for every other input."""
        layout = (self.source.sources[0] if isinstance(self.source, FileSet) else self.source).layout
        return layout.look.survey if isinstance(layout, BatchLayout) else None

    @property
    def max_asks(self) -> int:
        """How often a row is asked at most."""
        return 1 if self.checker is None else self.target.response.max_asks

    def added_to(self, target: Target) -> str:
        """In words: by what the service may add input that is billed; "" where all of it is bounded."""
        found = None if self.survey is None else self.survey.unbounded
        if found is None or not found.count:
            return describe_unbounded(target.params.extra)
        return f"{found.words} in {found}"

    def row_maker(self) -> Maker:
        """How rows of this job become requests."""
        images = images_for(self.job, self.target)
        return row_maker(self.target, self.template, self.source.columns, self.job.input.id, images)


def describe_extra(job: Job) -> Iterator[str]:
    """What whoever pays should know of `params.extra`: marks that are no template there, and what is not kept."""
    yield from dict.fromkeys(words for target in job.targets() for words in _of_extra(job, target.params.extra))


def _of_extra(job: Job, extra: Mapping[str, Any]) -> Iterator[str]:
    for path, mark in template_marks(extra):
        yield f"params.extra.{path} holds {mark}: params.extra is no template, so it is sent as it stands"
    for path, setting in unkept(extra):
        if not job.output.raw and not (setting == "reasoning" and job.output.reasoning):
            yield (
                f"params.extra.{path} is asked for and paid, but not kept: set output.{setting}: true to have it in a "
                f"column `{setting}`"
            )
