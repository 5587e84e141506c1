"""A body that is sent once more: the model's answer and what is wrong with it come behind the turns that are there."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import HttpRequest, Message, ModelRequest, Prompt
from cometbatch.wire import FORMATS
from tests.wire.strategies import request_of

ANSWER, WORDS = Message.of_text("assistant", "Well: {\n"), Message.of_text("user", "No.\n- $: not JSON")
TEXTS = st.text(min_size=1)
ENDS = {
    "chat": b'{"role":"assistant","content":"Well: {\\n"},{"role":"user","content":"No.\\n- $: not JSON"}',
    "responses": b'{"role":"assistant","content":[{"type":"output_text","text":"Well: {\\n"}]},'
    b'{"role":"user","content":[{"type":"input_text","text":"No.\\n- $: not JSON"}]}',
    "messages": b'{"role":"assistant","content":"Well: {\\n"},{"role":"user","content":"No.\\n- $: not JSON"}',
    "gemini": b'{"role":"model","parts":[{"text":"Well: {\\n"}]},'
    b'{"role":"user","parts":[{"text":"No.\\n- $: not JSON"}]}',
}
KEYS = {"chat": "messages", "responses": "input", "messages": "messages", "gemini": "contents"}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None)
@given(said=st.lists(TEXTS, min_size=1, max_size=3), answer=TEXTS, words=TEXTS, has_system=st.booleans())
def test_a_server_reads_the_first_turns_then_the_new_ones(
    name: str, said: list[str], answer: str, words: str, *, has_system: bool
) -> None:
    """The server half sees the same question with two more messages, whatever their texts."""
    wire = FORMATS[name]
    roles = ["user", "assistant"] * 2
    first = [Message.of_text("system", "Be brief.")] if has_system else []
    turns = [*first, *(Message("user" if role == "user" else "assistant", Message.of_text("user", text).content)
                       for role, text in zip(roles, said, strict=False))]  # fmt: skip
    request = request_of(wire, "vendor-model", Prompt(tuple(turns)))
    more = Message.of_text("assistant", answer), Message.of_text("user", words)
    body = wire.with_turns(request.body, more)
    assert body is not None
    asked, was = (wire.parse_request(HttpRequest(request.path, request.headers, each)) for each in (body, request.body))
    assert isinstance(asked, ModelRequest)
    assert isinstance(was, ModelRequest)
    texts = [(message.role, message.text) for message in was.prompt.messages]
    due = [*texts, ("assistant", answer), ("user", words)]
    assert [(message.role, message.text) for message in asked.prompt.messages] == due
    assert asked.prompt.params == was.prompt.params


@pytest.mark.parametrize("name", FORMATS)
def test_a_body_that_nobody_here_made_stays_as_it_is(name: str) -> None:
    """Its own fields, numbers and turns go out byte for byte, in their order."""
    key = KEYS[name].encode()
    body = b'{"x":1.50,"big":12345678901234567890123,"%b":[{"odd":[1e3,"\\u00e9"]} , 7],"after":{"n":null}}' % key
    found = FORMATS[name].with_turns(body, (ANSWER, WORDS))
    assert found == (
        b'{"x":1.50,"big":12345678901234567890123,"%b":[{"odd":[1e3,"\\u00e9"]},7,%b],"after":{"n":null}}'
        % (key, ENDS[name])
    )


@pytest.mark.parametrize(
    ("name", "body", "turns"),
    [
        ("responses", b'{"input":"Why?"}', [b'{"role":"user","content":"Why?"}', ENDS["responses"]]),
        ("responses", b'{"prompt":{"id":"p"}}', [ENDS["responses"]]),
        ("gemini", b'{"contents":{"parts":[]}}', [b'{"parts":[]}', ENDS["gemini"]]),
    ],
)
def test_what_stands_without_a_list_becomes_the_first_turn(name: str, body: bytes, turns: list[bytes]) -> None:
    """A text is a user's turn; a body without any turn has just the new ones."""
    found = FORMATS[name].with_turns(body, (ANSWER, WORDS))
    assert found is not None
    fields = msgspec.json.decode(found, type=dict[str, msgspec.Raw])
    assert bytes(fields[KEYS[name]]) == b"[%b]" % b",".join(turns)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"%b":7}', b'{"%b":null}', b"\xff"])
def test_a_body_without_a_place_for_turns_is_not_asked_again(name: str, body: bytes) -> None:
    """There is nothing to show the model its answer in."""
    whole = body.replace(b"%b", KEYS[name].encode())
    assert FORMATS[name].with_turns(whole, (ANSWER, WORDS)) is None
