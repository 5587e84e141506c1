"""What a run is, frozen when it begins: every later session must find the same, or is refused field by field."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.errors import START_OVER, CheckpointError, DriftError, Quoting, logged, quoting
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions
from cometbatch.job import Target
from cometbatch.job.urls import SIMULATOR
from cometbatch.records import Partition, PriceBook, Tally
from cometbatch.results import columns
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
KNOWN_NEEDS: Final = frozenset({WHOLE_REQUESTS, NEEDS_RESPONSE, TARGETS_NEED, MATRIX_NEED})
"""Words for what a program must know to go on with a run. A manifest that has others is refused by name."""
PRICES_KEY: Final = "cometbatch.prices"
SERVICE_KEY: Final = "cometbatch.service"
PROGRAM_KEYS: Final = frozenset({SERVICE_KEY})
"""What files say that were written by programs since some version; earlier ones lack it."""
SHOWN_CHARACTERS: Final = 60  # of a changed value, in the message
RENDERING_KEY: Final = "prompt.rendering"
"""The field of a fingerprint that numbers the rules by which prompts are rendered. It belongs to the program."""
RESPONSE_KEY: Final = "response.rules"
"""The field that numbers the rules by which schemas are sent and answers become columns. It is the program's, too."""
OWN_RULES: Final = frozenset({RENDERING_KEY, RESPONSE_KEY})
_SPOKEN: Final = {
    RESPONSE_KEY: "how schemas are sent and answers read",
    RENDERING_KEY: "how prompts are rendered",
    "target.service": "target.base_url",
}
"""Fields of a fingerprint that are no key of a job, in words."""
_OF_A_PROMPT: Final = ("prompt.messages", "prompt.few_shot")
_SAYS_PROMPTS: Final = ("prompt", "params.extra")
"""How fields of a fingerprint begin that may hold what is said to the model."""
_OF_A_TARGET: Final = ("target.model", "params.", *_OF_A_PROMPT)
"""How the keys of a fingerprint begin that tell one target of a run from another. Its targets have one format."""
_THIS_MACHINE: Final = "a server on this machine"
"""What a fingerprint calls "loopback", whatever the port."""


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

    def fingerprint_with(self, number: int) -> dict[str, Any]:
        """The fingerprint of a job that asks the target of this number, and is the run's in all else."""
        if number == 0:
            return self.fingerprint
        rest = {key: value for key, value in self.fingerprint.items() if not key.startswith(_OF_A_TARGET)}
        asked = _through_json(self.targets[number].target.fingerprint())
        return rest | {key: value for key, value in asked.items() if key.startswith(_OF_A_TARGET)}

    @property
    def partitions_in_slice(self) -> int:
        """How many partitions each slice has."""
        return len(range(0, self.input.rows, self.partition_rows))

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

    def range_of(self, ordinal: int) -> int:
        """The number of the range that a call is in: the partitions of the same rows in all slices."""
        return ordinal % self.input.rows // self.partition_rows

    def slice_of(self, index: int) -> int:
        """The number of the slice that a partition is of."""
        return index // self.partitions_in_slice

    def range_of_partition(self, index: int) -> int:
        """The range that a partition is in: its rows, in whichever slice."""
        return index % self.partitions_in_slice


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
        "cometbatch.job": msgspec.json.encode(manifest.job).decode(),
        PRICES_KEY: msgspec.json.encode(manifest.prices).decode(),
        SERVICE_KEY: manifest.service,
    }


def _through_json(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as the manifest's own comes out of its file."""
    known: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fingerprint))
    return known


def drift(
    manifest: Manifest, fingerprint: Mapping[str, Any], targets: Iterable[int] = (0,)
) -> list[tuple[str, object, object]]:
    """What changes answers and is not what it was when the run began: key, value then, value now.

    `targets`: the numbers of those that a job may ask; it is compared with the one that it differs least from.
    """
    now = _through_json(fingerprint)
    return min((_differences(manifest.fingerprint_with(number), now) for number in targets), key=len)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    pairs = [(key, then.get(key), now.get(key)) for key in sorted(then.keys() | now.keys())]
    pairs = [(key, was, value) for key, was, value in pairs if key != RESPONSE_KEY or None not in (was, value)]
    return [(key, was, value) for key, was, value in pairs if was != value]


