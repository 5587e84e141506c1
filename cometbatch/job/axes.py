"""The section `matrix`: its axes, and what each of their values lays over the job.

Guards that an axis sets what belongs to one cell alone, and that each of its values has a name that people can tell
from the others.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Final, TypeAlias

from msgspec import Struct

from cometbatch.job.keys import FREE, KEYS, MATRIX, MATRIX_KEYS, PROMPT_TEXTS, SAMPLES, SINGLE, key_meant
from cometbatch.job.kinds import INT64_MAX, decimal, expected, refuse_surrogates
from cometbatch.job.matrix import ALWAYS, MAX_SLICES, Axis
from cometbatch.job.secrets import KEYS_DO_NOT_BELONG, is_secret, join, refuse_secrets, shown
from cometbatch.job.tree import List, Map, Node, Problems, Scalar, WrongError, is_null
from cometbatch.results import columns
from cometbatch.results.slices import Label, slice_names, text_of

MAX_CELLS: Final = 1_000
MAX_LABEL_CHARACTERS: Final = 40
NAMED: Final = ("name", "value")
"""The keys of an axis value that is no label by itself."""
_SHORT: Final = {"model": ("target", "model"), "format": ("target", "format"), "prices": ("prices",)}
_SHARED: Final = frozenset({("prompt", "images"), ("prompt", "allow_empty"), ("target", "model_column")})
"""Keys of sections with axes that are the same in all cells."""
_MERGED: Final = (("params", "extra"), ("params", "columns"))
"""Keys whose mappings are laid over the job's entry by entry."""
_WORD: Final = re.compile(r"[\w-]{1,40}")
_NUMBER: Final = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?")
_WHOLE: Final = re.compile(r"[-+]?\d[\d_]*")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_CAN: Final = "an axis is model, format, prices, a key of params or prompt, or a name of your own for variants"
Path: TypeAlias = tuple[str, ...]
"""A key of the job as its words."""


class AxisValue(Struct, frozen=True):
    """One value of an axis: what it is called, where it stands, and which values it lays over keys of the job."""

    label: Label
    where: str
    laid: tuple[tuple[Path, Node], ...]


class ReadAxis(Struct, frozen=True):
    """An axis with its values. `where`: the place of its name."""

    axis: Axis
    values: tuple[AxisValue, ...]
    where: str

    @property
    def keys(self) -> frozenset[Path]:
        """The keys of the job that it sets."""
        return frozenset(path for value in self.values for path, _ in value.laid)


class ReadMatrix(Struct, frozen=True):
    """The section as it was read."""

    axes: tuple[ReadAxis, ...]
    samples: int


def read_matrix(node: Node, problems: Problems) -> ReadMatrix | None:
    """The matrix of a job; None where it is wrong, which is noted."""
    before = len(problems.lines)
    words = "a mapping of axes to lists of values, with samples or without"
    if not isinstance(node, Map):
        problems.add(node.where, MATRIX, str(expected(words, node)))
        return None
    samples, axes = 1, []
    entries = {name: each for name, each in node.entries.items() if not is_null(each)}
    if not entries:
        problems.add(node.where, MATRIX, f"expected {words}, found nothing in it")
    for name, each in entries.items():
        if name == SAMPLES:
            samples = _read_samples(each, problems)
        elif (axis := _read_axis(name, each, node.keys[name].where, problems)) is not None:
            axes.append(axis)
    _check_columns(axes, problems)
    _check_keys(axes, problems)
    _check_size(axes, samples, node.where, problems)
    return ReadMatrix(tuple(axes), samples) if len(problems.lines) == before else None


def axis_path(name: str) -> Path | None:
    """The key of a job that an axis of this name sets; None where it sets none, or none that differs from cell to cell.

    Below `params.extra` and `params.columns`, it is an entry of that mapping.
    """
    path = _SHORT.get(name, tuple(name.split(".")))
    if path in _SHORT.values():
        return path
    section, *rest = path
    if not rest or path[:2] in _SHARED or rest[0] not in KEYS.get(section, {}):
        return None
    may_go_on = len(path) == 2 or path[:2] in _MERGED  # noqa: PLR2004 - section and key
    is_of_cells = section == "params" or (section == "prompt" and rest[0] in PROMPT_TEXTS)
    return path if may_go_on and is_of_cells and all(path) else None


def place_of(name: str) -> str:
    """The key path of an axis, for messages."""
    return ".".join([MATRIX, *(join("", word) for word in name.split("."))])


