"""Images in prompts: told by their bytes, read from below one folder alone, sent as each format takes them."""

import base64
import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import JobError
from cometbatch.input.image_files import ImageFileError, ImageFolder
from cometbatch.prompt.content import MAX_ADDRESS_CHARACTERS, ContentError, image_of, media_type_of
from cometbatch.prompt.template import compile_prompt
from cometbatch.records import Failure, GenerationParams, HttpRequest, ImagePart, Message, ModelRequest, TextPart
from cometbatch.wire import FORMATS, FormatName, WireFormat
from cometbatch.wire.images import Loaded, by_reference, filled
from tests import virtual_time
from tests.images import HEADS, data_url, digest, image
from tests.workbench import FORMATS as FORMAT_NAMES
from tests.workbench import Network, Workbench, carry_out, simulator

every_format = pytest.mark.parametrize("wire", FORMATS.values(), ids=lambda wire: wire.name)
PARTS = [{"text": "What is {{ note }}?"}, {"image": "{{ photo }}"}]
PNG = image()
ADDRESS = "https://pictures.test/a/b.png?size=2"


def known(data: bytes, kind: str = "png", **more: Any) -> ImagePart:
    """An image of which all is known."""
    return ImagePart(data, media_type=f"image/{kind}", digest=hashlib.sha256(data).hexdigest(), size=len(data), **more)


def built(wire: WireFormat, *parts: TextPart | ImagePart) -> HttpRequest:
    """The request of a user's message with these parts, as it leaves."""
    return wire.as_sent(wire.request_builder("m", GenerationParams(max_output_tokens=9))([Message("user", parts)]))


def whole(request: HttpRequest, *images: ImagePart) -> HttpRequest:
    """The same with the bytes of its images."""
    assert all(isinstance(each.source, bytes) for each in images)
    return filled(request, {each.reference: Loaded(each.media_type, bytes(each.source)) for each in images})  # type: ignore[arg-type]


def content_of(wire: WireFormat, request: HttpRequest) -> list[Any]:
    """The parts of the one message in a request's body."""
    body = json.loads(request.body)
    message = body["input" if wire.name == "responses" else "contents" if wire.name == "gemini" else "messages"][0]
    return list(message["parts" if wire.name == "gemini" else "content"])


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize("kind", HEADS)
def test_the_first_bytes_tell_the_kind(kind: str) -> None:
    """Whatever the file is called."""
    assert media_type_of(image(kind)) == f"image/{kind}"


@pytest.mark.parametrize(
    "data", [b"", b"\x89PN", b"<svg>", b"%PDF-1.7", b"RIFF\x00\x00\x00\x00WAVE", b"GIF90a", b"PNG"]
)
def test_other_bytes_are_no_image(data: bytes) -> None:
    """A page, a document, a sound or half of a mark is none."""
    assert media_type_of(data) is None


SOURCES: list[tuple[object, str | bytes]] = [
    (PNG, PNG),
    ("photos/a.png", "photos/a.png"),
    (ADDRESS, ADDRESS),
    ("HTTPS://Pictures.test/a", "HTTPS://Pictures.test/a"),
    (data_url(PNG), PNG),
    (data_url(PNG).replace(",", ",\n "), PNG),
    ({"bytes": PNG, "path": "x.png"}, PNG),
    ({"bytes": None, "path": "x.png"}, "x.png"),
    (image("gif", 8).decode(), image("gif", 8)),  # bytes that happen to be text
]


@pytest.mark.parametrize(("value", "source"), SOURCES)
def test_a_value_is_bytes_an_address_or_a_path(value: object, source: str | bytes) -> None:
    """Also in a structure of both, as data sets store images, and as a data: URL."""
    assert image_of(value).source == source


NO_IMAGES: list[tuple[object, str]] = [
    (None, "there is no image"),
    ("", "there is no image"),
    (b"", "there is no image"),
    (7, "this is no image"),
    ({"bytes": None}, "this is no image"),
    ("http://pictures.test/a.png?key=word", "must begin with https://, found 'http://'"),
    ("file:///etc/passwd", "must begin with https://"),
    ("ftp://a/b", "must begin with https://"),
    ("https://", "no address of an image"),
    ("https://a b/c", "no address of an image"),
    ("https://me:word@pictures.test/a", "holds a user name or password"),
    ("data:image/png;base64,%%%", "no base64"),
    ("data:image/png,abc", "must be in base64"),
    ("https://" + "a" * MAX_ADDRESS_CHARACTERS, "the address of an image may have 8,192 characters"),
]


