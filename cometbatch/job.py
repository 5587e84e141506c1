"""The job: what `job.yaml` says, validated as a whole, with every problem found named by file, line and key.

Hides YAML and its surprises (`no` is a truth value, `1e-3` is text, an alias can multiply, a tag can ask for code) and
guards two promises: a job that loads can be carried out as far as the job alone can tell, and no secret is in it:
neither an error, nor `repr(job)`, nor a fingerprint ever shows one.

From top to bottom: the settings; reading a file, a mapping and `--set` into one plain tree; secrets; what a value of
each kind must look like; the table of keys; putting it all together.
"""

import codecs
import difflib
import ipaddress
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args
from urllib.parse import SplitResult, urlsplit

import msgspec
import yaml
from msgspec import Struct

from cometbatch.errors import JobError
from cometbatch.pricing import PriceSettings
from cometbatch.records import GenerationParams, Role
from cometbatch.template import PromptTemplate, TemplateError, compile_prompt
from cometbatch.wire import FORMATS, FormatName
from cometbatch.wire.messages import DEFAULT_MAX_TOKENS

DEFAULT_BASE_URL = "https://api.cometapi.com"
SIMULATOR = "simulator"
"""The base URL that stands for the simulator that comes with this package."""
MAX_FILE_BYTES = 1 << 20
MAX_VALUES = 20_000
"""Values in a job once its aliases are written out."""
MAX_DEPTH = 60
MAX_PROBLEMS_SHOWN = 30
MAX_SHOWN_CHARACTERS = 40
MAX_PARTITION_ROWS = 8_192
MAX_SECONDS = 3_600
MAX_PUSHBACK_S = 86_400
INT64_MAX = (1 << 63) - 1
DELIMITERS = {".csv": ",", ".tsv": "\t", ".parquet": None}
"""Endings of input files that can be read, and what parts the cells where the job does not say."""


# --- The settings -----------------------------------------------------------------------------------------------------


class InputSettings(Struct, frozen=True):
    """Where the rows come from. `delimiter` is None for Parquet, where it means nothing."""

    path: Path
    id: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None


class OutputSettings(Struct, frozen=True):
    """Where the answers go. `is_dataset`: `path` is a folder whose parts are the result, not one file."""

    path: Path
    prefix: str = ""
    partition_rows: int | None = None
    is_dataset: bool = False


class TargetSettings(Struct, frozen=True):
    """Which service and model are asked, and how. `base_url` has no `/v1` and no slash at its end."""

    format: FormatName
    model: str
    base_url: str = DEFAULT_BASE_URL
    key_env: str = "COMETAPI_KEY"
    allow_http: bool = False

    @property
    def is_simulator(self) -> bool:
        """Whether the simulator of this package is asked, and no service."""
        return self.base_url == SIMULATOR

    @property
    def service(self) -> str:
        """Who answers, as far as answers depend on it: "simulator", "loopback" whatever the port, or the base URL."""
        if self.is_simulator:
            return SIMULATOR
        return "loopback" if _is_loopback(urlsplit(self.base_url).hostname or "") else self.base_url


class MessageTemplate(Struct, frozen=True):
    """One message of the prompt, before a row fills it in."""

    role: Role
    template: str


class LimitSettings(Struct, frozen=True):
    """How fast to go: requests in flight, per minute; tokens per minute; seconds for one exchange."""

    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 300.0


class RetrySettings(Struct, frozen=True):
    """How long to try: attempts for a row, seconds between two, seconds that the service may hold everyone back."""

    max_attempts: int = 5
    max_wait_s: float = 30.0
    max_pushback_s: float = 900.0


class SimulatorSettings(Struct, frozen=True):
    """How the simulator behaves. `faults` maps a fault's name to its share of requests, from 0 to 1."""

    seed: int = 0
    latency_s: tuple[float, float] = (0.5, 1.5)
    rps: float | None = None
    faults: dict[str, float] = msgspec.field(default_factory=dict)
    retry_after: bool = False


class Job(Struct, frozen=True):
    """What is to be done: made by `load_job`, which has checked it. Paths are absolute. Holds no secret."""

    input: InputSettings
    output: OutputSettings
    target: TargetSettings
    messages: tuple[MessageTemplate, ...]
    params: GenerationParams = GenerationParams()
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    prices: PriceSettings = PriceSettings()
    simulator: SimulatorSettings | None = None
    source_path: Path | None = None

    def prompt_template(self) -> PromptTemplate:
        """The compiled prompt. Compiles anew at each call."""
        return compile_prompt([(message.role, message.template) for message in self.messages], self.params)

    def fingerprint(self) -> dict[str, object]:
        """What in the job changes answers, as JSON-ready values by key path: two runs that differ here don't mix."""
        target = {"format": self.target.format, "model": self.target.model, "service": self.target.service}
        source = {"id": self.input.id, "encoding": self.input.encoding, "delimiter": self.input.delimiter}
        fields: dict[str, object] = {f"target.{name}": value for name, value in target.items()}
        fields |= {f"input.{name}": value for name, value in source.items()}
        fields["output.prefix"] = self.output.prefix
        for index, message in enumerate(self.messages):
            fields[f"prompt.messages[{index}].role"] = message.role
            fields[f"prompt.messages[{index}].content"] = message.template
        return fields | {f"params.{name}": value for name, value in _plain(self.params).items()}

    def describe(self) -> dict[str, object]:
        """The whole job as JSON-ready values, for manifests and metadata."""
        return _plain(self)


def _plain(value: Struct) -> dict[str, Any]:
    """A Struct as JSON would give it back: Decimals and paths are strings, tuples are lists."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(value, enc_hook=str)))


# --- Reading: a file, a mapping and --set become one tree -------------------------------------------------------------

_YAML_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {f"{_YAML_TAG}{name}": name for name in ("str", "null", "bool", "int", "float", "timestamp")}
_SCALAR_TAGS[f"{_YAML_TAG}value"] = "str"  # a lone = sign, which YAML 1.1 gives a meaning of its own
_MERGE_TAG = f"{_YAML_TAG}merge"
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_YAML_FAILURES = (yaml.YAMLError, ArithmeticError, LookupError, ValueError, TypeError, RecursionError)
"""PyYAML lets errors of Python's own escape: `"\\UFFFFFFFF"` overflows, deep nesting recurses."""
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class _Scalar(Struct):
    """A value that is no list and no mapping. `where` is "FILE:LINE", `plain` means that it had no quotes."""

    where: str
    tag: str
    text: str
    plain: bool = True


