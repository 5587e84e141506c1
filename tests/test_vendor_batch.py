"""Vendors' batch files run as they are: what their lines say is what is sent, and what is wrong is refused by line."""

import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.control.budget import CostBounds
from cometbatch.errors import JobError, UsageError
from cometbatch.records import CallRequest, HttpRequest
from tests import virtual_time
from tests.workbench import MODEL, Network, Workbench, carry_out, simulator

PRICES = {"input": 1, "output": 2}
TEXTS = ["Where is Lyon?", "naïve “quotes” \\ and \t tabs", "", "  ", "行", "x" * 3_000]


def openai(row: int, **body: Any) -> dict[str, Any]:
    """A line of OpenAI's batch file, for Chat Completions."""
    turns = [{"role": "user", "content": f"{row}: {TEXTS[row % len(TEXTS)]}"}]
    whole = {"model": MODEL, "messages": turns, "max_tokens": 40, **body}
    return {"custom_id": f"r-{row}", "method": "POST", "url": "/v1/chat/completions", "body": whole}


def openai_responses(row: int, **body: Any) -> dict[str, Any]:
    """The same for Responses."""
    whole = {"model": MODEL, "input": f"{row}: {TEXTS[row % len(TEXTS)]}", "max_output_tokens": 40, **body}
    return {"custom_id": f"r-{row}", "method": "POST", "url": "/v1/responses", "body": whole}


def anthropic(row: int, **params: Any) -> dict[str, Any]:
    """A line of Anthropic's."""
    turns = [{"role": "user", "content": f"{row}: {TEXTS[row % len(TEXTS)]}"}]
    return {"custom_id": f"r-{row}", "params": {"model": MODEL, "messages": turns, "max_tokens": 40, **params}}


def gemini(row: int, **request: Any) -> dict[str, Any]:
    """A line of Gemini's, with keys in snake case."""
    contents = [{"role": "user", "parts": [{"text": f"{row}: {TEXTS[row % len(TEXTS)]}"}]}]
    return {
        "key": f"r-{row}",
        "request": {"contents": contents, "generation_config": {"max_output_tokens": 40}, **request},
    }


FILES: dict[str, tuple[Callable[..., dict[str, Any]], str, str]] = {
    "openai chat": (openai, "chat", "body"),
    "openai responses": (openai_responses, "responses", "body"),
    "anthropic": (anthropic, "messages", "params"),
    "gemini": (gemini, "gemini", "request"),
}


def write(path: Path, lines: list[Any], **layout: Any) -> Path:
    """A file with these lines; texts and bytes are written as they are."""
    raw = [line if isinstance(line, bytes) else json.dumps(line, **layout).encode() for line in lines]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def settings(path: Path, **sections: Any) -> dict[str, Any]:
    """The smallest job over a batch file, with changes."""
    base: dict[str, Any] = {
        "input": {"path": str(path)},
        "output": {"path": str(path.with_name("out.parquet"))},
        "target": {"base_url": "simulator"},
        "prices": PRICES,
    }
    if path.name.startswith("gemini"):
        base["target"]["model"] = MODEL
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in base.keys() | sections.keys()}


def job(path: Path, **sections: Any) -> cometbatch.Job:
    """The job of these settings."""
    return cometbatch.load_job(settings(path, **sections))


def bodies(network: Network) -> list[bytes]:
    """What was posted."""
    return [request.content for request in network.requests if request.method == "POST"]


def text_of(shape: str, line: dict[str, Any]) -> str:
    """The answer's text in a line of a vendor's results, as its own library finds it."""
    if shape == "openai":
        body = line["response"]["body"]
        if "choices" in body:
            return str(body["choices"][0]["message"]["content"])
        parts = [part for item in body["output"] for part in item.get("content", ())]
        return "".join(part["text"] for part in parts)
    if shape == "anthropic":
        return "".join(block["text"] for block in line["result"]["message"]["content"])
    return "".join(part["text"] for part in line["response"]["candidates"][0]["content"]["parts"])


