"""The drawer: all of one call, as it was, and nothing of it runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

import cometbatch
from tests.page.browser import Opener
from tests.page.handmade import BASIC, answers, column, described, write_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202ea\u200bb\x00"
SHOWN_HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\\u{202e}a\\u{200b}b\\u{0}"
MORE = [
    column("model", "word", "call"),
    column("finish_reason", "word", "outcome"),
    column("error_kind", "word", "outcome"),
    column("error_message", "text", "outcome"),
    column("http_status", "number", "outcome"),
    column("prompt", "text", "text"),
    column("reasoning", "text", "text"),
    column("tool_calls", "text", "text"),
    column("score:right", "number", "score", title="score_right"),
    column("score:right_answer", "short", "score", title="score_right_answer"),
    column("score:right_why", "word", "score", title="score_right_why"),
    column("typed:city", "short", "typed", title="city"),
    column("input:body", "text", "input", title="body"),
    column("input:answer", "short", "input", title="answer"),
    column("output_tokens", "number", "usage", unit="tokens"),
    column("cost_usd", "number", "usage", unit="usd"),
    column("attempts", "number", "sending"),
    column("latency_s", "number", "sending", unit="s"),
    column("finished_at", "number", "sending", unit="ms"),
    column("request_id", "short", "sending"),
    column("frame", "number", "sending"),
    column("request_hash", "text", "sending"),
]
FRAME: dict[str, Any] = {
    "body": ['{"model":"m","messages":[{"role":"user","content":"', 0, '"}]}'],
    "messages": [{"role": "system", "parts": [{"text": "Be brief."}]}, {"role": "user", "parts": [{"slot": 0}]}],
    "url": "https://api.cometapi.com/v1/chat/completions",
    "headers": [["content-type", "application/json"]],
    "auth": ["authorization", "Bearer ", "COMETAPI_KEY"],
    "format": "chat",
    "model": "m",
    "images": False,
    "hash": "",
}
COPIES = """() => {
    window.copied = [];
    Object.defineProperty(navigator, "clipboard", {value: {writeText: async text => window.copied.push(text)}});
}"""
REFUSES = """() => {
    Object.defineProperty(navigator, "clipboard", {value: undefined});
    document.execCommand = () => false;
}"""


@pytest.fixture(scope="module")
def failed_page(failed_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a result with failures."""
    path = tmp_path_factory.mktemp("pages") / "failed.html"
    cometbatch.report(failed_result, output=path)
    return path


def handmade(folder: Path, *rows: Mapping[str, Any], **meta: Any) -> Path:
    """A page of these rows, each a small one with more in it."""
    whole = [{**row, **more} for row, more in zip(answers(len(rows)), rows, strict=True)]
    return write_page(folder / "page.html", whole, [*BASIC, *MORE], **meta)


def opened(browser_page: Opener, path: Path, hash_: str = "#call=0.0", **settings: Any) -> tuple[Page, Locator]:
    """A page with a call in its drawer, once the drawer has read it."""
    page = browser_page(path.resolve().as_uri() + hash_, **settings)
    drawer = page.locator("#drawer")
    expect(drawer.locator(".drawer-section, .notice").first).to_be_visible()
    return page, drawer


def part(drawer: Locator, title: str) -> Locator:
    """A section of the drawer."""
    return drawer.locator(".drawer-section").filter(has=drawer.page.get_by_role("heading", level=3, name=title))


def fact(drawer: Locator, name: str) -> str:
    """The value beside a name."""
    row = drawer.locator(".facts > div").filter(has=drawer.page.locator(f"dt:text-is({json.dumps(name)})"))
    return row.locator("dd").inner_text()


# ---------------------------------------------------------------- opening, closing, going on


def test_a_row_opens_and_closes(browser_page: Opener, failed_page: Path) -> None:
    """By a click; the address names the call; the back button closes it, and the table is there as before."""
    page = browser_page(failed_page.as_uri() + "#rows")
    page.get_by_role("row").nth(4).click()
    drawer = page.get_by_role("complementary")
    expect(drawer).to_be_visible()
    assert page.url.endswith("#call=0.3")
    expect(drawer.get_by_role("heading", level=2)).to_have_text("row-3 succeeded")
    page.go_back()
    expect(drawer).to_be_hidden()
    assert page.url.endswith("#rows")


