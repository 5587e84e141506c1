"""What whoever pays should know of a matrix before it is asked: samples that differ little, seeds not sent."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from cometbatch import wire
from cometbatch.job import Job
from cometbatch.job.matrix import Cell
from cometbatch.records import GenerationParams
from cometbatch.results.summary_words import count

MODELS_SHOWN: Final = 5
_SEEDED: Final = GenerationParams(seed=1)


def describe_matrix(job: Job) -> Iterator[str]:
    """Sentences on what the cells of a job are surely not meant to do; none without a matrix."""
    if job.matrix is None:
        return
    cells = job.cells()
    cold = [each for each in cells if each.target.params.temperature == 0 and not _varies(each)]
    if job.samples > 1 and cold:
        of = "" if len(cold) == len(cells) else f" (in {len(cold):,} of {count(len(cells), 'cell')})"
        yield f"{job.samples} samples at temperature 0 cost {job.samples} times and differ little{of}"
    yield from _without_seed(job, cells)
    yield from _same_prices(job, cells)


def _varies(cell: Cell) -> bool:
    return "temperature" in cell.target.param_columns


def _without_seed(job: Job, cells: Sequence[Cell]) -> Iterator[str]:
    """Formats that have no place for the seed of the job."""
    if job.matrix is None or job.matrix.params.seed is None:
        return
    formats = dict.fromkeys(each.target.format for each in cells if each.target.params.seed is None)
    unable = [name for name in formats if wire.FORMATS[name].unsupported_params(_SEEDED)]
    if unable:
        left = sum(each.target.format in unable for each in cells)
        names = " and ".join(unable)
        yield (
            f"params.seed is left out in {left:,} of {count(len(cells), 'cell')}: it has no place in the format {names}"
        )


def _same_prices(job: Job, cells: Sequence[Cell]) -> Iterator[str]:
    """Prices of the job, that stand for one model, and are taken for several."""
    by_prices: dict[bytes, dict[str, None]] = {}
    for each in cells:
        if each.prices.is_own and each.target.model not in job.model_prices:
            by_prices.setdefault(msgspec.json.encode(each.prices), {})[each.target.model] = None
    for models in by_prices.values():
        if len(models) > 1:
            names = ", ".join(list(models)[:MODELS_SHOWN]) + (", …" if len(models) > MODELS_SHOWN else "")
            yield f"prices: {len(models):,} models have the same prices ({names}); prices.models has those of each"
