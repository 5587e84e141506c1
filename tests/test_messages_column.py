"""A prompt whose messages are data: one column, in the shapes that data sets have, in four formats."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import JobError
from cometbatch.input.values import python_values
from cometbatch.prompt import content
from cometbatch.prompt.content import ContentError, messages_of
from cometbatch.prompt.conversation import Conversation, ConversationTemplate
from cometbatch.records import Failure, HttpRequest, ImagePart, Message, ModelRequest, Role, TextPart
from cometbatch.wire import FORMATS, format_for_path
from tests.workbench import FORMATS as FORMAT_NAMES
from tests.workbench import Workbench, carry_out, simulator

ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.lists(st.tuples(st.sampled_from(ROLES), TEXTS), min_size=1, max_size=6)
STRUCT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.string())]))
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "No lists."},
    {"role": "user", "content": 'Is it "late"?'},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Sure?"},
]


def said(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    """Roles and texts."""
    return [(message.role, message.text) for message in messages]


@settings(max_examples=40, deadline=None)
@given(turns=TURNS)
def test_every_way_to_store_messages_says_the_same(turns: list[tuple[Role, str]]) -> None:
    """JSON text, a list of structures, of maps, a structure of lists, parts, and ShareGPT's words: all are one."""
    listed = [{"role": role, "content": text} for role, text in turns]
    structs = pa.chunked_array([pa.array([listed], STRUCT)])  # Arrow gives each message a null for tool_calls
    maps = pa.array([[[*each.items()] for each in listed]], pa.list_(pa.map_(pa.string(), pa.string())))
    parts = [
        {"role": role, "content": [{"type": "text", "text": text, "image_url": None}, None]} for role, text in turns
    ]
    words = {"user": "human", "assistant": "gpt"}
    share = [{"from": words.get(role, role), "value": text} for role, text in turns]
    stored = [
        json.dumps(listed),
        python_values(structs)[0],
        python_values(pa.chunked_array([maps]))[0],
        {"role": [role for role, _ in turns], "content": [text for _, text in turns]},
        parts,
        share,
    ]
    for value in stored:
        assert said(messages_of(value)) == turns


REFUSED: list[tuple[object, str]] = [
    (None, "there are no messages"),
    ("", "expected JSON"),
    ("[]", "there are no messages"),
    ("[{'role': 'user'}]", "write it with json.dumps"),
    ('"Hi"', "expected a list of messages, found text"),
    ('{"a": 1}', "expected a list of messages, found a structure"),
    ([5], "[0]: expected role and content, found a number"),
    ([{"content": "x"}], "[0].role: is missing"),
    ([{"role": "usr", "content": "x"}], "[0].role: 'usr': expected user"),
    ([{"role": "user"}], "[0].content: is missing"),
    ([{"role": "user", "content": None}], "[0].content: is missing"),
    ([{"role": "user", "content": []}], "[0].content: expected text or a list of parts, found an empty list"),
    ([{"role": "user", "content": 5}], "[0].content: expected text or a list of parts, found a number"),
    ([{"role": "user", "content": [{"type": "text"}]}], "[0].content[0].text: expected text, found nothing"),
    ([{"role": "user", "content": ["a", {"type": "input_audio"}]}], "[0].content[1]: a part of type 'input_audio'"),
    ([{"role": "user", "content": [{"text": "a", "cache_control": {"type": "x"}}]}], "[0].content[0].cache_control"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}], "https://"),
    ([{"role": "user", "content": [{"type": "image"}]}], "[0].content[0]: expected one text or one image"),
    ([{"role": "user", "content": ["a", 5]}], "[0].content[1]: expected a part with text or an image, found a number"),
    (
        [{"role": "user", "content": [{"image": "a.png", "detail": "close"}]}],
        "[0].content[0].image: detail: expected one",
    ),
    ([{"role": "user", "content": {"type": "image", "base64": "%"}}], "[0].content.base64: this is no base64"),
    ([{"role": "tool", "content": "x"}], "[0].role: 'tool': answers of tools can't be sent"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"id": "1"}]}], "[1].tool_calls"),
]