@pytest.mark.parametrize(("value", "words"), NO_IMAGES)
def test_what_can_be_no_image_is_refused(value: object, words: str) -> None:
    """In words, before anything is looked for."""
    with pytest.raises(ContentError) as caught:
        image_of(value)
    assert words in str(caught.value)


def test_an_image_template_gives_the_value_of_its_expression() -> None:
    """Bytes stay bytes where the template is one expression; with text around it, it is a path."""
    parts = [("image", "{{ photo }}", ""), ("image", " {{ row['photo'] }}\n", "low"), ("image", "{{ s.bytes }}", ""),
             ("image", "dir/{{ name }}.png\n", "")]  # fmt: skip
    template = compile_prompt([("user", parts)])  # type: ignore[list-item]
    (message,) = template.render({"photo": PNG, "s": {"bytes": b"\xff\xd8\xff"}, "name": "a"})  # type: ignore[misc]
    assert [part.source for part in message.content if isinstance(part, ImagePart)] == [
        PNG,
        PNG,
        b"\xff\xd8\xff",
        "dir/a.png",
    ]


@pytest.mark.parametrize(
    ("source", "row", "words"),
    [
        ("{{ photo }}", {"photo": 7}, "this is no image: expected a path, an https:// address or bytes"),
        ("{{ s.photo }}", {"s": {"bytes": PNG}}, "'dict object' has no attribute 'photo'"),
        ("{{ row.photo }}", {"photo": None}, "there is no image: the value is empty"),
        ("{{ a / b }}", {"a": 1, "b": 0}, "ZeroDivisionError: division by zero"),
        ("http://pictures.test/{{ photo }}", {"photo": "a"}, "the address of an image must begin with https://"),
    ],
)
def test_a_value_that_is_no_image_fails_its_row_with_the_part_named(
    source: str, row: dict[str, object], words: str
) -> None:
    """Nothing is left out of a message silently: the row fails, and says which part of which message it was."""
    found = compile_prompt([("system", "Look."), ("user", [("text", "a", ""), ("image", source, "")])]).render(row)
    assert isinstance(found, Failure)
    assert found.kind == "template"
    assert re.match(r"prompt message 2 \(user\)(, template line 1)?, part 2: ", found.message)
    assert words in found.message


# ---------------------------------------------------------------- requests


EXACT = {
    "chat": {"type": "image_url", "image_url": {"url": data_url(PNG)}},
    "responses": {"type": "input_image", "image_url": data_url(PNG), "detail": "auto"},
    "messages": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()},
    },
    "gemini": {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}},
}
LINKED = {
    "chat": {"type": "image_url", "image_url": {"url": ADDRESS, "detail": "low"}},
    "responses": {"type": "input_image", "image_url": ADDRESS, "detail": "low"},
    "messages": {"type": "image", "source": {"type": "url", "url": ADDRESS}},
}


@every_format
def test_the_part_of_an_image_is_this(wire: WireFormat) -> None:
    """Bytes in base64, or the address as it stands, in each format's own form."""
    request = whole(built(wire, TextPart("a"), known(PNG)), known(PNG))
    assert content_of(wire, request)[1] == EXACT[wire.name]
    if wire.name in LINKED:
        detail = "low" if wire.name in ("chat", "responses") else ""
        linked = ImagePart(ADDRESS, is_linked=True, detail=detail)
        assert content_of(wire, built(wire, TextPart("a"), linked))[1] == LINKED[wire.name]


@every_format
def test_an_image_that_is_fetched_is_sent_like_any_other(wire: WireFormat) -> None:
    """Its kind is known only then; the request names the address until it is."""
    part = ImagePart(ADDRESS)
    request = built(wire, TextPart("a"), part)
    assert ADDRESS.encode() in by_reference(request.body)
    fetched = filled(request, {part.reference: Loaded("image/png", PNG)})
    assert content_of(wire, fetched)[1] == EXACT[wire.name]


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("address", [ADDRESS, "http://pictures.test/a.png", "ftp://pictures.test/a.png", "a.png"])
def test_the_server_half_reads_the_address_of_an_image(name: FormatName, address: str) -> None:
    """As it stands; what is no address of the web is a client's mistake."""
    read = FORMATS[name].parse_request(built(FORMATS[name], TextPart("a"), ImagePart(address, is_linked=True)))
    if isinstance(read, ModelRequest):
        assert read.prompt.messages[0].content[1] == ImagePart(address, is_linked=True)
    else:
        assert (read.status, "an image must be an address" in read.message) == (400, True)
    assert isinstance(read, ModelRequest) == address.startswith("http")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just(digest(PNG)) | st.just("\xff")
