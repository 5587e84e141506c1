"""What a caller of `run` asks of one run beside its job: all keyword arguments as one value, made at the face."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from cometbatch.commands.session_watch import Interrupts

if TYPE_CHECKING:
    import httpx


class Options(Struct, frozen=True, kw_only=True):
    """The keyword arguments of `run` and `run_async`, by the names that they have there, and with their meaning.

    `interrupts` is no argument: it stands for Ctrl-C where no signal arrives.
    """

    fresh: bool = False
    retry: str | Iterable[str] = ()
    set_aside: Collection[str] = ()
    limit: int | None = None
    update: bool = False
    forget_earlier: bool = False
    progress: bool | None = None
    http: "httpx.AsyncBaseTransport | None" = None
    interrupts: Interrupts | None = None
