"""Journals that counted when the newest session began, and that are gone or shorter by now.

They were synced by then, so no power cut explains it: what they held was paid, and would leave the bill without a word.
A journal of the newest session itself is told of nowhere, and its loss can't be seen.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.in_flight import Mark
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.names import JOURNAL, index_in
from cometbatch.run_state.sessions import Session
from cometbatch.store import local

_READ_BYTES: Final = 2**20


def lost_journals(
    directory: RunDirectory, manifest: Manifest, last: Session | None, committed: Collection[int]
) -> dict[Path, frozenset[int]]:
    """Each lost journal of partitions that are not committed, or what a round kept of one, with these partitions.

    The last of them that is committed takes the journals with it: the caller looks at the parts again.
    """
    found: dict[Path, frozenset[int]] = {}
    journals, reopened = directory.journals, directory.reopened()
    for name, counted in ({} if last is None else last.counted).items():
        match = JOURNAL.fullmatch(name)
        range_ = index_in(match)
        if match is None or range_ is None:
            continue
        open_ones = frozenset(_open_in(range_, manifest, last)).difference(committed)
        told_of = frozenset(index for index in open_ones if int(match[2]) >= reopened.round_of(index).since)
        if told_of and counted and _size(journals.folder / name) < counted:
            found[journals.folder / name] = told_of
    partitions = {each.index: each for each in manifest.partitions()} if reopened.partitions else {}
    for index, round_ in reopened.partitions.items():
        path = journals.kept(index, round_.round)
        is_accepted = last is not None and path.name in last.set_aside
        if index in committed or is_accepted or index not in partitions:
            continue
        if sum(_line_breaks(path)) <= partitions[index].row_count:  # a header, and a line for each call
            found[path] = frozenset([index])
    return found


def _open_in(range_: int, manifest: Manifest, last: Session | None) -> Iterable[int]:
    """The partitions of which the journals of a range told when the newest session began."""
    if last is None or last.open is msgspec.UNSET:  # so it is with one slice, and was before the next one was added
        return (range_,) if len(manifest.slices) == 1 or range_ < manifest.partitions_in_slice else ()
    return last.open.get(range_, ())


def lost_marks(slots: int, readable: Iterable[Mark]) -> list[Mark]:
    """What counts in place of the marks of a worker whose file can't be read, since it was on a disk that is gone.

    As many as it may have had requests in flight, each at the largest amount of the marks that can be read; of unknown
    amount where there are none.
    """
    amounts = [mark.max_cost_usd for mark in readable]
    known = [amount for amount in amounts if amount is not None]
    most = max(known) if known and len(known) == len(amounts) else None
    return [Mark(-1, 0, 0, most, is_whole=False)] * slots


def without(last: Session | None, path: Path) -> Session | None:
    """The newest session as it would be if no more had counted of this journal than the whole lines that are left."""
    if last is None:
        return None
    left = (local.content(path, None) or b"").rfind(b"\n") + 1
    counted = {name: size for name, size in last.counted.items() if name != path.name or left}
    if path.name in counted:
        counted[path.name] = left
    return msgspec.structs.replace(last, counted=counted, set_aside={path.name: ()} | last.set_aside)


def _size(path: Path) -> int:
    """In bytes; -1 where there is no such file."""
    with local.naming(path, "can't be read"):
        try:
            return path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return -1


def _line_breaks(path: Path) -> Iterator[int]:
    with local.naming(path, "can't be read"):
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return
        with file:
            while piece := file.read(_READ_BYTES):
                yield piece.count(b"\n")