CONTENTS = st.lists(TEXTS.map(TextPart) | st.integers(0, 3).map(lambda seed: known(image(seed=seed))), min_size=1,
                    max_size=5)  # fmt: skip


@every_format
@settings(max_examples=40, deadline=None)
@given(content=CONTENTS)
def test_the_server_half_reads_the_images_that_the_client_half_wrote(
    wire: WireFormat, content: list[TextPart | ImagePart]
) -> None:
    """Texts and images in order, the bytes of each to the last; no text of a prompt is taken for an image's mark."""
    images = [part for part in content if isinstance(part, ImagePart)]
    read = wire.parse_request(whole(built(wire, *content), *images))
    assert isinstance(read, ModelRequest)
    (message,) = read.prompt.messages
    assert [part.text or part.reference if isinstance(part, ImagePart) else part.text for part in message.content] == [
        part.reference if isinstance(part, ImagePart) else part.text for part in content
    ]


@every_format
def test_a_request_is_identified_by_the_digests_of_its_images(wire: WireFormat) -> None:
    """The identity is the body with `sha256:` and the digest in place of base64, whatever the image's name."""
    request = built(wire, TextPart("a"), known(PNG))
    expected = whole(request, known(PNG)).body.replace(base64.b64encode(PNG), digest(PNG).encode())
    assert by_reference(request.body) == expected


@every_format
def test_a_request_hash_is_over_this(bench: Workbench, wire: WireFormat) -> None:
    """A SHA-256 over format, model and body, the last with the digest of the image: the same tomorrow as today."""
    job = job_of(bench, [PNG], target={"format": wire.name}, params={"max_output_tokens": 9})
    carry_out(job, simulator())
    reference = digest(PNG)
    bodies = {
        "chat": '{"model":"comet-sim-1","messages":[{"role":"user","content":[{"type":"text","text":"What is row 0?"},'
        f'{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{reference}"}}}}]}}],'
        '"max_completion_tokens":9}',
        "responses": '{"model":"comet-sim-1","input":[{"role":"user","content":[{"type":"input_text",'
        f'"text":"What is row 0?"}},{{"type":"input_image","image_url":"data:image/png;base64,{reference}",'
        '"detail":"auto"}]}],"max_output_tokens":9}',
        "messages": '{"model":"comet-sim-1","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text",'
        '"text":"What is row 0?"},{"type":"image","source":{"type":"base64","media_type":"image/png",'
        f'"data":"{reference}"}}}}]}}]}}',
        "gemini": '{"contents":[{"role":"user","parts":[{"text":"What is row 0?"},{"inlineData":'
        '{"mimeType":"image/png",'
        f'"data":"{reference}"}}}}]}}],"generationConfig":{{"maxOutputTokens":9}}}}',
    }
    said = f"{wire.name}\ncomet-sim-1\n{bodies[wire.name]}"
    assert bench.result().column("request_hash").to_pylist() == [hashlib.sha256(said.encode()).hexdigest()]


@every_format
@pytest.mark.parametrize("damage", ["kind", "base64", "none"])
def test_a_service_refuses_an_image_that_it_can_not_read(wire: WireFormat, damage: str) -> None:
    """Of another kind than it says, of no kind, or no base64."""
    body = whole(built(wire, TextPart("a"), known(PNG)), known(PNG)).body
    code = base64.b64encode(PNG)
    other = {
        "kind": body.replace(b"image/png", b"image/gif"),
        "base64": body.replace(code, b"%" + code),
        "none": body.replace(code, base64.b64encode(b"<svg>")),
    }
    read = wire.parse_request(HttpRequest(built(wire, TextPart("a")).path, {}, other[damage]))
    assert not isinstance(read, ModelRequest)
    assert read.status == 400


