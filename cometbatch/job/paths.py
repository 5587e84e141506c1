"""Where input, result and run directory are. Hides that one place can have several names.

Guards that the result overwrites nothing: not the input, by whatever name, and no folder that holds other things; and
that no path is taken as it stands which another program was to fill in.
"""

import os
import re
from pathlib import Path
from typing import Final

from cometbatch.input.file_set import is_several, would_take
from cometbatch.input.files import ending_of
from cometbatch.job.secrets import printable, shown
from cometbatch.job.tree import WrongError

RUN_PREFIX: Final = "_"  # of a run directory's name: readers of a folder pass over names that begin so
RUN_SUFFIX: Final = ".run"
JUDGED_SUFFIX: Final = ".judge"
_ENDING: Final = ".parquet"
_ROOT: Final = "expected a folder or a file, found the root of the file system"
_NO_NAME: Final = "expected a path that ends in the name of a file or folder, found none at its end"
_NO_STEM: Final = f"expected a path that ends in {_ENDING}, with a name before that"
_STRFTIME: Final = re.compile(r"%-?[aAbBcCdDeFgGhHIjklmMnNpPrRsStTuUVwWxXyYzZ](?![a-z])")
_MARKS: Final = (
    re.compile(r"\$(?:[A-Za-z_]\w*|\{[^{}]*\}|\([^()]*\))|`[^`]+`"),  # a shell's $NAME, ${NAME}, $(command), `command`
    re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|<%.*?%>"),  # a template's {{ ds }}
    re.compile(r"\{[A-Za-z_]\w*(?:[.:!\[][^{}/]*)?\}"),  # a Python format's {date}
    re.compile(r"%\([^()]*\)[#0 +-]*\d*[a-z]|%\{[^{}]*\}|%[A-Za-z_]\w+%"),  # %(date)s, %{date}, %DATE%
    _STRFTIME,  # a clock's %Y-%m-%d
)
"""Marks of other programs in a path, which they replace by a value before they hand it on; we don't."""


def run_beside(result: Path) -> Path:
    """Where the run of a result is kept: beside it."""
    return result.with_name(f"{RUN_PREFIX}{result.name}{RUN_SUFFIX}")


def judged_beside(result: Path) -> Path:
    """The folder of what a judge says of a result: beside it."""
    return result.with_name(result.name.removesuffix(_ENDING) + JUDGED_SUFFIX)


def input_beside(result: Path, content: str) -> Path:
    """Where a table that a caller handed in is kept: beside the result. `content`: what tells it from other tables."""
    return result.with_name(f"{RUN_PREFIX}{result.name}.input-{content}{_ENDING}")


def given(folder: Path, path: str) -> Path:
    """A path that a job gives, absolute; `~` at its start is the home folder, as in a shell."""
    return absolute(folder, os.path.expanduser(path))  # noqa: PTH111 - pathlib raises where there is no such home


def with_variables(folder: Path, path: str) -> Path:
    """The same for a path that names variables, detours and all; one that begins with a variable stays as it is."""
    return Path(path) if path.startswith("$") else folder.absolute() / os.path.expanduser(path)  # noqa: PTH111 - as above


def absolute(folder: Path, path: str | Path) -> Path:
    """The path from a folder, absolute and without detours; symbolic links are left as they are."""
    return Path(os.path.normpath((folder / path).absolute()))


def linked(path: Path) -> Path:
    """Where a result goes: a symbolic link at the end of its path is followed, so that the run is beside the file.

    Not where a run is beside the link already, whose result was moved away. Raises `OSError` or `RuntimeError` for a
    loop of links.
    """
    if not path.is_symlink() or run_beside(path).is_dir():
        return path
    place = path.resolve()
    if place.is_symlink():
        raise RuntimeError("a loop of links")
    return place


def mark_in(text: str) -> str | None:
    """The first mark in a path that another program was to replace."""
    return next((found[0] for sort in _MARKS if (found := sort.search(text))), None)


