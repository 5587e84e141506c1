"""Prompts whose messages stand in a column: the system message of the job, examples, then the row's own messages.

The system messages of the row come before the examples, since most formats take them only before all others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from cometbatch.prompt.content import ContentError, messages_of
from cometbatch.prompt.template import EMPTY_HINT, MAX_FAILURE_CHARACTERS, PartTemplate, compile_prompt, is_blank
from cometbatch.records import Failure, Message, Role

Fit: TypeAlias = Callable[[tuple[Message, ...]], tuple[Message, ...]]
"""A row's own messages, in the roles that can be sent."""
_APART: frozenset[Role] = frozenset({"system", "developer"})


class Example(Struct, frozen=True):
    """A message that goes before those of each row."""

    role: Role
    text: str


class Conversation(Struct, frozen=True, omit_defaults=True):
    """Where a prompt's messages come from: a column, and examples that go before each row's own."""

    column: str
    examples: tuple[Example, ...] = ()


class ConversationTemplate:
    """Turns rows into the messages that a column holds. It has what `PromptTemplate` has, and nothing changes it."""

    is_constant = False

    def __init__(
        self,
        conversation: Conversation,
        messages: Sequence[tuple[Role, str | Sequence[PartTemplate]]],
        *,
        fit: Fit,
        refuse_empty: bool,
    ) -> None:
        """`messages`: of the job, before those of the row. `fit`: raises `ContentError` for what can't be sent."""
        self._head = compile_prompt(messages) if messages else None
        self._column = conversation.column
        self._examples = tuple([Message.of_text(each.role, each.text) for each in conversation.examples])
        self._refuse_empty = refuse_empty
        self._fit = fit
        head = self._head
        self.columns_needed = frozenset({self._column}) | (frozenset() if head is None else head.columns_needed)
        self.needs_all_columns = head is not None and head.needs_all_columns
        self.texts = () if head is None else head.texts
        self.empty = Failure("template", f"prompt.messages_column: empty or blank, so nothing was sent ({EMPTY_HINT})")

    def check(self, columns: Sequence[str]) -> None:
        """Raise `TemplateError` where the template of the job's own message needs a column that is not among these."""
        if self._head is not None:
            self._head.check(columns)

    def same_texts(self, messages: Sequence[Message]) -> tuple[tuple[str | None, ...], ...]:
        """Of each part of a row's messages the text, where it is the same for all rows; None for all others."""
        head = () if self._head is None else self._head.same_texts(messages)
        if not self._examples:
            return *head, *[(None,) * len(each.content) for each in messages[len(head) :]]
        same = set(map(id, self._examples))
        return *head, *[
            tuple([part.text if id(each) in same else None for part in each.content]) for each in messages[len(head) :]
        ]

    def render(self, values: Mapping[str, object]) -> tuple[Message, ...] | Failure:
        """The messages for a row, images unread; a `Failure` of kind "template", with the place in the value, else."""
        head = () if self._head is None else self._head.render(values)
        if isinstance(head, Failure):
            return head
        try:
            own = self._fit(messages_of(values[self._column]))
        except ContentError as error:
            return Failure(
                "template", f"prompt.messages_column: {self._column}{_words(error)}"[:MAX_FAILURE_CHARACTERS]
            )
        asked = next((each for each in reversed(own) if each.role == "user"), None)
        if asked is None:
            words = f"prompt.messages_column: {self._column}: at least one message must have the role user"
            return Failure("template", words[:MAX_FAILURE_CHARACTERS])
        if self._refuse_empty and is_blank(asked.content):
            return self.empty
        if not self._examples:
            return (*head, *own)
        apart = next(index for index, each in enumerate(own) if each.role not in _APART)
        return (*head, *own[:apart], *self._examples, *own[apart:])


def _words(error: ContentError) -> str:
    """The words after the column's name: a place in its value follows at once, as in messages[0].role."""
    words = str(error)
    return words if words.startswith("[") else f": {words}"
