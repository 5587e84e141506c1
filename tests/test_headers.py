"""`target.headers`: headers of one's own go out with each request, and their secrets go nowhere else."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import UsageError
from cometbatch.job.headers import read_headers
from cometbatch.job.tree import Map, Scalar, WrongError
from cometbatch.records import HttpResponse
from cometbatch.transport import Transport
from cometbatch.transport.backends import with_key
from cometbatch.transport.headers import read_values
from tests.scripted_server import KEY, REQUEST, SHORT_S, answer, reply, run, serving
from tests.workbench import FORMATS, Network, Workbench, carry_out, files, simulator

SECRET = "tok-51vQ8ZpLx0Rm"
HEADERS = {"X-Auth-Token": "Bearer ${TEAM_TOKEN}", "x-team": "search", "anthropic-beta": "some-feature"}
SENT = {"x-auth-token": f"Bearer {SECRET}", "x-team": "search", "anthropic-beta": "some-feature"}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", SECRET)


@pytest.mark.parametrize("wire", FORMATS)
def test_each_request_has_them_and_the_catalog_does_not(bench: Workbench, wire: str) -> None:
    """In every format, with values from the environment, beside the format's own headers and the key."""
    network = Network()
    assert carry_out(bench.job(target={"format": wire, "headers": HEADERS}), network).all_succeeded
    posts = [each for each in network.requests if each.method == "POST"]
    assert all({name: each.headers.get(name) for name in SENT} == SENT for each in posts)
    assert all(each.headers["authorization"] != SENT["x-auth-token"] for each in posts)
    others = [each for each in network.requests if each.method == "GET"]
    assert others
    assert not any(SENT.keys() & set(each.headers) for each in others)


def test_our_own_pool_sends_them_once_each() -> None:
    """On the wire, too: one line each, and the host, the length and the key stay what they are."""

    async def main() -> list[str]:
        async with serving(reply()) as (server, _):
            client = Transport(
                server.url, KEY, timeout_s=SHORT_S * 50, headers={"x-auth-token": "Bearer ${TEAM_TOKEN}"}
            )
            ended: asyncio.Future[HttpResponse | Exception] = asyncio.get_running_loop().create_future()
            client.send(REQUEST, ended.set_result)
            answer(client.read(await ended))
            await client.aclose()
            return server.heads[0]

    lines = run(main)
    assert lines.count(f"x-auth-token: Bearer {SECRET}") == 1
    assert lines.count(f"authorization: Bearer {KEY}") == 1
    assert SECRET not in repr(Transport("http://127.0.0.1:1", KEY, timeout_s=1, headers=HEADERS))


def echoing(request: httpx.Request) -> httpx.Response | None:
    """A service that quotes the header in answers, in their escapes, in errors and in headers of its own."""
    if request.method != "POST":
        return None
    row = int(json.loads(request.content)["messages"][-1]["content"].split()[1])
    told, escaped = request.headers["x-auth-token"], "".join(f"\\u{ord(each):04x}" for each in SECRET)
    if row % 3 == 0:
        return httpx.Response(
            400, json={"error": {"message": f"bad {told} in row {row}"}}, headers={"x-request-id": told}
        )
    text = told if row % 3 == 1 else "@"
    message = {"role": "assistant", "content": f"you sent {text}"}
    body = {"id": told, "model": told, "choices": [{"message": message, "finish_reason": "stop", "index": 0}]}
    return httpx.Response(200, content=json.dumps(body).replace("@", escaped), headers={"x-request-id": told})


