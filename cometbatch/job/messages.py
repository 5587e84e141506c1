"""The messages of a job's prompt, written as `system` and `user` or as a list, checked to compile."""

from typing import Any

from msgspec import Struct

from cometbatch.job.keys import MAX_MESSAGES, MESSAGE_KEYS, PROMPT_TEXTS
from cometbatch.job.kinds import expected
from cometbatch.job.sections import Sections
from cometbatch.job.settings import template_words
from cometbatch.job.targets import MessageTemplate
from cometbatch.job.tree import List, Map, Node
from cometbatch.prompt.template import TemplateError, compile_prompt
from cometbatch.records import Role


class PlacedMessage(Struct, frozen=True):
    """A message, and the key path of its template."""

    message: MessageTemplate
    path: str


def read_messages(sections: Sections) -> list[PlacedMessage]:
    """The messages that are right; every other one is noted as a problem."""
    is_list = "messages" in sections.values["prompt"]
    messages = _listed(sections) if is_list else _system_and_user(sections)
    for placed in messages:
        try:
            compile_prompt([(placed.message.role, placed.message.template)])
        except TemplateError as error:
            sections.refuse(placed.path, template_words(error))
    return messages


def _given(sections: Sections) -> dict[str, Any]:
    return {name: value for name, value in sections.given("prompt").items() if name in PROMPT_TEXTS}


def _system_and_user(sections: Sections) -> list[PlacedMessage]:
    if "user" not in sections.values["prompt"]:
        sections.refuse("prompt.user", "is missing")
    roles: tuple[Role, ...] = ("system", "user")
    given = _given(sections)
    return [PlacedMessage(MessageTemplate(role, given[role]), f"prompt.{role}") for role in roles if role in given]


def _listed(sections: Sections) -> list[PlacedMessage]:
    given = _given(sections)
    node = given.pop("messages", None)
    for name in given:
        sections.refuse(f"prompt.{name}", "can't be there beside prompt.messages: use one of the two")
    if node is None:
        return []
    if not isinstance(node, List) or not 1 <= len(node.items) <= MAX_MESSAGES:
        words = f"a list of 1 to {MAX_MESSAGES} messages, each with role and content"
        sections.refuse("prompt.messages", str(expected(words, node)))
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
    return PlacedMessage(MessageTemplate(role, content), f"{path}.content") if role and content else None
