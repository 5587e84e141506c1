"""Puts a row maker together: the prompt's templates, the wire format, and what identifies a request."""

import hashlib
from collections.abc import Sequence

from cometbatch import wire
from cometbatch.commands.clock import now
from cometbatch.job import Target
from cometbatch.job.targets import Template
from cometbatch.runner.row_maker import RowMaker


def row_maker(target: Target, template: Template, columns: Sequence[str], id_column: str | None) -> RowMaker:
    """How rows of a table with these columns become requests to a target, whose compiled prompt is `template`.

    Only the columns that are needed become Python values.
    """
    wire_format = wire.FORMATS[target.format]
    needed = set(columns) if template.needs_all_columns else set(template.columns_needed)
    return RowMaker(
        columns=tuple(name for name in columns if name in needed or name == id_column),
        id_column=id_column,
        render=template.render,
        build=wire_format.request_builder(target.model, target.params),
        as_sent=wire_format.as_sent,
        hash_start=hashlib.sha256(f"{target.format}\n{target.model}\n".encode()),
        now=now,
        max_output_tokens=target.max_output_tokens,
    )