# ---------------------------------------------------------------- files


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of images, `in`, with ways out of it."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(image(seed=9))
    (tmp_path / "in/a.png").write_bytes(PNG)
    (tmp_path / "in/sub/b.png").write_bytes(PNG)
    (tmp_path / "in/inner").symlink_to("sub/b.png")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in/up").symlink_to(tmp_path)
    (tmp_path / "in/loop").symlink_to("loop")
    (tmp_path / "in/zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "in/pipe")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "in/socket"))
    return tmp_path


INSIDE = ["a.png", "./a.png", "sub/../a.png", "sub/b.png", "inner", "{root}/a.png", "../in/a.png"]
WAYS_OUT = [
    ("../secret.png", "lies outside"), ("{root}/../secret.png", "lies outside"), ("/etc/passwd", "lies outside"),
    ("link.png", "lies outside"), ("up/secret.png", "lies outside"), ("up/in/../secret.png", "lies outside"),
    ("sub/../../secret.png", "lies outside"), ("../pipe", "lies outside"), ("zero", "lies outside"),
    ("/dev/zero", "lies outside"), ("..", "lies outside"), (".", "lies outside"), ("/", "lies outside"),
    ("../in-other/a.png", "lies outside"), ("pipe", "not a regular file"), ("socket", "not a regular file"),
    ("sub", "not a regular file"), ("loop", "not a regular file"), ("none.png", "is not there"),
    ("a.png/b.png", "can't be read"), ("a\0.png", "no possible file name"), ("\ud800.png", "no possible file name"),
    ("x" * 5000, "before an image in base64 write"), ("~/a.png", "is not there"),
]  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_a_file_below_the_folder_is_read(outside: Path, name: str) -> None:
    """By whatever name leads to it, links within the folder included."""
    assert ImageFolder(outside / "in", 100).read(name.format(root=outside / "in")) == PNG


@pytest.mark.parametrize(("name", "words"), WAYS_OUT)
def test_no_name_leads_out_of_the_folder(outside: Path, name: str, words: str) -> None:
    """Nothing outside is opened, no pipe is waited for, and no device is read."""
    with pytest.raises(ImageFileError, match=words):
        ImageFolder(outside / "in", 100).read(name.format(root=outside / "in"))


def test_the_folder_itself_may_be_reached_by_a_link(outside: Path) -> None:
    """What counts is where it is."""
    (outside / "alias").symlink_to("in")
    assert ImageFolder(outside / "alias", 100).read("a.png") == PNG


@pytest.mark.parametrize("swapped", ["a.png", "sub"])
def test_what_takes_a_files_place_after_it_was_looked_at_is_not_followed(
    outside: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """A link that is put in place of a file, or of a folder on the way, between look and open leads nowhere."""
    seen = os.path.realpath

    def then_swap(path: Any) -> str:
        found = str(seen(path))
        if os.fspath(path).endswith(("a.png", "b.png")):
            (outside / "in" / swapped).rename(outside / "moved")
            (outside / "in" / swapped).symlink_to(outside / ("secret.png" if swapped == "a.png" else "moved"))
        return found

    folder = ImageFolder(outside / "in", 100)
    monkeypatch.setattr(os.path, "realpath", then_swap)
    with pytest.raises(ImageFileError):
        folder.read("a.png" if swapped == "a.png" else "sub/b.png")


@pytest.mark.parametrize(("size", "is_read"), [(0, True), (99, True), (100, True), (101, False), (10_000, False)])
def test_a_file_has_a_bound(tmp_path: Path, size: int, is_read: bool) -> None:
    """By the open file's own size; nothing of a larger one is read."""
    (tmp_path / "a").write_bytes(bytes(size))
    folder = ImageFolder(tmp_path, 100)
    if is_read:
        assert folder.read("a") == bytes(size)
    else:
        with pytest.raises(ImageFileError, match=r"an image may have 100 \(prompt.images.max_bytes\)"):
            folder.read("a")


# ---------------------------------------------------------------- runs


def job_of(bench: Workbench, photos: list[Any], parts: list[Any] | None = None, **sections: Any) -> cometbatch.Job:
    """A job over a table with a column of images."""
    notes = [f"row {row}" for row in range(len(photos))]
    bench.write_table(pa.table({"note": notes, "photo": photos}))
    prompt = {
        "system": None,
        "user": None,
        "messages": [{"role": "user", "content": PARTS if parts is None else parts}],
    }
    plain: dict[str, Any] = {"input": {"id": None}, "prompt": prompt, "params": {"max_output_tokens": 500}}
    for name, section in sections.items():
        plain[name] = {**plain.get(name, {}), **section}
    return bench.job(**plain)


def write_images(folder: Path, kinds: Mapping[str, bytes]) -> None:
    """Files of images."""
    for name, data in kinds.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_the_service_gets_the_bytes_of_files_and_of_cells_alike(bench: Workbench, name: str) -> None:
    """The simulator answers with the digest of what came; the request is the same wherever the bytes were."""
    images = [image("jpeg", 3000, seed) for seed in range(3)]
    write_images(bench.folder, {f"photos/{seed}.png": data for seed, data in enumerate(images)})
    hashes = []
    for photos in ([f"photos/{seed}.png" for seed in range(3)], images, [data_url(each) for each in images]):
        job = job_of(bench, photos, target={"format": name})
        network = simulator()
        assert carry_out(job, network, fresh=True).all_succeeded
        assert len(network.requests[-1].content) > 4000
        table = bench.result()
        for data, answer in zip(images, table.column("response").to_pylist(), strict=True):
            assert digest(data) in answer
        hashes.append(table.column("request_hash").to_pylist())
        assert cometbatch.verify(job).ok
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes[0])) == 3


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_images_in_a_column_of_messages_are_sent_too(bench: Workbench, name: str) -> None:
    """In the parts that data sets have, by the same rules."""
    write_images(bench.folder, {"a.png": PNG})
    cells = [
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "image": "a.png"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(PNG)}}]}],
        [{"role": "user", "content": [{"type": "image", "image": "../a.png"}]}],
        [{"role": "assistant", "content": [{"image": "a.png"}]}, {"role": "user", "content": "x"}],
    ]
    bench.write_table(pa.table({"chat": list(map(json.dumps, cells))}))
    prompt = {"system": None, "user": None, "messages_column": "chat"}
    job = bench.job(input={"id": None}, prompt=prompt, target={"format": name}, params={"max_output_tokens": 500})
    summary = carry_out(job, simulator())
    assert (summary.tally.succeeded, summary.tally.failures) == (2, {"template": 2})
    assert all(digest(PNG) in answer for answer in bench.result().column("response").to_pylist()[:2])
    assert "a message of assistant can't have an image" in bench.result().column("error_message").to_pylist()[3]


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_how_closely_to_look_is_said_or_its_row_fails(bench: Workbench, name: str) -> None:
    """`detail` in a column of messages is OpenAI's; in another format it is never left out silently."""
    part = {"type": "image_url", "image_url": {"url": data_url(PNG), "detail": "low"}}
    bench.write_table(pa.table({"chat": [json.dumps([{"role": "user", "content": [part]}])]}))
    prompt = {"system": None, "user": None, "messages_column": "chat"}
    job = bench.job(input={"id": None}, prompt=prompt, target={"format": name}, params={"max_output_tokens": 500})
    network = simulator()
    is_openai = name in ("chat", "responses")
    assert carry_out(job, network).tally.failures == ({} if is_openai else {"template": 1})
    if is_openai:
        assert b'"detail":"low"' in network.requests[-1].content
    else:
        words = f"the {name} format can't say how closely to look at an image (detail)"
        assert words in bench.result().column("error_message").to_pylist()[0]
        assert network.posts == 0


