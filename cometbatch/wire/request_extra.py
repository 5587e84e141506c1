"""`params.extra`: what a job adds to the request body, and the reasons why a format can't send something.

Law: `params.extra` never replaces what the format writes. Checking a job reports such a clash; a job that was not
checked keeps the format's value.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from cometbatch.records import Message, Role, TextPart

# Settings by which more than one answer is paid for, or none comes with the reply: plain name -> the values with which
# a request still asks for one whole answer. They count at the top and in a mapping of generation settings.
_ONE_WHOLE_ANSWER: Mapping[str, tuple[object, ...]] = {
    "stream": (None, False),
    "background": (None, False),
    "n": (None, 1),
    "bestof": (None, 1),
    "candidatecount": (None, 1),
    "numcandidates": (None, 1),
    "numcompletions": (None, 1),
    "numgenerations": (None, 1),
    "numreturnsequences": (None, 1),
    "numsamples": (None, 1),
}
_GENERATION = frozenset({"generationconfig", "generationparameters", "parameters", "options", "extrabody"})
# What is asked for beside the answer, by the plain path of its setting -> the key of a job that keeps it.
_BESIDE: Mapping[str, Literal["raw", "reasoning"]] = {
    "logprobs": "raw",
    "toplogprobs": "raw",
    "include": "raw",
    "modalities": "raw",
    "audio": "raw",
    "websearchoptions": "raw",
    "searchparameters": "raw",
    "enablesearch": "raw",
    "plugins": "raw",
    "citations": "raw",
    "returncitations": "raw",
    "returnimages": "raw",
    "returnrelatedquestions": "raw",
    "returntokenids": "raw",
    "promptlogprobs": "raw",
    "echo": "raw",
    "generationconfig.logprobs": "raw",
    "generationconfig.responselogprobs": "raw",
    "generationconfig.responsemodalities": "raw",
    "generationconfig.enableenhancedcivicanswers": "raw",
    "generationconfig.thinkingconfig.includethoughts": "reasoning",
    "includereasoning": "reasoning",
    "reasoning.summary": "reasoning",
    "reasoning.generatesummary": "reasoning",
    "thinking.display": "reasoning",
}
_NOT_ASKED: tuple[object, ...] = (
    None,
    False,
    0,
    "",
    [],
    "none",
    "omitted",
    ["text"],
    ["TEXT"],
)  # values of such a setting that ask for nothing
_FUNCTION_TYPES = frozenset({"function", "custom", None})  # of tools that the caller runs
_MARK = re.compile(r"\{\{.*?(?:\}\}|$)|\{%.*?(?:%\}|$)", re.DOTALL)
_MARK_CHARS = 40  # of a template mark that are shown
_MISSING = object()


def unstreamed(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """`extra` without a `stream` that says no more than what every request says (`encoding.unstreamed`)."""
    return {key: value for key, value in extra.items() if key != "stream" or value not in (None, False)}


def merge(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Add `extra` to a body, deeply. Nothing in `extra` is changed, and nothing in the body is replaced."""
    for key, value in extra.items():
        ours = body.setdefault(key, value)
        if ours is not value and isinstance(ours, dict) and isinstance(value, dict):
            merge(ours, value)


def unsupported_extra(extra: Mapping[str, Any], format_name: str, written: Mapping[str, str]) -> str | None:
    """Why `extra` can't be merged, as a sentence; None if it can.

    `written` maps the dotted paths that the format writes itself to the settings to use instead.
    """
    for path, instead in written.items():
        if _at(extra, path) is not _MISSING:
            return f"params.extra.{path} is written by the {format_name} format itself; use {instead}"
    for path in not_one_answer(extra):
        return f"params.extra.{path} asks for something else than one whole answer to each row; leave it out"
    return None if _is_plain_json(extra) else "params.extra holds something that JSON can't say exactly"