def test_a_failed_row_says_how_to_ask_again(browser_page: Opener, failed_result: Path, tmp_path: Path) -> None:
    """The same command as on the first screen, with the number of rows that it asks."""
    cometbatch.report(failed_result.parent / "job.yaml", output=tmp_path / "report.html")
    page = browser_page(tmp_path / "report.html")
    line = page.locator(".failures tbody tr").first
    rows, command = line.locator(".link-button").inner_text(), line.locator("code").inner_text()
    line.locator(".example").click()
    error = part(page.locator("#drawer"), "Error")
    expect(error).to_contain_text(f"To ask all {rows} rows of this kind again:")
    expect(error.locator("code")).to_have_text(command)


def test_closing_goes_back(browser_page: Opener, failed_page: Path) -> None:
    """The close button leaves no step behind in the browser's history, however many rows were looked at."""
    page = browser_page(failed_page)
    page.get_by_role("link", name="Rows").click()
    before = page.evaluate("history.length")
    page.get_by_role("row").nth(4).click()
    page.keyboard.press("j")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#drawer")).to_be_hidden()
    assert page.url.endswith("#rows")
    assert page.evaluate("history.length") == before + 1
    page.go_back()
    expect(page.locator("#view-overview")).to_be_visible()


def test_next_and_previous_stay_among_the_filtered_rows(browser_page: Opener, tmp_path: Path) -> None:
    """In the order of the table; at its ends a word says so."""
    path = handmade(tmp_path, *({"response": "yes" if n % 2 else "no"} for n in range(8)))
    page = browser_page(path.as_uri() + "#rows")
    page.get_by_role("searchbox").fill("yes")
    page.get_by_text("4 of 8 rows").wait_for()
    page.get_by_role("row").nth(1).click()
    heading = page.locator("#drawer-heading")
    expect(page.locator(".drawer-place")).to_have_text("1 of 4")
    page.keyboard.press("k")
    expect(page.get_by_role("status").filter(has_text="This is the first row.")).to_have_count(1)
    seen = []
    for _ in range(3):
        page.get_by_role("button", name="Next row").click()
        seen.append(heading.inner_text().split("\n")[0])
    assert seen == ["id-3", "id-5", "id-7"]
    page.keyboard.press("j")
    expect(page.get_by_role("status").filter(has_text="This is the last row.")).to_have_count(1)
    page.keyboard.press("k")
    expect(heading).to_contain_text("id-5")


def test_a_link_opens_a_call_that_is_filtered_out(browser_page: Opener, tmp_path: Path) -> None:
    """The drawer opens, and says that the table does not have the row; next leads to the first that it has."""
    path = handmade(tmp_path, *({"response": "yes" if n % 2 else "no"} for n in range(8)))
    page = browser_page(path.as_uri() + "#rows")
    page.get_by_role("searchbox").fill("yes")
    page.get_by_text("4 of 8 rows").wait_for()
    page.evaluate("location.hash = '#call=0.2'")
    expect(page.locator("#drawer-heading")).to_contain_text("id-2")
    expect(page.locator(".drawer-place")).to_have_text("not among the 4 rows shown")
    page.get_by_role("button", name="Next row").click()
    expect(page.locator("#drawer-heading")).to_contain_text("id-1")


@pytest.mark.parametrize(
    ("hash_", "words"),
    [
        ("#call=0.77", "Call 77 of answers.parquet is not in this report. It has 2 of that file's 900 rows"),
        ("#call=3.0", "This report has no file 3"),
    ],
)
def test_a_call_that_is_not_there_is_said(browser_page: Opener, tmp_path: Path, hash_: str, words: str) -> None:
    """A link of a larger report, or of another one."""
    source = described("answers.parquet", 900, in_page=2)
    page, drawer = opened(browser_page, handmade(tmp_path, {}, {}, sources=[source]), hash_)
    expect(drawer.locator(".notice")).to_contain_text(words)
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()


