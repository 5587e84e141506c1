"""The API key: where a job has it, read there and checked, and looked for where it must not be. Never quoted.

Hides what a file may add to a key (a line break at its end, a byte order mark), and a mount that changes under its
reader.
"""

import codecs
import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from cometbatch.errors import UsageError
from cometbatch.job import TargetSettings
from cometbatch.job.secrets import printable
from cometbatch.job.variables import filled, variables_in

NOT_IN_KEYS: Final = frozenset(" \"'`")
"""Characters that come along when a key is copied with its surroundings."""

SHORTEST_SOUGHT: Final = 8
"""Characters. A shorter value is no key, and it can stand in any text by chance."""

MAX_KEY_FILE_BYTES: Final = 16 << 10
"""A larger file is hardly a key: a server takes about half of that in a header."""

_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?[A-Za-z_]\w*=(?!=|$)")
"""How a line of a file for the environment begins. A key may end in =, and has none in its middle."""
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # systemd sets it for a service with LoadCredential=
_AGAIN: Final = "then run the same command again."


class NoKeyError(UsageError):
    """The place of the key holds nothing: the variable is not set, or the file is not there. `plan` only warns of it.

    `what`: which of them is missing, in words.
    """

    def __init__(self, what: str, way: str) -> None:
        super().__init__(f"{what[0].upper()}{what[1:]}. {way}")
        self.what = what


class KeySource(Struct, frozen=True):
    """Where a job has its key: in `file`, where there is one, else in the environment variable `variable`.

    A file is read anew at each start of a session, so that a key that was changed there is used from then on.
    """

    variable: str
    file: Path | None = None

    @classmethod
    def of(cls, target: TargetSettings) -> "KeySource":
        """That of a job's target."""
        return cls(target.key_env, target.key_file)

    def read(self) -> str:
        """The key. Raises `NoKeyError` where there is none, `UsageError` where it is none that can be sent."""
        if self.file is not None:
            return _key_in(self.file)
        if self.variable not in os.environ:
            raise NoKeyError(
                f"the environment variable {self.variable} is not set",
                f"It should hold the API key (target.key_env): export {self.variable}=your-key, {_AGAIN}",
            )
        return check_key(os.environ[self.variable], f"The API key in {self.variable}")

    def sought(self) -> Iterator[tuple[str, str]]:
        """Each key that no text of the job may hold, with the words for it.

        That of the variable is among them also where the key is in a file: it may be the one that was used before.
        """
        yield f"the API key that {self.variable} is set to", os.environ.get(self.variable, "")
        if self.file is not None:
            with contextlib.suppress(UsageError):  # told where the key is needed
                yield f"the API key in the file {printable(self.file)}", _key_in(self.file)


def check_key(
    key: str, name: str = "The API key", *, way: str = "Set its environment variable to the key itself."
) -> str:
    """The key as it can be sent, without surrounding white space or BOM. Raises `UsageError` with `name` in it.

    `way`: what to do where it is empty.
    """
    trimmed = key.strip().strip("\ufeff").strip()
    if not trimmed:
        raise UsageError(f"{name} is empty. {way}")
    if not trimmed.isascii() or not trimmed.isprintable() or not NOT_IN_KEYS.isdisjoint(trimmed):
        raise UsageError(f"{name} holds characters that no key has. Copy it again, without quotes or line breaks.")
    return trimmed


def holds_key(value: object, key: str) -> bool:
    """Whether a text in a JSON-ready value, names included, holds this key."""
    sought = key.strip()
    return len(sought) >= SHORTEST_SOUGHT and any(sought in text for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


# --- a file ---


def _key_in(file: Path) -> str:
    """The key in a file. Its path is shown as the job has it: what a variable holds may be anything."""
    path, name = _path(file), f"the file {printable(file)}"
    try:
        data = _content(path)
    except (FileNotFoundError, NotADirectoryError):
        way = "It should hold the API key (target.key_file): write the key into it, or mount it there,"
        raise NoKeyError(f"{name} is not there", f"{way} {_AGAIN}") from None
    except OSError as error:
        words = f"The API key can't be read: {name} (target.key_file): {error.strerror}"
        raise UsageError(f"{words}. Check the path, and that this user may read it.") from None
    except ValueError as error:
        raise UsageError(f"The API key can't be read: {name} (target.key_file) {error}.") from None
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_utf_16 else "utf-8", "replace").strip("\ufeff").strip()
    if (lines := sum(1 for line in text.splitlines() if line.strip())) > 1:
        raise UsageError(f"The API key can't be read: {name} (target.key_file) has {lines} lines, and a key is one.")
    if _ASSIGNMENT.match(text):
        raise UsageError(
            f"The API key can't be read: {name} (target.key_file) holds NAME=VALUE, as for an environment. It should "
            "hold the key alone."
        )
    return check_key(text, f"The API key in {name} (target.key_file)", way="Write the key itself into it.")


def _path(file: Path) -> Path:
    """The path with its variables filled. Raises `UsageError`, which shows no value of a variable."""
    variables = {name: os.environ.get(name) for name in variables_in([str(file)])}
    missing = [name for name, value in variables.items() if not value]
    if missing:
        hint = f"systemd sets it for a service that has LoadCredential={file.name}:FILE, and elsewhere "
        raise NoKeyError(
            f"the environment variable {missing[0]} is not set, and target.key_file ({printable(file)}) names it",
            f"It says where the API key is: {hint * (missing[0] == _CREDENTIALS)}set it, {_AGAIN}",
        )
    path = Path(filled(str(file), {name: value or "" for name, value in variables.items()}))
    if not path.is_absolute():
        named = ", ".join(variables)
        raise UsageError(
            f"target.key_file: what {named} is set to makes {printable(file)} no path that begins with /. For a "
            "variable that holds the key itself, set target.key_env."
        )
    return path


def _content(path: Path) -> bytes:
    """What a plain file holds. Raises `OSError`; `ValueError` with what it is instead."""
    try:
        descriptor = _opened(path)
    except FileNotFoundError:
        descriptor = _opened(path)  # a mount of Kubernetes puts a new folder in the place of the one that a link led to
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            is_folder = "is a folder: give the path of the file in it"
            raise ValueError(is_folder if stat.S_ISDIR(mode) else "is no plain file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_KEY_FILE_BYTES:
        raise ValueError(f"has more than {MAX_KEY_FILE_BYTES >> 10} KiB, which is hardly a key")
    return data


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe that nobody writes is not waited for
