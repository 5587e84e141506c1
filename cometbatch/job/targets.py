"""What is asked of a model: a target, the same for every row that is asked of it.

A run's manifest keeps its targets in a table, each with the price book that was found for it when the run began.
"""

from typing import Any, cast

import msgspec
from msgspec import Struct

from cometbatch.job.secrets import printable
from cometbatch.prompt.template import PromptTemplate, compile_prompt
from cometbatch.records import GenerationParams, Role
from cometbatch.wire import FormatName


class MessageTemplate(Struct, frozen=True):
    """One message of the prompt, before a row fills it in."""

    role: Role
    template: str


class Target(Struct, frozen=True):
    """What is asked, apart from the row: wire format, model, prompt and generation parameters."""

    format: FormatName
    model: str
    messages: tuple[MessageTemplate, ...]
    params: GenerationParams = GenerationParams()

    def prompt_template(self, *, refuse_empty: bool = False) -> PromptTemplate:
        """The compiled prompt. Compiles anew at each call. `refuse_empty`: no empty prompt is sent."""
        pairs = [(message.role, message.template) for message in self.messages]
        return compile_prompt(pairs, refuse_empty=refuse_empty)

    def fingerprint(self) -> dict[str, object]:
        """Everything in it, since all of it changes answers: JSON-ready values by their key path in a job file."""
        fields: dict[str, object] = {"target.format": self.format, "target.model": self.model}
        for index, message in enumerate(self.messages):
            fields[f"prompt.messages[{index}].role"] = message.role
            fields[f"prompt.messages[{index}].content"] = message.template
        return fields | {f"params.{name}": value for name, value in plain(self.params).items()}


def plain(value: Struct) -> dict[str, Any]:
    """A Struct as JSON would give it back: Decimals and paths are strings, tuples are lists."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(value, enc_hook=printable)))
