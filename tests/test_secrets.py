"""The key is in the environment and on the wire, and nowhere else, however carelessly a service quotes it.

Every place where a run leaves something is searched for the key, whole or in any piece of `PIECE` characters.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch import wire
from cometbatch.records import Completion, ErrorDetail, HttpResponse
from cometbatch.runner.reply_reader import Reader
from cometbatch.transport import Transport
from tests.scripted_run import row_request
from tests.stub_server import MODEL, StubServer, Trouble
from tests.workbench import FORMATS, KEY_ENV, Network, Workbench, files

PIECE = 12  # characters of a key that would already help whoever finds them
KEYS = ("sk-Qz81xWvT5mLp0RnEyKbHd37uJcFaGs", "Vq93ZtR7yXw1NfKc8LbMh2PdSj6GaTe4")  # one is of the usual shape
COMMAND = (sys.executable, "-m", "cometbatch")


def pieces_in(text: str, key: str) -> list[str]:
    """The pieces of the key that a text holds."""
    return [piece for at in range(len(key) - PIECE + 1) if (piece := key[at : at + PIECE]) in text]


def readings(folder: Path) -> Iterable[tuple[str, str]]:
    """Every file under a folder as text; tables also unpacked, since compression would hide what they hold."""
    for path in sorted(folder.rglob("*")):
        yield f"name of {path}", path.name
        if path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            yield f"rows of {path}", repr(table.to_pylist()) + str(table.schema) + repr(table.schema.metadata)
            yield f"footer of {path}", repr(pq.read_metadata(path).metadata)


def refuse_pieces(texts: Iterable[tuple[str, str]], key: str) -> None:
    """Fail where any of these texts, each with the name of its place, holds a piece of the key."""
    found = [place for place, text in texts if pieces_in(text, key)]
    assert found == []


def command(key: str, *arguments: str | Path) -> tuple[int, list[tuple[str, str]]]:
    """Run `cometbatch` with the key in its environment: its exit code, and what it said."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, KEY_ENV: key, "COMETBATCH_TRACEBACK": "1"},  # tracebacks too must not hold it
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, [(f"stdout of {arguments}", done.stdout), (f"stderr of {arguments}", done.stderr)]


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """A key that was left in a file, a table or a file's name would be found, and so would a piece of it."""
    key = KEYS[0]
    (tmp_path / "a.txt").write_text(f"...{key[5 : 5 + PIECE]}...", encoding="utf-8")
    table = pq.read_table(Path(__file__).parent.parent / "sample_data" / "tickets.parquet").slice(0, 1)
    pq.write_table(table.append_column("said", [[key]]), tmp_path / "b.parquet", compression="zstd")
    (tmp_path / key).touch()
    places = [place.split()[0] for place, text in readings(tmp_path) if pieces_in(text, key)]
    assert {"name", "rows", str(tmp_path / "a.txt")} <= set(places)
    assert pieces_in(key[: PIECE - 1], key) == []


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wire", FORMATS)
def test_a_service_that_quotes_the_key_everywhere_leaves_no_trace(bench: Workbench, wire: str, key: str) -> None:
    """Answers, ids, headers, errors and the catalog may quote it: no file, no output and no summary does."""
    with StubServer(Trouble(pushback=0.1, overload=0.3), echo=key) as server:
        job = bench.write_job(
            target={"base_url": server.base_url, "model": MODEL, "format": wire},
            retry={"max_attempts": 2, "max_wait_s": 0.01},
            output={"partition_rows": 5},
        )
        code, said = command(key, "run", job)
    assert code in (0, 3)
    assert "[key]" in str(bench.result()["response"].to_pylist())  # the service did quote it
    refuse_pieces([*said, *readings(bench.folder)], key)


@pytest.mark.parametrize("key", KEYS)
def test_a_refusal_that_quotes_the_key_is_told_without_it(bench: Workbench, key: str) -> None:
    """A 401 with the key in its words stops the run, and the words reach the person without the key."""
    with StubServer(Trouble(refuse_key=True), echo=key) as server:
        job = bench.write_job(target={"base_url": server.base_url, "model": MODEL})
        _, planned = command(key, "plan", job)
        code, said = command(key, "run", job, "--json")
        _, state = command(key, "status", job, "--json")
    assert code == 5
    assert "Incorrect API key provided" in said[1][1]
    refuse_pieces([*planned, *said, *state, *readings(bench.folder)], key)