class _List(Struct):
    where: str
    items: "list[_Node]"


class _Map(Struct):
    """`keys` are the entries' keys as they were written."""

    where: str
    entries: "dict[str, _Node]" = msgspec.field(default_factory=dict)
    keys: dict[str, _Scalar] = msgspec.field(default_factory=dict)


_Node: TypeAlias = _Scalar | _List | _Map


class _Problems:
    """What is wrong with a job, one line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: str, path: str, words: str) -> None:
        parts = (where, "" if where == f"--set {path}" else path, words)
        self.lines.append(": ".join(part for part in parts if part))

    def stop_if_any(self) -> None:
        """Raise `JobError` with all of them."""
        shown = self.lines[:MAX_PROBLEMS_SHOWN]
        if len(self.lines) > len(shown):
            shown.append(f"and {len(self.lines) - len(shown)} more problems")
        if shown:
            raise JobError("\n".join(shown))


class _BrokenError(Exception):
    """There is no tree to go on with."""

    def __init__(self, where: str, words: str) -> None:
        super().__init__(words)
        self.where = where


class _Grower:
    """Makes our tree, within bounds, from YAML's nodes or from Python's values."""

    def __init__(self, name: str, problems: _Problems, *, has_lines: bool) -> None:
        self._name = name
        self._problems = problems
        self._has_lines = has_lines
        self._left = MAX_VALUES

    def from_yaml(self, node: yaml.Node, path: str = "", depth: int = 0) -> _Node:
        """The tree under a YAML node, aliases written out and merge keys merged."""
        where = self._where(node)
        self._spend(where, depth)
        match node:
            case yaml.MappingNode():
                return self._map(node, path, depth)
            case yaml.SequenceNode():
                self._check_tag(node, path, f"{_YAML_TAG}seq")
                items = [self.from_yaml(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(node.value)]
                return _List(where, items)
        self._check_tag(node, path, *_SCALAR_TAGS)
        return _Scalar(where, _SCALAR_TAGS.get(node.tag, "str"), node.value, plain=getattr(node, "style", None) is None)

    def from_python(self, value: object, depth: int = 0) -> _Node:
        """The tree for a value of Python's own."""
        self._spend(self._name, depth)
        match value:
            case Mapping():
                keys = [self._scalar(key) for key in value]
                items = [self.from_python(item, depth + 1) for item in value.values()]
                names = [key.text for key in keys]
                return _Map(self._name, dict(zip(names, items, strict=True)), dict(zip(names, keys, strict=True)))
            case list() | tuple():
                return _List(self._name, [self.from_python(item, depth + 1) for item in value])
        return self._scalar(value)

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}" if self._has_lines else self._name

    def _spend(self, where: str, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise _BrokenError(where, f"more than {MAX_VALUES} values, aliases written out")
        if depth > MAX_DEPTH:
            raise _BrokenError(where, "nested too deeply")

    def _check_tag(self, node: yaml.Node, path: str, *known: str) -> None:
        if node.tag not in known:
            self._problems.add(self._where(node), path, "YAML tags (a word after !) have no place in a job")

    def _map(self, node: yaml.MappingNode, path: str, depth: int) -> _Map:
        self._check_tag(node, path, f"{_YAML_TAG}map")
        grown = _Map(self._where(node))
        for key, value, is_merged in self._pairs(node, path, depth):
            if is_merged:
                self._spend(grown.where, depth)  # even a pair that is there already took its time
            if key.value not in grown.entries:
                name = key.value
                grown.keys[name] = _Scalar(self._where(key), _SCALAR_TAGS.get(key.tag, "str"), name)
                grown.entries[name] = self.from_yaml(value, _join(path, name), depth + 1)
            elif not is_merged:
                words = f"the key is there twice, first at {grown.keys[key.value].where}"
                self._problems.add(self._where(key), _join(path, key.value), words)
        return grown

    def _pairs(
        self, node: yaml.MappingNode, path: str, depth: int
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node, bool]]:
        """A mapping's own pairs, then those merged into it (`<<`), which never win over its own."""
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG:
                yield key, value, False
            elif not isinstance(key, yaml.ScalarNode):
                self._problems.add(self._where(key), path, f"expected a word as key; {_MAPPING_HINT}")
        for source in self._merged(node, path):
            self._spend(self._where(source), depth)
            yield from ((key, value, True) for key, value, _ in self._pairs(source, path, depth + 1))

    def _merged(self, node: yaml.MappingNode, path: str) -> Iterator[yaml.MappingNode]:
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(source, yaml.MappingNode):
                        yield source
                    else:
                        self._problems.add(self._where(source), path, "expected a mapping to merge (<<)")

    def _scalar(self, value: object) -> _Scalar:
        tag, text = _python_scalar(value)
        return _Scalar(self._name, tag, text, plain=tag != "str")


def _python_scalar(value: object) -> tuple[str, str]:
    """The YAML tag and text of a value of Python's own; "other" and its type's name for what has none."""
    match value:
        case None:
            found = "null", ""
        case bool():
            found = "bool", str(value).lower()
        case int():
            found = "int", str(value) if abs(value) <= INT64_MAX else f"{INT64_MAX}0"  # some are too long to print
        case float() | Decimal():
            found = "float", str(value)
        case str():
            found = "str", str(value)
        case os.PathLike():
            found = "str", os.fsdecode(value)
        case _:
            found = "other", type(value).__name__
    return found


def _join(path: str, key: str) -> str:
    shown = key if re.fullmatch(r"[\w-]{1,40}", key) and not _may_be_secret(key) else _shown(key)
    return f"{path}.{shown}" if path else shown


