"""Whether a job is still the one that a run began with: what differs is refused field by field, with the ways out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from cometbatch.errors import START_OVER, DriftError, Quoting, logged, quoting
from cometbatch.job.matrix import BY_ENTRY, Matrix, is_moved
from cometbatch.run_state.manifest import Manifest

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
SAYS_PROMPTS: Final = ("prompt", "params.extra")
"""How fields of a fingerprint begin that may hold what is said to the model."""
_OF_A_TARGET: Final = ("target.model", "params.", *_OF_A_PROMPT)
"""How the keys of a fingerprint begin that tell one target of a run from another. Its targets have one format."""
_THIS_MACHINE: Final = "a server on this machine"
"""What a fingerprint calls "loopback", whatever the port."""
MATRIX_KEY: Final = "matrix"
"""Stands for a matrix that a job has and the run has not, or the other way round."""


def fingerprint_with(manifest: Manifest, number: int) -> dict[str, Any]:
    """The fingerprint of a job that asks the target of this number, and is the run's in all else."""
    if number == 0:
        return manifest.fingerprint
    rest = {key: value for key, value in manifest.fingerprint.items() if not key.startswith(_OF_A_TARGET)}
    asked = _through_json(manifest.targets[number].target.fingerprint())
    return rest | {key: value for key, value in asked.items() if key.startswith(_OF_A_TARGET)}


def _through_json(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as the manifest's own comes out of its file."""
    known: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fingerprint))
    return known


def drift(
    manifest: Manifest,
    fingerprint: Mapping[str, Any],
    targets: Iterable[int] = (0,),
    *,
    matrix: Matrix | None = None,
) -> list[tuple[str, object, object]]:
    """What changes answers and is not what it was when the run began: key, value then, value now.

    `targets`: the numbers of those that a job may ask; it is compared with the one that it differs least from.
    `matrix`: that of the job. What its axes set, or set when the run was last given cells, is no part of the
    comparison: cells come and go, each told by its own digest.
    """
    now = _through_json(fingerprint)
    then = [fingerprint_with(manifest, number) for number in targets]
    if not manifest.has_matrix and matrix is None:
        return min((_differences(each, now) for each in then), key=len)
    moved = (*_moved_then(manifest), *(() if matrix is None else matrix.moved))
    found = _differences(*({key: each[key] for key in each if not is_moved(key, moved)} for each in (then[0], now)))
    if manifest.has_matrix != (matrix is not None):
        was, is_now = ("set" if each else None for each in (manifest.has_matrix, matrix))
        found = [each for each in found if not each[0].startswith(BY_ENTRY)]  # told entry by entry on one side alone
        found.insert(0, (MATRIX_KEY, was, is_now))
    return found


def _moved_then(manifest: Manifest) -> tuple[str, ...]:
    """The fields of a fingerprint that the axes set when the run was last given cells."""
    matrix = manifest.job.get("matrix") or {}
    return tuple(matrix.get("moved", ()))


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    pairs = [(key, then.get(key), now.get(key)) for key in sorted(then.keys() | now.keys())]
    pairs = [(key, was, value) for key, was, value in pairs if key != RESPONSE_KEY or None not in (was, value)]
    return [(key, was, value) for key, was, value in pairs if was != value]


def describe_targets(manifest: Manifest) -> Iterator[str]:
    """Each target but the first, by what it differs in from that. Of a matrix none: its cells have labels."""
    if manifest.has_matrix:
        return
    for number, each in enumerate(manifest.targets[1:], start=1):
        pairs = drift(manifest, fingerprint_with(manifest, number))
        prompts = [key for key, _, _ in pairs if key.startswith(_OF_A_PROMPT)]
        words = [f"{key}: {_shown(now, was)}" for key, was, now in pairs if key not in prompts]
        words += ["another prompt"] if prompts else []
        yield f"target {number}: {', '.join(words)} (prices: {each.prices.source})"


def changed_keys(
    manifest: Manifest,
    fingerprint: Mapping[str, Any],
    targets: Iterable[int] = (0,),
    *,
    matrix: Matrix | None = None,
) -> tuple[str, ...]:
    """The keys of a job that a person would have to set back to resume the run; the program's own rules are none."""
    differing = drift(manifest, fingerprint, targets, matrix=matrix)
    keys = [_SPOKEN.get(key, key) for key, _, _ in differing if key not in OWN_RULES]
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
    matrix: Matrix | None = None,
) -> None:
    """Raises `DriftError` naming every field whose change would mix answers that don't fit together.

    `input_advice`: what to do about an input that changed, in sentences. `update_advice`: which rows changed, and how
    only these are answered; asked where something changed, since it may take seconds. `targets`: as of `drift`.
    `other_target`: whether the job may ask a target that the run does not have, since only rows that `--retry` resets
    are asked of it. `matrix`: as of `drift`.
    """
    changes: list[str] = []
    differing = drift(manifest, fingerprint, targets, matrix=matrix)
    if other_target:
        differing = [each for each in differing if not each[0].startswith(_OF_A_TARGET)]
    for key, *values in differing:
        was, now = (_THIS_MACHINE if key == "target.service" and value == "loopback" else value for value in values)
        values_shown = f"was {_shown(was, now)}, is {_shown(now, was)}"
        words = f"  {_SPOKEN.get(key, key)}: {values_shown}"
        changes.append(quoting(words, values_shown, "changed (not logged)") if key.startswith(SAYS_PROMPTS) else words)
    if (size, sha256) != (manifest.input.size, manifest.input.sha256):
        changes.append(
            f"  input: was {manifest.input.size:,} bytes, sha256 {manifest.input.sha256[:12]}, "
            f"is {size:,} bytes, sha256 {sha256[:12]}"
        )
    if not changes:
        return
    head = f"The job or its input changed since this run began ({manifest.created_at}):"
    further = [] if update_advice is None else [update_advice()]
    lines = [head, *changes, *filter(None, [input_advice, *further])]
    lines.append(f"{_way(manifest, differing, len(changes))}; or {START_OVER}")
    raise DriftError(Quoting("\n".join(lines), "\n".join(map(logged, lines))))


def _way(manifest: Manifest, differing: Sequence[tuple[str, object, object]], changes: int) -> str:
    """What to do where a job differs in these fields. `changes`: how many lines were told of it, the input's too."""
    keys = [key for key, _, _ in differing]
    way = "Undo the change to continue"
    if not OWN_RULES.isdisjoint(keys):
        way = (
            "This version of cometbatch makes other requests of some rows than the one that began the run "
            f"({manifest.cometbatch}), and no run mixes the two. What is answered stays. Finish it with that version"
        )
    if not manifest.has_matrix and len(keys) == changes and all(key.startswith(_OF_A_TARGET) for key in keys):
        way += "; or ask some rows again in this way, with --retry KIND, and keep the other answers"
    way += "; or give output.path another name to keep both runs"
    if MATRIX_KEY in keys:
        output = manifest.job.get("output", {}).get("path", "the output as it is now")
        way += f", with reuse.from: [{output}], which pays for no answer again"
    return way


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
