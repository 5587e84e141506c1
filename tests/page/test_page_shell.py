"""The page around its views: addresses, keys, themes, help, and what it says where it can't be shown."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import cometbatch
from cometbatch.reports.page.html import ASSETS
from tests.page.accessibility import faults
from tests.page.browser import AXE_WIDTHS, WIDTHS, Opener
from tests.page.handmade import BASIC, answers, column, described, write_page

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x00"
SHOWN_HOSTILE = "</script><img src=x onerror=alert(1)>\\u{202e}\\u{0}"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
FOCUSED = "document.activeElement.id"


@pytest.fixture(scope="module")
def failed_page(failed_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a result with failures."""
    path = tmp_path_factory.mktemp("pages") / "failed.html"
    cometbatch.report(failed_result, output=path)
    return path


@pytest.fixture(scope="module")
def evaluated_page(evaluated_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a result with scores."""
    path = tmp_path_factory.mktemp("pages") / "evaluated.html"
    cometbatch.report(evaluated_result, output=path)
    return path


def at(path: Path, hash_: str) -> str:
    """The URL of a page, with a hash."""
    return path.resolve().as_uri() + hash_


def dom(page: Page, expression: str) -> Any:
    """What an expression gives where the page's own functions for elements and words are in scope."""
    source = ASSETS.joinpath("dom.js").read_text(encoding="utf-8")
    return page.evaluate(f"(() => {{ 'use strict'; {source}\nreturn {expression}; }})()")


def shown_view(page: Page) -> str:
    """The name of the view that is shown; there is one."""
    views = page.locator(".view:visible")
    expect(views).to_have_count(1)
    return str(views.get_attribute("id")).removeprefix("view-")


# ---------------------------------------------------------------- views and addresses


def test_the_overview_is_the_first_view(browser_page: Opener, failed_page: Path) -> None:
    """And the navigation says so."""
    page = browser_page(failed_page)
    assert shown_view(page) == "overview"
    expect(page.get_by_role("link", name="Overview")).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("heading", level=1)).to_have_text("out.parquet")
    expect(page.locator("#subtitle")).to_contain_text("120 rows")
    expect(page.locator("#loading")).to_have_count(0)


def test_views_have_addresses(browser_page: Opener, evaluated_page: Path) -> None:
    """That links lead to, the back button leaves, and that open the page at once."""
    page = browser_page(at(evaluated_page, "#evaluation"))
    assert shown_view(page) == "evaluation"
    page.get_by_role("link", name="Rows").click()
    assert shown_view(page) == "rows"
    assert page.url.endswith("#rows")
    expect(page.locator(".grid-count")).to_have_text("240 rows")
    page.locator(".grid-box").press("End")
    expect(page.locator(".grid-body .is-active")).to_have_attribute("aria-rowindex", "241")
    page.go_back()
    assert shown_view(page) == "evaluation"


def test_an_unknown_address_leads_to_the_overview(browser_page: Opener, failed_page: Path) -> None:
    """And one that is typed later leaves the view and its rows as they are."""
    page = browser_page(at(failed_page, "#row=x"))
    assert shown_view(page) == "overview"
    page.evaluate("location.hash = '#row=3'")
    expect(page.locator(".grid-count")).to_have_text(re.compile("^1 of "))
    page.evaluate("location.hash = '#nothing'")
    assert shown_view(page) == "rows"
    expect(page.locator(".grid-count")).to_have_text(re.compile("^1 of "))


def test_no_evaluation_without_scores(browser_page: Opener, failed_page: Path) -> None:
    """Neither a link to it, nor its address."""
    page = browser_page(at(failed_page, "#evaluation"))
    expect(page.get_by_role("link", name="Evaluation")).to_have_count(0)
    assert shown_view(page) == "overview"


def test_the_address_of_a_row_shows_its_calls(browser_page: Opener, evaluated_page: Path) -> None:
    """All calls of this row of the input; the navigation's link to the rows keeps it, and the reader can go back."""
    page = browser_page(at(evaluated_page, "#row=7"))
    assert shown_view(page) == "rows"
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "7")  # 3 models, 2 samples, the header
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name="Rows").click()
    assert page.url.endswith("#row=7")
    page.evaluate("location.hash = '#rows'")
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "241")


def test_each_view_keeps_its_place(browser_page: Opener, failed_page: Path) -> None:
    """Coming back to a long view, the reader is where he was."""
    page = browser_page(failed_page, height=400)
    page.evaluate("scrollTo(0, 150)")
    page.get_by_role("link", name="Rows").click()
    page.get_by_role("link", name="Overview").click()
    assert page.evaluate("scrollY") == 150


