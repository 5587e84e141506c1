"""Run every row of a table through a language model, and get a table back.

    import cometbatch

    job = cometbatch.load_job("job.yaml")
    print(cometbatch.plan(job).describe())      # checks everything, sends no prompt
    summary = cometbatch.run(job)               # resumes where a killed run stopped
    print(summary.succeeded, summary.cost_usd)

A map of the package, a folder for each concern, imports running downwards only:

    cli, process               commands -> the functions of the same names -> exit codes; settings of the command
    commands/                  one file for each command; the progress line
    reports/, reports/page/    a leaderboard's figures and words; the HTML page of `report`
    evaluation/                scorers and statistics
    engines/                   a run's session on an event loop
    runner/, simulator/        the loop; a service as awkward as the real one
    service/                   what the service tells of itself: the catalog
    transport/, limiting/      over the wire, the only place that knows the key; the only owner of aiolimiter
    run_state/                 what a run knows of itself: directory, manifest, journals, partitions
    job/                       what is asked: job.yaml and mappings
    wire/, control/, results/  how it is said; how fast, how long, whose fault; what comes out
    prompt/, money/, input/    what is said; what it costs; what comes in
    store/                     how files are written: aside, synced, renamed
    records, errors            the words; how a run can fail
"""

import importlib

from cometbatch.version import VERSION as __version__  # noqa: N811

TYPE_CHECKING = False  # as in `typing`, which takes several milliseconds to load; type checkers know the name
if TYPE_CHECKING:
    from cometbatch.commands.compare import compare as compare
    from cometbatch.commands.export import Export as Export
    from cometbatch.commands.export import export as export
    from cometbatch.commands.init import JobBegun as JobBegun
    from cometbatch.commands.init import init as init
    from cometbatch.commands.judge import judge as judge
    from cometbatch.commands.judge import plan_judge as plan_judge
    from cometbatch.commands.judge_summary import JudgePlan as JudgePlan
    from cometbatch.commands.judge_summary import JudgeSummary as JudgeSummary
    from cometbatch.commands.map import map as map  # noqa: A004
    from cometbatch.commands.models import ModelList as ModelList
    from cometbatch.commands.models import models as models
    from cometbatch.commands.plan import plan as plan
    from cometbatch.commands.report import ReportFile as ReportFile
    from cometbatch.commands.report import report as report
    from cometbatch.commands.report_watch import watch_report as watch_report
    from cometbatch.commands.run import run as run
    from cometbatch.commands.run import run_async as run_async
    from cometbatch.commands.run_plan import RunPlan as RunPlan
    from cometbatch.commands.schema import schema as schema
    from cometbatch.commands.score import ScoreSummary as ScoreSummary
    from cometbatch.commands.score import score as score
    from cometbatch.commands.show import Shown as Shown
    from cometbatch.commands.show import show as show
    from cometbatch.commands.status import RunStatus as RunStatus
    from cometbatch.commands.status import status as status
    from cometbatch.commands.verify import verify as verify
    from cometbatch.commands.verify_report import Verification as Verification
    from cometbatch.errors import CatalogError as CatalogError
    from cometbatch.errors import CheckpointError as CheckpointError
    from cometbatch.errors import CometbatchError as CometbatchError
    from cometbatch.errors import DriftError as DriftError
    from cometbatch.errors import InputError as InputError
    from cometbatch.errors import InputLostError as InputLostError
    from cometbatch.errors import JobError as JobError
    from cometbatch.errors import RunLockedError as RunLockedError
    from cometbatch.errors import UsageError as UsageError
    from cometbatch.evaluation.scorers.scores import Score as Score
    from cometbatch.job import Job as Job
    from cometbatch.job import load_job as load_job
    from cometbatch.limiting.shared import Limits as Limits
    from cometbatch.records import Answered as Answered
    from cometbatch.records import Completion as Completion
    from cometbatch.records import Failed as Failed
    from cometbatch.records import Failure as Failure
    from cometbatch.records import Outcome as Outcome
    from cometbatch.records import Usage as Usage
    from cometbatch.reports.board import Figures as Figures
    from cometbatch.results.summary import BudgetReachedError as BudgetReachedError
    from cometbatch.results.summary import HungUpRunError as HungUpRunError
    from cometbatch.results.summary import InterruptedRunError as InterruptedRunError
    from cometbatch.results.summary import RunStoppedError as RunStoppedError
    from cometbatch.results.summary import RunSummary as RunSummary
    from cometbatch.results.summary import ServiceRefusedError as ServiceRefusedError
    from cometbatch.results.summary import TerminatedRunError as TerminatedRunError
    from cometbatch.simulator.behaviour import FAULTS as FAULTS
    from cometbatch.simulator.behaviour import Behaviour as Behaviour
    from cometbatch.simulator.behaviour import parse_accuracy as parse_accuracy
    from cometbatch.simulator.behaviour import parse_fault as parse_fault
    from cometbatch.simulator.behaviour import parse_latency as parse_latency
    from cometbatch.simulator.knowledge import right_answer as right_answer
    from cometbatch.simulator.server import serve

    simulate = serve

_ONLY_ON_UNIX = ("fcntl", "resource")  # modules of Python that a run needs

# Loaded at first use: `cometbatch --help` and code that needs one name should not pay for pyarrow and httpx.
_HOMES = {
    "commands.compare": ("compare",),
    "commands.export": ("Export", "export"),
    "commands.judge": ("judge", "plan_judge"),
    "commands.judge_summary": ("JudgePlan", "JudgeSummary"),
    "commands.report": ("ReportFile", "report"),
    "commands.report_watch": ("watch_report",),
    "commands.run": ("run", "run_async"),
    "commands.score": ("ScoreSummary", "score"),
    "commands.show": ("Shown", "show"),
    "errors": (
        "CatalogError", "CheckpointError", "CometbatchError", "DriftError", "InputError", "InputLostError", "JobError",
        "RunLockedError", "UsageError",
    ),
    "evaluation.scorers.scores": ("Score",),
    "job": ("Job", "load_job"),
    "limiting.shared": ("Limits",),
    "commands.map": ("map",),
    "commands.init": ("JobBegun", "init"),
    "commands.models": ("ModelList", "models"),
    "commands.plan": ("plan",),
    "commands.run_plan": ("RunPlan",),
    "commands.schema": ("schema",),
    "records": ("Answered", "Completion", "Failed", "Failure", "Outcome", "Usage"),
    "reports.board": ("Figures",),
    "commands.status": ("RunStatus", "status"),
    "simulator.behaviour": ("FAULTS", "Behaviour", "parse_accuracy", "parse_fault", "parse_latency"),
    "simulator.knowledge": ("right_answer",),
    "simulator.server": ("serve",),
    "results.summary": (
        "BudgetReachedError", "HungUpRunError", "InterruptedRunError", "RunStoppedError", "RunSummary",
        "ServiceRefusedError", "TerminatedRunError",
    ),
    "commands.verify": ("verify",),
    "commands.verify_report": ("Verification",),
}  # fmt: skip
_HOME_OF = {name: (module, name) for module, names in _HOMES.items() for name in names}
_HOME_OF["simulate"] = _HOME_OF.pop("serve")  # named like its command

__all__ = [*sorted(_HOME_OF), "__version__"]  # noqa: PLE0604 - the names are strings, made from the table above


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME_OF[name]
    try:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    except ModuleNotFoundError as error:
        if error.name not in _ONLY_ON_UNIX:
            raise
        errors = importlib.import_module(f"{__name__}.errors")
        raise errors.UsageError(errors.WRONG_SYSTEM) from error
    globals()[name] = value
    return value