def test_an_address_goes_out_as_it_stands(bench: Workbench) -> None:
    """Nothing is fetched, and the request's identity has the address."""
    network = simulator()
    assert carry_out(job_of(bench, [ADDRESS]), network).all_succeeded
    assert ADDRESS.encode() in network.requests[-1].content
    assert ADDRESS in bench.result().column("response").to_pylist()[0]


FORMAT_REFUSES = [
    ("gemini", ADDRESS, "takes no address of an image: set prompt.images.fetch: true, or use the chat format"),
    ("gemini", image("gif"), "takes images of the kinds png, jpeg, webp, heic, heif, and this is gif"),
    ("chat", image("heic"), "and this is heic"),
    ("responses", image("bmp"), "and this is bmp"),
    ("messages", image("bmp"), "and this is bmp"),
    ("chat", b"\xff<svg></svg>", "is no image of a known kind"),
    ("chat", image(size=5_000_001), "has 5,000,001 bytes, and an image may have 5,000,000 (prompt.images.max_bytes)"),
    ("chat", "none.png", "the image 'none.png' is not there, below the folder of images"),
]


@pytest.mark.parametrize(("name", "photo", "words"), FORMAT_REFUSES, ids=lambda value: str(value)[:20])
def test_what_a_format_can_not_take_fails_its_row_and_plan_says_so(
    bench: Workbench, name: str, photo: str | bytes, words: str
) -> None:
    """Unsent and unpaid; the plan counts it and names the place."""
    job = job_of(bench, [photo], target={"format": name})
    planned = cometbatch.plan(job)
    assert planned.unrenderable == 1
    assert planned.first_problem is not None
    assert planned.first_problem.startswith("row 0: prompt message 1 (user), part 2: the image")
    assert words in planned.first_problem
    network = simulator()
    assert carry_out(job, network).tally.failures == {"template": 1}
    assert network.posts == 0
    assert cometbatch.verify(job).ok