@pytest.mark.parametrize("key", KEYS)
def test_what_a_stopped_run_leaves_holds_no_key(bench: Workbench, key: str) -> None:
    """Journals, manifest, marks and lock of a run that is half done are clean."""
    with StubServer(Trouble(credit=7), echo=key) as server:
        job = bench.write_job(
            target={"base_url": server.base_url, "model": MODEL},
            output={"partition_rows": 5},
            limits={"concurrency": 1},
        )
        code, said = command(key, "run", job)
    assert code == 5
    assert "user quota is not enough [key]" in said[1][1]
    (journal,) = (bench.run_directory / "journal").iterdir()
    assert "[key]" in journal.read_text(encoding="utf-8")
    refuse_pieces([*said, *readings(bench.folder)], key)


def test_a_piece_of_a_key_in_an_error_is_known_by_its_shape(bench: Workbench) -> None:
    """A service that quotes only the beginning of a usual key leaves none of it in the rows that failed."""
    key = KEYS[0]
    with StubServer(Trouble(overload=1.0), echo=key[: 2 * PIECE]) as server:
        job = bench.write_job(
            target={"base_url": server.base_url, "model": MODEL}, retry={"max_attempts": 1}, prices="none"
        )
        code, said = command(key, "run", job)
    assert (code, bench.result()["error_kind"].to_pylist()) == (3, ["overloaded"] * 12)
    refuse_pieces([*said, *readings(bench.folder)], key)