@pytest.mark.parametrize("name", FILES)
def test_a_thousand_lines_run_as_they_are_and_come_back(tmp_path: Path, name: str) -> None:
    """Each body goes out byte for byte, once; ids and texts survive the run, every export and the check of the run."""
    line_of, format_name, key = FILES[name]
    lines = [line_of(row) for row in range(1_000)]
    path, network = write(tmp_path / f"{name.split(maxsplit=1)[0]}.jsonl", lines, ensure_ascii=False), Network()
    made = job(path)
    assert (made.target.format, made.target.model, made.batch) == (format_name, MODEL, name.split(maxsplit=1)[0])
    summary = carry_out(made, network)
    assert (summary.rows, summary.succeeded) == (1_000, 1_000)
    expected = [json.dumps(line[key], ensure_ascii=False) for line in lines]
    if name == "gemini":
        camel = ("generation_config", "generationConfig"), ("max_output_tokens", "maxOutputTokens")
        expected = [functools.reduce(lambda text, names: text.replace(*names), camel, text) for text in expected]
    assert sorted(bodies(network)) == sorted(text.encode() for text in expected)
    result = pq.read_table(made.output.path)
    ids = [f"r-{row}" for row in range(1_000)]
    assert result.column("custom_id").to_pylist() == ids
    assert result.column(key).to_pylist() == [json.dumps(line[key], ensure_ascii=False) for line in lines]
    answers = result.column("response").to_pylist()
    for shape in ("openai", "anthropic", "gemini"):
        found = [json.loads(line) for some in cometbatch.export(made, shape=shape).lines() for line in some]
        assert [line["key" if shape == "gemini" else "custom_id"] for line in found] == ids
        assert [text_of(shape, line) for line in found] == answers
    assert cometbatch.verify(made).ok


