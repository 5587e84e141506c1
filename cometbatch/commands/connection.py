"""How a job's requests get to the service: its key, whom to trust, the route; or the simulator in its place."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cometbatch.errors import JobError, did_you_mean
from cometbatch.job import Job
from cometbatch.simulator.behaviour import Behaviour, Fault
from cometbatch.simulator.catalog import MODEL_BY_ID
from cometbatch.transport import TlsSettings, describe_route
from cometbatch.transport.key import KeySource

if TYPE_CHECKING:
    import httpx

NO_KEY: Final = "sk-not-needed-here"
"""Stands where no key is needed: the simulator takes any, and the catalog is public."""


def api_key(job: Job) -> str:
    """The key, from where the job has it. Raises `UsageError`, never quoting it."""
    return NO_KEY if job.target.is_simulator else KeySource.of(job.target).read()


def tls_settings(job: Job) -> TlsSettings:
    """Whose certificates to trust, and which one to show."""
    target = job.target
    return TlsSettings(ca_file=target.ca_file, client_cert=target.client_cert, client_key=target.client_key)


def describe_connection(job: Job, http: "httpx.AsyncBaseTransport | None") -> str:
    """How requests get to the service, in a few words. Raises `UsageError` where they can't."""
    if job.target.is_simulator:
        return "to the simulator on this machine"
    if http is not None:
        return "through the transport that the caller handed in"
    return describe_route(job.target.base_url, tls_settings(job))


def simulator_behaviour(job: Job) -> Behaviour:
    """How the built-in simulator should behave for this job. Raises `JobError` where its settings make no sense."""
    settings = job.simulator
    model = None if job.batch is None else job.target.model  # which the file names, and nobody can change in the job
    if settings is None:
        return Behaviour(model=model)
    _refuse_unknown_models(job, settings.accuracy)
    try:
        return Behaviour(
            seed=settings.seed,
            latency_s=settings.latency_s,
            rps=settings.rps,
            faults=tuple(Fault(name, share) for name, share in settings.faults.items()),
            retry_after=settings.retry_after,
            model=model,
            accuracy=tuple(settings.accuracy.items()),
            spread=settings.spread,
        )
    except ValueError as error:
        raise JobError(f"{job.source_path or 'the job'}: simulator: {error}") from error


def _refuse_unknown_models(job: Job, models: Iterable[str]) -> None:
    """Raise `JobError` where the simulator is to be right as a model that it does not have: a slip of the pen."""
    known = [*MODEL_BY_ID, *(target.model for target in job.targets())]
    for model in models:
        if model not in known:
            near = did_you_mean(model, known) or f"the simulator has {', '.join(MODEL_BY_ID)}"
            raise JobError(f"{job.source_path or 'the job'}: simulator.accuracy: there is no model {model!r}; {near}")
