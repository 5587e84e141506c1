"""The retry table: what each failed attempt means for its call and for the run.

Hides the service's misleading statuses (a wrong request arrives as 500, an unknown model as 503) behind one table, read
from top to bottom: the first rule that matches decides, and the last one always matches. `classify` applies it.
"""

import re
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.records import FailureKind, Fix, Problem, TransportFailureKind

Action: TypeAlias = Literal[
    "retry",  # counts against the row's attempts
    "slow down",  # requests leave more slowly; does not count against the row's attempts
    "slow down, counted",  # requests leave more slowly; counts
    "give up",  # this row fails
    "give up, or stop",  # this row fails; the run stops if no request has worked yet, for then every row would
    "abort, or retry",  # the run stops; where other rows are answered, the row is tried again and it counts
    "abort",  # the run stops, resumable
]


class Wording(Struct, frozen=True):
    """Words that a message is known by: the pattern to search for, and how to show it to a person."""

    shown: str
    pattern: re.Pattern[str]


class Rule(Struct, frozen=True, kw_only=True):
    """One line of the table. Conditions left out hold always; of `codes` and `wording` one is enough.

    `codes` are compared with both the code and the type of an error, because errors in Anthropic's shape carry the
    gateway's code as their type (contract sheet, section 7.1). `advice` is put before the service's own words.
    `hint` and `fix` say what to do where the run stops. `is_of_model`: other models may be answered all the same.
    """

    action: Action
    kind: FailureKind
    reason: str
    transport: TransportFailureKind | None = None
    problem: Problem | None = None
    statuses: frozenset[int] | None = None
    codes: frozenset[str] = frozenset()
    wording: Wording | None = None
    advice: str = ""
    hint: str = ""
    fix: Fix = "nothing"
    is_of_model: bool = False

    @property
    def when(self) -> str:
        """The conditions in words, for the table that people read."""
        parts = [
            f"no reply: {self.transport}" if self.transport else "",
            f"status {_status_words(self.statuses)}" if self.statuses else "",
            _PROBLEM_WORDS[self.problem] if self.problem else "",
            _signal_words(self.codes, self.wording),
        ]
        return ", ".join(part for part in parts if part) or "anything else"


_PROBLEM_WORDS: Final[dict[Problem, str]] = {
    "error": "2xx with an error",
    "redirect": "redirect",
    "not_json": "2xx with JSON, or a stream, that is cut off",
    "unreadable": "2xx with a whole body that is no JSON",
    "html": "2xx with a page, of a declared type other than JSON, or empty",
    "not_understood": "2xx with JSON of an unknown shape",
    "failed_generation": "2xx with a `responses` body of status failed or cancelled",
}

_AUTH_HINT: Final = (
    "Check the API key in the environment variable that target.key_env names, or in the file that target.key_file "
    "names: it may be missing, wrong, disabled, expired, limited to other models or addresses, or out of its own "
    "quota. Then run the same command again."
)
_CREDIT_HINT: Final = (
    "The account's balance or the key's own quota is used up. Top up, or raise the key's quota, then run the same "
    "command again; finished rows are kept."
)
_MODEL_ID_HINT: Final = (
    "Check target.model: it must be the catalog's id, not its code (a code has dashes in place of dots)."
)
_NO_ROUTE_HINT: Final = (
    "Check target.model against the catalog's ids. If it is right, all routes of the model may be down: run the same "
    "command again later."
)
_PROXY_HINT: Final = (
    "A proxy between this machine and the service wants a user name and a password, or refuses those it was given: "
    "set them in the proxy's address (HTTPS_PROXY=http://user:password@host:port), then run the same command again."
)
_CAP_FIELD_HINT: Final = (
    "Set params.max_tokens_field: {}, with the cap in params.max_output_tokens, and run the same command again; "
    "finished rows are kept."
)
_FITTING_WORDS: Final = (
    "A 2xx with an error in its body, and a 500, count in this table as the status that the error's code or type "
    "belongs to:"
)
_PATH_ADVICE: Final = "no answer at this address: check target.base_url, unless other rows are answered"

_REDIRECTS: Final = frozenset(range(300, 400))
_CLIENT_ERRORS: Final = frozenset(range(400, 500))
_SERVER_ERRORS: Final = frozenset(range(500, 600))


