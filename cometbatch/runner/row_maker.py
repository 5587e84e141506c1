"""How a row becomes a request."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from cometbatch.money.prices import estimate_tokens
from cometbatch.records import CallRequest, Failed, Failure, HttpRequest

ASSUMED_OUTPUT_TOKENS = 256  # for the tokens-per-minute estimate of a row without a cap, until real usage corrects it


class RowMaker(Struct, frozen=True):
    """How a row of the input becomes a request, or fails before anything is sent.

    `render` gives the texts that differ from row to row, and `build` makes a request with them. `common_characters`:
    of the texts that all rows share. `hash_start`: a hash of hashlib's that has seen what all requests have in common;
    each goes on with a copy.
    """

    columns: tuple[str, ...]
    id_column: str | None
    render: Callable[[Mapping[str, object]], list[str] | Failure]
    build: Callable[[Sequence[str]], HttpRequest]
    hash_start: Any
    now: Callable[[], datetime]
    common_characters: int
    max_output_tokens: int | None

    def make(self, row: int, values: Mapping[str, object]) -> CallRequest | Failed:
        """The request of one row. The same row always gives the same bytes."""
        custom_id = None if self.id_column is None or (value := values[self.id_column]) is None else str(value)
        texts = self.render(values)
        if not isinstance(texts, list):  # to ask whether something is a Struct takes long where it is not
            return Failed(row, custom_id, 0, None, self.now(), None, texts)
        http = self.build(texts)
        digest = self.hash_start.copy()
        digest.update(http.body)
        cap = self.max_output_tokens
        tokens = estimate_tokens(sum(map(len, texts), self.common_characters)) + (cap or ASSUMED_OUTPUT_TOKENS)
        return CallRequest(row, custom_id, http, digest.hexdigest(), tokens, cap)
