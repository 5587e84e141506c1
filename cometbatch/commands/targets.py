"""The targets of a run: which of them a job asks, at what price, and how rows become the requests of each."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import msgspec
from msgspec import Struct

from cometbatch.commands.checks import Checked, check_budget
from cometbatch.commands.row_maker import row_maker
from cometbatch.errors import UsageError
from cometbatch.job import Job, Target
from cometbatch.money.prices import meter
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import CallRequest, PriceBook, Usage
from cometbatch.run_state.manifest import Manifest, PricedTarget
from cometbatch.runner.row_maker import RowMaker
from cometbatch.service.catalog import find_books
from cometbatch.transport import Transport


class RowMakers(Struct, frozen=True):
    """How rows become requests, for each target of a run, and the columns that all of them together need."""

    makers: tuple[RowMaker, ...]
    columns: tuple[str, ...]


def row_makers(checked: Checked, targets: Sequence[PricedTarget] = ()) -> RowMakers:
    """The row makers of a run with these targets; of one that has not begun, that of the job's own target."""
    templates = {checked.target.messages: checked.template}
    asked = [_as_now(each.target, checked) for each in targets] or [checked.target]
    makers = []
    for number, target in enumerate(asked):
        template = templates.get(target.messages) or _compiled(target, checked)
        templates[target.messages] = template
        maker = row_maker(target, template, checked.source.columns, checked.job.input.id)
        makers.append(msgspec.structs.replace(maker, target=number))
    needed = {name for maker in (*makers, checked.row_maker()) for name in maker.columns}
    return RowMakers(tuple(makers), tuple(name for name in checked.source.columns if name in needed))


def _compiled(target: Target, checked: Checked) -> PromptTemplate:
    return target.prompt_template(refuse_empty=not checked.job.prompt.allow_empty)


def _as_now(target: Target, checked: Checked) -> Target:
    """A target of the run as this session asks it: a job may name the token cap by another name than before."""
    job = checked.target
    if target.fingerprint() == job.fingerprint():
        return job
    name = job.params.max_tokens_field
    if name == "auto" or target.model != job.model:
        return target
    return msgspec.structs.replace(target, params=msgspec.structs.replace(target.params, max_tokens_field=name))


async def added_targets(checked: Checked, manifest: Manifest, transport: Transport) -> list[PricedTarget]:
    """What a run gets that is to ask some rows again as the job says now; nothing where it has that target already.

    A model that the run has asked keeps its prices. Raises `UsageError` where the target can't be asked: before
    anything is sent or written.
    """
    job, target = checked.job, checked.target
    if manifest.number_of(target) is not None:
        return []
    books = {each.target.model: each.prices for each in manifest.targets}
    if (book := books.get(target.model)) is None:
        _refuse_other_models_prices(job, manifest)
        ((book, _),) = await find_books([(target.model, job.prices_of(target.model))], transport)
    check_budget(job, target, book)
    return [PricedTarget(target, book)]


def _refuse_other_models_prices(job: Job, manifest: Manifest) -> None:
    """Raise `UsageError` where the job gives a further model the very prices that the run's first model has."""
    then, now = manifest.job.get("prices"), job.describe()["prices"]
    if job.prices.is_own and then == now:
        first = manifest.targets[0].target.model
        raise UsageError(
            f"prices: these are the prices of {first}, and the rows are to be asked of {job.target.model}. Give "
            f"{job.target.model} its own, with --set prices.input=… --set prices.output=…, or take them from the "
            "catalog, with --set prices=catalog."
        )


def prices_of(
    books: Sequence[PriceBook],
) -> tuple[
    Callable[[CallRequest, Usage], Decimal | None], Callable[[CallRequest, int, int | None, bool], Decimal | None]
]:
    """What a call's answer costs, and what an attempt of it costs at most, by the price book of its target."""
    meters = [meter(book.rates) for book in books]
    first = meters[0]
    if len(meters) == 1:
        return (
            lambda _call, usage: first.cost(usage),
            lambda _call, inputs, outputs, hour: first.max_cost(inputs, outputs, writes_for_an_hour=hour),
        )
    return (
        lambda call, usage: meters[call.target].cost(usage),
        lambda call, inputs, outputs, hour: meters[call.target].max_cost(inputs, outputs, writes_for_an_hour=hour),
    )