def _only(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


def _wording(shown: str, pattern: str) -> Wording:
    return Wording(shown, re.compile(pattern, re.IGNORECASE))


_OUT_OF_CREDIT: Final = _wording("quota is not enough, 额度不足", r"quota is not enough|额度不足")
_SHORT_OF_QUOTA: Final = _wording("insufficient … quota", r"insufficient\b.{0,60}\bquota")
_NO_ACCESS: Final = _wording("no access to model", r"\bno access to (?:the |this )?model|无权访问模型")
_NOT_PRICED: Final = _wording("has not been priced by the administrator", r"has not been priced by the administrator")
_NO_CHANNEL: Final = _wording("no available channel for …", r"no available channel for\b")
_BLOCKED: Final = _wording(
    "content policy, content filter, usage policy, request blocked, sensitive words",
    r"content[ _-]?(?:management |safety )?polic(?:y|ies)|content[ _-]filter|usage polic(?:y|ies)"
    r"|(?:request|prompt) (?:was |is )?blocked|sensitive words",
)
_INVALID_TOKEN: Final = _wording("Invalid token, alone", r"^invalid token\W*(?:\(request id|$)")
_QUOTA_CODES: Final = frozenset({"insufficient_user_quota", "pre_consume_token_quota_failed"})
"""The gateway's own codes for a balance, or a key's quota, that is used up (contract sheet, section 13)."""
_REFUSED: Final = (
    r"(?:un(?:supported|recognized|recognised|known|expected)|invalid (?:parameter|argument|field)|no longer supported"
    r"|(?:is |are )?not (?:supported|recognized|recognised|allowed|permitted|accepted|available|a valid)"
    r"|does ?n[o']t support|deprecated)"
)
"""Words that refuse a field, and not its value: "too large" is a row's, or a number's, trouble."""


def _refuses_field(field: str, other: str) -> re.Pattern[str]:
    """Words that refuse this name of the token cap: at the message's start, where it is not the row that is quoted.

    Where both names are said, the one to use instead is the other, or the one refused is the first.
    """
    named, instead = (rf"(?<![A-Za-z_]){name}(?![A-Za-z_])" for name in (field, other))
    near = r"(?:(?!\.\s).){0,60}"  # in the same sentence
    use = r"(?<![A-Za-z])(?:use|try|using)\W{1,4}(?:the\W+)?(?:(?:parameter|field|argument)\W+)?"
    first = rf"(?:(?!{instead}).){{0,200}}?(?:{_REFUSED}{near}{named}|{named}{near}{_REFUSED})"
    return re.compile(rf"^(?=.{{0,300}}{named})(?:.{{0,300}}{use}{instead}|{first})", re.IGNORECASE | re.DOTALL)


_NO_MAX_COMPLETION_TOKENS: Final = Wording(
    "Unrecognized request argument supplied: max_completion_tokens",
    _refuses_field("max_completion_tokens", "max_tokens"),
)
_NO_MAX_TOKENS: Final = Wording(
    "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead",
    _refuses_field("max_tokens", "max_completion_tokens"),
)
_REQUEST_CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_request_error",
        "convert_request_failed",
        "bad_request_body",
        "invalid_api_type",
        "count_token_failed",
        "invalid_argument",
    }
)
"""Codes and types of errors in the request itself (contract sheet, section 7.2)."""

