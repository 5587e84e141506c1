"""The manifest of a run, put together: when it begins, when it gets further cells, and once its prices can be had."""

import os
from collections.abc import Sequence

import msgspec

from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import check_budget, partition_rows, to_replace
from cometbatch.commands.clock import now
from cometbatch.commands.growth import first_slices, grown, price_settings
from cometbatch.commands.session_start import SessionStart, in_thread
from cometbatch.commands.targets import models_asked, needs_of, price_warnings, priced_targets
from cometbatch.commands.updating import spent_before
from cometbatch.input.files import Identity
from cometbatch.job.matrix import Cell
from cometbatch.money.prices import quoted
from cometbatch.records import PriceBook
from cometbatch.results import columns, parts
from cometbatch.run_state.manifest import MANIFEST_VERSION, MATRIX_NEED, Manifest, PricedTarget, Slice
from cometbatch.run_state.run import Run, with_manifest
from cometbatch.service.catalog import find_books
from cometbatch.transport import Transport
from cometbatch.version import VERSION

Found = list[tuple[PriceBook, list[str]]]
"""Price books, each with warnings for whoever pays."""


async def new_manifest(
    start: SessionStart, found: Run | None, identity: Identity, transport: Transport, *, fresh: bool
) -> Manifest:
    """What the run will be. Whatever can be refused is refused here, before anything is written.

    `found`: the run without outcomes that it replaces, if there is one.
    """
    job, updated = start.checked.job, start.updated
    if job.matrix is None:
        targets, found_books = await _targets(start, identity, transport)
        slices: tuple[Slice, ...] = (Slice(),)
    else:
        cells = job.cells()
        found_books = await _books_of(start, cells, transport)
        targets = tuple(PricedTarget(cell.target, book) for cell, (book, _) in zip(cells, found_books, strict=True))
        slices = first_slices(cells, job.samples)
    replaces = parts.file_stamp(job.output.path) if fresh else to_replace(job, found or updated)
    follows, before = (None, None) if found is None else (found.manifest.follows, found.manifest.given_up)
    if updated is not None:
        follows = updated.manifest.run_id
        before = await in_thread(start.files, spent_before, start.directory.home, updated)
    return Manifest(
        version=MANIFEST_VERSION,
        cometbatch=VERSION,
        run_id=os.urandom(16).hex() if found is None else found.manifest.run_id,
        created_at=now().isoformat(timespec="seconds"),
        fingerprint=job.fingerprint(),
        input=identity,
        partition_rows=partition_rows(start.checked, identity),
        columns=tuple(each.name for each in columns.columns_for(job.asked_columns, job.columns_there)),
        targets=targets,
        slices=slices,
        needs=(*needs_of(job.targets()), *([] if job.matrix is None else [MATRIX_NEED])),
        job=job.describe(),
        warnings=(*start.checked.warnings, *price_warnings(found_books)),
        replaces=None if job.output.is_dataset else replaces,
        follows=follows,
        given_up=before,
        is_fresh=fresh or (found is not None and found.manifest.is_fresh),
    )


async def _targets(
    start: SessionStart, identity: Identity, transport: Transport
) -> tuple[tuple[PricedTarget, ...], Found]:
    """The targets of a run without a matrix: one for each model that rows name."""
    job, target = start.checked.job, start.checked.target
    models = await in_thread(start.files, models_asked, start.checked, identity)
    found = await find_books([(model, job.prices_of(model)) for model in models], transport)
    check_budget(start.checked, target, [book for book, _ in found], shared=_is_shared(start))
    return priced_targets(target, models, {book.model: book for book, _ in found}), found


async def _books_of(start: SessionStart, cells: Sequence[Cell], transport: Transport) -> Found:
    """The prices of each cell, found in one pass over the catalog. Raises `UsageError` where a budget can't be held."""
    found = await find_books([(cell.target.model, cell.prices) for cell in cells], transport)
    for cell, (book, _) in zip(cells, found, strict=True):
        check_budget(start.checked, cell.target, [book], shared=_is_shared(start))
    return found


def _is_shared(start: SessionStart) -> bool:
    return start.options.shared_budget is not None


async def with_cells(start: SessionStart, manifest: Manifest, cells: Sequence[Cell], transport: Transport) -> Manifest:
    """The manifest as the job names cells and samples now, those that the run does not know yet at prices of today.

    `cells`: which these are. Raises `UsageError` where the budget could not be held while they are asked.
    """
    found = await _books_of(start, cells, transport) if cells else []
    books = {cell.digest: book for cell, (book, _) in zip(cells, found, strict=True)}
    new = grown(manifest, start.checked.job, books)
    if new == manifest:
        return manifest
    models = [quoted(new.targets[number].target.model) for number in new.active_targets]
    of_prices = (words for words in manifest.warnings if any(model in words for model in models))
    warnings = dict.fromkeys((*start.checked.warnings, *of_prices, *price_warnings(found)))
    return msgspec.structs.replace(new, warnings=tuple(warnings))


async def priced(checked: Checked, run: Run, transport: Transport) -> Run:
    """The run, with prices where it had none so far and they can be had now."""
    manifest = run.manifest
    wanted = {
        number: (book.model, settings)
        for number, (book, settings) in enumerate(
            zip(manifest.books, price_settings(checked.job, manifest), strict=True)
        )
        if book.rates is None and settings is not None
    }
    if not wanted or run.is_complete:
        return run
    found = dict(zip(wanted, await find_books([*wanted.values()], transport), strict=True))
    if all(book.rates is None for book, _ in found.values()):
        return run
    books = [found[number][0] if number in found else book for number, book in enumerate(manifest.books)]
    warnings = dict.fromkeys(words for _, some in found.values() for words in some)
    late = f"prices were found after {run.progress.calls:,} rows were recorded: those without a cost stay so"
    return with_manifest(
        run,
        msgspec.structs.replace(
            manifest.with_prices(books), priced_late=True, warnings=(*checked.warnings, *warnings, late)
        ),
    )
