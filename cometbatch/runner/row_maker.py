"""How a row of the input becomes a request, or fails before anything is sent."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from cometbatch.money.prices import estimate_tokens
from cometbatch.prompt.content import images_in
from cometbatch.prompt.printing import UnprintableError, text_of
from cometbatch.records import CallRequest, Failed, Failure, HttpRequest, Message
from cometbatch.runner.images import ESTIMATED_TOKENS, Images, images_of
from cometbatch.wire.images import by_reference

# Output tokens in the tokens-per-minute estimate of a row without a cap; the usage of its answer corrects the estimate.
ASSUMED_OUTPUT_TOKENS = 256
NAMELESS = Failure("template", "input.id: binary data that is not UTF-8 text names no row")
"""Why a row with such an id is not sent."""


class RowMaker(Struct, frozen=True):
    """Makes requests of rows. The same row always gives the same bytes.

    `columns`: those that `make` needs of a row; `id_column` is the one with the user's own name for it. `render` gives
    the messages of a row, `build` the request that holds them, which is hashed, `as_sent` that request as it leaves.
    `hash_start`: a hash of hashlib's that has seen what all requests have in common; each request goes on with a copy.
    `max_output_tokens`: the cap on an answer, if any. `images`: where those of prompts come from; None: there are none.
    `added_characters`: of a schema that each request holds beside the row's messages. `target`: the number of the
    target that is asked. `variant`: where a row's own cells say how it is asked, what finds the maker of such requests,
    or why there is none.
    """

    columns: tuple[str, ...]
    id_column: str | None
    render: Callable[[Mapping[str, object]], tuple[Message, ...] | Failure]
    build: Callable[[Sequence[Message]], HttpRequest]
    as_sent: Callable[[HttpRequest], HttpRequest]
    hash_start: Any
    now: Callable[[], datetime]
    max_output_tokens: int | None
    images: Images | None = None
    added_characters: int = 0
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
        if self.images is not None and isinstance(messages, tuple):
            messages = self.images.identified(messages)
        if not isinstance(messages, tuple):  # isinstance with a Struct takes long for a value that is none
            return Failed(ordinal, custom_id, 0, None, self.now(), None, messages, target=self.target)
        http = self.build(messages)
        digest = self.hash_start.copy()
        if self.images is not None:
            return self._with_images(ordinal, custom_id, messages, http, digest)
        digest.update(http.body)
        cap = self.max_output_tokens
        characters = sum([len(part.text) for message in messages for part in message.content])
        tokens = estimate_tokens(characters + self.added_characters) + (cap or ASSUMED_OUTPUT_TOKENS)
        return CallRequest(ordinal, custom_id, self.as_sent(http), digest.hexdigest(), tokens, cap, self.target)

    def _make_variant(
        self, ordinal: int, values: Mapping[str, object], found: "RowMaker | Failure"
    ) -> CallRequest | Failed:
        if isinstance(found, RowMaker):
            return found.make(ordinal, values)
        return Failed(ordinal, self.id_of(values), 0, None, self.now(), None, found, target=self.target)

    def alike(self, values: Mapping[str, object], prompt: object) -> object:
        """A value that only a row with the same request has, or why there is none. `prompt`: what `render` gave."""
        if isinstance(prompt, Failure):
            return prompt
        found = None if self.variant is None else self.variant(values)
        if isinstance(found, Failure):
            return found
        return prompt if found is None and not self.target else (self.target, id(found), prompt)

    def _with_images(
        self, ordinal: int, custom_id: str | None, messages: Sequence[Message], http: HttpRequest, digest: Any
    ) -> CallRequest:
        """The same of a prompt that may have images. Those at addresses that the service fetches cost tokens, too."""
        bounds = self.images.bounds if self.images is not None else None
        count = len(images_in(messages))
        http = HttpRequest(http.path, http.headers, http.body, images_of(messages))
        digest.update(by_reference(http.body) if http.images else http.body)
        cap = self.max_output_tokens
        characters = sum([len(message.text) for message in messages])
        tokens = estimate_tokens(characters + self.added_characters) + (cap or ASSUMED_OUTPUT_TOKENS)
        tokens += count * ESTIMATED_TOKENS
        reserved = 0 if bounds is None else count * bounds.tokens
        return CallRequest(
            ordinal,
            custom_id,
            self.as_sent(http),
            digest.hexdigest(),
            tokens,
            cap,
            target=self.target,
            image_tokens=reserved,
        )

    def id_of(self, values: Mapping[str, object]) -> str | None:
        """The user's own name for a row, as text; None where there is none, or none that is text."""
        value = None if self.id_column is None else values[self.id_column]
        try:
            return None if value is None else text_of(value)
        except UnprintableError:
            return None
