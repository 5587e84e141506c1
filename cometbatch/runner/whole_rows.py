"""How a row that brings its whole request becomes a call."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from cometbatch.money.prices import estimate_tokens
from cometbatch.records import CallRequest, Failed, Failure
from cometbatch.runner.row_maker import ASSUMED_OUTPUT_TOKENS
from cometbatch.wire.whole_bodies import WholeRequest


class WholeRowMaker(Struct, frozen=True):
    """Makes calls of rows whose column `body` holds a request's body. The same row always gives the same bytes.

    `id_column`: the one with the user's own name for the row. `read` makes the request of a body, and raises
    `ValueError` for what is none; such a row fails unsent. `hash_start`, `target`: as of `RowMaker`.
    """

    body: str
    id_column: str | None
    read: Callable[[bytes], WholeRequest]
    hash_start: Any
    now: Callable[[], datetime]
    target: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `make` needs of a row."""
        return (self.body,) if self.id_column is None else (self.id_column, self.body)

    @property
    def images(self) -> None:
        """Where images of prompts come from: nowhere, they are in the bodies."""
        return

    def render(self, values: Mapping[str, object]) -> object:
        """A value that only the same request has, too."""
        return values[self.body]

    def alike(self, values: Mapping[str, object], prompt: object) -> object:  # noqa: ARG002 - as `RowMaker`
        """A value that only a row with the same request has. `prompt`: what `render` gave."""
        return (self.target, prompt) if self.target else prompt

    def make(self, ordinal: int, values: Mapping[str, object]) -> CallRequest | Failed:
        """The request of one call, from the values of its row by column."""
        custom_id = self.id_of(values)
        try:
            whole = self.read(str(values[self.body]).encode())
        except ValueError as error:
            failure = Failure("template", f"{self.body} is no request's body: {error}")
            return Failed(ordinal, custom_id, 0, None, self.now(), None, failure, target=self.target)
        digest = self.hash_start.copy()
        digest.update(whole.identity)
        tokens = estimate_tokens(whole.characters) + (whole.cap or ASSUMED_OUTPUT_TOKENS)
        return CallRequest(ordinal, custom_id, whole.http, digest.hexdigest(), tokens, whole.cap, self.target)

    def id_of(self, values: Mapping[str, object]) -> str | None:
        """The user's own name for a row; None where it is no text."""
        value = None if self.id_column is None else values[self.id_column]
        return value if isinstance(value, str) else None
