"""YAML text -> our tree. Hides YAML and its traps.

An alias can multiply and hold itself; a merge key adds pairs from elsewhere; a key can be there twice or be a list; a
tag can ask for code; nesting can be thousands deep; PyYAML's own messages quote the text, which may hold a secret.
"""

import contextlib
import re
from collections.abc import Iterator

import yaml
from msgspec import Struct

from cometbatch.job.secrets import join
from cometbatch.job.tree import Bounds, BrokenError, List, Map, Node, Problems, Scalar

BRACES_HINT = "a text that starts with {{ needs quotes around it"
"""The hint where a template without quotes was read as a mapping."""

_INSIDE_HINT = "a text with {{ at its start, or within braces, needs quotes around it"

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {f"{_TAG}{name}": name for name in ("str", "null", "bool", "int", "float", "timestamp")}
_SCALAR_TAGS[f"{_TAG}value"] = "str"  # a lone = sign, which YAML 1.1 gives a meaning of its own
_MERGE_TAG = f"{_TAG}merge"
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_COMMENT = re.compile(r"[ \t]*(#[^\0\r\n]*)")  # PyYAML puts a NUL at the end of the text
_FAILURES = (yaml.YAMLError, ArithmeticError, LookupError, ValueError, TypeError, RecursionError)
"""All that PyYAML raises. Some are Python's own: `"\\UFFFFFFFF"` overflows, deep nesting recurses."""


class Origin(Struct, frozen=True):
    """Where a text comes from: a name for messages, and whether messages give lines, too."""

    name: str
    has_lines: bool = True

    def at(self, line: int) -> str:
        """The place of a line, given 0-based and shown 1-based."""
        return f"{self.name}:{line + 1}" if self.has_lines else self.name


def parse(text: str, origin: Origin, problems: Problems, path: str = "") -> Node | None:
    """The tree of a YAML document that stands at a key path; None for an empty one. Raises `BrokenError`."""
    _refuse_control_characters(text, origin)
    node = _compose(text, origin)
    if not origin.has_lines and text[0 if node is None else node.end_mark.index :].lstrip().startswith("#"):
        raise BrokenError(origin.name, "a # begins a comment in YAML, which ends the value: put quotes around it")
    return None if node is None else _TreeBuilder(origin, problems).build(node, path)


def plain_text(text: str, origin: Origin) -> Scalar:
    """A text as a person types it; one that is wholly in quotes is read as YAML reads it. Raises `BrokenError`."""
    _refuse_control_characters(text, origin)
    quoted, node = text.strip(), None
    if quoted[:1] in ('"', "'") and len(quoted) > 1 and quoted[0] == quoted[-1]:
        with contextlib.suppress(*_FAILURES):
            node = yaml.compose(quoted, Loader=yaml.SafeLoader)
    is_whole = isinstance(node, yaml.ScalarNode) and node.end_mark.index == len(quoted)
    return Scalar(origin.name, "str", _with_whole_pairs(node.value) if is_whole and node else text, plain=False)


def _refuse_control_characters(text: str, origin: Origin) -> None:
    bad = _NOT_YAML.search(text)
    if bad:
        where = origin.at(text.count("\n", 0, bad.start()))
        if "\udc80" <= bad[0] <= "\udcff":  # how Python shows a byte of the command line that is no UTF-8
            raise BrokenError(where, f"the byte 0x{ord(bad[0]) & 0xFF:02X} is not UTF-8 text; use a name in UTF-8")
        raise BrokenError(where, f"the control character U+{ord(bad[0]):04X} has no place in a job")


def _with_whole_pairs(text: str) -> str:
    """The text with one character for each pair of surrogates: JSON writes an emoji so, and YAML has no such pairs."""
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)


def _compose(text: str, origin: Origin) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except _FAILURES as error:
        mark = getattr(error, "problem_mark", None)
        has_braces = mark is not None and "{{" in _line(text, mark.index)
        words = f"not valid YAML: {_words(error)}" + (f"; {_INSIDE_HINT}" if has_braces else "")
        raise BrokenError(origin.at(mark.line) if mark else origin.name, words) from None


