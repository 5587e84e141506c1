"""Puts a row maker together: the prompt's templates, the wire format, and what identifies a request."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from cometbatch import wire
from cometbatch.commands.clock import now
from cometbatch.commands.row_variants import RowVariants
from cometbatch.job import Target
from cometbatch.prompt.template import PromptTemplate
from cometbatch.records import Failure
from cometbatch.runner.row_maker import RowMaker

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def row_maker(
    target: Target,
    template: PromptTemplate,
    columns: Sequence[str],
    id_column: str | None,
    *,
    numbers: Mapping[str, int] = NOTHING,
    refused: Mapping[str, Failure] = NOTHING,
) -> RowMaker:
    """How rows of a table with these columns become requests to a target, whose compiled prompt is `template`.

    Only the columns that are needed become Python values. `numbers`, `refused`: as of `RowVariants`, for a target of
    which rows say in their own cells how they are asked.
    """
    wire_format = wire.FORMATS[target.format]
    needed = set(columns) if template.needs_all_columns else set(template.columns_needed)
    needed.update(target.columns.values())

    def of_variant(variant: Target) -> RowMaker:
        return row_maker(variant, template, columns, id_column)

    return RowMaker(
        columns=tuple(name for name in columns if name in needed or name == id_column),
        id_column=id_column,
        render=template.render,
        build=wire_format.request_builder(target.model, target.params),
        as_sent=wire_format.as_sent,
        hash_start=hashlib.sha256(f"{target.format}\n{target.model}\n".encode()),
        now=now,
        max_output_tokens=target.max_output_tokens,
        variant=RowVariants(target, numbers, refused, of_variant) if target.columns else None,
    )
