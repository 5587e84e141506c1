"""What is asked of a model: a target, the same for every row that is asked of it.

A run's manifest keeps its targets in a table, each with the price book that was found for it when the run began.
"""

import json
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Struct

from cometbatch.job.secrets import printable
from cometbatch.prompt.answers import Checker
from cometbatch.prompt.content import ContentError
from cometbatch.prompt.conversation import Conversation, ConversationTemplate
from cometbatch.prompt.instruction import instruction
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.prompt.schema import checker_for
from cometbatch.prompt.template import PromptTemplate, compile_prompt
from cometbatch.records import GenerationParams, Message, Role
from cometbatch.wire import FORMATS, FormatName, output_cap
from cometbatch.wire.request_extra import Misfit
from cometbatch.wire.sent_schema import DIALECTS, sent_schema
from cometbatch.wire.structured import Mode, body_part

VendorName: TypeAlias = Literal["openai", "anthropic", "gemini"]
"""Whose batch files are known."""
NOT_IN_FINGERPRINT = frozenset({"max_tokens_field"})
"""Generation parameters that say the same thing in another way. A run may go on with another value of them: it would
not help a run that a refused name stopped to be begun anew, and paid again."""


RESPONSE_RULES: Final = 1
"""Numbers the rules by which schemas are sent and answers become columns. It belongs to the program."""
Template: TypeAlias = PromptTemplate | ConversationTemplate
"""A compiled prompt."""


class PartTemplate(Struct, frozen=True, omit_defaults=True):
    """A part of a message, before a row fills it in: a text, or an image and how closely to look at it."""

    kind: Literal["text", "image"]
    template: str
    detail: str = ""


class MessageTemplate(Struct, frozen=True, omit_defaults=True):
    """One message of the prompt, before a row fills it in: a text, or several parts.

    `choices`: where the choices of a question are, in a message that shows them; None in every other one.
    """

    role: Role
    template: str
    parts: tuple[PartTemplate, ...] = ()
    choices: ChoiceSettings | None = None

    def compilable(self) -> "tuple[Role, str | list[tuple[Literal['text', 'image'], str, str]]]":
        """What `compile_prompt` takes."""
        return self.role, [(each.kind, each.template, each.detail) for each in self.parts] or self.template


class Response(Struct, frozen=True):
    """What answers must be: of a schema, JSON, or a text that a pattern matches; one of these, or none of them.

    `mode`: how they are asked for. `prefix`: before the names of the columns that the schema gives. `max_asks`: how
    often a row is asked in all, where an answer is whole and does not fit.
    """

    schema: dict[str, Any] | None = None
    json: bool = False
    pattern: str | None = None
    mode: Mode = "native"
    prefix: str = ""
    max_asks: int = 2

    @property
    def is_used(self) -> bool:
        """Whether answers are checked at all."""
        return self.schema is not None or self.json or self.pattern is not None

    @property
    def instruction(self) -> str | None:
        """The words that the prompt gets, where no setting of a request says how to answer, or not all of it."""
        is_told = self.mode == "prompt" if self.pattern is not None else self.mode in {"json", "prompt"} or self.json
        if not self.is_used or not is_told or (self.json and self.mode == "tool"):
            return None
        return instruction(schema=self.schema, pattern=self.pattern)

    def sent_schema(self, format_name: str) -> dict[str, Any] | None:
        """The schema that a request of this format holds, outside of its prompt."""
        if self.schema is None or self.mode not in {"native", "tool"}:
            return None
        return sent_schema(format_name, self.schema, root_object=self.mode == "tool").schema

    def body_part(self, format_name: str) -> dict[str, Any]:
        """The part of a request's body that asks for such an answer."""
        if self.schema is None and not self.json:
            return {}
        return body_part(format_name, self.mode, self.sent_schema(format_name))

    def checker(self, format_name: str) -> Checker | None:
        """What checks answers; None where any will do. Raises `SchemaError`, `MissingExtraError`."""
        added = self.adds_nulls(format_name)
        return checker_for(schema=self.schema, pattern=self.pattern, json=self.json, nulls_are_added=added)

    def adds_nulls(self, format_name: str) -> bool:
        """Whether requests of this format ask for null where the schema lets a property be missing."""
        return DIALECTS[format_name].is_strict and self.mode in {"native", "tool"}

    def fingerprint(self) -> dict[str, object]:
        """What changes answers. A schema counts as text: the order of its properties is that of the answer's."""
        if not self.is_used:
            return {}
        schema = None if self.schema is None else json.dumps(self.schema, ensure_ascii=False)
        return {
            "response.schema": schema,
            "response.json": self.json or None,
            "response.pattern": self.pattern,
            "response.mode": self.mode,
            "response.prefix": self.prefix,
            "response.rules": RESPONSE_RULES,
        }


