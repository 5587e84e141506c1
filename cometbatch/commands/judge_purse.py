"""What judging a result has cost so far, over all runs of its judge; and what its budget leaves for each of them.

Whatever a judge was ever paid counts: verdicts that an update replaced, and those on cells that are no longer compared.
"""

from collections.abc import Iterator
from decimal import Decimal
from functools import reduce
from pathlib import Path

import msgspec
from msgspec import Struct

from cometbatch.job.paths import RUN_PREFIX, RUN_SUFFIX, judged_beside
from cometbatch.job.settings import BudgetSettings
from cometbatch.money.exact import EXACT
from cometbatch.records import Tally
from cometbatch.results import tallies
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.run import find, home_of
from cometbatch.run_state.succession import earlier_runs, looked_at
from cometbatch.store import local

NOTHING = Decimal(0)  # US dollars


class Spent(Struct, frozen=True):
    """US dollars of one judge's run, at most: what counts for the budget of its next session, and what came before."""

    own: Decimal = NOTHING
    earlier: Decimal = NOTHING

    @property
    def total(self) -> Decimal:
        """Of both."""
        return EXACT.add(self.own, self.earlier)


class Purse:
    """The budget over all runs of a judge. `folder`: where these are."""

    def __init__(self, folder: Path, budget: BudgetSettings) -> None:
        self._budget = budget
        self._spent = {result: _spent(result) for result in _results(folder)}

    @property
    def spent(self) -> Decimal:
        """US dollars that all runs so far have spent, or may have."""
        return reduce(EXACT.add, (each.total for each in self._spent.values()), NOTHING)

    def note(self, result: Path) -> None:
        """Look again at what one run has spent."""
        self._spent[result] = _spent(result)

    def beside(self, result: Path, *, update: bool = False) -> Decimal:
        """What does not count in the next session of a run by itself. `update`: a run in its place is to begin."""
        own = NOTHING if update else self._spent.get(result, Spent()).own
        return EXACT.subtract(self.spent, own)

    def of(self, result: Path, *, update: bool = False) -> BudgetSettings:
        """The budget of one run: what all others leave, and what it has spent itself."""
        if self._budget.max_cost_usd is None:
            return self._budget
        left = EXACT.subtract(self._budget.max_cost_usd, self.beside(result, update=update))
        return msgspec.structs.replace(self._budget, max_cost_usd=max(left, NOTHING))


def judge_cost(result: Path) -> Decimal | None:
    """What the verdicts on a result have cost, exactly; None where nobody was asked. Raises `CheckpointError`."""
    found = [each for judged in _results(judged_beside(result)) for each in _bills(judged)]
    if not found:
        return None
    return reduce(EXACT.add, (EXACT.add(bill.cost_usd, bill.rejected_cost_usd) for _, bill in found))


def _results(folder: Path) -> list[Path]:
    """The results of a judge's runs, finished or not."""
    names = [name for name in local.entries(folder) if name.startswith(RUN_PREFIX) and name.endswith(RUN_SUFFIX)]
    return [folder / name.removeprefix(RUN_PREFIX).removesuffix(RUN_SUFFIX) for name in names]


def _spent(result: Path) -> Spent:
    current = looked_at(home_of(result, is_dataset=False))
    amounts = {directory.path: tallies.spent(bill) for directory, bill in _bills(result)}
    own = amounts.pop(current.path, NOTHING)
    return Spent(own, reduce(EXACT.add, amounts.values(), NOTHING))


def _bills(result: Path) -> Iterator[tuple[RunDirectory, Tally]]:
    """What was paid in each run that stands, or stood, in this place."""
    home = home_of(result, is_dataset=False)
    places = {each.path: each for each in (home, looked_at(home), *earlier_runs(home))}
    for directory in places.values():
        run = find(directory, result)
        if run is not None:
            yield directory, tallies.add(run.bill, run.progress.charges)
