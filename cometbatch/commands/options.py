"""What a caller of `run` asks of one run beside its job: all keyword arguments as one value, made at the face."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
from msgspec import Struct

from cometbatch.commands.event_log import EventLog
from cometbatch.commands.metrics_file import MetricsFile
from cometbatch.commands.observers import Listener, Observers
from cometbatch.commands.stopping import Event, Interrupts
from cometbatch.job.accepting import read_accept
from cometbatch.job.engine import EngineName, Workers
from cometbatch.limiting.shared import Limits, SharedBudget, SharedRate
from cometbatch.results.accepted import Accept

if TYPE_CHECKING:
    import httpx


class Asked(TypedDict, total=False):
    """The keyword arguments that `run` and `run_async` have in common; `run` says what each means."""

    fresh: bool
    retry: str | Iterable[str]
    set_aside: Collection[str]
    limit: int | None
    accept: Mapping[str, object] | str | Iterable[str]
    update: bool
    forget_earlier: bool
    progress: bool | None
    events: Callable[[dict[str, Any]], object] | None
    metrics_file: str | Path | None
    http: "httpx.AsyncBaseTransport | None"
    stop: Event | None
    wait_s: float | None
    limits: Limits | None
    workers: Workers | None
    engine: EngineName | None


class Options(Struct, frozen=True, kw_only=True):
    """The keyword arguments of `run` and `run_async`, by the names that they have there, and with their meaning.

    `interrupts` and `observers` are no arguments: the one stands for Ctrl-C where no signal arrives, the other for
    those who are told how the run goes.
    """

    fresh: bool = False
    retry: str | Iterable[str] = ()
    set_aside: Collection[str] = ()
    limit: int | None = None
    accept: Accept = Accept()
    update: bool = False
    forget_earlier: bool = False
    progress: bool | None = None
    http: "httpx.AsyncBaseTransport | None" = None
    stop: Event | None = None
    wait_s: float | None = None
    limits: Limits | None = None
    workers: Workers | None = None
    engine: EngineName | None = None
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


def options_of(
    *,
    accept: Mapping[str, object] | str | Iterable[str] = (),
    progress: bool | None = None,
    events: Callable[[dict[str, Any]], object] | None = None,
    metrics_file: str | Path | None = None,
    **given: Any,
) -> Options:
    """What a caller asks as one value. Raises `UsageError` where `accept` is not as the job may have it."""
    listeners: list[Listener] = []
    if metrics_file is not None:
        listeners.append(MetricsFile(Path(metrics_file)))
    if events is not None:  # the last: what others complain of at the end comes before the event of the end
        listeners.append(EventLog(events, with_progress=progress is not False))
    return Options(accept=read_accept(accept), progress=progress, observers=Observers(listeners), **given)
