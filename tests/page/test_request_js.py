"""`request.js` in a browser: the bodies of `wire`, byte by byte, their hashes, and lines for a shell without harm."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cometbatch import wire
from cometbatch.job import Target, TargetSettings
from cometbatch.job.targets import Response
from cometbatch.records import GenerationParams, ImagePart, Message, TextPart
from cometbatch.reports.page import requests
from cometbatch.reports.page.requests import ImageShape, Shape, request_frame, spaced, whole_frame
from cometbatch.wire.images import by_reference
from cometbatch.wire.structured import with_part
from cometbatch.wire.whole_bodies import request_reader
from tests.page.browser import Opener

FORMATS: tuple[wire.FormatName, ...] = ("chat", "responses", "messages", "gemini")
CODE = (Path(requests.__file__).parent / "assets" / "request.js").read_text(encoding="utf-8")
HOSTILE = (
    "'; touch x; '",
    "$(touch x) ${HOME} $HOME",
    "`touch x`",
    "a\nb\r\n\tc",
    "\\ \\\\ \\' \\\"",
    "! !! !touch",
    "%s %0a %",
    "a\0b",
    "\u202e\u200f\u2066 rtl",
    '@file "quoted" --data @file',
    "</script><img src=x onerror=alert(1)>",
    "\u2028\u2029\x7f\x85",
    "🙂\U0010ffff ä 字",
    "",
    "#\n;|&><*?[]{}~ touch x &",
)
SERVICE = TargetSettings("chat", "m", headers={"x-team": "it's ${TEAM} `touch x` ${TEAM}", "x-plain": "a"})


@pytest.fixture
def code(browser_page: Opener, tmp_path: Path) -> Any:
    """Calls a function of request.js in a browser, without a page around it."""
    empty = tmp_path / "empty.html"
    empty.write_text("<!DOCTYPE html><meta charset=utf-8><title>empty</title>", encoding="utf-8")
    page = browser_page(empty)

    def call(name: str, *arguments: object) -> Any:
        return page.evaluate(f'(given) => {{ "use strict"; {CODE}\nreturn {name}(...given); }}', list(arguments))

    return call


def asked(format_name: wire.FormatName, texts: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...], bytes, str]:
    """A frame, slots, the body that is sent, and its hash: two system texts, several parts, an image, a schema."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    response = Response(schema=schema)
    params = GenerationParams(max_output_tokens=9, temperature=0.5, extra={"metadata": {"it's": '"$(touch x)"'}})
    target = Target(format_name, "m/it's", (), params, response=response)
    part = response.body_part(format_name)
    build = wire.FORMATS[format_name].request_builder(target.model, with_part(params, part))
    digest = hashlib.sha256(b"image").hexdigest()
    form = ImageShape("digest", has_name=True, media_type="image/png")
    shape: Shape = (
        ("system", ("It's constant.",)),
        ("system", (None,)),
        ("user", (None, "and", form)),
        ("assistant", (None,)),
        ("user", (None,)),
    )
    messages = (
        Message.of_text("system", "It's constant."),
        Message.of_text("system", texts[0]),
        Message("user", (TextPart(texts[1]), TextPart("and"), ImagePart(b"", False, "", "image/png", digest))),
        Message.of_text("assistant", texts[2]),
        Message.of_text("user", texts[3]),
    )
    frame = request_frame(shape, build, wire.FORMATS[format_name].as_sent, target, SERVICE)
    hashed = build(messages)
    sent = by_reference(wire.FORMATS[format_name].as_sent(hashed).body)
    start = f"{format_name}\n{target.model}\n".encode()
    return (
        frame,
        spaced([*texts, "cat.png", digest]),
        sent,
        hashlib.sha256(start + by_reference(hashed.body)).hexdigest(),
    )


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_browser_makes_the_body_that_was_sent(code: Any, format_name: wire.FormatName) -> None:
    """Byte by byte, for hostile texts in each place; and the hash that the row has."""
    for number in range(len(HOSTILE)):
        texts = [HOSTILE[(number + at) % len(HOSTILE)] for at in range(4)]
        frame, slots, sent, digest = asked(format_name, texts)
        assert code("requestBody", frame, slots).encode() == sent
        assert code("requestHash", frame, slots) == digest


def test_every_character_is_escaped_as_wire_does(code: Any) -> None:
    """All of Unicode but surrogates, of which no prompt has any."""
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    for begin in range(0, len(every), 300_000):
        texts = [every[begin : begin + 300_000], "", "", ""]
        frame, slots, sent, digest = asked("chat", texts)
        assert code("requestBody", frame, slots).encode() == sent
        assert code("requestHash", frame, slots) == digest