class Target(Struct, frozen=True):
    """What is asked, apart from the row: wire format, model, prompt, generation parameters, what answers must be.

    `batch`: whose batch file the rows come from. Then each brings its whole request, over which `params` are laid.
    `conversation`: where the row's own messages come from, if not from templates. `model_column`, `param_columns`: the
    columns in which a row names its own model, and its own value of a parameter.
    """

    format: FormatName
    model: str
    messages: tuple[MessageTemplate, ...]
    params: GenerationParams = GenerationParams()
    batch: VendorName | None = None
    conversation: Conversation | None = None
    response: Response = Response()
    model_column: str | None = None
    param_columns: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """The columns in which a row says how it is asked, by the job's keys that name them."""
        model = {} if self.model_column is None else {"target.model_column": self.model_column}
        return model | {f"params.columns.{name}": column for name, column in self.param_columns.items()}

    def prompt_template(self, *, refuse_empty: bool = False) -> Template:
        """The compiled prompt. Compiles anew at each call. `refuse_empty`: no empty prompt is sent."""
        pairs = [message.compilable() for message in self.messages]
        if self.conversation is not None:
            return ConversationTemplate(self.conversation, pairs, fit=self._fitted, refuse_empty=refuse_empty)
        return compile_prompt(pairs, refuse_empty=refuse_empty, choices_of=self._choices)

    @property
    def _choices(self) -> ChoiceSettings | None:
        """Where the choices are that its prompt shows."""
        return next((each.choices for each in self.messages if each.choices is not None), None)

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
        """The cap on an answer in tokens, `params.extra.max_tokens` included; None where there is none for all rows."""
        return None if "max_output_tokens" in self.param_columns else output_cap(self.format, self.params)

    def fingerprint(self) -> dict[str, object]:
        """What changes answers, which is nearly all of it: JSON-ready values by their key path in a job file."""
        fields: dict[str, object] = {"target.format": self.format, "target.model": self.model}
        for index, message in enumerate(self.messages):
            fields[f"prompt.messages[{index}].role"] = message.role
            content = [msgspec.to_builtins(part) for part in message.parts] or message.template
            fields[f"prompt.messages[{index}].content"] = content
        if (choices := self._choices) is not None:
            fields["prompt.choices"] = plain(choices)
        if self.conversation is not None:
            fields["prompt.messages_column"] = self.conversation.column
            fields["prompt.few_shot"] = [msgspec.to_builtins(each) for each in self.conversation.examples] or None
        params = {name: value for name, value in plain(self.params).items() if name not in NOT_IN_FINGERPRINT}
        asked = {f"params.{name}": value for name, value in params.items()}
        columns = {"params.columns": dict(self.param_columns)} if self.param_columns else {}
        model = {} if self.model_column is None else {"target.model_column": self.model_column}
        return fields | asked | columns | model | self.response.fingerprint()


def plain(value: Struct) -> dict[str, Any]:
    """A Struct as JSON would give it back: Decimals and paths are strings, tuples are lists."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(value, enc_hook=printable)))