@pytest.mark.parametrize(("value", "words"), REFUSED)
def test_what_can_not_be_sent_is_refused_with_its_place(value: object, words: str) -> None:
    """Nothing is left out silently, and nobody is left to guess where it stood."""
    with pytest.raises(ContentError) as caught:
        messages_of(value)
    assert words in str(caught.value)


def test_a_message_of_a_column_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is longer than any message may be is refused with its place, one of that length is sent."""
    monkeypatch.setattr(content, "MAX_MESSAGE_CHARACTERS", 5)
    assert said(messages_of([{"role": "user", "content": "a" * 5}])) == [("user", "a" * 5)]
    with pytest.raises(ContentError, match=r"^\[0\]\.content\[0\]\.text: a message may have "):
        messages_of([{"role": "user", "content": [{"type": "text", "text": "a" * 6}]}])


IMAGES: list[tuple[object, ImagePart]] = [
    ({"type": "image", "image": "a.png"}, ImagePart("a.png")),
    ({"image": {"bytes": b"BM", "path": "a.bmp"}, "detail": "low"}, ImagePart(b"BM", detail="low")),
    (
        {"type": "image_url", "image_url": {"url": "https://x/a", "detail": "high"}},
        ImagePart("https://x/a", detail="high"),
    ),
    ({"type": "image", "base64": "Qk0="}, ImagePart(b"BM")),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "Qk0="}}, ImagePart(b"BM")),
    ({"type": "image", "source": {"type": "url", "url": "https://x/a"}}, ImagePart("https://x/a")),
    ({"inlineData": {"mimeType": "image/bmp", "data": "Qk0="}}, ImagePart(b"BM")),
    ({"inline_data": [("mime_type", "image/bmp"), ("data", "Qk0=")]}, ImagePart(b"BM")),  # a map
]


@pytest.mark.parametrize(("part", "image"), IMAGES)
@pytest.mark.parametrize("is_alone", [False, True])
def test_an_image_is_found_in_every_shape_that_data_sets_have(part: object, image: ImagePart, is_alone: bool) -> None:
    """In a list of parts, and as the one part that a content is."""
    (message,) = messages_of([{"role": "user", "content": part if is_alone else [part]}])
    assert message.content == (image,)


KEYS = st.sampled_from(["role", "content", "type", "text", "image", "url", "source", "from", "name"])
LEAVES = st.none() | st.booleans() | st.integers() | TEXTS | st.sampled_from(ROLES) | st.binary(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner | st.tuples(inner, inner), max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_any_value_is_messages_or_a_reason(value: object) -> None:
    """No value of a cell raises anything else."""
    try:
        messages = messages_of(value)
    except ContentError:
        return
    assert all(message.content for message in messages)


def job_of(bench: Workbench, cells: list[Any], kind: pa.DataType | None = None, **sections: Any) -> cometbatch.Job:
    """A job over a table with a column of messages."""
    bench.write_table(pa.table({"chat": pa.array(cells, kind)}))
    plain: dict[str, Any] = {"input": {"id": None}, "prompt": {"system": None, "user": None, "messages_column": "chat"}}
    for name, section in sections.items():
        plain[name] = {**plain.get(name, {}), **section}
    return bench.job(**plain)


def first_messages(job: cometbatch.Job) -> list[tuple[str, str]]:
    """The messages of the first request, as the service reads them."""
    first = cometbatch.plan(job).first_request
    assert first is not None
    wire = format_for_path(first["url"])
    assert wire is not None
    read = wire.parse_request(HttpRequest(first["url"], {}, json.dumps(first["body"]).encode()))
    assert isinstance(read, ModelRequest)
    return said(read.prompt.messages)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_roles_are_those_of_the_format(bench: Workbench, name: str) -> None:
    """Formats that keep system messages apart get a developer's as one of these; the others get what was written."""
    job = job_of(bench, [CHAT], STRUCT, target={"format": name})
    apart = name in ("messages", "gemini")
    roles = ["system", "system" if apart else "developer", "user", "assistant", "user"]
    assert first_messages(job) == list(zip(roles, [each["content"] for each in CHAT], strict=True))


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_system_message_amid_others_fails_its_row_where_it_can_not_be_said(bench: Workbench, name: str) -> None:
    """It would change its meaning if it were moved to the front."""
    late = [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Stop."}, {"role": "user", "content": "?"}]
    planned = cometbatch.plan(job_of(bench, [late, CHAT], target={"format": name}))
    if FORMATS[name].name in ("chat", "responses"):
        assert planned.unrenderable == 0
    else:
        assert planned.unrenderable == 1
        assert planned.first_problem is not None
        assert f"chat[1]: the {name} format takes system messages only before all others" in planned.first_problem


def test_rows_without_messages_fail_unsent_and_the_others_are_answered(bench: Workbench) -> None:
    """A null, an empty list, a blank question and an answer without a question cost nothing; verify agrees."""
    user = [{"role": "user", "content": "Hi"}]
    blank = [{"role": "user", "content": " \n"}]
    alone = [{"role": "assistant", "content": "Hi"}]
    job = job_of(bench, [user, None, [], blank, alone, CHAT], STRUCT)
    network = simulator()
    summary = carry_out(job, network)
    assert (summary.tally.succeeded, summary.tally.failures) == (2, {"template": 4})
    assert network.posts == 2
    messages = bench.result().column("error_message").to_pylist()
    assert messages[0] is messages[5] is None
    assert messages[4] == "prompt.messages_column: chat: at least one message must have the role user"
    assert cometbatch.verify(job).ok


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("lines", [False, True])
def test_examples_come_after_the_system_messages_and_before_the_rest(bench: Workbench, name: str, lines: bool) -> None:
    """The job's system message, the row's, the examples of a file, then the row's own turns."""
    shots = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]
    text = "\n".join(map(json.dumps, shots)) if lines else json.dumps(shots)
    (bench.folder / "shots.json").write_text(text)
    prompt = {"system": "For {{ chat|length }}.", "few_shot": str(bench.folder / "shots.json")}
    row = [CHAT[0], CHAT[2]]
    job = job_of(bench, [row], target={"format": name}, prompt=prompt)
    assert first_messages(job) == [
        ("system", "For 2."), ("system", "Be brief."), ("user", "2+2"), ("assistant", "4"), ("user", 'Is it "late"?'),
    ]  # fmt: skip


