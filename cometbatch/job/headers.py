"""`target.headers`: headers of one's own for each request. Guards that the job holds names of variables, no secrets."""

import re
from collections.abc import Mapping
from typing import Final

from cometbatch.job.secrets import is_key_for_a_name, shown
from cometbatch.job.tree import Map, Node, WrongError, is_text
from cometbatch.job.variables import NAME_OF_VARIABLE, has_stray_dollar, variables_in

MAX_HEADERS: Final = 50
MAX_HEADER_CHARACTERS: Final = 4_096
WORDS: Final = "a mapping of header names to texts"
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'+*.^_`|~-]{1,100}")  # a token, as RFC 9110 has it
_KEPT: Final = re.compile(
    r"host|content-.*|proxy-.*|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|accept-encoding|"
    r"cookie2?|set-cookie2?|authorization|"
    r"x-api-key|api-key|apikey|x-goog-api-key|ocp-apim-subscription-key|anthropic-api-key|openai-api-key"
)
"""Headers that the request, the connection or the key decide: one of them from elsewhere would break all three."""
SCHEMA: Final = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": MAX_HEADERS,
    "propertyNames": {
        "type": "string",
        "pattern": f"^{_NAME.pattern}$",
        "not": {
            "pattern": "^(?:" + re.sub("[a-z]", lambda found: f"[{found[0]}{found[0].upper()}]", _KEPT.pattern) + ")$"
        },
    },
    "additionalProperties": {
        "type": "string",
        "maxLength": MAX_HEADER_CHARACTERS,
        "pattern": rf"^(?! )(?:[ -#%-~]|\$(?![{{(A-Za-z_])|\$\{{{NAME_OF_VARIABLE}\}})+(?<! )$",
    },
}
"""JSON Schema of these headers. That a name is there twice but for its capitals, it can't say."""


def read_headers(node: Node) -> dict[str, str]:
    """The headers by their names in small letters. Raises `WrongError`, which never shows a value."""
    if not isinstance(node, Map) or not 1 <= len(node.entries) <= MAX_HEADERS:
        found = f"{len(node.entries)} of them" if isinstance(node, Map) else "something else"
        raise WrongError(f"expected {WORDS}, at most {MAX_HEADERS}, found {found}")
    headers: dict[str, str] = {}
    for name, value in node.entries.items():
        if not _NAME.fullmatch(name):
            raise WrongError(f"{shown(name)} is no name of a header: letters, digits and - make one")
        if name.lower() in headers:
            raise WrongError(f"{shown(name)} is there twice: capitals make no difference in a header's name")
        if _KEPT.fullmatch(name.lower()):
            raise WrongError(f"{shown(name)} can't be set here: it belongs to the connection, the request or the key")
        headers[name.lower()] = _value(name, value)
    return headers


def are_lawful(headers: Mapping[str, str]) -> bool:
    """Whether these headers could come from `read_headers`."""
    try:
        return all(
            _NAME.fullmatch(name) is not None and not _KEPT.fullmatch(name) and _checked(name, text) == text
            for name, text in headers.items()
        )
    except WrongError:
        return False


def _value(name: str, node: Node) -> str:
    if not is_text(node):
        raise WrongError(f"{shown(name)}: expected a text in one line; put it in quotes")
    return _checked(name, node.text)


def _checked(name: str, text: str) -> str:
    words = f"{shown(name)}: expected a text in one line"
    if not text or text != text.strip() or len(text) > MAX_HEADER_CHARACTERS:
        raise WrongError(f"{words}, of at most {MAX_HEADER_CHARACTERS} characters, without a space at its start or end")
    if not text.isascii() or not text.isprintable():
        raise WrongError(f"{words}, found a line break or a character that is not ASCII in it")
    if has_stray_dollar(text):
        raise WrongError(f"{words}, found a $ that begins no variable: write ${{NAME}} for an environment variable")
    if any(is_key_for_a_name(variable) for variable in variables_in([text])):
        raise WrongError(f"{shown(name)}: what stands in ${{}} looks like a key itself, and not like a variable's name")
    return text