def describe_targets(manifest: Manifest) -> Iterator[str]:
    """Each target but the first, by what it differs in from that."""
    for number, each in enumerate(manifest.targets[1:], start=1):
        pairs = drift(manifest, manifest.fingerprint_with(number))
        prompts = [key for key, _, _ in pairs if key.startswith(_OF_A_PROMPT)]
        words = [f"{key}: {_shown(now, was)}" for key, was, now in pairs if key not in prompts]
        words += ["another prompt"] if prompts else []
        yield f"target {number}: {', '.join(words)} (prices: {each.prices.source})"


def changed_keys(manifest: Manifest, fingerprint: Mapping[str, Any], targets: Iterable[int] = (0,)) -> tuple[str, ...]:
    """The keys of a job that a person would have to set back to resume the run; the program's own rules are none."""
    keys = [_SPOKEN.get(key, key) for key, _, _ in drift(manifest, fingerprint, targets) if key not in OWN_RULES]
    return tuple(dict.fromkeys("prompt" if key.startswith("prompt.messages") else key for key in keys))


def refuse_drift(
    manifest: Manifest,
    fingerprint: Mapping[str, Any],
    size: int,
    sha256: str,
    *,
    input_advice: str = "",
    update_advice: Callable[[], str] | None = None,
    targets: Iterable[int] = (0,),
    other_target: bool = False,
) -> None:
    """Raises `DriftError` naming every field whose change would mix answers that don't fit together.

    `input_advice`: what to do about an input that changed, in sentences. `update_advice`: which rows changed, and how
    only these are answered; asked where something changed, since it may take seconds. `targets`: as of `drift`.
    `other_target`: whether the job may ask a target that the run does not have, since only rows that `--retry` resets
    are asked of it.
    """
    changes: list[str] = []
    differing = drift(manifest, fingerprint, targets)
    if other_target:
        differing = [each for each in differing if not each[0].startswith(_OF_A_TARGET)]
    for key, *values in differing:
        was, now = (_THIS_MACHINE if key == "target.service" and value == "loopback" else value for value in values)
        values_shown = f"was {_shown(was, now)}, is {_shown(now, was)}"
        words = f"  {_SPOKEN.get(key, key)}: {values_shown}"
        changes.append(quoting(words, values_shown, "changed (not logged)") if key.startswith(_SAYS_PROMPTS) else words)
    if (size, sha256) != (manifest.input.size, manifest.input.sha256):
        changes.append(
            f"  input: was {manifest.input.size:,} bytes, sha256 {manifest.input.sha256[:12]}, "
            f"is {size:,} bytes, sha256 {sha256[:12]}"
        )
    if not changes:
        return
    way = "Undo the change to continue"
    if not OWN_RULES.isdisjoint(key for key, _, _ in differing):
        way = (
            "This version of cometbatch makes other requests of some rows than the one that began the run "
            f"({manifest.cometbatch}), and no run mixes the two. What is answered stays. Finish it with that version"
        )
    if len(differing) == len(changes) and all(key.startswith(_OF_A_TARGET) for key, _, _ in differing):
        way += "; or ask some rows again in this way, with --retry KIND, and keep the other answers"
    head = f"The job or its input changed since this run began ({manifest.created_at}):"
    further = [] if update_advice is None else [update_advice()]
    lines = [head, *changes, *filter(None, [input_advice, *further])]
    lines.append(f"{way}; or give output.path another name to keep both runs; or {START_OVER}")
    raise DriftError(Quoting("\n".join(lines), "\n".join(map(logged, lines))))


def _shown(value: object, other: object) -> str:
    """A value in short; of a long one the place where it begins to differ from the other."""
    text, against = _text(value), _text(other)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    pairs = enumerate(zip(text, against, strict=False))
    differs_at = next((at for at, (one, two) in pairs if one != two), min(len(text), len(against)))
    start = max(0, differs_at - SHOWN_CHARACTERS // 2)
    words = text[start : start + SHOWN_CHARACTERS]
    return ("…" if start else "") + words + ("…" if start + SHOWN_CHARACTERS < len(text) else "")


def _text(value: object) -> str:
    return "unset" if value is None else msgspec.json.encode(value).decode()
