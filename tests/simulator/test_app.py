import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import HttpResponse
from cometbatch.simulator import Behaviour, Fault
from cometbatch.simulator.app import RESET, create_app
from cometbatch.simulator.service import MAX_BODY_BYTES, Incoming, Service
from cometbatch.wire import FORMATS
from tests.simulator.client import BEARER, Client, asked, heard


def converse(client: Client, scope: dict[str, Any], messages: Sequence[dict[str, Any]]) -> list[Any]:
    """Speak ASGI by hand: what the application sends when it receives these, and then a disconnect for ever."""
    sent: list[Any] = []
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))
    return sent


def post_scope(**more: Any) -> dict[str, Any]:
    """A POST to chat, as a server passes it."""
    headers = [(b"Authorization", BEARER["authorization"].encode())]
    path = "/v1/chat/completions"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    return {**scope, "headers": headers, **more}


def pieces(body: bytes) -> list[dict[str, Any]]:
    """A body in two messages."""
    middle = len(body) // 2
    first = {"type": "http.request", "body": body[:middle], "more_body": True}
    return [first, {"type": "http.request", "body": body[middle:], "more_body": False}]


def test_a_body_may_come_in_pieces() -> None:
    """The request is what its pieces make, and header names may be in any case."""
    sent = converse(Client(), post_scope(), pieces(asked("Hello").body))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    response = HttpResponse(sent[0]["status"], {}, sent[1]["body"])
    assert heard("chat", response).completion.text


def test_a_server_without_raw_path_is_served_too() -> None:
    """`raw_path` is optional in ASGI."""
    scope = post_scope(path="/v1beta/models/open-comets/comet-sim-8b:generateContent")
    del scope["raw_path"]
    sent = converse(Client(), scope, pieces(asked("Hello", wire="gemini").body))
    assert sent[0]["status"] in {200, 301}
    scope = post_scope()
    del scope["raw_path"]
    assert converse(Client(), scope, pieces(asked("Hello").body))[0]["status"] == 200


def test_a_client_that_leaves_before_its_request_is_whole_has_asked_nothing() -> None:
    """Half a request is not counted."""
    client = Client()
    assert converse(client, post_scope(), pieces(asked("Hello").body)[:1]) == []
    assert client.ledger()["requests"] == 0


def test_an_answer_is_billed_even_if_the_client_is_gone() -> None:
    """The ledger counts when the server decides: a client that gives up during the wait has been billed."""

    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    async def abandoned() -> None:
        client = Client(latency_s=(50.0, 60.0))
        client.app = create_app(Behaviour(latency_s=(50.0, 60.0)), sleep=for_ever)
        clients.append(client)
        incoming = iter(pieces(asked("Hello").body))

        async def receive() -> dict[str, Any]:
            return next(incoming)

        async def send(message: Any) -> None:
            raise AssertionError("nothing is sent")

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.app(post_scope(), receive, send), 0.01)

    clients: list[Client] = []
    asyncio.run(abandoned())
    assert clients[0].ledger()["answered"] == 1


def test_a_server_that_can_cut_connections_is_asked_to() -> None:
    """With the reset extension the application cuts through it, sends nothing more, and raises nothing."""
    cuts: list[str] = []
    client = Client(faults=(Fault("reset", 1.0),))
    kinds = set()
    for row in range(12):
        scope = post_scope(extensions={RESET: lambda: cuts.append("cut")})
        sent = converse(client, scope, pieces(asked(f"row {row}").body))
        assert not any(message["type"].endswith("body") and not message["more_body"] for message in sent)
        kinds.add(len(sent))
    assert (len(cuts), kinds) == (12, {0, 2})


def test_the_lifespan_protocol_is_answered() -> None:
    """Servers that announce start and end are told that all is well."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = converse(Client(), {"type": "lifespan"}, messages)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_body_beyond_the_bound_is_refused_and_not_kept() -> None:
    """413 for a body that would take the simulator's memory."""
    megabyte = {"type": "http.request", "body": bytes(1 << 20), "more_body": True}
    last = {"type": "http.request", "body": b"", "more_body": False}
    client = Client()
    sent = converse(client, post_scope(), [*[megabyte] * ((MAX_BODY_BYTES >> 20) + 3), last])
    assert sent[0]["status"] == 413
    assert b"read_request_body_failed" in sent[1]["body"]


@pytest.mark.parametrize("wire", FORMATS)
def test_streaming_is_refused_in_words(wire: str) -> None:
    """stream: true is 400 with a message that says what to do."""
    error = Client().ask(wire=wire, extra={"stream": True}).error
    assert error.status == 400
    assert "does not stream" in error.message
    assert Client().ask(wire=wire, extra={"stream": False}).status == 200


