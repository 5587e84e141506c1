"""Python scorers: where their files are, what they hold, and how their functions are called.

Guards: a job's code runs only where a person asked for a run or for scores, after its file and digest were told; what
it does (raise, exit, print without end, give garbage) is the score of its row and never the end of a run.
"""

import contextlib
import copy
import hashlib
import importlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from msgspec import Struct

from cometbatch.commands.stopping import ended_by
from cometbatch.errors import UsageError
from cometbatch.evaluation.score_columns import SCORER_ERROR, LineScore, Loaded, score_given
from cometbatch.job.scores import ScoreSettings
from cometbatch.job.secrets import printable

MAX_PRINTED: Final = 1_000_000  # characters that a scorer may print for one row; nobody reads them
MAX_MESSAGE: Final = 500  # characters of an error's message in a result
_PREFIX: Final = "cometbatch_scorers_"  # of the name under which a file of the job's folder is imported


class ScorerFile(Struct, frozen=True):
    """The file of a Python scorer. `digest`: SHA-256 of what it holds, in hexadecimal digits.

    `is_own`: it lies in the job's folder, and is not a package's.
    """

    settings: ScoreSettings
    path: Path
    digest: str
    source: bytes
    is_own: bool

    def describe(self) -> str:
        """What a person is told before it runs."""
        where = printable(self.path)
        return f"score {self.settings.name} runs Python code: {where} (SHA-256 {self.digest})"

    def load(self) -> Loaded:
        """Import it. Raises `UsageError` where that fails, or where it has no such function."""
        module_name, _, name = self.settings.entry.partition(":")
        with _apart(self.settings.folder):
            try:
                module = self._module(module_name)
                function = getattr(module, name, None)
            except BaseException as error:
                if _is_of_user(error):
                    raise
                words = f"{printable(self.path)} can't be imported: {_words(error)}"
                raise UsageError(f"{self.settings.where}: {words}") from None
        if not callable(function):
            known = ", ".join(
                each for each in vars(module) if not each.startswith("_") and callable(vars(module)[each])
            )
            words = f"{printable(self.path)} has no function {name!r}; it has {known or 'none'}"
            raise UsageError(f"{self.settings.where}: {words}.")
        return Loaded(self.digest, _Calls(function, self.settings.folder).score)

    def _module(self, name: str) -> ModuleType:
        if not self.is_own or "." in name:
            return importlib.import_module(name)
        code: CodeType = compile(self.source, str(self.path), "exec", dont_inherit=True)
        module = ModuleType(f"{_PREFIX}{self.digest[:16]}_{name}")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # what defines classes looks there
        exec(code, vars(module))  # noqa: S102 - what was told, byte for byte
        return module


def scorer_file(settings: ScoreSettings) -> ScorerFile:
    """The file of a Python scorer, which is read and not run. Raises `UsageError` where there is none."""
    name = settings.entry.partition(":")[0]
    own = None if settings.folder is None else _in_folder(settings.folder, name)
    path = own or _installed(name)
    if path is None:
        folder = "the job's folder" if settings.folder is None else printable(settings.folder)
        raise UsageError(
            f"{settings.where}: there is no module {name}: neither {name.replace('.', '/')}.py in {folder}, nor an "
            "installed package."
        )
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{settings.where}: {printable(path)} can't be read ({error.strerror}).") from error
    return ScorerFile(settings, path, hashlib.sha256(source).hexdigest(), source, own is not None)


def _in_folder(folder: Path, name: str) -> Path | None:
    base = folder.joinpath(*name.split("."))
    return next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)


def _installed(name: str) -> Path | None:
    """The file of an installed module, found without importing a package on the way."""
    places: Sequence[str] | None = None
    found = None
    for part in name.split("."):
        found = PathFinder.find_spec(part, places)
        if found is None:
            return None
        places = found.submodule_search_locations or ()
    origin = None if found is None else found.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


class _Calls:
    """Calls one function for each row. It is not the function's business to end a run."""

    def __init__(self, function: Callable[..., Any], folder: Path | None) -> None:
        self._function, self._folder = function, folder
        self._process = os.getpid()

    def score(self, answer: str, row: dict[str, object]) -> LineScore:
        """The score of a row, whatever the function does."""
        try:
            with _apart(self._folder):
                return score_given(self._function(answer, copy.deepcopy(row)))
        except BaseException as error:
            if _is_of_user(error):
                raise
            return None, _words(error), SCORER_ERROR
        finally:
            if os.getpid() != self._process:
                os._exit(1)  # a child of fork that came back: a second process must not write the result


def _is_of_user(error: BaseException) -> bool:
    """Whether this is a Ctrl-C, or the end of the process by a signal: they come to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and ended_by() is not None)


def _words(error: BaseException) -> str:
    """What went wrong, for a person. The words of an exception can fail themselves."""
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return "it called sys.exit"
    try:
        said = " ".join(str(error)[:MAX_MESSAGE].split())
    except Exception:  # noqa: BLE001 - the exception is the user's, too
        said = ""
    return f"{kind}: {said}" if said else kind


class _Printed(io.TextIOBase):
    """Takes what a scorer prints, and drops it: standard output is the command's own."""

    def __init__(self) -> None:
        self._left = MAX_PRINTED

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Drop it. Raises `EndlessOutputError` once it is too much."""
        self._left -= len(text)
        if self._left < 0:
            raise EndlessOutputError(f"it printed more than {MAX_PRINTED:,} characters")
        return len(text)


class EndlessOutputError(BaseException):
    """A scorer prints without end. No `except Exception` of its own is to catch this."""


@contextlib.contextmanager
def _apart(folder: Path | None) -> Iterator[None]:
    """What a scorer prints is dropped, it can read no answer from a terminal, and it finds modules beside it."""
    printed, said = _Printed(), str(folder)
    if folder is not None:
        sys.path.insert(0, said)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        if folder is not None and said in sys.path:
            sys.path.remove(said)
