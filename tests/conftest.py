"""Fixtures of the end-to-end tests. No test finds a key in the environment that it did not put there itself.

`HYPOTHESIS_PROFILE=heavy` gives each property twenty times as many examples, for `.ci/weekly`.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.workbench import KEY_ENV, Workbench

HEAVY = "heavy"
TIMES_AS_MANY = 20
OWN_SETTINGS = "_hypothesis_internal_use_settings"  # where hypothesis keeps what the decorator of a test says

settings.register_profile(HEAVY, max_examples=TIMES_AS_MANY * settings().max_examples, deadline=None)
if os.environ.get("HYPOTHESIS_PROFILE") == HEAVY:
    settings.load_profile(HEAVY)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: Ctrl-C would never reach a test
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A profile leaves alone how many examples a test asks for itself, so these are raised here."""
    if settings.get_current_profile_name() != HEAVY:
        return
    holders = {(getattr(item, "obj", None), OWN_SETTINGS) for item in items}
    holders |= {(getattr(item, "cls", None), "settings") for item in items}  # of a state machine
    for holder, name in holders:
        own = getattr(holder, name, None)
        if isinstance(own, settings) and own.max_examples < settings().max_examples:
            setattr(holder, name, settings(own, max_examples=TIMES_AS_MANY * own.max_examples, deadline=None))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A folder with a table of twelve rows."""
    workbench = Workbench(tmp_path)
    workbench.write_rows(12)
    return workbench