def test_the_drawer_gets_messages_with_their_texts_and_images(code: Any) -> None:
    """Role by role, in order; an image by its name."""
    frame, slots, _, _ = asked("chat", ["s", "u", "a", "v"])
    assert code("requestParts", frame, slots) == [
        {"role": "system", "parts": [{"text": "It's constant."}]},
        {"role": "system", "parts": [{"text": "s"}]},
        {
            "role": "user",
            "parts": [{"text": "u"}, {"text": "and"}, {"image": "cat.png", "kind": "image/png", "detail": ""}],
        },
        {"role": "assistant", "parts": [{"text": "a"}]},
        {"role": "user", "parts": [{"text": "v"}]},
    ]


BODIES: Mapping[wire.FormatName, dict[str, Any]] = {
    "chat": {
        "model": "m",
        "stream": False,
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "u"},
                    {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}},
                ],
            },
        ],
    },
    "responses": {
        "model": "m",
        "instructions": "s",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "u"},
                    {"type": "input_image", "image_url": "https://example.test/a.png"},
                ],
            }
        ],
    },
    "messages": {
        "model": "m",
        "system": "s",
        "max_tokens": 5,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "u"},
                    {"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}},
                ],
            }
        ],
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [{"role": "user", "parts": [{"text": "u"}, {"inlineData": {"mimeType": "i", "data": "AAAA"}}]}],
    },
}


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_whole_body_of_the_input_is_read_for_its_messages(code: Any, format_name: wire.FormatName) -> None:
    """In the words of each format; its body stays as it is, and its hash leaves `stream` out."""
    whole = request_reader(format_name, "m", GenerationParams())(json.dumps(BODIES[format_name]).encode())
    body, identity = whole.http.body, whole.identity
    begin, end = requests.added_span(body, identity)
    cuts, pieces = [body], [True]
    if body != identity:
        cuts, pieces = [body[:begin], body[begin:end], body[end:]], [True, False, True]
    slots = [cut.decode() for cut in cuts]
    frame = whole_frame(pieces, whole.http, Target(format_name, "m", (), batch="openai"), SERVICE, is_comparable=True)
    assert code("requestBody", frame, slots).encode() == body
    due = hashlib.sha256(f"{format_name}\nm\n".encode() + identity).hexdigest()
    assert code("requestHash", frame, slots) == due
    image = "an image in the body" if format_name == "gemini" else "https://example.test/a.png"
    assert code("requestParts", frame, slots) == [
        {"role": "system", "parts": [{"text": "s"}]},
        {"role": "user", "parts": [{"text": "u"}, {"image": image, "kind": "", "detail": ""}]},
    ]
    cut = [slots[0][:20]]
    alone = whole_frame([True], whole.http, Target(format_name, "m", (), batch="openai"), SERVICE, is_comparable=True)
    assert code("requestParts", alone, cut) == [{"role": "request", "parts": [{"text": cut[0]}]}]


