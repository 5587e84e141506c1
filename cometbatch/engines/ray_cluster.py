"""A cluster of Ray: our own, which is there for one run and on this machine alone, or the user's.

Guards: what Ray does to a process that connects, to its environment, signals and files, is undone or kept away.
"""

import contextlib
import functools
import importlib.util
import logging
import math
import os
import platform
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from cometbatch.errors import UsageError
from cometbatch.records import KEY_SHAPE
from cometbatch.version import VERSION

LOCAL: Final = "local"
"""The address that stands for a cluster of our own."""

CPUS: Final = 0.1  # of a worker: little, as it mostly waits; above 0, so that a node without CPUs for work gets none
STORE_BYTES: Final = 80 << 20  # of Ray's object store, about the least that it takes: we put nothing there
NOT_OURS: Final = ("RAY_ADDRESS", "RAY_RUNTIME_ENV_HOOK", "RAY_AUTH_TOKEN")
"""Variables by which a user tells of another cluster."""
USUAL: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": logging.ERROR}
"""What Ray is told on each cluster: to be quiet."""
CONNECT_S: Final = 5.0  # seconds until a cluster's address counts as one where nobody listens
MAX_FOLDER: Final = 35  # characters of the path of Ray's folder: a socket's path, below it, may have 103 on macOS


def loaded_ray() -> Any:
    """Ray, loaded when it is needed. Raises `UsageError` where it is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("The engine ray needs Ray. Install it: pip install 'cometbatch[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # it would send this whole folder to all nodes
    hook = sys.excepthook
    import ray  # noqa: PLC0415 - a third of a second, for those alone who use it

    sys.excepthook = hook
    return ray


@functools.cache
def _token() -> str:
    """What whoever talks to a cluster of our own must know: its ports listen on all addresses. One for a process."""
    return secrets.token_hex(32)


class Cluster:
    """The connection to a cluster: our own, or the user's, which goes on when we leave."""

    def __init__(self, address: str, workers: int, withheld: Collection[str]) -> None:
        self.address = address
        self._folder: str | None = None
        self._is_left = "ray" in sys.modules and loaded_ray().is_initialized()
        if self._is_left:  # whoever calls our functions has connected already, and needs it afterwards
            if address not in ("auto", loaded_ray().get_runtime_context().gcs_address):
                raise UsageError(f"This process is connected to another Ray cluster than {address}: say address: auto.")
            return
        if "://" in address:
            raise UsageError(f"Ray at {address}: run the command on a node of the cluster, with address: auto.")
        try:
            if address == LOCAL:
                self._start(workers, withheld)
            else:
                _connect_once(address)
                with _handling_kept():
                    loaded_ray().init(address=address, **USUAL)
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(f"The Ray cluster at {address} can't be reached or started: {why}") from error
        _print_nothing()

    def _start(self, workers: int, withheld: Collection[str]) -> None:
        self._folder = _short_folder()
        token = Path(self._folder, "token")
        token.write_text(_token())
        keys = [name for name, value in os.environ.items() if KEY_SHAPE.search(value)]
        changes = {
            **dict.fromkeys((*keys, *withheld, *NOT_OURS)),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_worker_niceness": "0",  # else the coordinator is late wherever anything else runs
        }
        with _handling_kept(), _environment(changes):  # Ray reads some of them as it is loaded
            loaded_ray().init(
                address=LOCAL,
                num_cpus=max(1, math.ceil(workers * CPUS)),  # Ray starts as many processes in advance
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=self._folder,
                **USUAL,
            )

    def room(self) -> int:
        """How many workers fit, whoever else is there now. Raises `UsageError` where not even one does."""
        alive = [each["Resources"] for each in loaded_ray().nodes() if each["Alive"]]
        room = sum(int(resources.get("CPU", 0) / CPUS + 1e-6) for resources in alive)
        if not room:
            raise UsageError(f"The Ray cluster at {self.address} has no node with CPUs for a worker.")
        return room

    def close(self) -> None:
        """Leave the cluster, or end it where it is our own."""
        if not self._is_left and "ray" in sys.modules:
            loaded_ray().shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _connect_once(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself tries for more than a minute."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_S).close()


def _short_folder() -> str:
    """A folder for Ray's files that only this user can read."""
    folder = tempfile.mkdtemp(prefix="cometbatch-")
    if len(folder) > MAX_FOLDER:
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix="cometbatch-", dir="/tmp")
    return folder


def _print_nothing() -> None:
    """Keep off stdout what Ray says of processes that have ended, in spite of `log_to_driver`: a summary goes there."""
    loaded_ray()._private.worker._worker_logs_enabled = False  # noqa: SLF001 - there is no other way


@contextlib.contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Variables have these values meanwhile, None is none: of this process, and of those that it starts."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _handling_kept() -> Iterator[None]:
    """What this process does at signals stays as it is, and Ray's processes don't hear the terminal."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# -- versions ----------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of what may differ between this process and another node's."""
    return {"cometbatch": VERSION, "pyarrow": pa.__version__, "python": platform.python_version()}


def compare_versions(found: dict[str, str]) -> str:
    """What to say of a worker's versions; "" for nothing. Raises `UsageError` where it can't work with this process."""
    if found["cometbatch"] != VERSION:
        raise other_version(found["cometbatch"])
    if found == versions():
        return ""
    ours, theirs = (", ".join(f"{name} {each}" for name, each in both.items()) for both in (versions(), found))
    return f"a worker has other versions than this process: {theirs}, not {ours}"


def other_version(found: str) -> UsageError:
    """The error where a node has another cometbatch than this process."""
    return UsageError(
        f"A node of the Ray cluster has another version of cometbatch ({found}) than this process ({VERSION}), so "
        f"nothing was sent. On each node: pip install 'cometbatch[ray]=={VERSION}'"
    )
