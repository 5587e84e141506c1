"""A run directory that several processes write into: what the driver does before they start, and after they ended.

Guards: no worker begins on a folder that is not the driver's, or that can't say which of two parts came first; a
program that does not know workers' files never takes such a run for one without answers.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from cometbatch.errors import UsageError
from cometbatch.run_state.directory import NONCE, RunDirectory
from cometbatch.run_state.manifest import WORKERS_NEED
from cometbatch.run_state.names import GRANTS
from cometbatch.run_state.run import Run, with_manifest
from cometbatch.store import local

NONCE_TRIES: Final = 5  # reads of the nonce: a folder of another machine may show a new file late
NONCE_WAIT_S: Final = 0.1  # seconds between two of them


def share(run: Run) -> tuple[Run, str]:
    """Make the directory ready for workers; returns the run, and the nonce that each of them must find there.

    Each step may be repeated. Raises `UsageError` where this disk can't give a file a second name, so that nothing
    could tell which of two parts came first, and `CheckpointError` where it refuses.
    """
    directory = run.directory
    for folder in (directory.parts.within, directory.owners.committed):
        with local.naming(folder, "this folder can't be made"):
            local.make_folder(folder)
    _refuse_without_links(directory.parts.within, directory.parts.folder)
    if WORKERS_NEED not in run.manifest.needs:
        needs = (*run.manifest.needs, WORKERS_NEED)
        run = with_manifest(run, msgspec.structs.replace(run.manifest, needs=needs))
    _forget_grants(directory)
    nonce = secrets.token_hex(16)
    local.write_bytes(directory.path / NONCE, nonce.encode())
    return run, nonce


def unshare(directory: RunDirectory) -> None:
    """Tidy up once no worker is left: the data set names all parts. Raises `CheckpointError` where the disk refuses."""
    directory.parts.link_all()
    _forget_grants(directory)
    local.remove(directory.path / NONCE)


def grants_file(directory: RunDirectory, session: int) -> Path:
    """Where the coordinator of a session writes down what one that takes its place has to know."""
    return directory.path / f"grants.{session}.jsonl"


def _forget_grants(directory: RunDirectory) -> None:
    for name in filter(GRANTS.fullmatch, local.entries(directory.path)):
        local.remove(directory.path / name)


def check_nonce(directory: RunDirectory, nonce: str, wait: Callable[[float], None] = time.sleep) -> None:
    """For a worker, before it does anything: whether it sees the driver's folder, and not one of the same name.

    Raises `UsageError` where it does not, `CheckpointError` where it can't look.
    """
    found = None
    for attempt in range(NONCE_TRIES):
        if attempt:
            wait(NONCE_WAIT_S)
        found = local.content(directory.path / NONCE, None)
        if found == nonce.encode():
            return
    what = "is not there" if found is None else "is another folder"
    raise UsageError(
        f"{directory.path}: this run directory {what} on {socket.gethostname()}, where a worker was to use it. All "
        "workers need the folder that the command itself writes into, under the same path: put output.path on a disk "
        "that all machines share, or run with workers on this machine alone."
    )


def _refuse_without_links(source: Path, folder: Path) -> None:
    """Raise `UsageError` where a file of one folder can't get a second name in the other."""
    one, other = local.staged(source / "00000.part", "0-1"), local.staged(folder / "00000.parquet", "0-2")
    with local.naming(source, "can't be written"):
        one.touch()
        try:
            other.unlink(missing_ok=True)
            os.link(one, other)
        except OSError as error:
            raise UsageError(
                f"output.path: a file of {source} can't get a second name in {folder} ({error.strerror}), which "
                "workers need, so that of two that finish the same rows one comes first. Put both folders on one disk "
                "that has hard links, or run without workers."
            ) from error
        finally:
            one.unlink(missing_ok=True)
            other.unlink(missing_ok=True)
