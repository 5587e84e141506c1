"""How a run with a matrix follows its job: cells and samples are added, left out, put back, reordered and renamed.

Laws: targets and slices are only added to, and never renumbered, so that what is recorded stays where it is; a cell is
told by what it asks, whatever it is called and wherever it stands.
"""

from collections.abc import Mapping, Sequence

import msgspec

from cometbatch.job import Job
from cometbatch.job.matrix import Cell, digest_of
from cometbatch.money.prices import PriceSettings
from cometbatch.records import PriceBook
from cometbatch.run_state.manifest import MATRIX_NEED, Manifest, PricedTarget, Slice


def new_cells(manifest: Manifest, job: Job) -> tuple[Cell, ...]:
    """The cells of a job that the run does not know; none without a matrix."""
    if job.matrix is None:
        return ()
    known = _targets(manifest)
    return tuple(cell for cell in job.cells() if cell.digest not in known)


def adds_calls(manifest: Manifest, job: Job) -> bool:
    """Whether the job names cells or samples that the run does not have yet."""
    if job.matrix is None:
        return False
    known = {(each.target, each.sample) for each in manifest.slices}
    targets = _targets(manifest)
    cells = (targets.get(cell.digest) for cell in job.cells())
    return any((target, sample) not in known for target in cells for sample in range(job.samples))


def grown(manifest: Manifest, job: Job, books: Mapping[str, PriceBook]) -> Manifest:
    """The manifest of a run as its job names cells and samples now. Without a matrix it stays as it is.

    `books`: the prices of new cells, by digest; a new cell that has none is left out.
    """
    if job.matrix is None:
        return manifest
    targets, known = list(manifest.targets), _targets(manifest)
    slices = list(manifest.slices)
    numbers = {(each.target, each.sample): number for number, each in enumerate(slices)}
    named: list[int] = []
    for cell in job.cells():
        if cell.digest not in known:
            if (book := books.get(cell.digest)) is None:
                continue
            known[cell.digest] = len(targets)
            targets.append(PricedTarget(cell.target, book))
        target = known[cell.digest]
        for sample in range(job.samples):
            wanted = Slice(target=target, sample=sample, labels=cell.labels, cell=cell.digest)
            number = numbers.get((target, sample))
            if number is None:
                number = len(slices)
                slices.append(wanted)
            slices[number] = wanted
            named.append(number)
    grown_one = msgspec.structs.replace(
        manifest,
        targets=tuple(targets),
        slices=tuple(slices),
        named=msgspec.UNSET if named == [*range(len(slices))] else tuple(named),
    )
    return manifest if grown_one == manifest else _as_described(grown_one, job)


def first_slices(cells: Sequence[Cell], samples: int) -> tuple[Slice, ...]:
    """The slices of a run that begins: of each cell its samples."""
    return tuple(
        Slice(target=target, sample=sample, labels=cell.labels, cell=cell.digest)
        for target, cell in enumerate(cells)
        for sample in range(samples)
    )


def price_settings(job: Job, manifest: Manifest) -> list[PriceSettings | None]:
    """What the job says of the prices of each target; None where it does not name that cell any more."""
    if job.matrix is None:
        return [job.prices_of(book.model) for book in manifest.books]
    said = {cell.digest: cell.prices for cell in job.cells()}
    return [said.get(digest_of(each.target)) for each in manifest.targets]


def _as_described(manifest: Manifest, job: Job) -> Manifest:
    """The manifest with what its job says now, but for prices: each cell keeps those with which it began."""
    needs = tuple(dict.fromkeys((*manifest.needs, MATRIX_NEED)))
    return msgspec.structs.replace(manifest, fingerprint=job.fingerprint(), job=job.describe(), needs=needs)


def _targets(manifest: Manifest) -> dict[str, int]:
    """The number of each target, by the digest of what it asks as this program tells it."""
    return {digest_of(each.target): number for number, each in enumerate(manifest.targets)}