def test_all_images_of_a_request_have_a_bound(bench: Workbench) -> None:
    """Each may be small enough, and all together too large."""
    parts = [{"image": "{{ photo }}"}, {"image": "{{ photo }}"}]
    bounds = {"images": {"max_request_bytes": 150}}
    job = job_of(bench, [image(size=75), image(size=76)], parts, prompt=bounds)
    planned = cometbatch.plan(job)
    assert planned.unrenderable == 1
    assert planned.first_problem is not None
    assert planned.first_problem.startswith("row 1: the images of this prompt have 152 bytes, and they may have 150")


def test_a_file_that_changes_before_it_is_sent_is_not_sent(bench: Workbench) -> None:
    """What was identified is what goes out; the row fails, unpaid, and the others are answered."""
    write_images(bench.folder, {f"{row}.png": image(seed=row) for row in range(3)})

    def spoil(request: httpx.Request) -> None:
        (bench.folder / "1.png").write_bytes(image(seed=7))
        (bench.folder / "2.png").unlink(missing_ok=True)

    limits = {"concurrency": 1, "adaptive": False}
    job = job_of(bench, [f"{row}.png" for row in range(3)], limits=limits)
    network = Network(answer=lambda request: spoil(request) if request.method == "POST" else None)
    summary = carry_out(job, network)
    assert (summary.tally.succeeded, summary.tally.failures, summary.tally.charges) == (1, {"template": 2}, 0)
    assert network.posts == 1
    messages = bench.result().column("error_message").to_pylist()
    assert messages[1] == "the image '1.png' has changed since its request was made"
    assert messages[2].startswith("the image '2.png' is not there")
    again = virtual_time.run(cometbatch.run_async(job, retry="template", progress=False, http=simulator()))
    assert (again.succeeded, again.tally.failures) == (2, {"template": 1})


def test_a_run_with_images_is_resumed(bench: Workbench) -> None:
    """Rows that have an answer are not sent again, and the others' images are read anew."""
    write_images(bench.folder, {f"{row}.png": image(seed=row) for row in range(12)})
    job = job_of(bench, [f"{row}.png" for row in range(12)], output={"partition_rows": 4}, retry={"max_alike": 1})
    asked = 0

    def refuse(request: httpx.Request) -> httpx.Response | None:
        nonlocal asked
        asked += request.method == "POST"
        return httpx.Response(401, json={"error": {"message": "Invalid token"}}) if asked > 6 else None

    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job, Network(answer=refuse))
    done = cometbatch.plan(job).done
    network = simulator()
    assert carry_out(job, network).all_succeeded
    assert network.posts == 12 - done
    assert cometbatch.verify(job).ok


def test_verify_knows_an_answer_to_another_image(bench: Workbench) -> None:
    """An image that is another one now is told by row; a folder that is gone is told, too."""
    (bench.folder / "in").mkdir()
    write_images(bench.folder / "in", {f"{row}.png": image(seed=row) for row in range(3)})
    job = job_of(bench, [f"{row}.png" for row in range(3)], prompt={"images": {"root": str(bench.folder / "in")}})
    carry_out(job, simulator())
    write_images(bench.folder / "in", {"1.png": image(seed=8)})
    found = cometbatch.verify(job)
    assert not found.ok
    assert "row 1" in found.describe()
    (bench.folder / "in").rename(bench.folder / "away")
    found = cometbatch.verify(job)
    assert found.ok
    assert "the folder of images" in found.describe()