def not_one_answer(settings: Mapping[str, Any]) -> Iterator[str]:
    """The paths of settings by which a request asks for something else than one whole answer."""
    for path, value in _generation_settings(settings):
        name = _plain(path.rpartition(".")[2])
        if name in _ONE_WHOLE_ANSWER and value not in _ONE_WHOLE_ANSWER[name]:
            yield path


def unsupported_roles(roles: Sequence[Role], format_name: str, *, system_apart: bool) -> str | None:
    """Why messages in these roles can't be sent, as a sentence; None if they can.

    `system_apart`: the format keeps system messages apart from the conversation, and knows no developer role.
    """
    if "user" not in roles:
        return "at least one message must have the role user"
    if system_apart and "developer" in roles:
        return f"the {format_name} format has no developer role; use system"
    if system_apart and "system" in roles[leading_system(roles) :]:
        return f"the {format_name} format takes system messages only before all others"
    return None


class Misfit(Struct, frozen=True):
    """Which of some messages (0-based) a format can't say, and why."""

    index: int
    reason: str


def fitted(messages: Sequence[Message], format_name: str, *, system_apart: bool) -> tuple[Message, ...] | Misfit:
    """Messages that were not written for a format, in its own roles; or what it can't say.

    Where the format keeps system messages apart, developer's are system's. Only users have images.
    """
    made: list[Message] = []
    for index, message in enumerate(messages):
        if message.role != "user" and not all(isinstance(part, TextPart) for part in message.content):
            return Misfit(index, f"a message of {message.role} can't have an image: only the user's can")
        is_renamed = system_apart and message.role == "developer"
        made.append(Message("system", message.content) if is_renamed else message)
        if system_apart and made[-1].role == "system" and index and made[-2].role != "system":
            return Misfit(index, f"the {format_name} format takes system messages only before all others")
    return tuple(made)


def leading_system(roles: Sequence[Role]) -> int:
    """How many system messages come before anything else."""
    return next((index for index, role in enumerate(roles) if role != "system"), len(roles))


def asks_for_tools(extra: Mapping[str, Any]) -> bool:
    """Whether a request offers tools, so that calls of them are an answer."""
    return bool(extra.get("tools") or extra.get("functions"))


def unkept(extra: Mapping[str, Any]) -> Iterator[tuple[str, Literal["raw", "reasoning"]]]:
    """Each path of what is asked for beside the answer, with the key below `output` that keeps it."""
    for path, value in _paths(extra):
        setting = _BESIDE.get(_plain(path))
        if setting is not None and value not in _NOT_ASKED:
            yield path, setting
    tools = extra.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, Mapping) and _is_run_by_the_service(tool):
            yield f"tools[{number}]", "raw"


def template_marks(extra: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each place in `extra` that looks like part of a template, with the beginning of what looks so."""
    for path, value in _everything(extra, ""):
        for words in (path.rpartition(".")[2], value):
            found = _MARK.search(words) if isinstance(words, str) else None
            if found is not None:
                yield path, found[0][:_MARK_CHARS]
                break


def _generation_settings(extra: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """What stands at the top, and in a mapping of generation settings: deeper names may be anybody's own."""
    for key, value in extra.items():
        yield key, value
        if isinstance(value, Mapping) and _plain(key) in _GENERATION:
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())


def _paths(extra: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in extra.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def _everything(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Every value by its path, those in lists included."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _everything(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _everything(inner, f"{path}[{index}]")


def _is_run_by_the_service(tool: Mapping[str, Any]) -> bool:
    """Whether a tool's findings come with the reply, such as the places that a search found."""
    if "type" in tool:
        return tool["type"] not in _FUNCTION_TYPES
    return any("search" in _plain(str(key)) or "retrieval" in _plain(str(key)) for key in tool)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _at(extra: Mapping[str, Any], path: str) -> object:
    value: object = extra
    for key in path.split("."):
        value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
    return value


def _is_plain_json(extra: Mapping[str, Any]) -> bool:
    """Whether it is the same after a trip through JSON: no NaN, date, tuple, or key that is not text."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(extra)) == extra)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return False
