"""The page and hostile text: whatever a model, a table or a service says is shown as text, and does nothing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

import cometbatch
from tests.page import hostile_results
from tests.page.browser import Opener, drawn
from tests.page.hostile_results import NAMES, TEXTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOREIGN = (
    "img, iframe, object, embed, form, base, video, audio, link:not([rel=icon]), svg script, [onclick], [onerror], "
    "[onload], [onfocus], [onmouseover]"
)
"""Elements that no page of ours has."""
SHOWN = 60  # characters of a text that are looked for


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a result whose every cell and column name is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    cometbatch.report(hostile_results.answered(folder), output=folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def hostile_scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation of hostile models and questions."""
    folder = tmp_path_factory.mktemp("hostile-scores")
    cometbatch.report(hostile_results.evaluated(folder), output=folder / "report.html")
    return folder / "report.html"


def is_inert(page: "Page") -> None:
    """Nothing of the data runs, and nothing of it is an element."""
    assert page.evaluate("typeof hit") == "undefined"
    assert page.locator(FOREIGN).count() == 0
    assert page.locator("script:not([type])").count() == 1
    assert page.locator("style").count() == 1
    links = page.locator("a[href]").evaluate_all("nodes => nodes.map((node) => node.getAttribute('href'))")
    assert all(each.startswith(("#", "blob:")) for each in links)


def escaped(text: str) -> str:
    """How the page shows a text: what nobody sees, or what turns others round, as escapes."""
    unseen = re.compile(
        "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]|\r(?!\n)"
    )
    return unseen.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)


def lines(text: str) -> str:
    """A text with all of its white space alike."""
    return " ".join(text.split())


def test_hostile_answers_errors_and_prompts_are_shown_as_text(browser_page: Opener, hostile_page: Path) -> None:
    """In the drawer: each as it is, with marks in the place of what can't be seen; a megabyte's beginning."""
    page = browser_page(hostile_page)
    expect(page.locator("#view-overview")).to_be_visible()
    is_inert(page)
    for number, text in enumerate(TEXTS.values()):
        page.evaluate(f"location.hash = '#call=0.{number}'")
        drawer = page.locator("#drawer")
        expect(drawer).to_be_visible()
        expect(drawer).to_contain_text(lines(escaped(text[:SHOWN])))
        is_inert(page)


def test_hostile_cells_and_column_names_are_shown_as_text(browser_page: Opener, hostile_page: Path) -> None:
    """In the table, with all columns, and in what filters them."""
    page = browser_page(hostile_page, width=2560)
    page.evaluate("location.hash = '#rows'")
    expect(page.locator("#view-rows [role=grid], #view-rows table").first).to_be_visible()
    page.locator("summary", has_text="Columns").click()
    for name in NAMES:
        box = page.get_by_label(escaped(name), exact=True).first
        if not box.is_checked():
            box.check()
    page.keyboard.press("Escape")
    for name in NAMES:
        expect(page.get_by_role("columnheader").filter(has_text=escaped(name)).first).to_be_attached()
    is_inert(page)


def test_a_hostile_evaluation_is_shown_as_text(browser_page: Opener, hostile_scores: Path) -> None:
    """Models, questions, reasons."""
    page = browser_page(hostile_scores)
    page.evaluate("location.hash = '#evaluation'")
    view = page.locator("#view-evaluation")
    expect(view).to_contain_text(TEXTS["an image"])
    expect(view).to_contain_text(escaped(TEXTS["another direction"]))
    is_inert(page)


def test_search_takes_any_text(browser_page: Opener, hostile_page: Path) -> None:
    """As it is typed, without a pattern's meaning."""
    page = browser_page(hostile_page)
    page.evaluate("location.hash = '#rows'")
    for text in (TEXTS["an image"], "</script>", "(", "\\", "[a-"):
        page.get_by_role("searchbox").first.fill(text)
        expect(page.locator(".grid-progress")).to_be_hidden()
        drawn(page)
        is_inert(page)


@pytest.fixture
def open_page(browser_page: Opener, large_page: Path) -> Iterator["Page"]:
    """A page that a test tries to break out of: what the browser refuses is no fault of the page."""
    page = browser_page(large_page)
    yield page
    visit = browser_page.visit(page)
    visit.errors.clear()
    visit.requests.clear()


def test_the_policy_is_there(large_page: Path) -> None:
    """In the head, before anything that it is about: nothing by default, scripts and styles by their hash."""
    text = large_page.read_text(encoding="utf-8")
    policy = re.search('<meta http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy.start() < min(text.index("<script"), text.index("<style"), text.index("<link"))
    rules = dict(each.strip().split(" ", 1) for each in policy[1].split(";"))
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["script-src"])
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules["style-src"])
    assert rules["img-src"] == "data:"
    assert "unsafe" not in policy[1]


ATTEMPTS = {
    "a script": ("script-src-elem", "add('script', {textContent: 'window.hit = 1'})"),
    "a script of a file": ("script-src-elem", "add('script', {src: 'http://127.0.0.1:9/x.js'})"),
    "a handler": ("script-src-attr", "add('b', {}, {onclick: 'window.hit = 1'}).click()"),
    "a link to a script": ("script-src-elem", "add('a', {href: 'javascript:window.hit = 1'}).click()"),
    "text as a program": ("script-src", "try { eval('window.hit = 1') } catch {}"),
    "a style": ("style-src-elem", "add('style', {textContent: 'body { display: none }'})"),
    "a style of a file": ("style-src-elem", "add('link', {rel: 'stylesheet', href: 'http://127.0.0.1:9/x.css'})"),
    "an image": ("img-src", "add('img', {src: 'http://127.0.0.1:9/x.png'})"),
    "a frame": ("frame-src", "add('iframe', {src: 'http://127.0.0.1:9/'})"),
    "a request": ("connect-src", "fetch('http://127.0.0.1:9/').catch(() => 0)"),
    "a beacon": ("connect-src", "navigator.sendBeacon('http://127.0.0.1:9/', 'x')"),
    "a socket": ("connect-src", "try { new WebSocket('ws://127.0.0.1:9/') } catch {}"),
    "a form": ("form-action", "add('form', {action: 'http://127.0.0.1:9/'}).submit()"),
    "a font": ("font-src", "new FontFace('x', 'url(http://127.0.0.1:9/x.woff)').load().catch(() => 0)"),
}
"""What a script of a page might try, each with the rule that refuses it."""
TRY = """
() => new Promise((resolve) => {
  const add = (tag, properties, attributes = {}) => {
    const node = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    document.body.append(node);
    return node;
  };
  const done = (rule) => setTimeout(() => resolve([rule, typeof hit]), 0);
  document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective), { once: true });
  setTimeout(() => done("nothing refused it"), 3000);
  setTimeout(() => { %s; }, 0); // later, since what a test asks for itself is let pass
})
"""


def test_the_policy_holds(open_page: "Page") -> None:
    """Even a script that had got into the page could load nothing, send nothing and start no other script."""
    for what, (rule, attempt) in ATTEMPTS.items():
        assert open_page.evaluate(TRY % attempt) == [rule, "undefined"], what
