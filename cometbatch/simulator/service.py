"""The service without I/O: a whole request becomes a reply and the way in which it is delivered.

This module hides the order in which a gateway checks a request. Law: the ledger has counted a decision before anyone
waits for it.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

from cometbatch.records import (
    Completion,
    ErrorDetail,
    GenerationParams,
    HttpRequest,
    HttpResponse,
    ModelRequest,
    Prompt,
    Usage,
)
from cometbatch.simulator import answers, catalog, faults, json_answers, schema_rules
from cometbatch.simulator.awkward import awkward
from cometbatch.simulator.behaviour import (
    Accuracy,
    Behaviour,
    latency_s,
    long_tail_s,
    number,
    request_digest,
    strike,
)
from cometbatch.simulator.catalog import Model
from cometbatch.simulator.gate import Gate
from cometbatch.simulator.knowledge import Said, said
from cometbatch.simulator.ledger import Ledger
from cometbatch.simulator.quirks import MISCOUNTS, miscounted, quirky, response_model
from cometbatch.wire import WireFormat, format_for_path
from cometbatch.wire.envelope import build_error
from cometbatch.wire.structured import asked_in, call_of

Delivery = Literal["whole", "dripping", "cut", "none"]

CATALOG_PATH = "/api/models"
DETAIL_PATH = "/api/model/"
LIST_PATH = "/v1/models"
LEDGER_PATH = "/simulator/ledger"
STREAM_OPERATOR = ":streamGenerateContent"
REQUEST_ID_HEADER = "x-cometapi-request-id"
_RETRY_AFTER_S = 1  # seconds that a 429 names if there is no rate limit to compute them from
MAX_BODY_BYTES = 64 << 20  # of a request; a larger one is refused, so that no client can fill the simulator's memory
_KEY = re.compile(r"sk-[A-Za-z0-9_-]{8,250}", re.ASCII)  # contract sheet, section 1
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RESPONSE_ID_PREFIXES = {"chat": "chatcmpl-", "responses": "resp_", "messages": "msg_"}
DELIVERIES: Mapping[str, Delivery] = {"reset": "cut", "slow-body": "dripping"}
_JSON = {"content-type": "application/json"}
# Answers that are billed and may never arrive.
ENDANGERED = frozenset({"reset", "cut-json", "cut-stream", "failed-200", "unreadable", "slow-body", "long-tail"})


class Incoming(Struct, frozen=True):
    """A request as it came in. `path` is as sent: percent-encoded. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Reply(Struct, frozen=True):
    """What is sent back, after how many seconds, and how.

    Deliveries: whole; dripping (in small pieces); cut (the connection breaks in the middle of the body); none (it
    breaks before the first byte).
    """

    response: HttpResponse
    wait_s: float = 0.0
    delivery: Delivery = "whole"


class Call(Struct, frozen=True):
    """One request on its way through the service.

    `attempt` is 0 until the request is admitted. `wire_name` is "" for a path of no format. `subject`: the model or
    path that an error message names. `spared`: faults that this request can't have.
    """

    wire_name: str
    digest: bytes
    request_id: str
    subject: str = ""
    attempt: int = 0
    spared: frozenset[str] = frozenset()


CAP_FIELDS: Mapping[str, bytes] = {
    "no-max-tokens": b'"max_tokens":',
    "no-max-completion-tokens": b'"max_completion_tokens":',
}
"""Faults of a field of chat requests, and how a body has it; within a text its quotes would be escaped."""
PAGES: Mapping[str, HttpResponse] = {"html-200": faults.html_page(200, "Welcome"), "redirect": faults.redirect()}
_NOTHING = HttpResponse(502, {}, b"")  # never sent
ENDINGS: Mapping[str, Callable[[Completion, GenerationParams], Completion]] = {
    "length": lambda whole, _: answers.cut_short(whole),
    "length-empty": lambda whole, params: answers.eaten_by_reasoning(whole, params.max_output_tokens),
    "empty": lambda whole, _: answers.emptied(whole),
    "content-filter": lambda whole, _: answers.filtered(whole, "SAFETY"),
    "empty-candidates": lambda whole, _: answers.filtered(whole, "prompt blocked: SAFETY"),
    "refusal": lambda whole, _: answers.refused(whole),
    "tool-calls": lambda whole, _: answers.called_a_tool(whole),
}