def test_the_value_is_in_no_file_and_in_no_words(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, tables, plan, summary, status and every representation have the placeholder, or nothing."""
    job = bench.job(target={"headers": HEADERS}, output={"raw": True, "partition_rows": 4}, prices="none")
    summary = carry_out(job, Network(answer=echoing))
    plan = cometbatch.plan(job)
    words = [repr(job), json.dumps(job.describe()), json.dumps(job.fingerprint()), repr(summary), summary.describe()]
    words += [repr(plan), json.dumps(plan.to_dict()), cometbatch.status(job).describe(), capsys.readouterr().err]
    words += [repr(bench.result().to_pylist()), repr(bench.result().schema.metadata)]
    words += [content.decode("latin-1") for content, _ in files(bench.folder).values()]
    assert not any(SECRET in each for each in words)
    assert "Bearer ${TEAM_TOKEN}" in (bench.run_directory / "manifest.json").read_text(encoding="utf-8")
    assert "you sent Bearer [key]" in bench.result()["response"].to_pylist()
    assert "you sent [key]" in bench.result()["response"].to_pylist()


def test_plan_shows_the_placeholder(bench: Workbench) -> None:
    """What would be sent, without what is secret of it."""
    plan = cometbatch.plan(bench.job(target={"headers": HEADERS}))
    assert plan.first_request is not None
    assert plan.first_request["headers"]["x-auth-token"] == "Bearer ${TEAM_TOKEN}"
    assert "x-auth-token: Bearer ${TEAM_TOKEN}" in plan.describe()


@pytest.mark.parametrize("value", [None, "", " q7Zx", "q7\nZx", "q7\r\nx-other: 1", "q7\x7f", "Schlüssel", "q7Zx\n"])
def test_a_variable_that_can_not_be_sent_is_refused_before_anything(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Missing, empty, with a line break: plan and run name variable and header, and send and write nothing."""
    if value is None:
        monkeypatch.delenv("TEAM_TOKEN")
    else:
        monkeypatch.setenv("TEAM_TOKEN", value)
    before, network = files(bench.folder), Network()
    job = bench.job(target={"headers": HEADERS})
    for attempt in (lambda: cometbatch.plan(job, http=network), lambda: carry_out(job, network)):
        with pytest.raises(UsageError, match=r"TEAM_TOKEN.*target\.headers\.x-auth-token needs it") as refused:
            attempt()
        assert not {"q7", "Schl"} & set(re.findall("q7|Schl", str(refused.value)))
    assert (network.requests, [name for name in files(bench.folder) if name not in before and "lock" not in name]) == (
        [],
        [],
    )


KEPT = ["Host", "content-type", "Content-Length", "transfer-encoding", "connection", "accept-encoding", "cookie",
        "authorization", "x-api-key", "api-key", "X-Goog-Api-Key", "proxy-authorization", "te", "upgrade"]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        *(({name: "${TEAM_TOKEN}"}, "can't be set here") for name in KEPT),
        ({"x a": "b"}, "no name of a header"),
        ({"x:": "b"}, "no name of a header"),
        ({"x-ä": "b"}, "no name of a header"),
        ({"X-Team": "a", "x-team": "b"}, "there twice"),
        ({"x-team": "a\nb"}, "line break"),
        ({"x-team": "a\r\nx: y"}, "line break|control character"),
        ({"x-team": "ü"}, "not ASCII"),
        ({"x-team": ""}, "in one line"),
        ({"x-team": " a"}, "without a space"),
        ({"x-team": 5}, "put it in quotes"),
        ({"x-team": ["a"]}, "put it in quotes"),
        ({"x-team": "$TEAM"}, r"write \$\{NAME\}"),
        ({"x-team": "${TEAM"}, r"write \$\{NAME\}"),
        ({"x-team": "$(cat token)"}, r"write \$\{NAME\}"),
        ({"x-team": "${sk_1234567890abcdef}"}, "looks like a key itself"),
        ({"x-auth-token": "abcdef"}, r"keys do not belong.*write \$\{NAME\}"),
        ({"x-team": "sk-1234567890abcdef"}, "keys do not belong"),
        ({"x-auth-token": "${TEAM_TOKEN} sk-1234567890abcdef"}, "looks like a key"),
        ({}, "a mapping of header names"),
        ("x-team: a", "a mapping of header names"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", str(value))[:40],
)
def test_a_header_that_can_not_be_sent_is_refused_with_its_place(
    bench: Workbench, headers: Mapping[str, object] | str, words: str
) -> None:
    """Names of the connection and of keys, values of two lines, and keys that stand in the job itself."""
    with pytest.raises(cometbatch.JobError, match=words) as refused:
        bench.job(target={"headers": headers})
    assert "target.headers" in str(refused.value)
    assert "1234567890abcdef" not in str(refused.value)


def test_they_are_part_of_what_a_run_is_and_take_a_set(bench: Workbench) -> None:
    """A header can change answers: drift names it. A run without any has the fingerprint that it always had."""
    assert "target.headers" not in bench.job().fingerprint()
    path = bench.write_job(target={"headers": {"x-team": "a"}})
    carry_out(cometbatch.load_job(path), simulator())
    with pytest.raises(cometbatch.DriftError, match=r"target\.headers"):
        carry_out(cometbatch.load_job(path, ["target.headers.x-team=b: #c"]), simulator())
    told = cometbatch.load_job(path, ["target.headers.x-more=${TEAM_TOKEN}"]).target.headers
    assert told == {"x-team": "a", "x-more": "${TEAM_TOKEN}"}


def test_a_job_that_holds_the_value_itself_is_refused(bench: Workbench) -> None:
    """It would go into files and messages."""
    job = bench.job(target={"headers": HEADERS}, prompt={"user": f"{{{{ note }}}} {SECRET}"})
    with pytest.raises(UsageError, match="prompt: this holds what TEAM_TOKEN is set to"):
        carry_out(job, Network())


@given(name=st.text(max_size=12), value=st.text(max_size=20))
def test_whatever_is_accepted_makes_one_line_of_a_head(name: str, value: str) -> None:
    """No header of a job can end a line, begin another one, or replace what the request or the connection says."""
    try:
        headers = read_headers(Map("job", {name: Scalar("job", "str", value)}, {name: Scalar("job", "str", name)}))
        sent, _ = read_values(headers)
    except (WrongError, UsageError):
        return
    own = with_key({"content-type": "application/json"}, KEY)
    together = with_key({"content-type": "application/json"}, KEY, sent)
    assert all(together[kept] == own[kept] for kept in ("content-type", "authorization", "accept-encoding"))
    head = "\r\n".join(f"{each}: {text}" for each, text in sent.items())
    assert len(re.split(r"[\r\n\x85\u2028\u2029]", head)) == len(sent) == 1


def test_a_word_in_a_header_changes_no_answer(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A value that is a word of any text is no secret: the model's words stay."""
    monkeypatch.setenv("STAGE", "parcel")
    network = Network()
    plain, with_header = Workbench(tmp_path / "a"), Workbench(tmp_path / "b")
    results = []
    for place, headers in ((plain, {}), (with_header, {"headers": {"x-stage": "${STAGE}"}})):
        place.folder.mkdir()
        place.input = bench.input
        carry_out(place.job(target=headers), network)
        results.append(place.result()["response"].to_pylist())
    assert results[0] == results[1]
