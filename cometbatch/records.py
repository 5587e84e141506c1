"""The words of the project as types: frozen values that every other module speaks in.

Nothing here does I/O, and nothing here is changed once made. `msgspec.Struct` is used for what a dataclass would
do, because outcomes are made and written once a row and a Struct is several times cheaper at both. What is made once
a row holds nothing that could hold it in turn, so the garbage collector need not look at it (`gc=False`).
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

import msgspec
from msgspec import Struct

Role: TypeAlias = Literal["system", "developer", "user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "refusal", "tool_calls", "other", "invalid"]
"""How an answer ended, in one word for all formats. `invalid` is ours: it ended by itself, and does not fit `response`,
after as many asks as the job has."""
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
MaxTokensField: TypeAlias = Literal["auto", "max_completion_tokens", "max_tokens"]
TransportFailureKind: TypeAlias = Literal["timeout", "connection", "too_large", "proxy", "image"]
Problem: TypeAlias = Literal[
    "error", "redirect", "not_json", "unreadable", "html", "not_understood", "failed_generation"
]

KEY_SHAPE: Final = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{8,}")
"""What an API key looks like within a text (contract sheet, section 1). No text that is kept or shown has one."""


class TextPart(Struct, frozen=True, gc=False):
    """Text within a message."""

    text: str


class ImagePart(Struct, frozen=True, gc=False):
    """A picture within a message.

    `source`: its bytes, an https:// address, or a path below the folder of images. A picture that the service is to
    fetch `is_linked`: its address goes out as text. Of every other one the bytes go out; they are put into the body
    only when it is sent. `media_type`, `digest` (SHA-256 in hex) and `size` in bytes are known once these were read.
    `detail`: how closely the model is to look, in OpenAI's words; "" leaves that to it.
    """

    source: str | bytes
    is_linked: bool = False
    detail: str = ""
    media_type: str = ""
    digest: str = ""
    size: int = 0
    text: ClassVar[str] = ""

    @property
    def reference(self) -> str:
        """What stands for its bytes in a request's identity: their digest, or the address that they come from."""
        return f"sha256:{self.digest}" if self.digest else str(self.source)


Part: TypeAlias = TextPart | ImagePart


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation, made of parts in order."""

    role: Role
    content: tuple[Part, ...]

    @classmethod
    def of_text(cls, role: Role, text: str) -> Self:
        """A message of a single part."""
        return cls(role, (TextPart(text),))

    @property
    def text(self) -> str:
        """The texts of all parts, with nothing between them; an image has none."""
        return "".join([part.text for part in self.content])


class GenerationParams(Struct, frozen=True):
    """How to generate, in common names; each wire format maps them to its own.

    `extra` is merged into the request body as it is (deeply, where both sides are mappings). `max_tokens_field`: the
    name by which a chat request sets the cap; models differ in which of both they know.
    """

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    max_tokens_field: MaxTokensField = "auto"


class Prompt(Struct, frozen=True, gc=False):
    """What is asked for one row, in no vendor's words."""

    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()


class HttpRequest(Struct, frozen=True, gc=False):
    """A POST that knows neither host nor key. Header names are lower case.

    `images`: pictures whose bytes `body` lacks still. Marks stand for them (`wire.images`), so that only what is in
    flight takes their memory.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    images: tuple[ImagePart, ...] = ()


class CallRequest(Struct, frozen=True, gc=False):
    """A call made ready to be sent.

    `request_hash` is a SHA-256 in hex over format, model and body without `stream`, with the digest of each image in
    place of its bytes.

    `ordinal` is the call's place in the result, and its identity. `target`: its number in the run's table of targets.
    `estimated_tokens`: what the call may take of a tokens-per-minute limit, input and output. `max_output_tokens`: the
    cap on its answer, if it has one. `image_tokens`: what its images are taken to have at most, beside the bytes of
    `http`.
    """

    ordinal: int
    custom_id: str | None
    http: HttpRequest
    request_hash: str
    estimated_tokens: int
    max_output_tokens: int | None = None
    target: int = 0
    image_tokens: int = 0


class HttpResponse(Struct, frozen=True, gc=False):
    """A whole reply. Header names are lower case; of a repeated header the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes


class TransportFailure(Struct, frozen=True, gc=False):
    """An exchange that brought no whole reply: what the network did to us, as a value.

    timeout: no whole reply in time; connection: refused, reset or cut short; too_large: the body passed the bound;
    proxy: the proxy wants another user name or password; image: an image of the request can't be had any more.
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

    `None` is "the service did not say", which is not 0. Cache counts never exceed input, reasoning never output, and
    what was written to be kept for an hour never what was written at all.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None


CONTRADICTION: Final = "usage="
"""How `Completion.cost_excludes` begins where a reply's token counts contradict each other; the counts follow."""


