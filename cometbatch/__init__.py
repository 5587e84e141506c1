"""Run every row of a table through a language model, and get a table back.

    import cometbatch

    job = cometbatch.load_job("job.yaml")
    print(cometbatch.plan(job).describe())      # checks everything, sends nothing
    summary = cometbatch.run(job)               # carries on where a killed run stopped
    print(summary.succeeded, summary.cost_usd)

A map of the package, imports running downwards only:

    cli                             commands -> the functions of the same names below -> exit codes
    batch, planning, report, verification    composition: run; plan; status; verify
    preflight, resume, reopen       what is checked before; what earlier sessions left; what is taken back from it
    runner, partition, evidence     the loop; the life of a partition; what a finished row says against itself
    source, checkpoint, parts, limits, transport, progress, loop, simulator    adapters, each owning one outside thing
    job, manifest, summary          what is asked; what a run is; what it came to
    template, wire, retry, doubt, pacing, latency, sustained, budget, pricing, output    no I/O, no clock, no chance
    records, errors, money          the words; how amounts are added
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cometbatch.batch import run as run
    from cometbatch.batch import run_async as run_async
    from cometbatch.errors import CheckpointError as CheckpointError
    from cometbatch.errors import CometbatchError as CometbatchError
    from cometbatch.errors import DriftError as DriftError
    from cometbatch.errors import InputError as InputError
    from cometbatch.errors import JobError as JobError
    from cometbatch.errors import RunLockedError as RunLockedError
    from cometbatch.errors import UsageError as UsageError
    from cometbatch.job import Job as Job
    from cometbatch.job import load_job as load_job
    from cometbatch.planning import RunPlan as RunPlan
    from cometbatch.planning import plan as plan
    from cometbatch.records import Completion as Completion
    from cometbatch.records import Failed as Failed
    from cometbatch.records import Failure as Failure
    from cometbatch.records import Incomplete as Incomplete
    from cometbatch.records import Outcome as Outcome
    from cometbatch.records import Succeeded as Succeeded
    from cometbatch.records import Usage as Usage
    from cometbatch.report import RunStatus as RunStatus
    from cometbatch.report import status as status
    from cometbatch.simulator.behaviour import FAULTS as FAULTS
    from cometbatch.simulator.behaviour import Behaviour as Behaviour
    from cometbatch.simulator.behaviour import parse_fault as parse_fault
    from cometbatch.simulator.behaviour import parse_latency as parse_latency
    from cometbatch.simulator.server import serve
    from cometbatch.summary import RunStoppedError as RunStoppedError
    from cometbatch.summary import RunSummary as RunSummary
    from cometbatch.verification import Verification as Verification
    from cometbatch.verification import verify as verify

    simulate = serve

__version__ = "0.1.0"

# Loaded at first use: `cometbatch --help` and code that needs one name should not pay for pyarrow and httpx.
_HOMES = {
    "batch": ("run", "run_async"),
    "errors": (
        "CheckpointError", "CometbatchError", "DriftError", "InputError", "JobError", "RunLockedError", "UsageError",
    ),
    "job": ("Job", "load_job"),
    "planning": ("RunPlan", "plan"),
    "records": ("Completion", "Failed", "Failure", "Incomplete", "Outcome", "Succeeded", "Usage"),
    "report": ("RunStatus", "status"),
    "simulator.behaviour": ("FAULTS", "Behaviour", "parse_fault", "parse_latency"),
    "simulator.server": ("serve",),
    "summary": ("RunStoppedError", "RunSummary"),
    "verification": ("Verification", "verify"),
}  # fmt: skip
_HOME_OF = {name: (module, name) for module, names in _HOMES.items() for name in names}
_HOME_OF["simulate"] = _HOME_OF.pop("serve")  # named like its command

__all__ = [*sorted(_HOME_OF), "__version__"]  # noqa: PLE0604 - the names are strings, made from the table above


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME_OF[name]
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value