def _compose(text: str, name: str, *, has_lines: bool) -> yaml.Node | None:
    """Parse YAML into its nodes. Raises `_BrokenError`, which never shows the text: that may hold a secret."""
    failure: BaseException | None = None
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except _YAML_FAILURES as error:
        failure = error  # raised below, so that the error with the text in it does not hang on ours
    mark = getattr(failure, "problem_mark", None)
    where = f"{name}:{mark.line + 1}" if mark and has_lines else name
    raise _BrokenError(where, f"not valid YAML: {_yaml_words(failure)}")


def _yaml_words(failure: BaseException) -> str:
    if isinstance(failure, RecursionError):
        return "nested too deeply"
    words = str(getattr(failure, "problem", None) or "a value that can't be read")
    if "'\\t'" in words:
        return "a tab where only spaces may be: indent with spaces"
    if "another document" in words:
        return "a second document begins (---); a job is one document"
    if "mapping values are not allowed" in words:
        return "a second colon or a wrong indent; text with a colon in it needs quotes around it"
    return re.sub(r"'(?!<|.'|\\.')[^']*'", "…", words)  # names of aliases and the like; kept are '<token>' and ','


def _read_file(path: Path) -> str:
    """A job file's text. Raises `_BrokenError`."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise _BrokenError(
                _printable(path), "is a folder, not a file" if stat.S_ISDIR(about.st_mode) else "is not a plain file"
            )
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a file name"
        raise _BrokenError(_printable(path), f"can't be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _BrokenError(_printable(path), f"more than {MAX_FILE_BYTES >> 20} MiB: this is hardly a job file")
    return _decode(data, _printable(path))


def _decode(data: bytes, name: str) -> str:
    """UTF-8, or what a byte order mark says. Raises `_BrokenError` with the line of what is no text."""
    encoding = next((encoding for bom, encoding in _BOMS if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _BrokenError(f"{name}:{line}", f"not text in {encoding.removesuffix('-sig').upper()}") from None
    bad = _NOT_YAML.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        raise _BrokenError(f"{name}:{line}", f"the control character U+{ord(bad[0]):04X} has no place in a job file")
    return text


def _printable(path: object) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _file_tree(path: Path, problems: _Problems) -> _Map:
    name = _printable(path)
    node = _compose(_read_file(path), name, has_lines=True)
    if node is None:
        raise _BrokenError(name, "is empty: a job needs at least input, output, target and prompt")
    tree = _Grower(name, problems, has_lines=True).from_yaml(node)
    if not isinstance(tree, _Map):
        raise _BrokenError(tree.where, "expected a mapping with input, output, target and prompt")
    return tree


def _set(tree: _Map, override: str, problems: _Problems) -> None:
    """Put one `--set key.sub=value` into the tree."""
    path, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", path):
        raise _BrokenError(f"--set {_shown(path)}", "expected key.sub=value")
    where = f"--set {'.'.join(_join('', part) for part in path.split('.'))}"
    bad = _NOT_YAML.search(text)
    if bad:
        raise _BrokenError(where, f"the control character U+{ord(bad[0]):04X} has no place in a job")
    node = _compose(text, where, has_lines=False)
    value = _Grower(where, problems, has_lines=False).from_yaml(node, path) if node else _Scalar(where, "null", "")
    *sections, key = path.split(".")
    for section in sections:
        tree = _subsection(tree, section, where)
    tree.keys[key] = _Scalar(where, "str", key)
    tree.entries[key] = value


def _subsection(tree: _Map, key: str, where: str) -> _Map:
    """The mapping under a key, made where there is none yet; `prices: catalog` makes way for one, too."""
    found = tree.entries.get(key)
    if isinstance(found, _Map):
        return found
    if not _is_null(found) and not (isinstance(found, _Scalar) and key == "prices"):
        raise _BrokenError(where, f"{_join('', key)} is no mapping in the job, so nothing can be set in it")
    made = _Map(where)
    tree.keys[key], tree.entries[key] = _Scalar(where, "str", key), made
    return made


# --- Secrets ----------------------------------------------------------------------------------------------------------

KEYS_DO_NOT_BELONG = (
    "keys do not belong in job files; put it in an environment variable and name that in target.key_env"
)
_SECRET_NAME = re.compile(
    "(x_|goog_|comet_?|api_?|access_?|secret_?|auth_?)*(key|token)|auth(orization)?|bearer|credentials?|passw(or)?d|secret"
)
_SECRET = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{8,}|AIza[\w-]{10,}|\bbearer\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_SECRET_IN_PROSE = re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}")
_LONG_MIXED = re.compile(r"(?=\S*[0-9])(?=\S*[A-Za-z])\S{20,}")


def _may_be_secret(text: str) -> bool:
    """Whether to keep a value out of messages; wrong suspicion costs nothing here."""
    return bool(_SECRET.search(text) or _LONG_MIXED.search(text) or ("@" in text and "://" in text))


def _shown(text: str) -> str:
    if _may_be_secret(text):
        return "a value that is not shown here"
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 1] + "…"
    return ascii(cut) if re.search("[\ud800-\udfff]", cut) else repr(cut)


def _refuse_secrets(node: _Node, path: str, problems: _Problems) -> None:
    """Name the place of every key in the tree, never the key."""
    match node:
        case _Scalar(text=text):
            pattern = _SECRET_IN_PROSE if path.startswith("prompt.") else _SECRET
            if pattern.search(text):
                problems.add(node.where, path, f"this looks like a key: {KEYS_DO_NOT_BELONG}")
        case _List(items=items):
            for at, item in enumerate(items):
                _refuse_secrets(item, f"{path}[{at}]", problems)
        case _Map(entries=entries):
            for key, value in entries.items():
                if _is_secret_key(key, value, path):
                    problems.add(node.keys[key].where, _join(path, key), KEYS_DO_NOT_BELONG)
                else:
                    _refuse_secrets(value, _join(path, key), problems)


def _is_secret_key(key: str, value: _Node, path: str) -> bool:
    if _SECRET.search(key):
        return True
    is_text = isinstance(value, _Scalar) and value.tag == "str"
    is_free = path.startswith("params.extra")  # the service's own names: a JSON schema may have a property "token"
    is_named_so = _SECRET_NAME.fullmatch(key.lower().replace("-", "_"))
    return is_named_so is not None and (is_text or not is_free)


# --- What a value of each kind must look like -------------------------------------------------------------------------


class _WrongError(Exception):
    """A value is not of its kind; the words say what was expected."""


class _Kind(Struct, frozen=True):
    """`words` say what is expected, for messages and for the README; `read` raises `_WrongError`."""

    words: str
    read: Callable[[_Node], Any]


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?")
_EXPONENTIAL = re.compile(r"[-+]?\d[\d_]*(?:\.\d*)?[eE][-+]?\d{1,4}")
_ODD_NUMBERS = (
    (re.compile(r"[-+]?0[0-7_]+"), "YAML reads a leading zero as base 8: write it without"),
    (re.compile(r"[-+]?0[0-9_]+"), "write it without a leading zero"),
    (re.compile(r"[-+]?\d+(:\d+)+(\.\d*)?"), "YAML reads colons as base 60: write one plain number"),
    (re.compile(r"[-+]?0[xXbBoO]\w+"), "write it in plain decimal digits"),
    (re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE), "it must be finite"),
)
_MAPPING_HINT = "a text that starts with {{ needs quotes around it"
_NOT_TEXT = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date"}
MAX_NUMBER_CHARACTERS = 40


def _expected(words: str, node: _Node, hint: str = "") -> _WrongError:
    return _WrongError(f"expected {words}, found {_found(node)}" + (f": {hint}" if hint else ""))


def _found(node: _Node) -> str:
    match node:
        case _Map():
            return "a mapping"
        case _List():
            return "a list"
        case _Scalar(tag="null"):
            return "nothing"
        case _Scalar(tag="other", text=text):
            return f"a Python {text}"
    return _shown(node.text)


def _text(words: str, *, may_be_empty: bool = False, is_prose: bool = False, max_length: int = 4_096) -> _Kind:
    def read(node: _Node) -> str:
        if not isinstance(node, _Scalar) or node.tag in {"null", "other"}:
            raise _expected(words, node, _MAPPING_HINT if isinstance(node, _Map) else "")
        if node.tag != "str":
            raise _expected(words, node, f"YAML reads it as {_NOT_TEXT[node.tag]}; put it in quotes")
        if not (node.text.strip() or (may_be_empty and not node.text)):
            raise _WrongError(f"expected {words}, found nothing in it")
        _check_characters(node.text, words, is_prose=is_prose, max_length=max_length)
        return node.text

    return _Kind(words, read)


def _check_characters(text: str, words: str, *, is_prose: bool, max_length: int) -> None:
    if _SURROGATES.search(text):
        raise _WrongError(f"expected {words}, found half of a surrogate pair in it")
    if is_prose:
        return
    if _CONTROL.search(text):
        raise _WrongError(f"expected {words}, found a line break or control character in it")
    if len(text) > max_length:
        raise _WrongError(f"expected {words} of at most {max_length} characters, found {len(text)}")


def _word(words: str) -> _Kind:
    text = _text(words, max_length=256)

    def read(node: _Node) -> str:
        found: str = text.read(node)
        if found.split() != [found]:
            raise _expected(words, node, "there are spaces in it")
        return found

    return _Kind(words, read)


def _decimal(node: _Node, words: str) -> Decimal:
    """A number exactly as it is written. YAML 1.1 takes 1e-3 for text; we don't."""
    if not isinstance(node, _Scalar) or not (node.tag in {"int", "float"} or (node.tag == "str" and node.plain)):
        quoted = isinstance(node, _Scalar) and node.tag == "str" and _NUMBER.fullmatch(node.text)
        raise _expected(words, node, "take the quotes away" if quoted else "")
    for odd, hint in _ODD_NUMBERS:
        if odd.fullmatch(node.text):
            raise _expected(words, node, hint)
    if len(node.text) > MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(node.text):
        raise _expected(words, node)
    return Decimal(node.text.replace("_", ""))


