"""The sections of a job: each value read by its kind, with every problem noted and its place remembered."""

from collections.abc import Collection, Mapping
from typing import Any

from cometbatch.errors import nearest
from cometbatch.job.key import Key
from cometbatch.job.keys import FREE, KEYS, PRICES, SINGLE, WORDS_FOR_SECTIONS, key_meant
from cometbatch.job.kinds import FLAG, SENT_TEXTS, Kind, expected
from cometbatch.job.secrets import join
from cometbatch.job.tree import Map, Node, Problems, Scalar, WrongError, is_null

_EMPTIED = "found nothing: a # begins a comment in YAML; put the text in quotes, or leave the key out"


class Sections:
    """One walk over the tree of a job.

    `values`: by section and key; None for a value that is wrong, and no entry for a key that is left out or null.
    `is_reusing`: whether `reuse` is true, or a mapping.
    `single`: the same of keys that stand in no section. `free`: the mappings whose keys a user names, unread.
    """

    def __init__(self, tree: Map, problems: Problems) -> None:
        self.values: dict[str, dict[str, Any]] = {section: {} for section in KEYS}
        self.is_reusing = not is_null(tree.entries.get("reuse"))
        self.single: dict[str, Any] = {}
        self.free: dict[str, Map] = {}
        self.problems = problems
        self._tree = tree
        self._where: dict[str, str] = {}
        self._comments: dict[str, str] = {}
        self._meant: set[str] = set()  # keys that an unknown one is near to
        for section, node in tree.entries.items():
            self._read_section(section, node)

    def given(self, section: str) -> dict[str, Any]:
        """The values of a section that are there and right."""
        return {name: value for name, value in self.values[section].items() if value is not None}

    def has(self, section: str) -> bool:
        """Whether the section is written in the job."""
        return not is_null(self._tree.entries.get(section))

    def is_misspelt(self, path: str) -> bool:
        """Whether a key, or its section, is there under an unknown name that is near to it."""
        return path in self._meant or path.partition(".")[0] in self._meant

    def where(self, path: str) -> str:
        """The place of a key; that of its section where the key is not there."""
        return self._where.get(path) or self._where.get(path.partition(".")[0]) or self._tree.where

    def comment(self, path: str) -> str:
        """The comment that YAML sees on the line where a key's value ends; "" for none."""
        return self._comments.get(path, "")

    def refuse(self, path: str, words: str) -> None:
        """Note a problem with a key."""
        self.problems.add(self.where(path), path, words)

    def read_map(self, path: str, node: Map, known: Mapping[str, Key]) -> dict[str, Any]:
        """The values of a mapping with these keys."""
        values: dict[str, Any] = {}
        for name, value in node.entries.items():
            self._where[f"{path}.{name}"] = node.keys[name].where
            if name not in known:
                self._refuse_unknown(node, path, name, known)
            elif not is_null(value):
                values[name] = self._read(f"{path}.{name}", known[name].kind, value)
            elif known[name].kind in SENT_TEXTS and isinstance(value, Scalar) and value.comment and not value.text:
                self.refuse(f"{path}.{name}", _EMPTIED)
                values[name] = None
        return values

    def note_place(self, path: str, node: Node) -> None:
        """Remember where a node stands that is no key of a section: an item of a list."""
        self._where[path] = node.where

    def _read_section(self, section: str, node: Node) -> None:
        self._where[section] = node.where
        if section in SINGLE:
            if not is_null(node):
                self.single[section] = self._read(section, SINGLE[section].kind, node)
        elif section in FREE:
            self._keep_free(section, node)
        elif section not in KEYS:
            self._refuse_unknown(self._tree, "", section, {**KEYS, **SINGLE, **FREE})
        elif isinstance(node, Map):
            self.values[section] = self.read_map(section, node, KEYS[section])
        elif section == "prices" and isinstance(node, Scalar) and not is_null(node):
            self.values["prices"] = {"catalog": self._read("prices", PRICES, node) == "catalog"}
        elif section == "reuse" and isinstance(node, Scalar) and node.tag == "bool":
            self.is_reusing = bool(self._read("reuse", FLAG, node))
        elif not is_null(node):
            words = WORDS_FOR_SECTIONS.get(section)
            choice = "" if words is None else f" or {words.words}"
            self.refuse(section, str(expected(f"a mapping{choice}", node)))
            self.values[section] = dict.fromkeys(KEYS[section])

    def _keep_free(self, section: str, node: Node) -> None:
        if isinstance(node, Map):
            self.free[section] = node
        elif not is_null(node):
            self.refuse(section, str(expected("a mapping", node)))

    def _refuse_unknown(self, node: Map, path: str, name: str, known: Collection[str]) -> None:
        near = key_meant(name, path, known)
        if (meant := nearest(name, known)) is not None:
            self._meant.add(join(path, meant))
        self.problems.add(node.keys[name].where, join(path, name), "unknown key" + (f"; {near}" if near else ""))

    def _read(self, path: str, kind: Kind[Any], node: Node) -> Any:
        """A value, or None, with the problem noted."""
        self._where[path] = node.where
        if isinstance(node, Scalar):
            self._comments[path] = node.comment
        try:
            return kind.read(node)
        except WrongError as error:
            self.refuse(path, str(error))
            return None
