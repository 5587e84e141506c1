"""What tests of workers share. Those that look at processes need `/proc`, and are skipped where there is none."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HAS_PROC = Path("/proc/self/environ").exists()
NEED_PROC = ("test_local_workers.py", "test_worker_runs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what can't look at processes here, with a word."""
    for item in items:
        if not HAS_PROC and item.path.name in NEED_PROC:
            item.add_marker(pytest.mark.skip(reason="there is no /proc here to look at processes"))


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder, for this process and those that it starts, with nothing in it.

    Its path is short: a socket lies elsewhere where the path of this folder is longer than a socket's may be, as that
    of a test's own folder is.
    """
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)
