"""The runs of a judge: which tables it is asked about, each as the input of a job of its own, under one budget.

Guards that a changed answer is never judged as the one that it was, and that no verdict is paid for twice.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.commands.growth import grown, new_cells
from cometbatch.commands.judge_tables import (
    Answers,
    JudgedTable,
    Says,
    answer_names,
    is_same,
    judged_cells,
    judged_tables,
    said_by,
)
from cometbatch.commands.locate import Located
from cometbatch.errors import DriftError, JobError, UsageError
from cometbatch.evaluation.judge import ORDERS
from cometbatch.job import Job
from cometbatch.job.judge_reading import PREFIX
from cometbatch.job.judging import FIRST, SECOND, Pairwise
from cometbatch.job.matrix import Axis, CellSettings, Matrix, Prompt
from cometbatch.job.paths import judged_beside
from cometbatch.job.settings import InputSettings, JudgeSettings
from cometbatch.job.targets import MessageTemplate
from cometbatch.results import parts
from cometbatch.results.summary_words import count
from cometbatch.run_state.drift import changed_keys, refuse_drift
from cometbatch.run_state.run import Run, directory_of, find
from cometbatch.store import local

ORDER: Final = "order"
"""The axis of a judge's job: which of two answers stands first in the prompt."""
SWAPPED: Final = f"{{% set {FIRST}, {SECOND} = {SECOND}, {FIRST} %}}"
"""Before the templates of the order in which the second cell's answer stands first."""
NEW: Final = ".new"  # behind the name of a table that is not in its place yet


class ToJudge(Struct, frozen=True):
    """A table with its verdicts' job. `table`: its cells in the order that was asked for; `said`: what is in the file.

    `run`: that of its verdicts, if it has begun. `is_new`: the file is not in its place yet; `is_changed`: another one
    is there, with other answers.
    """

    table: JudgedTable
    said: Says
    job: Job
    run: Run | None = None
    is_new: bool = False
    is_changed: bool = False

    @property
    def has_changed(self) -> bool:
        """Whether the judge was asked about other answers, or in another way."""
        return bool(self.changes)

    @property
    def changes(self) -> list[str]:
        """What is other than when the judge was asked, in words."""
        if self.run is None or not self.run.is_begun:
            return []
        keys = changed_keys(self.run.manifest, self.job.fingerprint(), matrix=self.job.matrix)
        return (["answers of the run"] if self.is_changed else []) + [f"judge.{key}" for key in keys]

    @property
    def is_flipped(self) -> bool:
        """Whether the cells stand in the file in the other order than they were asked for."""
        return self.said.cells != tuple(each.digest for each in self.table.cells)


class Judging(Struct, frozen=True):
    """All that a judge is to be asked about a run. `run`: the one whose answers are judged."""

    job: Job
    run: Run
    settings: JudgeSettings
    tables: tuple[ToJudge, ...]

    @property
    def folder(self) -> Path:
        """Where the verdicts are."""
        return judged_beside(self.run.result)

    def clusters(self) -> dict[int, int] | None:
        """The cluster of each row, as the job's section `report` says; None where each row is its own.

        A row whose cell is empty is a cluster of its own.
        """
        column = self.job.report.cluster
        if column is None:
            return None
        numbers: dict[tuple[str, object], int] = {}
        rows: dict[int, int] = {}
        manifest = self.run.manifest
        first = manifest.active[0] * manifest.partitions_in_slice
        for partition in manifest.partitions()[: manifest.partitions_in_slice]:
            values = parts.read_column(self.run.directory.parts.path(first + partition.index), column).to_pylist()
            for row, value in enumerate(values, partition.first_row):
                key = ("row", row) if value is None else ("value", repr(value))
                rows[row] = numbers.setdefault(key, len(numbers))
        return rows


@contextlib.contextmanager
def judging(located: Located, *, update: bool, keep: bool) -> Iterator[Judging]:
    """What is to be judged of a finished run, each table written where it is new. `keep`: else nothing stays.

    Raises `UsageError` where there is nothing to judge yet, `DriftError` where answers or the judge's settings are
    others than those that were judged, and `update` was not asked for.
    """
    with contextlib.ExitStack() as stack:
        with located.directory.locked():
            job = located.job
            assert job is not None and job.judge is not None  # noqa: PT018, S101 - the caller has looked
            run = _finished(located, job)
            cells = judged_cells(run.manifest, job)
            folder = judged_beside(run.result)
            tables = judged_tables(job, cells, folder)
            if not tables:
                raise UsageError("judge: no two cells are to be compared. Add a value to the axis of the baseline.")
            answers = Answers(run, *_columns(job.judge, run))
            if keep:
                local.make_folder(folder)
                aside = folder
            else:
                aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cometbatch-")))
            try:
                found = [_to_judge(each, job.judge, answers, aside, keep=keep) for each in tables]
                for each in found:
                    _refuse_changed(each, update=update)
            except BaseException:
                for table in tables if keep else ():
                    local.remove(folder / f"{table.path.name}{NEW}")
                raise
            if keep:
                found = [_kept(each) for each in found]
        yield Judging(job, run, job.judge, tuple(found))


def _finished(located: Located, job: Job) -> Run:
    """The run, with the cells that its job names. Raises `UsageError` where an answer is still to come."""
    run = find(located.directory, located.result)
    if run is None:
        raise located.no_run()
    own = run.manifest.input
    refuse_drift(run.manifest, job.fingerprint(), own.size, own.sha256, targets=run.targets, matrix=job.matrix)
    named = msgspec.structs.replace(run, manifest=grown(run.manifest, job, {}))
    if new_cells(run.manifest, job) or not named.is_complete:
        done = f"{named.tally.calls:,} of {count(named.manifest.calls, 'row')} have an outcome"
        raise UsageError(
            f"{located.directory.path}: this run is not finished ({done}), and what is judged does not change any "
            f"more. Finish it with: {located.command}"
        )
    return named


def _columns(settings: JudgeSettings, run: Run) -> tuple[list[str], tuple[str, ...]]:
    """The columns of the input that the judge's prompt shows, and those that stand for answers in it.

    Raises `JobError` where one of them is not there.
    """
    ours = answer_names(is_pairwise=isinstance(settings.way, Pairwise))
    known = run.manifest.input.columns
    (target,) = settings.job.targets()
    try:
        template = settings.job.prompt_template_for(target, [*known, *ours])
    except JobError as error:
        raise JobError(f"judge: {error}") from error
    return [name for name in known if name in template.columns_needed], ours


def _to_judge(table: JudgedTable, settings: JudgeSettings, answers: Answers, aside: Path, *, keep: bool) -> ToJudge:
    """A table as it is now, beside the one that is there."""
    before = said_by(table.path)
    filed = table if before is None else table.in_order_of(before)
    place = aside / (f"{table.path.name}{NEW}" if keep else table.path.name)
    said = answers.write(filed, place)
    is_there = before is not None and is_same(place, table.path)
    if is_there:
        local.remove(place)
    job = asking(settings, table.path if is_there else place, table.result)
    run = find(directory_of(table.result, is_dataset=False), table.result)
    return ToJudge(table, said, job, run, is_new=not is_there, is_changed=not is_there and before is not None)


def _kept(each: ToJudge) -> ToJudge:
    """The table in its place."""
    if not each.is_new:
        return each
    local.move(each.job.input.path, each.table.path)
    moved = msgspec.structs.replace(each.job, input=msgspec.structs.replace(each.job.input, path=each.table.path))
    return msgspec.structs.replace(each, job=moved)


def _refuse_changed(each: ToJudge, *, update: bool) -> None:
    """Raise `DriftError` where the judge was asked about other answers, or in another way."""
    if not update and each.has_changed:
        raise DriftError(
            f"{each.table.words}: since the judge was asked about these, this has changed: {', '.join(each.changes)}. "
            "Its verdicts were on what was there then. Undo the change; or keep the verdicts that still fit, and ask "
            "for the others alone, with --update (in Python: update=True)."
        )


def asking(settings: JudgeSettings, path: Path, result: Path) -> Job:
    """The job that asks the judge about a table of answers."""
    job = msgspec.structs.replace(
        settings.job,
        input=InputSettings(path),
        output=msgspec.structs.replace(settings.job.output, path=result, prefix=PREFIX),
    )
    return _in_orders(job, settings.way) if isinstance(settings.way, Pairwise) else job


def _in_orders(job: Job, way: Pairwise) -> Job:
    """The same job with an axis of both orders, or of one."""
    orders = ORDERS if way.swap else ORDERS[:1]
    swapped = tuple(_swapped(each) for each in job.messages)
    prompts = tuple(Prompt(each, None, job.places, job.cut) for each in (job.messages, swapped)[: len(orders)])
    prices = job.prices_of(job.target.model)
    cells = tuple(
        CellSettings((order,), job.target.format, job.target.model, number, job.params, prices, job.param_columns)
        for number, order in enumerate(orders)
    )
    # No field of a fingerprint is left to the axis: another prompt is drift, and not another cell.
    return msgspec.structs.replace(job, matrix=Matrix((Axis(ORDER, ORDER, orders),), cells, prompts, job.params))


def _swapped(message: MessageTemplate) -> MessageTemplate:
    """A message in which the answers have changed places."""
    parts = tuple(msgspec.structs.replace(each, template=SWAPPED + each.template) for each in message.parts)
    return MessageTemplate(message.role, SWAPPED + message.template if message.template else "", parts)
