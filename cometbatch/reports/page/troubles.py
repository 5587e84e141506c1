"""What went wrong, by kind: how many rows, what it means, an example, and the next command."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl
from msgspec import Struct

from cometbatch.records import FailureKind
from cometbatch.reports.adding import FAILED
from cometbatch.reports.page.chosen import PLACE, Chosen
from cometbatch.results.rows import SUCCEEDED
from cometbatch.results.summary_words import incomplete_words, more_room

MESSAGE_CHARACTERS: Final = 300
CUT: Final = "length"

_FAILURES: Final[dict[FailureKind, tuple[str, str]]] = {
    "rate_limited": (
        "The service asked to slow down for as long as the row may wait.",
        "Ask them again; a lower limits.concurrency or limits.requests_per_minute helps.",
    ),
    "overloaded": ("The service, or a provider behind it, was overloaded.", ""),
    "timeout": ("No whole reply came in time. The service may have billed the work all the same.", ""),
    "connection": ("The connection was refused, reset or cut.", ""),
    "server_error": ("The service failed, not the row.", ""),
    "invalid_request": (
        "The service refuses the request as it is.",
        "Read the message first: the same request would be refused again.",
    ),
    "too_large": ("The request is too large.", "Make the row shorter, or ask a model that takes more input."),
    "blocked": (
        "A content filter blocked the request.",
        "Change the prompt, or ask another model: the same request would be blocked again.",
    ),
    "auth": ("The service refuses the key, or the key may not use this model.", "Check the key and what it may use."),
    "credit": ("The balance or a quota is used up.", "Top up first."),
    "model_not_found": ("The service does not know the model, or no route to it is up.", "Check target.model."),
    "invalid_response": ("The reply can't be read as an answer.", "Read the message first: it may come again."),
    "template": (
        "No prompt could be made of the row, so nothing was sent.",
        "Mend the prompt or the row's cells first.",
    ),
}
"""What each kind of failure means, and what to do before its rows are asked again."""


class RetryCommand(Struct, frozen=True):
    """What asks the rows of a kind again, of one source.

    `file`: the number of the source. `command`: None where its job file is not known, or where nothing is to be run.
    """

    file: int
    rows: int
    command: str | None


class Trouble(Struct, frozen=True):
    """Rows that failed or are incomplete, of one kind.

    `example`: file, ordinal and message of a row that is in the page; None where none is. `advice`: what to do before,
    or instead. `commands`: for each source with such rows, what asks them again, in the order of the sources.
    """

    status: str
    kind: str
    rows: int
    words: str
    example: dict[str, Any] | None
    advice: str
    commands: tuple[RetryCommand, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        commands = [msgspec.structs.asdict(each) for each in self.commands]
        return msgspec.structs.asdict(self) | {"commands": commands}


class Asked(Struct, frozen=True):
    """How the rows of a result were asked, as far as it decides what to do next.

    `command`: runs its job; None where it is unknown. `cap`: on an answer's tokens; None without one. `has_own_caps`:
    rows bring their requests. `has_cells`: it is of a matrix. `is_running`: a process works on it.
    """

    name: str
    command: str | None = None
    cap: int | None = None
    has_own_caps: bool = False
    has_cells: bool = False
    is_running: bool = False


class _Kind(NamedTuple):
    status: str
    kind: str | None


class TroublesAdding:
    """Counts rows that did not succeed, by kind, and keeps the first of each."""

    def __init__(self) -> None:
        self._rows: dict[_Kind, Counter[int]] = {}
        self._examples: dict[_Kind, dict[str, Any]] = {}

    def add(self, source: int, rows: pl.DataFrame) -> None:
        """Some rows of a source. Columns: `place`, `status`, `kind`, `message`."""
        lines = rows.filter(pl.col("status") != SUCCEEDED)
        if not lines.height:
            return
        found = lines.group_by("status", "kind", maintain_order=True).agg(
            pl.len(), pl.col(PLACE).first(), pl.col("message").first()
        )
        for status, kind, rows_of_kind, place, message in found.rows():
            key = _Kind(status, kind)
            self._rows.setdefault(key, Counter())[source] += rows_of_kind
            if key not in self._examples:
                short = (message or "")[:MESSAGE_CHARACTERS]
                self._examples[key] = {"file": source, "ordinal": place, "message": short}

    def found(self, asked: Sequence[Asked], chosen: Chosen) -> tuple[Trouble, ...]:
        """All kinds, the most rows first. `asked`: of each source."""
        ordered = sorted(self._rows.items(), key=lambda each: (-each[1].total(), each[0].status, each[0].kind or ""))
        return tuple(self._trouble(key, rows, asked, chosen) for key, rows in ordered)

    def _trouble(self, key: _Kind, rows: Counter[int], asked: Sequence[Asked], chosen: Chosen) -> Trouble:
        example = self._examples[key]
        first = asked[example["file"]]
        words, advice = _words(key, first)
        sources = sorted(rows)
        if any(asked[at].is_running for at in sources):
            advice = f"{advice} Run the command once this run has ended.".strip()
        elif all(asked[at].command is None for at in sources):
            options = _options(key, first)
            advice = f"{advice} Ask them again with the job's file: cometbatch run JOB_FILE {options}".strip()
        return Trouble(
            status=key.status,
            kind=key.kind or key.status,
            rows=rows.total(),
            words=words,
            example=example if chosen.has(example["file"], example["ordinal"]) else None,
            advice=advice,
            commands=tuple(RetryCommand(at, rows[at], _command(key, asked[at])) for at in sources),
        )


def _words(key: _Kind, asked: Asked) -> tuple[str, str]:
    """What this kind means, and what to do before its rows are asked again."""
    if key.status == FAILED:
        return _FAILURES.get(key.kind, ("The row has no answer.", ""))  # type: ignore[call-overload,no-any-return]
    known = incomplete_words(asked.cap, has_own_caps=asked.has_own_caps)
    words = known.get(key.kind or "", key.kind or "not whole")
    advice = ""
    if key.kind == CUT and asked.has_cells:
        advice = "To ask with more room, put a higher params.max_output_tokens on an axis: its cells alone are asked."
    return f"The answer is {words}.", advice


def _command(key: _Kind, asked: Asked) -> str | None:
    """What asks the rows of this kind again, of one source; None where its job file is not known."""
    return None if asked.command is None else f"{asked.command} {_options(key, asked)}"


def _options(key: _Kind, asked: Asked) -> str:
    """The options of `cometbatch run` that ask rows of this kind again."""
    if key.kind == CUT and asked.cap is not None and not asked.has_cells:
        return more_room(asked.cap)
    return f"--retry {key.kind or key.status}"
