"""How a session begins: what earlier ones left is counted before the first request is sent.

In this order, each step repeatable: leftovers go; existing journals are synced; the session's file is written, with the
charges of all marks that no record settles, and of what workers had booked for themselves or left; then what it has
counted so goes. A data set whose parts lie in the run directory names all of them.
"""

from collections.abc import Iterable

import msgspec

from cometbatch.records import Tally
from cometbatch.results import tallies
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run, with_manifest
from cometbatch.run_state.sessions import MARKS_LISTED, Session, Who
from cometbatch.run_state.strays import Strays
from cometbatch.store import local


def first_session(directory: RunDirectory, run_id: str, who: Who) -> None:
    """Begin the first session of a new run. Raises `CheckpointError` where the disk won't have it."""
    directory.write_session(Session(1, run_id, who))


def next_session(run: Run, who: Who) -> Run:
    """Begin a session of a run; returns the run as this session finds it, charges included.

    Raises `CheckpointError` where the disk fails.
    """
    remove_leftovers(run)
    journals = run.directory.journals
    journals.sync()
    known = {} if run.progress.last is None else run.progress.last.counted
    told_of = run.progress.open_by_range(run.manifest)  # a journal of another range tells nothing, and may go unseen
    whole = {file.name: run.progress.whole.get(file.name, 0) for file in journals.all() if file.range in told_of}
    counted = {name: size for name, size in whole.items() if size or name in known}
    session = _write(run, who, counted, run.progress.left, _open(run))
    run.directory.parts.link_all()
    settled = msgspec.structs.replace(
        run.progress, last=session, unsettled=(), accepted=Tally(), booked=Tally(), strays=Strays()
    )
    return msgspec.structs.replace(run, progress=settled)


def begin_anew(run: Run, who: Who, manifest: Manifest) -> Run:
    """Begin a session of a run without outcomes, whose job may have changed meanwhile.

    Its journals hold money alone: this goes into the session's file, and nothing in them counts from there on. They
    stay until their range is committed, for whoever wants to read what was answered. Raises `CheckpointError` where the
    disk fails.
    """
    remove_leftovers(run)
    journals, parts = run.directory.journals, run.directory.parts
    ranges = range(manifest.partitions_in_slice)  # the new job may divide other rows
    staying = {file.name: 0 for file in journals.all() if file.range in ranges}
    session = _write(run, who, staying, tallies.add(run.progress.left, run.progress.records))  # without outcomes
    useless = [journals.folder / file.name for file in journals.all() if file.name not in staying]
    useless += [path for _, path in parts.all()]
    for path in useless:  # parts, too: all of their outcomes were reset
        local.remove(path)
    return msgspec.structs.replace(with_manifest(run, manifest), progress=Progress(last=session))


def _open(run: Run) -> dict[int, tuple[int, ...]] | msgspec.UnsetType:
    if len(run.manifest.slices) == 1:
        return msgspec.UNSET
    return {number: tuple(sorted(some)) for number, some in run.progress.open_by_range(run.manifest).items()}


def _write(
    run: Run,
    who: Who,
    counted: dict[str, int],
    charges: Tally,
    open_ones: dict[int, tuple[int, ...]] | msgspec.UnsetType = msgspec.UNSET,
) -> Session:
    last, number = run.progress.last, run.directory.next_session()
    session = Session(
        number=number,
        run_id=run.manifest.run_id,
        who=who,
        found=run.progress.unsettled[:MARKS_LISTED],
        total=charges if last is None else tallies.add(last.total, charges),
        counted=counted,
        set_aside=_accepted({} if last is None else last.set_aside, run.progress.torn),
        rounds=run.directory.reopened().rounds,
        open=open_ones,
    )
    run.directory.write_session(session)
    directory, strays = run.directory, (name for name in run.progress.strays.names if name not in counted)
    counted_now = [*directory.marks_before(number), *directory.owners.charges_before(number)]
    for path in [*counted_now, *(directory.journals.folder / name for name in strays)]:
        local.remove(path)
    return session


def _accepted(before: dict[str, tuple[int, ...]], torn: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Damage that is known from now on: any other, in what is synced by then, no power cut explains."""
    return before | {name: (*before.get(name, ()), *offsets) for name, offsets in torn.items()}


def remove_leftovers(run: Run) -> None:
    """Remove files of a killed process that count for nothing. Raises `CheckpointError` where the disk fails."""
    told_of = run.progress.open_by_range(run.manifest)

    def partitions_of(range_: int) -> Iterable[int]:
        return (range_,) if len(run.manifest.slices) == 1 else told_of.get(range_, ())

    strays = frozenset(run.progress.strays.names)
    for path in run.directory.leftovers(run.progress.committed, run.progress.last, partitions_of):
        if path.name not in strays:
            local.remove(path)