RETRY_TABLE: Final[tuple[Rule, ...]] = (
    # The network: no whole reply.
    Rule(
        transport="timeout",
        action="retry",
        kind="timeout",
        reason="No whole reply came in time; the service may have finished, and billed, the work all the same.",
    ),
    Rule(
        transport="connection",
        action="retry",
        kind="connection",
        reason="The connection was refused, reset or cut; the work may have been billed all the same.",
    ),
    Rule(
        transport="too_large",
        action="give up",
        kind="invalid_response",
        reason="The reply is longer than the bound, and would be again.",
    ),
    Rule(
        transport="image",
        action="give up",
        kind="template",
        reason="An image of the row can't be had any more, or is another one now, so nothing was sent.",
    ),
    # The proxy: no row's failure.
    Rule(
        transport="proxy",
        action="abort",
        kind="connection",
        hint=_PROXY_HINT,
        fix="wait",
        reason="The proxy opens no tunnel without another user name or password, for any row.",
    ),
    Rule(
        statuses=_only(407),
        action="abort",
        kind="connection",
        advice="the proxy refuses the request",
        hint=_PROXY_HINT,
        fix="wait",
        reason="The proxy passes nothing on without another user name or password, for any row.",
    ),
    # The key and the account: every row would be refused. The gateway's own words leave no doubt; all others may be
    # about one provider's account behind it.
    Rule(
        statuses=_only(401),
        codes=_QUOTA_CODES,
        wording=_INVALID_TOKEN,
        action="abort",
        kind="auth",
        hint=_AUTH_HINT,
        fix="account",
        reason="The gateway refuses the key; a key out of its own quota may end here too.",
    ),
    Rule(
        statuses=_only(401),
        action="abort, or retry",
        kind="auth",
        hint=_AUTH_HINT,
        fix="account",
        reason="The key is refused; where it is accepted for other rows, a provider's own key behind the service is.",
    ),
    Rule(
        codes=_QUOTA_CODES,
        action="abort",
        kind="credit",
        hint=_CREDIT_HINT,
        fix="account",
        reason="The balance or the key's quota is used up; finished rows are kept for after a top-up.",
    ),
    Rule(
        statuses=_only(402),
        action="abort, or retry",
        kind="credit",
        hint=_CREDIT_HINT,
        fix="account",
        reason="Payment is required: of the account, or of a provider's account behind the service.",
    ),
    Rule(
        statuses=_only(429),
        codes=frozenset({"insufficient_quota"}),
        action="slow down, counted",
        kind="rate_limited",
        reason="This code may mean a provider's account behind the service and not yours: try again, a few times.",
    ),
    Rule(
        statuses=_only(403),
        codes=frozenset({"insufficient_quota"}),
        action="abort, or retry",
        kind="credit",
        hint=_CREDIT_HINT,
        fix="account",
        reason="The balance is used up, or that of a provider's account behind the service.",
    ),
    Rule(
        statuses=_only(403),
        codes=frozenset({"access_denied"}),
        action="abort, or retry",
        kind="auth",
        hint=_AUTH_HINT,
        fix="account",
        is_of_model=True,
        reason="The key's list of models or addresses does not allow this, or that of a provider's key.",
    ),
    # The model: every row asks the same one.
    Rule(
        statuses=_only(400, 500),
        codes=frozenset({"model_price_error"}),
        action="abort, or retry",
        kind="model_not_found",
        hint=_MODEL_ID_HINT,
        fix="job",
        is_of_model=True,
        reason="The model can't be called as it is written: often a catalog code was used where the id belongs.",
    ),
    Rule(
        statuses=_only(500, 503),
        codes=frozenset({"model_not_found"}),
        action="abort, or retry",
        kind="model_not_found",
        hint=_NO_ROUTE_HINT,
        fix="job",
        is_of_model=True,
        reason="This is how an unknown model is answered; it can also mean that all routes of a model are down.",
    ),
    Rule(
        statuses=_only(400, 404),
        codes=frozenset({"model_not_found"}),
        action="give up, or stop",
        kind="model_not_found",
        advice="no such model: check target.model",
        reason="One provider behind the service does not know the model.",
    ),
    # The row's content.
    Rule(
        codes=frozenset({"prompt_blocked", "sensitive_words_detected", "content_filter", "content_policy_violation"}),
        action="give up",
        kind="blocked",
        reason="A content filter blocked this row, whatever the status says.",
    ),
    Rule(
        statuses=_only(400, 422),
        wording=_BLOCKED,
        action="give up",
        kind="blocked",
        reason="The words say that a content filter blocked this row.",
    ),
    Rule(
        problem="failed_generation",
        wording=_BLOCKED,
        action="give up",
        kind="blocked",
        reason="The words say that a content filter blocked this row.",
    ),
    Rule(
        statuses=_only(413),
        action="give up",
        kind="too_large",
        reason="The request is too large; the row has to shrink.",
    ),
    Rule(
        codes=frozenset({"read_request_body_failed"}),
        action="give up",
        kind="too_large",
        reason="The service could not read the request to its end; the row has to shrink.",
    ),
    # The name by which the token cap is set: every row sets it.
    Rule(
        statuses=_only(400, 422, 500),
        wording=_NO_MAX_COMPLETION_TOKENS,
        action="abort",
        kind="invalid_request",
        hint=_CAP_FIELD_HINT.format("max_tokens"),
        fix="max_tokens",
        is_of_model=True,
        reason="The model knows the token cap by its older name alone, so every row would be refused.",
    ),
    Rule(
        statuses=_only(400, 422, 500),
        wording=_NO_MAX_TOKENS,
        action="abort",
        kind="invalid_request",
        hint=_CAP_FIELD_HINT.format("max_completion_tokens"),
        fix="max_completion_tokens",
        is_of_model=True,
        reason="The model knows the token cap by its newer name alone, so every row would be refused.",
    ),
    # A request that is wrong in itself. Before all words that stop the run: such a message may quote the row's text.
    Rule(
        statuses=_only(400, 403, 500, 503),
        codes=_REQUEST_CODES,
        action="give up",
        kind="invalid_request",
        reason="The request is wrong, whatever words its message quotes; errors without a status arrive as 500.",
    ),
    # The key, the account and the model again, known by words alone: only where no code says what is wrong.
    Rule(
        statuses=_only(500),
        wording=_INVALID_TOKEN,
        action="abort",
        kind="auth",
        hint=_AUTH_HINT,
        fix="account",
        reason="The key is refused, by an error that lost its status.",
    ),
    Rule(
        statuses=_only(403, 500),
        wording=_OUT_OF_CREDIT,
        action="abort",
        kind="credit",
        hint=_CREDIT_HINT,
        fix="account",
        reason="The words say that the balance or the key's quota is used up.",
    ),
    Rule(
        statuses=_only(403, 500),
        wording=_SHORT_OF_QUOTA,
        action="abort, or retry",
        kind="credit",
        hint=_CREDIT_HINT,
        fix="account",
        reason="The words say that a quota is used up: the account's, or a provider's behind the service.",
    ),
    Rule(
        statuses=_only(403),
        wording=_NO_ACCESS,
        action="abort, or retry",
        kind="auth",
        hint=_AUTH_HINT,
        fix="account",
        is_of_model=True,
        reason="The words say that the key's list of models does not have this one.",
    ),
    Rule(
        statuses=_only(400, 500),
        wording=_NOT_PRICED,
        action="abort, or retry",
        kind="model_not_found",
        hint=_MODEL_ID_HINT,
        fix="job",
        is_of_model=True,
        reason="The words say that the model can't be called as it is written.",
    ),
    Rule(
        statuses=_only(500, 503),
        wording=_NO_CHANNEL,
        action="abort, or retry",
        kind="model_not_found",
        hint=_NO_ROUTE_HINT,
        fix="job",
        is_of_model=True,
        reason="The words say that the model is unknown, or that all its routes are down.",
    ),
    # The path.
    Rule(
        statuses=_only(404, 405),
        action="give up, or stop",
        kind="invalid_request",
        advice=_PATH_ADVICE,
        reason="There is nothing at this address, or one provider of several misses something.",
    ),
    Rule(
        statuses=_REDIRECTS,
        action="give up, or stop",
        kind="invalid_request",
        advice=_PATH_ADVICE,
        reason="A wrong path shows as a redirect, and redirects are not followed.",
    ),
    Rule(
        problem="html",
        action="give up, or stop",
        kind="invalid_response",
        advice=_PATH_ADVICE,
        reason="A wrong path shows as a web page, or as nothing.",
    ),
    # Success statuses that bring no answer.
    Rule(
        problem="not_json",
        action="retry",
        kind="invalid_response",
        advice="the reply is cut off or not JSON",
        reason="The reply was cut on its way, which is of a kind with a timeout.",
    ),
    Rule(
        problem="unreadable",
        action="give up, or stop",
        kind="invalid_response",
        advice="the reply came whole and can't be read",
        reason="The same reply would come again, and be billed again.",
    ),
    Rule(
        problem="not_understood",
        action="give up, or stop",
        kind="invalid_response",
        advice="the reply is JSON of an unknown shape: check target.format, unless other rows are answered",
        reason="A reply of this shape would come again, and be billed again, for every row if the format has changed.",
    ),
    Rule(
        problem="failed_generation",
        codes=frozenset({"rate_limit_exceeded"}),
        action="slow down, counted",
        kind="rate_limited",
        reason="The provider asked to slow down after it had taken the request.",
    ),
    Rule(
        problem="failed_generation",
        codes=frozenset({"server_error", "internal_error", "internal_server_error", "upstream_error"}),
        action="retry",
        kind="server_error",
        reason="The provider failed, not the row.",
    ),
    Rule(
        problem="failed_generation",
        codes=frozenset({"overloaded_error", "overloaded", "server_overloaded"}),
        action="retry",
        kind="overloaded",
        reason="The provider is overloaded.",
    ),
    Rule(
        problem="failed_generation",
        action="give up",
        kind="invalid_request",
        reason="The provider can't generate from this request.",
    ),
    # Everything else, by status.
    Rule(
        statuses=_only(408),
        action="retry",
        kind="timeout",
        reason="The service waited too long.",
    ),
    Rule(
        statuses=_only(409, 423, 424, 425),
        action="retry",
        kind="server_error",
        reason="A conflict, a lock, a step before it that failed, or too early: not now, which is no fault of the row.",
    ),
    Rule(
        statuses=_only(499),
        action="retry",
        kind="timeout",
        reason="The gateway's own connection was given up; the work may have been billed all the same.",
    ),
    Rule(
        statuses=_only(429),
        action="slow down",
        kind="rate_limited",
        reason="The service asks to slow down: requests leave more slowly, and the row's attempts are not used up.",
    ),
    Rule(
        statuses=_only(403),
        action="give up, or stop",
        kind="invalid_request",
        advice="access is refused, to this row or to all",
        reason="A firewall (then with HTML) or a provider refuses this row's content, or every row.",
    ),
    Rule(
        statuses=_CLIENT_ERRORS,
        action="give up",
        kind="invalid_request",
        reason="The same request would be refused again.",
    ),
    Rule(
        statuses=_only(502, 503, 529),
        action="retry",
        kind="overloaded",
        reason="The service or a provider behind it is overloaded.",
    ),
    Rule(
        statuses=_only(504, 524, 598),
        action="retry",
        kind="timeout",
        reason="A proxy had no answer in time; the work may have been billed all the same.",
    ),
    Rule(
        statuses=_SERVER_ERRORS,
        action="retry",
        kind="server_error",
        reason="The service failed, not the row.",
    ),
    Rule(
        action="give up",
        kind="invalid_response",
        reason="No such status means anything to us.",
    ),
)
"""From the contract sheet, section 7.2; the first rule that matches decides, and the last one always matches."""

