"""The leaderboard of a result, for the commands that show one."""

from pathlib import Path

from cometbatch.commands.score_publishing import scores_path
from cometbatch.errors import CometbatchError
from cometbatch.job import Job
from cometbatch.job.report import ReportSettings
from cometbatch.reports.board import Figures
from cometbatch.reports.figures import figures
from cometbatch.reports.sources import ResultFiles
from cometbatch.results.rows import data_set_files
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
    return figures([result_at(result)], settings)


def leaderboard_of(result: Path, job: Job) -> tuple[Figures | None, tuple[str, ...]]:
    """The leaderboard of a job's result, and why there is none, in sentences; a job without scores has none.

    A run is finished whatever comes of it.
    """
    if not job.scores:
        return None, ()
    try:
        return leaderboard(result, job.report), ()
    except CometbatchError as error:
        return None, (f"there is no leaderboard: {error}",)
