"""A cluster of Ray, as far as it can be told without one: tests with one are in `tests/ray_engine`."""

import os
import signal
import socket
import sys

import pytest

from cometbatch.engines import ray_cluster
from cometbatch.engines.ray_cluster import Cluster, compare_versions, loaded_ray, versions
from cometbatch.errors import UsageError
from cometbatch.version import VERSION


def test_a_worker_of_another_version_gets_no_work() -> None:
    """The message says which versions differ and what to run on each node."""
    with pytest.raises(UsageError, match=rf"another version of cometbatch \(0\.0\.1\).*cometbatch\[ray\]=={VERSION}'"):
        compare_versions({**versions(), "cometbatch": "0.0.1"})


def test_a_worker_with_another_library_works_and_is_told_of() -> None:
    """Other versions of what it reads and writes files with can matter to a person, and stop nothing."""
    assert compare_versions(versions()) == ""
    assert "pyarrow 16.0.0" in compare_versions({**versions(), "pyarrow": "16.0.0"})


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and most have no use for it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'cometbatch\[ray\]'"):
        loaded_ray()


def test_what_is_hidden_from_ray_is_there_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is in no environment that a process of the cluster is started with, and in ours once they are."""
    monkeypatch.setenv("A_KEY", "secret")
    monkeypatch.delenv("OF_OURS", raising=False)
    with ray_cluster._environment({"A_KEY": None, "OF_OURS": "token"}):
        assert ("A_KEY" in os.environ, os.environ["OF_OURS"]) == (False, "token")
    assert (os.environ["A_KEY"], "OF_OURS" in os.environ) == ("secret", False)


def test_what_this_process_does_at_a_signal_stays_as_it_is() -> None:
    """Ray puts a handler of its own for SIGTERM; and a signal that comes meanwhile is only late."""
    before, heard = signal.getsignal(signal.SIGTERM), []
    own = signal.signal(signal.SIGINT, lambda *_: heard.append("SIGINT"))
    try:
        with ray_cluster._handling_kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            signal.raise_signal(signal.SIGINT)
            assert heard == []
        assert (heard, signal.getsignal(signal.SIGTERM)) == (["SIGINT"], before)
    finally:
        signal.signal(signal.SIGINT, own)


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    """Ray itself would try for more than a minute, and then end the process."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"The Ray cluster at {address} can't be reached"):
            Cluster(address, 2, [])


def test_a_client_of_ray_far_away_is_refused() -> None:
    """The coordinator runs beside the command, where its word reaches it within a second."""
    with pytest.raises(UsageError, match="run the command on a node of the cluster"):
        Cluster("ray://127.0.0.1:10001", 2, [])
