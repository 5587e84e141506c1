"""What a run is, frozen when it begins: every later session must find the same, or is refused field by field."""

from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.errors import CheckpointError, DriftError
from cometbatch.input.files import Identity
from cometbatch.records import PriceBook

MANIFEST_VERSION = 3
KNOWN_VERSIONS = (3,)
PRICES_KEY = "cometbatch.prices"
SHOWN_CHARACTERS = 60  # of a changed value, in the message


class Manifest(Struct, frozen=True):
    """The first file of a run directory. `fingerprint` is what changes answers; `job` is for people to read.

    `version`: of the program that began the run; one that carries it on keeps to its columns, and to this number.
    `replaces`: which file at the result's place the run was told to replace, as `parts.file_stamp` names it.
    `priced_late`: the prices were found by a later session, so that rows recorded before have no cost.
    """

    version: int
    cometbatch: str
    run_id: str
    created_at: str
    fingerprint: dict[str, Any]
    input: Identity
    partition_rows: int
    prices: PriceBook
    columns: tuple[str, ...]
    job: dict[str, Any]
    warnings: tuple[str, ...] = ()
    replaces: str | None = None
    priced_late: bool = False


class _Version(Struct):
    version: int


def encode(manifest: Manifest) -> bytes:
    """Readable JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(content: bytes, where: str) -> Manifest:
    """Raises `CheckpointError` where the manifest is damaged or of a version that this program doesn't know."""
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version not in KNOWN_VERSIONS:
            raise CheckpointError(
                f"{where}: written by another version of cometbatch (manifest version {version}, this one knows "
                f"{' and '.join(map(str, KNOWN_VERSIONS))}). Carry on with that version, or start over with --fresh."
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # the last two are msgspec's too
        raise CheckpointError(f"{where}: the manifest is damaged ({error}). Restore it, or use --fresh.") from error


def metadata(manifest: Manifest) -> dict[str, str]:
    """What every part and the result say of their run, in their own metadata."""
    return {
        "cometbatch.version": manifest.cometbatch,
        "cometbatch.run_id": manifest.run_id,
        "cometbatch.created_at": manifest.created_at,
        "cometbatch.job": msgspec.json.encode(manifest.job).decode(),
        PRICES_KEY: msgspec.json.encode(manifest.prices).decode(),
    }


def drift(manifest: Manifest, fingerprint: dict[str, Any]) -> list[tuple[str, object, object]]:
    """What changes answers and is not what it was when the run began: key, value then, value now."""
    known = msgspec.json.decode(msgspec.json.encode(fingerprint))  # through JSON, as the manifest's own went
    keys = sorted(manifest.fingerprint.keys() | known.keys())
    pairs = [(key, manifest.fingerprint.get(key), known.get(key)) for key in keys]
    return [(key, was, now) for key, was, now in pairs if was != now]


def refuse_drift(manifest: Manifest, fingerprint: dict[str, Any], size: int, sha256: str) -> None:
    """Raises `DriftError` naming every field whose change would mix answers that don't fit together."""
    changes = [
        f"  {key}: was {_shown(was, now)}, is {_shown(now, was)}" for key, was, now in drift(manifest, fingerprint)
    ]
    if (size, sha256) != (manifest.input.size, manifest.input.sha256):
        changes.append(
            f"  input: was {manifest.input.size:,} bytes, sha256 {manifest.input.sha256[:12]}, "
            f"is {size:,} bytes, sha256 {sha256[:12]}"
        )
    if changes:
        raise DriftError(
            f"The job or its input changed since this run began ({manifest.created_at}):\n"
            + "\n".join(changes)
            + "\nUndo the change to carry on; or give output.path another name to keep both runs; or start over with "
            "--fresh, which forgets the answers so far."
        )


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
