"""How a row of the input becomes a request, or fails before anything is sent."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from cometbatch.money.prices import estimate_tokens
from cometbatch.prompt.printing import UnprintableError, text_of
from cometbatch.records import CallRequest, Failed, Failure, HttpRequest, Message

# Output tokens in the tokens-per-minute estimate of a row without a cap; the usage of its answer corrects the estimate.
ASSUMED_OUTPUT_TOKENS = 256
NAMELESS = Failure("template", "input.id: binary data that is not UTF-8 text names no row")
"""Why a row with such an id is not sent."""


class RowMaker(Struct, frozen=True):
    """Makes requests of rows. The same row always gives the same bytes.

    `columns`: those that `make` needs of a row; `id_column` is the one with the user's own name for it. `render` gives
    the messages of a row, `build` the request that holds them, which is hashed, `as_sent` that request as it leaves.
    `hash_start`: a hash of hashlib's that has seen what all requests have in common; each request goes on with a copy.
    `max_output_tokens`: the cap on an answer, if any. `target`: the number of the target that is asked. `variant`:
    where a row's own cells say how it is asked, what finds the maker of such requests, or why there is none.
    """

    columns: tuple[str, ...]
    id_column: str | None
    render: Callable[[Mapping[str, object]], tuple[Message, ...] | Failure]
    build: Callable[[Sequence[Message]], HttpRequest]
    as_sent: Callable[[HttpRequest], HttpRequest]
    hash_start: Any
    now: Callable[[], datetime]
    max_output_tokens: int | None
    target: int = 0
    variant: "Callable[[Mapping[str, object]], RowMaker | Failure] | None" = None

    def make(self, ordinal: int, values: Mapping[str, object]) -> CallRequest | Failed:
        """The request of one call, from the values of its row by column."""
        if self.variant is not None:
            return self._make_variant(ordinal, values, self.variant(values))
        custom_id: Any = None if self.id_column is None else values[self.id_column]
        messages = self.render(values)
        if custom_id is not None and type(custom_id) is not str:
            custom_id = self.id_of(values)
            messages = messages if custom_id is not None else NAMELESS
        if not isinstance(messages, tuple):  # isinstance with a Struct takes long for a value that is none
            return Failed(ordinal, custom_id, 0, None, self.now(), None, messages, target=self.target)
        http = self.build(messages)
        digest = self.hash_start.copy()
        digest.update(http.body)
        cap = self.max_output_tokens
        characters = sum([len(part.text) for message in messages for part in message.content])
        tokens = estimate_tokens(characters) + (cap or ASSUMED_OUTPUT_TOKENS)
        return CallRequest(ordinal, custom_id, self.as_sent(http), digest.hexdigest(), tokens, cap, self.target)

    def _make_variant(
        self, ordinal: int, values: Mapping[str, object], found: "RowMaker | Failure"
    ) -> CallRequest | Failed:
        if isinstance(found, RowMaker):
            return found.make(ordinal, values)
        return Failed(ordinal, self.id_of(values), 0, None, self.now(), None, found, target=self.target)

    def prompt_of(self, values: Mapping[str, object]) -> object:
        """A value that only a row with the same request has, or why there is none."""
        messages = self.render(values)
        if self.variant is None or not isinstance(messages, tuple):
            return messages
        found = self.variant(values)
        return (id(found), messages) if isinstance(found, RowMaker) else found

    def id_of(self, values: Mapping[str, object]) -> str | None:
        """The user's own name for a row, as text; None where there is none, or none that is text."""
        value = None if self.id_column is None else values[self.id_column]
        try:
            return None if value is None else text_of(value)
        except UnprintableError:
            return None
