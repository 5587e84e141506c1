"""The targets of a run: which of them a job asks, at what price, and how rows become the requests of each."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal

import msgspec
from msgspec import Struct

from cometbatch.commands.checked import Checked, prompt_key
from cometbatch.commands.checks import check_budget
from cometbatch.commands.row_maker import Maker, images_for, row_maker
from cometbatch.commands.row_variants import model_in
from cometbatch.errors import UsageError
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.job import Job, Target
from cometbatch.job.keys import MAX_MODELS
from cometbatch.job.matrix import digest_of, sample_of
from cometbatch.job.targets import Template
from cometbatch.job.tree import WrongError
from cometbatch.money.prices import meter
from cometbatch.records import CallRequest, Failure, PriceBook, Usage
from cometbatch.run_state.manifest import NEEDS_RESPONSE, TARGETS_NEED, WHOLE_REQUESTS, Manifest, PricedTarget, Slice
from cometbatch.runner.images import Images
from cometbatch.service.catalog import find_books
from cometbatch.transport import Transport

SCANNED_ROWS: Final = 2_048  # of the input, in memory at a time
MODELS_TOLD: Final = 10  # warnings about prices of models that rows name; the others are counted


class RowMakers(Struct, frozen=True):
    """How rows become requests, for each target of a run, and the columns that all of them together need.

    `of_slices`: the same for each slice, since samples of a cell may have seeds of their own.
    """

    makers: tuple[Maker, ...]
    columns: tuple[str, ...]
    of_slices: tuple[Maker, ...] = ()

    @property
    def images(self) -> Images | None:
        """Where the images of prompts come from; None where no target's prompts have any."""
        return next((maker.images for maker in self.makers if maker.images is not None), None)

    @property
    def reads_files(self) -> bool:
        """Whether requests are made of files, too."""
        return self.images is not None


def row_makers(
    checked: Checked, targets: Sequence[PricedTarget], slices: Sequence[Slice] = (), *, opens_images: bool = True
) -> RowMakers:
    """The row makers of a run with these targets and slices.

    `opens_images`: else images are counted, and no file is opened.
    """
    templates = dict(checked.templates)
    refused, cells = _refused(checked.job, targets), {cell.digest: cell.target for cell in checked.job.cells()}
    asked = [_as_now(each.target, checked, cells) for each in targets]
    numbers = _numbers(targets)

    def made(target: Target, number: int) -> Maker:
        template = templates.get(prompt_key(target)) or _compiled(target, checked)
        templates[prompt_key(target)] = template
        images = images_for(checked.job, target)
        if images is not None and not opens_images:
            images = images.blind()
        columns, id_column = checked.source.columns, checked.job.input.id
        maker = row_maker(target, template, columns, id_column, images, numbers=numbers[number], refused=refused)
        return msgspec.structs.replace(maker, target=number)

    makers = [made(target, number) for number, target in enumerate(asked)]
    of_slices = []
    for each in slices:
        target, sampled = asked[each.target], sample_of(asked[each.target], each.sample)
        of_slices.append(makers[each.target] if sampled == target else made(sampled, each.target))
    needed = {name for maker in (*makers, checked.row_maker()) for name in maker.columns}
    return RowMakers(tuple(makers), tuple(name for name in checked.source.columns if name in needed), tuple(of_slices))


def _compiled(target: Target, checked: Checked) -> Template:
    return target.prompt_template(refuse_empty=not checked.job.prompt.allow_empty)


def _as_now(target: Target, checked: Checked, cells: Mapping[str, Target]) -> Target:
    """A target of the run as this session asks it: a job may name the token cap by another name than before.

    `cells`: the targets of the job's cells, by digest.
    """
    if checked.job.matrix is not None:
        return cells.get(digest_of(target), target)
    job = checked.target
    if target.fingerprint() == job.fingerprint():
        return job
    name = job.params.max_tokens_field
    if name == "auto" or target.model != job.model:
        return target
    return msgspec.structs.replace(target, params=msgspec.structs.replace(target.params, max_tokens_field=name))


def _numbers(targets: Sequence[PricedTarget]) -> list[dict[str, int]]:
    """For each target the numbers of those that differ from it by their model alone, by that; itself included.

    Only where rows name their own models are there others.
    """
    families: dict[object, dict[str, int]] = {}
    found = []
    for number, each in enumerate(targets):
        asked = each.target.fingerprint() | {"target.model": ""}
        family = msgspec.json.encode(asked) if each.target.model_column is not None else number
        found.append(families.setdefault(family, {}))
        found[-1].setdefault(each.target.model, number)
    return found


def _refused(job: Job, targets: Sequence[PricedTarget]) -> dict[str, Failure]:
    """Why rows that name these models are not sent: under a budget, no request without a price is."""
    if job.budget.max_cost_usd is None or job.budget.allow_unpriced:
        return {}
    words = "no price is known for the model {}, and under budget.max_cost_usd nothing without a price is sent"
    unpriced = [each.prices.model for each in targets if each.prices.rates is None]
    return {model: Failure("model_not_found", words.format(model)) for model in unpriced}