def test_examples_are_part_of_the_job(bench: Workbench) -> None:
    """A run that has begun with other examples is not gone on with, and its description holds them."""
    path = bench.folder / "shots.jsonl"
    path.write_text('{"role":"user","content":"a"}\n{"role":"assistant","content":"b"}\n')
    job = job_of(bench, [CHAT], prompt={"few_shot": str(path)})
    carry_out(job, simulator())
    assert cometbatch.Job.from_description(job.describe()).conversation == job.conversation
    path.write_text('{"role":"user","content":"a"}\n{"role":"assistant","content":"c"}\n')
    with pytest.raises(cometbatch.UsageError, match=r"prompt.few_shot"):
        carry_out(job_of(bench, [CHAT], prompt={"few_shot": str(path)}), simulator())


BAD_EXAMPLES = [
    ("[]", "there are no messages"),
    ("x", ":1: no JSON"),
    ('{"role":"user","content":"a"}\n{"role"', ":2: no JSON"),
    ('[{"role":"system","content":"a"}]', "[0].role"),
    ('[{"role":"user","content":[{"image":"a.png"}]}]', "has no image"),
    ('[{"role":"user","content":"sk-aaaaaaaaaaaaaaaaaaaaaaa1"}]', "looks like a key"),
]


@pytest.mark.parametrize(("text", "words"), BAD_EXAMPLES)
def test_a_file_of_examples_that_is_wrong_is_refused(bench: Workbench, text: str, words: str) -> None:
    """Before anything is sent, with the file and the place in it, and never quoting what looks like a key."""
    (bench.folder / "shots.json").write_text(text)
    with pytest.raises(JobError) as caught:
        job_of(bench, [CHAT], prompt={"few_shot": str(bench.folder / "shots.json")})
    assert "prompt.few_shot" in str(caught.value)
    assert "shots.json" in str(caught.value)
    assert words in str(caught.value)
    assert "sk-aaaa" not in str(caught.value)


