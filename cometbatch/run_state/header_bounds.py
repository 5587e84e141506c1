"""How many bytes of a worker's journal count, where another worker of its session went on from there.

That one says so in its own journal's header, before it sends anything. Law: what a worker wrote after another one had
measured its journal counts for nothing, whenever it was written: also the header with which it was about to go on from
a third one.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from cometbatch.run_state.journal import read_header
from cometbatch.run_state.journal_files import JournalFile
from cometbatch.run_state.sessions import Session


def bounds_of(folder: Path, files: Iterable[JournalFile], last: Session | None) -> dict[str, int]:
    """How many bytes of these journals count by the headers of others, by name; those that are not named count whole.

    `last`: the newest session, whose file has the bounds of all earlier ones. Raises `CheckpointError` where a file
    can't be read.
    """
    together: dict[tuple[int, int], list[JournalFile]] = {}
    for file in files:
        if file.worker and (last is None or file.session >= last.number):
            together.setdefault((file.range, file.session), []).append(file)
    found: dict[str, int] = {}
    for some in together.values():
        if len(some) > 1:
            found |= _bounds_among(folder, some)
    return found


def _bounds_among(folder: Path, files: Iterable[JournalFile]) -> dict[str, int]:
    """Each owner names all that had the range before it, so the newest names the most of them."""
    begun = ((file.name, read_header(folder / file.name)) for file in files)
    headers = [(name, *header) for name, header in begun if header is not None]
    found: dict[str, int] = {}
    for name, told, size in sorted(headers, key=lambda each: len(each[1].earlier), reverse=True):
        if size <= found.get(name, math.inf):
            for earlier, most in told.earlier.items():
                found[earlier] = min(most, found.get(earlier, most))
    return found
