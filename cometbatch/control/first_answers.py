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
        self._others = others
        self._is_by_prompt = is_by_prompt
        self._cut = 0  # of these, answers of this session that were cut at the token cap
        self._held: list[T] = []

    @property
    def holds(self) -> bool:
        """Whether an answer is held."""
        return bool(self._held)

    @property
    def room(self) -> int:
        """How many calls may be in flight. After `ENOUGH` answers it is one, which decides."""
        return max(1, ENOUGH - self._others)

    def add(self, *, is_cut: bool) -> None:
        """An answer came that is no JSON."""
        self._others += 1
        self._cut += is_cut

    def hold(self, call: T) -> None:
        """Keep a call whose last answer is no JSON until it can be judged."""
        self._held.append(call)

    def release(self) -> list[T]:
        """All that were held; from now on, none is."""
        released, self._held = self._held, []
        return released

    def reason_to_stop(self) -> ReasonToStop | None:
        """Why the run stops, where enough answers came and none was JSON."""
        if self.is_over or self._others < ENOUGH:
            return None
        cut = f" ({self._cut} were cut at the token cap)" if self._cut else ""
        fix: Fix
        if self._is_by_prompt:
            hint, fix = "The model does not answer in JSON when the prompt asks for it. Try another model", "job"
        else:
            way = "Try the model's own format (target.format), or response.mode: prompt"
            hint, fix = f"The service seems to ignore `response`. {way}", "response"
        more = ", or raise params.max_output_tokens" if self._cut else ""
        message = f"{self._others} answers came, and none of them was JSON{cut}"
        return ReasonToStop(message, f"{hint}{more}. The next session starts with one call.", fix)
