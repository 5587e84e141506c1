"""The report of `verify`: every check with its promise, and what was found wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

PLACES_SHOWN: Final = 5
"""Places that the report shows of each failed check; the others are counted."""

CHECKS: Final = {
    "manifest": "the manifest can be read",
    "job": "the job file is the one that the run was made with",
    "input": "the input is still the file that was read",
    "parts": "every partition has its part, of this run and these rows, and there are no others",
    "pages": "every part can be read whole, each page with its checksum",
    "columns": "the input's columns are followed by the output's, each of its type",
    "metadata": "the files say the same of their run, job and prices as the manifest",
    "rows": "each input row is there once, in order and as it was",
    "ids": "custom_id is the id column",
    "requests": "each answer belongs to the prompt that the job makes of its row",
    "outcomes": "each row's status and columns fit together",
    "costs": "each cost is the row's usage times the frozen prices",
    "sums": "the rows add up to the parts' own totals",
    "result": "the published result is the parts, row for row",
    "leftovers": "no journal and no half-written file is left",
}
"""Every check and what it proves, in the order of the report."""


WHERE_USED: Final = {
    "slices": "the result has the slices that the job names, in order, each whole and under its labels",
    "answers": "the columns of answers hold what the response says",
    "equal": "each answer that a row took from an equal row of the run is that row's",
    "scores": "each score is what its settings give for the line",
    "reused": "each answer that was taken is that of the run that paid, and none was taken twice",
}
"""Checks after these, each in the report of a run that has something for it."""


class Check(Struct, frozen=True):
    """One line of the report. `found` counts what is wrong, `places` are the first of it.

    `reason`: why it was skipped, or which part of it was.
    """

    name: str
    promise: str
    state: Literal["ok", "failed", "skipped"]
    found: int = 0
    places: tuple[str, ...] = ()
    reason: str | None = None


class Verification(Struct, frozen=True):
    """What was checked of a finished run. `run_id` and `rows` are `None` where the manifest can't be read."""

    output: Path
    run_id: str | None
    rows: int | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that could be checked is wrong."""
        return not any(check.state == "failed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "ok": self.ok,
            "run_id": self.run_id,
            "output": str(self.output),
            "rows": self.rows,
            "checks": [{name: getattr(check, name) for name in Check.__struct_fields__} for check in self.checks],
        }

    def describe(self) -> str:
        """A line for each check, then the conclusion."""
        return "\n".join([f"{self.output} ({self._run()})", *self._lines(), self._conclusion()])

    def _run(self) -> str:
        return "no readable manifest" if self.rows is None else f"run {self.run_id}, {self.rows:,} rows"

    def _lines(self) -> Iterator[str]:
        for check in self.checks:
            reason = "" if check.reason is None else f": {check.reason}"
            yield f"  {check.state:8} {check.name:10} {check.promise}{reason}"
            yield from (f"             {place}" for place in check.places)
            if check.found > len(check.places):
                yield f"             and {check.found - len(check.places):,} more"

    def _conclusion(self) -> str:
        states = [check.state for check in self.checks]
        skipped = f"; {states.count('skipped')} could not be checked" if "skipped" in states else ""
        if self.ok:
            return f"everything holds{skipped}"
        return f"{states.count('failed')} of {len(states)} checks failed{skipped}"


class Findings:
    """What the checks find, collected while they run."""

    def __init__(self) -> None:
        self._found = dict.fromkeys(CHECKS | WHERE_USED, 0)
        self._places: dict[str, list[str]] = {name: [] for name in self._found}
        self._reasons: dict[str, str] = {}
        self._notes: dict[str, list[str]] = {}
        self._used: set[str] = set()

    def add(self, name: str, words: str | None, *, where: str = "") -> None:
        """Something is wrong, unless `words` is `None`."""
        if words is None:
            return
        self._found[name] += 1
        if len(self._places[name]) < PLACES_SHOWN:
            self._places[name].append(f"{where}: {words}" if where else words)

    def skip(self, reason: str, *names: str) -> None:
        """These could not be checked; the first reason stands."""
        for name in names:
            self._reasons.setdefault(name, reason)

    def note(self, name: str, words: str) -> None:
        """A part of this check could not be done."""
        self._notes.setdefault(name, []).append(words)

    def use(self, name: str) -> None:
        """The run has something for this check of `WHERE_USED`."""
        self._used.add(name)

    def checks(self) -> tuple[Check, ...]:
        """Every check with its state, in the order of the report."""
        used = {name: promise for name, promise in WHERE_USED.items() if name in self._used}
        return tuple(self._check(name, promise) for name, promise in (CHECKS | used).items())

    def _check(self, name: str, promise: str) -> Check:
        if self._found[name]:
            return Check(name, promise, "failed", self._found[name], tuple(self._places[name]))
        if name in self._reasons:
            return Check(name, promise, "skipped", reason="; ".join([self._reasons[name], *self._notes.get(name, ())]))
        return Check(name, promise, "ok", reason="; ".join(self._notes.get(name, ())) or None)
