"""What in `params.extra` lets the service add input, or output, that no reservation bounds. Pure.

A reservation takes the bytes of the request and the cap on the answer for what an attempt can cost at most. Search
results, stored prompts, earlier conversations, files and tools that the service runs are billed beyond that: $4.10 was
billed under a cap of $0.20. Function tools stand in the request whole, and are run by the caller: they are bounded.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_SEARCH: Final = "search results"
_STORED: Final = "a stored prompt"
_EARLIER: Final = "an earlier conversation"
_CACHED: Final = "cached content"
_FILES: Final = "files"
_CONTAINER: Final = "what lies in a container"
_SERVERS: Final = "what other servers answer"
_TOOLS: Final = "the output of tools that the service runs"

_KEYS: Final[Mapping[str, str]] = {
    # OpenAI, Chat Completions and Responses
    "websearchoptions": _SEARCH,
    "prompt": _STORED,
    "previousresponseid": _EARLIER,
    "conversation": _EARLIER,
    "contextmanagement": "summaries of what was said",
    "prediction": "predicted output that is not used",
    "fileids": _FILES,
    "attachments": _FILES,
    # Anthropic, Messages
    "container": _CONTAINER,
    "mcpservers": _SERVERS,
    # Gemini, generateContent
    "cachedcontent": _CACHED,
    "extrabody.google.cachedcontent": _CACHED,
    # Other models behind the same formats
    "searchparameters": _SEARCH,
    "enablesearch": _SEARCH,
    "plugins": _SEARCH,
}
"""Dotted path in `params.extra`, in lower case and without `_`, since Gemini takes each name in both spellings -> what
the service adds. For all formats, since a gateway translates one into another."""

_FUNCTION_TYPES: Final = frozenset({"function", "custom"})
"""Types of tools that the caller runs. A tool without a type is one of Anthropic's, or of Gemini's."""

_FUNCTION_KEYS: Final = frozenset({"functiondeclarations"})
"""Keys of a Gemini tool that hold functions; every other key is a tool that the service runs."""

_RUN_BY_NAME: Final = frozenset({"googlesearch", "codeexecution", "urlcontext"})
"""Names of functions that gateways take for Gemini's own tools."""


_REMOTE_KEYS: Final = frozenset({"fileid", "fileuri", "fileurl", "imageurl"})
"""Keys of a part, plain, whose text names what the service fetches; an image may stand there whole, as `data:`."""

_REMOTE_TYPES: Final = frozenset({"url", "file", "item_reference"})
"""Types of a source, in Anthropic's parts, and of an item, in OpenAI's."""


def unbounded(extra: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each path in `params.extra` by which the service adds something, and what it adds. None: all is bounded.

    A setting of null, false or [] is none; {} is one (search with its defaults). Tools other than functions count,
    whatever their name is: new ones come every month.
    """
    for path, value in _paths(extra):
        if (added := _KEYS.get(_plain(path))) is not None and value not in (None, False, []):
            yield path, added
    tools = extra.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else [tools]):
        if isinstance(tool, Mapping) and not _is_function(tool):
            yield f"tools[{number}]", _TOOLS


def remote_parts(value: object) -> Iterator[str]:
    """Each part of a body that is not in the request itself, so that its bytes don't bound it.

    These are images by their address, files by their name, and earlier items.
    """
    if isinstance(value, list):
        for inner in value:
            yield from remote_parts(inner)
    elif isinstance(value, dict):
        if value.get("type") in _REMOTE_TYPES:
            yield str(value["type"])
        for key, inner in value.items():
            place = inner.get("url") if isinstance(inner, dict) else inner
            if _plain(key) in _REMOTE_KEYS and isinstance(place, str) and not place.startswith("data:"):
                yield key
            if not isinstance(inner, str):
                yield from remote_parts(inner)


def _paths(extra: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in extra.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def _is_function(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    if isinstance(name, str) and _plain(name) in _RUN_BY_NAME:
        return False
    if "type" in tool:
        return tool["type"] in _FUNCTION_TYPES
    return "name" in tool or {_plain(key) for key in tool} <= _FUNCTION_KEYS


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def describe_unbounded(extra: Mapping[str, Any]) -> str:
    """In words: which settings of `params.extra` are unbounded, and why; "" where none is."""
    return ", ".join(f"params.extra.{path} ({added})" for path, added in unbounded(extra))