def test_the_narrow_drawer_covers_all(browser_page: Opener, tmp_path: Path) -> None:
    """On a phone nothing behind it takes the focus; beside a wide table both can be used."""
    page, drawer = opened(browser_page, handmade(tmp_path, {}), width=375)
    box = drawer.bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 375)
    expect(page.locator("#page[inert]")).to_have_count(1)
    page.set_viewport_size({"width": 1400, "height": 800})
    expect(page.locator("#page[inert]")).to_have_count(0)
    grid = page.get_by_role("grid").bounding_box()
    wide = drawer.bounding_box()
    assert grid is not None
    assert wide is not None
    assert grid["x"] + grid["width"] <= wide["x"]


# ---------------------------------------------------------------- what it shows


def test_all_of_a_call(browser_page: Opener, tmp_path: Path) -> None:
    """Prompt by roles, answer, reasoning, typed answer, score beside gold, usage, cost, time, input columns."""
    row = {
        "model": "m",
        "prompt": "Which city?",
        "response": "ANSWER: B",
        "reasoning": "It must be B.",
        "score:right": 0,
        "score:right_answer": "B",
        "score:right_why": "other letter",
        "typed:city": "Berlin",
        "input:answer": "C",
        "output_tokens": 1234,
        "cost_usd": 1.5e-7,
        "latency_s": 1.25,
        "finished_at": 1_796_065_513_250.0,
        "frame": 0,
    }
    path = handmade(tmp_path, row, frames=[FRAME], golds={"right": "input:answer"})
    _, drawer = opened(browser_page, path, timezone_id="UTC")
    expect(drawer.locator(".message")).to_have_text(["SystemBe brief.", "UserWhich city?"])
    expect(part(drawer, "Answer").locator(".drawer-text")).to_have_text("ANSWER: B")
    expect(part(drawer, "Reasoning")).to_contain_text("It must be B.")
    expect(part(drawer, "Score").locator(".badge")).to_have_text("0")
    expect(part(drawer, "Score").locator(".score-pair > div")).to_have_text(["Extracted answerB", "GoldC"])
    assert fact(drawer, "Why") == "other letter"
    assert fact(drawer, "city") == "Berlin"
    assert fact(drawer, "Tokens out") == "1,234"
    assert fact(drawer, "Cost") == "$0.00000015"
    assert fact(drawer, "Latency") == "1.25 s"
    assert fact(drawer, "Finished") == "2026-11-30 19:05:13.250 UTC"
    expect(drawer.locator(".drawer-error")).to_have_count(0)


def test_an_error_stands_first(browser_page: Opener, tmp_path: Path) -> None:
    """With kind, message, HTTP status, request id and attempts."""
    row = {
        "status": "failed",
        "response": None,
        "error_kind": "rate_limited",
        "error_message": "slow down",
        "http_status": 429,
        "request_id": "req_7",
        "attempts": 5,
    }
    _, drawer = opened(browser_page, handmade(tmp_path, row))
    first = drawer.locator(".drawer-section").first
    expect(first.locator(".drawer-text")).to_have_text("slow down")
    expect(first.locator("dt")).to_have_text(["Kind", "HTTP status", "Request ID", "Attempts"])
    expect(first.locator("dd")).to_have_text(["rate_limited", "429", "req_7", "5"])
    expect(part(drawer, "Answer")).to_have_count(0)


def test_exact_values_win(browser_page: Opener, tmp_path: Path) -> None:
    """Where a float can't hold a cost, its stored text is shown."""
    row = {"cost_usd": 0.1, "more": {"full": {"cost_usd": "0.1000000000000000000001"}}}
    _, drawer = opened(browser_page, handmade(tmp_path, row))
    assert fact(drawer, "Cost") == "$0.1000000000000000000001"


