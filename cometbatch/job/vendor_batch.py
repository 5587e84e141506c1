"""Vendors' batch files: told by their first line, which says what is asked of whom, so that a job need not.

Guards: a job never says something else than the file does. Format, model and bodies are the file's; what the job says
of them agrees, or is refused with the reason.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.input import files
from cometbatch.input.file_set import first_file, is_several
from cometbatch.input.files import shown
from cometbatch.input.lines import lines
from cometbatch.input.packed import unpacked
from cometbatch.input.table import JSONL_KIND
from cometbatch.job.keys import OVERRIDE
from cometbatch.job.sections import Sections
from cometbatch.job.targets import MessageTemplate, VendorName
from cometbatch.wire import FormatName, chat, json_spans, responses
from cometbatch.wire.whole_bodies import decoded

URLS: Final[Mapping[str, FormatName]] = MappingProxyType({chat.PATH: "chat", responses.PATH: "responses"})
"""The routes that OpenAI's lines may name."""
_OF_TABLES: Final = (("target", "model_column"), ("params", "columns"))
"""Keys that name columns of a table."""
SPELLING: Final = "max_tokens_field"
"""The key of `params` that only spells the cap of a body, and changes no answer."""
_BOM: Final = b"\xef\xbb\xbf"
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Vendor(Struct, frozen=True):
    """The shape of a vendor's lines: `id` and `body` are the keys of a row's name and of its request.

    `others`: further keys, whose values are texts.
    """

    name: VendorName
    title: str
    id: str
    body: str
    others: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of a line, in the vendor's order."""
        return self.id, *self.others, self.body

    @property
    def message(self) -> MessageTemplate:
        """What a row says: its body."""
        return MessageTemplate("user", f"{{{{ {self.body} }}}}")


VENDORS: Final[Mapping[VendorName, Vendor]] = MappingProxyType(
    {
        "openai": Vendor("openai", "OpenAI", "custom_id", "body", ("method", "url")),
        "anthropic": Vendor("anthropic", "Anthropic", "custom_id", "params"),
        "gemini": Vendor("gemini", "Gemini", "key", "request"),
    }
)
_DECODERS: Final = {
    name: msgspec.json.Decoder(
        msgspec.defstruct("Line", [*((key, str) for key in each.keys[:-1]), (each.body, msgspec.Raw)],
                          forbid_unknown_fields=True)
    ).decode
    for name, each in VENDORS.items()
}  # fmt: skip
"""What reads a line of the vendor's shape at once; why it can't read another line is told apart."""


class WrongLineError(ValueError):
    """A line is not what a batch file's line has to be. The text says why."""


class BatchStart(Struct, frozen=True):
    """What the first line of a batch file says: whose file it is, and what is asked; None where it does not say."""

    vendor: Vendor
    format: FormatName
    model: str | None


def told_by(path: Path, *, has_prompt: bool) -> BatchStart | None:
    """What the first line of an input says, if it is a vendor's batch file or several; None for every other input.

    `has_prompt`: the job has prompts of its own. Then a line with further keys is a row of a table.
    Raises `InputError` where the line is a vendor's and can't be used, or the file can't be read.
    """
    if is_several(path):
        with contextlib.suppress(InputError):  # which the opening of the input tells
            path = first_file(path)
    if files.kind_of(path.name) != JSONL_KIND or path.is_dir():
        return None
    with files.refusing(path), files.opened(path) as file, unpacked(path, file.raw) as stream:
        first = next((line for line in lines(path, stream) if is_filled(line.data)), None)
    if first is None:
        return None
    try:
        vendor = _vendor_of(line_members(first.data), has_prompt=has_prompt)
        return None if vendor is None else _start(vendor, first.data)
    except WrongLineError as error:
        files.refuse(path, str(error), first.number)


def is_filled(line: bytes) -> bool:
    """Whether a line is not blank. An editor may leave a byte order mark alone in the first."""
    return bool(line.removeprefix(_BOM).strip())


