"""The section `engine`: how many processes send the calls, and where. It changes no request and no answer."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

MAX_WORKERS: Final = 64
"""The most processes that send the calls of one run: what was measured. More would be more traffic for the shares of
one rate, and no more rows a second than the service takes."""
AUTO: Final = "auto"
"""As many workers as this process may use cores."""
LOCAL: Final = "local"
"""Ray's address where the run starts a cluster of its own on this machine."""

Workers: TypeAlias = int | Literal["auto"]
EngineName: TypeAlias = Literal["local", "ray"]
"""Where workers are: processes of this machine, or actors of a cluster of Ray."""


class RaySettings(Struct, frozen=True):
    """On which cluster of Ray the workers are. `workers`: None is what `engine.workers` says."""

    address: str = LOCAL
    workers: Workers | None = None


class EngineSettings(Struct, frozen=True):
    """Who sends the calls. `workers`: processes; 1 is the plain run. `ray`: None is processes of this machine alone."""

    workers: Workers = 1
    ray: RaySettings | None = None