def test_a_cut_text_is_marked(browser_page: Opener, tmp_path: Path) -> None:
    """With how much of it is there, and no JSON is laid out of a part."""
    row = {"response": "[" * 2_000, "lengths": {"response": 15_321}}
    _, drawer = opened(browser_page, handmade(tmp_path, row))
    expect(part(drawer, "Answer").locator(".cut-mark")).to_have_text("cut here: 2,000 of 15,321 characters")
    expect(drawer.get_by_role("button", name="Format JSON")).to_have_count(0)


def test_json_is_laid_out_when_asked(browser_page: Opener, tmp_path: Path) -> None:
    """First as it was answered, then over several lines, each value as it stands there, and back."""
    text = '{"city":"Ber\\"lin: {[,","at":[1,[],{}],"n":12345678901234567890.10}'
    laid_out = """{
  "city": "Ber\\"lin: {[,",
  "at": [
    1,
    [],
    {}
  ],
  "n": 12345678901234567890.10
}"""
    _, drawer = opened(browser_page, handmade(tmp_path, {"response": text}))
    shown = part(drawer, "Answer").locator(".drawer-text")
    expect(shown).to_have_text(text)
    toggle = drawer.get_by_role("button", name="Format JSON of answer")
    toggle.press("Enter")
    assert shown.inner_text() == laid_out
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    assert shown.inner_text() == text


def test_hostile_texts_are_inert(browser_page: Opener, tmp_path: Path) -> None:
    """In prompt, answer, error, scores, typed and input columns, as text in which nothing is hidden."""
    names = [each["name"] for each in [*BASIC, *MORE] if each["kind"] != "number" and each["name"] != "request_hash"]
    row: dict[str, Any] = dict.fromkeys(names, HOSTILE)
    row |= {
        "frame": 0,
        "score:right": 1,
        "http_status": 400,
        "attempts": 1,
        "cost_usd": 0,
        "more": {"slots": [len(HOSTILE)]},
    }
    path = handmade(tmp_path, row, frames=[FRAME], golds={"right": "input:answer"})
    page, drawer = opened(browser_page, path)
    for title in ("Error", "Prompt", "Answer", "Reasoning", "Tool calls", "Typed columns", "Score", "Input columns"):
        expect(part(drawer, title)).to_contain_text(SHOWN_HOSTILE)
    assert page.locator("img, iframe, object, embed, script:not(#meta):not(.short):not(.text)").count() == 1
    assert drawer.inner_html().count("<img") == 0


def test_a_long_word_wraps(browser_page: Opener, tmp_path: Path) -> None:
    """Nothing in the drawer is wider than it."""
    word = "x" * 2_000
    row = {
        "response": word,
        "input:body": word,
        "error_message": word,
        "error_kind": word[:300],
        "typed:city": word[:500],
    }
    page, drawer = opened(browser_page, handmade(tmp_path, row | {"custom_id": word[:80]}), width=320)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert drawer.evaluate("node => node.querySelector('.drawer-body').scrollWidth") <= 320
    assert drawer.evaluate("node => node.querySelector('.drawer-head').scrollWidth") <= 320


def test_the_prompt_says_how_it_came(browser_page: Opener, failed_page: Path) -> None:
    """Rendered again, and compared with what was sent by its hash."""
    _, drawer = opened(browser_page, failed_page, "#call=0.3")
    expect(drawer.locator(".drawer-origin")).to_have_text("Rendered again; it is the request that was sent.")


def test_another_prompt_than_the_one_sent_is_said(browser_page: Opener, tmp_path: Path) -> None:
    """Where the job has changed since."""
    row = {"prompt": "Hi", "frame": 0, "request_hash": "0123456789abcdef"}
    _, drawer = opened(browser_page, handmade(tmp_path, row, frames=[FRAME]))
    expect(drawer.locator(".drawer-origin.warn")).to_contain_text("it differs from the request that was sent")


# ---------------------------------------------------------------- copying


