"""What is asked of a model: a target, the same for every row that is asked of it.

A run's manifest keeps its targets in a table, each with the price book that was found for it when the run began.
"""

from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Struct

from cometbatch.job.secrets import printable
from cometbatch.prompt.content import ContentError
from cometbatch.prompt.conversation import Conversation, ConversationTemplate
from cometbatch.prompt.template import PromptTemplate, compile_prompt
from cometbatch.records import GenerationParams, Message, Role
from cometbatch.wire import FORMATS, FormatName, output_cap
from cometbatch.wire.request_extra import Misfit

VendorName: TypeAlias = Literal["openai", "anthropic", "gemini"]
"""Whose batch files are known."""
NOT_IN_FINGERPRINT = frozenset({"max_tokens_field"})
"""Generation parameters that say the same thing in another way. A run may go on with another value of them: it would
not help a run that a refused name stopped to be begun anew, and paid again."""


Template: TypeAlias = PromptTemplate | ConversationTemplate
"""A compiled prompt."""


class PartTemplate(Struct, frozen=True, omit_defaults=True):
    """A part of a message, before a row fills it in: a text, or an image and how closely to look at it."""

    kind: Literal["text", "image"]
    template: str
    detail: str = ""


class MessageTemplate(Struct, frozen=True, omit_defaults=True):
    """One message of the prompt, before a row fills it in: a text, or several parts."""

    role: Role
    template: str
    parts: tuple[PartTemplate, ...] = ()

    def compilable(self) -> "tuple[Role, str | list[tuple[Literal['text', 'image'], str, str]]]":
        """What `compile_prompt` takes."""
        return self.role, [(each.kind, each.template, each.detail) for each in self.parts] or self.template


class Target(Struct, frozen=True):
    """What is asked, apart from the row: wire format, model, prompt and generation parameters.

    `batch`: whose batch file the rows come from. Then each brings its whole request, over which `params` are laid.
    `conversation`: where the row's own messages come from, if not from templates.
    """

    format: FormatName
    model: str
    messages: tuple[MessageTemplate, ...]
    params: GenerationParams = GenerationParams()
    batch: VendorName | None = None
    conversation: Conversation | None = None

    def prompt_template(self, *, refuse_empty: bool = False) -> Template:
        """The compiled prompt. Compiles anew at each call. `refuse_empty`: no empty prompt is sent."""
        pairs = [message.compilable() for message in self.messages]
        if self.conversation is not None:
            return ConversationTemplate(self.conversation, pairs, fit=self._fitted, refuse_empty=refuse_empty)
        return compile_prompt(pairs, refuse_empty=refuse_empty)

    def _fitted(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Messages of a row in the format's roles. Raises `ContentError` with the place of what it can't say."""
        fitted = FORMATS[self.format].fitted(messages)
        if isinstance(fitted, Misfit):
            raise ContentError(f"[{fitted.index}]: {fitted.reason}")
        return fitted

    @property
    def has_images(self) -> bool:
        """Whether a template is one of an image."""
        return any(part.kind == "image" for message in self.messages for part in message.parts)

    @property
    def may_have_images(self) -> bool:
        """Whether some row's prompt can hold an image."""
        return self.conversation is not None or self.has_images

    @property
    def max_output_tokens(self) -> int | None:
        """The cap on an answer in tokens, `params.extra.max_tokens` included; None where there is none."""
        return output_cap(self.format, self.params)

    def fingerprint(self) -> dict[str, object]:
        """What changes answers, which is nearly all of it: JSON-ready values by their key path in a job file."""
        fields: dict[str, object] = {"target.format": self.format, "target.model": self.model}
        for index, message in enumerate(self.messages):
            fields[f"prompt.messages[{index}].role"] = message.role
            content = [msgspec.to_builtins(part) for part in message.parts] or message.template
            fields[f"prompt.messages[{index}].content"] = content
        if self.conversation is not None:
            fields["prompt.messages_column"] = self.conversation.column
            fields["prompt.few_shot"] = [msgspec.to_builtins(each) for each in self.conversation.examples] or None
        params = {name: value for name, value in plain(self.params).items() if name not in NOT_IN_FINGERPRINT}
        return fields | {f"params.{name}": value for name, value in params.items()}


def plain(value: Struct) -> dict[str, Any]:
    """A Struct as JSON would give it back: Decimals and paths are strings, tuples are lists."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(value, enc_hook=printable)))
