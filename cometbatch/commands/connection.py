"""How a job's requests get to the service: its key, whom to trust, the route; or the simulator in its place."""

from typing import TYPE_CHECKING, Final

from cometbatch.errors import JobError
from cometbatch.job import Job
from cometbatch.simulator.behaviour import Behaviour, Fault
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
    try:
        return Behaviour(
            seed=settings.seed,
            latency_s=settings.latency_s,
            rps=settings.rps,
            faults=tuple(Fault(name, share) for name, share in settings.faults.items()),
            retry_after=settings.retry_after,
            model=model,
        )
    except ValueError as error:
        raise JobError(f"{job.source_path or 'the job'}: simulator: {error}") from error