def line_members(data: bytes) -> dict[str, bytes]:
    """The members of a line, each value as it is written. Raises `WrongLineError` for what is no JSON object."""
    data = data.removeprefix(_BOM)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise WrongLineError(f"is no UTF-8 text (byte {error.start + 1})") from None
    try:
        return {key: bytes(value) for key, value in _decode_members(data).items()}
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        value = json.loads(data, parse_constant=_refuse_constant)  # reads half of a surrogate pair, too
    except json.JSONDecodeError as error:
        raise WrongLineError(f"is no JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise WrongLineError(f"can't be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise WrongLineError("is no JSON object")
    return {member.key: data[member.value : member.end] for member in json_spans.members(data)}


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number in JSON")


def cells_of(vendor: Vendor, data: bytes) -> tuple[str, ...]:
    """The values of a line in the order of the vendor's keys, its body as it is written.

    Raises `WrongLineError` for a line of another shape.
    """
    try:
        line = _DECODERS[vendor.name](data)
        cells = *(getattr(line, key) for key in vendor.keys[:-1]), bytes(getattr(line, vendor.body)).decode()
        if cells[-1][0] == "{" and not any(cell.isspace() or not cell for cell in cells):
            return cells
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    found = line_members(data)
    _refuse_shape(vendor, found)
    if found[vendor.body][:1] != b"{":
        raise WrongLineError(f"{vendor.body} must be a JSON object")
    return *(_text_of(found[key], key) for key in vendor.keys[:-1]), found[vendor.body].decode()


def body_of(vendor: Vendor, body: str) -> dict[str, Any]:
    """A body as values. Raises `WrongLineError` where it is none."""
    try:
        return decoded(body.encode())
    except ValueError as error:
        raise WrongLineError(f"{vendor.body} must be a JSON object ({error})") from None


def format_of(vendor: Vendor, cells: tuple[str, ...]) -> FormatName:
    """Which format a line's body is in. Raises `WrongLineError` for an address that answers no prompt."""
    if vendor.name != "openai":
        return "messages" if vendor.name == "anthropic" else "gemini"
    _, method, url, _ = cells
    if method != "POST":
        raise WrongLineError(f"method must be POST, not {shown(method)}")
    if url not in URLS:
        known = " and ".join(URLS)
        raise WrongLineError(f"url {shown(url)} is none that can be asked here; those that can are {known}")
    return URLS[url]


def _text_of(raw: bytes, key: str) -> str:
    """A value that has to be a text and not empty. Raises `WrongLineError`."""
    value = json.loads(raw)
    if not isinstance(value, str) or not value.strip():
        raise WrongLineError(f"{key} must be a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WrongLineError(f"{key} holds half of a surrogate pair") from None
    return value


def _refuse_shape(vendor: Vendor, found: Mapping[str, bytes]) -> None:
    """Raise `WrongLineError` for a line with other keys than the vendor's."""
    missing = [key for key in vendor.keys if key not in found]
    unknown = [key for key in found if key not in vendor.keys]
    if missing or unknown:
        words = [f"lacks {key}" for key in missing] + [f"has {shown(key)}" for key in unknown]
        shape = ", ".join(vendor.keys)
        raise WrongLineError(f"{' and '.join(words[:3])}; each line of {vendor.title}'s batch file has {shape}")


def _vendor_of(found: Mapping[str, bytes], *, has_prompt: bool) -> Vendor | None:
    for vendor in VENDORS.values():
        needed = {key for key in vendor.keys if key != "method"}
        is_whole = found.keys() == set(vendor.keys)
        if (is_whole or (needed <= found.keys() and not has_prompt)) and found[vendor.body][:1] == b"{":
            return vendor
    return None


def _start(vendor: Vendor, data: bytes) -> BatchStart:
    cells = cells_of(vendor, data)
    model = body_of(vendor, cells[-1]).get("model")
    if vendor.name == "gemini":
        return BatchStart(vendor, "gemini", None)
    if not isinstance(model, str) or not model.strip():
        raise WrongLineError(f"{vendor.body} names no model")
    return BatchStart(vendor, format_of(vendor, cells), model)


def settle(sections: Sections, start: BatchStart) -> None:
    """Put what the file says into the job, and note as a problem what the job says otherwise."""
    title, target, params = start.vendor.title, sections.values["target"], sections.given("params")
    whole = f"the lines of {title}'s batch file hold whole requests, which go out as they are"
    for section in ("prompt", "response"):
        if sections.has(section):
            sections.refuse(section, f"{whole}: leave {section} out, or give a table with other keys")
    if sections.values["input"].setdefault("id", start.vendor.id) not in (start.vendor.id, None):
        sections.refuse("input.id", f"{whole}: their id is {start.vendor.id}, so leave this out")
    for name, said in (("format", start.format), ("model", start.model)):
        if said is not None and target.setdefault(name, said) not in (said, None):
            sections.refuse(f"target.{name}", f"the batch file's first line says {shown(said)}: leave this out")
    if start.model is None and "model" not in target:
        sections.refuse("target.model", f"is missing: {title}'s batch file does not name the model")
    for section, name in _OF_TABLES:
        if sections.values[section].get(name) is not None:
            sections.refuse(f"{section}.{name}", f"{whole}: leave this out")
    laid_over = params.keys() - {OVERRIDE, SPELLING, "columns"}
    if laid_over and not params.get(OVERRIDE):
        words = f"{whole}; params.{OVERRIDE}: true lays params over each of them"
        sections.refuse(f"params.{min(laid_over)}", words)


def batch_of(sections: Sections, path: Path) -> BatchStart | None:
    """What the job's input says if it is a vendor's batch file, put into the job; None for every other input."""
    try:
        start = told_by(path, has_prompt=sections.has("prompt"))
    except InputError as error:
        if not sections.has("prompt"):  # any other job's input is looked at once it is needed
            sections.refuse("input.path", str(error))
            sections.problems.stop_if_any()  # what else is missing may stand in the file
        return None
    if start is not None:
        settle(sections, start)
    elif sections.given("params").get(OVERRIDE):
        sections.refuse(f"params.{OVERRIDE}", "has a meaning only with a vendor's batch file as input")
    return start