# ---------------------------------------------------------------- keys


def test_a_slash_leads_to_the_search(browser_page: Opener, failed_page: Path) -> None:
    """From any view; the slash is not typed."""
    page = browser_page(failed_page)
    page.keyboard.press("/")
    assert shown_view(page) == "rows"
    field = page.get_by_role("searchbox")
    expect(field).to_be_focused()
    expect(field).to_have_value("")


def test_keys_are_text_while_one_types(browser_page: Opener, failed_page: Path) -> None:
    """In the search field j, k, / and ? are letters and signs."""
    page = browser_page(at(failed_page, "#rows"))
    page.keyboard.press("/")
    page.keyboard.type("jk/?")
    expect(page.get_by_role("searchbox")).to_have_value("jk/?")
    expect(page.locator("#drawer")).to_be_hidden()
    expect(page.locator("#help")).to_be_hidden()


def test_keys_with_a_modifier_are_the_browsers(browser_page: Opener, failed_page: Path) -> None:
    """Alt and a key of the page does nothing here."""
    page = browser_page(at(failed_page, "#rows"))
    page.keyboard.press("Alt+?")
    expect(page.locator("#help")).to_be_hidden()


def test_the_rows_by_keys_alone(browser_page: Opener, failed_page: Path) -> None:
    """One key marks a row, Enter opens it, Esc closes it, and the focus is at the row that was open."""
    page = browser_page(at(failed_page, "#rows"))
    expect(page.get_by_role("row").nth(3)).to_be_visible()
    for key in ("j", "j", "Enter"):
        page.keyboard.press(key)
    heading = page.locator("#drawer-heading")
    expect(heading).to_be_focused()
    first = heading.inner_text()
    page.keyboard.press("j")
    expect(heading).not_to_have_text(first)
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    assert page.evaluate("document.getElementById('view-rows').contains(document.activeElement)")
    page.keyboard.press("Enter")
    expect(heading).not_to_have_text(first)


def test_help_lists_the_keys(browser_page: Opener, failed_page: Path) -> None:
    """By ? and by its button; Esc closes it and gives the focus back."""
    page = browser_page(failed_page)
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keyboard")
    expect(help_).to_be_visible()
    for key in ("j", "k", "Enter", "Esc", "/", "?"):
        expect(help_.get_by_text(key, exact=True)).to_have_count(1)
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    button = page.get_by_role("button", name="Keyboard shortcuts")
    button.press("Enter")
    expect(help_).to_be_visible()
    help_.get_by_role("button", name="Close").click()
    expect(button).to_be_focused()


def test_keys_of_one_letter_can_be_switched_off(browser_page: Opener, evaluated_page: Path) -> None:
    """For readers who speak to their computer, or touch keys by chance; Esc stays, and so does the choice."""
    page = browser_page(at(evaluated_page, "#call=0.3"))
    page.keyboard.press("?")
    page.get_by_role("checkbox", name="Keys of one letter").uncheck()
    page.keyboard.press("Escape")
    before = page.locator("#drawer-heading").inner_text()
    page.keyboard.press("j")
    expect(page.locator("#drawer-heading")).to_have_text(re.compile(re.escape(before.split("\n")[0])))
    page.reload()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    page.get_by_role("link", name="Evaluation").click()
    place = page.locator(".answers-place")
    before = place.inner_text()
    page.keyboard.press("n")
    expect(place).to_have_text(before)
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_hidden()


