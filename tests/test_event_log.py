"""The events of a run: which there are, how often they are told, and what they never hold."""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands.event_log import EVERY_S, TOLD_OF_A_KIND, EventLog
from cometbatch.commands.observers import Moment
from cometbatch.records import Failed, Failure, FailureKind, Tally, plain_word
from cometbatch.results.events import COMMON, EVENTS, MAX_LINE_BYTES, SUMMARY, event_of, line_of
from cometbatch.runner.ports import Pace
from tests import virtual_time
from tests.workbench import Network, Workbench, simulator

NOW = datetime(2026, 11, 30, 2, 0, 1, 234_567, tzinfo=UTC)
SECRET = "Zebra-Quagga-Okapi"  # stands in each cell, each answer and each message of the service
KEY = "sk-0123456789abcdef"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)


def events_of(job: cometbatch.Job, network: httpx.AsyncBaseTransport, **options: Any) -> list[dict[str, Any]]:
    """What a run on virtual time tells, whether it ends well or not."""
    told: list[dict[str, Any]] = []
    with contextlib.suppress(cometbatch.CometbatchError):
        virtual_time.run(cometbatch.run_async(job, http=network, events=told.append, **options))
    return told


def named(told: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for event in told if event["event"] == name]


# -- what a line is ----------------------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(EVENTS)), st.dictionaries(st.text(min_size=1, max_size=20), json_values, max_size=6))
def test_each_event_is_one_line_of_json(name: str, fields: dict[str, Any]) -> None:
    """Whatever stands in it: one object, in ASCII, of no more than the bytes that container runtimes keep together."""
    for name_ in COMMON:
        fields.pop(name_, None)
    line = line_of(event_of(name, NOW, fields))
    assert (line.count(b"\n"), line.endswith(b"\n"), len(line) <= MAX_LINE_BYTES) == (1, True, True)
    read = json.loads(line.decode("ascii"), parse_constant=pytest.fail)
    assert (read["ts"], read["event"], read["level"]) == ("2026-11-30T02:00:01.234Z", name, EVENTS[name].level)
    read["event"].encode()
    json.dumps(read, ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "x" * 100_000},
        {"message": "\U0001f600" * 10_000},
        {"message": list(range(100_000))},
        {"message": {f"key {number}": "v" * 100 for number in range(10_000)}},
        {"message": {"k" * 50_000: "v"}},
        {f"field {number}": "v" * 5_000 for number in range(1_000)},
    ],
    ids=["text", "emoji", "list", "mapping", "name", "fields"],
)
def test_what_is_long_is_cut_and_says_so(fields: dict[str, Any]) -> None:
    """A line stays short, stays JSON, and keeps its name and time."""
    line = line_of(event_of("warning", NOW, fields))
    read = json.loads(line)
    assert (len(line) <= MAX_LINE_BYTES, read["cut"], read["event"]) == (True, True, "warning")


def test_a_summary_of_usual_size_is_not_cut(bench: Workbench) -> None:
    """`run_finished` is what `--json` prints, and the exit code."""
    told: list[dict[str, Any]] = []
    summary = virtual_time.run(cometbatch.run_async(bench.job(), http=simulator(), events=told.append))
    finished = json.loads(line_of(told[-1]))
    assert finished | summary.to_dict() == finished
    rest = finished.keys() - summary.to_dict().keys()
    assert rest == {"ts", "level", "event", "exit_code"}


def test_a_key_is_never_in_a_line() -> None:
    """Whoever put it there."""
    fields = {"message": f"Bad {KEY}", "nested": [{KEY: (KEY,)}], "error": cometbatch.UsageError(f"no {KEY}")}
    assert KEY not in json.dumps(event_of("warning", NOW, fields))


