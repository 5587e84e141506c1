"""What `plan` and `run` refuse before the first request: a job whose input, templates, names and budget do not fit."""

from collections.abc import Collection, Iterator

from msgspec import Struct

from cometbatch import wire
from cometbatch.commands.connection import simulator_behaviour
from cometbatch.commands.row_maker import row_maker
from cometbatch.control.bounds import describe_unbounded
from cometbatch.errors import UsageError
from cometbatch.input import table as source
from cometbatch.input.files import Identity
from cometbatch.input.table import Source
from cometbatch.job import Job, Target
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import PriceBook
from cometbatch.results import columns as output
from cometbatch.run_state.partition_size import suggest_partition_rows
from cometbatch.runner.row_maker import RowMaker
from cometbatch.service.catalog import CatalogProblem
from cometbatch.transport.key import holds_key
from cometbatch.wire.request_extra import template_marks, unkept


class Checked(Struct, frozen=True):
    """A job whose input, templates and names have been found to fit together."""

    job: Job
    source: Source
    target: Target
    template: PromptTemplate
    format: wire.WireFormat

    def row_maker(self) -> RowMaker:
        """How rows of this job become requests."""
        return row_maker(self.target, self.template, self.source.columns, self.job.input.id)


def check(job: Job) -> Checked:
    """Check what any session of a job needs, without a full read of its input. Raises `UsageError`."""
    refuse_key(job)
    if job.target.is_simulator:
        simulator_behaviour(job)
    opened = source.open_source(job.input.path, encoding=job.input.encoding, delimiter=job.input.delimiter)
    (target,) = job.targets()
    template = job.prompt_template_for(target, opened.columns)
    if job.input.id is not None and job.input.id not in opened.columns:
        raise UsageError(f"input.id: there is no column {job.input.id!r}; there are {', '.join(opened.columns)}.")
    return Checked(job, opened, target, template, wire.FORMATS[target.format])


def refuse_key(job: Job) -> None:
    """Raise `UsageError` where a text of the job holds the very key, which would go into files and messages."""
    for section, value in job.describe().items():
        if holds_key(value, job.target.key_env):
            name = "prompt" if section == "messages" else section
            raise UsageError(
                f"{name}: this holds the API key that {job.target.key_env} is set to. Nothing was written or sent: "
                "take it out, the key is read from the environment alone."
            )


def refuse_clashes(checked: Checked) -> None:
    """Raise `UsageError` where a new run's columns would be named like the input's.

    A run that is resumed was checked when it began. Its prefix can't be changed any more, so columns that this program
    adds are not held against it.
    """
    job = checked.job
    columns = output.columns_for(job.asked_columns)
    if clashes := output.clashes(checked.source.columns, job.output.prefix, columns):
        raise UsageError(
            f"{job.input.path}: the input has columns named like the output's: {', '.join(clashes)}. "
            "Set output.prefix (for example to out_) to tell them apart."
        )


def check_budget(job: Job, target: Target, prices: PriceBook) -> None:
    """Raise `UsageError` where the job's budget could not be held: no price, no cap on an answer, input not ours."""
    if job.budget.max_cost_usd is None:
        return
    if not job.budget.allow_unbounded and (added := describe_unbounded(target.params.extra)):
        raise UsageError(
            f"budget: the service may add input that is billed beyond what is sent, by {added}, so a budget can't be "
            "held. Take it out, or set budget.allow_unbounded: true to run all the same."
        )
    if job.budget.allow_unpriced:
        return
    if prices.rates is None:
        unread = prices.unread_catalog
        reason = f"there is no price for {prices.model}" if unread is None else str(CatalogProblem(unread))
        raise UsageError(
            f"budget: {reason}, so a budget can't be held. Set prices, or budget.allow_unpriced: true to go without."
        )
    if target.params.max_output_tokens is None and prices.rates.per_request is None:
        raise UsageError("budget: without params.max_output_tokens an answer has no highest cost. Set it.")


def partition_rows(checked: Checked, identity: Identity) -> int:
    """How many rows a partition of a new run has: fewer where whole replies are kept beside the answers."""
    output_settings, cap = checked.job.output, checked.target.params.max_output_tokens
    kept = 1 + output_settings.raw + output_settings.reasoning
    return output_settings.partition_rows or suggest_partition_rows(identity, None if cap is None else cap * kept)


def describe_extra(job: Job) -> Iterator[str]:
    """What whoever pays should know of `params.extra`: marks that are no template there, and what is not kept."""
    for path, shown in template_marks(job.params.extra):
        yield f"params.extra.{path} holds {shown}: params.extra is no template, so it is sent as it stands"
    for path, setting in unkept(job.params.extra):
        if not job.output.raw and not (setting == "reasoning" and job.output.reasoning):
            yield (
                f"params.extra.{path} is asked for and paid, but not kept: set output.{setting}: true to have it in a "
                f"column `{setting}`"
            )


def describe_missing_columns(job: Job, columns: Collection[str]) -> Iterator[str]:
    """Which columns the job asks for that a run has not: it keeps those that it began with."""
    for name in sorted(job.asked_columns.difference(columns)):
        yield f"the run began without a column `{name}`, so it has none; to have it, begin anew with --fresh"
