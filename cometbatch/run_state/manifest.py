"""What a run is, frozen when it begins: every later session must find the same (`drift`)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.errors import START_OVER, CheckpointError
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions
from cometbatch.job import Target
from cometbatch.job.urls import SIMULATOR
from cometbatch.records import Partition, PriceBook, Tally
from cometbatch.results import columns
from cometbatch.results.rows import JOB_KEY
from cometbatch.run_state import json_files

MANIFEST_VERSION: Final = 3
WHOLE_REQUESTS: Final = "requests in the input"
"""The need of a run whose rows bring their requests: what a program without it would send is another thing."""
NEEDS_RESPONSE: Final = "response"
"""The word of a run whose job says what answers must be."""
TARGETS_NEED: Final = "targets"
"""What a run needs whose calls may be asked of several targets: a program that does not know it would ask the first."""
MATRIX_NEED: Final = "matrix"
"""What a run needs that has slices: a program that does not know it would ask each row of the first cell alone."""
WORKERS_NEED: Final = "workers"
"""What a run needs that had workers: a program that does not know their files would pay for their rows again."""
KNOWN_NEEDS: Final = frozenset({WHOLE_REQUESTS, NEEDS_RESPONSE, TARGETS_NEED, MATRIX_NEED, WORKERS_NEED})
"""Words for what a program must know to go on with a run. A manifest that has others is refused by name."""
PRICES_KEY: Final = "cometbatch.prices"
SERVICE_KEY: Final = "cometbatch.service"
PROGRAM_KEYS: Final = frozenset({SERVICE_KEY})
"""What files say that were written by programs since some version; earlier ones lack it."""


class PricedTarget(Struct, frozen=True):
    """What is asked, and at what price."""

    target: Target
    prices: PriceBook


class Slice(Struct, frozen=True, omit_defaults=True):
    """One pass over the rows: which target is asked. `sample`: how often it was asked before, so 0 is the first.

    `labels`: the value of each axis of the matrix, by the name of its column; `cell`: SHA-256 of what the cell asks.
    Both are empty, and not written down, where the job has no matrix; the other fields are always written.
    """

    label: str = msgspec.field(default_factory=str)
    target: int = msgspec.field(default_factory=int)
    sample: int = msgspec.field(default_factory=int)
    labels: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)
    cell: str = ""


class Manifest(Struct, frozen=True):
    """The first file of a run directory. `fingerprint` is what changes answers; `job` is for people to read.

    `columns`: the names of the output columns, which a run keeps. `targets`, `slices`: only added to; labels of slices
    alone may change. `named`: the numbers of the slices that the job names now, in its order, which is that of the
    result; UNSET where it names all of them, in their own order. `needs`: words of `KNOWN_NEEDS`. `cometbatch`: the
    version of the program that began the run. `replaces`: which file at the result's place the run was told to replace,
    as `parts.file_stamp` names it. `priced_late`: the prices were found by a later session, so that rows recorded
    before have no cost. `follows`: of an update, the id of the run whose place it takes when it is done. `given_up`:
    what came before it since that run's result, and was never published, had cost.
    `is_fresh`: begun with --fresh, so that it takes no answers of this output's own earlier runs.
    """

    version: int
    cometbatch: str
    run_id: str
    created_at: str
    fingerprint: dict[str, Any]
    input: Identity
    partition_rows: int
    columns: tuple[str, ...]
    targets: tuple[PricedTarget, ...]
    job: dict[str, Any]
    slices: tuple[Slice, ...] = (Slice(),)
    needs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    replaces: str | None = None
    priced_late: bool = False
    follows: str | None = None
    given_up: Tally | None = None
    is_fresh: bool = False
    named: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET

    @property
    def has_matrix(self) -> bool:
        """Whether rows are asked in several ways, or several times."""
        return MATRIX_NEED in self.needs

    @property
    def active(self) -> tuple[int, ...]:
        """The numbers of the slices that the job names, in the order of the result."""
        return tuple(range(len(self.slices))) if self.named is msgspec.UNSET else self.named

    @property
    def active_targets(self) -> tuple[int, ...]:
        """The numbers of the targets that these slices ask, in their order."""
        return tuple(dict.fromkeys(self.slices[number].target for number in self.active))

    def queues(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the active slices by the model that is asked, in the order in which models appear."""
        by_model: dict[str, list[int]] = {}
        for number in self.active:
            model = self.targets[self.slices[number].target].target.model
            by_model.setdefault(model, []).append(number)
        return tuple(map(tuple, by_model.values()))

    @property
    def prices(self) -> PriceBook:
        """The price book of the first target."""
        return self.targets[0].prices

    @property
    def books(self) -> tuple[PriceBook, ...]:
        """The price book of each target."""
        return tuple(each.prices for each in self.targets)

    @property
    def token_cap(self) -> int | None:
        """The most tokens that an answer of any target was to have; None where one of them has no cap."""
        caps = [each.target.max_output_tokens for each in self.targets]
        known = [cap for cap in caps if cap is not None]
        return max(known) if len(known) == len(caps) else None

    @property
    def is_simulated(self) -> bool:
        """Whether the simulator of this package answers, so that nothing of it is paid for."""
        return self.service == SIMULATOR

    @property
    def service(self) -> str:
        """Who answers: "simulator", "loopback", or a base URL."""
        return str(self.fingerprint.get("target.service") or "")

    @property
    def has_whole_requests(self) -> bool:
        """Whether rows bring their requests, as the lines of a vendor's batch file do."""
        return WHOLE_REQUESTS in self.needs

    @property
    def calls(self) -> int:
        """How many calls the run has: each row in each active slice."""
        return self.input.rows * len(self.active)

    def with_prices(self, books: Sequence[PriceBook]) -> "Manifest":
        """The manifest with other price books, one for each target."""
        pairs = zip(self.targets, books, strict=True)
        return msgspec.structs.replace(self, targets=tuple(PricedTarget(each.target, book) for each, book in pairs))

    def with_targets(self, added: Sequence[PricedTarget]) -> "Manifest":
        """The manifest with further targets."""
        needs = tuple(dict.fromkeys((*self.needs, TARGETS_NEED)))
        return msgspec.structs.replace(self, targets=(*self.targets, *added), needs=needs)

    def number_of(self, target: Target) -> int | None:
        """The number of the target that asks the same; None where there is none."""
        fingerprints = (each.target.fingerprint() for each in self.targets)
        asked = target.fingerprint()
        return next((number for number, each in enumerate(fingerprints) if each == asked), None)

    @property
    def partitions_in_slice(self) -> int:
        """How many partitions each slice has."""
        return -(-self.input.rows // self.partition_rows)

    def partitions(self) -> list[Partition]:
        """Every partition of the run, ascending: those of the first slice, then those of the next."""
        of_rows = partitions(self.input.rows, self.partition_rows)
        return [
            Partition(number * len(of_rows) + each.index, each.first_row, each.row_count, number)
            for number in range(len(self.slices))
            for each in of_rows
        ]

    def first_ordinal(self, partition: Partition) -> int:
        """The ordinal of a partition's first call: slice x rows + row."""
        return partition.slice * self.input.rows + partition.first_row

    def partition_of(self, ordinal: int) -> int:
        """The index of the partition that a call is in."""
        if len(self.slices) == 1:
            return ordinal // self.partition_rows
        number, row = divmod(ordinal, self.input.rows)
        return number * self.partitions_in_slice + row // self.partition_rows

    def partition(self, index: int) -> Partition:
        """The partition of this index."""
        number, range_ = divmod(index, self.partitions_in_slice)
        first = range_ * self.partition_rows
        return Partition(index, first, min(self.partition_rows, self.input.rows - first), number)

    def range_of(self, index: int) -> int:
        """The range that a partition is in: its rows, in whichever slice; of one slice, whatever number a file has."""
        return index if len(self.slices) == 1 else index % self.partitions_in_slice


def partitions_of(manifest: Manifest, range_: int) -> tuple[int, ...]:
    """The indexes of the partitions in a range, one of each slice; of one slice, whatever number a file has."""
    if len(manifest.slices) == 1:
        return (range_,)
    each = manifest.partitions_in_slice
    return tuple(range(range_, each * len(manifest.slices), each)) if range_ < each else ()


class _Version(Struct):
    version: int
    needs: tuple[str, ...] = ()


def encode_manifest(manifest: Manifest) -> bytes:
    """Readable JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(content: bytes, where: str) -> Manifest:
    """Raises `CheckpointError` where the manifest is damaged, or the run is one that this program does not know."""
    found = json_files.decode(content, _Version, where)
    if found.version != MANIFEST_VERSION:
        raise CheckpointError(
            f"{where}: another version of cometbatch began this run (manifest version {found.version}, this one "
            f"knows {MANIFEST_VERSION}). Finish it with that version, or {START_OVER}"
        )
    if unknown := sorted(set(found.needs) - KNOWN_NEEDS):
        raise CheckpointError(
            f"{where}: this run needs what this version of cometbatch does not know: {', '.join(unknown)}. "
            f"Continue with a newer version, or {START_OVER}"
        )
    manifest = json_files.decode(content, Manifest, where)
    if strange := [name for name in manifest.columns if not columns.is_known(name)]:
        raise CheckpointError(
            f"{where}: this version of cometbatch has no output column {strange[0]!r}. Where another version began the "
            f"run, continue with that; where the file is damaged, restore it from a copy; or {START_OVER}"
        )
    return manifest


def has_matrix(content: bytes) -> bool:
    """Whether this is the manifest of a run of a matrix; False where it can't be read, which others tell."""
    try:
        return MATRIX_NEED in msgspec.json.decode(content, type=_Version).needs
    except msgspec.MsgspecError:
        return False


def metadata_of(manifest: Manifest) -> dict[str, str]:
    """What every part and the result say of their run, in their own metadata."""
    return {
        "cometbatch.version": manifest.cometbatch,
        "cometbatch.run_id": manifest.run_id,
        "cometbatch.created_at": manifest.created_at,
        JOB_KEY: msgspec.json.encode(manifest.job).decode(),
        PRICES_KEY: msgspec.json.encode(manifest.prices).decode(),
        SERVICE_KEY: manifest.service,
    }
