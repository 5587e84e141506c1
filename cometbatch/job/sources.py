"""A job file or a mapping, with `--set` strings put over it -> one tree.

Hides where a job comes from: bytes in some encoding, which may be no text; Python values, which may have a type that
YAML lacks; `key.sub=value` strings.
"""

import codecs
import os
import re
import stat
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from cometbatch.job.document import Origin, parse
from cometbatch.job.secrets import join, printable, shown
from cometbatch.job.tree import Bounds, BrokenError, List, Map, Node, Problems, Scalar, is_null

MAX_FILE_BYTES = 256 << 10
"""A larger file is hardly a job, and a hostile one of this size is refused in a few seconds."""
MAX_INT_BITS = 1_000
"""Python refuses to print an integer of many thousand bits; no key takes one of a thousand."""

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_tree(source: Path | Mapping[str, object], overrides: Sequence[str], problems: Problems) -> Map:
    """The tree of a job. Problems are noted, and the parts that can't be read are left out."""
    tree = Map("job")
    with problems.noted():
        tree = _from_mapping(source) if isinstance(source, Mapping) else _from_file(source, problems)
    for override in overrides:
        with problems.noted():
            _set(tree, override, problems)
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
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise BrokenError(name, "is a folder, not a file" if stat.S_ISDIR(mode) else "is not a plain file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BrokenError(name, f"can't be read: {getattr(error, 'strerror', None) or 'not a file name'}") from None
    if len(data) > MAX_FILE_BYTES:
        raise BrokenError(name, f"more than {MAX_FILE_BYTES >> 10} KiB: this is hardly a job file")
    return data


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
        case Mapping():
            built = Map("job")
            for key, item in value.items():
                built.put(_scalar(key), _built(item, bounds, depth + 1))
            return built
        case list() | tuple():
            return List("job", [_built(item, bounds, depth + 1) for item in value])
    return _scalar(value)


def _scalar(value: object) -> Scalar:
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


def _set(tree: Map, override: str, problems: Problems) -> None:
    """Put one `--set key.sub=value` into the tree."""
    path, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", path):
        raise BrokenError(f"--set {shown(path)}", "expected key.sub=value")
    *sections, key = path.split(".")
    safe_path = ".".join(join("", part) for part in (*sections, key))
    where = f"--set {safe_path}"
    value = parse(text, Origin(where, has_lines=False), problems, safe_path) or Scalar(where, "null", "")
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
