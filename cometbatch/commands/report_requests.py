"""How lines that were asked of one target become prompts of a report: a frame for each shape, the texts of each row.

The row makers are those that a run sends with. Of a row only its prompt is rendered: a body is made for the first row
of each shape, and compared with that row's `request_hash`, which tells how a session spelled the token cap.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, cast

import msgspec
import pyarrow as pa

from cometbatch.commands.report_images import PageImages
from cometbatch.commands.row_maker import row_maker
from cometbatch.commands.row_variants import RowVariants
from cometbatch.input.values import row_values
from cometbatch.job import Target
from cometbatch.job.settings import TargetSettings
from cometbatch.job.targets import Template
from cometbatch.prompt.content import images_in
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import Failure, ImagePart, MaxTokensField, Message, Part, Role
from cometbatch.reports.page.requests import (
    Frame,
    Frames,
    PartShape,
    Shape,
    added_span,
    request_frame,
    spaced,
    whole_frame,
)
from cometbatch.runner.row_maker import RowMaker
from cometbatch.runner.whole_rows import WholeRowMaker
from cometbatch.wire.images import by_reference

RenderedRow: TypeAlias = tuple[int | Frame, tuple[str, ...]] | str
"""A line's frame, by its number in the page or itself, and the texts of its slots; or why it has no prompt."""
KEPT_SHAPES: Final = 4_096  # shapes whose frames are kept; rows of more than these have hardly any shape in common
MAX_MADE: Final = 20_000  # frames that are made for a source, a few seconds' work; above it rows go without a prompt
TOO_MANY_SHAPES: Final = "The prompts of this result have more different shapes than a page makes requests of."
"""Why a row has no prompt whose shape is one of too many."""
ONE_PIECE: Final[Sequence[bool]] = (True,)
"""A body that is hashed as it is sent."""
WITHOUT_MIDDLE: Final[Sequence[bool]] = (True, False, True)
"""A body of which a piece in the middle is not hashed: its setting `stream`."""


class Settings:
    """What all targets of a source have in common, and what was found while its rows were rendered.

    `columns`: the input's, in order. `made`: frames that were made. `compared`, `same`: requests that were made for
    rows with a `request_hash`, and those of them that have it.
    """

    def __init__(self, columns: Sequence[str], service: TargetSettings, images: PageImages, frames: Frames) -> None:
        self.columns = tuple(columns)
        self.service = service
        self.images = images
        self.frames = frames
        self.compared = self.same = self.made = 0

    def note(self, *, is_same: bool) -> None:
        """Count a comparison."""
        self.compared += 1
        self.same += is_same


class TargetPrompts:
    """Renders lines that were asked of one target. `template`: its compiled prompt."""

    def __init__(self, target: Target, template: Template, settings: Settings) -> None:
        self._template = template
        self._settings = settings
        self._has_images = target.may_have_images
        self._made: dict[tuple[str, bytes], _Requests] = {}
        self._own = self._requests_of(target)
        self._variants = RowVariants(target, {}, {}, self._requests_of) if target.columns else None

    def render(self, table: pa.Table, hashes: Sequence[str | None]) -> list[RenderedRow]:
        """The prompt of each line. `hashes`: the `request_hash` of each, at least its beginning."""
        rows = row_values(table, self._own.makers[0].columns)
        if self._variants is None and not self._has_images and isinstance(self._template, PromptTemplate):
            return self._plain(self._template, rows, hashes)
        return [self._row(values, stored) for values, stored in zip(rows, hashes, strict=True)]

    def _plain(
        self, template: PromptTemplate, rows: Iterator[Mapping[str, object]], hashes: Sequence[str | None]
    ) -> list[RenderedRow]:
        """The same where all rows have one shape: messages of a text each, or of several, and no image."""
        made = list(map(template.render, rows))
        first: tuple[tuple[Message, ...], str | None] | None = None
        for messages, stored in zip(made, hashes, strict=True):
            if isinstance(messages, tuple) and (first is None or stored):
                first = messages, stored
                if stored:
                    break
        if first is None:
            return [_why(each) for each in made]
        frame = self._own.frame_of(*first, template)
        if frame is None:
            return [TOO_MANY_SHAPES] * len(made)
        same = template.same_texts(first[0])
        places = [(at, part) for at, texts in enumerate(same) for part, text in enumerate(texts) if text is None]
        if len(places) == 1:
            ((at, part),) = places
            return [(frame, (each[at].content[part].text,)) if isinstance(each, tuple) else _why(each) for each in made]
        return [
            (frame, spaced([each[at].content[part].text for at, part in places]))
            if isinstance(each, tuple)
            else _why(each)
            for each in made
        ]

    def _row(self, values: Mapping[str, object], stored: str | None) -> RenderedRow:
        """The same of one line, whatever its shape."""
        requests = self._own
        if self._variants is not None:
            found = self._variants(values)
            if isinstance(found, Failure):
                return _why(found)
            requests = found
        messages = self._template.render(values)
        return requests.rendered(messages, stored, self._template) if isinstance(messages, tuple) else _why(messages)

    def _requests_of(self, target: Target, _number: int = 0) -> "_Requests":
        key = (target.model, msgspec.json.encode(target.params))
        if key not in self._made:
            if len(self._made) >= KEPT_SHAPES:
                self._made.clear()
            self._made[key] = _Requests(target, self._template, self._settings)
        return self._made[key]


