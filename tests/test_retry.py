"""The retry table: what each reply means for its row and for the run (contract sheet, section 7.2)."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.classify import MAX_MESSAGE_CHARS, classify, may_be_billed
from cometbatch.control.retry_table import FITTING_STATUS, RETRY_TABLE, Action, retry_table_markdown
from cometbatch.control.waits import MAX_RETRY_AFTER_S, backoff, describe_wait, retry_after_s
from cometbatch.records import (
    Abort,
    ErrorDetail,
    Failure,
    FailureKind,
    GiveUp,
    HttpResponse,
    Problem,
    Refusal,
    Retry,
    TransportFailure,
)

NOW = datetime(2026, 9, 1, 12, 0, 0, tzinfo=UTC)

KNOWN_CODES = sorted({code for rule in RETRY_TABLE for code in rule.codes} | set(FITTING_STATUS))
PROBLEMS = get_args(Problem)
ACTIONS: tuple[str, ...] = get_args(Action)
RETRY, SLOW_DOWN, SLOW_DOWN_COUNTED, GIVE_UP, STOP_IF_FIRST, DOUBTFUL_ABORT, ABORT = ACTIONS


def verdict_on(detail: ErrorDetail, headers: dict[str, str] | None = None) -> Refusal:
    """The table's word on an error reply."""
    return classify(HttpResponse(detail.status, headers or {}, b""), detail, now=lambda: NOW)


def action_of(verdict: Refusal) -> str:
    """The action word that stands behind a verdict."""
    match verdict:
        case Retry(slow_down=False, costs_attempt=True):
            return RETRY
        case Retry(slow_down=True, costs_attempt=costs_attempt):
            return SLOW_DOWN_COUNTED if costs_attempt else SLOW_DOWN
        case GiveUp(path_mistake=path_mistake):
            return STOP_IF_FIRST if path_mistake else GIVE_UP
        case Abort(is_certain=is_certain):
            return ABORT if is_certain else DOUBTFUL_ABORT
    raise AssertionError(verdict)


def failure_of(verdict: Refusal) -> Failure:
    """The failure of a verdict that has one."""
    return verdict.failure