class Service:
    """All that the server knows and counts. `now` gives seconds from any start, for what is refused for a time."""

    def __init__(self, behaviour: Behaviour, now: Callable[[], float]) -> None:
        self._behaviour = behaviour
        self._models = catalog.models_with(behaviour.model)
        self._ledger = Ledger()
        self._accuracy = Accuracy(dict(behaviour.accuracy), behaviour.spread, behaviour.seed)
        self._gate = None if behaviour.rps is None else Gate(behaviour.rps, now)
        self._now = now
        self._catalog_ready: float | None = None  # when a busy catalog will answer, once it was asked
        self._requests = 0

    def reply(self, incoming: Incoming) -> Reply:
        """The reply to a request, whatever it holds. Every reply has a request id."""
        self._requests += 1
        digest = request_digest(self._behaviour.seed, incoming.path, incoming.body)
        wire = format_for_path(incoming.path)
        call = Call("" if wire is None else wire.name, digest, request_id_for(digest, f"early {self._requests}"))
        if incoming.method == "POST" and wire is not None:
            return self._generate(incoming, wire, call)
        page = self._page(incoming, call)
        return self._astray(incoming, call) if page is None else Reply(identified(page, call.request_id))

    def _page(self, incoming: Incoming, call: Call) -> HttpResponse | None:
        """The page at the path of a GET, or None."""
        path = incoming.path
        if incoming.method != "GET":
            return None
        if path == CATALOG_PATH:
            return self._catalog(incoming, call)
        if path == LEDGER_PATH:
            return HttpResponse(200, _JSON, msgspec.json.encode(self._ledger.snapshot()))
        if path == LIST_PATH:
            models = catalog.model_list(self._models.values())
            return HttpResponse(200, _JSON, models) if has_key(incoming) else _refusal("bad-key", call)
        if path == faults.ELSEWHERE:
            return faults.html_page(200, "Not found")
        return _detail_page(path.removeprefix(DETAIL_PATH)) if path.startswith(DETAIL_PATH) else None

    def _catalog(self, incoming: Incoming, call: Call) -> HttpResponse:
        shape, now = catalog.CATALOG_SHAPES[self._behaviour.catalog], self._now()
        if shape.busy:
            if self._catalog_ready is None:
                self._catalog_ready = now + catalog.BUSY_S
            if (left := self._catalog_ready - now) > 0:
                refusal = _refusal("429", call)
                return HttpResponse(429, {**refusal.headers, "retry-after": f"{math.ceil(left)}"}, refusal.body)
        query = {name: values[0] for name, values in parse_qs(incoming.query).items()}
        return HttpResponse(
            200, _JSON, catalog.catalog_page(self._behaviour.catalog, self._models.values(), query=query)
        )

    def _astray(self, incoming: Incoming, call: Call) -> Reply:
        """The reply to an unknown path (contract sheet, section 10 item 8) or a wrong method."""
        if incoming.path.endswith(STREAM_OPERATOR):
            return self._refuse("stream", call)
        if call.wire_name or incoming.path in {CATALOG_PATH, LIST_PATH, LEDGER_PATH}:
            subject = f"{incoming.method} {incoming.path}"
            return self._refuse("wrong-method", msgspec.structs.replace(call, subject=subject))
        return self._reject(faults.redirect(), call)

    def _generate(self, incoming: Incoming, wire: WireFormat, call: Call) -> Reply:
        asked = wire.parse_request(HttpRequest(incoming.path, incoming.headers, incoming.body))
        if isinstance(asked, ModelRequest):
            is_chat = wire.name == "chat"
            spared = {fault for fault, field in CAP_FIELDS.items() if not (is_chat and field in incoming.body)}
            if json_answers.wanted(wire.name, asked.prompt) is None:
                spared |= set(json_answers.JSON_FAULTS)
            call = msgspec.structs.replace(call, subject=asked.model, spared=frozenset(spared))
        refusal = self._gatekeeper(incoming, asked)
        if refusal is not None:
            return self._refuse(refusal, call)
        if isinstance(asked, ErrorDetail):
            mistake = msgspec.structs.replace(asked, request_id=call.request_id)
            return self._reject(build_error(mistake, "openai"), call)
        return self._admitted(asked, wire, call)

    def _gatekeeper(self, incoming: Incoming, asked: ModelRequest | ErrorDetail) -> str | None:
        """The name of a refusal that comes before any provider is asked, or None. It counts as no attempt."""
        if not has_key(incoming):
            return "bad-key"
        if len(incoming.body) > MAX_BODY_BYTES:
            return "too-large"
        return None if isinstance(asked, ErrorDetail) else self._distributor(asked)

    def _distributor(self, asked: ModelRequest) -> str | None:
        if asked.prompt.params.extra.get("stream"):
            return "stream"
        if catalog.callable_model(asked.model, self._models) is None:
            return "not-priced" if catalog.is_code_only(asked.model) else "model-not-found"
        if self._gate is not None and not self._gate.admit():
            return "429"
        credit = self._behaviour.credit_usd
        return "credit" if credit is not None and self._ledger.spent_usd >= credit else None

    def _admitted(self, asked: ModelRequest, wire: WireFormat, call: Call) -> Reply:
        attempt = self._ledger.next_attempt(call.digest)
        call = msgspec.structs.replace(call, attempt=attempt, request_id=request_id_for(call.digest, f"{attempt}"))
        possible = (fault for fault in self._behaviour.faults if fault.name not in call.spared)
        fault = strike(possible, call.digest, attempt) or ""
        if refusal := _schema_refusal(asked, wire.name, fault):
            return self._refuse(refusal[0], msgspec.structs.replace(call, subject=refusal[1]))
        if fault == "empty-candidates" and wire.name != "gemini":
            fault = "empty-response"
        if fault in faults.REFUSALS and fault != "deep_keywords":
            return self._refuse(fault, call)
        if fault in PAGES:
            return self._reject(PAGES[fault], call)
        if fault == "reset" and number(call.digest, f"reset {attempt}", 2):
            self._ledger.cut_before_reply()
            return Reply(_NOTHING, self._latency_s(call), "none")
        return self._answered(asked, wire, call, fault)

    def _answered(self, asked: ModelRequest, wire: WireFormat, call: Call, fault: str) -> Reply:
        model = self._models[asked.model]
        answered = functools.partial(answers.overlong if fault == "cap-ignored" else answers.answer, model)
        told = said(self._accuracy, asked.model, asked.prompt, call.digest, call.attempt)
        completion = _formed(answered, asked, wire.name, call.digest, fault, told=told)
        if fault in ENDINGS:
            completion = ENDINGS[fault](completion, asked.prompt.params)
        if wire.name == "gemini":  # it has no name for what is written to a cache, so that is not billed as such
            counted = msgspec.structs.replace(
                completion.usage, cache_write_input_tokens=None, cache_write_1h_input_tokens=None
            )
            completion = msgspec.structs.replace(completion, usage=counted)
        cost_usd, whole = catalog.cost(model, completion.usage), fault not in ENDANGERED
        self._ledger.answered(call.digest, model.id, completion.usage, cost_usd, whole=whole)
        spoken = awkward(fault, self._spoken(completion, model, wire, call, fault), wire.name, call.digest)
        response = identified(spoken, call.request_id)
        if fault == "cut-json":
            response = HttpResponse(response.status, response.headers, response.body[: len(response.body) // 2])
        wait_s = long_tail_s(call.digest, call.attempt) if fault == "long-tail" else self._latency_s(call)
        return Reply(response, wait_s, DELIVERIES.get(fault, "whole"))

    def _spoken(self, completion: Completion, model: Model, wire: WireFormat, call: Call, fault: str) -> HttpResponse:
        """The answer as a reply in its format, with the model's quirks."""
        told = msgspec.structs.replace(
            completion,
            usage=Usage() if fault == "no-usage" else completion.usage,
            response_id=response_id_for(wire.name, call),
            response_model=response_model(model, quirks=self._behaviour.quirks),
        )
        response = wire.build_response(model.id, told)
        if self._behaviour.quirks:
            response = quirky(response, model, completion.usage)
        return miscounted(response, fault) if fault in MISCOUNTS else response

    def _refuse(self, name: str, call: Call) -> Reply:
        """A reply that is no answer, with its wait."""
        response = _refusal(name, call)
        if name == "429" and self._behaviour.retry_after:
            wait = _RETRY_AFTER_S if self._gate is None else self._gate.retry_after_s()
            response = HttpResponse(response.status, {**response.headers, "retry-after": str(wait)}, response.body)
        return self._reject(response, call, self._latency_s(call) if faults.REFUSALS[name].routed else 0.0)

    def _reject(self, response: HttpResponse, call: Call, wait_s: float = 0.0) -> Reply:
        self._ledger.rejected(response.status)
        return Reply(identified(response, call.request_id), wait_s)

    def _latency_s(self, call: Call) -> float:
        return latency_s(self._behaviour, call.digest, call.attempt)


def _schema_refusal(asked: ModelRequest, wire_name: str, fault: str) -> tuple[str, str] | None:
    """The refusal of the schema that a request holds, and its words; None where it is taken, or there is none."""
    found = asked_in(wire_name, asked.prompt.params.extra)
    if found is None or found.schema is None:
        return None
    is_checked = found.is_strict if wire_name in ("chat", "responses") else wire_name == "gemini" or not found.is_call
    if is_checked and (words := schema_rules.refused(wire_name, found.schema)):
        return "schema", words
    words = schema_rules.refused_deep(found.schema) if fault == "deep_keywords" else None
    return None if words is None else ("deep_keywords", words)


def _formed(
    answered: Callable[[Prompt, bytes, str | None], Completion],
    asked: ModelRequest,
    wire_name: str,
    digest: bytes,
    fault: str,
    *,
    told: Said | None,
) -> Completion:
    """A whole answer, in the form that the request asks for, unless a fault spoils it. `told`: what it is to say."""
    form = json_answers.wanted(wire_name, asked.prompt)
    if form is None:
        return answered(asked.prompt, digest, None if told is None else told.text)
    words = answers.plain_text(asked.prompt, digest) if told is None else told.core
    is_ignored = fault == "ignores_schema"
    said = words if is_ignored else json_answers.answer_in_form(form, digest, words, is_meant=told is not None)
    if form.pattern is None and not is_ignored and fault in json_answers.JSON_FAULTS:
        said = json_answers.spoilt(fault, said)
    completion = answered(asked.prompt, digest, said)
    is_called = form.is_call and fault not in ("ignores_schema", "fenced", "cut_json")
    if not is_called or completion.finish_reason != "stop" or completion.text != said:
        return completion
    return msgspec.structs.replace(completion, text="", finish_reason="tool_calls", detail=call_of(wire_name, said))


def has_key(incoming: Incoming) -> bool:
    """Whether the request has a key of the right shape, in any place that section 1 of the sheet names."""
    headers = incoming.headers
    offered = headers.get("authorization") or headers.get("x-api-key") or headers.get("x-goog-api-key")
    if not offered and incoming.path.startswith("/v1beta/"):
        offered = "".join(parse_qs(incoming.query).get("key", []))
    return _KEY.fullmatch((offered or "").strip().removeprefix("Bearer ").strip()) is not None


def request_id_for(digest: bytes, label: str) -> str:
    """An id in the sheet's format (section 1, "Request id"). Its time is invented, because there is no clock."""
    rest, second = divmod(number(digest, f"request id {label}", 1 << 127), 24 * 3600)
    rest, fraction = divmod(rest, 10**9)
    letters = "".join(_BASE62[rest // 62**place % 62] for place in range(8))
    return f"20260617{second // 3600:02}{second // 60 % 60:02}{second % 60:02}{fraction:09}{letters}"


def response_id_for(wire_name: str, call: Call) -> str:
    """The id of a reply, another one for each attempt, because a repeated request is a new generation."""
    return f"{_RESPONSE_ID_PREFIXES.get(wire_name, '')}{call.digest.hex()[:20]}{call.attempt:04}"


def identified(response: HttpResponse, request_id: str) -> HttpResponse:
    """The same reply with its request id in the header."""
    return HttpResponse(response.status, {**response.headers, REQUEST_ID_HEADER: request_id}, response.body)


def _refusal(name: str, call: Call) -> HttpResponse:
    return faults.refuse(
        name, subject=call.subject, wire_name=call.wire_name, request_id=call.request_id, digest=call.digest
    )


def _detail_page(code: str) -> HttpResponse:
    page = catalog.model_page(unquote(code))
    if page is None:
        return HttpResponse(404, _JSON, b'{"success":false,"message":"model not found"}')
    return HttpResponse(200, _JSON, page)