class _Requests:
    """The requests of rows that were asked of one model with the same parameters.

    `makers`: what makes them, one for each spelling of the token cap.
    """

    def __init__(self, target: Target, template: Template, settings: Settings) -> None:
        self._target = target
        self._settings = settings
        self.makers = [cast("RowMaker", row_maker(each, template, settings.columns, None)) for each in _spelled(target)]
        self._frames: dict[object, int | Frame] = {}

    def frame_of(self, messages: tuple[Message, ...], stored: str | None, template: Template) -> int | Frame | None:
        """The frame of rows with such messages, all of them texts; None where there are too many frames."""
        pairs = zip(messages, template.same_texts(messages))  # noqa: B905 - strict takes long
        return self._frame(tuple([(each.role, texts) for each, texts in pairs]), messages, stored)

    def rendered(self, messages: tuple[Message, ...], stored: str | None, template: Template) -> RenderedRow:
        """The frame and the slots of a row with these messages."""
        if images_in(messages):
            return self._with_images(messages, stored, template)
        texts = [
            part.text
            for each, same in zip(messages, template.same_texts(messages))  # noqa: B905 - strict takes long
            for part, text in zip(each.content, same)  # noqa: B905 - as above
            if text is None
        ]
        frame = self.frame_of(messages, stored, template)
        return TOO_MANY_SHAPES if frame is None else (frame, spaced(texts))

    def _with_images(self, messages: tuple[Message, ...], stored: str | None, template: Template) -> RenderedRow:
        """The same of a row with images."""
        shape: list[tuple[Role, tuple[PartShape, ...]]] = []
        known: list[Message] = []
        texts: list[str] = []
        of_images: list[str] = []
        for message, same in zip(messages, template.same_texts(messages), strict=True):
            parts: list[PartShape] = []
            content: list[Part] = []
            for part, text in zip(message.content, same, strict=True):
                if isinstance(part, ImagePart):
                    found = self._settings.images.find(part)
                    if isinstance(found, str):
                        return found
                    parts.append(found.shape)
                    of_images += found.slots
                    content.append(found.part)
                    continue
                if text is None:
                    texts.append(part.text)
                parts.append(text)
                content.append(part)
            shape.append((message.role, tuple(parts)))
            known.append(Message(message.role, tuple(content)))
        frame = self._frame(tuple(shape), known, stored)
        return TOO_MANY_SHAPES if frame is None else (frame, spaced([*texts, *of_images]))

    def _frame(self, shape: Shape, messages: Sequence[Message], stored: str | None) -> int | Frame | None:
        frame = self._frames.get(shape)
        if frame is None and self._settings.made < MAX_MADE:
            self._settings.made += 1
            maker = self._as_stored(messages, stored)
            made = request_frame(shape, maker.build, maker.as_sent, self._target, self._settings.service)
            if len(self._frames) >= KEPT_SHAPES:
                self._frames.clear()
            frame = self._frames[shape] = self._settings.frames.place(made)
        return frame

    def _as_stored(self, messages: Sequence[Message], stored: str | None) -> RowMaker:
        """What made the request with this hash; where none of them did, or there is none, what makes requests now."""
        if not stored:
            return self.makers[0]
        for maker in self.makers:
            digest = maker.hash_start.copy()
            digest.update(by_reference(maker.build(messages).body))
            if digest.hexdigest().startswith(stored):
                self._settings.note(is_same=True)
                return maker
        self._settings.note(is_same=False)
        return self.makers[0]


class WholePrompts:
    """Renders lines that brought their whole requests, as the lines of a vendor's batch file do."""

    def __init__(self, target: Target, template: Template, settings: Settings) -> None:
        self._target = target
        self._settings = settings
        self._maker = cast("WholeRowMaker", row_maker(target, template, settings.columns, None))
        self._frames: dict[tuple[int, bool], int | Frame] = {}

    def render(self, table: pa.Table, hashes: Sequence[str | None]) -> list[RenderedRow]:
        """The body of each line, as it is sent. `hashes`: the `request_hash` of each, at least its beginning."""
        bodies = (values[self._maker.body] for values in row_values(table, [self._maker.body]))
        return [self._row(str(body), stored) for body, stored in zip(bodies, hashes, strict=True)]

    def _row(self, given: str, stored: str | None) -> RenderedRow:
        try:
            request = self._maker.read(given.encode())
        except ValueError as error:
            return _why(f"{self._maker.body} is no request's body: {error}")
        body, identity = request.http.body, request.identity
        slots, is_comparable = [body], True
        if body != identity:
            try:
                begin, end = added_span(body, identity)
                slots = [body[:begin], body[begin:end], body[end:]]
            except ValueError:
                is_comparable = False
        frame = self._frames.get((len(slots), is_comparable))
        if frame is None:
            pieces = WITHOUT_MIDDLE if len(slots) > 1 else ONE_PIECE
            made = whole_frame(pieces, request.http, self._target, self._settings.service, is_comparable=is_comparable)
            frame = self._frames[len(slots), is_comparable] = self._settings.frames.place(made)
            self._compare(identity, stored)
        return frame, tuple([slot.decode() for slot in slots])

    def _compare(self, identity: bytes, stored: str | None) -> None:
        digest = self._maker.hash_start.copy()
        digest.update(identity)
        if stored:
            self._settings.note(is_same=digest.hexdigest().startswith(stored))


def _spelled(target: Target) -> Iterator[Target]:
    """The target, then the same with the other name of the token cap: sessions of a run may differ in that."""
    yield target
    if target.format == "chat" and target.params.max_output_tokens is not None:
        name: MaxTokensField = "max_tokens"
        if target.params.max_tokens_field == name:
            name = "max_completion_tokens"
        yield msgspec.structs.replace(target, params=msgspec.structs.replace(target.params, max_tokens_field=name))


def _why(failure: object) -> str:
    """Why a row has no prompt."""
    words = failure.message if isinstance(failure, Failure) else str(failure)
    return f"This prompt can't be rendered: {words}"
