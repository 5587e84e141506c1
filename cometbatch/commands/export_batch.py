"""`export --as`: the outcomes of a run as a vendor's batch results, line by line."""

import json
from collections.abc import Iterator, Sequence

from cometbatch.commands.locate import locate
from cometbatch.commands.tables import JobSource
from cometbatch.errors import UsageError
from cometbatch.records import Completion
from cometbatch.results import parts
from cometbatch.results.batch_results import SHAPES, Reply, Shape, result_line
from cometbatch.results.export import Encoder
from cometbatch.results.rows import Piece, Rows
from cometbatch.run_state.run import find
from cometbatch.wire import FORMATS, WireFormat
from cometbatch.wire.encoding import holds_calls

_FORMAT: dict[Shape, str] = {"openai": "chat", "anthropic": "messages", "gemini": "gemini"}
"""The format of a vendor's replies, where the run has another one."""


def batch_encoder(target: JobSource, shape: str, overrides: Sequence[str], rows: Rows) -> Encoder:
    """The form of a vendor's batch results, for the rows of a job, a job file, a result or a run directory.

    `shape`: `openai`, `anthropic` or `gemini`. Raises `UsageError` for another word.
    """
    if shape not in SHAPES:
        raise UsageError(f"--as: write one of {', '.join(SHAPES)}, the vendor whose batch results are written.")
    if len(rows.slices) > 1:
        raise UsageError(
            f"--as: a vendor's batch results have one answer for each name, and this result has {len(rows.slices):,} "
            "cells and samples. Export their rows instead, with --to jsonl or with --shape wide."
        )
    run_id, asked, model = _asked(target, overrides)
    name = SHAPES[shape]
    spoken = "responses" if name == "openai" and asked == "responses" else _FORMAT[name]
    reply = _replying(FORMATS[spoken], model, is_same=spoken == asked)

    def lines(piece: Piece) -> Iterator[bytes]:
        return (result_line(name, outcome, reply, run_id) + b"\n" for outcome in rows.outcomes(piece))

    return Encoder(b"", lines)


def _replying(wire: WireFormat, model: str, *, is_same: bool) -> Reply:
    """How a reply is made from what columns keep. `is_same`: the run speaks this format, so that calls fit it."""

    def reply(completion: Completion) -> bytes | None:
        if completion.finish_reason == "tool_calls" and not (is_same and holds_calls(completion.detail)):
            return None
        return wire.build_response(model, completion).body

    return reply


def _asked(target: JobSource, overrides: Sequence[str]) -> tuple[str, str, str]:
    """The run's id, format and model, as far as its files tell; "" for what they don't."""
    located = locate(target, overrides)
    found = find(located.directory, located.result)
    if found is not None:
        first = found.manifest.targets[0].target
        return found.manifest.run_id, first.format, first.model
    said = parts.result_metadata(located.result) or {}
    try:
        job = json.loads(said.get("cometbatch.job", "{}"))["target"]
        return said.get("cometbatch.run_id", ""), job["format"], job["model"]
    except (ValueError, KeyError, TypeError):
        return said.get("cometbatch.run_id", ""), "", ""