def test_a_code_is_logged_where_it_is_a_word() -> None:
    """A service may put a sentence where its code belongs, or a key: neither is a code."""
    words = ("invalid_api_key", "400", "20260617095323568134021kbYU02mA", "model:gpt/x-1.5")
    sentences = ("", None, "no such thing", "x" * 129, KEY, "a\nb", "{{ x }}")
    assert [plain_word(word) for word in words] == list(words)
    assert [plain_word(word) for word in sentences] == [None] * len(sentences)


# -- how often something is told ---------------------------------------------------------------------------------------


def moment(at: float, **known: Any) -> Moment:
    """A look at a run at this time."""
    return Moment(
        at, Tally(**known.pop("tally", {})), 3, known.pop("waiting_for", ""), **{"pace": Pace(8, None)} | known
    )


def failed(row: int, kind: FailureKind) -> Failed:
    """A row that failed, with a message that quotes it."""
    return Failed(row, SECRET, 2, 1.0, NOW, None, Failure(kind, f"bad: {SECRET}", 400, "bad_word", "req-1"))


@given(st.lists(st.sampled_from(get_args(FailureKind)), max_size=60), st.lists(st.integers(0, 59), max_size=5))
def test_every_failed_row_is_told_once_or_counted_once(kinds: list[FailureKind], looks: list[int]) -> None:
    """The first of each kind by itself, the others as numbers; no message is in any of it."""
    told: list[dict[str, Any]] = []
    log = EventLog(told.append)
    log.looked(moment(0))
    for row, kind in enumerate(kinds):
        log.recorded([failed(row, kind)], 1)
        if row in looks:
            log.looked(moment(EVERY_S * (1 + row)))
    log.ended(None, None)
    single, rest = named(told, "row_failed"), named(told, "rows_failed")
    counted = Counter(event["kind"] for event in single)
    assert all(number <= TOLD_OF_A_KIND for number in counted.values())
    for event in rest:
        counted[event["kind"]] += event["rows"]
    assert counted == Counter(kinds)
    assert SECRET not in json.dumps(told)
    assert all(event["code"] == "bad_word" and event["status"] == 400 for event in single)


@given(st.lists(st.tuples(st.sampled_from(["refused", "pace", "out", "well", "look"]), st.floats(0, 30)), max_size=40))
def test_what_comes_often_is_told_seldom(steps: list[tuple[str, float]]) -> None:
    """Refusals and pace at most every 10 s, and no refusal is lost; outages begin and end by turns."""
    told: list[dict[str, Any]] = []
    now, known = 0.0, {"unanswered_s": 0.0, "pace": Pace(8, None)}
    at: dict[str, list[float]] = {}

    def emit(event: dict[str, Any]) -> None:
        told.append(event)
        at.setdefault(event["event"], []).append(now)

    log = EventLog(emit)
    for step, number in steps:
        if step == "refused":
            log.asked_to_slow_down(number)
            continue
        if step == "pace":
            known["pace"] = Pace(int(number) + 1, number or None)
        elif step in {"out", "well"}:
            known["unanswered_s"] = number if step == "out" else 0.0
        now += 1 + number
        log.looked(moment(now, **known))
    log.ended(None, None)
    assert sum(event["times"] for event in named(told, "rate_limited")) == sum(step == "refused" for step, _ in steps)
    for name in ("rate_limited", "pace_changed"):
        times = at.get(name, [])[: -1 if name == "rate_limited" else None]  # what is left is told at the end
        assert all(after - before >= EVERY_S for before, after in itertools.pairwise(times))
    outages = [event["event"] for event in told if event["event"].startswith("outage")]
    assert outages == (["outage_began", "outage_ended"] * len(outages))[: len(outages)]


def test_a_budget_is_near_once(bench: Workbench) -> None:
    """At 80 % of it, with what was spent and what there is."""
    bench.write_rows(60)
    told = events_of(bench.job(budget={"max_cost_usd": Decimal("0.001")}), simulator(latency_s=(2, 3)))
    (near,) = named(told, "budget_near")
    assert Decimal("0.0008") <= Decimal(near["spent_usd"]) <= Decimal(near["budget_usd"])
    stopped = told[-1]
    assert (stopped["event"], stopped["level"], stopped["reason"]) == ("run_stopped", "error", "budget")
    assert (stopped["exit_code"], stopped["fix"]) == (4, "budget")
    assert Decimal(stopped["budget_to_finish_usd"]) > Decimal("0.001")
    assert stopped["succeeded"] < stopped["rows"] == 60