def _line(text: str, index: int) -> str:
    """The line that holds this place of a text."""
    end = text.find("\n", index)
    return text[text.rfind("\n", 0, index) + 1 : None if end < 0 else end]


def _words(error: Exception) -> str:
    """What PyYAML says, without its quotes from the text."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    words = str(getattr(error, "problem", None) or "a value that can't be read")
    if "'\\t'" in words:
        return "a tab where only spaces may be: indent with spaces"
    if "another document" in words:
        return "a second document begins (---); a job is one document"
    if "mapping values are not allowed" in words:
        return "a second colon or a wrong indent; text with a colon in it needs quotes around it"
    return re.sub(r"'([^']*)'", _without_names, words)


def _without_names(quoted: re.Match[str]) -> str:
    """Kept are '<token>' and ','; names of aliases and the like may be secrets."""
    is_sign = len(quoted[1].removeprefix("\\")) == 1 or quoted[1].startswith("<")
    return quoted[0] if is_sign else "…"


class _TreeBuilder:
    """Makes our tree from YAML's nodes, within bounds."""

    def __init__(self, origin: Origin, problems: Problems) -> None:
        self._origin = origin
        self._problems = problems
        self._bounds = Bounds()

    def build(self, node: yaml.Node, path: str, depth: int = 0) -> Node:
        """The tree under a YAML node, aliases written out and merge keys merged."""
        self._bounds.spend(self._where(node), depth)
        match node:
            case yaml.MappingNode():
                self._check_tag(node, path, f"{_TAG}map")
                return self._map(node, path, depth)
            case yaml.SequenceNode():
                self._check_tag(node, path, f"{_TAG}seq")
                items = [self.build(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(node.value)]
                return List(self._where(node), items)
        self._check_tag(node, path, *_SCALAR_TAGS)
        return self._scalar(node)

    def _where(self, node: yaml.Node) -> str:
        return self._origin.at(node.start_mark.line)

    def _scalar(self, node: yaml.Node) -> Scalar:
        tag, mark = _SCALAR_TAGS.get(node.tag, "str"), node.end_mark
        plain = getattr(node, "style", None) is None
        found = _COMMENT.match(mark.buffer or "", mark.pointer) if plain else None
        comment = found[1].strip() if found else ""
        return Scalar(self._where(node), tag, _with_whole_pairs(node.value), plain=plain, comment=comment)

    def _check_tag(self, node: yaml.Node, path: str, *known: str) -> None:
        if node.tag not in known:
            self._problems.add(self._where(node), path, "YAML tags (a word after !) have no place in a job")

    def _map(self, node: yaml.MappingNode, path: str, depth: int) -> Map:
        built = Map(self._where(node))
        for key, value, is_merged in self._pairs(node, path, depth):
            name = _with_whole_pairs(key.value)
            if is_merged:
                self._bounds.spend(built.where, depth)  # even a pair that is there already took its time
            if name not in built.entries:
                built.put(self._scalar(key), self.build(value, join(path, name), depth + 1))
            elif not is_merged:
                words = f"the key is there twice, first at {built.keys[name].where}"
                self._problems.add(self._where(key), join(path, name), words)
        return built

    def _pairs(
        self, node: yaml.MappingNode, path: str, depth: int
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node, bool]]:
        """A mapping's own pairs, then those merged into it (`<<`), which never win over its own."""
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(self._where(key), path, f"expected a word as key; {BRACES_HINT}")
            elif key.tag != _MERGE_TAG:
                yield key, value, False
        for source in self._merged(node, path):
            self._bounds.spend(self._where(source), depth)
            yield from ((key, value, True) for key, value, _ in self._pairs(source, path, depth + 1))

    def _merged(self, node: yaml.MappingNode, path: str) -> Iterator[yaml.MappingNode]:
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(source, yaml.MappingNode):
                        yield source
                    else:
                        self._problems.add(self._where(source), path, "expected a mapping to merge (<<)")
