"""The kinds of values that keys take, and how each is read.

Hides YAML 1.1's surprises: `no` is a truth value, `1e-3` is text, `010` is eight, `5:00` is three hundred, and an id
like `4.5` or `2024-01-02` is no text at all.
"""

import codecs
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from msgspec import Struct

from cometbatch.errors import did_you_mean
from cometbatch.input.files import KNOWN_ENDINGS
from cometbatch.job.document import BRACES_HINT
from cometbatch.job.secrets import is_key_for_a_name, shown
from cometbatch.job.tree import List, Map, Node, Scalar, WrongError, is_text
from cometbatch.job.urls import normal_base_url
from cometbatch.job.variables import has_stray_dollar

MAX_NUMBER_CHARACTERS = 40  # of a number as it is written; a longer one is refused
MAX_STOPS = 16  # texts in `params.stop`
MAX_SECONDS = 3_600  # the longest wait that a job can set, but for those that are given a bound of their own
INT64_MAX = (1 << 63) - 1

_T = TypeVar("_T")
_N = TypeVar("_N", int, float, Decimal)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_BYTES = "".join(map(chr, range(0xDC80, 0xDD00)))  # stand for bytes of a file's name that are no UTF-8
_SURROGATES = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?")
_ODD_NUMBERS = (
    (re.compile(r"[-+]?0[0-7_]+"), "YAML reads a leading zero as base 8: write it without"),
    (re.compile(r"[-+]?0[0-9_]+"), "write it without a leading zero"),
    (re.compile(r"[-+]?\d+(:\d+)+(\.\d*)?"), "YAML reads colons as base 60: write one plain number"),
    (re.compile(r"[-+]?0[xXbBoO]\w+"), "write it in plain decimal digits"),
    (re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE), "it must be finite"),
)
_NOT_TEXT = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date"}
_NOT_FOR_FILES = frozenset({"idna", "punycode", "utf-7", "unicode-escape", "raw-unicode-escape"})
"""Codecs for host names, mail and source code, by their Python names. No table is encoded so."""
_KEY_FOR_A_PATH = re.compile(r"(?=.*[0-9])[^/.\s]{20,}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ANY_CHAR = r"[^\x00-\x1f\x7f-\x9f]"
_INK = r"[^\s\x00-\x1f\x7f-\x9f]"  # any character but blanks
_ONE_LINE = f"{_ANY_CHAR}*{_INK}{_ANY_CHAR}*"
_UNPADDED = f"{_INK}(?:{_ANY_CHAR}*{_INK})?"  # no blank at its start or end
_ADDRESS = r"[A-Za-z][\w+.-]+://"


class Kind(Struct, Generic[_T], frozen=True):
    """`words` say which values are expected, for messages and documentation; `read` raises `WrongError` for others.

    `takes_text`: a value may be any text, so that a `--set` needs no quotes around it. `schema`: JSON Schema of these
    values, for editors; null is added to it where the key may be left out. `brackets`: a `--set` that stands in this
    pair of signs is a list or a mapping all the same.
    """

    words: str
    read: Callable[[Node], _T]
    takes_text: bool = False
    schema: dict[str, Any] = {}
    brackets: str = ""


def expected(words: str, node: Node, hint: str = "") -> WrongError:
    """The error that names the expected value and the one that was found."""
    return WrongError(f"expected {words}, found {_found(node)}" + (f": {hint}" if hint else ""))


def _found(node: Node) -> str:
    match node:
        case Map():
            return "a mapping"
        case List():
            return "a list"
        case Scalar(tag="null"):
            return "nothing"
        case Scalar(tag="other", text=text):
            return f"a Python {text}"
    return shown(node.text)


# --- texts ---


def text(
    words: str,
    *,
    odd: Callable[[str], str | None] = lambda _: None,
    is_filled: Callable[[str], object] = str.strip,
    max_length: int = 4_096,
    may_hold: str = "",
    pattern: str = _ONE_LINE,
) -> Kind[str]:
    """Text in one line. `odd` refuses a text by giving a hint, which may be empty; None accepts it.

    `may_hold`: halves of surrogate pairs that are allowed. `pattern`: what the schema says of the whole text.
    """

    def read(node: Node) -> str:
        found = _filled(node, words, is_filled, may_hold)
        if _CONTROL.search(found):
            raise WrongError(f"expected {words}, found a line break or control character in it")
        if len(found) > max_length:
            raise WrongError(f"expected {words} of at most {max_length} characters, found {len(found)}")
        if (hint := odd(found)) is not None:
            raise expected(words, node, hint)
        return found

    return Kind(words, read, takes_text=True, schema=string(pattern, maxLength=max_length))


def string(pattern: str = "", **more: object) -> dict[str, Any]:
    """JSON Schema of a text that has this pattern as a whole."""
    return {"type": "string", **({"pattern": f"^(?:{pattern})$"} if pattern else {}), **more}


def _filled(node: Node, words: str, is_filled: Callable[[str], object] = str.strip, may_hold: str = "") -> str:
    """A text that is not empty. `is_filled` decides what counts as empty; by default spaces alone do."""
    if not isinstance(node, Scalar) or node.tag in {"null", "other"}:
        raise expected(words, node, BRACES_HINT if isinstance(node, Map) else "")
    if node.tag != "str":
        raise expected(words, node, f"YAML reads it as {_NOT_TEXT[node.tag]}; put it in quotes")
    if not is_filled(node.text):
        raise WrongError(f"expected {words}, found nothing in it")
    refuse_surrogates(node.text.translate(dict.fromkeys(map(ord, may_hold))), words)
    return node.text


def refuse_surrogates(found: str, words: str) -> None:
    """Raise `WrongError` for text that no request could carry."""
    if _SURROGATES.search(found):
        raise WrongError(f"expected {words}, found half of a surrogate pair in it")


def word(words: str) -> Kind[str]:
    """Text without spaces."""
    return text(
        words,
        odd=lambda found: None if found.split() == [found] else "there are spaces in it",
        max_length=256,
        pattern=f"{_INK}+",
    )


def choice(*options: str, known_as: Mapping[str, str] = MappingProxyType({})) -> Kind[str]:
    """One of some words. `known_as`: what others call them, in small letters, for hints."""

    def odd(found: str) -> str | None:
        if found in options:
            return None
        meant = known_as.get(found.casefold())
        return f"did you mean {meant!r}?" if meant else did_you_mean(found, options)

    found = text("one of " + ", ".join(options), odd=odd)
    return Kind(found.words, found.read, takes_text=True, schema={"enum": list(options)})


def _read_stop(node: Node) -> tuple[str, ...]:
    items = node.items if isinstance(node, List) else [node]
    if len(items) > MAX_STOPS:
        raise WrongError(f"expected at most {MAX_STOPS} texts, found {len(items)}")
    return tuple(_filled(item, STOP.words, bool) for item in items)  # a line break is a common stop


PROSE = Kind(
    "a text", lambda node: _filled(node, "a text"), takes_text=True, schema={"type": "string", "pattern": r"\S"}
)
"""Text of any length, in any number of lines."""
CONTENT = Kind(
    "a text or a list of parts",
    lambda node: node if isinstance(node, List) else PROSE.read(node),
    schema={"anyOf": [PROSE.schema, {"type": "array"}]},
)
"""A template, or a list of parts that is read later."""
_ONE_STOP = string(minLength=1)
STOP = Kind(
    "a text or a list of texts",
    _read_stop,
    takes_text=True,
    brackets="[]",
    schema={"anyOf": [_ONE_STOP, {"type": "array", "items": _ONE_STOP, "maxItems": MAX_STOPS}]},
)
SENT_TEXTS = (PROSE, STOP, CONTENT)
"""Texts that a request carries. That one of them is missing is seen by nobody."""
PREFIX = text("a text", is_filled=lambda found: found.strip() or not found, max_length=64, pattern=f"(?:{_ONE_LINE})?")


# --- numbers ---


def decimal(node: Node, words: str) -> Decimal:
    """A number exactly as it is written. 1e-3 is a number here, which YAML 1.1 takes for text."""
    if not isinstance(node, Scalar) or not (node.tag in {"int", "float"} or (node.tag == "str" and node.plain)):
        quoted = is_text(node) and _NUMBER.fullmatch(node.text)
        raise expected(words, node, "take the quotes away" if quoted else "")
    for odd, hint in _ODD_NUMBERS:
        if odd.fullmatch(node.text):
            raise expected(words, node, hint)
    if len(node.text) > MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(node.text):
        raise expected(words, node)
    return Decimal(node.text.replace("_", ""))


def number(kind: type[_N], low: int, high: int, *, above: bool = False) -> Kind[_N]:
    """A number from `low` to `high`, without a fraction for `int`. `above`: larger than `low`, also once rounded."""
    is_whole = issubclass(kind, int)
    words = f"a {'whole ' * is_whole}number {'above' if above else 'from'} {low} {'up ' * above}to {high}"

    def read(node: Node) -> _N:
        exact = decimal(node, words)
        if not low <= exact <= high:
            raise expected(words, node)
        found = kind(exact)
        if (is_whole and found != exact) or (above and found <= low):
            raise expected(words, node)
        return found

    least = {"exclusiveMinimum" if above else "minimum": low}
    return Kind(words, read, schema={"type": "integer" if is_whole else "number", **least, "maximum": high})


SHARE = number(float, 0, 1)
_SECONDS = number(float, 0, MAX_SECONDS)


def _read_latency(node: Node) -> tuple[float, float]:
    if isinstance(node, Scalar):
        seconds = _SECONDS.read(node)
        return seconds, seconds
    words = "seconds, or a list of the least and the most"
    if not isinstance(node, List) or len(node.items) != 2:  # noqa: PLR2004 - a least and a most
        raise expected(words, node)
    least, most = (_SECONDS.read(item) for item in node.items)
    if least > most:
        raise WrongError(f"expected {words}, found the larger one first")
    return least, most


def _shares(words: str, what: str) -> Kind[dict[str, float]]:
    """A mapping of names to shares. `what` a name is of."""

    def read(node: Node) -> dict[str, float]:
        if not isinstance(node, Map):
            raise expected(words, node)
        shares = {}
        for name, share in node.entries.items():
            refuse_surrogates(name, words)
            try:
                shares[name] = SHARE.read(share)
            except WrongError as error:
                raise WrongError(f"{what} {shown(name)}: {error}") from None
        return shares

    return Kind(words, read, schema={"type": "object", "additionalProperties": SHARE.schema})


LATENCY = Kind(
    "seconds, or [least, most]",
    _read_latency,
    schema={"anyOf": [_SECONDS.schema, {"type": "array", "items": _SECONDS.schema, "minItems": 2, "maxItems": 2}]},
)
FAULTS = _shares("a mapping of fault names to shares", "fault")
ACCURACY = _shares("a mapping of models to shares", "model")


# --- lengths of time ---

_UNITS_S = {"h": 3_600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"([1-9][0-9]{0,3})\s?([hdw])")


def _read_age(node: Node) -> int:
    """Seconds. A number alone is refused: it could be days as well as hours."""
    if isinstance(node, Scalar) and node.tag in {"int", "float"}:
        raise expected(AGE.words, node, f"of what? Write {node.text}d for days")
    if not is_text(node) or not (found := _AGE.fullmatch(node.text.strip())):
        raise expected(AGE.words, node)
    return int(found[1]) * _UNITS_S[found[2]]


AGE = Kind(
    "hours, days or weeks, as 12h, 30d or 2w",
    _read_age,
    takes_text=True,
    schema=string(r"[1-9][0-9]{0,3}\s?[hdw]", examples=["30d", "12h"]),
)


# --- truth values, paths and names ---


def _read_flag(node: Node) -> bool:
    if not isinstance(node, Scalar) or node.tag != "bool":
        raise expected("true or false", node)
    return node.text.lower() in {"true", "yes", "on"}


def _read_telemetry(node: Node) -> str:
    if not is_text(node) or node.text != "otlp":
        raise expected("otlp", node, "leave the key out to send none")
    return node.text


def _odd_path(found: str) -> str | None:
    if found != found.strip():
        return "there is a space at its start or end"
    return "only files on this machine can be used" if re.match(_ADDRESS, found) else None


def _no_text_like(pattern: str) -> dict[str, Any]:
    """JSON Schema that refuses texts which begin so."""
    return {"not": {"type": "string", "pattern": f"^(?:{pattern})"}}


def _read_pem_path(node: Node) -> str:
    """The path of a file. A text that may be the key itself is never shown."""
    if is_text(node) and "-----BEGIN" in node.text:
        raise WrongError("expected the path of a file; what it holds does not belong in a job file")
    return PATH.read(node)


def _read_key_path(node: Node) -> str:
    """The path of a file, which may name variables. A text that may be the key itself is never shown."""
    if is_text(node) and _KEY_FOR_A_PATH.fullmatch(node.text.strip()):
        words = "expected the path of a file that holds the key; this looks like a key itself"
        raise WrongError(f"{words} (if it is a file's name, write ./ before it)")
    path = PATH.read(node)
    if has_stray_dollar(path):
        raise WrongError(
            "expected a path, found a $ that begins no variable: write ${NAME} for an environment variable"
        )
    return path


_ENCODING_NAME = text("the name of an encoding")


def _read_encoding(node: Node) -> str:
    found = _ENCODING_NAME.read(node)
    try:
        "a".encode(found)  # refuses codecs that are known but aren't for text
        name = codecs.lookup(found).name
    except (LookupError, ValueError):
        name = None
    if name is None or name in _NOT_FOR_FILES:
        raise expected("the name of an encoding, such as utf-8 or cp1252", node)
    return name


def _read_delimiter(node: Node) -> str:
    """The delimiter. A tab may be written as an escape whatever the quotes are, as in `--set` and in our own hints."""
    words = 'one character other than a quote or line break (a tab is "\\t")'
    if is_text(node) and node.text == r"\t":
        return "\t"
    if not is_text(node) or len(node.text) != 1 or node.text in '"\r\n\0':
        raise expected(words, node)
    refuse_surrogates(node.text, words)
    return node.text


def _read_key_env(node: Node) -> str:
    """The name of a variable. A wrong one is never shown: it may be the key itself."""
    words = "the name of an environment variable, such as COMETAPI_KEY"
    if not is_text(node):
        raise WrongError(f"expected {words}")
    if not _IDENTIFIER.fullmatch(node.text):
        raise WrongError(f"expected {words}; the key itself does not belong in a job file")
    if is_key_for_a_name(node.text):
        raise WrongError(f"expected {words}; this looks like a key itself")
    return node.text


def _read_base_url(node: Node) -> str:
    if not is_text(node):
        raise WrongError("expected a URL such as https://api.cometapi.com, or simulator")
    return normal_base_url(node.text)


PARAMS_OF_ROWS = ("max_output_tokens", "temperature", "top_p", "stop", "seed")
"""Generation parameters that a row may have its own value of."""


def _read_param_columns(node: Node) -> dict[str, str]:
    if not isinstance(node, Map) or not node.entries:
        raise expected(PARAM_COLUMNS.words, node)
    columns = {}
    for name, column in node.entries.items():
        if name not in PARAMS_OF_ROWS:
            near = did_you_mean(name, PARAMS_OF_ROWS)
            raise WrongError(f"{shown(name)} is none of {', '.join(PARAMS_OF_ROWS)}" + (f": {near}" if near else ""))
        try:
            columns[name] = _COLUMN_NAME.read(column)
        except WrongError as error:
            raise WrongError(f"{name}: {error}") from None
    return columns


_COLUMN_NAME = text("the name of a column")
PARAM_COLUMNS = Kind(
    "a mapping of parameters to columns",
    _read_param_columns,
    schema={
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(PARAMS_OF_ROWS, _COLUMN_NAME.schema),
        "minProperties": 1,
    },
)
FLAG = Kind("true or false", _read_flag, schema={"type": "boolean"})
TELEMETRY = Kind("otlp", _read_telemetry, takes_text=True, schema={"enum": ["otlp"]})


def several(kind: Kind[_T], words: str, most: int) -> Kind[tuple[_T, ...]]:
    """One value of a kind, or a list of them without repetitions, in their order."""

    def read(node: Node) -> tuple[_T, ...]:
        items = node.items if isinstance(node, List) else [node]
        if not 0 < len(items) <= most:
            raise WrongError(f"expected {words}, from 1 to {most} of them, found {len(items)}")
        return tuple(dict.fromkeys(kind.read(item) for item in items))

    many = {"type": "array", "items": kind.schema, "minItems": 1, "maxItems": most}
    return Kind(words, read, takes_text=True, schema={"anyOf": [kind.schema, many]}, brackets="[]")


_PATH_SCHEMA = string(_UNPADDED, maxLength=4_096) | _no_text_like(_ADDRESS)
_PATH_TEXT = text("a path", odd=_odd_path, may_hold=_BYTES)
PATH = Kind("a path", _PATH_TEXT.read, takes_text=True, schema=_PATH_SCHEMA)
PATHS = several(PATH, "a path or a list of paths", 1_000)
PEM_FILE = Kind("a path", _read_pem_path, takes_text=True, schema=_PATH_SCHEMA)
KEY_FILE = Kind("a path", _read_key_path, takes_text=True, schema=_PATH_SCHEMA)
INPUT_WORDS = (
    f"the path of a file that ends in {KNOWN_ENDINGS} (text also with .gz or .zst after that), of a folder with such "
    "files, or a pattern for them"
)
INPUT_PATH = Kind(
    "a path", text(INPUT_WORDS, odd=_odd_path, may_hold=_BYTES).read, takes_text=True, schema=_PATH_SCHEMA
)
ENCODING = Kind(
    "an encoding",
    _read_encoding,
    takes_text=True,
    schema=_ENCODING_NAME.schema | {"examples": ["utf-8", "utf-16", "cp1252"]},
)
DELIMITER = Kind(
    "one character", _read_delimiter, takes_text=True, schema=string(r'[^"\r\n\x00]|\\t', examples=[",", ";", "\t"])
)
KEY_ENV = Kind(
    "the name of an environment variable", _read_key_env, takes_text=True, schema=string(_IDENTIFIER.pattern)
)
BASE_URL = Kind(
    "a URL, or simulator",
    _read_base_url,
    takes_text=True,
    schema=string(r"simulator|[hH][tT][tT][pP][sS]?://[!-\[\]-~]+", examples=["https://api.cometapi.com", "simulator"]),
)
