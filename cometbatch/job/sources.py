"""A job file or a mapping, with `--set` strings put over it -> one tree.

Hides where a job comes from: bytes in some encoding, which may be no text; Python values, which may have a type that
YAML lacks; `key.sub=value` strings.
"""

import codecs
import contextlib
import itertools
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from cometbatch.errors import did_you_mean
from cometbatch.job.document import Origin, parse, plain_text
from cometbatch.job.secrets import join, printable, shown
from cometbatch.job.tree import Bounds, BrokenError, List, Map, Node, Problems, Scalar, is_null

MAX_FILE_BYTES = 256 << 10
"""A larger file is hardly a job, and a hostile one of this size is refused in a few seconds."""
MAX_NAMES = 1_000
"""Files of a folder that are compared with the name of one that is not there."""
MAX_INT_BITS = 1_000
"""Python refuses to print an integer of many thousand bits; no key takes one of a thousand."""

STANDARD_INPUT = "-"
"""The job file's name that stands for standard input."""
_DESCRIPTORS = tuple(map(Path, ("/dev", "/dev/fd", "/proc/self/fd")))

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_tree(
    source: Path | Mapping[str, object],
    overrides: Sequence[str],
    problems: Problems,
    takes_text: Callable[[str, str], bool],
) -> Map:
    """The tree of a job. Problems are noted, and the parts that can't be read are left out.

    `takes_text`: whether a key, given as its path, is given this value as a text, and not as YAML.
    """
    tree = Map("job")
    with problems.noted():
        tree = _from_mapping(source) if isinstance(source, Mapping) else _from_file(source, problems)
    for override in overrides:
        with problems.noted():
            _set(tree, override, problems, takes_text)
    return tree


# --- a file ---


def _from_file(path: Path, problems: Problems) -> Map:
    name = printable(path)
    tree = parse(_decode(_read(path, name), name), Origin(name), problems)
    if tree is None:
        raise BrokenError(name, "is empty: a job needs at least input, output, target and prompt")
    if not isinstance(tree, Map):
        raise BrokenError(tree.where, "expected a mapping with input, output, target and prompt")
    return tree


def _read(path: Path, name: str) -> bytes:
    try:
        if name == STANDARD_INPUT:
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            mode = path.stat().st_mode
            if not (
                stat.S_ISREG(mode) or (stat.S_ISFIFO(mode) and is_piped(path))
            ):  # another pipe may never be written
                raise BrokenError(name, "is a folder, not a file" if stat.S_ISDIR(mode) else "is not a plain file")
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise BrokenError(name, f"can't be read: {error.strerror}{_names_near(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BrokenError(name, f"can't be read: {getattr(error, 'strerror', None) or 'not a file name'}") from None
    if len(data) > MAX_FILE_BYTES:
        raise BrokenError(name, f"more than {MAX_FILE_BYTES >> 10} KiB: this is hardly a job file")
    return data


def is_piped(path: Path) -> bool:
    """Whether a job comes from standard input or a pipe that is open already, and so from no folder."""
    return str(path) == STANDARD_INPUT or path.parent in _DESCRIPTORS


def _names_near(path: Path) -> str:
    """A hint at a file of nearly this name."""
    with contextlib.suppress(OSError):
        beside = itertools.islice(path.parent.iterdir(), MAX_NAMES)
        near = did_you_mean(path.name, (each.name for each in beside if each.is_file()))
        return f"; {near}" if near else ""
    return ""


def _decode(data: bytes, name: str) -> str:
    """The text in UTF-8, or in the encoding of its byte order mark. Raises `BrokenError` with the first wrong line."""
    encoding = next((encoding for bom, encoding in _BOMS if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        where = Origin(name).at(data.count(b"\n", 0, error.start))
        raise BrokenError(where, f"not text in {encoding.removesuffix('-sig').upper()}") from None


# --- a mapping ---


def _from_mapping(source: Mapping[str, object]) -> Map:
    tree = _built(source, Bounds())
    assert isinstance(tree, Map)  # noqa: S101 - for the type checker: a mapping becomes one
    return tree


def _built(value: object, bounds: Bounds, depth: int = 0) -> Node:
    bounds.spend("job", depth)
    match value:
        case type() if hasattr(value, "model_json_schema"):  # a model class of pydantic, which need not be installed
            return _built(value.model_json_schema(), bounds, depth)
        case Mapping():
            built = Map("job")
            for key, item in value.items():
                built.put(scalar(key), _built(item, bounds, depth + 1))
            return built
        case list() | tuple():
            return List("job", [_built(item, bounds, depth + 1) for item in value])
    return scalar(value)


def node_of(value: Mapping[str, object], where: str) -> Map:
    """The tree of a Python mapping that belongs to this place of a job."""
    found = _placed(_built(value, Bounds()), where)
    assert isinstance(found, Map)  # noqa: S101 - for the type checker: a mapping becomes one
    return found


def _placed(node: Node, where: str) -> Node:
    match node:
        case Map():
            keys = {name: msgspec.structs.replace(key, where=where) for name, key in node.keys.items()}
            return Map(where, {name: _placed(each, where) for name, each in node.entries.items()}, keys)
        case List():
            return List(where, [_placed(each, where) for each in node.items])
    return msgspec.structs.replace(node, where=where)


def scalar(value: object) -> Scalar:
    """A Python value as YAML would have it."""
    tag, text = _tag_and_text(value)
    return Scalar("job", tag, text, plain=tag != "str")


def _tag_and_text(value: object) -> tuple[str, str]:
    """YAML's tag and text for a Python value; "other" and the name of its type where YAML has none."""
    match value:
        case None:
            found = "null", ""
        case bool():
            found = "bool", str(value).lower()
        case int():
            found = "int", str(value) if value.bit_length() <= MAX_INT_BITS else "9" * MAX_INT_BITS
        case float() | Decimal():
            found = "float", str(value)
        case str():
            found = "str", str(value)
        case os.PathLike():
            found = "str", os.fsdecode(value)
        case _:
            found = "other", type(value).__name__
    return found


# --- a --set ---


def _set(tree: Map, override: str, problems: Problems, takes_text: Callable[[str, str], bool]) -> None:
    """Put one `--set key.sub=value` into the tree.

    Nothing and `null` leave the key out. A person types a text as it is: `#`, `: ` and `{{` mean nothing in it. Only a
    text that is wholly in quotes is YAML.
    """
    path, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", path):
        raise BrokenError(f"--set {shown(path)}", "expected key.sub=value")
    *sections, key = path.split(".", 1) if path.startswith("matrix.") else path.split(".")
    safe_path = ".".join(join("", part) for part in (*sections, key))
    where = f"--set {safe_path}"
    origin = Origin(where, has_lines=False)
    value: Node | None = None
    if text not in ("", "null"):
        is_text = takes_text(path, text)
        value = plain_text(text, origin) if is_text else parse(text, origin, problems, safe_path)
    value = value or Scalar(where, "null", "")
    for section in sections:
        tree = _subsection(tree, section, where)
    tree.put(Scalar(where, "str", key), value)


def _subsection(tree: Map, key: str, where: str) -> Map:
    """The mapping under a key, made where there is none yet; it replaces `prices: catalog`, too."""
    found = tree.entries.get(key)
    if isinstance(found, Map):
        return found
    if not is_null(found) and not (isinstance(found, Scalar) and key == "prices"):
        raise BrokenError(where, f"{join('', key)} is no mapping in the job, so nothing can be set in it")
    made = Map(where)
    tree.put(Scalar(where, "str", key), made)
    return made
