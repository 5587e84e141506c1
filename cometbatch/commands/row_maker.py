"""Puts a row maker together: the prompt's templates, the wire format, and what identifies a request."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence

from cometbatch import wire
from cometbatch.commands.clock import now
from cometbatch.job import Target
from cometbatch.prompt.instruction import instructed
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import HttpRequest, Message
from cometbatch.runner.row_maker import RowMaker
from cometbatch.wire.structured import with_part


def row_maker(target: Target, template: PromptTemplate, columns: Sequence[str], id_column: str | None) -> RowMaker:
    """How rows of a table with these columns become requests to a target, whose compiled prompt is `template`.

    Only the columns that are needed become Python values.
    """
    wire_format = wire.FORMATS[target.format]
    part, words = target.response.body_part(target.format), target.response.instruction
    build = wire_format.request_builder(target.model, with_part(target.params, part))
    needed = set(columns) if template.needs_all_columns else set(template.columns_needed)
    return RowMaker(
        columns=tuple(name for name in columns if name in needed or name == id_column),
        id_column=id_column,
        render=template.render,
        build=build if words is None else functools.partial(_build_instructed, build, words),
        as_sent=wire_format.as_sent,
        hash_start=hashlib.sha256(f"{target.format}\n{target.model}\n".encode()),
        now=now,
        max_output_tokens=target.max_output_tokens,
        added_characters=len(words or "") + (len(json.dumps(part)) if part else 0),
    )


def _build_instructed(
    build: Callable[[Sequence[Message]], HttpRequest], words: str, messages: Sequence[Message]
) -> HttpRequest:
    """The request with words about the answer's form in its prompt."""
    return build(instructed(messages, words))