@pytest.mark.parametrize(
    ("status", "code", "message", "action", "kind"),
    [
        (400, "", "model name is required", GIVE_UP, "invalid_request"),
        (400, "invalid_request", "", GIVE_UP, "invalid_request"),
        (400, "", "Model x has not been priced by the administrator", DOUBTFUL_ABORT, "model_not_found"),
        (500, "model_price_error", "", DOUBTFUL_ABORT, "model_not_found"),
        (400, "prompt_blocked", "request blocked by Gemini API: SAFETY", GIVE_UP, "blocked"),
        (400, "", "This goes against our Content Policy", GIVE_UP, "blocked"),
        (400, "", "filtered by Azure's content management policy", GIVE_UP, "blocked"),
        (422, "", "the prompt was blocked", GIVE_UP, "blocked"),
        (400, "model_not_found", "", STOP_IF_FIRST, "model_not_found"),
        (401, "", "Invalid token", ABORT, "auth"),
        (401, "insufficient_user_quota", "", ABORT, "auth"),
        (401, "invalid_api_key", "Incorrect API key", DOUBTFUL_ABORT, "auth"),
        (401, "", "", DOUBTFUL_ABORT, "auth"),
        (401, "", "the text says: Invalid token", DOUBTFUL_ABORT, "auth"),
        (402, "", "", DOUBTFUL_ABORT, "credit"),
        (402, "", "Insufficient Balance", DOUBTFUL_ABORT, "credit"),
        (402, "insufficient_user_quota", "", ABORT, "credit"),
        (403, "insufficient_quota", "You exceeded your quota", DOUBTFUL_ABORT, "credit"),
        (403, "", "", STOP_IF_FIRST, "invalid_request"),
        (403, "", "Attention Required! | Firewall", STOP_IF_FIRST, "invalid_request"),
        (403, "invalid_request", "no such field", GIVE_UP, "invalid_request"),
        (403, "insufficient_user_quota", "", ABORT, "credit"),
        (403, "pre_consume_token_quota_failed", "", ABORT, "credit"),
        (403, "", "user quota is not enough", ABORT, "credit"),
        (403, "", "Insufficient user quota, remaining: 0", DOUBTFUL_ABORT, "credit"),
        (403, "", "用户额度不足", ABORT, "credit"),
        (500, "", "user quota is not enough", ABORT, "credit"),
        (400, "", 'can\'t parse "the quota is not enough"', GIVE_UP, "invalid_request"),
        (429, "", "insufficient quota", SLOW_DOWN, "rate_limited"),
        (429, "insufficient_quota", "You exceeded your quota", SLOW_DOWN_COUNTED, "rate_limited"),
        (403, "access_denied", "", DOUBTFUL_ABORT, "auth"),
        (403, "", "This token has no access to model x", DOUBTFUL_ABORT, "auth"),
        (404, "", "Invalid URL (POST /v1/x)", STOP_IF_FIRST, "invalid_request"),
        (404, "model_not_found", "", STOP_IF_FIRST, "model_not_found"),
        (405, "", "", STOP_IF_FIRST, "invalid_request"),
        (301, "", "", STOP_IF_FIRST, "invalid_request"),
        (302, "", "", STOP_IF_FIRST, "invalid_request"),
        (407, "", "", ABORT, "connection"),
        (408, "", "", RETRY, "timeout"),
        (409, "", "Conflict", RETRY, "server_error"),
        (409, "content_filter", "", GIVE_UP, "blocked"),
        (423, "", "", RETRY, "server_error"),
        (424, "", "", RETRY, "server_error"),
        (425, "", "", RETRY, "server_error"),
        (426, "", "", GIVE_UP, "invalid_request"),
        (499, "", "", RETRY, "timeout"),
        (413, "", "", GIVE_UP, "too_large"),
        (500, "read_request_body_failed", "", GIVE_UP, "too_large"),
        (418, "", "", GIVE_UP, "invalid_request"),
        (422, "", "", GIVE_UP, "invalid_request"),
        (429, "", "", SLOW_DOWN, "rate_limited"),
        (500, "", "", RETRY, "server_error"),
        (500, "do_request_failed", "", RETRY, "server_error"),
        (500, "bad_response_status_code", "", RETRY, "server_error"),
        (500, "empty_response", "", RETRY, "server_error"),
        (500, "get_channel_failed", "", RETRY, "server_error"),
        (500, "channel:no_available_key", "", RETRY, "server_error"),
        (500, "invalid_request", "field messages is required", GIVE_UP, "invalid_request"),
        (500, "convert_request_failed", "", GIVE_UP, "invalid_request"),
        (500, "bad_request_body", "", GIVE_UP, "invalid_request"),
        (500, "invalid_api_type", "", GIVE_UP, "invalid_request"),
        (500, "count_token_failed", "", GIVE_UP, "invalid_request"),
        (500, "400", "", GIVE_UP, "invalid_request"),
        (500, " Invalid_Request ", "", GIVE_UP, "invalid_request"),
        (500, "sensitive_words_detected", "", GIVE_UP, "blocked"),
        (501, "", "", RETRY, "server_error"),
        (502, "", "", RETRY, "overloaded"),
        (503, "", "", RETRY, "overloaded"),
        (
            503,
            "model_not_found",
            "no available channel for group g and model m (distributor)",
            DOUBTFUL_ABORT,
            "model_not_found",
        ),
        (503, "", "No available channel for model m under group g", DOUBTFUL_ABORT, "model_not_found"),
        (529, "", "Overloaded", RETRY, "overloaded"),
        (504, "", "", RETRY, "timeout"),
        (520, "", "", RETRY, "server_error"),
        (524, "", "", RETRY, "timeout"),
        (530, "", "", RETRY, "server_error"),
        (598, "", "", RETRY, "timeout"),
        (0, "", "", GIVE_UP, "invalid_response"),
        (101, "", "", GIVE_UP, "invalid_response"),
        (999, "", "", GIVE_UP, "invalid_response"),
    ],
)
def test_an_error_is_judged_by_status_code_and_words(
    status: int, code: str, message: str, action: str, kind: FailureKind
) -> None:
    """Each line of the contract sheet's table ends as it says."""
    verdict = verdict_on(ErrorDetail(status, code=code, message=message))
    assert (action_of(verdict), failure_of(verdict).kind) == (action, kind)


@pytest.mark.parametrize(
    ("status", "code", "kind_of_error", "message"),
    [
        (400, "invalid_request", "", 'bad value: "has not been priced by the administrator"'),
        (400, "", "invalid_request_error", 'bad value: "has not been priced by the administrator"'),
        (400, "400", "INVALID_ARGUMENT", 'bad value: "has not been priced by the administrator"'),
        (500, "convert_request_failed", "comet_api_error", 'can\'t read "insufficient memory, disk and quota"'),
        (500, "400", "comet_api_error", 'can\'t read "the quota is not enough"'),
        (500, "bad_request_body", "", 'can\'t read "no available channel for"'),
        (503, "", "invalid_request_error", 'can\'t read "no available channel for"'),
        (403, "invalid_request", "", 'can\'t read "额度不足"'),
        (403, "", "invalid_request_error", 'can\'t read "no access to model"'),
        (500, "", "", 'can\'t parse {"text": "Invalid token"}'),
    ],
)
def test_a_rows_text_that_an_error_quotes_does_not_stop_the_run(
    status: int, code: str, kind_of_error: str, message: str
) -> None:
    """Where a code says that the request is wrong, words in the message can't say that the account is."""
    assert not isinstance(verdict_on(ErrorDetail(status, code=code, type=kind_of_error, message=message)), Abort)


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize(
    ("code", "kind_of_error", "message", "action"),
    [
        ("429", "comet_api_error", "", SLOW_DOWN),
        ("", "rate_limit_error", "", SLOW_DOWN),
        ("500", "rate_limit_error", "", SLOW_DOWN),
        ("", "overloaded_error", "", RETRY),
        ("503", "overloaded_error", "", RETRY),
        ("504", "", "", RETRY),
        ("401", "", "", DOUBTFUL_ABORT),
        ("invalid_api_key", "invalid_request_error", "", DOUBTFUL_ABORT),
        ("", "comet_api_error", "Invalid token", ABORT),
        ("", "", "Invalid token (request id: 2026)", ABORT),
        ("500", "", "", RETRY),
        ("", "", "", RETRY),
    ],
)
def test_an_error_that_lost_its_status_counts_as_the_status_of_its_code(
    status: int, code: str, kind_of_error: str, message: str, action: str
) -> None:
    """An error without a status of its own becomes 500, so there as in a 2xx its code or type says what it is."""
    verdict = verdict_on(ErrorDetail(status, code=code, type=kind_of_error, message=message))
    assert action_of(verdict) == action


@pytest.mark.parametrize("code", ["", "400"])
@pytest.mark.parametrize("kind_of_error", ["", "comet_api_error"])
def test_the_gateways_own_words_stop_the_run_without_a_code(code: str, kind_of_error: str) -> None:
    """An empty code, a status as code and the gateway's own type say nothing against the words."""
    message = "Model x has not been priced by the administrator"
    assert isinstance(verdict_on(ErrorDetail(400, code=code, type=kind_of_error, message=message)), Abort)


@pytest.mark.parametrize(
    ("problem", "code", "action", "kind"),
    [
        ("html", "", STOP_IF_FIRST, "invalid_response"),
        ("not_json", "", RETRY, "invalid_response"),
        ("unreadable", "", STOP_IF_FIRST, "invalid_response"),
        ("not_understood", "", STOP_IF_FIRST, "invalid_response"),
        ("failed_generation", "server_error", RETRY, "server_error"),
        ("failed_generation", "rate_limit_exceeded", SLOW_DOWN_COUNTED, "rate_limited"),
        ("failed_generation", "invalid_prompt", GIVE_UP, "invalid_request"),
        ("failed_generation", "", GIVE_UP, "invalid_request"),
        ("failed_generation", "content_policy_violation", GIVE_UP, "blocked"),
        ("error", "", RETRY, "server_error"),
        ("error", "something_new", RETRY, "server_error"),
        ("error", "invalid_request", GIVE_UP, "invalid_request"),
        ("error", "insufficient_user_quota", ABORT, "credit"),
        ("error", "model_not_found", DOUBTFUL_ABORT, "model_not_found"),
        ("error", "access_denied", DOUBTFUL_ABORT, "auth"),
        ("error", "invalid_api_key", DOUBTFUL_ABORT, "auth"),
        ("error", "rate_limit_exceeded", SLOW_DOWN, "rate_limited"),
        ("error", "insufficient_quota", SLOW_DOWN_COUNTED, "rate_limited"),
        ("error", "overloaded_error", RETRY, "overloaded"),
        ("error", "400", GIVE_UP, "invalid_request"),
        ("error", "401", DOUBTFUL_ABORT, "auth"),
        ("error", "503", RETRY, "overloaded"),
        ("error", "200", RETRY, "server_error"),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 299])
def test_a_success_status_without_an_answer_is_judged_by_what_it_says(
    status: int, problem: Problem, code: str, action: str, kind: FailureKind
) -> None:
    """An error that comes with a success status counts as if it had the status that fits its code."""
    verdict = verdict_on(ErrorDetail(status, problem, code=code))
    assert (action_of(verdict), failure_of(verdict).kind) == (action, kind)
    assert failure_of(verdict).status == status


def test_the_words_of_a_failed_generation_can_say_that_it_was_blocked() -> None:
    """A provider's usage policy in the message of a failed generation is a blocked row."""
    message = "Your prompt was flagged as potentially violating our usage policy."
    verdict = verdict_on(ErrorDetail(200, "failed_generation", code="invalid_prompt", message=message))
    assert verdict == GiveUp(Failure("blocked", message, status=200, code="invalid_prompt"))


@pytest.mark.parametrize(
    ("failure", "action", "kind"),
    [
        (TransportFailure("timeout", "no reply within 300 s"), RETRY, "timeout"),
        (TransportFailure("connection", "reset by peer"), RETRY, "connection"),
        (TransportFailure("too_large", "more than 64 MiB"), GIVE_UP, "invalid_response"),
        (TransportFailure("proxy", "the proxy refuses a tunnel", sent=False), ABORT, "connection"),
    ],
)
def test_a_failed_exchange_is_retried_unless_it_would_fail_again(
    failure: TransportFailure, action: str, kind: FailureKind
) -> None:
    """The network is given another chance, an endless reply is not, a proxy's refusal is final; none has a status."""
    verdict = classify(failure, None, now=lambda: NOW)
    assert action_of(verdict) == action
    assert failure_of(verdict) == Failure(kind, failure.detail)


def test_a_reply_that_nobody_parsed_is_judged_by_its_status() -> None:
    """Even without a parsed body there is a verdict."""
    assert isinstance(classify(HttpResponse(503, {}, b""), None, now=lambda: NOW), Retry)
    assert isinstance(classify(HttpResponse(200, {}, b""), None, now=lambda: NOW), GiveUp)


