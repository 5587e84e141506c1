"""How a process reaches the service, in a form that another process of the same run can be given."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from cometbatch.transport.tls import USUAL, TlsSettings


class Access(Struct, frozen=True):
    """What another process needs to reach the service as this one does. It goes nowhere but there: it has the key.

    `timeout_s`: seconds for one whole attempt. `headers`: as the job has them; `variables`: the values of what they
    name of the environment.
    """

    base_url: str
    key: str
    timeout_s: float
    tls: TlsSettings = USUAL
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Without secrets."""
        return f"Access({self.base_url!r})"

    __str__ = __repr__
