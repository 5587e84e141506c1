"""The laws of design.md, section 5, as far as several owners could break them, held against the service's ledger."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from cometbatch.control.coordination.turns import BELOW_PER_S, LATE_S
from cometbatch.runner.patience import MAX_BREATH_S
from tests.workers.simulated.plain import Settings
from tests.workers.simulated.service import WORST_USD, Request, answered_number
from tests.workers.simulated.table import Table

SLACK: Final = 1.03  # clocks of owners are a little too fast
TOLD_S: Final = 0.12  # from what one owner learns to the last request of another one that does not know it
HTTP_TOO_MANY: Final = 429
TURN_S: Final = 0.01  # from a reply to its record, if nothing stands still
WINDOWS_S: Final = (0.1, 0.5, 1.0, 3.0, 10.0)


class BrokenLawError(AssertionError):
    """A law does not hold."""


class Ended(Struct, frozen=True):
    """A session that is over, as the world saw it.

    `is_quiet`: nothing happened to a process, no message was lost or late, and the disk never stalled.
    `stopped_at`: when the coordinator ordered everybody to stop; infinite where it did not.
    """

    number: int
    owners: int
    settings: Settings
    is_quiet: bool = False
    stopped_at: float = math.inf


class Harm(Struct):
    """What happened to a process. `died_at`, `lost_at`: by the world's time; infinite where that did not happen.

    Where it died while it waited for the disk, `died_at` is the moment from which on it waited.

    `stood_still`: it was stopped in between, so that what it had heard it may have recorded much later.
    """

    died_at: float = math.inf
    lost_at: float = math.inf
    stood_still: bool = False


class Witness(Struct):
    """What the world saw of a life. `harm`: by process.

    `unsent`: requests that were marked and never left. `parts`: laws of parts that were broken, in words.
    `power_cut_at`: when the power failed, and `lost_s`: for how long before that what was written may be lost.
    """

    table: Table
    ledger: Sequence[Request]
    sessions: Sequence[Ended]
    harm: Mapping[str, Harm]
    parts: Sequence[str]
    unsent: int
    power_cut_at: float = math.inf
    lost_s: float = 0.0


def broken(witness: Witness) -> Iterator[str]:
    """Each law that does not hold at the end of a life, in words."""
    yield from _rows(witness)
    yield from _bill(witness)
    yield from _fence(witness)
    yield from _rate(witness)
    for session in witness.sessions:
        if session.owners and session.is_quiet:
            yield from _pauses(witness, session)
            yield from _stop(witness, session)
    yield from witness.parts


def of_a_session(
    table: Table, ledger: Sequence[Request], session: Ended, kinds: Sequence[str], *, has_ended: bool
) -> Iterator[str]:
    """Each law that does not hold at the end of a session. `kinds`: of its stops. `has_ended`: in order."""
    cap, run = session.settings.max_cost_usd, table.found()
    if cap is not None and spent(ledger) > cap:
        yield f"budget: {spent(ledger)} of {cap} was spent"
    if not has_ended or not session.owners:
        return
    if not kinds and not run.is_complete:
        yield f"end: session {session.number} ended without a stop, and {len(run.missing)} partitions are missing"
    if cap is not None and "budget" in kinds:
        left = cap - table.spent(run)
        if left > (session.owners + 1) * WORST_USD:
            yield f"budget: session {session.number} stopped with {left} of {cap} left"


def spent(ledger: Sequence[Request]) -> Decimal:
    """What the service billed, in US dollars."""
    return sum((each.cost_usd for each in ledger if each.cost_usd is not None), Decimal(0))


def _rows(witness: Witness) -> Iterator[str]:
    """Rows in = out = distinct, in order."""
    table = witness.table
    rows = [row for row, _ in table.answers(table.found())]
    wanted = list(range(table.rows)) * len(table.queues)
    if rows != wanted:
        counts = Counter(rows)
        odd = {row: counts[row] for row in range(table.rows) if counts[row] != len(table.queues)}
        yield f"rows: {len(rows)} of {len(wanted)} rows are there; not as often as they should: {odd}"


def _bill(witness: Witness) -> Iterator[str]:
    """Each request that the service billed is in the bill exactly once, and nothing else is but what may have been."""
    table, ledger = witness.table, witness.ledger
    run = table.found()
    bill = table.bill(run)
    numbers = [answered_number(text) for _, text in table.answers(run) if text]
    standing = set(numbers)
    if len(numbers) != len(standing):
        yield "bill: one answer stands for several rows"
    by_number = {each.number: each for each in ledger}
    cost = sum((by_number[number].cost_usd or Decimal(0) for number in numbers), Decimal(0))
    if bill.cost_usd != cost:
        yield f"bill: the run says that its answers cost {bill.cost_usd}, the service billed {cost} for them"
    others = [each for each in ledger if each.cost_usd is not None and each.number not in standing]
    maybe = [each for each in ledger if each.cost_usd is None and not _is_known(each, witness)]
    lost = {each.number for each in ledger if _may_be_lost(each, witness)}
    sure = [each for each in others if each.number not in lost]
    lost_or_back = lost.union(each.number for each in ledger if _may_come_back(each, witness))
    counted = {each.number for each in [*others, *maybe]}
    most = len(counted) + witness.unsent + len(lost_or_back - counted)
    if not len(sure) <= bill.charges <= most:
        words = ", ".join(map(_describe, others))
        yield f"bill: {bill.charges} possible charges; billed beside what stands: {words}; unsure: {len(maybe)}"
    least = sum((each.cost_usd or Decimal(0) for each in sure), Decimal(0))
    if not least <= bill.charges_usd <= WORST_USD * bill.charges:
        yield f"bill: possible charges of {bill.charges_usd}, where {least} was billed"
    for each in sure:
        if each.status == 200 and _is_known(each, witness):
            yield f"paid twice without a cause: {_describe(each)}"


def _may_be_lost(request: Request, witness: Witness) -> bool:
    """Whether a power cut may have taken what was written of this request since the sync before last."""
    at, since = witness.power_cut_at, _synced_until(request, witness)
    if not request.left_at <= at:
        return False
    stood_still = witness.harm.get(request.owner, Harm()).stood_still
    return stood_still or request.left_at > since or since < request.heard_at <= at


def _synced_until(request: Request, witness: Witness) -> float:
    """Until when what its process wrote is durable at the power cut. A process that died before it synced no more."""
    return min(witness.power_cut_at, witness.harm.get(request.owner, Harm()).died_at) - witness.lost_s


def _may_come_back(request: Request, witness: Witness) -> bool:
    """Whether a power cut may have brought its mark back, whole or torn: nothing was synced since that had ended it."""
    if request.left_at > witness.power_cut_at:
        return False
    since = _synced_until(request, witness)
    own = (each.left_at for each in witness.ledger if each.owner == request.owner)
    return not any(request.heard_at <= left_at <= since for left_at in own)


def _is_known(request: Request, witness: Witness) -> bool:
    """Whether the run must know what came of this request: its process got the reply in time to write that down."""
    harm = witness.harm.get(request.owner, Harm())
    if request.status in (-1, 0) or harm.stood_still:
        return False
    counted_at = min((when for number, when in witness.table.began if number > request.session), default=math.inf)
    return request.heard_at < min(harm.died_at, harm.lost_at, counted_at) - TURN_S


def _fence(witness: Witness) -> Iterator[str]:
    """Nothing is sent without a lease, nor by an earlier session once a newer one has sent something."""
    newest = 0
    for each in witness.ledger:
        if each.lease_left_s <= 0 and not each.is_late:
            yield f"fence: sent {-each.lease_left_s:.3f} s after its lease's end: {_describe(each)}"
        lost_at = witness.harm.get(each.owner, Harm()).lost_at
        if each.left_at > lost_at and not each.is_late:
            yield f"fence: its ranges were given away at {lost_at:.3f}: {_describe(each)}"
        if each.session < newest and not each.is_late:
            yield f"fence: session {newest} had begun to send: {_describe(each)}"
        newest = max(newest, each.session)


def _rate(witness: Witness) -> Iterator[str]:
    """Over any window of T seconds of a session, no more than rate * T + the owners' bursts leaves."""
    for session in witness.sessions:
        per_minute = session.settings.requests_per_minute
        if per_minute is None:
            continue
        per_s = per_minute / 60
        own = [each for each in witness.ledger if each.session == session.number and not each.is_late]
        for window_s in WINDOWS_S:
            first = 0
            for last, each in enumerate(own):
                while own[first].left_at < each.left_at - window_s:
                    first += 1
                sent = last - first + 1
                burst = _burst(per_s, session.owners)
                if sent > per_s * window_s * SLACK + burst + 1e-6:
                    yield (
                        f"rate: session {session.number} sent {sent} within {window_s} s up to {each.left_at:.3f}; "
                        f"{per_s * window_s + burst:.1f} may leave"
                    )
                    break


