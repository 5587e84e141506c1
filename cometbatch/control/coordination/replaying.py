"""What an earlier coordinator of the session wrote down, made known to one that takes its place. Pure."""

from collections.abc import Iterable
from typing import assert_never

from cometbatch.control.coordination import written
from cometbatch.control.coordination.claims import Claims
from cometbatch.control.coordination.grants import Grants
from cometbatch.control.coordination.hearing import Hearing
from cometbatch.control.coordination.owners import Owners


def replay(lines: Iterable[bytes], owners: Owners, claims: Claims, grants: Grants | None, hearing: Hearing) -> int:
    """Bring what a new coordinator knows to where the earlier one was; returns how many there were before."""
    begun = 0
    for line in written.decode_lines(lines):
        match line:
            case written.Began():
                begun += 1
            case written.Joined():
                owners.join(line.owner, 0.0)
            case written.Given():
                claims.give(line.owner, line.range)
            case written.Closed():
                claims.close(line.owner, [line.range])
            case written.Lost() | written.Left():
                ranges = claims.release(line.owner)
                owners.end(owners[line.owner], is_lost=isinstance(line, written.Lost))
                if isinstance(line, written.Left):
                    hearing.stops.note_left(line.left)
            case written.Stopped():
                hearing.stop(line.order)
            case written.Granted() | written.Announced() | written.Accounted():
                pass
            case _:
                assert_never(line)
        if grants is not None:
            _count(line, ranges if isinstance(line, written.Lost) else [], grants)
    return begun


def _count(line: written.Line, ranges: list[int], grants: Grants) -> None:
    """What a line says of money. `ranges`: those that a lost owner had."""
    match line:
        case written.Joined():
            grants.join(line.owner)
        case written.Granted():
            grants.restore(line.owner, line.usd)
        case written.Announced():
            grants.commit(line.owner, line.range, line.index, line.usd)
        case written.Closed():
            grants.close(line.owner, line.range)
        case written.Lost():
            grants.lost(line.owner, ranges)
        case written.Left():
            grants.left_by(line.owner, line.spent_usd)
        case written.Accounted():
            grants.found(line.owner, line.range, line.usd)
        case written.Stopped() if line.order.queue is not None:
            grants.be_inexact()
        case _:
            pass