def test_geminis_streaming_operator_is_refused_in_words() -> None:
    """The path that asks for a stream is told so, too."""
    reply = Client().send("POST", "/v1beta/models/comet-sim-1:streamGenerateContent", b"{}")
    assert (reply.status_code, "does not stream" in reply.text) == (400, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/api/models"), ("POST", "/simulator/ledger")],
)
def test_the_wrong_method_is_404_invalid_url(method: str, path: str) -> None:
    """Section 7.2: the gateway names method and path."""
    reply = Client().send(method, path)
    assert reply.status_code == 404
    assert reply.json()["error"]["message"].startswith(f"Invalid URL ({method} {path}) (request id: ")


def test_the_catalog_needs_no_key_and_the_keys_own_list_does() -> None:
    """Section 8: /api/models is public, /v1/models is 401 without a key."""
    client = Client()
    assert client.send("GET", "/api/models", headers={}).json()["success"]
    assert client.send("GET", "/v1/models", headers={}).status_code == 401
    assert client.send("GET", "/v1/models").json()["object"] == "list"


def test_a_models_detail_is_found_by_code() -> None:
    """GET /api/model/{code}: found by code, and 404 in the catalog's own envelope otherwise."""
    client = Client()
    assert client.send("GET", "/api/model/comet-sim-2-5").json()["data"]["id"] == "comet-sim.2.5"
    reply = client.send("GET", "/api/model/comet-sim.2.5")
    assert (reply.status_code, reply.json()["success"]) == (404, False)


def test_the_catalog_comes_in_the_shape_that_was_asked_for() -> None:
    """The behaviour names the shape."""
    assert Client(catalog="short-page").send("GET", "/api/models").json()["total"] == 302


def test_a_question_asked_twice_is_noticed() -> None:
    """The ledger tells requests that were answered more than once: the witness of "never pay twice"."""
    client = Client()
    for words in ("one", "two", "one", "one", "three"):
        client.ask(words)
    told = client.ledger()
    assert (told["requests"], told["answered"], told["answered_more_than_once"]) == (5, 5, 1)
    assert told["delivered_more_than_once"] == 1


def test_asking_again_after_a_lost_answer_is_not_the_same_as_asking_again() -> None:
    """An answer that broke on the way does not count as delivered."""
    client = Client(faults=(Fault("cut-json", 0.5),))
    whole: list[str] = []
    for row in range(20):
        while not hasattr(client.ask(f"row {row}").parsed, "text"):
            pass
        whole.append(f"row {row}")
    told = client.ledger()
    assert told["delivered_more_than_once"] == 0
    assert told["answered"] == len(whole) + told["answers_lost"]
    assert told["answered_more_than_once"] > 0


def test_many_at_once_on_a_real_loop_are_all_counted() -> None:
    """Default clock and sleep: twenty requests at once through one loop, with a rate limit on the loop's time."""

    async def burst() -> list[int]:
        app = create_app(Behaviour(latency_s=(0.0, 0.01), rps=8.0))
        replies = []

        async def one(row: int) -> None:
            incoming = iter(pieces(asked(f"row {row}").body))

            async def receive() -> dict[str, Any]:
                return next(incoming)

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    replies.append(message["status"])

            await app(post_scope(), receive, send)

        await asyncio.gather(*map(one, range(20)))
        return replies

    statuses = asyncio.run(burst())
    assert (len(statuses), statuses.count(200) >= 8, set(statuses)) == (20, True, {200, 429})


AWKWARD_TEXTS = st.text(max_size=20) | st.sampled_from(["\ud800", "{x}", "{0}", "one of: \udfff, b", "\x00", "a/b%2F"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | AWKWARD_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Anything from noise to a request that is nearly right."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=60))
    turns = [{"role": "user", "content": draw(AWKWARD_TEXTS), "parts": [{"text": draw(AWKWARD_TEXTS)}]}]
    body: dict[str, Any] = {"model": draw(st.sampled_from(["comet-sim-1", "comet-sim-2-5"]) | AWKWARD_TEXTS)}
    body |= {"messages": turns, "input": turns, "contents": turns, "max_tokens": draw(st.integers(-1, 99))}
    return json.dumps(body | {draw(st.sampled_from([*body, "stream", "stop", "other"])): draw(JSON_VALUES)}).encode()


@settings(max_examples=100, deadline=None)
@given(body=bodies(), path=st.sampled_from([*(asked("x", wire=wire).path for wire in FORMATS), "/v1beta/models/%ff:x"]))
def test_any_body_gets_a_reply(body: bytes, path: str) -> None:
    """Whatever is sent, the service decides, identifies its reply, and counts it once."""
    service = Service(Behaviour(faults=(Fault("length", 0.3), Fault("503", 0.3))), lambda: 0.0)
    reply = service.reply(Incoming("POST", path, "", BEARER, body))
    assert reply.response.status in {200, 301, 400, 500, 503}
    assert reply.response.headers["x-cometapi-request-id"]
    told = json.loads(service.reply(Incoming("GET", "/simulator/ledger", "", {}, b"")).response.body)
    assert told["requests"] == 1