BAD_PROMPTS: list[tuple[dict[str, Any], str]] = [
    ({"user": "{{ chat }}"}, "prompt.user: can't be there beside prompt.messages_column"),
    ({"messages": [{"role": "user", "content": "x"}]}, "prompt.messages: can't be there beside prompt.messages_column"),
    ({"messages_column": None, "user": "x", "few_shot": "f"}, "prompt.few_shot: has a meaning only with"),
    ({"messages_column": None, "messages": "chat"}, "a column that holds them is prompt.messages_column"),
    ({"few_shot": "/nowhere/at/all"}, "prompt.few_shot: /nowhere/at/all: can't be read"),
]


@pytest.mark.parametrize(("prompt", "words"), BAD_PROMPTS)
def test_a_prompt_is_told_in_one_way(bench: Workbench, prompt: dict[str, Any], words: str) -> None:
    """What contradicts a column of messages is refused by its key."""
    with pytest.raises(JobError) as caught:
        job_of(bench, [CHAT], prompt=prompt)
    assert words in str(caught.value)


def test_a_column_that_is_not_there_is_told_before_anything_is_sent(bench: Workbench, tmp_path: Path) -> None:
    """With the key, and the column that was probably meant."""
    with pytest.raises(JobError, match=r"prompt.messages_column: no column 'chats' in the input, did you mean 'chat'"):
        cometbatch.plan(job_of(bench, [CHAT], prompt={"messages_column": "chats"}))


def test_a_conversation_that_ends_with_an_answer_is_told(bench: Workbench) -> None:
    """Training data has the answer in it: what would be paid for is a text after that."""
    job = job_of(bench, [CHAT, CHAT[:4]])
    words = "1 of 2 rows has an answer as last message (first: row 1); it is sent"
    assert any(words in each for each in cometbatch.plan(job).warnings)
    assert any(words in each for each in carry_out(job, simulator()).warnings)


def test_messages_that_a_template_prints_as_text_are_told(bench: Workbench) -> None:
    """Where the column's type shows what it holds."""
    job = job_of(bench, [CHAT], STRUCT, prompt={"messages_column": None, "user": "{{ chat }}"})
    assert any("prompt.messages_column sends them as messages" in each for each in cometbatch.plan(job).warnings)


def test_where_it_is_unused_the_job_says_no_more_than_before(bench: Workbench) -> None:
    """No key in the fingerprint, so that a run that was begun before goes on."""
    keys = bench.job().fingerprint()
    assert not [key for key in keys if "column" in key or "few_shot" in key or "images" in key]


def test_text_parts_of_a_message_stay_parts(bench: Workbench) -> None:
    """A content of several texts goes out as several."""
    (message,) = messages_of([{"role": "user", "content": ["a", {"type": "text", "text": "b"}]}])
    assert message.content == (TextPart("a"), TextPart("b"))


def test_a_row_whose_system_message_can_not_be_rendered_fails_with_its_reason() -> None:
    """The job's own message is never left out of a row's prompt: it stands before the row's, or the row fails."""
    template = ConversationTemplate(
        Conversation("chat"), [("system", "{{ 6 // n }}")], fit=lambda own: own, refuse_empty=False
    )
    chat = [{"role": "user", "content": "a"}]
    assert template.render({"chat": chat, "n": 2}) == (Message.of_text("system", "3"), Message.of_text("user", "a"))
    found = template.render({"chat": chat, "n": 0})
    assert isinstance(found, Failure)
    assert found.message.startswith("prompt message 1 (system), template line 1: ZeroDivisionError")