class Completion(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a model answered. `detail` says why there is less than an answer: refusal, block reason, tool calls.

    `reported_cost_usd` is what the service itself says that the answer cost; few models' replies do (contract sheet,
    section 8.3), and the currency is presumed. `cost_excludes` names what was used that no price for tokens covers, as
    in "web_search, service_tier=priority"; where the token counts contradict each other, it is `CONTRADICTION` and
    these counts as they came. `raw` (the reply's JSON) and `reasoning` (what the model thought) are kept only where the
    run has columns for them.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage = Usage()
    response_id: str | None = None
    response_model: str | None = None
    detail: str | None = None
    reported_cost_usd: Decimal | None = None
    cost_excludes: str | None = None
    raw: str | None = None
    reasoning: str | None = None


class ErrorDetail(Struct, frozen=True, gc=False):
    """What a reply that is no completion says of itself, whatever its shape.

    `problem` is how it failed to be an answer: error (an error status, or an error in a success), redirect (3xx), html
    (a success that is a page, empty, or of another type), not_json (a success that is cut off), unreadable (a success
    that is whole, and no JSON), not_understood (JSON of no known shape), failed_generation (a success status whose JSON
    says that generation failed). `code`, `type` and `message` are "" where the reply has none. `usage`: token counts
    that a success names beside its error; they may have been billed.
    """

    status: int
    problem: Problem = "error"
    code: str = ""
    type: str = ""
    message: str = ""
    request_id: str | None = None
    usage: Usage = Usage()


class Failure(Struct, frozen=True, gc=False):
    """Why a row has no answer."""

    kind: FailureKind
    message: str
    status: int | None = None
    code: str = ""
    request_id: str | None = None


class Retry(Struct, frozen=True, gc=False):
    """Worth another attempt.

    `retry_after_s` is the wait that the service asked for. `slow_down`: the service asks everyone to wait.
    `costs_attempt`: False where the attempt must not count against the row (the service only asks to slow down).
    """

    failure: Failure
    retry_after_s: float | None = None
    slow_down: bool = False
    costs_attempt: bool = True


class GiveUp(Struct, frozen=True):
    """The same request would be refused again: the call fails.

    `path_mistake`: every request would be, if none has worked yet.
    """

    failure: Failure
    path_mistake: bool = False


Fix: TypeAlias = Literal[
    "nothing", "wait", "account", "job", "budget", "max_tokens", "max_completion_tokens", "response"
]
"""What a person has to do before a stopped run can go on.

nothing: the same command resumes it; wait: the service needs time, or the network; account: the key or the credit;
job: the job file; budget: the budget in the job file; max_tokens, max_completion_tokens: `params.max_tokens_field`, to
this name; response: how answers in a given form are asked for, `response.mode` or `target.format`.
"""


class Abort(Struct, frozen=True):
    """Every request would be refused: the run stops, resumable.

    `hint` says in a sentence what to do before it is resumed, `fix` in one word. `is_certain`: False where other rows
    may be answered all the same; then `retry_after_s` is the wait that the service asked this row for. `is_of_model`:
    every request to this model would be refused, and others may be answered: where a run asks several models, this one
    stops alone.
    """

    failure: Failure
    hint: str
    fix: Fix
    is_certain: bool = True
    retry_after_s: float | None = None
    is_of_model: bool = False


class Done(Struct, frozen=True):
    """The completion is the call's answer. `misfit`: why it is no whole one, in the checker's words; "" if it fits.

    `is_json`: whether its text was JSON at all; None where that says nothing of the service.
    """

    misfit: str = ""
    is_json: bool | None = None


class AskAgain(Struct, frozen=True):
    """The completion is billed and not accepted: the call is asked again, with this request of the same ordinal.

    `is_json`: as of `Done`.
    """

    request: CallRequest
    is_json: bool | None = None


Acceptance: TypeAlias = Done | AskAgain
"""What a completion means for its call."""
Refusal: TypeAlias = Retry | GiveUp | Abort
"""What an attempt that brought no completion means for its call and for the run."""
Verdict: TypeAlias = Acceptance | Refusal


AnsweredStatus: TypeAlias = Literal["succeeded", "incomplete"]
ChargeReason: TypeAlias = Literal["no_answer", "in_flight", "duplicate", "damaged"]
"""Why money may have been spent without an outcome to show for it.

no_answer: an attempt ended without an answer that can be read, after its request had left; in_flight: the process ended
while the request was on its way; duplicate: the call had an outcome already; damaged: a file of the run can't be read
any more.
"""


class Answered(Struct, frozen=True, gc=False, omit_defaults=True, tag="answered", tag_field="record"):
    """The outcome of a call that a model answered.

    `status` is succeeded for a whole answer; incomplete for one that was billed, but is cut short, blocked, refused or
    empty. `attempts`, `cost_usd` and the usage of `completion` are sums over its `asks`.
    `input_above_bytes`: by how many tokens the input that was billed exceeds the bytes that were sent; 0 is usual.
    `answered_attempts`: of each ask, which attempt was answered. `max_cost_usd`: where the cost is unknown, US dollars
    that the asks came to at most, which is a possible charge; None is unknown, too.
    `at_cap`: the answer took all tokens that it may have, and says that it ended by itself. `target`: the number of the
    target that was asked. `rejected_cost_usd`: the part of the cost that asks before the last one came to.
    `largest_tokens`: of several asks, the most input and the most output tokens of one.

    An answer that was taken from an earlier call names the call that paid for it: the run, its id in `reused_from`, and
    the call's ordinal there, `reused_ordinal`. They are handed on unchanged when such an answer is taken again. It cost
    nothing now, in 0 attempts; `reused_cost_usd` is what it cost then, None where that is unknown. All that it says of
    the reply is the earlier call's: the completion, its ids and time.
    """

    ordinal: int
    status: AnsweredStatus
    custom_id: str | None
    attempts: int
    latency_s: float
    finished_at: datetime
    request_hash: str
    http_status: int
    request_id: str | None
    completion: Completion
    cost_usd: Decimal | None
    asks: int = 1
    input_above_bytes: int = 0
    answered_attempts: tuple[int, ...] = (1,)
    max_cost_usd: Decimal | None = None
    at_cap: bool = False
    target: int = 0
    rejected_cost_usd: Decimal | None = Decimal(0)
    largest_tokens: tuple[int, int] = (0, 0)
    reused_from: str | None = None
    reused_ordinal: int | None = None
    reused_cost_usd: Decimal | None = None


class Failed(Struct, frozen=True, gc=False, omit_defaults=True, tag="failed", tag_field="record"):
    """The outcome of a call without an answer that was accepted.

    `attempts` is 0 and `latency_s`, `request_hash` are None where nothing was sent. `usage` and `cost_usd` are sums
    over the asks that were rejected before the last one failed; where there were none, nothing is known of either.
    `answered_attempts`, `max_cost_usd` and `largest_tokens`: as of an answer, of these asks. `target`: the number of
    the target that was asked, or was to be asked.
    """

    ordinal: int
    custom_id: str | None
    attempts: int
    latency_s: float | None
    finished_at: datetime
    request_hash: str | None
    failure: Failure
    asks: int = 1
    usage: Usage = Usage()
    cost_usd: Decimal | None = None
    answered_attempts: tuple[int, ...] = ()
    max_cost_usd: Decimal | None = None
    target: int = 0
    largest_tokens: tuple[int, int] = (0, 0)

    @property
    def rejected_cost_usd(self) -> Decimal | None:
        """US dollars: all that the call cost are its rejected asks."""
        return self.cost_usd if self.asks > 1 else Decimal(0)


class RejectedAsk(Struct, frozen=True, gc=False, omit_defaults=True, tag="ask", tag_field="record"):
    """An ask whose answer was paid for and not accepted, so that the call is asked again, or its answer is held.

    It counts by itself only where its call has no outcome: an outcome's sums include it. `max_cost_usd`: as of an
    answer. `completion`: what came, with which a later session goes on, or ends the call, without paying again; its
    text is no longer kept once the call was asked again. The other fields are those of the outcome that it would be.
    """

    ordinal: int
    ask: int
    attempt: int
    finished_at: datetime
    usage: Usage
    cost_usd: Decimal | None
    target: int = 0
    max_cost_usd: Decimal | None = None
    completion: Completion | None = None
    http_status: int = 200
    request_id: str | None = None
    latency_s: float = 0.0
    input_above_bytes: int = 0

    def without_text(self) -> Self:
        """The same once its call was asked again: the text is needed no more. Texts can be long, and asks many."""
        if self.completion is None:
            return self
        completion = msgspec.structs.replace(self.completion, text="", raw=None, reasoning=None)
        return msgspec.structs.replace(self, completion=completion)


class PossibleCharge(Struct, frozen=True, gc=False, omit_defaults=True, tag="possible_charge", tag_field="record"):
    """Money that may have been spent beyond what the outcomes cost.

    `max_cost_usd`: US dollars at most; None is unknown. `detail`: what happened, for a person. `owner`: the number of
    the worker whose mark this was, where another one found it; 0 else.
    """

    ordinal: int
    finished_at: datetime
    reason: ChargeReason
    max_cost_usd: Decimal | None
    detail: str = ""
    ask: int = 1
    attempt: int = 1
    owner: int = 0


Outcome: TypeAlias = Answered | Failed
Record: TypeAlias = Answered | Failed | RejectedAsk | PossibleCharge
"""What a journal holds of a call."""


class Partition(Struct, frozen=True, omit_defaults=True):
    """A fixed range of consecutive rows of one slice: the unit of commit, memory, resume and distribution.

    `index` counts through all slices. `slice` is the number of the slice.
    """

    index: int
    first_row: int
    row_count: int
    slice: int = 0


class Rates(Struct, frozen=True):
    """US dollars per million tokens, or per request where that is set; `None` where that basis does not apply.

    `cache_write_1h`: of tokens kept in a cache for an hour; where it is `None`, as in runs begun before it was there,
    they cost `cache_write`. `above`: other rates for answers with much input.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    per_request: Decimal | None = None
    cache_write_1h: Decimal | None = None
    above: "RatesAbove | None" = None


class RatesAbove(Struct, frozen=True):
    """The rates of an answer, for all of its tokens, whose input is above `input_tokens`."""

    input_tokens: int
    rates: Rates


class PriceBook(Struct, frozen=True):
    """The prices that a run uses from its first row to its last, and where they come from.

    `rates` is None where the model has no known price. `ratio` is the catalog's own factor from list to charged
    price, shown as the likely figure and never used for a ceiling. `unread_catalog`: why the catalog could not be
    read, where the prices had to come from it.
    """

    model: str
    source: str
    rates: Rates | None = None
    ratio: Decimal | None = None
    unread_catalog: str | None = None


class Tally(Struct, frozen=True):
    """Counts and sums over records; `results.tallies` adds two of different calls up to the tally of all of them.

    `charges` are possible charges beyond `cost_usd`; `charges_usd` is what those with a known bound can have come to at
    most, `charges_unknown` counts the others, and `charges_in_flight` those whose request was on its way when a process
    ended. `rejected` asks were paid for, and their call has no outcome yet, or was begun anew with another job; they
    came to `rejected_cost_usd`, and their tokens are among the others. `reasked` asks of calls with an outcome were not
    the last: they came to `reasked_cost_usd`, which is a part of `cost_usd`.
    `failures` counts failed calls by kind, `incompletes` incomplete ones by finish reason; a part that an earlier
    program wrote has none of these. `uncounted` answers came without token counts. `at_cap` answers took all tokens
    that they may have, and say that they ended by themselves. `reported` answers came with a cost of the service's own,
    `reported_cost_usd` in sum; `differing` of them say something else than our prices, and these came to
    `differing_reported_usd` by its word and to `differing_cost_usd` by ours. `largest_output_tokens` and
    `largest_input_above_bytes` are the largest of any answer: they bound what the next one can cost.
    `largest_cost_usd` is the cost of the row that cost most, and `row_costs` counts rows by what they cost, in steps
    (`results.tallies.cost_step`). `excluding` answers have a cost that leaves something out; `excluded` counts them by
    what that is. Of `contradictory` answers the token counts fit no reading. `long_inputs` had an input above
    `results.tallies.LONG_INPUT_TOKENS`.
    `reused` answers were taken from earlier calls, `reused_incomplete` of them incomplete ones. They came to
    `reused_cost_usd` then, but for `reused_unpriced` of them whose cost was unknown. They count as succeeded or
    incomplete, and nowhere else: every other figure is of what this run itself asked and paid for.
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
    incompletes: dict[str, int] = msgspec.field(default_factory=dict)
    charges: int = 0
    charges_usd: Decimal = Decimal(0)
    charges_unknown: int = 0
    charges_in_flight: int = 0
    rejected: int = 0
    rejected_cost_usd: Decimal = Decimal(0)
    uncounted: int = 0
    at_cap: int = 0
    reported: int = 0
    reported_cost_usd: Decimal = Decimal(0)
    differing: int = 0
    differing_reported_usd: Decimal = Decimal(0)
    differing_cost_usd: Decimal = Decimal(0)
    largest_output_tokens: int = 0
    largest_input_above_bytes: int = 0
    largest_cost_usd: Decimal = Decimal(0)
    row_costs: dict[int, int] = msgspec.field(default_factory=dict)
    cache_write_1h_input_tokens: int = 0
    excluding: int = 0
    excluded: dict[str, int] = msgspec.field(default_factory=dict)
    contradictory: int = 0
    long_inputs: int = 0
    reasked: int = 0
    reasked_cost_usd: Decimal = Decimal(0)
    reused: int = 0
    reused_incomplete: int = 0
    reused_cost_usd: Decimal = Decimal(0)
    reused_unpriced: int = 0

    @property
    def calls(self) -> int:
        """How many calls have an outcome."""
        return self.succeeded + self.incomplete + self.failed

    @property
    def new_answers(self) -> int:
        """How many calls the service answered: an answer that was taken says nothing of the service today."""
        return self.succeeded + self.incomplete - self.reused

    @property
    def new_successes(self) -> int:
        """Those of them that are whole."""
        return self.succeeded - (self.reused - self.reused_incomplete)
