"""Who is asked, as attributes of points and spans."""

from typing import Final, TypeAlias

from msgspec import Struct

from cometbatch.telemetry import names

MAX_CHARS: Final = 200
"""Characters of a name that a service or a table gives; no model's name and no id is longer."""

MAX_INT64: Final = 2**63 - 1
"""The largest whole number that the protocol has room for."""

Attributes: TypeAlias = dict[str, str | int | float | tuple[str, ...]]


def is_name(text: str) -> bool:
    """Whether a text is one word of bounded length. Anything else that a service writes in its place may be a text."""
    return 0 < len(text) <= MAX_CHARS and text.isprintable() and " " not in text


class Asked(Struct, frozen=True):
    """Who is asked: wire format and model of each target, and the server.

    `port` is None where the server is the built-in simulator, which has another one in each session.
    """

    formats: tuple[str, ...]
    models: tuple[str, ...]
    address: str
    port: int | None = None

    def attributes(self, target: int) -> Attributes:
        """Those of all requests of a target."""
        asked_in, model = self.formats[target], self.models[target]
        found: Attributes = {
            names.OPERATION: names.OPERATIONS[asked_in],
            names.PROVIDER: names.PROVIDERS[asked_in],
            names.REQUEST_MODEL: model if is_name(model) else names.OTHER,
            names.SERVER_ADDRESS: self.address,
        }
        return found if self.port is None else found | {names.SERVER_PORT: self.port}