def test_copying(browser_page: Opener, tmp_path: Path) -> None:
    """The request's body, the curl line without a key, the row, the link; each says that it was copied."""
    row = {"prompt": 'Say "hi"', "frame": 0, "input:body": "b", "cost_usd": 0.1, "finished_at": 1_796_065_513_250.0}
    row["more"] = {"full": {"cost_usd": "0.10"}}
    page, drawer = opened(browser_page, handmade(tmp_path, row, frames=[FRAME]))
    page.evaluate(COPIES)
    for name, words in (
        ("Copy request (JSON)", "Request copied."),
        ("Copy curl", "curl command copied."),
        ("Copy row (JSON)", "Row copied."),
        ("Copy link", "Link copied."),
    ):
        drawer.get_by_role("button", name=name).press("Enter")
        expect(drawer.locator(".drawer-said")).to_have_text(words)
        expect(page.locator("#live")).to_have_text(words)
    request, curl, whole, link = page.evaluate("copied")
    assert json.loads(request)["messages"][0]["content"] == 'Say "hi"'
    assert curl.startswith("curl 'https://api.cometapi.com/v1/chat/completions'")
    assert "$COMETAPI_KEY" in curl
    cells = json.loads(whole, parse_float=str)
    assert cells["cost_usd"] == "0.10"
    assert cells["finished_at"] == "2026-11-30T19:05:13.250Z"
    assert cells["body"] == "b"
    assert cells["error_kind"] is None
    assert "frame" not in cells
    assert link == page.url


def test_copying_the_older_way(browser_page: Opener, tmp_path: Path) -> None:
    """Where there is no clipboard for pages from a disk; the focus stays on the button."""
    page, drawer = opened(browser_page, handmade(tmp_path, {}))
    page.evaluate("""() => {
        Object.defineProperty(navigator, "clipboard", {value: undefined});
        document.execCommand = () => { window.copied = String(document.activeElement.value); return true; };
    }""")
    button = drawer.get_by_role("button", name="Copy link")
    button.press("Enter")
    expect(drawer.locator(".drawer-said")).to_have_text("Link copied.")
    expect(button).to_be_focused()
    assert page.evaluate("copied") == page.url


def test_copying_where_the_browser_does_not_let_the_page(browser_page: Opener, tmp_path: Path) -> None:
    """The text is there, selected, with the keys that copy it."""
    page, drawer = opened(browser_page, handmade(tmp_path, {}))
    page.evaluate(REFUSES)
    drawer.get_by_role("button", name="Copy row (JSON)").click()
    area = drawer.get_by_role("textbox", name="Row, to be copied")
    expect(area).to_be_focused()
    assert area.evaluate("node => node.value.slice(node.selectionStart, node.selectionEnd)") == area.input_value()
    expect(drawer.locator(".drawer-said")).to_contain_text("press Ctrl+C")
    expect(page.locator("#live")).to_contain_text("press Ctrl+C")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()


@pytest.mark.parametrize(
    ("row", "meta", "why"),
    [
        ({}, {}, "There is no job to render prompts by."),
        ({"more": {"why": "The image cat.png is gone."}}, {"sources": [described("a", 1, no_prompts=None)]}, "is gone"),
        (
            {"prompt": "x" * 2_000, "frame": 0, "lengths": {"prompt": 9_000}},
            {"frames": [FRAME]},
            "holds the beginning of this prompt only",
        ),
    ],
)
def test_what_cant_be_copied_says_why(
    browser_page: Opener, tmp_path: Path, row: dict[str, Any], meta: dict[str, Any], why: str
) -> None:
    """The buttons are off, and the reason is there to read."""
    _, drawer = opened(browser_page, handmade(tmp_path, row, **meta))
    for name in ("Copy request (JSON)", "Copy curl"):
        button = drawer.get_by_role("button", name=name)
        expect(button).to_be_disabled()
        expect(button).to_have_accessible_description(f"No request to copy: {drawer_why(drawer)}")
    assert why in drawer_why(drawer)
    expect(drawer.get_by_role("button", name="Copy row (JSON)")).to_be_enabled()


def drawer_why(drawer: Locator) -> str:
    """The reason that the drawer shows."""
    return drawer.locator("#drawer-why").inner_text().removeprefix("No request to copy: ")
