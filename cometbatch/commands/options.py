"""What a caller of `run` asks of one run beside its job: all keyword arguments as one value, made at the face."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from cometbatch.commands.observers import Observers
from cometbatch.commands.stopping import Event, Interrupts
from cometbatch.limiting.shared import Limits, SharedBudget, SharedRate

if TYPE_CHECKING:
    import httpx


class Options(Struct, frozen=True, kw_only=True):
    """The keyword arguments of `run` and `run_async`, by the names that they have there, and with their meaning.

    `interrupts` and `observers` are no arguments: the one stands for Ctrl-C where no signal arrives, the other for
    those who are told how the run goes.
    """

    fresh: bool = False
    retry: str | Iterable[str] = ()
    set_aside: Collection[str] = ()
    limit: int | None = None
    progress: bool | None = None
    http: "httpx.AsyncBaseTransport | None" = None
    stop: Event | None = None
    wait_s: float | None = None
    limits: Limits | None = None
    interrupts: Interrupts | None = None
    observers: Observers = msgspec.field(default_factory=Observers)

    @property
    def rate(self) -> SharedRate | None:
        """Requests and tokens per minute that this run shares with others."""
        return None if self.limits is None else self.limits.rate

    @property
    def shared_budget(self) -> SharedBudget | None:
        """The cap that this run shares with others."""
        return None if self.limits is None else self.limits.budget
