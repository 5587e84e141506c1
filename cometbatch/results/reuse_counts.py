"""How the calls of a session met earlier answers: taken, new, or why not taken. Pure: counts in, words out."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from cometbatch.money.exact import format_amount, format_rounded

NOTHING: Final = Decimal(0)  # US dollars
Reason: TypeAlias = Literal["taken", "service", "status", "age", "schema", "sampling"]
"""Why an earlier answer to the same request is not taken.

taken: it was taken for another call of this run; service: another service gave it; status: it is of another status than
`reuse.statuses`; age: it is older than `reuse.max_age`; schema: it does not fit today's `response`; sampling:
`reuse.sampling` is false, and the call may be answered otherwise each time.
"""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_WORDS: Final[dict[Reason, str]] = {
    "taken": "each earlier answer to the same request was taken for another row",
    "service": "another service answered the same request",
    "status": "the earlier answer is of a status that reuse.statuses leaves out",
    "age": "the earlier answer is older than reuse.max_age",
    "schema": "the earlier answer does not fit today's response",
    "sampling": "the answer may be another each time, and reuse.sampling is false",
}


class ReuseCounts(Struct):
    """What a session did with its calls: how many took an earlier answer, and why the others did not.

    `new`: of calls to which no earlier result has an answer. `not_taken`: of calls to which one has, by reason.
    `saved_usd`: what the answers that were taken had cost, where that is known; `unpriced` counts the others.
    """

    taken: int = 0
    new: int = 0
    not_taken: Counter[Reason] = msgspec.field(default_factory=Counter)
    saved_usd: Decimal = NOTHING
    unpriced: int = 0

    @property
    def sent(self) -> int:
        """How many calls took no earlier answer."""
        return self.new + self.not_taken.total()

    def to_dict(self, *, requests: int | None = None) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact.

        `requests`: how many of the calls that take no earlier answer are sent, where equal ones are sent once.
        """
        return {
            "rows": self.taken,
            "saved_usd": format_amount(self.saved_usd),
            "unpriced": self.unpriced,
            "sent": self.sent if requests is None else requests,
            "not_taken": self.reasons(is_deduped=requests is not None),
        }

    def reasons(self, *, is_deduped: bool = False) -> dict[str, int]:
        """Calls to which an earlier result has an answer that they don't take, by reason.

        `is_deduped`: a row whose like took the only answer takes it from that row, so that it is not among them.
        """
        left_out = {"taken"} if is_deduped else set()
        return {reason: rows for reason, rows in sorted(self.not_taken.items()) if reason not in left_out}

    def planned_words(self, *, is_deduped: bool = False) -> Iterator[str]:
        """What a plan says of it. `is_deduped`: of the others, only different requests are sent."""
        saved = format_rounded(self.saved_usd, down=True)
        unknown = f" and {self.unpriced:,} of unknown cost" if self.unpriced else ""
        taken = f"{self.taken:,} {'row takes' if self.taken == 1 else 'rows take'} an earlier answer"
        sent = "" if is_deduped else f", {self.sent:,} {'is' if self.sent == 1 else 'are'} sent"
        yield f"reuse: {taken} ({saved} saved{unknown}){sent}"
        yield from (f"  {words}" for words in self.not_taken_words(is_deduped=is_deduped))

    def not_taken_words(self, *, is_deduped: bool = False) -> Iterator[str]:
        """Why calls don't take the answer that an earlier result has to them, in sentences.

        `is_deduped`: where another row took the only one, a row takes that row's; and of rows that ask the same, one is
        sent.
        """
        found = self.reasons(is_deduped=is_deduped)
        for reason in REASONS:
            if rows := found.get(reason):
                sent = f"{'row is' if rows == 1 else 'rows are'} sent all the same"
                takes = f"{'row takes' if rows == 1 else 'rows take'} no earlier answer"
                yield f"{rows:,} {takes if is_deduped else sent}: {_WORDS[reason]}"
