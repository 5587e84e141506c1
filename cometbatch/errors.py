"""Exceptions are for the run: each says what happened, where, and what to do about it.

A row's failure is a value (`records.Failure`), never an exception.
"""

from typing import ClassVar


class CometbatchError(Exception):
    """Anything that this package raises on purpose. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(CometbatchError):
    """The call, the job or the input is wrong; nothing was sent."""

    exit_code: ClassVar[int] = 2


class JobError(UsageError):
    """The job file can't be read or says something that can't be carried out."""


class InputError(UsageError):
    """The input table can't be read as it stands; the message names file, line and reason."""


class InputLostError(CometbatchError):
    """The input changed or vanished while a run was reading it; what was answered is recorded."""


class DriftError(UsageError):
    """The job or its input changed since the run began, so its answers would not fit together."""


class CheckpointError(CometbatchError):
    """The run directory holds something that this run did not write, or can't be read back."""


class RunLockedError(CometbatchError):
    """Another process is carrying out the same run."""

    exit_code: ClassVar[int] = 6