FITTING_STATUS: Final[dict[str, int]] = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "access_denied": 403,
    "insufficient_balance": 402,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
}
"""The status that an error's code or type belongs to, for errors that come with a success status or as 500.

An error without a status of its own becomes 500 (contract sheet, section 7.1). All others: 500.
"""


def retry_table_markdown() -> str:
    """`RETRY_TABLE` as a Markdown table, in order, with what comes before it, for the README."""
    lines = ["| when | then | kind | why |", "| --- | --- | --- | --- |"]
    lines += [f"| {rule.when} | {rule.action} | `{rule.kind}` | {rule.reason} |" for rule in RETRY_TABLE]
    fitting = ", ".join(f"`{code}` {status}" for code, status in FITTING_STATUS.items())
    lines += ["", f"{_FITTING_WORDS} {fitting}; a number from 400 to 599 is the status itself; anything else is 500."]
    return "\n".join(lines) + "\n"


_CENTURY: Final = 100  # statuses of one class, such as 4xx


def _status_words(statuses: frozenset[int]) -> str:
    if len(statuses) == _CENTURY:
        return f"{min(statuses)} to {max(statuses)}"
    return ", ".join(map(str, sorted(statuses)))


def _signal_words(codes: frozenset[str], wording: Wording | None) -> str:
    known_codes = "code " + " / ".join(f"`{code}`" for code in sorted(codes)) if codes else ""
    words = f'words like "{wording.shown}"' if wording else ""
    return " or ".join(part for part in (known_codes, words) if part)
