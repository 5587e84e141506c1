"""A job with a matrix: the job of each cell, read by itself, becomes one job that holds all of them.

Guards that a cell is checked as a job of its own is, and that no two cells ask the same.
"""

import itertools
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from cometbatch.errors import JobError
from cometbatch.job.axes import AxisValue, Path, ReadMatrix, laid_over, place_of
from cometbatch.job.keys import MATRIX, OVERRIDE
from cometbatch.job.kinds import INT64_MAX
from cometbatch.job.matrix import CellSettings, Matrix, Prompt, digest_of
from cometbatch.job.sections import Sections
from cometbatch.job.settings import Job
from cometbatch.job.tree import Map, Problems
from cometbatch.records import GenerationParams
from cometbatch.results.slices import words_of


class ReadOne(Protocol):
    """Reads the job of one cell. Raises `JobError`.

    `drops_seed`: `params.seed` is the whole job's, and left out where a format has no place for it.
    """

    def __call__(self, sections: Sections, *, drops_seed: bool) -> Job:
        """The job that these sections make."""


SEED: Final = ("params", "seed")
_PROMPT_FIELDS: Final = ("prompt.messages", "prompt.messages_column", "prompt.few_shot", "prompt.choices")
"""Fields of a target's fingerprint of which an axis over the prompt sets some."""


def job_of(read: ReadMatrix, tree: Map, problems: Problems, read_one: ReadOne) -> Job:
    """The job with all its cells. `tree`: the job without the section. Raises `JobError` with every problem found."""
    cells = list(itertools.product(*(axis.values for axis in read.axes)))
    jobs = _jobs(cells, read, tree, problems, read_one)
    sections = Sections(tree, Problems())  # as it is written, for places and values that no axis sets
    _check(jobs, read, sections, problems)
    _check_equal(cells, jobs, read, problems)
    problems.stop_if_any()
    return msgspec.structs.replace(jobs[0], matrix=_matrix(cells, jobs, read, sections))


def _jobs(
    cells: Sequence[tuple[AxisValue, ...]], read: ReadMatrix, tree: Map, problems: Problems, read_one: ReadOne
) -> list[Job]:
    """The job of each cell. What is wrong in some cells alone is told with the first of these."""
    jobs, wrong = [], dict[str, list[str]]()
    for values in cells:
        own = Problems()
        has_own_seed = any(path == SEED for value in values for path, _ in value.laid)
        try:
            jobs.append(read_one(Sections(laid_over(tree, values), own), drops_seed=not has_own_seed))
        except JobError as error:
            for line in own.lines or [str(error)]:
                wrong.setdefault(line, []).append(_words(read, values))
    for line, those in wrong.items():
        problems.lines.append(line if len(those) == len(cells) else f"{line} (in {_some(those)})")
    problems.stop_if_any()
    return jobs


def _words(read: ReadMatrix, values: Sequence[AxisValue]) -> str:
    """A cell by its labels."""
    return "the cell " + words_of(
        {axis.axis.column: value.label for axis, value in zip(read.axes, values, strict=True)}
    )


def _some(cells: Sequence[str]) -> str:
    return cells[0] if len(cells) == 1 else f"{cells[0]}, and in {len(cells) - 1:,} more"


def _check(jobs: Sequence[Job], read: ReadMatrix, sections: Sections, problems: Problems) -> None:
    """What does not go together with a matrix, or with several samples."""

    def refuse(path: str, words: str) -> None:
        problems.add(sections.where(path), path, words)

    job = jobs[0]
    if job.target.model_column is not None:
        refuse("target.model_column", f"can't be there beside {MATRIX}: its rows are asked of the cells' models")
    if read.samples == 1:
        return
    if job.dedupe:
        refuse("dedupe", f"would send one of {read.samples} equal samples: leave one of the two out")
    if any((each.params.seed or 0) > INT64_MAX - read.samples + 1 for each in jobs):
        refuse("params.seed", f"leaves no room for the {read.samples} seeds of the samples: set a smaller one")
    if any("seed" in each.param_columns for each in jobs):
        refuse("params.columns.seed", "would give all samples of a row one seed: set params.seed, or leave it out")


def _check_equal(
    cells: Sequence[tuple[AxisValue, ...]], jobs: Sequence[Job], read: ReadMatrix, problems: Problems
) -> None:
    """Cells that ask the same."""
    seen: dict[str, tuple[AxisValue, ...]] = {}
    told: set[int] = set()  # values of an axis, each of which makes many cells
    for values, job in zip(cells, jobs, strict=True):
        (target,) = job.targets()
        earlier = seen.setdefault(digest_of(target), values)
        if earlier is values:
            continue
        at = max(at for at, pair in enumerate(zip(earlier, values, strict=True)) if pair[0] is not pair[1])
        if id(values[at]) not in told:
            words = f"{_words(read, values)} asks just what {_words(read, earlier)} asks: leave one of them out"
            problems.add(values[at].where, place_of(read.axes[at].axis.name), words)
        told.add(id(values[at]))


def _matrix(
    cells: Sequence[tuple[AxisValue, ...]], jobs: Sequence[Job], read: ReadMatrix, sections: Sections
) -> Matrix:
    prompts: dict[Prompt, int] = {}
    settings = []
    for values, job in zip(cells, jobs, strict=True):
        prompt = Prompt(job.messages, job.conversation, job.places, job.cut)
        settings.append(
            CellSettings(
                tuple(value.label for value in values),
                job.target.format,
                job.target.model,
                prompts.setdefault(prompt, len(prompts)),
                job.params,
                job.prices_of(job.target.model),
                job.param_columns,
            )
        )
    written = {name: value for name, value in sections.given("params").items() if name not in (OVERRIDE, "columns")}
    moved = sorted({field for axis in read.axes for path in axis.keys for field in _fields(path)})
    return Matrix(
        tuple(axis.axis for axis in read.axes),
        tuple(settings),
        tuple(prompts),
        GenerationParams(**written),
        read.samples,
        tuple(moved),
    )


def _fields(path: Path) -> tuple[str, ...]:
    """The fields of a target's fingerprint that an axis over this key sets; none for prices, which change no answer."""
    if path[0] == "prompt":
        return _PROMPT_FIELDS
    return () if path[0] == "prices" else (".".join(path[:3]),)
