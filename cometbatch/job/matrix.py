"""The matrix of a job: its axes, and the cells that they make, each with all that is asked in it.

A cell is the job with the keys of one value of each axis laid over it. What asks the same is the same cell, whatever
it is called and wherever it stands.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.job.targets import MessageTemplate, Target
from cometbatch.money.prices import PriceSettings
from cometbatch.prompt.conversation import Conversation
from cometbatch.records import GenerationParams
from cometbatch.results.slices import Label
from cometbatch.wire import FormatName

MODEL: Final = "model"
FORMAT: Final = "format"
MAX_SLICES: Final = 10_000  # passes over the rows: cells times samples
ALWAYS: Final = (MODEL, FORMAT)
"""Axis columns that a result has also where no axis sets them."""
OWN_RULES: Final = "response.rules"
"""The field of a fingerprint that numbers the program's own rules: they are the same for all cells of a run."""

BY_ENTRY: Final = ("params.extra", "params.columns")
"""Fields that are mappings, of which an axis may set one entry."""


class Axis(Struct, frozen=True):
    """A setting that takes several values. `name`: the key that it sets, or a word for variants, which set several.

    `column`: the name of its column in a result, before `output.prefix`. `labels`: what its values are called.
    """

    name: str
    column: str
    labels: tuple[Label, ...]


class Prompt(Struct, frozen=True):
    """The prompt of some cells. `places`, `cut`: as those of a job, which only a job that was read has."""

    messages: tuple[MessageTemplate, ...]
    conversation: Conversation | None = None
    places: tuple[str, ...] = ()
    cut: tuple[bool, ...] = ()


class CellSettings(Struct, frozen=True):
    """What the axes set in one cell, and what they leave as it is. `labels`: one of each axis. `prompt`: its number.

    `prices`: of the cell's model.
    """

    labels: tuple[Label, ...]
    format: FormatName
    model: str
    prompt: int
    params: GenerationParams
    prices: PriceSettings
    param_columns: dict[str, str] = msgspec.field(default_factory=dict)


class Matrix(Struct, frozen=True):
    """The axes of a job and its cells, the first axis slowest. `samples`: how often each row is asked in each cell.

    `prompts`: each once, however many cells have it. `params`: those of the job as they are written, without axes and
    without defaults of a format. `moved`: the fields of a target's fingerprint that the axes set.
    """

    axes: tuple[Axis, ...]
    cells: tuple[CellSettings, ...]
    prompts: tuple[Prompt, ...]
    params: GenerationParams = GenerationParams()
    samples: int = 1
    moved: tuple[str, ...] = ()

    def base_of(self, target: Target) -> dict[str, object]:
        """What a fingerprint of the whole job has of a target, that of any cell: the fields that no axis sets."""
        asked = msgspec.structs.replace(target, params=self.params).fingerprint()
        for name in BY_ENTRY:
            entries = asked.pop(name, None)
            if isinstance(entries, dict):
                asked |= {f"{name}.{entry}": value for entry, value in entries.items()}
        return {key: value for key, value in asked.items() if not is_moved(key, self.moved)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the axis columns of a result, in order and without `output.prefix`."""
        own = [axis.column for axis in self.axes]
        return *own, *(name for name in ALWAYS if name not in own)

    def labels_of(self, cell: CellSettings) -> dict[str, Label]:
        """The value of each axis column in a cell."""
        own = {axis.column: label for axis, label in zip(self.axes, cell.labels, strict=True)}
        return own | {name: value for name, value in ((MODEL, cell.model), (FORMAT, cell.format)) if name not in own}


class Cell(Struct, frozen=True):
    """One value of each axis, and what is asked there. A job without a matrix is one cell without labels.

    `labels`: by axis column, in the order of the columns. `prices`: what the job says about those of the cell's model.
    `digest`: SHA-256 of what is asked, in hexadecimal digits; labels and place are no part of it.
    """

    labels: dict[str, Label]
    target: Target
    prices: PriceSettings
    digest: str

    def target_of(self, sample: int) -> Target:
        """What is asked in a sample of this cell, from 0."""
        return sample_of(self.target, sample)


def sample_of(target: Target, sample: int) -> Target:
    """What is asked in a sample of a cell that asks this, from 0: each further one has the next seed, if there is one.

    Without a seed it is the very target.
    """
    seed = target.params.seed
    if not sample or seed is None:
        return target
    return msgspec.structs.replace(target, params=msgspec.structs.replace(target.params, seed=seed + sample))


def is_moved(key: str, moved: Iterable[str]) -> bool:
    """Whether a field of a fingerprint is one of those that axes set, or within one."""
    return any(key == each or key.startswith((f"{each}.", f"{each}[")) for each in moved)


def digest_of(target: Target) -> str:
    """What identifies a cell: SHA-256 of all that changes its answers."""
    asked: Mapping[str, Any] = {name: value for name, value in target.fingerprint().items() if name != OWN_RULES}
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()