def _number(low: int, high: int, *, above: bool = False) -> _Kind:
    words = f"a number {'above' if above else 'from'} {low} {'up ' if above else ''}to {high}"

    def read(node: _Node) -> Decimal:
        found = _decimal(node, words)
        if not low <= found <= high or (above and float(found) <= low):
            raise _expected(words, node)
        return found

    return _Kind(words, read)


def _real(low: int, high: int, *, above: bool = False) -> _Kind:
    exact = _number(low, high, above=above)
    return _Kind(exact.words, lambda node: float(exact.read(node)))


def _whole(low: int, high: int) -> _Kind:
    words = f"a whole number from {low} to {high}"
    bounded = _number(low, high)

    def read(node: _Node) -> int:
        _decimal(node, words)
        try:
            found: Decimal = bounded.read(node)
        except _WrongError:
            raise _expected(words, node) from None
        if found != math.floor(found):
            raise _expected(words, node)
        return int(found)

    return _Kind(words, read)


def _read_flag(node: _Node) -> bool:
    if not isinstance(node, _Scalar) or node.tag != "bool":
        raise _expected("true or false", node)
    return node.text.lower() in {"true", "yes", "on"}


def _choice(*options: str) -> _Kind:
    words = "one of " + ", ".join(options)
    text = _text(words)

    def read(node: _Node) -> str:
        found: str = text.read(node)
        if found not in options:
            raise _expected(words, node, _did_you_mean(found, options).removeprefix("; "))
        return found

    return _Kind(words, read)


