"""The server's own counts, which tests of "never pay twice" rely on.

An answer counts when the server decides to give it, even if the client has left. Memory is bounded: the least recently
seen requests are forgotten, and a repeat of a forgotten one is not noticed.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from cometbatch.records import Usage

MAX_REMEMBERED = 100_000  # requests whose repeats are noticed; older ones are forgotten


class Seen(Struct):
    """How often one request came, was answered (and billed), and was answered whole."""

    attempts: int = 0
    answered: int = 0
    delivered: int = 0


class ModelSums(Struct):
    """Sums over the answers of one model."""

    answered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0


class Ledger:
    """Counts of one simulator. Law: requests = answered + all rejected + cut before the reply."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()
        self._models: dict[str, ModelSums] = {}
        self._rejected: Counter[int] = Counter()
        self._repeats: Counter[str] = Counter()
        self._cut_before_reply = 0
        self.spent_usd = Decimal(0)

    def next_attempt(self, digest: bytes) -> int:
        """The number of the attempt of a request that begins now, from 1."""
        seen = self._seen.setdefault(digest, Seen())
        self._seen.move_to_end(digest)
        if len(self._seen) > self._max_remembered:
            self._seen.popitem(last=False)
        seen.attempts += 1
        return seen.attempts

    def answered(self, digest: bytes, model: str, usage: Usage, cost_usd: Decimal | None, *, whole: bool) -> None:
        """Count an answer. `whole`: all of it is to arrive."""
        seen = self._seen.setdefault(digest, Seen())
        self._repeats["answered"] += seen.answered == 1
        self._repeats["delivered"] += whole and seen.delivered == 1
        self._repeats["lost"] += not whole
        seen.answered += 1
        seen.delivered += whole
        self._bill(model, usage, cost_usd)

    def rejected(self, status: int) -> None:
        """Count a reply that is no answer and is not billed."""
        self._rejected[status] += 1

    def cut_before_reply(self) -> None:
        """Count a connection that was cut before any work was done."""
        self._cut_before_reply += 1

    def snapshot(self) -> Mapping[str, object]:
        """The counts as JSON-ready values; money as decimal text."""
        answered = sum(sums.answered for sums in self._models.values())
        return {
            "requests": answered + self._rejected.total() + self._cut_before_reply,
            "answered": answered,
            "answers_lost": self._repeats["lost"],
            "answered_more_than_once": self._repeats["answered"],
            "delivered_more_than_once": self._repeats["delivered"],
            "rejected": {str(status): count for status, count in sorted(self._rejected.items())},
            "cut_before_reply": self._cut_before_reply,
            "cost_usd": f"{self.spent_usd:f}",
            "models": {name: _sums_ready_for_json(sums) for name, sums in sorted(self._models.items())},
        }

    def _bill(self, model: str, usage: Usage, cost_usd: Decimal | None) -> None:
        sums = self._models.setdefault(model, ModelSums())
        sums.answered += 1
        sums.input_tokens += usage.input_tokens or 0
        sums.output_tokens += usage.output_tokens or 0
        sums.unpriced += cost_usd is None
        sums.cost_usd += cost_usd or 0
        self.spent_usd += cost_usd or 0


def _sums_ready_for_json(sums: ModelSums) -> dict[str, object]:
    return {
        "answered": sums.answered,
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "cost_usd": f"{sums.cost_usd:f}",
        "unpriced": sums.unpriced,
    }
