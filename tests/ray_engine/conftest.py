"""Each test here runs in a process of its own, whose network has loopback alone: Ray's ports are nobody else's."""

import importlib.util
import os
import subprocess
import sys
from typing import Final

import pytest

from tests.ray_engine.namespace import entering

INSIDE: Final = "IN_A_NETWORK_OF_ITS_OWN"
LIMIT_S: Final = 600  # seconds that a test may take


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test by itself, within such a network; skip it, with a word, where there is none to be had."""
    if os.environ.get(INSIDE):
        return None
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    words = entering()
    if words is None:
        pytest.skip("no network of its own can be had here, and Ray may listen on all addresses")
    command = [*words, sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    done = subprocess.run(
        command,
        env={**os.environ, INSIDE: "yes"},
        cwd=pyfuncitem.config.rootpath,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{done.stdout}\n{done.stderr}", pytrace=False)
    return True