def laid_over(tree: Map, values: Iterable[AxisValue]) -> Map:
    """The job with these values laid over it; the tree itself stays as it is."""
    for value in values:
        for path, node in value.laid:
            tree = _put(tree, path, node)
    return tree


def _put(tree: Map, path: Path, node: Node) -> Map:
    made = Map(tree.where, dict(tree.entries), dict(tree.keys))
    name, *rest = path
    if rest:
        inner = tree.entries.get(name)
        if not isinstance(inner, Map) and not is_null(inner):
            return tree  # a section that is no mapping, which its reading refuses
        node = _put(inner if isinstance(inner, Map) else Map(node.where), tuple(rest), node)
    made.put(tree.keys.get(name) or Scalar(node.where, "str", name), node)
    return made


# --- reading ---


def _read_samples(node: Node, problems: Problems) -> int:
    try:
        return int(MATRIX_KEYS[SAMPLES].kind.read(node))
    except WrongError as error:
        problems.add(node.where, f"{MATRIX}.{SAMPLES}", str(error))
        return 1


def _read_axis(name: str, node: Node, where: str, problems: Problems) -> ReadAxis | None:
    place, path = place_of(name), axis_path(name)
    if is_secret(name):
        problems.add(where, place, KEYS_DO_NOT_BELONG)
        return None
    if path is None and (words := _why_no_axis(name)):
        problems.add(where, place, f"{words}; {_CAN}")
        return None
    if not isinstance(node, List) or not 1 <= len(node.items) <= MAX_CELLS:
        found = f"found {len(node.items):,} of them" if isinstance(node, List) else "found no list"
        problems.add(node.where, place, f"expected a list of 1 to {MAX_CELLS:,} values, {found}")
        return None
    read = [_read_value(item, path, f"{place}[{at}]", problems) for at, item in enumerate(node.items)]
    values = tuple(value for value in read if value is not None)
    _check_labels(values, place, problems)
    return ReadAxis(Axis(name, name.rpartition(".")[2], tuple(value.label for value in values)), values, where)


def _why_no_axis(name: str) -> str:
    """Why there is no axis of this name, in words; "" for a name of variants."""
    section, dot, key = name.partition(".")
    if section in ("target", "params", "prompt") and not dot:
        return f"an axis sets one key, as {section}.{next(iter(KEYS[section]))} does"
    if section in {*KEYS, *SINGLE, *FREE} and (
        section not in KEYS or not dot or key.partition(".")[0] in KEYS[section]
    ):
        return "is the same in all cells: set it beside the matrix"
    if dot or not _WORD.fullmatch(name):
        near = key_meant(key, section, KEYS[section]) if section in KEYS else ""
        return "unknown key" + (f"; {near}" if near else "")
    return ""


def _read_value(node: Node, path: Path | None, place: str, problems: Problems) -> AxisValue | None:
    """One value of an axis; None where it is wrong, which is noted."""
    before = len(problems.lines)
    try:
        if path is None:
            name, laid = _of_variant(node, place, problems)
        elif isinstance(node, Map):
            name, laid = _named(node, path)
        else:
            name, laid = node, _laid(path, node)
        for key, each in laid:
            refuse_secrets(_only(key[-1], each), ".".join(key[:-1]), problems)
        if name is not node:
            refuse_secrets(name, place, problems)
        label = _label(name)
    except WrongError as error:
        problems.add(node.where, place, str(error))
        return None
    return AxisValue(label, node.where, tuple(laid)) if len(problems.lines) == before else None


def _only(name: str, node: Node) -> Map:
    """A mapping with this entry alone."""
    made = Map(node.where)
    made.put(Scalar(node.where, "str", name), node)
    return made


def _named(node: Map, path: Path) -> tuple[Node, list[tuple[Path, Node]]]:
    """The name of a value that is a mapping of name and value, and what it lays over the job."""
    if sorted(node.entries) != sorted(NAMED):
        raise WrongError("expected a value, or a mapping of name and value: {name: …, value: …}")
    return node.entries["name"], _laid(path, node.entries["value"])


def _of_variant(node: Node, place: str, problems: Problems) -> tuple[Node, list[tuple[Path, Node]]]:
    """The name of a variant, and what it lays over the job: keys by section, or by the names that axes have."""
    if not isinstance(node, Map):
        axis = place.partition(".")[2].partition("[")[0]
        raise expected("a mapping with name and keys that are laid over the job", node, key_meant(axis, "", ()))
    laid: list[tuple[Path, Node]] = []
    for name, each in node.entries.items():
        if name == "name" or is_null(each):
            continue
        for key, value, where in _keys_of(name, each, node.keys[name].where):
            path = axis_path(key)
            if path is None:
                problems.add(where, join(place, key), _why_no_axis(key) or "unknown key")
            else:
                laid += _laid(path, value)
    if "name" not in node.entries:
        raise WrongError("name is missing: each variant has one")
    return node.entries["name"], laid