def _did_you_mean(found: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


_STOP_TEXT = _text("a text or a list of texts", is_prose=True)
_SHARE = _real(0, 1)
_SECONDS = _real(0, MAX_SECONDS)
MAX_STOPS = 16


def _read_stop(node: _Node) -> tuple[str, ...]:
    items = node.items if isinstance(node, _List) else [node]
    if len(items) > MAX_STOPS:
        raise _WrongError(f"expected at most {MAX_STOPS} texts, found {len(items)}")
    return tuple(_stop(item) for item in items)


def _stop(node: _Node) -> str:
    if isinstance(node, _Scalar) and node.tag == "str" and node.text.isspace():
        return node.text  # a line break is the most common stop of all
    found: str = _STOP_TEXT.read(node)
    return found


def _read_extra(node: _Node) -> dict[str, Any]:
    if not isinstance(node, _Map):
        raise _expected("a mapping, merged into the request's body", node)
    return cast("dict[str, Any]", _json_value(node))


def _json_value(node: _Node) -> object:
    match node:
        case _Map():
            _refuse_odd_keys(node)
            return {key: _json_value(value) for key, value in node.entries.items()}
        case _List():
            return [_json_value(item) for item in node.items]
    return _json_scalar(node)


def _refuse_odd_keys(node: _Map) -> None:
    for key, written in node.keys.items():
        if written.tag != "str":
            raise _WrongError(f"expected text as key, found {_shown(key)} at {written.where}: put it in quotes")


def _json_scalar(node: _Scalar) -> object:
    is_number = node.tag in {"int", "float"} or (node.tag == "str" and node.plain and _EXPONENTIAL.fullmatch(node.text))
    if is_number:
        return _json_number(node)
    match node.tag, node.text.lower():
        case "null", _:
            return None
        case "bool", ("true" | "false") as word:
            return word == "true"
        case "bool", _:
            raise _expected("true or false", node, "if the word itself is meant, put it in quotes")
    words = "a text, a number, true, false or null"
    if node.tag != "str":
        raise _expected(words, node, "put it in quotes")
    _check_characters(node.text, words, is_prose=True, max_length=0)
    return node.text


def _json_number(node: _Scalar) -> int | float:
    words = "a number that JSON can hold"
    found = _decimal(node, words)
    if node.tag == "int" and abs(found) <= INT64_MAX:
        return int(found)
    if not math.isfinite(float(found)):
        raise _expected(words, node)
    return float(found)


def _read_latency(node: _Node) -> tuple[float, float]:
    if isinstance(node, _Scalar):
        seconds: float = _SECONDS.read(node)
        return seconds, seconds
    words = "seconds, or a list of the least and the most"
    if not isinstance(node, _List) or len(node.items) != 2:  # noqa: PLR2004 - a least and a most
        raise _expected(words, node)
    least, most = (cast("float", _SECONDS.read(item)) for item in node.items)
    if least > most:
        raise _WrongError(f"expected {words}, found the larger one first")
    return least, most


def _read_faults(node: _Node) -> dict[str, float]:
    if not isinstance(node, _Map):
        raise _expected("a mapping of fault names to shares", node)
    return {name: _share(name, share) for name, share in node.entries.items()}


def _share(name: str, node: _Node) -> float:
    try:
        found: float = _SHARE.read(node)
    except _WrongError as error:
        raise _WrongError(f"fault {_shown(name)}: {error}") from None
    return found


def _path(words: str) -> _Kind:
    text = _text(words)

    def read(node: _Node) -> str:
        found: str = text.read(node)
        if found != found.strip():
            raise _expected(words, node, "there is a space at its start or end")
        if re.match(r"[A-Za-z][\w+.-]+://", found):
            raise _expected(words, node, "only files on this machine can be used")
        return found

    return _Kind(words, read)


def _read_input_path(node: _Node) -> str:
    found: str = _path("the path of a file that ends in .csv, .tsv or .parquet").read(node)
    if Path(found).suffix.lower() not in DELIMITERS:
        raise _expected("the path of a file that ends in .csv, .tsv or .parquet", node)
    return found


def _read_encoding(node: _Node) -> str:
    found: str = _text("the name of an encoding").read(node)
    try:
        "a".encode(found)  # refuses codecs that are known but aren't for text
        return codecs.lookup(found).name
    except (LookupError, ValueError):
        raise _expected("the name of an encoding, such as utf-8 or cp1252", node) from None


def _read_delimiter(node: _Node) -> str:
    if isinstance(node, _Scalar) and node.tag == "str" and len(node.text) == 1 and node.text not in '"\r\n\0':
        return node.text
    raise _expected('one character other than a quote or line break (a tab is "\\t")', node)


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _read_key_env(node: _Node) -> str:
    """The name of a variable. Never shown where it is wrong: it may be the key itself."""
    words = "the name of an environment variable, such as COMETAPI_KEY"
    if not isinstance(node, _Scalar) or node.tag != "str":
        raise _WrongError(f"expected {words}")
    name = node.text
    is_mixed = len(name) >= 20 and "_" not in name and re.search("[0-9]", name)  # noqa: PLR2004 - names are shorter
    if not _IDENTIFIER.fullmatch(name):
        raise _WrongError(f"expected {words}; the key itself does not belong in a job file")
    if is_mixed or name.startswith("sk") or len(name) > 100:  # noqa: PLR2004 - so are all names
        raise _WrongError(f"expected {words}; this looks like a key itself")
    return name


_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f.]*:[0-9a-f:.]*")
_ROUTES = ("/chat/completions", "/responses", "/messages", ":generatecontent", "/models")


