"""The words of the project as types: frozen values that every other module speaks in.

Nothing here does I/O, and nothing here is changed once made. `msgspec.Struct` is used for what a dataclass would
do, because outcomes are made and written once a row and a Struct is several times cheaper at both. What is made once
a row holds nothing that could hold it in turn, so the garbage collector need not look at it (`gc=False`).
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

Role: TypeAlias = Literal["system", "developer", "user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "refusal", "tool_calls", "other"]
FailureKind: TypeAlias = Literal[
    "rate_limited",
    "overloaded",
    "timeout",
    "connection",
    "server_error",
    "invalid_request",
    "too_large",
    "blocked",
    "auth",
    "credit",
    "model_not_found",
    "invalid_response",
    "template",
]
TransportFailureKind: TypeAlias = Literal["timeout", "connection", "too_large"]
Problem: TypeAlias = Literal["error", "redirect", "not_json", "html", "not_understood", "failed_generation"]


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation."""

    role: Role
    content: str


class GenerationParams(Struct, frozen=True):
    """How to generate, in common names; each wire format maps them to its own.

    `extra` is merged into the request body as it is (deeply, where both sides are mappings).
    """

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class Prompt(Struct, frozen=True, gc=False):
    """What is asked for one row, in no vendor's words."""

    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()


class HttpRequest(Struct, frozen=True, gc=False):
    """A POST that knows neither host nor key. Header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class RowRequest(Struct, frozen=True, gc=False):
    """A row made ready to be sent. `request_hash` is a SHA-256 over format, model and body, in hex.

    `estimated_tokens`: what the row may take of a tokens-per-minute limit, input and output. `max_output_tokens`: the
    cap on its answer, if it has one.
    """

    row: int
    custom_id: str | None
    http: HttpRequest
    request_hash: str
    estimated_tokens: int
    max_output_tokens: int | None = None


class HttpResponse(Struct, frozen=True, gc=False):
    """A whole reply. Header names are lower case; of a repeated header the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes


class TransportFailure(Struct, frozen=True, gc=False):
    """An exchange that brought no whole reply: what the network did to us, as a value.

    timeout: no whole reply in time; connection: refused, reset or cut short; too_large: the body passed the bound.
    The service may have finished, and billed, the work all the same, unless nothing can have been `sent`.
    """

    kind: TransportFailureKind
    detail: str
    sent: bool = True


class PoolStats(Struct, frozen=True):
    """How connections were used: requests sent, connections opened for them, and the most that were open at once."""

    requests: int = 0
    opened: int = 0
    most_open: int = 0


