"""Puts a row maker together: the prompt's templates, the wire format, and what identifies a request."""

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

from cometbatch import wire
from cometbatch.commands.clock import now
from cometbatch.job import Target
from cometbatch.job.targets import VendorName
from cometbatch.job.vendor_batch import VENDORS
from cometbatch.prompt.template import PromptTemplate
from cometbatch.runner.row_maker import RowMaker
from cometbatch.runner.whole_rows import WholeRowMaker
from cometbatch.wire.whole_bodies import request_reader

Maker: TypeAlias = RowMaker | WholeRowMaker
"""What makes requests of rows: by a prompt's templates, or as the row has them."""


def row_maker(target: Target, template: PromptTemplate, columns: Sequence[str], id_column: str | None) -> Maker:
    """How rows of a table with these columns become requests to a target, whose compiled prompt is `template`.

    Only the columns that are needed become Python values.
    """
    if target.batch is not None:
        return _whole_row_maker(target, target.batch)
    wire_format = wire.FORMATS[target.format]
    needed = set(columns) if template.needs_all_columns else set(template.columns_needed)
    return RowMaker(
        columns=tuple(name for name in columns if name in needed or name == id_column),
        id_column=id_column,
        render=template.render,
        build=wire_format.request_builder(target.model, target.params),
        as_sent=wire_format.as_sent,
        hash_start=_hash_start(target),
        now=now,
        max_output_tokens=target.max_output_tokens,
    )


def _whole_row_maker(target: Target, batch: VendorName) -> WholeRowMaker:
    """How the lines of a vendor's batch file become requests to a target."""
    vendor = VENDORS[batch]
    return WholeRowMaker(
        body=vendor.body,
        id_column=vendor.id,
        read=request_reader(target.format, target.model, target.params),
        hash_start=_hash_start(target),
        now=now,
    )


def _hash_start(target: Target) -> "hashlib._Hash":
    return hashlib.sha256(f"{target.format}\n{target.model}\n".encode())