@pytest.mark.parametrize("key", KEYS)
def test_objects_do_not_show_the_key(bench: Workbench, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Job, transport, plan, summary and status can be printed and sent around."""
    monkeypatch.setenv(KEY_ENV, key)
    with StubServer(echo=key) as server:
        job = bench.job(target={"base_url": server.base_url, "model": MODEL})
        plan, summary = cometbatch.plan(job), cometbatch.run(job, progress=False)
    status = cometbatch.status(bench.output)
    transport = Transport("https://service.example", key, timeout_s=1, http=Network())
    shown = [repr(each) for each in (job, plan, summary, status, transport, vars(transport).keys())]
    told = [each.describe() + json.dumps(each.to_dict()) for each in (plan, summary, status)]
    refuse_pieces([("objects", text) for text in (*shown, *told, json.dumps(job.describe()))], key)


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"target": {"key_env": KEYS[0]}}, id="for the variable's name"),
        pytest.param({"target": {"api_key": KEYS[0]}}, id="as a key of its own"),
        pytest.param({"target": {"api_key": KEYS[1]}}, id="as a key of its own, of no known shape"),
        pytest.param({"target": {"model": KEYS[0]}}, id="for the model"),
        pytest.param({"params": {"extra": {"headers": {"authorization": f"Bearer {KEYS[1]}"}}}}, id="in extra"),
        pytest.param({"target": {"base_url": f"https://me:{KEYS[1]}@service.example"}}, id="in the address"),
        pytest.param({"limits": {KEYS[0]: 1}}, id="as a setting's name"),
    ],
)
def test_a_key_in_a_job_file_is_refused_unquoted(bench: Workbench, sections: dict[str, Any]) -> None:
    """The message names the place, and neither it nor anything behind it repeats the key."""
    with pytest.raises(cometbatch.JobError) as caught:
        cometbatch.load_job(bench.settings(**sections))
    behind = [repr(error) for error in (caught.value, caught.value.__cause__, caught.value.__context__)]
    for key in KEYS:
        refuse_pieces([("error", str(caught.value)), *(("cause", text) for text in behind)], key)


NO_SHAPE = "Zk4rWq8tYb2nVs6hJd0gLx3c"  # a key that only its variable gives away


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"prompt": {"system": f"Use {NO_SHAPE} for it."}}, id="in a message"),
        pytest.param({"params": {"extra": {"metadata": {"note": [NO_SHAPE]}}}}, id="in extra"),
        pytest.param({"params": {"extra": {"metadata": {NO_SHAPE: 1}}}}, id="as a name in extra"),
        pytest.param({"params": {"stop": [NO_SHAPE]}}, id="as a stop text"),
        pytest.param({"target": {"model": NO_SHAPE}}, id="for the model"),
        pytest.param({"input": {"path": f"/nowhere/{NO_SHAPE}.csv"}}, id="in a path"),
        pytest.param({"output": {"prefix": NO_SHAPE}}, id="for the prefix"),
    ],
)
def test_the_very_key_in_a_job_is_refused_before_anything_is_written(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]
) -> None:
    """A key of no known shape is found by comparing with the variable; neither file nor message holds it."""
    job = bench.job(target={"base_url": "http://127.0.0.1:9", **sections.pop("target", {})}, **sections)
    before = files(bench.folder)
    monkeypatch.setenv(KEY_ENV, NO_SHAPE)
    for command_of in (cometbatch.run, cometbatch.plan):
        with pytest.raises(cometbatch.UsageError, match=KEY_ENV) as caught:
            command_of(job)
        refuse_pieces([("error", repr(caught.value))], NO_SHAPE)
    assert files(bench.folder) == before


def test_a_key_given_as_an_override_is_not_echoed_as_a_change(bench: Workbench) -> None:
    """A run that goes on would show how the prompt differs: the key in it is refused before."""
    with StubServer(Trouble(credit=3)) as server:
        job = bench.write_job(target={"base_url": server.base_url, "model": MODEL}, limits={"concurrency": 1})
        assert command(NO_SHAPE, "run", job)[0] == 5
    for verb in ("run", "plan"):
        code, said = command(NO_SHAPE, verb, job, "--set", f"prompt.user={NO_SHAPE}")
        assert code == 2
        assert "prompt" in said[1][1]
        refuse_pieces([(place.split()[0], text) for place, text in said], NO_SHAPE)
    refuse_pieces(readings(bench.folder), NO_SHAPE)


def test_a_key_that_a_reply_hides_in_escapes_is_not_kept(bench: Workbench) -> None:
    """What shows only once JSON is decoded is blanked out then: in the answer, its ids, and an error's words."""
    hidden, key = "\\u0073k-not-needed-here", "sk-not-needed-here"

    def answer(request: httpx.Request) -> httpx.Response:
        said = '{"message": {"role": "assistant", "content": "say @"}, "finish_reason": "@"}'
        body = f'{{"id": "@", "model": "@", "choices": [{said}], "usage": {{}}}}'
        if b"0003" in request.content:
            return httpx.Response(400, text='{"error": {"message": "no, @", "code": "@"}}'.replace("@", hidden))
        return httpx.Response(200, text=body.replace("@", hidden))

    bench.write_rows(5)
    cometbatch.run(bench.job(prices="none"), progress=False, http=httpx.MockTransport(answer))
    kept = str(bench.result().to_pylist())
    assert "say [key]" in kept
    assert "no, [key]" in kept or "no, sk-" in kept
    assert key not in kept


def test_a_key_that_a_page_hides_in_entities_is_not_kept() -> None:
    """An error page's words are unescaped, and then blanked out like any other, of whatever shape the key is."""
    page = f"<html><title>bad key &#{ord(NO_SHAPE[0])};{NO_SHAPE[1:]}</title></html>".encode()
    response = HttpResponse(400, {"content-type": "text/html"}, page)
    transport = Transport("http://127.0.0.1", NO_SHAPE, timeout_s=1)
    reader = Reader([wire.FORMATS["chat"].parse_response], transport)
    _, parsed = reader.read(row_request(0), response, 100)
    assert isinstance(parsed, ErrorDetail)
    assert parsed.message == "bad key [key]"


def test_a_key_that_an_answer_spreads_over_its_parts_is_not_kept() -> None:
    """Parts of a content are joined, and only then is there a key to blank out: no escape is needed for that."""
    parts = [{"type": "text", "text": text} for text in (NO_SHAPE[:9], NO_SHAPE[9:])]
    body = json.dumps({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}).encode()
    transport = Transport("http://127.0.0.1", NO_SHAPE, timeout_s=1)
    reader = Reader([wire.FORMATS["chat"].parse_response], transport)
    _, parsed = reader.read(row_request(0), HttpResponse(200, {}, body), 100)
    assert isinstance(parsed, Completion)
    assert parsed.text == "[key]"