def test_plan_shows_what_a_file_asks_and_costs(tmp_path: Path) -> None:
    """The first body, each answer bounded by its own cap, and what is told of streams."""
    lines = [openai(0, max_tokens=10, stream=True), openai(1, max_tokens=30), openai(2, max_tokens=60, stream=True)]
    found = cometbatch.plan(job(write(tmp_path / "openai.jsonl", lines)), http=Network())
    assert found.first_request is not None
    assert found.first_request["body"] == {k: v for k, v in lines[0]["body"].items() if k != "stream"}
    assert (found.rows, found.output_tokens, found.uncapped) == (3, 100, 0)
    assert found.input_tokens == sum(-(-len(line["body"]["messages"][0]["content"]) // 4) for line in lines)
    assert any("stream: true is taken out (openai.jsonl, line 1 and 1 more)" in words for words in found.warnings)
    assert "100 tokens out at most" in found.describe()
    bare = [openai(0), {**openai(1), "body": {k: v for k, v in openai(1)["body"].items() if k != "max_tokens"}}]
    found = cometbatch.plan(job(write(tmp_path / "openai.jsonl", bare)), http=Network())
    assert (found.output_tokens, found.uncapped) == (40 + 256, 1)
    assert "296 tokens out (256 for each of 1 without a cap)" in found.describe()


# --- what is told by the first line -----------------------------------------------------------------------------------

TABLES: list[tuple[Any, bool]] = [
    ({"custom_id": "a", "params": "no object"}, False),
    ({"custom_id": "a", "text": "b"}, False),
    ({"key": "a", "request": "call me"}, False),
    ({"key": "a", "request": {"contents": []}, "note": "a further column"}, False),
    ({"custom_id": "a", "params": {"x": 1}, "note": "a further column"}, False),
    (openai(0), True),
    (anthropic(0), True),
    (gemini(0), True),
]


@pytest.mark.parametrize(("line", "is_batch"), TABLES)
def test_a_table_is_no_batch_file(tmp_path: Path, line: Any, *, is_batch: bool) -> None:
    """With a prompt, rows that share some names with a vendor's lines are rows; a vendor's lines are refused."""
    path = write(tmp_path / "rows.jsonl", [line])
    whole = settings(path, target={"format": "chat", "model": "m"}, prompt={"user": "{{ row|tojson }}"})
    if not is_batch:
        assert cometbatch.load_job(whole).batch is None
        return
    with pytest.raises(JobError, match=r"prompt: the lines of .+'s batch file hold whole requests"):
        cometbatch.load_job(whole)


@pytest.mark.parametrize("pack", ["plain", "gz", "zst", "bom", "bom alone", "blank lines", "crlf"])
def test_a_batch_file_is_told_however_it_is_packed(tmp_path: Path, pack: str) -> None:
    """Compression, a byte order mark, blank lines and carriage returns change nothing."""
    text = b"".join(json.dumps(anthropic(row)).encode() + b"\n" for row in range(3))
    ending = {"gz": ".jsonl.gz", "zst": ".jsonl.zst"}.get(pack, ".jsonl")
    content = {
        "gz": gzip.compress(text),
        "zst": pa.compress(text, codec="zstd", asbytes=True),
        "bom": b"\xef\xbb\xbf" + text,
        "bom alone": b"\xef\xbb\xbf\r\n" + text,
        "blank lines": b"\n  \n" + text.replace(b"\n", b"\n\n"),
        "crlf": text.replace(b"\n", b"\r\n"),
    }.get(pack, text)
    path, network = tmp_path / f"anthropic{ending}", Network()
    path.write_bytes(content)
    assert carry_out(job(path), network).succeeded == 3
    assert sorted(bodies(network)) == sorted(json.dumps(anthropic(row)["params"]).encode() for row in range(3))


JOBS: list[tuple[str, dict[str, Any], str]] = [
    ("anthropic", {"prompt": {"user": "x"}}, r"prompt: the lines of Anthropic's batch file hold whole requests"),
    ("anthropic", {"target": {"format": "chat"}}, r"target.format: the batch file's first line says messages"),
    ("openai", {"target": {"model": "m-2"}}, rf"target.model: the batch file's first line says {MODEL}"),
    ("openai", {"input": {"id": "body"}}, r"input.id: .+ their id is custom_id"),
    ("openai", {"params": {"temperature": 1}}, r"params.temperature: .+ params.override: true lays params over"),
    (
        "anthropic",
        {"params": {"override": True, "seed": 1}},
        r"params.seed has no place in the messages format",
    ),
    ("gemini", {"target": {"model": None}}, r"target.model: is missing: Gemini's batch file does not name the model"),
]


@pytest.mark.parametrize(("name", "changes", "words"), JOBS)
def test_a_job_never_says_something_else_than_the_file(
    tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    """What the lines say may be left out, or must agree."""
    path = write(tmp_path / f"{name}.jsonl", [FILES.get(name, FILES["openai chat"])[0](0)])
    with pytest.raises(JobError, match=words):
        job(path, **changes)


def test_a_job_may_say_what_the_file_says(tmp_path: Path) -> None:
    """Format, model and id that agree are no contradiction."""
    path = write(tmp_path / "openai.jsonl", [openai(0)])
    made = job(path, target={"format": "chat", "model": MODEL}, input={"id": "custom_id"})
    assert made.fingerprint() == job(path).fingerprint()


def test_override_without_a_batch_file_is_refused(tmp_path: Path) -> None:
    """It would have no meaning."""
    bench = Workbench(tmp_path)
    bench.write_rows(1)
    with pytest.raises(JobError, match=r"params.override: has a meaning only with a vendor's batch file"):
        bench.job(params={"override": True})


def test_a_batch_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Not the keys that it would have brought."""
    with pytest.raises(JobError, match=r"input.path: .*openai.jsonl: can't be read: No such file") as caught:
        job(tmp_path / "openai.jsonl")
    assert "target.format" not in str(caught.value)


# --- lines that are refused -------------------------------------------------------------------------------------------

LINES: list[tuple[str, Any, str]] = [
    ("openai", openai(0), "has the same custom_id as line 1: r-0"),
    ("gemini", gemini(0), "has the same key as line 1: r-0"),
    ("openai", openai(1, n=2), "n asks for something else than one whole answer"),
    ("gemini", gemini(1, generation_config={"candidate_count": 2}), "generation_config.candidate_count asks for"),
    ("openai", openai_responses(1), "asks the responses format, and lines before it chat: split the file by url"),
    ("openai", openai(1) | {"url": "/v1/embeddings"}, "url /v1/embeddings is none that can be asked here"),
    ("openai", openai(1) | {"method": "GET"}, "method must be POST, not GET"),
    ("openai", openai(1, model="m-2"), f"asks for the model m-2, and others for {MODEL}"),
    ("openai", openai(1, model=None), "body names no model"),
    ("anthropic", anthropic(1, model="m-2"), f"asks for the model m-2, and others for {MODEL}"),
    ("gemini", gemini(1, model="models/m-2"), f"asks for the model models/m-2, and others for {MODEL}"),
    ("openai", openai(1, background=True), "background asks for something else"),
    ("openai", anthropic(1), "lacks method and lacks url and lacks body; each line of OpenAI's batch file has"),
    ("anthropic", anthropic(1) | {"note": 1}, "has note; each line of Anthropic's batch file has custom_id, params"),
    ("anthropic", anthropic(1) | {"custom_id": 7}, "custom_id must be a text that is not empty"),
    ("anthropic", anthropic(1) | {"custom_id": " "}, "custom_id must be a text that is not empty"),
    ("anthropic", anthropic(1) | {"params": [1]}, "params must be a JSON object"),
    ("anthropic", {"custom_id": "b", "params": {"model": MODEL}}, "params asks nothing: it has no messages"),
    ("gemini", gemini(1, generationConfig={}), "generationConfig is there in both spellings"),
    ("gemini", b'{"key": "a", "request": {', "is no JSON"),
    ("gemini", b'["key"]', "is no JSON object"),
    ("gemini", b'{"key":"a","request":{"contents":[{"parts":[{"text":"\xff"}]}]}}', "is no UTF-8 text"),
    ("gemini", b'{"key":"a","request":{"contents":[NaN]}}', "NaN is no number"),
    ("gemini", b'{"key":"a","request":{"contents":' + b"[" * 99_999 + b"]" * 99_999 + b"}}", "can't be read as JSON"),
    ("gemini", b'{"key":"a","request":{"contents":' + b"[" * 700 + b"]" * 700 + b"}}", "nested too deeply"),
]


@pytest.mark.parametrize(("name", "line", "words"), LINES, ids=range(len(LINES)))
def test_a_line_that_can_not_be_sent_is_refused_by_its_number(tmp_path: Path, name: str, line: Any, words: str) -> None:
    """Before anything is sent, by plan and by run, with exit code 2."""
    first = FILES.get(name, FILES["openai chat"])[0]
    made, network = job(write(tmp_path / f"{name}.jsonl", [first(0), b"", line, first(5)])), Network()
    for refusing in (lambda: cometbatch.plan(made, http=network), lambda: carry_out(made, network)):
        with pytest.raises(UsageError, match=r"jsonl, line 3: ") as caught:
            refusing()
        assert words in str(caught.value)
        assert caught.value.exit_code == 2
    assert bodies(network) == []


FIRST: list[tuple[Any, str]] = [
    (openai(1) | {"url": "/v1/embeddings"}, "line 1: url /v1/embeddings is none that can be asked here"),
    (openai(1, model=None), "line 1: body names no model"),
    ({"custom_id": "a", "url": "/v1/responses", "body": {}}, "line 1: lacks method"),
    (anthropic(1) | {"note": 1}, "line 1: has note"),
]


@pytest.mark.parametrize(("line", "words"), FIRST)
def test_a_first_line_that_can_not_be_sent_is_refused_when_the_job_is_read(
    tmp_path: Path, line: Any, words: str
) -> None:
    """Without it nobody knows what is asked."""
    with pytest.raises(JobError) as caught:
        job(write(tmp_path / "openai.jsonl", [line]))
    assert words in str(caught.value)


def test_several_files_are_one_batch(tmp_path: Path) -> None:
    """A vendor takes so many lines a file: a folder or a pattern of such files is one run, and ids differ over all."""
    folder = tmp_path / "batches"
    folder.mkdir()
    for number in range(3):
        write(folder / f"part-{number}.jsonl", [openai(row) for row in range(number * 4, number * 4 + 4)])
    network, out = Network(), {"path": str(tmp_path / "out.parquet")}
    made = job(folder, output=out)
    assert carry_out(made, network).succeeded == 12
    assert sorted(bodies(network)) == sorted(json.dumps(openai(row)["body"]).encode() for row in range(12))
    assert pq.read_table(made.output.path).column("custom_id").to_pylist() == [f"r-{row}" for row in range(12)]
    assert cometbatch.verify(made).ok
    assert job(folder / "part-*.jsonl", output=out).fingerprint() == made.fingerprint()
    again = {"path": str(tmp_path / "again.parquet")}
    write(folder / "part-2.jsonl", [openai(20), openai(5)])
    with pytest.raises(
        UsageError, match=r"part-2.jsonl, line 2: has the same custom_id as line 2 of part-1.jsonl: r-5"
    ):
        carry_out(job(folder, output=again), Network())
    write(folder / "part-2.jsonl", [openai(20, stream=True), uncapped(21)])
    plan = cometbatch.plan(job(folder, output=again), http=Network())
    assert any("(part-2.jsonl, line 1)" in words for words in plan.warnings)
    with pytest.raises(UsageError, match=r"part-2.jsonl, line 2: without max_completion_tokens"):
        carry_out(job(folder, output=again, budget={"max_cost_usd": 1}), Network())
    write(folder / "part-2.jsonl", [openai(20, model="m-2")])
    with pytest.raises(UsageError, match=r"part-2.jsonl, line 1: asks for the model m-2"):
        carry_out(job(folder, output=again), Network())


# --- money ------------------------------------------------------------------------------------------------------------


def uncapped(row: int) -> dict[str, Any]:
    """A line without a cap."""
    line = openai(row)
    del line["body"]["max_tokens"]
    return line


SEARCH = {"tools": [{"type": "web_search"}]}
PICTURE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]}
UNBOUNDED: list[tuple[dict[str, Any], str]] = [
    (uncapped(1), "line 2: without max_completion_tokens or max_tokens in the body an answer has no highest cost"),
    (openai(1, **SEARCH), "tools[0] (the output of tools that the service runs) in "),
    (openai(1, **PICTURE), "(what it names is fetched) in "),
]


@pytest.mark.parametrize(("line", "words"), UNBOUNDED)
def test_under_a_budget_a_line_that_can_cost_anything_is_refused(
    tmp_path: Path, line: dict[str, Any], words: str
) -> None:
    """Also where the budget came with a later session; without a budget it is sent."""
    path = write(tmp_path / "openai.jsonl", [openai(0), line])
    with pytest.raises(UsageError) as caught:
        carry_out(job(path, budget={"max_cost_usd": 1}), Network())
    assert words in str(caught.value)
    assert "line 2" in str(caught.value)


def test_a_budget_of_a_later_session_looks_at_all_lines(tmp_path: Path) -> None:
    """A run that was stopped goes on under a budget only if each of its lines can be bounded."""
    path = write(tmp_path / "openai.jsonl", [openai(0), uncapped(1), openai(2)])
    refusing = Network(answer=_refused_from(1))
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(job(path, limits={"concurrency": 1}), refusing)
    with pytest.raises(UsageError, match=r"line 2: without max_completion_tokens"):
        carry_out(job(path, budget={"max_cost_usd": 1}), Network())
    assert carry_out(job(path), Network()).succeeded == 3


def _refused_from(number: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """A service that refuses the key from some request on."""
    count = 0

    def answer(request: httpx.Request) -> httpx.Response | None:
        nonlocal count
        count += request.method == "POST"
        return httpx.Response(401, json={"error": {"message": "no such key"}}) if count > number else None

    return answer


def test_params_can_be_laid_over_every_body(tmp_path: Path) -> None:
    """With `params.override: true` a file without caps runs under a budget; what is not set stays as it is."""
    path, network = write(tmp_path / "openai.jsonl", [uncapped(row) for row in range(3)]), Network()
    made = job(path, params={"override": True, "max_output_tokens": 30}, budget={"max_cost_usd": 1})
    assert carry_out(made, network).succeeded == 3
    sent = [json.loads(body) for body in bodies(network)]
    assert all(body.pop("max_completion_tokens") == 30 for body in sent)
    assert sorted(map(str, sent)) == sorted(str(uncapped(row)["body"]) for row in range(3))
    assert cometbatch.verify(made).ok


def test_the_cap_of_each_body_bounds_its_cost(tmp_path: Path) -> None:
    """A budget that has room for the short answers alone stops before a long one, and is not passed."""
    lines = [openai(row, max_tokens=10) for row in range(4)] + [openai(9, max_tokens=1_000_000)]
    path = write(tmp_path / "openai.jsonl", lines)
    with pytest.raises(cometbatch.BudgetReachedError) as caught:
        carry_out(job(path, budget={"max_cost_usd": 1}), Network())
    assert caught.value.summary.tally.calls == 4


@pytest.mark.parametrize("colon", [":", ": ", " :\n"])
def test_a_cache_for_an_hour_is_seen_however_a_body_is_laid_out(colon: str) -> None:
    """What is written to it costs more, so it raises what a request can cost; within a text it means nothing."""
    asked: list[bool] = []

    def max_cost(_call: CallRequest, _inputs: int, _outputs: int | None, hour: bool) -> None:
        asked.append(hour)

    for body in (f'{{"cache_control":{{"ttl"{colon}"1h"}}}}', json.dumps({"text": f'"ttl"{colon}"1h"'})):
        http = HttpRequest("/", {}, body.encode())
        CostBounds(max_cost).max_cost(CallRequest(0, None, http, "", 1))
    assert asked == [True, False]


# --- later sessions ---------------------------------------------------------------------------------------------------


def test_retry_asks_the_failed_lines_again_as_they_are(tmp_path: Path) -> None:
    """The same bytes go out, and every other answer stays."""
    path = write(tmp_path / "anthropic.jsonl", [anthropic(row) for row in range(30)])
    made, first, second = job(path), simulator("400:0.3"), Network()
    failed = carry_out(made, first).failed
    assert 0 < failed < 30
    before = pq.read_table(made.output.path).to_pylist()
    summary = retried(made, second, retry="failed")
    assert (summary.failed, summary.reopened, len(bodies(second))) == (0, failed, failed)
    again = {row["params"].encode() for row in before if row["status"] == "failed"}
    assert set(bodies(second)) == again
    assert cometbatch.verify(made).ok
    assert cometbatch.status(made).summary.finished


def retried(made: cometbatch.Job, network: Network, *, retry: str) -> cometbatch.RunSummary:
    """A session with `--retry`, on virtual time."""
    return virtual_time.run(cometbatch.run_async(made, retry=retry, progress=False, http=network))


def test_calls_of_tools_are_answers(tmp_path: Path) -> None:
    """Lines may offer tools, so a run of them has a column for calls."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    path = write(tmp_path / "openai.jsonl", [openai(row, tools=tools) for row in range(3)])
    made = job(path)
    assert carry_out(made, simulator("tool-calls:1")).succeeded == 3
    calls = pq.read_table(made.output.path).column("tool_calls").to_pylist()
    (lines,) = [list(some) for some in cometbatch.export(made, shape="openai").lines()]
    found = [json.loads(line)["response"]["body"]["choices"][0]["message"]["tool_calls"] for line in lines]
    assert found == [json.loads(cell) for cell in calls]
    (lines,) = [list(some) for some in cometbatch.export(made, shape="anthropic").lines()]
    assert all(json.loads(line)["result"]["type"] == "errored" for line in lines)


def test_a_refused_name_of_the_cap_is_mended_by_the_command_that_is_told(tmp_path: Path) -> None:
    """`params.max_tokens_field` needs no override: it says the same in another way, and the run goes on."""
    path = write(tmp_path / "openai.jsonl", [openai(row) for row in range(3)])
    with pytest.raises(cometbatch.ServiceRefusedError) as caught:
        carry_out(job(path), simulator("no-max-tokens:1"))
    network = simulator("no-max-tokens:1")
    made = job(path, params={"max_tokens_field": caught.value.fix})
    assert carry_out(made, network).succeeded == 3
    assert all(b'"max_completion_tokens": 40' in body for body in bodies(network))
    assert cometbatch.verify(made).ok
