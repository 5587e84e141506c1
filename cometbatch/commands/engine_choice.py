"""Who sends the calls of a session: this process alone, processes of this machine, or actors of a cluster of Ray."""

import importlib.util
import os
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from cometbatch.commands.options import Options
from cometbatch.errors import UsageError
from cometbatch.job import Job
from cometbatch.job.engine import AUTO, LOCAL, MAX_WORKERS, EngineName, RaySettings, Workers

ENGINES: Final[tuple[EngineName, ...]] = ("local", "ray")
ALONE: Final = "--workers 1 (in Python: workers=1)"
"""How a run is told to send everything from one process, also where its job says otherwise."""


class EngineChoice(Struct, frozen=True):
    """Who sends. `workers`: processes at most. `address`: of the cluster, for Ray."""

    name: EngineName = "local"
    workers: int = 1
    address: str = LOCAL

    @property
    def is_plain(self) -> bool:
        """Whether this process sends everything by itself."""
        return self.name == "local" and self.workers == 1


def choose_engine(job: Job, options: Options) -> EngineChoice:
    """Who sends, by the caller's options, then by the job.

    Raises `UsageError` for what is no number of workers, for an engine that is not installed, and for what several
    workers can't do.
    """
    if options.engine is not None and options.engine not in ENGINES:
        raise UsageError(f"--engine: {options.engine!r} is none of {', '.join(ENGINES)}.")
    name: EngineName = options.engine or ("local" if job.engine.ray is None else "ray")
    ray = (job.engine.ray or RaySettings()) if name == "ray" else None
    asked = options.workers
    if asked is None and ray is not None:
        asked = ray.workers
    choice = EngineChoice(
        name, _number(job.engine.workers if asked is None else asked, ray), LOCAL if ray is None else ray.address
    )
    if not choice.is_plain and (words := next(_refused(job, options), None)):
        raise UsageError(words)
    if ray is not None and importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--engine ray: Ray is not installed. Install it with: pip install 'cometbatch[ray]'\n"
            "Or leave it out: --engine local runs the workers as processes of this machine, and needs nothing more."
        )
    return choice


def _number(asked: Workers, ray: RaySettings | None) -> int:
    if asked == AUTO:
        if ray is not None and ray.address != LOCAL:
            raise UsageError(
                "--workers auto: the cores of a cluster that is there already are not ours to count. Say how many "
                f"workers it is to run: a number from 1 to {MAX_WORKERS}."
            )
        return min(MAX_WORKERS, cores())
    if type(asked) is not int or not 1 <= asked <= MAX_WORKERS:
        raise UsageError(
            f"--workers: {asked!r} is no number of workers; write a number from 1 to {MAX_WORKERS}, or auto."
        )
    return asked


def cores() -> int:
    """How many cores this process may use."""
    counted = getattr(os, "process_cpu_count", None)  # from Python 3.13 on
    if counted is not None:
        return counted() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _refused(job: Job, options: Options) -> Iterator[str]:
    """What several workers can't do, with the ways out."""
    if options.update:
        yield f"--update: {_TAKES} Use {ALONE} for this run."
    if job.reuse is not None:
        yield f"reuse: {_TAKES} Use {ALONE}, or leave it out with --set reuse=false."
    if job.dedupe:
        yield (
            "dedupe: with several workers, rows that ask the same may be sent by different ones, which do not wait for "
            f"each other. Use {ALONE}, or send each row with --set dedupe=false."
        )
    if options.http is not None:
        yield f"http: workers are processes of their own, which a transport of this one can't reach. Use {ALONE}."
    if options.limits is not None:
        yield (
            f"limits: a rate and a budget that several runs of this process share are not shared with workers. "
            f"Use {ALONE}, or give each job its own section limits and budget."
        )


_TAKES: Final = "answers of earlier runs are taken by one process alone, so that each is taken once."
