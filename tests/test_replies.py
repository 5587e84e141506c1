"""What services really send becomes what docs/replies.md says: from a reply to the row of the result."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.control.classify import classify
from cometbatch.records import Completion, GiveUp, HttpResponse, Retry
from cometbatch.results.columns import status_of
from cometbatch.wire import FORMATS
from tests import virtual_time
from tests.workbench import ANSWER_COLUMNS, Network, Workbench, carry_out, simulator

PAGE = (Path(__file__).parent.parent / "docs/replies.md").read_text(encoding="utf-8")
BODIES = re.findall(r"^\| ([^|]*) \| (\w+) \| `(.*)` \| ([^|]*) \|$", PAGE, flags=re.MULTILINE)


def becomes(name: str, body: str) -> str:
    """What becomes of a reply with this body, in the page's words."""
    reply = HttpResponse(200, {"content-type": "application/json"}, body.replace("⏎", "\n").encode())
    read = FORMATS[name].parse_response(reply)
    if isinstance(read, Completion):
        answer = f"answer `{read.text}`" if read.text else "no answer"
        return f"{answer}, `{read.finish_reason}`, {status_of(read)}"
    verdict = classify(reply, read, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert isinstance(verdict, Retry | GiveUp)
    return f"{'retried' if isinstance(verdict, Retry) else 'not asked again'}: `{verdict.failure.kind}`"


def test_the_table_of_bodies_is_read() -> None:
    """Each line of the table is a case of the next test."""
    assert len(BODIES) == len(re.findall(r"^\| .* \| (?:chat|responses|messages|gemini) \| ", PAGE, flags=re.MULTILINE))
    assert {name for _, name, _, _ in BODIES} == set(FORMATS)


@pytest.mark.parametrize(("seen", "name", "body", "outcome"), BODIES)
def test_a_body_becomes_what_the_page_says(seen: str, name: str, body: str, outcome: str) -> None:
    """The page and the code agree on every reply."""
    assert becomes(name, body) == outcome, seen


# -- from the reply to the row -----------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of 12 rows."""
    made = Workbench(tmp_path)
    made.write_rows(12)
    return made


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("fault", ["streamed", "wrapped", "miscoded", "dialect"])
def test_answers_said_otherwise_make_the_same_table(bench: Workbench, name: str, fault: str) -> None:
    """One request for each row, and the same text, counts and cost as from a plain service."""
    carry_out(bench.job(target={"format": name}), simulator())
    calm = bench.result().select(ANSWER_COLUMNS)
    network = simulator(f"{fault}:1")
    carry_out(bench.job(target={"format": name}), network, fresh=True)
    assert bench.result().select(ANSWER_COLUMNS).equals(calm)
    assert network.posts == 12


def test_a_whole_reply_that_cannot_be_read_is_asked_for_once(bench: Workbench) -> None:
    """Its row fails, the others are answered, and what it cost counts as possible."""
    network = simulator("unreadable:0.4")
    summary = carry_out(bench.job(prices={"input": 1, "output": 1}), network)
    assert network.posts == 12
    assert 0 < summary.failed < 12
    assert summary.tally.failures == {"invalid_response": summary.failed}
    assert summary.possible_charges.charges == summary.failed


def chat(message: dict[str, Any], finish: str = "stop", **more: Any) -> httpx.Response:
    """A chat completion, with token counts."""
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    return httpx.Response(
        200, json={"choices": [{"message": message, "finish_reason": finish}], "usage": usage, **more}
    )


def answering(reply: httpx.Response | list[httpx.Response]) -> Network:
    """A service that answers each POST so; a list is used up first in, first out, its last one for ever."""
    replies = list(reply) if isinstance(reply, list) else [reply]

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        said = replies.pop(0) if len(replies) > 1 else replies[0]
        return httpx.Response(said.status_code, headers=said.headers, content=said.content)

    return Network(answer=answer)


PRICES = {"input": 1, "output": 10}
CALLS = [{"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}]
TOOLS = {"tools": [{"type": "function", "function": {"name": "find"}}]}


def rows_of(bench: Workbench, network: Network, **sections: Any) -> list[dict[str, Any]]:
    """The rows of a run over this network."""
    carry_out(bench.job(prices=PRICES, **sections), network)
    rows: list[dict[str, Any]] = bench.result().to_pylist()
    return rows


def test_calls_are_an_answer_where_tools_are_asked_for(bench: Workbench) -> None:
    """The row succeeds, its calls stand in a column of their own, and a retry of others keeps them; verify agrees."""
    called, cut = chat({"content": None, "tool_calls": CALLS}), chat({"content": "so"}, "length")
    rows = rows_of(bench, answering([cut, called]), params={"extra": TOOLS})
    assert [row["status"] for row in rows].count("incomplete") == 1
    good = [row for row in rows if row["status"] == "succeeded"]
    assert all(json.loads(row["tool_calls"]) == CALLS and row["error_message"] is None for row in good)
    assert {row["finish_reason"] for row in good} == {"tool_calls"}
    job = bench.job(prices=PRICES, params={"extra": TOOLS})
    assert cometbatch.verify(bench.output).ok
    network = answering(chat({"content": "yes"}))
    virtual_time.run(cometbatch.run_async(job, retry="length", progress=False, http=network))
    again = bench.result().to_pylist()
    assert [row["tool_calls"] for row in again].count(None) == 1
    assert [row for row in again if row["tool_calls"]] == good
    assert cometbatch.verify(bench.output).ok


def test_calls_nobody_asked_for_are_kept_in_words(bench: Workbench) -> None:
    """Without tools in the job there is no column for them, and the row is incomplete."""
    row = rows_of(bench, answering(chat({"content": "Let me see", "tool_calls": CALLS})))[0]
    assert "tool_calls" not in row
    assert (row["status"], row["finish_reason"], row["response"]) == ("incomplete", "tool_calls", "Let me see")
    assert '"name":"find"' in row["error_message"]


def test_raw_replies_and_reasoning_have_columns_where_the_job_asks(bench: Workbench) -> None:
    """The JSON of the reply, and what the model thought; both survive a retry of other rows."""
    reply = chat({"content": "yes", "reasoning_content": "hm"}, citations=["a"])
    job = {"output": {"raw": True, "reasoning": True}}
    rows = rows_of(bench, answering([chat({"content": ""}), reply]), **job)
    kept = [row for row in rows if row["status"] == "succeeded"]
    assert [row["reasoning"] for row in kept] == ["hm"] * 11
    assert all(json.loads(row["raw"])["citations"] == ["a"] for row in kept)
    assert pq.read_schema(bench.output).names[-2:] == ["reasoning", "raw"]
    assert cometbatch.verify(bench.output).ok


def test_an_input_with_such_a_column_is_refused_only_where_the_job_asks(bench: Workbench) -> None:
    """A column `raw` of the input hurts nobody who keeps no raw replies."""
    text = bench.input.read_text(encoding="utf-8").replace("parcel,note", "parcel,raw")
    bench.input.write_text(text, encoding="utf-8")
    prompt = {"user": "{{ parcel }}"}
    assert carry_out(bench.job(prompt=prompt), simulator()).succeeded == 12
    with pytest.raises(cometbatch.UsageError, match="raw"):
        carry_out(bench.job(prompt=prompt, output={"raw": True}), simulator(), fresh=True)


def test_a_run_keeps_the_columns_that_it_began_with(bench: Workbench) -> None:
    """A job that asks for more later is told so."""
    carry_out(bench.job(), simulator("400:0.3"))
    assert any("without a column `raw`" in each for each in cometbatch.plan(bench.job(output={"raw": True})).warnings)


def test_an_empty_answer_that_was_billed_keeps_the_beginning_of_its_message(bench: Workbench) -> None:
    """What came in place of an answer, bounded."""
    row = rows_of(bench, answering(chat({"content": "", "odd": "x" * 5_000})))[0]
    assert row["status"] == "incomplete"
    assert row["error_message"].startswith('empty answer: {"content":"","odd":"xxx')
    assert len(row["error_message"]) < 600


def test_answers_that_reach_the_cap_without_saying_so_are_counted(bench: Workbench) -> None:
    """llama.cpp and LiteLLM say "stop" there. The count survives another session, and a retry."""
    summary = carry_out(bench.job(prices=PRICES, params={"max_output_tokens": 4}), answering(chat({"content": "yes"})))
    assert (
        "12 answers took exactly params.max_output_tokens and were probably cut there, "
        "although they say that they ended normally. Raise params.max_output_tokens"
    ) in summary.warnings
    one = answering([chat({"content": "yes"}, "length"), chat({"content": "yes"})])
    summary = carry_out(bench.job(prices=PRICES, params={"max_output_tokens": 4}), one, fresh=True)
    assert any("11 answers" in each for each in summary.warnings)
    assert cometbatch.verify(bench.output).ok
    summary = carry_out(bench.job(prices=PRICES, params={"max_output_tokens": 5}), one, fresh=True)
    assert not summary.warnings


def test_a_failure_inside_a_success_costs_attempts_and_counts_as_its_tokens_come_to(bench: Workbench) -> None:
    """502 in a choice: tried again, kept in words, at most `max_attempts`, also where nobody else is answered."""
    bench.write_rows(1)
    failed = chat({"content": ""}, "error")
    network = answering(failed)
    summary = carry_out(bench.job(prices=PRICES, retry={"max_attempts": 3}), network)
    assert network.posts == 3
    assert summary.possible_charges.charges == 3
    assert summary.possible_charges.charges_usd == 3 * (10 * Decimal("0.000001") + 4 * Decimal("0.00001"))
    assert "generation ended as error" in bench.result().to_pylist()[0]["error_message"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"logprobs": True}, "params.extra.logprobs is asked for and paid, but not kept: set output.raw: true"),
        ({"web_search_options": {"context": "low"}}, "params.extra.web_search_options is asked"),
        ({"tools": [{"type": "web_search"}]}, r"params.extra.tools\[0\] is asked"),
        ({"include_reasoning": True}, "set output.reasoning: true"),
        ({"user": "row {{ id }}"}, r"params.extra.user holds {{ id }}: params.extra is no template"),
        ({"stop_words": ["a", "{% if x %}b"]}, r"params.extra.stop_words\[1\] holds {% if x %}"),
        ({"m": {"{{ k }}": 1}}, r"params.extra.m.{{ k }} holds {{ k }}"),
    ],
)
def test_what_is_surely_not_meant_in_extra_is_said_before_it_is_paid_for(
    bench: Workbench, extra: dict[str, Any], words: str
) -> None:
    """By plan and by run; what is kept, or asks for nothing, is not mentioned."""
    job = bench.job(params={"extra": extra})
    assert any(re.search(words, each) for each in cometbatch.plan(job, http=simulator()).warnings)
    assert any(re.search(words, each) for each in carry_out(job, simulator()).warnings)


@pytest.mark.parametrize(
    ("extra", "output"),
    [
        ({"logprobs": False, "top_logprobs": 0, "modalities": ["text"]}, {}),
        ({"logprobs": True}, {"raw": True}),
        ({"include_reasoning": True}, {"reasoning": True}),
        ({"tools": [{"type": "function"}, {"name": "f"}], "user": "{ {x} }"}, {}),
    ],
)
def test_what_is_kept_or_asks_for_nothing_is_not_mentioned(
    bench: Workbench, extra: dict[str, Any], output: dict[str, Any]
) -> None:
    """No warning without a cause."""
    assert not cometbatch.plan(bench.job(params={"extra": extra}, output=output), http=simulator()).warnings