def test_a_budget_sets_tokens_aside_for_images_and_says_so(bench: Workbench) -> None:
    """The bytes of an image are no text: each counts as `prompt.images.tokens` says, which some model may pass."""
    photos = [image(size=500_000, seed=seed) for seed in range(3)]
    prices = {"input": 10, "output": 10}
    job = job_of(bench, photos, prices=prices, budget={"max_cost_usd": 1}, params={"max_output_tokens": 10})
    planned = cometbatch.plan(job)
    assert planned.budget is not None
    assert planned.budget.is_enough
    words = "budget: 3 of 3 rows have images; 6,000 input tokens are set aside for each (prompt.images.tokens)"
    assert any(words in each for each in planned.warnings)
    assert planned.input_tokens == pytest.approx(3 * 1000, abs=50)
    summary = carry_out(job, simulator())
    assert summary.succeeded + summary.tally.incomplete == 3
    assert any(words in each for each in summary.warnings)
    tight = job_of(bench, photos, prices=prices, budget={"max_cost_usd": 0.05}, params={"max_output_tokens": 10},
                   output={"path": str(bench.folder / "tight.parquet")})  # fmt: skip
    with pytest.raises(cometbatch.RunStoppedError, match=r"the next row can cost up to \$0.0[6-9]"):
        carry_out(tight, simulator())


def test_plan_opens_the_images_of_some_rows_alone(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a million files is planned in the time of a thousand, and the plan says so."""
    monkeypatch.setattr("cometbatch.commands.plan_survey.IMAGES_LOOKED_AT", 2)
    write_images(bench.folder, {"a.png": PNG})
    planned = cometbatch.plan(job_of(bench, ["a.png", "a.png", "none.png", "none.png"]))
    assert (planned.unrenderable, planned.input_tokens // 1000) == (0, 4)
    assert any("images were opened for 2 rows" in each for each in planned.warnings)


BAD_PARTS: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": []}]}, "found an empty list"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "content[0]: expected a mapping with text or image"),
    ({"messages": [{"role": "user", "content": [{"text": "x", "image": "y"}]}]}, "expected one of text and image"),
    ({"messages": [{"role": "user", "content": [{"detail": "low"}]}]}, "expected one of text and image"),
    ({"messages": [{"role": "user", "content": [{"text": "x", "detail": "low"}]}]}, "detail: has a meaning only with"),
    ({"messages": [{"role": "user", "content": [{"image": "{{ x", "detail": "low"}]}]}, "part 1: unexpected end"),
    ({"messages": [{"role": "user", "content": [{"image": "y", "detail": "lo"}]}]}, "did you mean 'low'?"),
    ({"messages": [{"role": "user", "content": [{"img": "y"}]}]}, "content[0].img: unknown key"),
    ({"messages": [{"role": "assistant", "content": [{"image": "y"}]}]}, "a message of assistant can't have an image"),
    ({"images": {"rot": "x"}}, "prompt.images.rot: unknown key; did you mean 'root'?"),
    ({"images": {"max_bytes": 0}}, "prompt.images.max_bytes: expected a whole number from 1"),
    ({"images": {"fetch": "maybe"}}, "prompt.images.fetch: expected true or false"),
    ({"images": "photos"}, "prompt.images: expected a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "words"), BAD_PARTS)
def test_a_wrong_part_or_setting_is_refused_by_its_key(bench: Workbench, prompt: dict[str, Any], words: str) -> None:
    """Before anything is read, with what was expected."""
    with pytest.raises(JobError) as caught:
        job_of(bench, [PNG], prompt=prompt)
    assert words in str(caught.value)


def test_what_a_format_can_not_say_of_an_image_is_refused_by_its_key(bench: Workbench) -> None:
    """`detail` is OpenAI's."""
    with pytest.raises(JobError, match="the messages format can't say how closely to look at an image"):
        job_of(bench, [PNG], [{"image": "{{ photo }}", "detail": "low"}], target={"format": "messages"})


def test_a_folder_that_is_not_there_is_told_before_anything_is_sent(bench: Workbench) -> None:
    """With its key."""
    job = job_of(bench, ["a.png"], prompt={"images": {"root": str(bench.folder / "none")}})
    with pytest.raises(cometbatch.UsageError, match=r"prompt.images.root: .*none is no folder"):
        cometbatch.plan(job)


def test_another_folder_of_images_is_another_job(bench: Workbench) -> None:
    """A run does not go on with images from elsewhere; one that was moved as a whole does."""
    job = job_of(bench, [PNG], prompt={"images": {"root": str(bench.folder / "in")}})
    assert job.fingerprint()["prompt.images.root"] == "in"
    assert "prompt.images.root" not in job_of(bench, [PNG]).fingerprint()