def test_the_first_stop_of_the_keyboard_skips_the_header(browser_page: Opener, failed_page: Path) -> None:
    """The skip link leads to the content, and the view stays."""
    page = browser_page(at(failed_page, "#rows"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "main"
    assert shown_view(page) == "rows"


# ---------------------------------------------------------------- themes, widths, paper


def test_the_theme_follows_the_system_until_it_is_switched(browser_page: Opener, failed_page: Path) -> None:
    """Also while the page is open; a choice of the reader's stays when the page is opened again."""
    page = browser_page(failed_page, theme="dark")
    dark = page.evaluate(BACKGROUND)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(BACKGROUND)
    assert light != dark
    page.get_by_role("radio", name="Dark").check()
    assert page.evaluate(BACKGROUND) == dark
    page.reload()
    assert page.evaluate(BACKGROUND) == dark
    expect(page.get_by_role("radio", name="Dark")).to_be_checked()
    page.get_by_role("radio", name="System").check()
    assert page.evaluate(BACKGROUND) == light


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(browser_page: Opener, evaluated_page: Path, width: int) -> None:
    """In no view, with the drawer and without."""
    page = browser_page(evaluated_page, width=width)
    for hash_ in ("#overview", "#evaluation", "#rows", "#call=0.3"):
        page.evaluate("hash => { location.hash = hash; }", hash_)
        if hash_.startswith("#call"):
            expect(page.locator(".drawer-section").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, hash_


def test_paper_has_no_controls(browser_page: Opener, failed_page: Path) -> None:
    """What can't be pressed on paper is not printed; the open call is. Paper is light whatever the screen is."""
    page = browser_page(at(failed_page, "#call=0.3"), theme="dark")
    expect(page.locator(".drawer-section").first).to_be_visible()
    page.emulate_media(media="print", color_scheme="dark")
    for hidden in ("#navigation", "#theme", "#help-button", ".drawer-buttons", ".drawer-actions", ".skip-link"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.locator(".drawer-section").first).to_be_visible()
    assert page.evaluate(BACKGROUND) == "rgb(255, 255, 255)"
    assert len(page.pdf()) > 10_000


# ---------------------------------------------------------------- faults


def test_without_javascript_the_page_says_so(browser_page: Opener, failed_page: Path) -> None:
    """And what reads the result instead."""
    page = browser_page(failed_page, java_script_enabled=False)
    expect(page.locator("noscript p")).to_contain_text("cometbatch show")


def test_an_incomplete_file_says_so(browser_page: Opener, failed_page: Path, tmp_path: Path) -> None:
    """Its program stands last: where the end is missing, the words that stand there from the start stay."""
    whole = failed_page.read_bytes()
    cut = tmp_path / "cut.html"
    cut.write_bytes(whole[: whole.index(b'<script type="text/plain"') + 500])
    page = browser_page(cut)
    expect(page.locator("#loading")).to_contain_text("the file is incomplete")


def test_damage_is_said(browser_page: Opener, tmp_path: Path) -> None:
    """A chunk that can't be read is named in the page, and in the console."""
    path = write_page(tmp_path / "page.html", answers(3))
    damaged = re.sub(rb'class="short">[A-Za-z0-9+/=]{40}', b'class="short">' + b"A" * 40, path.read_bytes())
    path.write_bytes(damaged)
    page = browser_page(at(path, "#rows"))
    expect(page.get_by_role("alert")).to_contain_text("This report can't be shown")
    visit = browser_page.visit(page)
    assert visit.errors
    visit.errors.clear()


# ---------------------------------------------------------------- hostile texts, and those who can't see


def test_hostile_names_are_text(browser_page: Opener, tmp_path: Path) -> None:
    """The names of files and columns, in the title, the header, the table and the drawer."""
    columns = [*BASIC, column("input:x", "short", "input", title=HOSTILE)]
    rows = [{**row, "input:x": "value"} for row in answers(3)]
    source = described(HOSTILE, 3, no_prompts=HOSTILE)
    path = write_page(tmp_path / "page.html", rows, columns, title=HOSTILE, sources=[source])
    page = browser_page(at(path, "#call=0.1"))
    expect(page.locator("#drawer").get_by_text(SHOWN_HOSTILE).first).to_be_visible()
    assert page.locator("img").count() == 0
    expect(page.get_by_role("heading", level=1)).to_contain_text("onerror")


@pytest.mark.parametrize("width", AXE_WIDTHS)
def test_axe_finds_nothing(browser_page: Opener, failed_page: Path, evaluated_page: Path, width: int) -> None:
    """With a call in the drawer, one that was scored and one that failed, and in the help; in light and dark."""
    page = browser_page(at(evaluated_page, "#call=0.3"), width=width)
    expect(page.locator(".drawer-origin")).to_contain_text("it is the request that was sent")
    assert faults(page) == []
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    assert faults(page) == []
    page = browser_page(failed_page, width=width)
    page.locator(".failures .example").first.click()
    expect(page.locator(".drawer-error")).to_be_visible()
    assert faults(page) == []


def test_touched_controls_are_large_enough(browser_page: Opener, failed_page: Path) -> None:
    """Each control of the shell and of the drawer has at least 24 pixels each way."""
    page = browser_page(at(failed_page, "#call=0.3"), width=375)
    expect(page.locator(".drawer-section").first).to_be_visible()
    sizes = page.evaluate("""() => [...document.querySelectorAll("#header :is(a, button, label), #drawer button")]
        .filter(node => node.checkVisibility()).map(node => node.getBoundingClientRect())
        .map(({width, height}) => Math.min(width, height))""")
    assert len(sizes) > 10
    assert min(sizes) >= 24


# ---------------------------------------------------------------- words of the page


def blank(browser_page: Opener, folder: Path) -> Page:
    """A page with nothing in it."""
    path = folder / "blank.html"
    path.write_text("<!doctype html><meta charset=utf-8><title>Blank</title>", encoding="utf-8")
    return browser_page(path, timezone_id="UTC")


UNSEEN = [
    ("a\u202eb", "a\\u{202e}b"),
    ("\u2066x\u2069", "\\u{2066}x\\u{2069}"),
    ("a\u200bb\ufeff\u2060", "a\\u{200b}b\\u{feff}\\u{2060}"),
    ("\x00\x07\x1b[31m\x7f\x9b", "\\u{0}\\u{7}\\u{1b}[31m\\u{7f}\\u{9b}"),
    ("one\r\ntwo\tthree\n", "one\r\ntwo\tthree\n"),
    ("over\rwritten", "over\\u{d}written"),
    ("\u2028\u2029", "\\u{2028}\\u{2029}"),
    ("\U000e0041\U000e0042", "\\u{e0041}\\u{e0042}"),
    ("\u00ad\u3164", "\\u{ad}\\u{3164}"),
    ("👩\u200d💻 क्\u200dष", "👩\u200d💻 क्\u200dष"),
    ("a\u200dm\u200cin", "a\\u{200d}m\\u{200c}in"),
    ("é 字 \U0001f642 \u00a0 ➜", "é 字 \U0001f642 \u00a0 ➜"),
]
"""Texts, each with what is shown of it."""


def test_what_nobody_sees_is_shown(browser_page: Opener, tmp_path: Path) -> None:
    """Controls, marks that reorder, and marks without width are escapes; spelling and emoji stay as they are."""
    page = blank(browser_page, tmp_path)
    assert [(text, dom(page, f"visibleText({json.dumps(text)})")) for text, _ in UNSEEN] == UNSEEN


def test_half_a_character_is_shown(browser_page: Opener, tmp_path: Path) -> None:
    """Where a text was cut within an emoji, or a model wrote half of one."""
    assert dom(blank(browser_page, tmp_path), r"visibleText('a\ud83d')") == "a\\u{d83d}"


NUMBERS = [
    ("formatUsd('12.345')", "$12.35"),
    ("formatUsd(1234.5)", "$1,234.50"),
    ("formatUsd(0.0123)", "$0.0123"),
    ("formatUsd('0.000025')", "$0.000025"),
    ("formatUsd(0)", "$0"),
    ("formatUsd(null)", ""),
    ("formatCount(1234567)", "1,234,567"),
    ("formatSeconds(0.085)", "85 ms"),
    ("formatSeconds(1.239)", "1.24 s"),
    ("formatSeconds(12.34)", "12.3 s"),
    ("formatSeconds(245)", "4 min 05 s"),
    ("formatSeconds(7380)", "2 h 03 min"),
    ("formatMoment(1796065513000)", "2026-11-30 19:05:13"),
    ("formatMoment(NaN)", ""),
    ("formatCell({unit: ''}, 2024)", "2024"),
    ("formatCell({unit: 'tokens'}, 2024)", "2,024"),
    ("formatCell({unit: 'usd'}, 0.000198)", "$0.000198"),
    ("formatCell({unit: 'usd'}, 0.000196)", "$0.000196"),
    ("formatCell({unit: 'usd'}, 12.345)", "$12.35"),
    ("formatCell({unit: 'usd'}, 0)", "$0"),
    ("formatCell({unit: ''}, null)", ""),
    ("formatCell({unit: ''}, 'a\\u202e')", "a\\u{202e}"),
]
"""Expressions, each with what is shown."""


def test_numbers_are_for_people(browser_page: Opener, tmp_path: Path) -> None:
    """Rounded like the commands do, with units."""
    page = blank(browser_page, tmp_path)
    assert [(expression, dom(page, expression)) for expression, _ in NUMBERS] == NUMBERS


def test_no_element_runs_or_loads(browser_page: Opener, tmp_path: Path) -> None:
    """An attribute that could run, load or style something is refused where the element is made."""
    page = blank(browser_page, tmp_path)
    for attributes in ("{onclick: 'x()'}", "{style: 'color: red'}", "{src: 'x'}", "{href: 'x'}"):
        made = f"el('a', {attributes}); return 'made';"
        tried = f"(() => {{ try {{ {made} }} catch (error) {{ return error.message; }} }})()"
        assert "is not allowed" in dom(page, tried), attributes