def _keys_of(name: str, node: Node, where: str) -> Iterator[tuple[str, Node, str]]:
    """The keys that one entry of a variant sets, each with its value and its place: those of a section one by one."""
    if name in ("target", "params", "prompt") and isinstance(node, Map):
        yield from ((f"{name}.{inner}", each, node.keys[inner].where) for inner, each in node.entries.items())
    else:
        yield name, node, where


def _laid(path: Path, node: Node) -> list[tuple[Path, Node]]:
    if path in _MERGED and isinstance(node, Map) and node.entries:
        return [((*path, name), each) for name, each in node.entries.items()]
    return [(path, node)]


def _label(node: Node) -> Label:
    """What a value is called. Raises `WrongError` where it needs a name."""
    hint = "give it a name: {name: …, value: …}"
    if not isinstance(node, Scalar) or node.tag in ("null", "other"):
        raise expected("a text, a number or a truth value", node, hint)
    if node.tag == "bool":
        return node.text.lower() in ("true", "yes", "on")
    if node.tag in ("int", "float") or (node.tag == "str" and node.plain and _NUMBER.fullmatch(node.text)):
        exact = decimal(node, "a number")
        if abs(exact) > INT64_MAX:
            raise expected("a smaller number", node, hint)
        return int(exact) if _WHOLE.fullmatch(node.text) else float(exact)
    refuse_surrogates(node.text, "a text")
    if len(node.text) > MAX_LABEL_CHARACTERS or _CONTROL.search(node.text):
        raise WrongError(f"a text of several lines, or above {MAX_LABEL_CHARACTERS} characters, is no label: {hint}")
    if not node.text.strip():
        raise WrongError(f"expected a text, found nothing in it: {hint}")
    return node.text


# --- values that have to fit together ---


def _check_labels(values: Sequence[AxisValue], place: str, problems: Problems) -> None:
    """Labels that can't be told apart, as 1 and 1.0, or 1 and "1" beside other texts."""
    seen: dict[object, AxisValue] = {}
    for value in values:
        signs = {text_of(value.label), *([] if isinstance(value.label, str) else [value.label])}
        twice = next((seen[sign] for sign in signs if sign in seen), None)
        if twice is not None:
            words = f"the label {shown(text_of(value.label))} is there twice, first at {twice.where}"
            problems.add(value.where, place, words)
        seen |= dict.fromkeys(signs, value)


def _check_columns(axes: Sequence[ReadAxis], problems: Problems) -> None:
    """Columns of axes that are named like other columns of the result."""
    seen: dict[str, str] = {}
    for each in axes:
        name, column = each.axis.name, each.axis.column
        is_of_result = column in slice_names(()) or columns.is_known(column)
        if is_of_result or (column in ALWAYS and axis_path(name) not in _SHORT.values()):
            words = (
                f"its column would be named {column}, as another one of the result is: use variants under another name"
            )
            problems.add(each.where, place_of(name), words)
        elif seen.setdefault(column, name) != name:
            words = f"its column would be named {column}, as that of {seen[column]} is"
            problems.add(each.where, place_of(name), words)


def _check_keys(axes: Sequence[ReadAxis], problems: Problems) -> None:
    """Keys that two axes set: one of them would never be asked."""
    for at, each in enumerate(axes):
        for other in axes[:at]:
            twice = sorted(key for key in each.keys if any(_is_within(key, theirs) for theirs in other.keys))
            if twice:
                words = f"sets {'.'.join(twice[0])}, as the axis {other.axis.name} does: a key is set by one axis"
                problems.add(each.where, place_of(each.axis.name), words)


def _is_within(one: Path, other: Path) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _check_size(axes: Sequence[ReadAxis], samples: int, where: str, problems: Problems) -> None:
    cells = prod(len(each.values) for each in axes)
    if cells > MAX_CELLS:
        problems.add(where, MATRIX, f"the axes make {cells:,} cells, and a job has at most {MAX_CELLS:,}")
    elif cells * samples > MAX_SLICES:
        words = f"{cells:,} cells and {samples:,} samples make {cells * samples:,} passes over the rows"
        problems.add(where, MATRIX, f"{words}, and a job has at most {MAX_SLICES:,}")