def _pauses(witness: Witness, session: Ended) -> Iterator[str]:
    """Where the service asks to wait, nobody sends from a moment later on, for a breath at least."""
    if session.settings.adaptive or len(witness.table.queues) > 1:
        return  # the pace slows everybody down, or one model alone waits
    own = [each for each in witness.ledger if each.session == session.number]
    for told in own:
        if told.status != HTTP_TOO_MANY or told.heard_at == math.inf:
            continue
        until = told.replied_at + 0.9 * min(told.retry_after_s or 0.0, MAX_BREATH_S) - TOLD_S
        for each in own:
            if told.replied_at + TOLD_S < each.left_at < until:
                yield f"pause: #{told.number} was asked to wait at {told.replied_at:.3f}: {_describe(each)}"
                return


def _stop(witness: Witness, session: Ended) -> Iterator[str]:
    """Nobody sends once everybody was ordered to stop."""
    for each in witness.ledger:
        if each.session == session.number and each.left_at > session.stopped_at + TOLD_S:
            yield f"stop: ordered at {session.stopped_at:.3f}: {_describe(each)}"


def _burst(per_s: float, owners: int) -> float:
    """Requests beside rate * time: of the owners' shares, or a turn that each may have kept and one that is granted."""
    if owners and per_s < BELOW_PER_S:
        return owners + 1 + per_s * LATE_S
    return max(float(max(1, owners)), per_s / 20)


def _describe(request: Request) -> str:
    late = " late" if request.is_late else ""
    return f"#{request.number} row {request.ordinal} of {request.owner} at {request.left_at:.3f}{late}"