class ModelRequest(Struct, frozen=True):
    """What a server reads out of a request: which model is asked, and what."""

    model: str
    prompt: Prompt


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """Token counts as inclusive totals (OpenTelemetry GenAI names): input includes cache, output includes reasoning.

    `None` is "the service did not say", which is not 0. Cache counts never exceed input, reasoning never output.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None


class Completion(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a model answered. `detail` says why there is less than an answer: refusal, block reason, tool calls.

    `reported_cost_usd` is what the service itself says that the answer cost; few models' replies do (contract sheet,
    section 8.3), and the currency is presumed.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage = Usage()
    response_id: str | None = None
    response_model: str | None = None
    detail: str | None = None
    reported_cost_usd: Decimal | None = None


class ErrorDetail(Struct, frozen=True, gc=False):
    """What a reply that is no completion says of itself, whatever its shape.

    `problem` is how it failed to be an answer: error (an error status), redirect (3xx), html or not_json (a success
    status without JSON), not_understood (JSON of no known shape), failed_generation (a success status whose JSON
    says that generation failed). `code`, `type` and `message` are "" where the reply has none.
    """

    status: int
    problem: Problem = "error"
    code: str = ""
    type: str = ""
    message: str = ""
    request_id: str | None = None


class Failure(Struct, frozen=True, gc=False):
    """Why a row has no answer."""

    kind: FailureKind
    message: str
    status: int | None = None
    code: str = ""
    request_id: str | None = None


class Retry(Struct, frozen=True, gc=False):
    """Worth another attempt.

    `retry_after_s` is the wait that the service asked for. `slow_down`: the service pushes back, everyone waits.
    `costs_attempt`: False where the attempt must not count against the row (plain pushback).
    """

    failure: Failure
    retry_after_s: float | None = None
    slow_down: bool = False
    costs_attempt: bool = True


class GiveUp(Struct, frozen=True):
    """The same row would be refused again. `path_mistake`: so would every row, if no request has worked yet."""

    failure: Failure
    path_mistake: bool = False


class Abort(Struct, frozen=True):
    """So would every row: the run stops, resumable. `hint` says what to do before carrying on."""

    failure: Failure
    hint: str


Verdict: TypeAlias = Retry | GiveUp | Abort
"""What is to become of an attempt that brought no completion; one that did is done, however the answer ended."""


class Succeeded(Struct, frozen=True, gc=False, tag="succeeded", tag_field="status"):
    """A whole answer."""

    row: int
    custom_id: str | None
    attempts: int
    latency_s: float
    finished_at: datetime
    request_hash: str
    http_status: int
    request_id: str | None
    completion: Completion
    cost_usd: Decimal | None


class Incomplete(Struct, frozen=True, gc=False, tag="incomplete", tag_field="status"):
    """Billed, but cut short, blocked, refused or empty."""

    row: int
    custom_id: str | None
    attempts: int
    latency_s: float
    finished_at: datetime
    request_hash: str
    http_status: int
    request_id: str | None
    completion: Completion
    cost_usd: Decimal | None


class Failed(Struct, frozen=True, gc=False, tag="failed", tag_field="status"):
    """No answer. `attempts` is 0 and `latency_s`, `request_hash` are None where nothing was sent."""

    row: int
    custom_id: str | None
    attempts: int
    latency_s: float | None
    finished_at: datetime
    request_hash: str | None
    failure: Failure


Answered: TypeAlias = Succeeded | Incomplete
Outcome: TypeAlias = Answered | Failed


class UnansweredAttempt(Struct, frozen=True, gc=False, tag="thrown", tag_field="status"):
    """An attempt that may have been billed beyond what the rows' costs show: timed out, cut, unreadable, sent again.

    `max_cost_usd`: what it can have come to at most; None is unknown.
    """

    row: int
    finished_at: datetime
    reason: str
    max_cost_usd: Decimal | None


class Partition(Struct, frozen=True):
    """A fixed range of consecutive rows: the unit of commit, memory, resume and distribution."""

    index: int
    first_row: int
    row_count: int


class Rates(Struct, frozen=True):
    """US dollars per million tokens, or per request where that is set; `None` where that basis does not apply."""

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    per_request: Decimal | None = None


class PriceBook(Struct, frozen=True):
    """The prices that a run uses from its first row to its last, and where they come from.

    `rates` is None where the model has no known price. `ratio` is the catalog's own factor from list to charged
    price, shown as the likely figure and never used for a ceiling.
    """

    model: str
    source: str
    rates: Rates | None = None
    ratio: Decimal | None = None


class Tally(Struct, frozen=True):
    """Counts and sums over outcomes; two tallies of different rows add up to the tally of all of them.

    `thrown` attempts may have been billed beyond `cost_usd`; `thrown_cost_usd` is what those with a known price can
    have come to at most, and `thrown_unpriced` counts the others. `resent` of them were in flight when an
    earlier session died. `uncounted` answers came without token counts. `reported` answers came with a cost of the
    service's own, `reported_cost_usd` in sum; `differing` of them say something else than our prices, and these came to
    `differing_reported_usd` by its word and to `differing_cost_usd` by ours.
    """

    succeeded: int = 0
    incomplete: int = 0
    failed: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    thrown: int = 0
    thrown_cost_usd: Decimal = Decimal(0)
    thrown_unpriced: int = 0
    resent: int = 0
    uncounted: int = 0
    reported: int = 0
    reported_cost_usd: Decimal = Decimal(0)
    differing: int = 0
    differing_reported_usd: Decimal = Decimal(0)
    differing_cost_usd: Decimal = Decimal(0)

    @property
    def rows(self) -> int:
        """How many rows have an outcome."""
        return self.succeeded + self.incomplete + self.failed
