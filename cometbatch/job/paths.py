"""Where input, result and run directory are. Hides that one place can have several names.

Guards that the result overwrites nothing: not the input, by whatever name, and no folder that holds other things.
"""

import os
from pathlib import Path
from typing import Final

from cometbatch.job.secrets import printable
from cometbatch.job.tree import WrongError

RUN_PREFIX: Final = "_"  # of a run directory's name: readers of a folder pass over names that begin so
RUN_SUFFIX: Final = ".run"
_ROOT: Final = "expected a folder or a file, found the root of the file system"


def run_beside(result: Path) -> Path:
    """Where the run of a result is kept: beside it."""
    return result.with_name(f"{RUN_PREFIX}{result.name}{RUN_SUFFIX}")


def given(folder: Path, path: str) -> Path:
    """A path that a job gives, absolute; `~` at its start is the home folder, as in a shell."""
    return absolute(folder, os.path.expanduser(path))  # noqa: PTH111 - pathlib raises where there is no such home


def absolute(folder: Path, path: str | Path) -> Path:
    """The path from a folder, absolute and without detours; symbolic links are left as they are."""
    return Path(os.path.normpath((folder / path).absolute()))


def place_result(text: str, folder: Path, source: Path | None, job_file: Path | None) -> tuple[Path, bool]:
    """The result's path, and whether it is a data set. Raises `WrongError` where it can't go there."""
    output = given(folder, text)
    try:
        is_dataset = text.endswith("/") or output.is_dir()
        problem = _problem(output, is_dataset, source, job_file) if output.name else _ROOT
    except (OSError, RuntimeError) as error:  # names too long, loops of links
        problem = f"can't be used: {getattr(error, 'strerror', None) or 'a loop of links'}"
    if problem:
        raise WrongError(problem)
    return output, is_dataset


def _problem(output: Path, is_dataset: bool, source: Path | None, job_file: Path | None) -> str | None:
    """Why the result can't go there, in words, or None. Raises what looking at the files raises."""
    if source and (_is_same(output, source) or _is_in(source, run_beside(output))):
        return "the input itself is there: choose another place"
    if not is_dataset:
        if output.suffix != ".parquet":
            return "expected a path that ends in .parquet, or in / for a folder that holds the result as a data set"
        return None
    if output.exists() and not output.is_dir():
        return "expected a folder, found a file"
    for inside in (source, job_file):
        if inside and _is_in(inside, output):
            return f"the folder holds {printable(inside.name)}: a data set needs a folder of its own"
    return None


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def _is_in(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents
