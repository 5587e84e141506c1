"""What each fault looks like to a client, in every format."""

import pytest

from cometbatch.records import FinishReason
from cometbatch.simulator import FAULTS, Fault
from cometbatch.simulator.app import DRIP_PAUSE_S, DRIPS
from cometbatch.simulator.awkward import READABLE
from cometbatch.simulator.behaviour import FAULT_KINDS
from cometbatch.simulator.json_answers import JSON_FAULTS
from cometbatch.simulator.service import CAP_FIELDS
from cometbatch.wire import FORMATS
from tests.simulator.client import Client

every_format = pytest.mark.parametrize("wire", FORMATS)

REFUSED = {  # name -> status, and the code that a client may rely on ("" where there is none, None where it varies)
    "bad-key": (401, None),
    "credit": (403, "insufficient_user_quota"),
    "key-quota": (403, "pre_consume_token_quota_failed"),
    "model-not-found": (503, "model_not_found"),
    "not-priced": (400, None),
    "proxy-password": (407, ""),
    "provider-key": (401, "invalid_api_key"),
    "provider-credit": (402, ""),
    "409": (409, None),
    "423": (423, None),
    "424": (424, None),
    "425": (425, None),
    "499": (499, None),
    "days-429": (429, None),
    "429": (429, None),
    "500": (500, ""),
    "502": (502, None),
    "503": (503, None),
    "504": (504, ""),
    "524": (524, ""),
    "529": (529, None),
    "400": (400, None),
    "403-html": (403, ""),
    "500-invalid-request": (500, "invalid_request"),
    "prompt-blocked": (400, "prompt_blocked"),
    "sensitive-words": (500, "sensitive_words_detected"),
}
ENDED: dict[str, FinishReason] = {  # name -> how the answer ends
    "length": "length",
    "length-empty": "length",
    "empty": "stop",
    "content-filter": "content_filter",
    "refusal": "refusal",
    "tool-calls": "tool_calls",
}
SAID_OTHERWISE: dict[tuple[str, str], FinishReason] = {  # a format without that word says what comes nearest
    ("content-filter", "messages"): "refusal",
    ("refusal", "gemini"): "content_filter",
}
WHOLE = {"no-usage", "zero-usage", "wrong-total", "slow-body", "long-tail", "cap-ignored"}
ELSEWHERE = {"reset", "cut-json", "html-200", "redirect", "empty-candidates", *CAP_FIELDS}
OTHERWISE = {"streamed", "wrapped", "dialect", "miscoded"}  # the same answer, said otherwise
LOST = {"cut-stream": "not_json", "failed-200": "error", "unreadable": "unreadable"}  # billed, and no answer

OF_JSON = {*JSON_FAULTS, "deep_keywords"}  # of requests for JSON alone: tests/structured/test_runs.py


def struck_by(name: str) -> Client:
    """A client of a simulator in which this fault strikes always."""
    return Client(faults=(Fault(name, 1.0),), latency_s=(2.0, 3.0))


def test_every_fault_is_specified_here() -> None:
    """No fault is without a test in this file."""
    assert REFUSED.keys() | ENDED.keys() | WHOLE | ELSEWHERE | OTHERWISE | LOST.keys() | OF_JSON == FAULTS.keys()
    assert OTHERWISE == READABLE


@every_format
@pytest.mark.parametrize("name", sorted(OF_JSON))
def test_a_fault_of_json_spares_an_answer_in_words(name: str, wire: str) -> None:
    """The same answer as without it."""
    assert struck_by(name).ask(wire=wire).completion == Client().ask(wire=wire).completion


@every_format
@pytest.mark.parametrize("name", sorted(OTHERWISE - {"miscoded"}))  # httpx can't read that one: tests/test_replies.py
def test_an_answer_that_is_said_otherwise_is_the_same_answer(name: str, wire: str) -> None:
    """It is billed like the plain one, and its body is another."""
    plain, client = Client(latency_s=(0, 0)).ask(wire=wire), struck_by(name)
    reply = client.ask(wire=wire)
    assert reply.completion == plain.completion
    assert reply.body != plain.body
    assert client.ledger()["answered"] == 1


@every_format
@pytest.mark.parametrize("name", LOST)
def test_an_answer_that_is_lost_is_billed(name: str, wire: str) -> None:
    """The ledger counts it; the client sees what kind of reply it was."""
    client = struck_by(name)
    assert client.ask(wire=wire).error.problem == LOST[name]
    assert client.ledger()["answered"] == 1


@every_format
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_its_status_and_code_and_costs_nothing(name: str, wire: str) -> None:
    """An error reply says what the table says, carries its request id, and is not billed."""
    status, code = REFUSED[name]
    client = struck_by(name)
    reply = client.ask(wire=wire)
    assert (reply.status, reply.error.status) == (status, status)
    assert reply.error.request_id == reply.headers["x-cometapi-request-id"]
    assert code in {reply.error.code, None}
    assert reply.error.code in {code or "", "", str(status)}
    told = client.ledger()
    assert (told["requests"], told["answered"], told["rejected"]) == (1, 0, {str(status): 1})


def test_a_wait_of_days_is_named_in_any_case() -> None:
    """Whether or not the service's other 429 name a wait."""
    assert int(struck_by("days-429").ask().headers["retry-after"]) > 5 * 86_400


@every_format
@pytest.mark.parametrize("name", ENDED)
def test_an_unusual_ending_is_a_billed_answer(name: str, wire: str) -> None:
    """A 200 whose finish reason is the fault's, without text except for a cut answer, and billed."""
    client = struck_by(name)
    completion = client.ask(wire=wire).completion
    assert completion.finish_reason == SAID_OTHERWISE.get((name, wire), ENDED[name])
    assert bool(completion.text) == (name == "length")
    told = client.ledger()
    assert (told["answered"], told["models"]["comet-sim-1"]["input_tokens"]) == (1, completion.usage.input_tokens)
    assert told["models"]["comet-sim-1"]["output_tokens"] == completion.usage.output_tokens


@every_format
def test_length_empty_bills_the_whole_cap(wire: str) -> None:
    """Section 10 item 10: reasoning ate the cap, and all of it counts as output."""
    assert struck_by("length-empty").ask(wire=wire, max_output_tokens=77).completion.usage.output_tokens == 77
    assert struck_by("length-empty").ask(wire="chat").completion.usage.output_tokens == 1024


@every_format
@pytest.mark.parametrize("name", ["no-usage", "zero-usage", "wrong-total"])
def test_no_usage_is_unknown_to_the_client_and_known_to_the_ledger(wire: str, name: str) -> None:
    """A whole answer without counts, or with counts that can't be true, is billed all the same."""
    client = struck_by(name)
    completion = client.ask(wire=wire).completion
    assert (completion.text != "", completion.usage.input_tokens, completion.usage.output_tokens) == (True, None, None)
    assert client.ledger()["models"]["comet-sim-1"]["input_tokens"] > 0
    assert (completion.cost_excludes or "").startswith("usage=") == (name == "wrong-total")


@every_format
def test_an_ignored_cap_is_a_whole_answer_far_above_it(wire: str) -> None:
    """The text is not cut at the cap, and client and ledger count the same tokens."""
    client = struck_by("cap-ignored")
    completion = client.ask(wire=wire, max_output_tokens=5).completion
    assert (completion.finish_reason, completion.text.endswith(".")) == ("stop", True)
    assert completion.usage.output_tokens == client.ledger()["models"]["comet-sim-1"]["output_tokens"] > 5_000


@pytest.mark.parametrize("name", CAP_FIELDS)
def test_a_name_of_the_cap_that_the_model_does_not_know_is_refused(name: str) -> None:
    """In chat, and only where the request has that field; a prompt that quotes it is answered."""
    client, word = struck_by(name), CAP_FIELDS[name].decode().strip('":')
    extra = {"max_tokens": 9} if word == "max_tokens" else {}
    refused = client.ask(max_output_tokens=None if extra else 9, extra=extra)
    assert (refused.status, word in refused.error.message) == (400, True)
    assert client.ask(max_output_tokens=9 if extra else None, extra={} if extra else {"max_tokens": 9}).status == 200
    assert client.ask(f'What is {{"{word}": 9}}?').status == 200
    assert client.ask(wire="messages", max_output_tokens=9).status == 200


def test_empty_candidates_is_a_blocked_prompt_on_gemini_and_an_empty_response_elsewhere() -> None:
    """Gemini answers 200 without candidates; the gateway makes 500 empty_response of that on the other routes."""
    reply = struck_by("empty-candidates").ask(wire="gemini")
    assert "candidates" not in reply.json or reply.json["candidates"] == []
    assert (reply.completion.finish_reason, reply.completion.text) == ("content_filter", "")
    error = struck_by("empty-candidates").ask(wire="chat").error
    assert (error.status, error.code) == (500, "empty_response")


@every_format
def test_cut_json_is_billed_and_unreadable(wire: str) -> None:
    """A 200 whose body ends in the middle of its JSON."""
    client = struck_by("cut-json")
    assert client.ask(wire=wire).error.problem == "not_json"
    assert (client.ledger()["answered"], client.ledger()["answers_lost"]) == (1, 1)


@every_format
def test_pages_in_place_of_answers_are_not_billed(wire: str) -> None:
    """HTML with 200, and a redirect, are told from answers by client and ledger alike."""
    client = struck_by("html-200")
    assert client.ask(wire=wire).error.problem == "html"
    assert client.ledger()["rejected"] == {"200": 1}
    client = struck_by("redirect")
    assert client.ask(wire=wire).error.problem == "redirect"
    assert client.ledger()["rejected"] == {"301": 1}


def test_a_reset_comes_before_the_reply_or_in_the_middle_and_only_the_latter_is_billed() -> None:
    """Both kinds occur, and the ledger knows which was which."""
    client = struck_by("reset")
    for row in range(20):
        with pytest.raises(ConnectionResetError):
            client.ask(f"row {row}")
    told = client.ledger()
    assert told["requests"] == told["answered"] + told["cut_before_reply"] == 20
    assert 0 < told["answered"] == told["answers_lost"] < 20


def test_a_slow_body_drips() -> None:
    """The reply is whole, after many pauses."""
    client = struck_by("slow-body")
    assert client.ask().completion.text
    assert client.time.sleeps[1:] == [DRIP_PAUSE_S] * len(client.time.sleeps[1:])
    assert DRIPS / 2 < len(client.time.sleeps[1:]) <= DRIPS


def test_the_long_tail_is_beyond_a_hundred_seconds() -> None:
    """Section 10 item 12: some answers take more than 100 s."""
    client = struck_by("long-tail")
    assert client.ask().completion.text
    assert [seconds > 100 for seconds in client.time.sleeps] == [True]


@pytest.mark.parametrize(
    "name", [kind.name for kind in FAULT_KINDS if kind.strikes == "attempt" and kind.name != "reset"]
)
def test_a_later_attempt_gets_through(name: str) -> None:
    """Asked again and again, a request that a transient fault struck gets the answer that it would have had at once."""
    client, undisturbed = Client(faults=(Fault(name, 0.6),)), Client()
    for row in range(5):
        expected = undisturbed.ask(f"row {row}").completion.text
        replies = [client.ask(f"row {row}") for _ in range(12)]
        assert expected in {getattr(reply.parsed, "text", None) for reply in replies}


@pytest.mark.parametrize("name", ["429", "400", "refusal", "cut-json", "length", "no-usage"])
def test_the_same_seed_request_and_attempt_give_the_same_reply(name: str) -> None:
    """Two simulators of one seed reply byte for byte alike, in whatever order they are asked; another seed differs."""
    rows = [f"row {row}" for row in range(12)]
    one, two, other = (Client(seed=seed, faults=(Fault(name, 0.5),)) for seed in (1, 1, 2))
    forwards = {(row, attempt): one.ask(row) for attempt in (1, 2) for row in rows}
    backwards = {(row, attempt): two.ask(row) for attempt in (1, 2) for row in reversed(rows)}
    assert forwards == backwards
    assert [forwards[row, 1].body for row in rows] != [other.ask(row).body for row in rows]