# -- what a run tells --------------------------------------------------------------------------------------------------


def test_a_run_tells_its_course_in_documented_fields(bench: Workbench) -> None:
    """From its start over progress, refusals, an outage and its parts to its end."""
    bench.write_rows(300)
    limits = {"concurrency": 4, "requests_per_minute": 300}
    hits = Counter[bool]()

    def answer(request: httpx.Request) -> httpx.Response | None:
        """Some refusals, then an outage of some seconds."""
        hits[True] += request.method == "POST"
        if 60 <= hits[True] < 70:
            return httpx.Response(503, json={"error": {"message": "down", "code": "down"}})
        if hits[True] % 20 == 0 and request.method == "POST":
            return httpx.Response(400, json={"error": {"message": "no", "code": "bad_row"}})
        return None

    told = events_of(bench.job(limits=limits), Network(simulator("429:0.02").app, answer=answer))
    assert [told[0]["event"], told[-1]["event"]] == ["run_started", "run_finished"]
    names = {event["event"] for event in told}
    assert names >= {
        "progress",
        "row_failed",
        "rows_failed",
        "rate_limited",
        "part_committed",
        "outage_began",
        "outage_ended",
    }
    last = told[-1]
    for event in told:
        known = EVENTS[event["event"]].fields
        of_summary = cometbatch.status(bench.output).summary.to_dict().keys() if SUMMARY in known else set()
        assert event.keys() <= COMMON.keys() | known.keys() | of_summary, event
        assert event.keys() >= {"ts", "level", "event"}
    assert len(named(told, "row_failed")) == 5
    assert len(named(told, "row_failed")) + sum(each["rows"] for each in named(told, "rows_failed")) == last["failed"]
    assert sum(each["rows"] for each in named(told, "part_committed")) == 300
    assert sum(each["times"] for each in named(told, "rate_limited")) == last["pushbacks"]
    assert 4 <= len(named(told, "progress")) <= 8  # 300 rows at 5 a second
    assert named(told, "progress")[0]["remaining"] < 300


