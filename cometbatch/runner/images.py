"""The images of a prompt: read, told and identified when a call is made, read again and put in when it is sent.

Guards: between the two nothing of a file's bytes is kept, so that only what is in flight takes their memory. What is
sent is what was identified: a file that has changed meanwhile is not sent.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.input.image_files import ImageFileError, ImageFolder, too_large
from cometbatch.prompt.content import images_in, media_type_of
from cometbatch.prompt.names import shown
from cometbatch.records import Failure, HttpRequest, ImagePart, Message, Part, TransportFailure
from cometbatch.runner.ports import ExchangeResult, Sending
from cometbatch.transport.image_fetch import FetchError
from cometbatch.wire.images import Loaded, filled

ESTIMATED_TOKENS = 1_000
"""Input tokens of an image in estimates: what models count for one of a million pixels, about."""
Send: TypeAlias = Callable[[HttpRequest, Callable[[ExchangeResult], None]], Sending]
Fetch: TypeAlias = Callable[[str, int], Awaitable[bytes]]
"""The bytes at an address, at most this many. Raises `FetchError`."""


class ImageBounds(Struct, frozen=True):
    """How large the images of a request may be, in bytes, and what each is taken to cost at most, in tokens."""

    max_bytes: int
    max_request_bytes: int
    tokens: int


class Images:
    """Where the images of a run's prompts come from. `fetch`: of those at addresses; None leaves them to the service.

    `unsupported`: why the wire format can't send an image, or None.
    """

    def __init__(
        self,
        folder: ImageFolder,
        bounds: ImageBounds,
        unsupported: Callable[[ImagePart], str | None],
        *,
        is_fetching: bool,
        is_blind: bool = False,
    ) -> None:
        """`is_blind`: no file is opened, so that nothing is told of images in files and nothing of them can be sent."""
        self._is_blind = is_blind
        self._folder = folder
        self._unsupported = unsupported
        self.is_fetching = is_fetching
        self.bounds = bounds

    def blind(self) -> "Images":
        """The same, but opening nothing: for requests that are only counted."""
        return Images(self._folder, self.bounds, self._unsupported, is_fetching=self.is_fetching, is_blind=True)

    def identified(self, messages: tuple[Message, ...]) -> tuple[Message, ...] | Failure:
        """The same messages with kind, size and digest of each image, which is read for that; or why there is none."""
        if not images_in(messages):
            return messages
        made: list[Message] = []
        room = self.bounds.max_request_bytes
        for index, message in enumerate(messages, 1):
            parts: list[Part] = []
            for number, part in enumerate(message.content, 1):
                if isinstance(part, ImagePart):
                    known = self._identified(part)
                    if isinstance(known, str):
                        place = f"prompt message {index} ({message.role}), part {number}: {describe(part)}"
                        return Failure("template", f"{place}{known}")
                    room -= known.size
                    parts.append(known)
                else:
                    parts.append(part)
            made.append(msgspec.structs.replace(message, content=tuple(parts)))
        if room < 0:
            size = self.bounds.max_request_bytes - room
            most = f"{self.bounds.max_request_bytes:,} (prompt.images.max_request_bytes)"
            return Failure("template", f"the images of this prompt have {size:,} bytes, and they may have {most}")
        return tuple(made)

    def _identified(self, part: ImagePart) -> ImagePart | str:
        """The image as it is sent, or what is wrong with it, in words that follow its name."""
        if _is_address(part.source):
            made = msgspec.structs.replace(part, is_linked=not self.is_fetching)
        else:
            try:
                made = part if self._is_blind else identified(part, self._content(part))
            except ImageFileError as error:
                return f" {error}"
        reason = self._unsupported(made)
        return made if reason is None else f": {reason}"

    def load(self, part: ImagePart) -> Loaded:
        """The bytes of an image that was identified before. Raises `ImageFileError`, also where they are others now."""
        data = self._content(part)
        if hashlib.sha256(data).hexdigest() != part.digest:
            raise ImageFileError("has changed since its request was made")
        return Loaded(part.media_type, data)

    def fetched(self, part: ImagePart, data: bytes) -> Loaded:
        """The bytes of an image from an address. Raises `ImageFileError` where they are none that can be sent."""
        made = identified(part, data)
        if reason := self._unsupported(made):
            raise ImageFileError(f"can't be sent: {reason}")
        return Loaded(made.media_type, data)

    def _content(self, part: ImagePart) -> bytes:
        if isinstance(part.source, str):
            return self._folder.read(part.source)
        if len(part.source) > self.bounds.max_bytes:
            raise ImageFileError(too_large(len(part.source), self.bounds.max_bytes))
        return part.source


def identified(part: ImagePart, data: bytes) -> ImagePart:
    """The image with what its bytes tell. Raises `ImageFileError` for those of no image."""
    media_type = media_type_of(data)
    if media_type is None:
        raise ImageFileError("is no image of a known kind (png, jpeg, gif, webp, heic, bmp, tiff, avif)")
    return ImagePart(part.source, part.is_linked, part.detail, media_type, hashlib.sha256(data).hexdigest(), len(data))


def describe(part: ImagePart) -> str:
    """What an image is called in a message. The query of an address is left out: it may hold a signature."""
    if isinstance(part.source, bytes):
        return "the image"
    return f"the image {shown(part.source.partition('?')[0] if _is_address(part.source) else part.source)}"


def _is_address(source: str | bytes) -> bool:
    return isinstance(source, str) and source[:8].lower() == "https://"


class ImageSender:
    """Puts the images into requests that have some, in a thread, and sends them; it sends all others as they are."""

    def __init__(self, send: Send, images: Images, threads: Executor, fetch: Fetch | None) -> None:
        self._send = send
        self._images = images
        self._threads = threads
        self._fetch = fetch

    def send(self, request: HttpRequest, done: Callable[[ExchangeResult], None]) -> Sending:
        """Begin an exchange, and call back once; a request whose images can't be had is not sent."""
        return _Loading(self, request, done) if request.images else self._send(request, done)

    def send_filled(self, request: HttpRequest, done: Callable[[ExchangeResult], None]) -> Sending:
        """Begin an exchange with a request that is whole."""
        return self._send(request, done)

    async def filled(self, request: HttpRequest) -> HttpRequest:
        """The whole request. Raises `ImageFileError`."""
        fetched: dict[str, bytes] = {}
        for part in request.images:
            if not part.digest:
                fetched[part.reference] = await self._fetched(part)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._put_in, request, fetched)

    async def _fetched(self, part: ImagePart) -> bytes:
        if self._fetch is None:
            raise ImageFileError("can't be fetched: prompt.images.fetch is false")
        try:
            return await self._fetch(part.reference, self._images.bounds.max_bytes)
        except FetchError as error:
            raise ImageFileError(f"{describe(part)} {error}") from None

    def _put_in(self, request: HttpRequest, fetched: dict[str, bytes]) -> HttpRequest:
        loaded: dict[str, Loaded] = {}
        for part in request.images:
            try:
                if part.digest:
                    loaded[part.reference] = self._images.load(part)
                else:
                    loaded[part.reference] = self._images.fetched(part, fetched[part.reference])
            except ImageFileError as error:
                raise ImageFileError(f"{describe(part)} {error}") from None
        size = sum(len(each.data) for each in loaded.values())
        if size > (most := self._images.bounds.max_request_bytes):
            raise ImageFileError(f"the images have {size:,} bytes, and they may have {most:,}")
        return filled(request, loaded)


class _Loading:
    """An exchange that begins once the images of its request are there."""

    def __init__(self, sender: ImageSender, request: HttpRequest, done: Callable[[ExchangeResult], None]) -> None:
        self._sender = sender
        self._done = done
        self._sending: Sending | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(request))

    def cancel(self) -> None:
        """Give it up: nobody is called back any more."""
        self._task.cancel()
        if self._sending is not None:
            self._sending.cancel()

    async def _run(self, request: HttpRequest) -> None:
        try:
            whole = await self._sender.filled(request)
        except ImageFileError as error:
            self._done(TransportFailure("image", str(error), sent=False))
        except Exception as error:  # noqa: BLE001 - a mistake of ours: the run is told
            self._done(error)
        else:
            self._sending = self._sender.send_filled(whole, self._done)


def images_of(messages: Sequence[Message]) -> tuple[ImagePart, ...]:
    """The images whose bytes go out with these messages."""
    return tuple([part for part in images_in(messages) if not part.is_linked])