def _read_base_url(node: _Node) -> str:
    """A base URL without slashes and version at its end. The value is never shown: it may hold a password."""
    if not isinstance(node, _Scalar) or node.tag != "str":
        raise _WrongError("expected a URL such as https://api.cometapi.com, or simulator")
    if node.text == SIMULATOR:
        return SIMULATOR
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", node.text):
        raise _WrongError("expected a URL of plain ASCII characters, without spaces and backslashes")
    try:
        parts = urlsplit(node.text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _WrongError("expected a URL such as https://api.cometapi.com, found one that can't be read") from None
    _check_url(node.text, parts, host)
    return _normal_url(parts, host, port)


def _check_url(text: str, parts: SplitResult, host: str) -> None:
    if parts.scheme not in {"https", "http"} or not _HOST.fullmatch(host):
        raise _WrongError("expected a URL that starts with https:// and a host, or simulator")
    if "@" in parts.netloc:
        raise _WrongError(f"a name and password in the URL are refused: {KEYS_DO_NOT_BELONG}")
    if "?" in text or "#" in text:
        raise _WrongError("expected a base URL alone, found a query (?) or fragment (#)")
    if parts.path.rstrip("/").lower().endswith(_ROUTES):
        raise _WrongError("expected the base URL alone: the path of the route is added from target.format")


def _normal_url(parts: SplitResult, host: str, port: int | None) -> str:
    netloc = f"[{host}]" if ":" in host else host
    if port not in {None, {"https": 443, "http": 80}[parts.scheme]}:
        netloc += f":{port}"
    path = re.sub(r"(/v1|/v1beta)?/*$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{netloc}{path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- The keys ---------------------------------------------------------------------------------------------------------


class _Key(Struct, frozen=True):
    kind: _Kind
    meaning: str


class JobKey(Struct, frozen=True):
    """One key of a job file, for documentation: its path, what it takes, what counts without it, what it means."""

    path: str
    type: str
    default: str
    meaning: str


_MONEY = _number(0, 1_000_000)
_FACTOR = _number(0, 100)
_FLAG = _Kind("true or false", _read_flag)
_PROSE = _text("a text", is_prose=True)
_ROLE = _choice(*get_args(Role))
_MINUTE = _real(0, 1_000_000_000, above=True)

_KEYS: dict[str, _Key] = {
    "input.path": _Key(_Kind("a path", _read_input_path), "the table: .csv, .tsv or .parquet"),
    "input.id": _Key(_text("the name of a column"), "the column that holds your own name for a row"),
    "input.encoding": _Key(_Kind("an encoding", _read_encoding), "how the text of a .csv or .tsv is encoded"),
    "input.delimiter": _Key(_Kind("one character", _read_delimiter), "what parts the cells; a tab for .tsv"),
    "output.path": _Key(_path("a path"), "the result: a .parquet file, or a folder (with / at its end) for a data set"),
    "output.prefix": _Key(
        _text("a text", may_be_empty=True, max_length=64), "put before the name of each output column"
    ),
    "output.partition_rows": _Key(_whole(1, MAX_PARTITION_ROWS), "rows in one part; chosen from the input's size"),
    "target.base_url": _Key(_Kind("a URL, or simulator", _read_base_url), "the service, without /v1"),
    "target.key_env": _Key(_Kind("the name of an environment variable", _read_key_env), "where the API key is found"),
    "target.format": _Key(_choice(*FORMATS), "which request format is spoken"),
    "target.model": _Key(_word("the id of a model"), "the model's id as the catalog has it"),
    "target.allow_http": _Key(_FLAG, "send the key without encryption to a host that is not this machine"),
    "prompt.system": _Key(_PROSE, "template of the system message"),
    "prompt.user": _Key(_PROSE, "template of the user message; {{ column }} stands for a cell"),
    "prompt.messages": _Key(
        _Kind("a list of role and content", lambda node: node), "the messages, if two are not enough"
    ),
    "params.max_output_tokens": _Key(
        _whole(1, 10_000_000), "the most tokens that an answer may have, thinking included"
    ),
    "params.temperature": _Key(_real(0, 2), "how freely the model chooses"),
    "params.top_p": _Key(_real(0, 1), "the share of likely tokens that it chooses from"),
    "params.stop": _Key(_Kind("a text or a list of texts", _read_stop), "where an answer ends early"),
    "params.seed": _Key(_whole(-INT64_MAX, INT64_MAX), "asks for the same choices each time, where a model can"),
    "params.extra": _Key(_Kind("a mapping", _read_extra), "merged into the request's body as it is"),
    "limits.concurrency": _Key(_whole(1, 10_000), "requests in flight at once"),
    "limits.requests_per_minute": _Key(_MINUTE, "requests sent in a minute"),
    "limits.tokens_per_minute": _Key(_MINUTE, "tokens asked for in a minute, input and output"),
    "limits.timeout_s": _Key(_real(0, MAX_SECONDS, above=True), "seconds that one exchange may take"),
    "retry.max_attempts": _Key(_whole(1, 100), "attempts for a row before it counts as failed"),
    "retry.max_wait_s": _Key(_real(0, MAX_SECONDS, above=True), "the longest wait between two attempts, in seconds"),
    "retry.max_pushback_s": _Key(
        _real(0, MAX_PUSHBACK_S, above=True), "how long the service may push back (429) before rows fail, in seconds"
    ),
    "prices.input": _Key(_MONEY, "US dollars per million input tokens"),
    "prices.output": _Key(_MONEY, "US dollars per million output tokens"),
    "prices.cache_read": _Key(_MONEY, "US dollars per million input tokens that were read from a cache"),
    "prices.cache_write": _Key(_MONEY, "US dollars per million input tokens that were written to a cache"),
    "prices.per_request": _Key(_MONEY, "US dollars per request, instead of prices for tokens"),
    "prices.cache_read_multiplier": _Key(_FACTOR, "price of cache reads as a multiple of the input price"),
    "prices.cache_write_multiplier": _Key(_FACTOR, "price of cache writes as a multiple of the input price"),
    "simulator.seed": _Key(_whole(0, INT64_MAX), "another seed, other answers and faults"),
    "simulator.latency_s": _Key(
        _Kind("seconds, or [least, most]", _read_latency), "how long the simulator takes for an answer"
    ),
    "simulator.rps": _Key(_real(0, 1_000_000, above=True), "requests per second beyond which it answers 429"),
    "simulator.faults": _Key(
        _Kind("a mapping of fault names to shares", _read_faults), "which faults it has, and for what share of requests"
    ),
    "simulator.retry_after": _Key(_FLAG, "say in a 429 how long to wait"),
}
_PRICES = _choice("catalog", "none")
_SECTIONS: dict[str, type[Struct]] = {
    "input": InputSettings,
    "output": OutputSettings,
    "target": TargetSettings,
    "params": GenerationParams,
    "limits": LimitSettings,
    "retry": RetrySettings,
    "prices": PriceSettings,
    "simulator": SimulatorSettings,
}
_SECTION_NAMES = ("input", "output", "target", "prompt", "params", "limits", "retry", "prices", "simulator")
_REQUIRED = ("input.path", "output.path", "target.format", "target.model")


def job_keys() -> list[JobKey]:
    """Every key that a job file may have, in the order of a job file."""
    keys = [JobKey(path, key.kind.words, _default_words(path), key.meaning) for path, key in _KEYS.items()]
    at = next(at for at, key in enumerate(keys) if key.path.startswith("prices."))
    whole = JobKey(
        "prices", f"{_PRICES.words}, or a mapping", "catalog", "where prices come from; none: costs stay unknown"
    )
    return [*keys[:at], whole, *keys[at:]]


def job_keys_markdown() -> str:
    """The keys as a table in Markdown."""
    rows = [f"| `{key.path}` | {key.type} | {key.default} | {key.meaning} |" for key in job_keys()]
    return "\n".join(["| key | takes | default | meaning |", "| --- | --- | --- | --- |", *rows])


def _default_words(path: str) -> str:
    section, _, name = path.partition(".")
    if path in _REQUIRED:
        return "required"
    if section == "prompt":
        return "required without messages" if name == "user" else ""
    default = {field.name: field.default for field in msgspec.structs.fields(_SECTIONS[section])}[name]
    return "" if default in (msgspec.NODEFAULT, None, "", ()) else _yaml_like(default)


def _yaml_like(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return f"[{', '.join(map(_yaml_like, value))}]"
    return str(value)


# --- Putting it together ----------------------------------------------------------------------------------------------


def load_job(
    source: str | os.PathLike[str] | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    base_dir: str | os.PathLike[str] | None = None,
) -> Job:
    """The job in a file, or in a mapping of the same shape, with `--set key.sub=value` strings put over it.

    Relative paths start at `base_dir`, which by default is the job file's folder, or for a mapping the current one.
    Raises `JobError` with every problem found, one a line: file and line, key, what was expected and what was found.
    """
    problems = _Problems()
    path = None if isinstance(source, Mapping) else Path(source)
    tree = _tree(source, overrides, problems)
    problems.stop_if_any()
    _refuse_secrets(tree, "", problems)
    problems.stop_if_any()  # before anything else could quote from near a secret
    folder = Path(base_dir) if base_dir is not None else path.parent if path else Path()
    job = _Reading(tree, problems, folder.absolute(), path.absolute() if path else None).job()
    problems.stop_if_any()
    return cast("Job", job)


def _tree(source: object, overrides: Sequence[str], problems: _Problems) -> _Map:
    tree = _Map("job")
    try:
        if isinstance(source, Mapping):
            tree = cast("_Map", _Grower("job", problems, has_lines=False).from_python(source))
        else:
            tree = _file_tree(Path(cast("str", source)), problems)
    except _BrokenError as error:
        problems.add(error.where, "", str(error))
    for override in overrides:
        try:
            _set(tree, override, problems)
        except _BrokenError as error:
            problems.add(error.where, "", str(error))
    return tree


MAX_MESSAGES = 1_000
_MESSAGE_KINDS = {"role": _ROLE, "content": _PROSE}
_PlacedMessage: TypeAlias = tuple[MessageTemplate, str, str]
"""A message with the file and line, and the key path, where its text is written."""


class _Reading:
    """One walk over the tree: values by key path, and whatever is wrong with them."""

    def __init__(self, tree: _Map, problems: _Problems, folder: Path, source_path: Path | None) -> None:
        self._tree = tree
        self._problems = problems
        self._folder = folder
        self._source_path = source_path
        self._where: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._prices: str | None = None

    def job(self) -> Job | None:
        """The job, or None where there are problems."""
        for name, node in self._tree.entries.items():
            self._read_section(name, node)
        self._require()
        self._check_target()
        self._check_paths()
        self._settle_prices()
        messages = self._messages()
        return None if self._problems.lines else self._built(tuple(messages))

    def _refuse(self, path: str, words: str) -> None:
        self._problems.add(self._where.get(path, self._tree.where), path, words)

    def _read_section(self, name: str, node: _Node) -> None:
        self._where[name] = node.where
        if name not in _SECTION_NAMES:
            where = self._tree.keys[name].where
            self._problems.add(where, _join("", name), f"unknown key{_did_you_mean(name, _SECTION_NAMES)}")
        elif name == "prices" and isinstance(node, _Scalar) and node.tag != "null":
            self._prices = self._read("prices", _PRICES, node)
        elif isinstance(node, _Map):
            self._read_keys(name, node)
        elif not _is_null(node):
            choice = " or one of catalog, none" if name == "prices" else ""
            self._refuse(name, f"expected a mapping{choice}, found {_found(node)}")
            self._values |= dict.fromkeys((path for path in _KEYS if path.startswith(f"{name}.")), None)

    def _read_keys(self, section: str, node: _Map) -> None:
        known = [path.partition(".")[2] for path in _KEYS if path.startswith(f"{section}.")]
        for name, value in node.entries.items():
            path = _join(section, name)
            self._where[path] = node.keys[name].where
            if name not in known:
                self._refuse(path, f"unknown key{_did_you_mean(name, known)}")
            elif not _is_null(value):
                self._values[path] = self._read(path, _KEYS[path].kind, value)

    def _read(self, path: str, kind: _Kind, node: _Node) -> Any:
        """A value, or None, with the problem noted."""
        self._where[path] = node.where
        try:
            return kind.read(node)
        except _WrongError as error:
            self._refuse(path, str(error))
            return None

    def _require(self) -> None:
        for path in _REQUIRED:
            if path not in self._values:
                section = path.partition(".")[0]
                self._problems.add(
                    self._where.get(path, self._where.get(section, self._tree.where)), path, "is missing"
                )

    def _check_target(self) -> None:
        base_url = self._values.get("target.base_url", DEFAULT_BASE_URL)
        if base_url is None:
            return
        if base_url != SIMULATOR and not _is_null(self._tree.entries.get("simulator")):
            self._refuse("simulator", f"has a meaning only with target.base_url: {SIMULATOR}")
        is_open = base_url.startswith("http://") and not _is_loopback(urlsplit(base_url).hostname or "")
        if is_open and not self._values.get("target.allow_http"):
            words = "http:// would send the key and all texts without encryption: use https://"
            self._refuse("target.base_url", f"{words}, or set target.allow_http: true if that is meant")

    def _check_paths(self) -> None:
        source, result = self._values.get("input.path"), self._values.get("output.path")
        if not result:
            return
        output = self._folder / result
        try:
            is_dataset = result.endswith("/") or output.is_dir()
            problem = _output_problem(output, is_dataset, self._folder / source if source else None, self._source_path)
        except (OSError, RuntimeError) as error:  # names too long, loops of links
            problem = f"can't be used: {getattr(error, 'strerror', None) or 'a loop of links'}"
        if problem:
            self._refuse("output.path", problem)
        else:
            self._values |= {"output.path": output, "output.is_dataset": is_dataset}
        if source:
            self._values["input.path"] = self._folder / source
            self._values.setdefault("input.delimiter", DELIMITERS[Path(source).suffix.lower()])

    def _settle_prices(self) -> None:
        """The catalog is asked only for what the job does not say itself."""
        given = {name for name in ("input", "output", "per_request") if self._values.get(f"prices.{name}") is not None}
        self._values["prices.catalog"] = self._prices != "none" and not (
            "per_request" in given or {"input", "output"} <= given
        )

    def _messages(self) -> list[MessageTemplate]:
        """The prompt's messages, checked to compile and to fit the format."""
        before = len(self._problems.lines)
        messages = self._prompt_list() if "prompt.messages" in self._values else self._prompt_pair()
        for message, where, path in messages:
            self._check_template(message, where, path)
        if len(self._problems.lines) == before and self._values.get("target.format"):
            self._check_format([message.role for message, _, _ in messages])
        return [message for message, _, _ in messages]

    def _prompt_pair(self) -> list[_PlacedMessage]:
        """The messages of a prompt that is written as `system` and `user`."""
        if "prompt.user" not in self._values:
            where = self._where.get("prompt.user", self._where.get("prompt", self._tree.where))
            self._problems.add(where, "prompt.user", "is missing")
        pairs: list[tuple[Role, str]] = [("system", "prompt.system"), ("user", "prompt.user")]
        return [
            (MessageTemplate(role, self._values[path]), self._where[path], path)
            for role, path in pairs
            if self._values.get(path) is not None
        ]

    def _prompt_list(self) -> list[_PlacedMessage]:
        """The messages of a prompt that is written as `messages`."""
        for path in ("prompt.system", "prompt.user"):
            if self._values.get(path) is not None:
                self._refuse(path, "can't be there beside prompt.messages: use one of the two")
        node = self._values["prompt.messages"]
        if node is None:
            return []
        if not isinstance(node, _List) or not 1 <= len(node.items) <= MAX_MESSAGES:
            words = f"a list of 1 to {MAX_MESSAGES} messages, each with role and content"
            self._refuse("prompt.messages", str(_expected(words, node)))
            return []
        read = [self._message(f"prompt.messages[{at}]", item) for at, item in enumerate(node.items)]
        return [message for message in read if message]

    def _message(self, path: str, node: _Node) -> _PlacedMessage | None:
        self._where[path] = node.where
        if not isinstance(node, _Map):
            self._refuse(path, str(_expected("a mapping with role and content", node)))
            return None
        for name in node.entries.keys() - _MESSAGE_KINDS.keys():
            words = f"unknown key{_did_you_mean(name, list(_MESSAGE_KINDS))}"
            self._problems.add(node.keys[name].where, _join(path, name), words)
        role, content = (self._message_value(path, node, name) for name in _MESSAGE_KINDS)
        if role is None or content is None:
            return None
        return MessageTemplate(role, content), self._where[f"{path}.content"], f"{path}.content"

    def _message_value(self, path: str, node: _Map, name: str) -> Any:
        value = node.entries.get(name)
        if value is None:
            self._refuse(path, f"{name} is missing")
            return None
        return self._read(f"{path}.{name}", _MESSAGE_KINDS[name], value)

    def _check_template(self, message: MessageTemplate, where: str, path: str) -> None:
        try:
            compile_prompt([(message.role, message.template)], GenerationParams())
        except TemplateError as error:
            line = f"line {error.line} of the template: " if error.line else "in the template: "
            self._problems.add(where, path, line + error.reason + (f" ({error.hint})" if error.hint else ""))

    def _check_format(self, roles: Sequence[Role]) -> None:
        wire = FORMATS[self._values["target.format"]]
        if words := wire.unsupported_messages(roles):
            self._refuse("prompt", words)
        if words := wire.unsupported_params(self._params()):
            self._refuse("params", words)

    def _params(self) -> GenerationParams:
        given = self._section("params")
        if self._values.get("target.format") == "messages":
            given.setdefault("max_output_tokens", DEFAULT_MAX_TOKENS)
        return GenerationParams(**given)

    def _section(self, name: str) -> dict[str, Any]:
        prefix = f"{name}."
        return {path.removeprefix(prefix): value for path, value in self._values.items()
                if path.startswith(prefix) and value is not None}  # fmt: skip

    def _built(self, messages: tuple[MessageTemplate, ...]) -> Job:
        target = TargetSettings(**self._section("target"))
        return Job(
            input=InputSettings(**self._section("input")),
            output=OutputSettings(**self._section("output")),
            target=target,
            messages=messages,
            params=self._params(),
            limits=LimitSettings(**self._section("limits")),
            retry=RetrySettings(**self._section("retry")),
            prices=PriceSettings(**self._section("prices")),
            simulator=SimulatorSettings(**self._section("simulator")) if target.is_simulator else None,
            source_path=self._source_path,
        )


def _output_problem(output: Path, is_dataset: bool, source: Path | None, job_file: Path | None) -> str | None:
    """Why the result can't go there, in words, or None. Raises `OSError` and `RuntimeError` from looking."""
    run = output.with_name(output.name + ".run")
    if source and (_is_same(output, source) or _is_in(source, run)):
        return "the input itself is there: choose another place"
    if not is_dataset:
        if output.suffix != ".parquet":
            return "expected a path that ends in .parquet, or in / for a folder that holds the result as a data set"
        return None
    if output.exists() and not output.is_dir():
        return "expected a folder, found a file"
    for inside in (source, job_file):
        if inside and _is_in(inside, output):
            return f"the folder holds {_printable(inside.name)}: a data set needs a folder of its own"
    return None


def _is_null(node: _Node | None) -> bool:
    return node is None or (isinstance(node, _Scalar) and node.tag == "null")


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def _is_in(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents
