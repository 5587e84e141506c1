"""The contract sheet's simulator checklist (section 10), item by item. Item 11 is in test_catalog.py."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest

from cometbatch.simulator import Fault
from cometbatch.simulator.catalog import MODEL_BY_ID, MODELS, callable_model, cost
from cometbatch.wire import FORMATS
from tests.simulator.client import BEARER, KEY, Client, asked

every_format = pytest.mark.parametrize("wire", FORMATS)
PATHS = {name: asked("Hello", wire=name).path for name in FORMATS}
REQUEST_ID = re.compile(r"20\d{12}\d{9}[0-9A-Za-z]{8}")  # section 1
CALLABLE = [model.id for model in MODELS if callable_model(model.id)]


def error_of(reply: Any) -> Any:
    """The error object in the OpenAI envelope."""
    body = reply.json()
    assert body.keys() == {"error"}
    return body["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in PATHS.values()),
        ("GET", "/api/models"),
        ("GET", "/api/model/comet-sim-1"),
        ("GET", "/v1/models"),
        ("GET", "/simulator/ledger"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/models"),
    ],
)
def test_item_1_every_reply_has_a_request_id(method: str, path: str) -> None:
    """The header is on every reply in the sheet's format, and twice the same request has two ids."""
    client = Client()
    ids = [client.send(method, path).headers["x-cometapi-request-id"] for _ in range(2)]
    assert all(REQUEST_ID.fullmatch(request_id) for request_id in ids)
    assert ids[0] != ids[1]


@every_format
def test_item_1_the_id_is_in_the_message_too(wire: str) -> None:
    """An error's message ends in the id that its header has."""
    client = Client(faults=(Fault("503", 1.0),))
    for row in range(10):
        reply = client.ask(f"row {row}", wire=wire)
        assert reply.json["error"]["message"].endswith(f"(request id: {reply.headers['x-cometapi-request-id']})")


def test_item_2_codes_are_empty_or_numeric_now_and_then_and_param_may_be_missing() -> None:
    """The same refusal comes with code "" or a number, with `param` and without."""
    client = Client(faults=(Fault("429", 1.0),))
    errors = [client.ask(f"row {row}").json["error"] for row in range(30)]
    assert {error["type"] for error in errors} == {"comet_api_error"}
    assert {error["code"] for error in errors} == {"", 429}
    assert {"param" in error for error in errors} == {True, False}


def test_item_2_errors_after_routing_may_be_in_the_words_of_the_provider() -> None:
    """Section 7.1: Anthropic's shape on /v1/messages and Google's on /v1beta, but not always."""
    client = Client(faults=(Fault("503", 1.0),))
    assert {client.ask(f"{row}", wire="messages").json.get("type") for row in range(20)} == {"error", None}
    statuses = {client.ask(f"{row}", wire="gemini").json["error"].get("status") for row in range(20)}
    assert statuses == {"UNAVAILABLE", None}
    assert all("status" not in client.ask(f"{row}", wire="chat").json["error"] for row in range(20))


@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
def test_item_3_a_missing_model_is_400(wire: str) -> None:
    """Without a model the request is refused as the client's mistake."""
    body = json.loads(asked("Hello", wire=wire).body)
    del body["model"]
    assert Client().send("POST", PATHS[wire], json.dumps(body).encode()).status_code == 400


@pytest.mark.parametrize(
    ("wire", "field"), [("chat", "messages"), ("messages", "messages"), ("responses", "input"), ("gemini", "contents")]
)
def test_item_3_missing_turns_are_500_invalid_request(wire: str, field: str) -> None:
    """Without messages, input or contents it is refused as if the server had failed: the key trap of section 7.1."""
    body = json.loads(asked("Hello", wire=wire).body)
    del body[field]
    client = Client()
    reply = client.send("POST", PATHS[wire], json.dumps(body).encode())
    error = error_of(reply)
    assert (reply.status_code, error["code"]) == (500, "invalid_request")
    assert f"{field} is required (request id: " in error["message"]
    assert client.ledger()["rejected"] == {"500": 1}


@every_format
def test_item_3_a_body_that_is_no_json_is_400(wire: str) -> None:
    """Malformed JSON is the client's mistake."""
    assert Client().send("POST", PATHS[wire], b'{"model": ').status_code == 400


@every_format
@pytest.mark.parametrize("model", ["nonesuch", "comet-sim-3", "COMET-SIM-1"])
def test_item_4_an_unknown_model_is_503(wire: str, model: str) -> None:
    """Unknown and upcoming models are 503 model_not_found in the OpenAI envelope on all four paths."""
    request = asked("Hello", wire=wire, model=model)
    reply = Client().send("POST", request.path, request.body)
    error = error_of(reply)
    assert (reply.status_code, error["code"], error["type"]) == (503, "model_not_found", "comet_api_error")
    assert model in error["message"]


@every_format
@pytest.mark.parametrize("code", ["comet-sim-2-5", "comet-sim-edge", "open-comets-comet-sim-8b"])
def test_item_4_a_code_used_as_an_id_is_400_not_priced(wire: str, code: str) -> None:
    """A catalog `code` is no id."""
    request = asked("Hello", wire=wire, model=code)
    reply = Client().send("POST", request.path, request.body)
    assert reply.status_code == 400
    assert "has not been priced by the administrator" in error_of(reply)["message"]


@every_format
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer "},
        {"authorization": "Bearer sk-short"},
        {"authorization": "Bearer sk-" + "x" * 251},
        {"authorization": "Bearer pk-0123456789"},
        {"authorization": "Bearer sk-0123456789 0"},
        {"authorization": "Basic " + KEY},
        {"x-api-key": "sk-01234567~"},
    ],
    ids=str,
)
def test_item_5_a_bad_or_missing_key_is_401(wire: str, headers: dict[str, str]) -> None:
    """Invalid token, in the OpenAI envelope on all four paths, before anything else is looked at."""
    request = asked("Hello", wire=wire, model="nonesuch")
    reply = Client().send("POST", request.path, request.body, headers=headers)
    assert reply.status_code == 401
    assert error_of(reply)["message"].startswith("Invalid token (request id: ")


@every_format
@pytest.mark.parametrize(
    "headers", [BEARER, {"authorization": KEY}, {"x-api-key": KEY}, {"x-goog-api-key": f" {KEY} "}], ids=str
)
def test_item_5_a_key_is_accepted_in_any_header(wire: str, headers: dict[str, str]) -> None:
    """Section 1: Bearer, a bare key, x-api-key and x-goog-api-key work on every path."""
    request = asked("Hello", wire=wire)
    assert Client().send("POST", request.path, request.body, headers=headers).status_code == 200


def test_item_5_a_key_in_the_query_works_on_gemini_paths_alone() -> None:
    """`?key=` is for /v1beta."""
    for wire, status in (("gemini", 200), ("chat", 401)):
        request = asked("Hello", wire=wire)
        reply = Client().send("POST", f"{request.path}?key={KEY}", request.body, headers={})
        assert reply.status_code == status


def test_item_6_the_balance_is_spent_mid_job() -> None:
    """Answers come until the credit is used up, and 403 insufficient_user_quota from then on."""
    client = Client(credit_usd=Decimal("0.0001"))
    replies = [client.ask(f"row {row}") for row in range(20)]
    statuses = [reply.status for reply in replies]
    answered = statuses.count(200)
    assert statuses == [200] * answered + [403] * (20 - answered)
    assert 0 < answered < 20
    assert {reply.error.code for reply in replies[answered:]} == {"insufficient_user_quota"}
    assert Decimal(client.ledger()["cost_usd"]) >= Decimal("0.0001")


def test_item_6_without_credit_nothing_is_answered() -> None:
    """A balance of 0 answers nothing; no balance at all is no limit."""
    assert Client(credit_usd=Decimal(0)).ask().status == 403
    assert Client().ask().status == 200


@pytest.mark.parametrize("retry_after", [False, True])
def test_item_7_a_429_says_how_long_to_wait_only_if_it_is_told_to(retry_after: bool) -> None:
    """Without Retry-After by default, with it on demand."""
    reply = Client(faults=(Fault("429", 1.0),), retry_after=retry_after).ask()
    assert reply.headers.get("retry-after") == ("1" if retry_after else None)


def test_item_7_beyond_the_rate_comes_429_and_after_the_wait_it_names_an_answer() -> None:
    """The rate holds on the simulator's clock."""
    client = Client(rps=0.5, retry_after=True, latency_s=(0.0, 0.0))
    replies = [client.ask(f"row {row}") for row in range(3)]
    assert [reply.status for reply in replies] == [200, 429, 429]
    client.time.seconds += int(replies[-1].headers["retry-after"])
    assert client.ask("row 1").status == 200


def test_item_7_pushback_is_no_attempt() -> None:
    """A request that the rate turned away meets the same faults later as if it had come then."""
    pushed, calm = (Client(rps=rps, faults=(Fault("500", 0.5),), latency_s=(0.0, 0.0)) for rps in (1.0, None))
    assert pushed.ask("first").status in {200, 500}
    assert pushed.ask("second").status == 429
    pushed.time.seconds += 60
    assert pushed.ask("second") == calm.ask("second")


@pytest.mark.parametrize("name", ["504", "524", "403-html"])
def test_items_7_and_8_proxies_answer_in_html(name: str) -> None:
    """Timeouts of a proxy and a firewall's refusal are pages."""
    reply = Client(faults=(Fault(name, 1.0),)).ask()
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.body.startswith(b"<")


@pytest.mark.parametrize(
    "path", ["/", "/v1/chat", "/v1/chat/completions/", "/chat/completions", "/v1/v1/messages", "/v1beta"]
)
def test_item_8_a_wrong_path_leads_to_a_page(path: str) -> None:
    """301 to HTML, never a JSON error."""
    client = Client()
    reply = client.send("POST", path, asked("Hello").body)
    assert (reply.status_code, reply.headers["content-type"]) == (301, "text/html; charset=utf-8")
    page = client.send("GET", reply.headers["location"])
    assert (page.status_code, page.text[:9]) == (200, "<!DOCTYPE")
    assert client.ledger()["rejected"] == {"301": 1}


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_item_9_quirks_change_no_text_and_no_total(wire: str) -> None:
    """With quirks or without, a client reads the same answer and the same billed counts."""
    for model in CALLABLE:
        plain, quirky = (Client(quirks=quirks).ask(wire=wire, model=model).completion for quirks in (False, True))
        assert (plain.text, plain.finish_reason) == (quirky.text, quirky.finish_reason)
        assert plain.usage.input_tokens == quirky.usage.input_tokens
        assert plain.usage.output_tokens == quirky.usage.output_tokens
        assert plain.response_model == model


def test_item_9_a_reply_may_name_a_snapshot() -> None:
    """`model` in the reply can be a dated snapshot of the model asked."""
    assert Client().ask().completion.response_model == "comet-sim-1-2026-03-17"


@every_format
def test_item_9_usage_has_extra_keys_on_some_models(wire: str) -> None:
    """latency_checkpoint, and cost, stand beside the counts."""
    container = "usageMetadata" if wire == "gemini" else "usage"
    assert "latency_checkpoint" in Client().ask(wire=wire, model="comet-sim-reasoner").json[container]
    reply = Client().ask(wire=wire, model="comet-sim.2.5")
    told = json.loads(reply.body, parse_float=Decimal)[container]["cost"]
    assert told == cost(MODEL_BY_ID["comet-sim.2.5"], reply.completion.usage)


@every_format
def test_item_9_details_of_usage_are_missing_on_some_models(wire: str) -> None:
    """No *_details objects and no cache counts."""
    container = "usageMetadata" if wire == "gemini" else "usage"
    usage = Client().ask(wire=wire, model="comet-sim-1-mini").json[container]
    assert not any("details" in key or "cach" in key for key in usage)
    assert any("details" in key or "cach" in key for key in Client().ask(wire=wire).json[container])


def test_item_9_reasoning_content_is_no_part_of_the_answer() -> None:
    """Chat's reasoning_content is there, beside content."""
    reply = Client().ask(model="comet-sim-reasoner", max_output_tokens=5000)
    thoughts = reply.json["choices"][0]["message"]["reasoning_content"]
    assert thoughts
    assert thoughts not in reply.completion.text
    assert (reply.completion.usage.reasoning_output_tokens or 0) > 0


@pytest.mark.parametrize(
    "name", ["length", "length-empty", "empty", "refusal", "tool-calls", "no-usage", "content-filter"]
)
@every_format
@pytest.mark.parametrize("model", ["comet-sim-1-mini", "comet-sim-reasoner", "comet-sim.2.5", "comet-sim-cache"])
def test_items_9_and_10_no_quirk_breaks_an_unusual_ending(name: str, wire: str, model: str) -> None:
    """Every ending of every quirky model is still a reply that its format understands, with the billed totals."""
    client = Client(faults=(Fault(name, 1.0),))
    usage = client.ask(wire=wire, model=model).completion.usage
    told = client.ledger()["models"][model]
    assert usage.input_tokens in {told["input_tokens"], None}
    assert usage.output_tokens in {told["output_tokens"], None}
    assert (usage.input_tokens is None) == (usage.output_tokens is None) == (name == "no-usage")


def test_item_10_each_format_has_its_own_signature() -> None:
    """Responses says incomplete, Claude says refusal, Gemini leaves the candidates out."""
    assert Client(faults=(Fault("length", 1.0),)).ask(wire="responses").json["status"] == "incomplete"
    assert Client(faults=(Fault("refusal", 1.0),)).ask(wire="messages").json["stop_reason"] == "refusal"
    assert not Client(faults=(Fault("empty-candidates", 1.0),)).ask(wire="gemini").json.get("candidates")
    reply = Client(faults=(Fault("length-empty", 1.0),)).ask(wire="chat").json["choices"][0]
    assert (reply["finish_reason"], reply["message"]["content"] or "") == ("length", "")


def test_item_12_latency_is_spread_over_its_range() -> None:
    """Answers take between the two bounds, some near each."""
    client = Client(latency_s=(1.0, 100.0))
    for row in range(60):
        client.ask(f"row {row}")
    assert 1 <= min(client.time.sleeps) < 15
    assert 85 < max(client.time.sleeps) <= 100


@every_format
@pytest.mark.parametrize("model", CALLABLE)
def test_every_model_answers_on_every_route(wire: str, model: str) -> None:
    """Ids with dots and slashes included; the answer is the same as its cost in the ledger says."""
    client = Client()
    reply = client.ask(wire=wire, model=model)
    assert reply.completion.text
    told = client.ledger()["models"][model]
    price = cost(MODEL_BY_ID[model], reply.completion.usage)
    assert (Decimal(told["cost_usd"]), told["unpriced"]) == (price or 0, price is None)
