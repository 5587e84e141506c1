"""The tree that a job is read into, from a file or a mapping, and the list of its problems.

Guards that every value knows its place, and that each tree has bounds: an alias can multiply, and a Python mapping can
hold itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeGuard

import msgspec
from msgspec import Struct

from cometbatch.errors import JobError

MAX_VALUES = 20_000
"""Values in a job once its aliases are written out."""
MAX_DEPTH = 60
"""Mappings and lists within each other."""
MAX_PROBLEMS_SHOWN = 30
"""Lines of one `JobError`; further problems are counted."""


class Scalar(Struct):
    """A value that is no list and no mapping.

    `where` is "FILE:LINE". `tag` is YAML's name of its type ("str", "int", …), or "other" for a Python value whose type
    YAML lacks; `text` is then the name of that type. `plain`: it had no quotes. `comment`: what stands after it in its
    line as a comment.
    """

    where: str
    tag: str
    text: str
    plain: bool = True
    comment: str = ""


class List(Struct):
    """A list of values."""

    where: str
    items: "list[Node]"


class Map(Struct):
    """A mapping. `keys`: the keys of its entries as they were written."""

    where: str
    entries: "dict[str, Node]" = msgspec.field(default_factory=dict)
    keys: dict[str, Scalar] = msgspec.field(default_factory=dict)

    def put(self, key: Scalar, value: "Node") -> None:
        """Add an entry, or replace it."""
        self.keys[key.text], self.entries[key.text] = key, value


Node: TypeAlias = Scalar | List | Map


def is_null(node: Node | None) -> bool:
    """Whether there is no value. In a job, null is the same as a key that is left out."""
    return node is None or (isinstance(node, Scalar) and node.tag == "null")


def is_text(node: Node | None) -> TypeGuard[Scalar]:
    """Whether YAML reads this as text."""
    return isinstance(node, Scalar) and node.tag == "str"


class BrokenError(Exception):
    """The text can't be read into a tree. The words never quote the text, which could hold a secret."""

    def __init__(self, where: str, words: str) -> None:
        super().__init__(words)
        self.where = where


class WrongError(Exception):
    """A value is wrong; the words name the expected one."""


class Bounds:
    """How many more values a tree may have."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def spend(self, where: str, depth: int) -> None:
        """Count one value at this depth. Raises `BrokenError` beyond the bounds."""
        self._left -= 1
        if self._left < 0:
            raise BrokenError(where, f"more than {MAX_VALUES} values, aliases written out")
        if depth > MAX_DEPTH:
            raise BrokenError(where, "nested too deeply")


def place(where: str, path: str) -> str:
    """The place of a problem: "FILE:LINE: KEY". The key is left out where there is none, and after its own --set."""
    return where if path == "" or where == f"--set {path}" else f"{where}: {path}"


class Problems:
    """The problems of a job, one line each. `within`: what the key paths begin with."""

    def __init__(self, within: str = "") -> None:
        self.lines: list[str] = []
        self._within = within

    def add(self, where: str, path: str, words: str) -> None:
        """Note a problem with the value of a key."""
        whole = self._within + path if path else self._within.rstrip(".")
        self.lines.append(f"{place(where, whole)}: {words}")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a `BrokenError` that is raised in this block; what follows the block is done all the same."""
        try:
            yield
        except BrokenError as error:
            self.add(error.where, "", str(error))

    def stop_if_any(self) -> None:
        """Raise `JobError` with all of them."""
        shown = self.lines[:MAX_PROBLEMS_SHOWN]
        if len(self.lines) > len(shown):
            shown.append(f"and {len(self.lines) - len(shown)} more problems")
        if shown:
            raise JobError("\n".join(shown))