# -- which there are ---------------------------------------------------------------------------------------------------


def models_asked(checked: Checked, identity: Identity) -> list[str]:
    """The job's own model, then those that rows name themselves, in the order of the rows.

    Reads the whole input where there are such. Raises `UsageError` where there are more than `MAX_MODELS`.
    """
    target, column = checked.target, checked.target.model_column
    models = {target.model: None}
    if column is None:
        return list(models)
    for table in checked.source.tables(identity, partitions(identity.rows, SCANNED_ROWS)):
        for values in row_values(table, [column]):
            try:
                models.setdefault(model_in(values[column], target) or target.model)
            except WrongError:
                continue  # such a row fails by itself
        if len(models) > MAX_MODELS:
            raise UsageError(
                f"target.model_column: there are more than {MAX_MODELS:,} different texts in column {column!r}, so "
                "they are hardly models. Name another column."
            )
    return list(models)


def priced_targets(target: Target, models: Sequence[str], books: Mapping[str, PriceBook]) -> tuple[PricedTarget, ...]:
    """A target of each of these models, the first of which is its own."""
    return tuple(PricedTarget(msgspec.structs.replace(target, model=model), books[model]) for model in models)


def needs_of(targets: Sequence[Target]) -> tuple[str, ...]:
    """What a program must know to go on with a run of these targets, in the words of its manifest."""
    needs = {
        WHOLE_REQUESTS: any(target.batch is not None for target in targets),
        NEEDS_RESPONSE: any(target.response.is_used for target in targets),
        TARGETS_NEED: any(target.columns for target in targets),
    }
    return tuple(word for word, is_needed in needs.items() if is_needed)


def asked_number(manifest: Manifest, target: Target) -> int | None:
    """The number of the target that `--retry` asks for a job with this target; None where the run does not have it.

    With a matrix it is 0: each call is asked of its own cell again.
    """
    return 0 if manifest.has_matrix else manifest.number_of(target)


def price_warnings(found: Sequence[tuple[PriceBook, list[str]]]) -> list[str]:
    """What whoever pays should know of the prices of several models, each sentence once."""
    told = list(dict.fromkeys(itertools.chain.from_iterable(warnings for _, warnings in found)))
    more = len(told) - MODELS_TOLD
    return told if more <= 0 else [*told[:MODELS_TOLD], f"and {more:,} more warnings about models and their prices"]


async def added_targets(checked: Checked, manifest: Manifest, transport: Transport) -> tuple[PricedTarget, ...]:
    """What a run gets that is to ask some rows again as the job says now; nothing where it has that target already.

    A model that the run has asked keeps its prices. Raises `UsageError` where the target can't be asked: before
    anything is sent or written.
    """
    job, target = checked.job, checked.target
    if asked_number(manifest, target) is not None:
        return ()
    books = {book.model: book for book in manifest.books}
    if target.model not in books:
        _refuse_other_models_prices(job, manifest)
    models = models_asked(checked, manifest.input)
    wanted = [(model, job.prices_of(model)) for model in models if model not in books]
    if wanted:
        books |= {book.model: book for book, _ in await find_books(wanted, transport)}
    check_budget(checked, target, [books[model] for model in models])
    return priced_targets(target, models, books)


def _refuse_other_models_prices(job: Job, manifest: Manifest) -> None:
    """Raise `UsageError` where the job gives a further model the very prices that the run's first model has."""
    then, now = manifest.job.get("prices"), job.describe()["prices"]
    if job.prices.is_own and then == now and job.target.model not in job.model_prices:
        first = manifest.targets[0].target.model
        raise UsageError(
            f"prices: these are the prices of {first}, and the rows are to be asked of {job.target.model}. Give "
            f"{job.target.model} its own, below prices.models or with --set prices.input=… --set prices.output=…; or "
            "take them from the catalog, with --set prices=catalog."
        )


def check_budgets(
    checked: Checked, targets: Sequence[PricedTarget], numbers: Sequence[int], *, shared: bool = False
) -> None:
    """Raise `UsageError` where the budget could not be held while the targets of these numbers are asked.

    `shared`: as of `check_budget`.
    """
    of_targets = _numbers(targets)
    for number in sorted(set(numbers)):
        others = [each for each in of_targets[number].values() if each != number]
        books = [targets[each].prices for each in (number, *others)]
        check_budget(checked, targets[number].target, books, shared=shared)


# -- what they cost ----------------------------------------------------------------------------------------------------


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


def whose_model(targets: Sequence[PricedTarget]) -> Callable[[CallRequest], Literal["run", "row", "nobody"]]:
    """Whose mistake it is where the service does not know the model of a call: the run's, or its row's.

    A model that a row names and that has no price either is nobody's.
    """
    if all(each.target.model_column is None for each in targets):
        return lambda _call: "run"

    def whose(call: CallRequest) -> Literal["run", "row", "nobody"]:
        asked = targets[call.target]
        if asked.target.model_column is None:
            return "run"
        return "nobody" if asked.prices.rates is None else "row"

    return whose
