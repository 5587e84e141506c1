"""What an owner is given to work with: all that its process needs of the driver's, never by its environment."""

from collections.abc import Mapping

from msgspec import Struct

from cometbatch.input.files import Content
from cometbatch.job import Job
from cometbatch.records import Tally
from cometbatch.run_state.sessions import Session
from cometbatch.runner.queue_start import QueueStart
from cometbatch.transport import Access


class Assignment(Struct, frozen=True):
    """The work of one owner, whatever engine it runs on. Pickled by the engine, over a way that nobody else reads.

    `result`, `directory`: paths of the run. `parts`, `slices`: of a data set, as `RunDirectory` takes them. `session`:
    what the driver began. `queues`: what is known of each queue, as `queue_starts` has it; `records`: the tally of each
    slice. `limit`: rows of each slice. `access`: how the service is reached. `workers`: how many owners share
    `limits.concurrency`. `staged`: a Parquet file that holds the input's rows as they were read; None where the input
    itself is read, whose files were found to hold `contents`; () on another machine, where files are taken at their
    size. `nonce`: what a file of the run directory holds, if this is the same folder as the driver's.
    `tells_outcomes`: the driver wants each outcome.
    """

    owner: int
    session: Session
    job: Job
    result: str
    directory: str
    parts: str | None
    slices: str | None
    queues: tuple[QueueStart, ...]
    records: Mapping[int, Tally]
    limit: int | None
    access: Access
    workers: int
    staged: str | None = None
    contents: tuple[Content, ...] = ()
    nonce: str = ""
    tells_outcomes: bool = False

    def __repr__(self) -> str:
        """Without the key."""
        return f"Assignment(owner={self.owner}, session={self.session.number}, directory={self.directory!r})"

    __str__ = __repr__
