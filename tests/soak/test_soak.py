"""Some seconds of the soak in every test run; CI gives it a minute, and a seed of its own each time."""

from tests.soak.soak import soak

SECONDS = 6.0
SEED = 1


def test_runs_under_random_signals_end_right() -> None:
    """Each row once, with its own answer and cost; little is answered twice; no stray file or process."""
    assert soak(SECONDS, SEED) > 0
