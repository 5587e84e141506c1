"""Frames: joined with a row's texts they are the body that `wire` makes, byte by byte."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cometbatch import wire
from cometbatch.job import Target, TargetSettings
from cometbatch.job.targets import Response
from cometbatch.prompt.instruction import instructed
from cometbatch.records import GenerationParams, HttpRequest, ImagePart, Message, Part, Role, TextPart
from cometbatch.reports.page.requests import (
    Frames,
    ImageShape,
    PartShape,
    Shape,
    added_span,
    request_frame,
    spaced,
    whole_frame,
)
from cometbatch.wire.images import by_reference
from cometbatch.wire.structured import with_part
from cometbatch.wire.whole_bodies import request_reader
from tests.page.joining import body_of, hash_of

FORMATS = ("chat", "responses", "messages", "gemini")
HOSTILE = (
    "",
    " \t\r\n",
    "\0\x01\x1f\x7f\x80\x9f",
    '"\\/\b\f',
    "</script><img onerror=alert(1)>",
    "\u2028\u2029\u202e\u200f\ufeff",
    "🙂\U0010ffff",
    "'; touch x; '",
    "$(touch x)`touch x`!%s",
    "slot0n0e",
    "slot0n",
    "slot1n2e\\u0000",
)
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
KINDS = {"chat": "image/png", "responses": "image/jpeg", "messages": "image/webp", "gemini": "image/heic"}
SERVICE = TargetSettings("chat", "m")


def image_of(shape: ImageShape, name: str) -> ImagePart:
    """An image of this shape, told apart by a name."""
    if shape.by == "digest":
        return ImagePart(b"", False, shape.detail, shape.media_type, hashlib.sha256(name.encode()).hexdigest())
    return ImagePart(name, shape.by == "address", shape.detail)


def slots_of_image(shape: ImageShape, part: ImagePart) -> list[str]:
    """The texts of its slots."""
    said = part.digest or str(part.source)
    return ["cat.png", said] if shape.has_name else [said]


@st.composite
def prompts(draw: st.DrawFn, format_name: str) -> tuple[Shape, tuple[Message, ...], tuple[str, ...]]:
    """A shape of prompt, messages of it, and the texts of its slots."""
    shapes: list[tuple[Role, tuple[PartShape, ...]]] = []
    messages: list[Message] = []
    texts: list[str] = []
    of_images: list[str] = []
    first: list[Role] = ["system"] * draw(st.integers(0, 3))
    roles = first + draw(st.lists(st.sampled_from(ROLES[1:]), min_size=1, max_size=4))
    for role in roles:
        shape: list[PartShape] = []
        parts: list[Part] = []
        for _ in range(draw(st.integers(1, 3))):
            kinds = ["same", "own", "image"] if role == "user" else ["same", "own"]
            kind = draw(st.sampled_from(kinds))
            if kind == "image":
                form = draw(images(format_name))
                part = image_of(form, draw(st.sampled_from(["cat.png", 'a "b".png', "ä/🙂.png"])))
                shape.append(form)
                parts.append(part)
                of_images += slots_of_image(form, part)
                continue
            text = draw(TEXTS)
            shape.append(text if kind == "same" else None)
            parts.append(TextPart(text))
            texts += [text] if kind == "own" else []
        shapes.append((role, tuple(shape)))
        messages.append(Message(role, tuple(parts)))
    return tuple(shapes), tuple(messages), spaced([*texts, *of_images])


def images(format_name: str) -> st.SearchStrategy[ImageShape]:
    """Images as a format takes them."""
    details = ["", "low"] if format_name in {"chat", "responses"} else [""]
    ways: list[Literal["address", "digest", "name"]] = ["digest", "name"]
    if format_name != "gemini":
        ways.append("address")
    return st.builds(
        lambda by, has_name, detail, is_unread: ImageShape(
            by,
            is_unread=is_unread and by == "name",
            has_name=has_name and by == "digest",
            detail=detail,
            media_type=KINDS[format_name] if by == "digest" else "",
        ),
        st.sampled_from(ways),
        st.booleans(),
        st.sampled_from(details),
        st.booleans(),
    )


EXTRAS: tuple[dict[str, Any], ...] = ({}, {"metadata": {"a": 'slot0n0e "b"', "c": [1, None]}}, {"stream": False})
RESPONSES = (
    Response(),
    Response(schema={"type": "object", "properties": {"a": {"type": "string"}}}),
    Response(schema={"type": "object", "properties": {"a": {"type": "string"}}}, mode="prompt"),
    Response(json=True, mode="json"),
    Response(schema={"type": "object", "properties": {"a": {"type": "string"}}}, mode="tool"),
)


@pytest.mark.parametrize("format_name", FORMATS)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_frame_joined_with_the_texts_is_the_body_of_wire(format_name: wire.FormatName, data: st.DataObject) -> None:
    """In the four formats, for any texts, roles, parts, images, schemas, parameters; and so is what is hashed."""
    response = data.draw(st.sampled_from(RESPONSES))
    if format_name == "messages" and response.mode == "json":
        response = Response()
    params = GenerationParams(
        max_output_tokens=data.draw(st.sampled_from([None, 64])),
        temperature=data.draw(st.sampled_from([None, 0.7])),
        stop=data.draw(st.sampled_from([(), ("slot0n0e", "END\n")])),
        extra=data.draw(st.sampled_from(EXTRAS)),
    )
    model = data.draw(st.sampled_from(["m", "a/b c", 'x"slot0n0e']))
    target = Target(format_name, model, (), params, response=response)
    build = builder(target)
    shape, messages, slots = data.draw(prompts(format_name))
    frame = request_frame(shape, build, wire.FORMATS[format_name].as_sent, target, SERVICE)
    again = msgspec.json.decode(msgspec.json.encode(frame))
    hashed = build(messages)
    sent = wire.FORMATS[format_name].as_sent(hashed)
    assert body_of(again, slots) == by_reference(sent.body)
    due = hashlib.sha256(f"{format_name}\n{model}\n".encode() + by_reference(hashed.body)).hexdigest()
    has_unread = any(isinstance(part, ImageShape) and part.is_unread for _, parts in shape for part in parts)
    assert hash_of(again, slots) == (None if has_unread else due)
    assert again["url"] == "https://api.cometapi.com" + sent.path
    assert again["images"] == any(
        isinstance(part, ImageShape) and part.by != "address" for _, parts in shape for part in parts
    )
    shown = [part for each in again["messages"] for part in each["parts"]]
    given_parts = [part for each in messages for part in each.content]
    assert [part.get("text", slots[part["slot"]] if "slot" in part else None) for part in shown] == [
        part.text if isinstance(part, TextPart) else None for part in given_parts
    ]


def builder(target: Target) -> Any:
    """How requests to a target are built, words about the answer's form included."""
    part = target.response.body_part(target.format)
    build = wire.FORMATS[target.format].request_builder(target.model, with_part(target.params, part))
    words = target.response.instruction
    return build if words is None else lambda messages: build(instructed(messages, words))


