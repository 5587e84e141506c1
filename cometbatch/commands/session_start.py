"""What a session has from its start, and what whoever sends its calls is given."""

import asyncio
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import describe_growth
from cometbatch.commands.engine_choice import EngineChoice
from cometbatch.commands.looks import Looks
from cometbatch.commands.options import Options
from cometbatch.commands.progress_line import Progress
from cometbatch.commands.stopping import Stopping
from cometbatch.errors import InputChangedError, InputError, Quoting, logged
from cometbatch.records import Tally
from cometbatch.results.reuse import EarlierAnswers
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.run import Run
from cometbatch.run_state.sessions import Session
from cometbatch.transport import Transport

if TYPE_CHECKING:  # a run without scores loads nothing of them
    from cometbatch.evaluation.score_columns import ScoreColumns

Returned = TypeVar("Returned")


class SessionStart(Struct, frozen=True):
    """What a session has from its start: job, run directory, a thread for files, the caller's options and stops.

    `told`: sentences for whoever pays that are for this session alone. `updated`: the run whose place a new one is to
    take. `scores`: what scores the answers when the result is published; None where nothing does. `engine`: who sends.
    """

    checked: Checked
    directory: RunDirectory
    files: ThreadPoolExecutor
    options: Options
    stopping: Stopping
    told: tuple[str, ...] = ()
    updated: Run | None = None
    scores: "ScoreColumns | None" = None
    engine: EngineChoice = EngineChoice()


class Work(Struct, frozen=True):
    """The calls of a session that have no outcome yet, for whoever sends them.

    `shown`: the progress line. `slots`: requests in flight at most. `limit`: of each slice, the rows below it. `found`:
    the possible charges that the session found when it began. `looks`: what looks at each row. `earlier`: the answers
    of earlier runs.
    """

    start: SessionStart
    run: Run
    transport: Transport
    shown: Progress
    slots: int
    limit: int | None = None
    found: Tally | None = None
    looks: Looks | None = None
    earlier: EarlierAnswers | None = None

    @property
    def session(self) -> Session:
        """The session itself."""
        found = self.run.progress.last
        assert found is not None  # noqa: S101 - each run has begun a session before it sends
        return found


async def in_thread(files: ThreadPoolExecutor, work: Callable[..., Returned], *arguments: object) -> Returned:
    """Do work that reads and writes files while the caller's event loop goes on.

    It is waited for even where the caller was cancelled: the lock must not be released while files are written.
    """
    task = asyncio.get_running_loop().run_in_executor(files, functools.partial(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def input_lost(path: Path, error: InputError) -> str:
    """What happened to the input while it was read, and how the run is finished all the same."""
    what = error.what if isinstance(error, InputChangedError) else error.args[0]
    safe = "What was answered is recorded, and nothing more was sent."
    if not isinstance(error, InputChangedError) or error.as_it_was is None:
        way = "Put the table back as it was and run the same command again."
    else:
        way = describe_growth(path, error.as_it_was)
    return sentences(what, safe, way)


def sentences(*said: str) -> Quoting:
    """What several said, one after the other; a service's words often have no full stop."""

    def joined(sentences: Iterable[str]) -> str:
        return " ".join(words if words.endswith((".", "!", "?")) else f"{words}." for words in sentences if words)

    return Quoting(joined(said), joined(map(logged, said)))
