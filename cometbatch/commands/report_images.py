"""The images of a report's prompts: by reference alone, since no bytes of them go into the page.

Guards that a report of many large images stays quick: files are read for their digests up to a bound, and above it
their names stand in the place of digests. Such a request can't be compared with the one that was sent.
"""

from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.input.image_files import ImageFileError, ImageFolder
from cometbatch.records import ImagePart
from cometbatch.reports.page.requests import ImageShape
from cometbatch.runner.images import identified

MAX_READ_BYTES: Final = 128 << 20  # of image files, for one source of a page; further ones are not read
_HTTPS: Final = "https://"


class FoundImage(Struct, frozen=True):
    """An image of a prompt: its shape, the texts of its slots, and the part as a request has it."""

    shape: ImageShape
    slots: tuple[str, ...]
    part: ImagePart


class PageImages:
    """Tells images by their digests. `folder`: below which they lie. `is_fetching`: addresses are fetched by a run."""

    def __init__(self, folder: ImageFolder, *, is_fetching: bool, max_read_bytes: int = MAX_READ_BYTES) -> None:
        self._folder = folder
        self._is_fetching = is_fetching
        self._room = max_read_bytes
        self._known: dict[ImagePart, FoundImage] = {}
        self._unread: set[str] = set()

    @property
    def unread(self) -> int:
        """How many files were not read, since they can't be, or the bound was reached."""
        return len(self._unread)

    def find(self, part: ImagePart) -> FoundImage | str:
        """The image that a rendered prompt has, or what is wrong with its bytes."""
        source = part.source
        if isinstance(source, bytes):
            return _in_row(part, source)
        found = self._known.get(part)
        if found is None:
            is_address = source[: len(_HTTPS)].lower() == _HTTPS
            found = self._known[part] = self._at_address(part, source) if is_address else self._in_file(part, source)
        return found

    def _at_address(self, part: ImagePart, address: str) -> FoundImage:
        shape = ImageShape("name" if self._is_fetching else "address", detail=part.detail)
        return FoundImage(shape, (address,), msgspec.structs.replace(part, is_linked=not self._is_fetching))

    def _in_file(self, part: ImagePart, name: str) -> FoundImage:
        try:
            known = identified(part, self._content(name))
        except ImageFileError:
            self._unread.add(name)
            return FoundImage(ImageShape("name", is_unread=True, detail=part.detail), (name,), part)
        shape = ImageShape("digest", has_name=True, detail=part.detail, media_type=known.media_type)
        return FoundImage(shape, (name, known.digest), known)

    def _content(self, name: str) -> bytes:
        """The bytes of a file. Raises `ImageFileError` where they can't be read, or are not to be read any more."""
        if self._room <= 0:
            raise ImageFileError("is one of more than are read")
        data = self._folder.read(name)
        self._room -= len(data)
        return data


def _in_row(part: ImagePart, data: bytes) -> FoundImage | str:
    """An image whose bytes stand in the row."""
    try:
        known = identified(part, data)
    except ImageFileError as error:
        return f"This prompt can't be rendered: the image {error}"
    shape = ImageShape("digest", detail=part.detail, media_type=known.media_type)
    return FoundImage(shape, (known.digest,), msgspec.structs.replace(known, source=b""))
