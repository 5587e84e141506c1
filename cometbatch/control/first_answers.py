"""The first answers of a run that asks for JSON: until one of them is JSON, nobody knows whether the service heeds it.

Many gateways drop what they don't know from a request, and bill the prose that comes back (contract sheet, section 13).
So few calls are in flight until then, no call is asked again, and answers that are no JSON are held: paid and recorded,
but not judged. The first JSON releases them. Where `ENOUGH` come without it, the run stops.
"""

from typing import Final, Generic, TypeVar

from cometbatch.control.attribution import ReasonToStop
from cometbatch.records import Fix

T = TypeVar("T")

ENOUGH: Final = 20
"""Answers that are no JSON, none being JSON, that stop the run. Never are more in flight before the first JSON, so that
no more than these are paid for. A service that heeds the schema fails at one answer of ten now and then, but hardly
ever at twenty in a row."""


class FirstAnswers(Generic[T]):
    """What is held, and how many calls may be in flight meanwhile.

    `others`: answers of earlier sessions, none JSON. `is_by_prompt`: the prompt alone asks for JSON, so that no setting
    of the request can be ignored.
    """

    def __init__(self, others: int = 0, *, is_by_prompt: bool = False) -> None:
        self.is_over = False  # an answer was JSON
        self.share = 1.0  # of the room, where other owners have the rest
        self.own = 0  # answers of this session that are no JSON
        self.own_cut = 0  # of these, cut at the token cap
        self._earlier = others
        self._others = 0  # answers of other owners that are no JSON
        self._others_cut = 0
        self._is_by_prompt = is_by_prompt
        self._held: list[T] = []

    @property
    def holds(self) -> bool:
        """Whether an answer is held."""
        return bool(self._held)

    @property
    def room(self) -> int:
        """How many calls may be in flight. After `ENOUGH` answers it is one, which decides.

        Beside other owners, each has its share of all calls that may be sent until then, and of those that are left.
        """
        whole, left = ENOUGH - self._earlier, ENOUGH - self._count
        return max(1, min(int(whole * self.share) - self.own, int(left * self.share)))

    @property
    def _count(self) -> int:
        return self._earlier + self.own + self._others

    def add(self, *, is_cut: bool) -> None:
        """An answer came that is no JSON."""
        self.own += 1
        self.own_cut += is_cut

    def others_added(self, answers: int, cut: int) -> None:
        """How many answers of other owners are no JSON by now, and how many of these were cut at the token cap."""
        self._others, self._others_cut = max(answers, self._others), max(cut, self._others_cut)

    def hold(self, call: T) -> None:
        """Keep a call whose last answer is no JSON until it can be judged."""
        self._held.append(call)

    def release(self) -> list[T]:
        """All that were held; from now on, none is."""
        released, self._held = self._held, []
        return released

    def reason_to_stop(self) -> ReasonToStop | None:
        """Why the run stops, where enough answers came and none was JSON."""
        if self.is_over or self._count < ENOUGH:
            return None
        were_cut = self.own_cut + self._others_cut
        cut = f" ({were_cut} were cut at the token cap)" if were_cut else ""
        fix: Fix
        if self._is_by_prompt:
            hint, fix = "The model does not answer in JSON when the prompt asks for it. Try another model", "job"
        else:
            way = "Try the model's own format (target.format), or response.mode: prompt"
            hint, fix = f"The service seems to ignore `response`. {way}", "response"
        more = ", or raise params.max_output_tokens" if were_cut else ""
        message = f"{self._count} answers came, and none of them was JSON{cut}"
        return ReasonToStop(message, f"{hint}{more}. The next session starts with one call.", fix)
