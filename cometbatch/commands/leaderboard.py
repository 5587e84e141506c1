"""The leaderboard of a result, for the commands that show one."""

from pathlib import Path
from typing import Any

from msgspec import Struct

from cometbatch.commands.judge_purse import judge_cost
from cometbatch.commands.score_publishing import scores_path
from cometbatch.errors import CometbatchError
from cometbatch.job import Job
from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
from cometbatch.results.rows import data_set_files
from cometbatch.results.scored import Leaderboard
from cometbatch.run_state.slice_files import slice_files


def result_at(result: Path, name: str | None = None) -> ResultFiles:
    """The files of a published result. `name`: how a person calls it. Raises `InputError` where it can't be read."""
    shown = str(result) if name is None else name
    if not result.is_dir():
        return ResultFiles(shown, (result,))
    beside = scores_path(result)
    files = slice_files(result) or data_set_files(result)
    return ResultFiles(shown, tuple(files), (beside,) if beside.exists() else ())


def leaderboard(result: Path, settings: ReportSettings) -> Figures | None:
    """The leaderboard of a published result; None where it has no scores. Raises as `figures` does."""
    return figures([result_at(result)], settings, judge_cost_usd=judge_cost(result))


class NoLeaderboard(Struct, frozen=True):
    """Stands where a leaderboard would, and says why there is none."""

    words: str

    def describe(self, width: int = 100) -> str:  # noqa: ARG002 - a sentence has no columns
        """For a person."""
        return f"There is no leaderboard: {self.words}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"missing": self.words}


def leaderboard_of(result: Path, job: Job) -> Leaderboard | None:
    """The leaderboard of a job's result, or what says why there is none; a job without scores has none.

    A run is finished whatever comes of it, so nothing is raised.
    """
    if not job.scores:
        return None
    try:
        return leaderboard(result, job.report)
    except CometbatchError as error:
        return NoLeaderboard(str(error))
