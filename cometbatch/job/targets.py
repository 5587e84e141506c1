"""What is asked of a model: a target, the same for every row that is asked of it.

A run's manifest keeps its targets in a table, each with the price book that was found for it when the run began.
"""

from typing import Any, cast

import msgspec
from msgspec import Struct

from cometbatch.job.secrets import printable
from cometbatch.prompt.template import PromptTemplate, compile_prompt
from cometbatch.records import GenerationParams, Role
from cometbatch.wire import FormatName, output_cap

NOT_IN_FINGERPRINT = frozenset({"max_tokens_field"})
"""Generation parameters that say the same thing in another way. A run may go on with another value of them: it would
not help a run that a refused name stopped to be begun anew, and paid again."""


class MessageTemplate(Struct, frozen=True):
    """One message of the prompt, before a row fills it in."""

    role: Role
    template: str


class Target(Struct, frozen=True):
    """What is asked, apart from the row: wire format, model, prompt and generation parameters.

    `model_column`, `param_columns`: the columns in which a row names its own model, and its own value of a parameter.
    """

    format: FormatName
    model: str
    messages: tuple[MessageTemplate, ...]
    params: GenerationParams = GenerationParams()
    model_column: str | None = None
    param_columns: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """The columns in which a row says how it is asked, by the job's keys that name them."""
        model = {} if self.model_column is None else {"target.model_column": self.model_column}
        return model | {f"params.columns.{name}": column for name, column in self.param_columns.items()}

    def prompt_template(self, *, refuse_empty: bool = False) -> PromptTemplate:
        """The compiled prompt. Compiles anew at each call. `refuse_empty`: no empty prompt is sent."""
        pairs = [(message.role, message.template) for message in self.messages]
        return compile_prompt(pairs, refuse_empty=refuse_empty)

    @property
    def max_output_tokens(self) -> int | None:
        """The cap on an answer in tokens, `params.extra.max_tokens` included; None where there is none for all rows."""
        return None if "max_output_tokens" in self.param_columns else output_cap(self.format, self.params)

    def fingerprint(self) -> dict[str, object]:
        """What changes answers, which is nearly all of it: JSON-ready values by their key path in a job file."""
        fields: dict[str, object] = {"target.format": self.format, "target.model": self.model}
        for index, message in enumerate(self.messages):
            fields[f"prompt.messages[{index}].role"] = message.role
            fields[f"prompt.messages[{index}].content"] = message.template
        params = {name: value for name, value in plain(self.params).items() if name not in NOT_IN_FINGERPRINT}
        columns = {"params.columns": dict(self.param_columns)} if self.param_columns else {}
        model = {} if self.model_column is None else {"target.model_column": self.model_column}
        return fields | {f"params.{name}": value for name, value in params.items()} | columns | model


def plain(value: Struct) -> dict[str, Any]:
    """A Struct as JSON would give it back: Decimals and paths are strings, tuples are lists."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(value, enc_hook=printable)))
