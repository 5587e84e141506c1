"""Fixtures of the end-to-end tests. No test finds a key in the environment that it did not put there itself."""

from pathlib import Path

import pytest

from tests.workbench import KEY_ENV, Workbench


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A folder with a table of twelve rows."""
    workbench = Workbench(tmp_path)
    workbench.write_rows(12)
    return workbench
