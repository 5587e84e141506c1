"""The messages of a job's prompt: written as `system` and `user`, as a list, or in a column; checked to compile."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.job.few_shot import read_examples
from cometbatch.job.keys import MAX_MESSAGES, MESSAGE_KEYS, PART_KEYS
from cometbatch.job.kinds import expected
from cometbatch.job.sections import Sections
from cometbatch.job.settings import template_words
from cometbatch.job.targets import MessageTemplate, PartTemplate
from cometbatch.job.tree import List, Map, Node, Scalar, WrongError
from cometbatch.prompt.conversation import Conversation
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.prompt.template import TemplateError, compile_prompt
from cometbatch.records import Role

_WRITTEN = ("system", "user", "messages")


class PlacedMessage(Struct, frozen=True):
    """A message, and the key path of its template."""

    message: MessageTemplate
    path: str


def read_messages(sections: Sections, choices: ChoiceSettings | None = None) -> list[PlacedMessage]:
    """The messages that are right; every other one is noted as a problem. `choices`: of a question, if it has any."""
    is_list = "messages" in sections.values["prompt"]
    messages = _listed(sections) if is_list else _system_and_user(sections)
    made = []
    for placed in messages:
        try:
            found = compile_prompt([placed.message.compilable()], choices_of=choices)
        except TemplateError as error:
            sections.refuse(placed.path, template_words(error))
            continue
        shown = choices if found.shows_choices else None
        made.append(PlacedMessage(msgspec.structs.replace(placed.message, choices=shown), placed.path))
    return made


def read_conversation(sections: Sections, examples: Path | None) -> Conversation | None:
    """Where the rows' own messages are, if they are in a column. `examples`: the file of those that go before them."""
    column = sections.given("prompt").get("messages_column")
    if column is None:
        if examples is not None and "messages_column" not in sections.values["prompt"]:
            sections.refuse("prompt.few_shot", "has a meaning only with prompt.messages_column")
        return None
    try:
        return Conversation(column, () if examples is None else read_examples(examples))
    except WrongError as error:
        sections.refuse("prompt.few_shot", str(error))
        return None


def _given(sections: Sections) -> dict[str, Any]:
    return {name: value for name, value in sections.given("prompt").items() if name in _WRITTEN}


def _system_and_user(sections: Sections) -> list[PlacedMessage]:
    values = sections.values["prompt"]
    if "messages_column" in values:
        if "user" in values:
            sections.refuse("prompt.user", "can't be there beside prompt.messages_column: use one of the two")
    elif "user" not in values:
        sections.refuse("prompt.user", "is missing")
    roles: tuple[Role, ...] = ("system", "user")
    given = _given(sections)
    return [PlacedMessage(MessageTemplate(role, given[role]), f"prompt.{role}") for role in roles if role in given]


def _listed(sections: Sections) -> list[PlacedMessage]:
    given = _given(sections)
    node = given.pop("messages", None)
    if sections.given("prompt").get("messages_column") is not None:  # a section that is no mapping has all keys, unset
        sections.refuse("prompt.messages", "can't be there beside prompt.messages_column: use one of the two")
    for name in given:
        sections.refuse(f"prompt.{name}", "can't be there beside prompt.messages: use one of the two")
    if node is None:
        return []
    if not isinstance(node, List) or not 1 <= len(node.items) <= MAX_MESSAGES:
        words = f"a list of 1 to {MAX_MESSAGES} messages, each with role and content"
        hint = "a column that holds them is prompt.messages_column" if isinstance(node, Scalar | Map) else ""
        sections.refuse("prompt.messages", str(expected(words, node, hint)))
        return []
    read = [_message(sections, f"prompt.messages[{at}]", item) for at, item in enumerate(node.items)]
    return [placed for placed in read if placed]


def _message(sections: Sections, path: str, node: Node) -> PlacedMessage | None:
    sections.note_place(path, node)
    if not isinstance(node, Map):
        sections.refuse(path, str(expected("a mapping with role and content", node)))
        return None
    values = sections.read_map(path, node, MESSAGE_KEYS)
    for name in MESSAGE_KEYS:
        if name not in values:
            sections.refuse(path, f"{name} is missing")
    role, content = values.get("role"), values.get("content")
    if not role or not content:
        return None
    if not isinstance(content, List):
        return PlacedMessage(MessageTemplate(role, content), f"{path}.content")
    if not content.items:
        sections.refuse(f"{path}.content", "expected a text or a list of parts, found an empty list")
    parts = [_part(sections, f"{path}.content[{at}]", item) for at, item in enumerate(content.items)]
    if role != "user" and any(part and part.kind == "image" for part in parts):
        sections.refuse(f"{path}.content", f"a message of {role} can't have an image: only the user's can")
    if not parts or None in parts:
        return None
    return PlacedMessage(MessageTemplate(role, "", tuple(filter(None, parts))), f"{path}.content")


def _part(sections: Sections, path: str, node: Node) -> PartTemplate | None:
    """A part of a message: one text, or one image."""
    sections.note_place(path, node)
    if not isinstance(node, Map):
        sections.refuse(path, str(expected("a mapping with text or image", node)))
        return None
    values = sections.read_map(path, node, PART_KEYS)
    if None in values.values():
        return None
    if ("text" in values) == ("image" in values):
        sections.refuse(path, "expected one of text and image")
        return None
    if "text" in values:
        if "detail" in values:
            sections.refuse(f"{path}.detail", "has a meaning only with an image")
        return PartTemplate("text", values["text"])
    return PartTemplate("image", values["image"], values.get("detail", ""))