def refuse_marks(key: str, text: str, folder: Path) -> None:
    """Raise `WrongError` for a path with a mark that another program was to replace: `$OUT`, `{{ ds }}`, `%Y`.

    A file or folder of just that name, mark included, is meant.
    """
    if (mark := mark_in(text)) is None or _is_there(folder, text, mark):
        return
    path = text if shown(text) == repr(text) else "PATH"
    is_clock = _STRFTIME.fullmatch(mark)
    way = f"\"$(date '+{path}')\"" if is_clock else f'"{path}"'
    fills = "the shell" if is_clock or mark.startswith(("$", "`")) else "what fills in the rest of the command"
    words = f"{shown(mark)} stands in this path, and nothing here replaces it: give the path on the command line, where"
    raise WrongError(f"{words} {fills} does: --set {key}={way}")


def refuse_no_table(text: str, path: Path, words: str) -> None:
    """Raise `WrongError` for an input path, given as `text`, that is no folder, no pattern and no file of a known kind.

    `words`: what is expected.
    """
    if text.endswith("/") or ending_of(path.name) or is_several(path):
        return
    hint = ""
    if mark := mark_in(text):
        hint = f': nothing here replaces {shown(mark)}: give the path on the command line, --set input.path="…"'
    elif ending_of(f"a{path.name}"):
        hint = ": a name is missing before the ending"
    elif path.suffix.lower() == ".json":
        hint = ": JSON must be one object a line, in a file that ends in .jsonl"
    elif not path.suffix and not os.path.lexists(path):
        hint = ": there is no such folder"
    raise WrongError(f"expected {words}, found {shown(text)}{hint}")


def _is_there(folder: Path, text: str, mark: str) -> bool:
    """Whether the part of the path up to the name that holds the mark exists as it is written."""
    end = text.find("/", text.index(mark) + len(mark))
    return os.path.lexists(given(folder, text if end < 0 else text[:end]))


def place_result(text: str, folder: Path, source: Path | None, job_file: Path | None) -> tuple[Path, bool]:
    """The result's path, with a link at its end followed, and whether it is a data set.

    Raises `WrongError` where it can't go there.
    """
    output = given(folder, text)
    try:
        place = linked(output)
        is_dataset = text.endswith("/") or output.is_dir()
        problem = _problem(output, place, is_dataset, source, job_file) or _nameless(text)
    except (OSError, RuntimeError) as error:  # names too long, loops of links
        problem = f"can't be used: {getattr(error, 'strerror', None) or 'a loop of links'}"
    if problem:
        raise WrongError(problem)
    return place, is_dataset


def _nameless(text: str) -> str | None:
    """What is missing in a path that names no folder but where one is: `.`, `..`, a home."""
    path = text.rstrip("/")
    name = path.rpartition("/")[2]
    return _NO_NAME if name in (".", "..") or (name == path and name.startswith("~")) else None


def _problem(output: Path, place: Path, is_dataset: bool, source: Path | None, job_file: Path | None) -> str | None:
    """Why the result can't go there, in words, or None. `place`: where `output` leads, if it is a link.

    Raises what looking at the files raises.
    """
    if not place.name or output.name == _ENDING:
        return _NO_STEM if place.name else _ROOT
    if source and (problem := _source_problem(place, is_dataset, source)):
        return problem
    if job_file and _is_same(place, job_file):
        return "the job file itself is there: choose another place"
    if is_dataset:
        return _dataset_problem(place, source, job_file)
    if output.suffix != _ENDING:
        return f"expected a path that ends in {_ENDING}, or in / for a folder that holds the result as a data set"
    return None


def _source_problem(place: Path, is_dataset: bool, source: Path) -> str | None:
    """Why the result can't go where the input is, in words, or None."""
    run = run_beside(place)
    if _is_same(place, source) or _is_same(run, source) or _is_in(source, run):
        return "the input itself is there: choose another place"
    if would_take(source, place / "00000.parquet" if is_dataset else place):
        return f"the result would be one of the input's files, {printable(source)}: choose another folder"
    return None


def _dataset_problem(place: Path, source: Path | None, job_file: Path | None) -> str | None:
    """Why a data set can't be in this folder, in words, or None."""
    if place.exists() and not place.is_dir():
        return "expected a folder, found a file"
    for inside in (source, job_file):
        if inside and _is_in(inside, place):
            return f"the folder holds {printable(inside.name)}: a data set needs a folder of its own"
    return None


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def _is_in(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents
