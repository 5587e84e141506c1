"""`score`: scores the answers of a finished run anew, sends nothing, and changes no part of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.commands.answers import answer_columns, checker_of
from cometbatch.commands.growth import grown, new_cells
from cometbatch.commands.leaderboard import leaderboard_of
from cometbatch.commands.locate import Located, locate
from cometbatch.commands.score_publishing import publish_scored, scores_path
from cometbatch.commands.scoring import refuse_score_names, scoring_of, to_stderr
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.job import Job
from cometbatch.results import columns, parts
from cometbatch.results.scored import Leaderboard, ScoreCounts
from cometbatch.results.summary_words import count
from cometbatch.run_state.drift import refuse_drift
from cometbatch.run_state.published import lines_of
from cometbatch.run_state.run import Run, find, with_manifest


class ScoreSummary(Struct, frozen=True):
    """What scoring came to. `output`: the result, or the file with the scores of a data set. `names`: of the scores."""

    output: Path
    names: tuple[str, ...]
    counts: ScoreCounts
    leaderboard: Leaderboard | None = None

    @property
    def ended_well(self) -> bool:
        """Whether no Python scorer failed on more than a tenth of the lines."""
        return not self.counts.has_too_many_errors

    def __str__(self) -> str:
        return self.describe()

    def describe(self, width: int = 100) -> str:
        """A few lines for a person, then the leaderboard, at most this many columns wide where its labels allow it."""
        lines = [f"scored {count(self.counts.lines, 'line')} by {', '.join(self.names)}; nothing was sent"]
        lines += [f"result: {self.output}", *self.counts.describe()]
        return "\n".join(lines + ([] if self.leaderboard is None else ["", self.leaderboard.describe(width)]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        board = {} if self.leaderboard is None else {"leaderboard": self.leaderboard.to_dict()}
        scored = {"output": str(self.output), "scores": list(self.names), "ended_well": self.ended_well}
        return scored | self.counts.to_dict() | board


def score(
    job: JobSource, overrides: Sequence[str] = (), *, tell: Callable[[str], object] | None = None
) -> ScoreSummary:
    """Score the answers of a finished run as its job says now; the result is replaced by one rename.

    `job`: a job, or what `load_job` takes, with `--set` strings to put over it. Needs no key and no input: the answers
    and their rows are in the run. Python scorers are imported, each after a line that names its file and digest: on
    standard error, or handed to `tell`.

    Raises `UsageError` where there is no run, where it is not finished, where the job has no scores, or where a row has
    no gold that can be read; `DriftError` where the job differs in more than its scores; `RunLockedError` where another
    process has the run.
    """
    located = locate(job, overrides)
    if located.job is None:
        raise UsageError(f"{located.result}: give the job file: it says how answers are scored.")
    if located.directory.read_manifest() is None:
        raise located.no_run()
    if not located.job.scores:
        raise UsageError("The job has no section score, so there is nothing to score by (docs/scores.md).")
    with located.directory.locked():
        return _scored(located, located.job, tell or to_stderr)


def _scored(located: Located, job: Job, tell: Callable[[str], object]) -> ScoreSummary:
    run = find(located.directory, located.result)
    if run is None:
        raise located.no_run()
    manifest = run.manifest
    own = manifest.input
    refuse_drift(manifest, job.fingerprint(), own.size, own.sha256, targets=run.targets, matrix=job.matrix)
    run = _as_named(located, run, job)
    manifest = run.manifest
    schema = _input_schema(run)
    scoring = scoring_of(job, schema)
    assert scoring is not None  # noqa: S101 - the job has scores
    target = manifest.targets[0].target
    answers = answer_columns(target, checker_of(target))
    part = columns.joined_schema(schema, run.prefix, {}, columns.columns_of(run.columns), answers)
    refuse_score_names(scoring, lines_of(manifest, run.columns).schema(part).names)
    scores = scoring.load(tell)
    publish_scored(run, schema, answers, scores)
    output = scores_path(run.result) if run.directory.parts.is_dataset else run.result
    names = tuple(each.name for each in job.scores)
    return ScoreSummary(output, names, scores.counts, leaderboard_of(run.result, job))


def _as_named(located: Located, run: Run, job: Job) -> Run:
    """The run with the cells that the job names now. Raises `UsageError` where some have no answers yet."""
    named = grown(run.manifest, job, {})
    found = msgspec.structs.replace(run, manifest=named)
    done = f"{found.tally.calls:,} of {count(named.calls, 'row')} have an outcome"
    added = new_cells(run.manifest, job)
    if added or not found.is_complete:
        more = f", and {count(len(added), 'cell')} of the matrix can't have any yet" if added else ""
        words = f"{located.directory.path}: this run is not finished ({done}{more})"
        raise UsageError(f"{words}. Finish it, which scores it, too, with: {located.command}")
    return found if named == run.manifest else with_manifest(run, named)


def _input_schema(run: Run) -> pa.Schema:
    """The input's columns, as the parts have them; of a table without rows, as the result has them."""
    first = next(iter(run.manifest.partitions()), None)
    path = run.result if first is None else run.directory.parts.path(first.index)
    found = parts.shape_of(path)[0]
    return pa.schema([found.field(name) for name in run.manifest.input.columns], found.metadata)
