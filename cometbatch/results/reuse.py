"""Taking earlier answers: a call whose very request was answered before gets that answer, and nothing is sent.

Laws: an answer is taken for the same request alone, by its whole hash; each call that paid is taken from at most once
in a run, however many results hold a copy of its answer; who paid is handed on unchanged. What is kept in memory is a
bit for each call that was taken from, beside the rows that were read last.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from cometbatch.money.exact import EXACT
from cometbatch.records import Answered, AnsweredStatus, CallRequest, Completion, Outcome
from cometbatch.results.reuse_counts import NOTHING, REASONS, Reason, ReuseCounts
from cometbatch.results.reuse_index import ENTRIES_READ, Entry, Index, key_of
from cometbatch.results.reuse_rows import GROUPS, EarlierRows, RowGroup

_PAGE_BITS: Final = 12  # calls of a run whose bits are kept together: 512 bytes


class Rules(Struct, frozen=True):
    """Which earlier answers are taken. `oldest`: in microseconds since 1970; None is any age.

    `fits`: whether a text is what today's `response` asks for in answer to a call. `is_repeatable`: whether a call
    is answered in the same way each time; None where that does not matter. `status`: of an answer, as this run has
    it.
    """

    service: str
    statuses: frozenset[AnsweredStatus] = frozenset({"succeeded"})
    oldest: int | None = None
    fits: Callable[[CallRequest, str], bool] | None = None
    is_repeatable: Callable[[CallRequest], bool] | None = None
    status: Callable[[Completion], AnsweredStatus] | None = None


class Origins:
    """A set of calls that paid, by run and ordinal, with a bit for each. Ordinals that are near take little room."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], bytearray] = {}

    def add(self, run: int, ordinal: int) -> None:
        """Add a call."""
        page = self._pages.setdefault((run, ordinal >> _PAGE_BITS), bytearray(1 << (_PAGE_BITS - 3)))
        at = ordinal & ((1 << _PAGE_BITS) - 1)
        page[at >> 3] |= 1 << (at & 7)

    def add_all(self, run: int, ordinals: Iterable[int]) -> None:
        """Add calls of one run."""
        for ordinal in ordinals:
            self.add(run, ordinal)

    def holds(self, run: int, ordinal: int) -> bool:
        """Whether a call is in the set."""
        page = self._pages.get((run, ordinal >> _PAGE_BITS))
        at = ordinal & ((1 << _PAGE_BITS) - 1)
        return page is not None and bool(page[at >> 3] >> (at & 7) & 1)