def test_an_error_type_counts_as_its_code() -> None:
    """Errors in Anthropic's shape carry the gateway's code as their type."""
    assert isinstance(verdict_on(ErrorDetail(403, type="insufficient_user_quota")), Abort)


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        ("insufficient_user_quota", "credit", "Top up"),
        ("access_denied", "auth", "target.key_env"),
        ("model_not_found", "model_not_found", "later"),
        ("model_price_error", "model_not_found", "catalog's id, not its code"),
    ],
)
def test_an_abort_says_what_to_do(code: str, kind: FailureKind, word: str) -> None:
    """The hint names the setting to look at or the step to take."""
    verdict = verdict_on(ErrorDetail(200, code=code))
    assert isinstance(verdict, Abort)
    assert verdict.failure.kind == kind
    assert word in verdict.hint


def test_a_refused_key_is_explained_with_its_variable_and_its_quota() -> None:
    """A 401 may also mean that the key's own quota is used up."""
    verdict = verdict_on(ErrorDetail(401, message="Invalid token"))
    assert isinstance(verdict, Abort)
    assert "target.key_env" in verdict.hint
    assert "quota" in verdict.hint


@pytest.mark.parametrize("detail", [ErrorDetail(404), ErrorDetail(301, "redirect"), ErrorDetail(200, "html")])
def test_a_wrong_path_is_named_as_a_possibility(detail: ErrorDetail) -> None:
    """The message points at target.base_url, and stays true where it stands among rows that are answered."""
    message = failure_of(verdict_on(detail)).message
    assert message.startswith("no answer at this address: check target.base_url, unless other rows are answered: ")


def test_a_shape_that_nobody_knows_is_not_called_a_wrong_address() -> None:
    """Where the service has changed its replies, the address is right."""
    message = failure_of(verdict_on(ErrorDetail(200, "not_understood", message="{}"))).message
    assert message.startswith("the reply is JSON of an unknown shape: check target.format")
    assert "base_url" not in message


def test_a_failure_keeps_what_support_will_ask_for() -> None:
    """Status, code, request id and the service's own words stay with the failure."""
    detail = ErrorDetail(500, code="do_request_failed", message="upstream broke", request_id="2026x")
    assert failure_of(verdict_on(detail)) == Failure(
        "server_error", "upstream broke", 500, "do_request_failed", "2026x"
    )


@pytest.mark.parametrize("message", ["", "  \n"])
def test_a_message_is_never_empty(message: str) -> None:
    """Where the service is silent, the status speaks."""
    assert failure_of(verdict_on(ErrorDetail(500, message=message))).message == "HTTP 500 without a message"
    assert (
        failure_of(classify(TransportFailure("timeout", message), None, now=lambda: NOW)).message
        == "no whole reply (timeout)"
    )


def test_a_quoted_key_does_not_reach_the_message() -> None:
    """A service that quotes the key in its refusal does not put it into our files."""
    verdict = verdict_on(
        ErrorDetail(401, message="Incorrect key: sk-abcDEF123_-456789, see task-manager-documentation")
    )
    assert failure_of(verdict).message == "Incorrect key: sk-…, see task-manager-documentation"


details = st.builds(
    ErrorDetail,
    status=st.integers(0, 999),
    problem=st.sampled_from(PROBLEMS),
    code=st.sampled_from(KNOWN_CODES) | st.text(max_size=20) | st.integers(0, 999).map(str),
    type=st.sampled_from(KNOWN_CODES) | st.text(max_size=20),
    message=st.text(st.characters(), max_size=300)
    | st.sampled_from(["quota is not enough", "no access to model", "content policy", "no available channel for x"])
    | st.integers(1, 5000).map(lambda length: "é" * length),
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "date"]),
    st.text(max_size=80) | st.integers().map(str) | st.datetimes().map(format_datetime),
)


@given(detail=details, headers=headers)
@settings(max_examples=100)
def test_every_reply_gets_a_verdict(detail: ErrorDetail, headers: dict[str, str]) -> None:
    """Whatever status, code, message and headers: a verdict, with a bounded wait and a bounded, writable message."""
    verdict = verdict_on(detail, headers)
    failure = failure_of(verdict)
    assert 0 < len(failure.message) <= MAX_MESSAGE_CHARS
    assert failure.message.encode()
    assert failure.kind in get_args(FailureKind)
    assert (failure.status, failure.code) == (detail.status, detail.code)
    if isinstance(verdict, Retry) and verdict.retry_after_s is not None:
        assert 0 <= verdict.retry_after_s <= MAX_RETRY_AFTER_S


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_status_gets_a_verdict_and_only_failures_of_the_service_are_retried(problem: Problem) -> None:
    """Of the statuses alone, those that say "not now" and 5xx are retried, and only 401, 402 and 407 stop the run."""
    not_now = {408, 409, 423, 424, 425, 429, 499}
    for status in range(1000):
        verdict = verdict_on(ErrorDetail(status, problem))
        if not 200 <= status <= 299:
            assert isinstance(verdict, Retry) == (status in not_now or 500 <= status <= 599)
        assert isinstance(verdict, Abort) == (status in {401, 402, 407})


def test_only_plain_pushback_is_free_of_charge() -> None:
    """Only a 429 without a code does not count against the row's attempts."""
    free = [rule for rule in RETRY_TABLE if rule.action == SLOW_DOWN]
    assert [rule.when for rule in free] == ["status 429"]


def test_the_last_rule_alone_matches_everything() -> None:
    """The table is total because of its last rule; any such rule before it would hide those below."""
    assert [rule.when == "anything else" for rule in RETRY_TABLE] == [False] * (len(RETRY_TABLE) - 1) + [True]


def test_aborts_and_only_aborts_have_a_hint() -> None:
    """A run that stops says what to do; for a row that fails there is nothing to do in between."""
    for rule in RETRY_TABLE:
        assert bool(rule.hint) == (rule.action in {ABORT, DOUBTFUL_ABORT}), rule.when