BODIES = (
    b'{"model":"m","messages":[{"role":"user","content":"a\\u0000\\ud83d\\ude00 \xe2\x80\xa8"}]}',
    b'{"model":"m", "stream" : true , "stream_options":{"a":1}, "messages":[]}',
    b'{"stream":false,"model":"m","messages":[]}',
    b'{"model":"m","messages":[],"stream":false}',
    b'{"model":"m","stream":null,"messages":[{"role":"user","content":"stream"}],"max_tokens":5}',
)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("params", [GenerationParams(), GenerationParams(max_output_tokens=9)])
def test_a_body_of_a_batch_file_is_joined_as_it_goes_out(body: bytes, params: GenerationParams) -> None:
    """Whatever is laid over it, and what its hash leaves out."""
    whole = request_reader("chat", "m", params)(body)
    begin, end = added_span(whole.http.body, whole.identity)
    is_split = whole.http.body != whole.identity
    cuts = (
        [whole.http.body[:begin], whole.http.body[begin:end], whole.http.body[end:]] if is_split else [whole.http.body]
    )
    slots = [cut.decode() for cut in cuts]
    pieces = (True, False, True) if is_split else (True,)
    target = Target("chat", "m", (), batch="openai")
    frame = whole_frame(pieces, whole.http, target, SERVICE, is_comparable=True)
    assert body_of(frame, slots) == whole.http.body
    assert hash_of(frame, slots) == hashlib.sha256(b"chat\nm\n" + whole.identity).hexdigest()


def test_a_page_lists_each_frame_once_and_so_many_at_most() -> None:
    """A further one, or one for which there is no room, stays with its row."""
    frames = Frames(most=2)
    first, second, third = ({"n": number} for number in range(3))
    assert [frames.place(each) for each in (first, dict(first), second)] == [0, 0, 1]
    assert frames.items == [first, second]
    assert frames.place(third) == third
    small = Frames(most_bytes=30)
    assert small.place({"text": "x" * 10}) == 0
    assert small.place({"text": "y" * 10}) == {"text": "y" * 10}
    assert len(small.items) == 1


def test_no_key_is_in_a_frame() -> None:
    """Headers of one's own name their variables, and the key is a variable's name."""
    service = TargetSettings("chat", "m", key_env="MY_KEY", headers={"x-team": "a ${TEAM} b", "x-plain": "it's"})
    target = Target("messages", "m", ())
    build = builder(target)
    frame = request_frame((("user", (None,)),), build, wire.FORMATS["messages"].as_sent, target, service)
    assert frame["auth"] == ["authorization", "Bearer ", "MY_KEY"]
    assert frame["headers"] == [
        ["x-team", "a ", {"env": "TEAM"}, " b"],
        ["x-plain", "it's"],
        ["content-type", "application/json"],
        ["anthropic-version", "2023-06-01"],
    ]


def test_a_simulated_run_shows_the_service_that_it_stands_for() -> None:
    """A line for curl leads to the real service."""
    service = TargetSettings("chat", "m", base_url="simulator")
    request = HttpRequest("/v1/chat/completions", {}, b"{}")
    frame = whole_frame((True,), request, Target("chat", "m", ()), service, is_comparable=True)
    assert frame["url"] == "https://api.cometapi.com/v1/chat/completions"


@given(texts=st.lists(TEXTS, max_size=4))
def test_slots_with_texts_stand_at_even_places(texts: Sequence[str]) -> None:
    """Between two of them is a spacer, which no body has."""
    assert list(spaced(texts)[::2]) == list(texts)
    assert set(spaced(texts)[1::2]) <= {"\n\n"}
