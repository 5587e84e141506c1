"""Files of images, named by cells: none outside of one folder is ever opened.

Guards: a name is resolved with its links and must lie below the root, else nothing is opened. Each folder on the way,
and the file, are then opened one below the other without following a link, so that what is put in their place meanwhile
can't lead outside. Only a regular file is read; its size is that of the open file, and no more than allowed is read.
"""

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a pipe or device never waits


class ImageFileError(Exception):
    """A file of an image is not read; the words say why, and nothing of what it holds."""


class ImageFolder:
    """The folder below which images lie. `max_bytes`: of one file."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = Path(os.path.realpath(root))
        self._max_bytes = max_bytes

    def read(self, name: str) -> bytes:
        """The whole file. Raises `ImageFileError`; for one outside of the folder before anything is opened."""
        try:
            return self._read(name)
        except FileNotFoundError:
            raise ImageFileError("is not there, below the folder of images (prompt.images.root)") from None
        except OSError as error:
            is_long = error.errno == errno.ENAMETOOLONG
            hint = "; before an image in base64 write data:image/png;base64," if is_long else ""
            raise ImageFileError(f"can't be read: {error.strerror or type(error).__name__}{hint}") from None
        except ValueError:  # a NUL in the name, or half of a surrogate pair
            raise ImageFileError("is no possible file name") from None

    def _read(self, name: str) -> bytes:
        place = Path(os.path.realpath(self._root / name))
        if self._root not in place.parents:
            raise ImageFileError("lies outside of the folder of images (prompt.images.root), so it was not opened")
        *folders, last = place.relative_to(self._root).parts
        with ExitStack() as opened:
            at = os.open(self._root, _FOLDER)
            opened.callback(os.close, at)
            for folder in folders:
                at = os.open(folder, _FOLDER, dir_fd=at)
                opened.callback(os.close, at)
            if not stat.S_ISREG(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
                raise ImageFileError("is not a regular file, so it was not opened")
            file = os.open(last, _FILE, dir_fd=at)
            opened.callback(os.close, file)
            return self._content(file)

    def _content(self, file: int) -> bytes:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ImageFileError("is not a regular file")
        if status.st_size > self._max_bytes:
            raise ImageFileError(too_large(status.st_size, self._max_bytes))
        pieces, left = [], self._max_bytes + 1
        while left and (piece := os.read(file, left)):
            pieces.append(piece)
            left -= len(piece)
        if not left:
            raise ImageFileError(too_large(self._max_bytes + 1, self._max_bytes))
        return b"".join(pieces)


def too_large(size: int, max_bytes: int) -> str:
    """That an image has more bytes than it may have."""
    return f"has {size:,} bytes, and an image may have {max_bytes:,} (prompt.images.max_bytes)"