def test_what_the_page_holds_of_a_prompt_becomes_its_slots(code: Any) -> None:
    """The lengths say where each ends; of a prompt that was cut there is no body, and the reason is said."""
    frame, slots, _, _ = asked("chat", ["🙂s", "u", "", "v"])
    whole = "".join(slots)
    lengths = [len(slot.encode("utf-16-le")) // 2 for slot in slots]
    prompt = {"text": whole, "length": sum(lengths), "isCut": False}
    assert code("promptSlots", frame, prompt, {"slots": lengths}) == {"slots": list(slots), "why": ""}
    cut = code("promptSlots", frame, prompt | {"text": whole[:3], "isCut": True}, {"slots": lengths})
    assert cut["why"].startswith("The page holds the beginning of this prompt only")
    assert code("requestParts", frame, cut["slots"])[1]["parts"] == [{"text": "🙂s"}]
    one = frame | {"body": ["{", 0, "}"]}
    assert code("promptSlots", one, {"text": "ab", "length": 2, "isCut": False}, None) == {"slots": ["ab"], "why": ""}
    constant = frame | {"body": ["{}"]}
    assert code("promptSlots", constant, None, None) == {"slots": [], "why": ""}
    assert code("promptSlots", None, None, {"why": "The input is gone."}) == {"slots": [], "why": "The input is gone."}


def test_the_page_says_whether_a_request_is_the_one_that_was_sent(code: Any) -> None:
    """By the beginning of its hash; and why that can't be told."""
    frame, slots, _, digest = asked("messages", ["a", "b", "c", "d"])
    said = {
        "same": code("requestVerdict", frame, slots, digest[:16], ""),
        "differs": code("requestVerdict", frame, slots, "0" * 16, ""),
        "unsent": code("requestVerdict", frame, slots, None, ""),
        "unknown": code("requestVerdict", frame | {"hash": None}, slots, digest[:16], ""),
    }
    assert {name: each["is"] for name, each in said.items()} == {name: name for name in said}
    assert said["same"]["words"].startswith("Rendered again; it is the request that was sent. The page holds no images")
    plain = code("requestVerdict", frame | {"images": False}, slots, digest[:16], "")
    assert plain == {"is": "same", "words": "Rendered again; it is the request that was sent."}
    assert code("requestVerdict", frame, [], digest[:16], "It is cut.") == {"is": "unknown", "words": "It is cut."}


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_curl_line_of_a_hostile_prompt_does_nothing_else(
    code: Any, format_name: wire.FormatName, tmp_path: Path
) -> None:
    """Run by sh in an empty folder, it calls curl once, with the very body, and leaves nothing behind."""
    tools, empty, record = tmp_path / "tools", tmp_path / "folder", tmp_path / "record"
    tools.mkdir()
    empty.mkdir()
    stub = tools / "curl"
    stub.write_text('#!/bin/sh\nfor each; do printf "%s\\0" "$each"; done >> "$RECORD"\nprintf "\\0" >> "$RECORD"\n')
    stub.chmod(0o755)
    environment = {
        "PATH": f"{tools}{os.pathsep}/usr/bin:/bin",
        "RECORD": str(record),
        "COMETAPI_KEY": "the key; touch x",
        "TEAM": "red $(touch x) team",
        "HOME": str(empty),
    }
    for number in range(len(HOSTILE)):
        texts = [HOSTILE[(number + at) % len(HOSTILE)] for at in range(4)]
        texts = [text for text in texts if "\x7f" not in text] + ["", "", "", ""]
        frame, slots, sent, _ = asked(format_name, texts[:4])
        line = code("curlCommand", frame, slots)
        assert not {"\n", "\0"} & set(line)
        record.unlink(missing_ok=True)
        subprocess.run(["/bin/sh", "-c", line], cwd=empty, env=environment, check=True, capture_output=True, timeout=30)
        arguments = record.read_bytes().split(b"\0\0")[0].split(b"\0")
        assert arguments[0] == frame["url"].encode()
        assert arguments[arguments.index(b"--data-raw") + 1] == sent
        headers = [arguments[at + 1].decode() for at, word in enumerate(arguments[:-2]) if word == b"-H"]
        assert headers[0] == "x-team: it's red $(touch x) team `touch x` red $(touch x) team"
        assert "content-type: application/json" in headers
        assert headers[-1] == "authorization: Bearer the key; touch x"
        assert record.read_bytes().count(b"\0\0") == 1
        assert not list(empty.iterdir())


def test_only_a_variables_name_stands_outside_single_quotes(code: Any) -> None:
    """A page of another make may name what is no variable: then it is text. An address is never a pattern for curl."""
    frame, slots, _, _ = asked("chat", ["a", "b", "c", "d"])
    frame |= {
        "auth": ["authorization", "Bearer ", 'X"; touch x; "'],
        "headers": [["x-team", {"env": "X`touch x`"}]],
        "url": "https://example.com/[1-9]/v1",
    }
    line = code("curlCommand", frame, slots)
    assert line.startswith("curl --globoff 'https://example.com/[1-9]/v1' -H 'x-team: X`touch x`' ")
    assert """-H 'authorization: Bearer X"; touch x; "' --data-raw '""" in line


def test_a_line_to_paste_holds_no_control_that_a_terminal_obeys(code: Any) -> None:
    """A DEL would delete what stands before it, quotes included. The JSON says the same with an escape in its place."""
    frame, slots, sent, _ = asked("chat", ["a\x7f\x7f'; touch x; '", "\x9b31m", "", ""])
    line = code("curlCommand", frame, slots)
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)
    body = line.partition(" --data-raw ")[2][1:-1].replace("'\\''", "'")
    assert body.encode() != sent
    assert json.loads(body) == json.loads(sent)
    whole = whole_frame(
        [True],
        request_reader("chat", "m", GenerationParams())(b'{"model":"m",\t"messages": []\r}').http,
        Target("chat", "m", (), batch="openai"),
        SERVICE,
        is_comparable=True,
    )
    assert '\'{"model":"m", "messages": [] }\'' in code("curlCommand", whole, ['{"model":"m",\t"messages": []\r}'])