@pytest.mark.parametrize(
    ("reply", "may_be"),
    [
        (HttpResponse(200, {}, b""), True),
        *[
            (HttpResponse(status, {}, b""), False)
            for status in (400, 401, 407, 408, 409, 423, 424, 425, 429, 500, 502, 503, 520, 529)
        ],
        *[(HttpResponse(status, {}, b""), True) for status in (499, 504, 524, 598)],
        (TransportFailure("connection", "reset"), True),
        (TransportFailure("connection", "refused", sent=False), False),
        (TransportFailure("proxy", "407", sent=False), False),
    ],
)
def test_what_may_have_been_billed_is_told_by_whether_work_may_have_been_done(
    reply: HttpResponse | TransportFailure, may_be: bool
) -> None:
    """Where somebody on the way gave up waiting, the provider may finish; a refusal costs nothing."""
    assert may_be_billed(reply) is may_be


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59.5, "60 s"),
        (60, "1 min"),
        (1801, "31 min"),
        (3600, "1 hour"),
        (20_000, "5.6 hours"),
        (86_400, "1 day"),
        (581_981, "6.8 days"),
    ],
)
def test_a_wait_is_told_in_the_unit_that_a_person_plans_by(seconds: float, words: str) -> None:
    """Rounded up, so that nobody comes back too early."""
    assert describe_wait(seconds) == words


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "99999999999999999999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Tue, 01 Sep 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tue, 01 Sep 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Tue, 01 Sep 2026 14:00:30 +0200"}, 30.0),
        ({"retry-after": "Tue, 01 Sep 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Sep 2089 11:00:00 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "Tue, 01 Sep 2026 09:00:20 GMT", "date": "Tue, 01 Sep 2026 09:00:00 GMT"}, 20.0),
        ({"retry-after": "Tue, 01 Sep 2026 12:00:30 GMT", "date": "yesterday"}, 30.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:00 -2359"}, None),
    ],
)
def test_the_wait_that_a_reply_asks_for_is_read_in_each_form(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates by the server's own clock are honoured within the bound; garbage is not."""
    assert retry_after_s(headers, now=NOW) == seconds


@given(text=st.text(max_size=100), date=st.text(max_size=100))
@settings(max_examples=100)
def test_no_header_breaks_the_reading(text: str, date: str) -> None:
    """Any text whatever in the headers is a bounded wait or none."""
    for headers in ({"retry-after": text, "date": date}, {"retry-after-ms": text}):
        wait = retry_after_s(headers, now=NOW)
        assert wait is None or 0 <= wait <= MAX_RETRY_AFTER_S


@given(wait=st.integers(0, 10_000), skew=st.integers(-(10**6), 10**6))
@settings(max_examples=50)
def test_a_date_is_read_by_the_clock_that_wrote_it(wait: int, skew: int) -> None:
    """A wrong clock on either side does not change the wait."""
    theirs = NOW + timedelta(seconds=skew)
    headers = {"date": format_datetime(theirs), "retry-after": format_datetime(theirs + timedelta(seconds=wait))}
    assert retry_after_s(headers, now=NOW) == min(wait, MAX_RETRY_AFTER_S)


@pytest.fixture(params=["UTC0", "XYZ-5:45", "XYZ9"])
def _local_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process runs in a time zone: that of Greenwich, one to the east of it, one to the west."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_local_zone")
def test_a_date_without_a_zone_is_the_same_moment_on_any_machine() -> None:
    """It is Greenwich's time, not that of the machine."""
    assert retry_after_s({"retry-after": "Tue, 01 Sep 2026 12:00:30 -0000"}, now=NOW) == 30
    dates = {"retry-after": "Tue, 01 Sep 2026 09:00:20 -0000", "date": "Tue, 01 Sep 2026 09:00:00 GMT"}
    assert retry_after_s(dates, now=NOW) == 20


def test_the_wait_goes_with_every_retry() -> None:
    """Whatever the reason for a retry, the service's own word on when is kept."""
    for status in (408, 429, 500, 503, 504):
        verdict = verdict_on(ErrorDetail(status), {"retry-after": "7"})
        assert isinstance(verdict, Retry)
        assert verdict.retry_after_s == 7


@given(
    failures=st.integers(1, 10**9),
    jitter=st.floats(0, 1, exclude_max=True),
    cap_s=st.floats(0.001, 1e6),
)
@settings(max_examples=100)
def test_backoff_stays_below_its_ceiling(failures: int, jitter: float, cap_s: float) -> None:
    """The wait is from 0 to the smaller of the cap and the doubling, for any number of failures."""
    wait = backoff(failures, jitter=jitter, cap_s=cap_s)
    assert 0 <= wait <= cap_s
    if failures < 30:
        assert wait <= 2 ** (failures - 1)
    assert wait <= backoff(failures + 1, jitter=jitter, cap_s=cap_s)


def test_backoff_doubles_to_the_cap() -> None:
    """At the same point of the jitter: half a second, one, two, four, and then half of the cap."""
    assert [backoff(n, jitter=0.5, cap_s=12) for n in range(1, 7)] == [0.5, 1, 2, 4, 6, 6]


def test_the_markdown_table_has_a_line_for_each_rule() -> None:
    """The table of the documentation is the table that decides: the same rules in the same order, four cells each."""
    lines = retry_table_markdown().splitlines()
    for line, rule in zip(lines[2:-2], RETRY_TABLE, strict=True):
        cells = line.strip("| ").split(" | ")
        assert cells == [rule.when, rule.action, f"`{rule.kind}`", rule.reason]


def test_the_markdown_says_which_status_an_error_in_a_success_or_a_500_counts_as() -> None:
    """A reader who looks for such an error in the table finds the line that decides."""
    _, words = retry_table_markdown().strip().rsplit("\n\n", 1)
    assert words.startswith("A 2xx with an error in its body, and a 500, count in this table as the status")
    for code, status in FITTING_STATUS.items():
        assert f"`{code}` {status}" in words
