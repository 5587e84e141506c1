"""Every name of the telemetry, in one place: metrics, their units and buckets, and attributes.

`gen_ai.*` are the GenAI semantic conventions at v0.1.0, all of them "in development": a later version may rename them.
The documentation's tables are made from here, and no other module writes such a name.
"""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

CONVENTIONS: Final = "v0.1.0"
"""The version of the GenAI semantic conventions whose names these are."""
SCOPE: Final = "cometbatch"
"""The name of the instrumentation scope, and of the service where the environment names none."""

# --- attributes ---

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
OUTPUT_TYPE: Final = "gen_ai.output.type"
MODALITY: Final = "gen_ai.token.modality"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_STATUS: Final = "http.response.status_code"
STATUS: Final = "status"
ERROR_KIND: Final = "error_kind"
RUN_ID: Final = "cometbatch.run_id"
SESSION: Final = "cometbatch.session"
ORDINAL: Final = "cometbatch.ordinal"
ATTEMPTS: Final = "cometbatch.attempts"
ASKS: Final = "cometbatch.asks"
COST: Final = "cometbatch.cost_usd"
REQUEST_ID: Final = "cometbatch.request_id"
SUCCEEDED: Final = "cometbatch.succeeded"
INCOMPLETE: Final = "cometbatch.incomplete"
FAILED: Final = "cometbatch.failed"

UNKNOWN_MODALITY: Final = "unknown"
"""Services count tokens of texts and images together."""
OTHER: Final = "_OTHER"
"""Stands for the response models beyond the bound (`counts.MAX_RESPONSE_MODELS`)."""

OPERATIONS: Final = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "gemini": "generate_content",
}
"""By wire format."""
PROVIDERS: Final = {
    "chat": "openai",
    "responses": "openai",
    "messages": "anthropic",
    "gemini": "gcp.gemini",
}
"""By wire format: whose flavour of telemetry this is, and not who is paid."""
USAGE_ATTRIBUTES: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_input_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_output_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""Attributes of a row's span, by the token count's name here."""
ROOT_SPAN: Final = "cometbatch run"
"""The name of a session's span."""

# --- metrics ---

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
_ASKED: Final = (OPERATION, PROVIDER, REQUEST_MODEL, SERVER_ADDRESS, SERVER_PORT)
_ANSWERED: Final = (*_ASKED, RESPONSE_MODEL)


class Metric(Struct, frozen=True):
    """A metric: its name, kind and unit (UCUM), the attributes that its points have, and what it says.

    `bounds`: the upper bounds of a histogram's buckets, each within its bucket.
    """

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()


SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS: Final = tuple(4**step for step in range(14))  # 1 to 67,108,864; whole numbers compare faster

DURATION: Final = Metric(
    "gen_ai.client.inference.duration",
    "histogram",
    "s",
    (*_ANSWERED, ERROR_TYPE),
    "seconds that a row's last request took, from its sending to the end of its reply",
    SECONDS,
)
INPUT_TOKENS: Final = Metric(
    "gen_ai.client.inference.operation.input_tokens",
    "histogram",
    "{token}",
    (*_ANSWERED, ERROR_TYPE),
    "input tokens of a row, cached ones included; 0 where the service did not say",
    TOKENS,
)
OUTPUT_TOKENS: Final = Metric(
    "gen_ai.client.inference.operation.output_tokens",
    "histogram",
    "{token}",
    (*_ANSWERED, ERROR_TYPE),
    "output tokens of a row, reasoning included; 0 where the service did not say",
    TOKENS,
)
USAGE: Final = {
    field: Metric(f"gen_ai.client.inference.usage.{name}", "counter", "{token}", (*_ANSWERED, MODALITY), meaning)
    for field, name, meaning in (
        ("input_tokens", "input_tokens", "input tokens, cached ones included"),
        ("output_tokens", "output_tokens", "output tokens, reasoning included"),
        ("cache_read_input_tokens", "cache_read.input_tokens", "input tokens that were read from a cache"),
        ("cache_write_input_tokens", "cache_write.input_tokens", "input tokens that were written to a cache"),
        ("reasoning_output_tokens", "reasoning.output_tokens", "output tokens that the model thought with"),
    )
}
"""By the token count's name here."""
ROWS: Final = Metric(
    "cometbatch.rows",
    "counter",
    "{row}",
    (REQUEST_MODEL, STATUS, ERROR_KIND),
    "rows with an outcome: succeeded, incomplete or failed; failed ones with their error kind",
)
COST_USD: Final = Metric(
    COST, "counter", "{USD}", (REQUEST_MODEL,), "what rows cost, in US dollars, as far as it is known"
)
UNPRICED: Final = Metric(
    "cometbatch.unpriced", "counter", "{row}", (REQUEST_MODEL,), "rows that were billed at an unknown cost"
)
REUSED: Final = Metric(
    "cometbatch.reused", "counter", "{row}", (REQUEST_MODEL,), "rows that took an answer which was paid before"
)
RESENT: Final = Metric("cometbatch.resent", "counter", "{request}", (), "requests that were sent again after a failure")
IN_FLIGHT: Final = Metric("cometbatch.in_flight", "gauge", "{request}", (), "requests in flight")
PACE: Final = Metric(
    "cometbatch.pace", "gauge", "{request}", (), "how many requests the run allows itself in flight at present"
)
METRICS: Final = (
    DURATION,
    *USAGE.values(),
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    ROWS,
    COST_USD,
    UNPRICED,
    REUSED,
    RESENT,
    IN_FLIGHT,
    PACE,
)

# --- spans ---

ROW_ATTRIBUTES: Final = {
    OPERATION: "what was asked: chat or generate_content",
    PROVIDER: "the request format's maker: openai, anthropic or gcp.gemini; not who is paid",
    REQUEST_MODEL: "the model that was asked",
    RESPONSE_MODEL: "the model that answered, as the reply has it",
    RESPONSE_ID: "the reply's own id",
    FINISH_REASONS: "how the answer ended, in our words",
    OUTPUT_TYPE: "json, where the job asks for that",
    USAGE_ATTRIBUTES["input_tokens"]: "input tokens, cached ones included; over all asks of the row, as the next four",
    USAGE_ATTRIBUTES["output_tokens"]: "output tokens, reasoning included",
    USAGE_ATTRIBUTES["cache_read_input_tokens"]: "input tokens that were read from a cache",
    USAGE_ATTRIBUTES["cache_write_input_tokens"]: "input tokens that were written to a cache",
    USAGE_ATTRIBUTES["reasoning_output_tokens"]: "output tokens that the model thought with",
    ERROR_TYPE: "the error kind of a failed row",
    HTTP_STATUS: "the status of the last reply",
    SERVER_ADDRESS: "the service's host; simulator for the built-in one",
    SERVER_PORT: "the service's port",
    ORDINAL: "the row's place in the result, from 0; with a matrix, the number of its call in the run",
    ATTEMPTS: "requests that were sent for the row",
    ASKS: "how often the row was asked, where an answer did not fit",
    COST: "US dollars, where they are known",
    REQUEST_ID: "the service's name for the last request",
}
"""What a row's span may say."""
SESSION_ATTRIBUTES: Final = {
    RUN_ID: "the run",
    SESSION: "which session of the run, from 1",
    SUCCEEDED: "rows of the run by now, those of earlier sessions included; as the next three",
    INCOMPLETE: "incomplete rows",
    FAILED: "failed rows",
    COST: "US dollars",
    ERROR_TYPE: "what ended the session before the last row, as BudgetReachedError",
}
"""What a session's span may say."""