def test_standard_error_stays_empty(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    """Who takes the events takes the warnings with them; without progress there is no event of it."""
    bench.write_rows(200)
    job = bench.job(prompt={"user": "{note} {{ parcel }}"}, limits={"requests_per_minute": 300})
    told = events_of(job, simulator(), progress=False)
    assert capsys.readouterr() == ("", "")
    assert any("{note}" in event["message"] for event in named(told, "warning"))
    assert not named(told, "progress")


def test_a_run_without_work_says_that_it_is_finished(bench: Workbench) -> None:
    """The last event tells how a run stands, also where nothing was to be done."""
    job = bench.job()
    events_of(job, simulator())
    (finished,) = events_of(job, simulator())
    assert (finished["event"], finished["had_work"], finished["exit_code"]) == ("run_finished", False, 0)


def test_a_consumer_that_fails_never_fails_the_run(bench: Workbench) -> None:
    """It is told nothing more, and the run is what it would have been."""

    def emit(event: dict[str, Any]) -> None:
        raise OSError("no space left")

    summary = virtual_time.run(cometbatch.run_async(bench.job(), http=simulator(), events=emit, progress=False))
    assert summary.all_succeeded


# -- what is never told ------------------------------------------------------------------------------------------------


def quoting(status: int, code: str = "") -> Callable[[httpx.Request], httpx.Response | None]:
    """A service that refuses everything and quotes what it was asked."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        said = {"message": f"can't do: {request.content.decode()}", "code": code or f"bad: {SECRET}"}
        return httpx.Response(status, json={"error": said}, headers={"x-request-id": f"id of {SECRET}"})

    return answer


def some(status: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """The same for each third request."""
    refuse, seen = quoting(status), Counter[str]()

    def answer(request: httpx.Request) -> httpx.Response | None:
        seen[request.method] += 1
        return refuse(request) if seen[request.method] % 3 == 0 else None

    return answer


def write_secrets(bench: Workbench, text: str = SECRET) -> None:
    """A table in which each cell is secret, and is no number and no JSON."""
    lines = "".join(f'{row:04d},"{text} {row}"\n' for row in range(150))
    bench.input.write_text("parcel,note\n" + lines, encoding="utf-8")


@pytest.mark.parametrize(
    ("answer", "sections", "last"),
    [
        (some(400), {}, "run_finished"),
        (quoting(400), {}, "run_stopped"),
        (quoting(401), {}, "run_stopped"),
        (quoting(403, "insufficient_quota"), {}, "run_stopped"),
        (quoting(404), {}, "run_stopped"),
        (quoting(429), {"retry": {"max_pushback_s": 60}}, "run_stopped"),
        (quoting(503), {"retry": {"max_pushback_s": 60}}, "run_stopped"),
        (quoting(500), {"retry": {"max_attempts": 2}}, "run_stopped"),
        (quoting(200), {}, "run_stopped"),
        (None, {"prompt": {"user": "{{ (note | fromjson).x }}"}}, "run_finished"),
        (None, {"prompt": {"user": "{{ note | float(none) + note | int(none) }}"}}, "run_finished"),
        (None, {"params": {"columns": {"temperature": "note"}}}, "run_finished"),
        (None, {"input": {"id": "note"}}, "run_finished"),
    ],
)
def test_no_cell_no_prompt_and_no_answer_is_in_an_event(
    bench: Workbench, answer: Any, sections: dict[str, Any], last: str
) -> None:
    """However a service quotes them, and whatever can't be made of a row; and yet each failure has its kind."""
    write_secrets(bench)
    told = events_of(bench.job(**sections), Network(answer=answer))
    assert told[-1]["event"] == last
    said = json.dumps(told)
    assert SECRET not in said
    assert "Parcel 0" not in said
    assert last == "run_finished" or told[-1]["message"].strip()


@pytest.mark.parametrize(
    "content",
    [
        f"parcel,note\n1,{SECRET},{SECRET}\n",
        f'parcel,note\n1,"{SECRET}\n',
        f'parcel,note\n1,"{SECRET}" {SECRET}\n',
    ],
    ids=["a cell too many", "an open quote", "text after a quote"],
)
def test_an_error_of_the_input_is_logged_without_the_cell(bench: Workbench, content: str) -> None:
    """It names file and line, and a person is shown how the row begins; a log is not."""
    bench.input.write_text(content, encoding="utf-8")
    with pytest.raises(cometbatch.InputError) as caught:
        cometbatch.run(bench.job(), http=simulator(), progress=False)
    (event,) = [event_of("error", NOW, {"message": caught.value.args[0]})]
    assert SECRET not in json.dumps(event)
    assert "in.csv, line 2: " in event["message"]


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_words_that_quote_are_the_same_words_for_a_person(quote: str, before: str, after: str) -> None:
    """A quote changes what a log has, and nothing else; it is kept over a copy."""
    words = f"{before}{quote}{after}"
    said = cometbatch.errors.quoting(words, quote, "-")
    assert (str(said), f"{said}", said == words) == (words, words, True)
    assert quote == "-" or quote not in cometbatch.errors.logged(said) or quote in f"{before}-{after}"


def test_a_failure_is_logged_in_facts() -> None:
    """Its kind, status, code and request, without the message that may quote the prompt; the network quotes nothing."""
    assert (
        Failure("auth", SECRET, 401, "invalid_key", "req-1").logged
        == "auth, HTTP 401, code invalid_key, request id req-1"
    )
    assert Failure("connection", "refused").logged == "connection: refused"
    assert Failure("template", SECRET).logged == "template"
