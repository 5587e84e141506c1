"""Whole lives of a run with several owners: whatever is killed, stands still, is cut off or comes late, the laws hold.

`SEEDS` is how many lives; `SEED` the first of them, a new one each time unless it is given. What fails is lived again,
the same in each event, by the command that is printed.
"""

import os
import secrets

import pytest

from tests.workers.simulated.life import live
from tests.workers.simulated.plan import plan_of

SEEDS = int(os.environ.get("SEEDS", "20"))
SEED = int(os.environ.get("SEED", "0")) or secrets.randbelow(10**9)


def test_each_life_keeps_the_laws() -> None:
    """Rows, money, pace, fence: see `laws`."""
    failed: list[str] = []
    for seed in range(SEED, SEED + SEEDS):
        try:
            live(plan_of(seed))
        except Exception as error:  # noqa: BLE001 - all of them are told
            again = f"SEED={seed} SEEDS=1 python -m pytest -n0 tests/workers/test_simulation.py"
            notes = "\n".join(getattr(error, "__notes__", ()))
            failed.append(f"{again}\n{type(error).__name__}: {error}\n{notes}")
    if failed:
        pytest.fail(f"{len(failed)} of {SEEDS} lives:\n" + "\n\n".join(failed[:3]))