class EarlierAnswers:
    """The answers of earlier runs, for the calls of one. Used from one thread.

    `taken`: the calls that this run took answers from before. `own_run`: the id of the run itself, whose own answers
    are never taken, nor copies of them.
    """

    def __init__(
        self, index: Index, rows: EarlierRows, rules: Rules, taken: Origins, own_run: str | None = None
    ) -> None:
        self.counts = ReuseCounts()
        self._index, self._rows, self._rules, self._taken = index, rows, rules, taken
        self._own = index.runs.index(own_run) if own_run in index.runs else -1
        self._first_left: dict[int, int] = {}  # by key, of those with many entries: before it, none can be taken

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        self._index.close()

    def take(self, calls: Sequence[CallRequest | Outcome]) -> list[CallRequest | Outcome]:
        """The same calls, each that can have an earlier answer as its outcome with that.

        Raises `CheckpointError` where a source can't be read any more.
        """
        found = list(calls)
        chosen: dict[RowGroup, list[tuple[int, CallRequest, Entry]]] = {}
        for at, call in enumerate(calls):
            if isinstance(call, CallRequest) and (match := self._choose(call)) is not None:
                group, entry = match
                if group not in chosen and len(chosen) >= GROUPS:  # each of them is in memory
                    self._fill(found, chosen)
                chosen.setdefault(group, []).append((at, call, entry))
        self._fill(found, chosen)
        return found

    def _fill(
        self,
        found: list[CallRequest | Outcome],
        chosen: dict[RowGroup, list[tuple[int, CallRequest, Entry]]],
    ) -> None:
        """Put the answers that were chosen in their places, and forget them."""
        for group, some in chosen.items():
            answers = group.answers([entry.row for _, _, entry in some])
            for (at, call, entry), answer in zip(some, answers, strict=True):
                found[at] = self._outcome(call, entry, answer)
        chosen.clear()

    def _choose(self, call: CallRequest) -> tuple[RowGroup, Entry] | None:
        """The earlier answer that a call takes, which is taken from now on; None where there is none."""
        key = key_of(call.request_hash)
        start, end = self._index.positions(key)
        is_long = end - start > ENTRIES_READ
        first = self._first_left.get(key, start) if is_long else start
        reasons: set[Reason] = set()
        is_useless = True  # all entries before, for every call with this request
        match: tuple[RowGroup, Entry] | None = None
        for position, entry in self._index.entries(key, first, end):
            reason, group = self._judge(call, entry)
            if reason is None and group is not None:
                match = group, entry
                self._taken.add(entry.run, entry.ordinal)
            if reason is not None:
                reasons.add(reason)
            is_useless = is_useless and (match is not None or reason is not None)
            if is_long and is_useless:
                self._first_left[key] = position + 1
            if match is not None:
                return match
        if reasons:
            self.counts.not_taken[max(reasons, key=REASONS.index)] += 1
        else:
            self.counts.new += 1
        return None

    def _judge(self, call: CallRequest, entry: Entry) -> tuple[Reason | None, RowGroup | None]:
        """Why an answer is not taken, or the rows among which it is; neither where it answers another request."""
        if entry.run == self._own:
            return None, None
        if self._taken.holds(entry.run, entry.ordinal):
            return "taken", None
        group = self._rows.group(entry.file, entry.row)
        status = group.cell("status", entry.row)
        if group.cell("request_hash", entry.row) != call.request_hash or status == "failed":
            return None, None
        reason = self._misfit(call, entry, group, status)
        return reason, (group if reason is None else None)

    def _misfit(self, call: CallRequest, entry: Entry, group: RowGroup, status: AnsweredStatus) -> Reason | None:
        """Which rule an answer to the same request does not keep to."""
        rules = self._rules
        reason: Reason | None = None
        if self._index.files[entry.file].service != rules.service:
            reason = "service"
        elif status not in rules.statuses:
            reason = "status"
        elif rules.oldest is not None and (group.moment(entry.row) or 0) < rules.oldest:
            reason = "age"
        elif rules.is_repeatable is not None and not rules.is_repeatable(call):
            reason = "sampling"
        elif rules.fits is not None and status == "succeeded":
            text = group.cell("response", entry.row) or ""
            reason = None if rules.fits(call, text) else "schema"
        return reason

    def _outcome(self, call: CallRequest, entry: Entry, answer: Answered) -> Answered:
        is_copy = answer.reused_from is not None
        cost = answer.reused_cost_usd if is_copy else answer.cost_usd
        self.counts.taken += 1
        if cost is None:
            self.counts.unpriced += 1
        else:
            self.counts.saved_usd = EXACT.add(self.counts.saved_usd, cost)
        status = answer.status if self._rules.status is None else self._rules.status(answer.completion)
        return Answered(
            ordinal=call.ordinal,
            status=status,
            custom_id=call.custom_id,
            attempts=0,
            latency_s=answer.latency_s,
            finished_at=answer.finished_at,
            request_hash=call.request_hash,
            http_status=answer.http_status,
            request_id=answer.request_id,
            completion=answer.completion,
            cost_usd=NOTHING,
            answered_attempts=(),
            target=call.target,
            reused_from=self._index.runs[entry.run],
            reused_ordinal=entry.ordinal,
            reused_cost_usd=cost,
        )
