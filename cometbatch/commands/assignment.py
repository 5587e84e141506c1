"""What an owner is given to work with: all that its process needs of the driver's, never by its environment."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.records import Tally
from cometbatch.run_state.sessions import Session
from cometbatch.runner.queue_start import QueueStart
from cometbatch.transport import TlsSettings


class Assignment(Struct, frozen=True):
    """The work of one owner, whatever engine it runs on. Pickled by the engine, over a way that nobody else reads.

    `job`: as `Job.describe` has it, beside what a description leaves out. `result`, `directory`: paths of the run.
    `parts`, `slices`: of a data set, as `RunDirectory` takes them. `session`: what the driver began. `queues`: what is
    known of each queue; `records`: the tally of each slice. `limit`: rows of each slice. `base_url`, `key`, `tls`,
    `headers`: how the service is reached, headers with their values. `staged`: a Parquet file that holds the input's
    rows as they were read; None where the input itself is read. `tells_outcomes`: the driver wants each outcome.
    """

    owner: int
    session: Session
    job: Any
    result: str
    directory: str
    parts: str | None
    slices: str | None
    queues: tuple[QueueStart, ...]
    records: Mapping[int, Tally]
    limit: int | None
    base_url: str
    key: str
    tls: TlsSettings
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    staged: str | None = None
    nonce: str = ""
    tells_outcomes: bool = False

    def __repr__(self) -> str:
        """Without the key."""
        return f"Assignment(owner={self.owner}, session={self.session.number}, directory={self.directory!r})"
