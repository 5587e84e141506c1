"""The view of rows: what a reader finds by search, filters, order and keys, with any text in any cell."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Locator, expect

from tests.page.accessibility import faults
from tests.page.browser import AXE_WIDTHS, WIDTHS, Opener, drawn
from tests.page.handmade import column, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

COLUMNS = [
    column("ordinal", "number", "call"),
    column("row", "number", "call"),
    column("custom_id", "short", "call"),
    column("axis:tone", "word", "call", title="tone"),
    column("status", "word", "outcome"),
    column("error_kind", "word", "outcome"),
    column("error_message", "text", "outcome"),
    column("prompt", "text", "text"),
    column("response", "text", "text"),
    column("score:right", "number", "score"),
    column("input:city", "short", "input", title="city"),
    column("input:people", "number", "input", title="people"),
    column("output_tokens", "number", "usage", unit="tokens"),
    column("cost_usd", "number", "usage", unit="usd"),
    column("latency_s", "number", "sending", unit="s"),
    column("frame", "number", "sending"),
]
FRAMES: list[dict[str, Any]] = [
    {
        "body": ['{"messages":[{"role":"user","content":"', 0, '"}]}'],
        "messages": [{"role": "system", "parts": [{"text": text}]}, {"role": "user", "parts": [{"slot": 0}]}],
        "url": "https://api.cometapi.com/v1/chat/completions",
        "headers": [],
        "auth": ["authorization", "Bearer ", "COMETAPI_KEY"],
        "format": "chat",
        "model": "m",
        "images": False,
        "hash": None,
    }
    for text in ("Answer like a pirate.", "Answer like a clerk.")
]
CITIES = ("Ystad", "oslo", "Århus", None, "Bergen")
ROWS = 300


def row(number: int) -> dict[str, Any]:
    """A row of the page: every tenth failed, every other one has a tone."""
    failed = number % 10 == 9
    return {
        "ordinal": number,
        "row": number,
        "custom_id": f"id-{number:03d}",
        "axis:tone": "kind" if number % 2 else "stern",
        "status": "failed" if failed else "succeeded",
        "error_kind": "rate_limited" if failed else None,
        "error_message": f"Too many requests at {number}." if failed else None,
        "prompt": f"Question {number}:\nwhat of it?",
        "response": None if failed else f"Answer {number}.",
        "score:right": None if failed else number % 4 / 4,
        "input:city": CITIES[number % 5],
        "input:people": number * 1_000.0,
        "output_tokens": None if failed else float(number % 7),
        "cost_usd": None if failed else number * 1e-6,
        "latency_s": 0.1 + (number * 37 % ROWS) / 100,
        "frame": 0.0 if number < 4 else 1.0,
    }


def rows_with(**changed: Any) -> list[dict[str, Any]]:
    """The page's rows, some with other cells: `row_7={"response": ...}`."""
    return [row(number) | changed.get(f"row_{number}", {}) for number in range(ROWS)]


def show(
    browser_page: Opener,
    folder: Path,
    rows: Sequence[dict[str, Any]],
    *,
    columns: Sequence[dict[str, str]] = COLUMNS,
    meta: dict[str, Any] | None = None,
    **settings: Any,
) -> "Page":
    """The view of these rows."""
    path = write_page(folder / "page.html", rows, columns, size=100, **({"frames": FRAMES} | (meta or {})))
    page = browser_page(f"{path.as_uri()}#rows", **settings)
    expect(page.locator("#grid-count")).to_have_text(f"{len(rows)} rows")
    return page


def ids(page: "Page") -> list[str]:
    """The names of the rows on screen, from the top; all of them where they fit."""
    expect(page.locator(".grid-cell", has_text=re.compile("^…$"))).to_have_count(0)
    return page.locator(".grid-body [role=rowheader]").all_text_contents()


def search(page: "Page", query: str, count: int) -> list[str]:
    """The names of the rows that a search finds."""
    page.locator("#grid-search").fill(query)
    expect(
        page.locator(".grid-progress")
    ).to_be_hidden()  # from here on the page is about this query, and not the last one
    drawn(page)
    expect(page.locator("#grid-count")).to_have_text(f"{count} of {ROWS} rows" if count < ROWS else f"{ROWS} rows")
    return ids(page) if count else []


def cells(page: "Page", place: int) -> list[str]:
    """What a row on screen shows."""
    return page.locator(f"#grid-row-{place} > div").all_text_contents()


def choose(page: "Page", panel: str, *labels: str) -> None:
    """Opens a panel and ticks or unticks."""
    page.locator("summary", has_text=panel).first.click()
    for label in labels:
        page.locator(".grid-filter[open] label", has_text=label).first.click()


def active(page: "Page") -> str | None:
    """The name of the active row."""
    found = page.locator(".grid-row.is-active [role=rowheader]")
    return found.text_content() if found.count() else None


def test_the_first_rows_show_question_and_answer(browser_page: Opener, tmp_path: Path) -> None:
    """On one line each, with units; a failed row shows its error instead of an answer."""
    page = show(browser_page, tmp_path, rows_with())
    assert ids(page)[:3] == ["id-000", "id-001", "id-002"]
    assert cells(page, 8) == [
        "id-008", "stern", "succeeded", "Question 8: what of it?", "Answer 8.", "0", "1", "$0.00000800", "3.06 s",
    ]  # fmt: skip
    assert cells(page, 9)[2:5] == ["failed", "Question 9: what of it?", "Too many requests at 9."]


def test_only_rows_on_screen_are_in_the_document(browser_page: Opener, tmp_path: Path) -> None:
    """The grid says how many there are, and each row which it is."""
    page = show(browser_page, tmp_path, rows_with())
    grid = page.get_by_role("grid")
    assert grid.get_attribute("aria-rowcount") == "301"
    assert page.locator(".grid-body .grid-row").count() < 60
    grid.evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    expect(page.locator("#grid-row-299")).to_contain_text("Too many requests at 299.")
    assert page.locator("#grid-row-299").get_attribute("aria-rowindex") == "301"
    assert page.locator("#grid-row-0").count() == 0


QUERIES = [
    ("answer kind id-007", ["id-007"]),  # each word is in the row, wherever
    ('"answer 17"', ["id-017", *(f"id-17{digit}" for digit in range(9))]),  # a phrase
    ("TOO MANY 29.", ["id-029", "id-129", "id-229"]),  # an error
    ("id-123", ["id-123"]),  # a name
    ("pirate", ["id-000", "id-001", "id-002", "id-003"]),  # a constant text of the prompt
    ("Århus id-012", ["id-012"]),  # name and input
    ("ÅRHUS id-012", ["id-012"]),  # in any case, beyond ASCII
    ("16000", ["id-016"]),  # exactly this number in the input
    ("answer xyzzy", []),
    ("[.*", []),  # no pattern
]
"""Each with the rows that it finds."""


def test_a_search_finds_rows_with_all_words(browser_page: Opener, tmp_path: Path) -> None:
    """In texts, names, words and constant texts, of all chunks, in the order of the rows."""
    page = show(browser_page, tmp_path, rows_with())
    for query, found in QUERIES:
        assert search(page, query, len(found)) == found, query


def test_a_hit_lies_within_one_text(browser_page: Opener, tmp_path: Path) -> None:
    """Texts that touch in the file are apart, whatever characters they are made of."""
    odd = rows_with(
        row_0={"prompt": "\ufeffmark", "response": "İstanbul ẞ 🙂🙂"},
        row_1={"prompt": "half", "response": "way"},
        row_2={"prompt": None, "response": "KELVIN \u212a"},
        row_3={"prompt": "\U0001f642 alone", "response": ""},
    )
    page = show(browser_page, tmp_path, odd)
    assert search(page, "halfway", 0) == []
    assert search(page, '"ark"', 1) == ["id-000"]
    assert search(page, "half way", 1) == ["id-001"]
    assert search(page, "🙂🙂", 1) == ["id-000"]
    assert search(page, "🙂", 2) == ["id-000", "id-003"]
    assert search(page, "ß", 1) == ["id-000"]
    assert search(page, '"kelvin k"', 1) == ["id-002"]
    assert cells(page, 0)[0] == "id-002"


def test_exact_values_are_found(browser_page: Opener, tmp_path: Path) -> None:
    """Also those that a cell shows shorter, but not the page's own words for them."""
    large = {"input:people": 2.0**53}
    long = {"more": {"full": {"input:city": 'so "long" a name', "input:people": str(2**53 + 1)}}}
    page = show(browser_page, tmp_path, rows_with(row_5=large | long, row_6=large))
    assert search(page, '"a name"', 1) == ["id-005"]
    assert search(page, "input:city", 0) == []
    assert search(page, str(2**53 + 1), 1) == ["id-005"]  # which has the same float as the number of row 6


def test_the_last_query_wins(browser_page: Opener, tmp_path: Path) -> None:
    """However quickly one follows another."""
    page = show(browser_page, tmp_path, rows_with())
    page.evaluate(
        """() => {
          const field = document.getElementById("grid-search");
          for (const query of ["answer", "id-12", "zzz", "id-299"]) {
            field.value = query;
            field.dispatchEvent(new Event("input"));
          }
        }"""
    )
    expect(page.locator("#grid-count")).to_have_text("1 of 300 rows")
    assert ids(page) == ["id-299"]


def test_hits_are_marked(browser_page: Opener, tmp_path: Path) -> None:
    """A text is shown from where they are."""
    page = show(browser_page, tmp_path, rows_with(row_12={"response": "It is long. " * 99 + "Here it is."}))
    assert search(page, "long HERE", 1) == ["id-012"]
    expect(page.locator("#grid-row-0")).to_contain_text("…It is long. It is long. Here it is.")
    assert page.locator("#grid-row-0 mark").all_text_contents() == ["long", "long", "Here"]


def test_words_filter_with_counts(browser_page: Opener, tmp_path: Path) -> None:
    """The counts are those that the other filters leave; a chip takes a filter away."""
    page = show(browser_page, tmp_path, rows_with())
    choose(page, "Status", "failed")
    expect(page.locator("#grid-count")).to_have_text("30 of 300 rows")
    page.keyboard.press("Escape")
    expect(page.locator("summary", has_text="Status (1)")).to_be_focused()
    choose(page, "tone", "kind")
    assert page.locator(".grid-filter[open] label").all_text_contents() == ["kind30", "stern0"]
    assert ids(page)[:2] == ["id-009", "id-019"]
    page.get_by_role("button", name="Remove the filter Status: failed").click()
    expect(page.locator("#grid-count")).to_have_text("150 of 300 rows")


def test_rows_without_a_word_can_be_chosen(browser_page: Opener, tmp_path: Path) -> None:
    """As those without an error kind."""
    page = show(browser_page, tmp_path, rows_with())
    choose(page, "Error kind", "(none)")
    expect(page.locator("#grid-count")).to_have_text("270 of 300 rows")


def test_numbers_filter_by_bounds(browser_page: Opener, tmp_path: Path) -> None:
    """Rows without the number are left out."""
    page = show(browser_page, tmp_path, rows_with())
    choose(page, "Scores")
    page.get_by_label("right, from").fill("0.5")
    expect(page.locator("#grid-count")).to_have_text("135 of 300 rows")
    page.get_by_label("right, to").fill("0.5")
    expect(page.locator(".grid-chip")).to_contain_text("right: 0.5")
    expect(page.locator("#grid-count")).to_have_text("75 of 300 rows")


def test_no_row_matches(browser_page: Opener, tmp_path: Path) -> None:
    """The page says so, and shows all rows again with one button."""
    page = show(browser_page, tmp_path, rows_with())
    search(page, "xyzzy", 0)
    expect(page.locator("#view-rows .empty")).to_contain_text("No row matches.")
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator("#grid-count")).to_have_text("300 rows")
    expect(page.locator("#grid-search")).to_have_value("")
    expect(page.locator("#grid-search")).to_be_focused()


def test_each_column_sorts(browser_page: Opener, tmp_path: Path) -> None:
    """Numbers from the largest, names without regard to case, nulls last; a third click gives the result's order."""
    page = show(browser_page, tmp_path, rows_with())
    header = page.get_by_role("columnheader", name="Tokens out")
    assert header.get_attribute("aria-sort") == "none"
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(header.get_by_role("button")).to_be_focused()
    assert ids(page)[:3] == ["id-006", "id-013", "id-020"]
    page.locator('[data-column="output_tokens"]').click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert ids(page)[:2] == ["id-000", "id-007"]
    page.get_by_role("grid").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    expect(page.locator("#grid-row-299 [role=rowheader]")).to_have_text("id-299")
    page.locator('[data-column="output_tokens"]').click()
    expect(header).to_have_attribute("aria-sort", "none")
    choose(page, "Columns", "city")
    page.keyboard.press("Escape")
    page.locator('[data-column="input:city"]').click()
    expect(page.locator("#grid-row-0")).to_contain_text("Bergen")
    expect(page.get_by_role("grid")).to_contain_text("Bergen")
    page.get_by_role("grid").evaluate("(box) => { box.scrollTop = 34 * 60; }")
    expect(page.locator("#grid-row-62")).to_contain_text("oslo")


def test_columns_are_chosen(browser_page: Opener, tmp_path: Path) -> None:
    """They keep their order; the usual ones come back with a button; the last one stays."""
    page = show(browser_page, tmp_path, rows_with())
    choose(page, "Columns", "people", "Prompt")
    heads = page.locator("[role=columnheader]")
    assert heads.all_text_contents() == [
        "ID", "tone", "Status", "Response", "right", "people", "Tokens out", "Cost", "Latency",
    ]  # fmt: skip
    page.get_by_role("button", name="The usual columns").click()
    assert "Prompt" in heads.all_text_contents()
    assert "people" not in heads.all_text_contents()
    boxes = page.locator(".grid-filter[open] input:checked")
    while boxes.count() > 1:
        boxes.first.click()
    boxes.first.click()
    assert heads.count() == 1


def test_keys_lead_through_the_rows(browser_page: Opener, tmp_path: Path) -> None:
    """Arrows, j and k, page and ends; Enter opens the row, Escape leads back to it."""
    page = show(browser_page, tmp_path, rows_with())
    grid = page.get_by_role("grid")
    grid.focus()
    page.keyboard.press("ArrowDown")
    assert active(page) == "id-000"
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    assert active(page) == "id-001"
    assert grid.get_attribute("aria-activedescendant") == "grid-row-1"
    page.keyboard.press("End")
    expect(page.locator(".grid-row.is-active")).to_contain_text("id-299")
    page.keyboard.press("PageUp")
    assert (active(page) or "") < "id-299"
    page.keyboard.press("Home")
    assert active(page) == "id-000"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_be_visible()
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(r"#call=0\.2$"))
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    expect(grid).to_be_focused()
    assert active(page) == "id-002"
    page.keyboard.press("/")
    expect(page.locator("#grid-search")).to_be_focused()


def test_a_click_opens_a_row(browser_page: Opener, tmp_path: Path) -> None:
    """In the drawer."""
    page = show(browser_page, tmp_path, rows_with())
    page.locator("#grid-row-3").click()
    expect(page).to_have_url(re.compile(r"#call=0\.3$"))


def test_an_address_filters_to_a_row(browser_page: Opener, tmp_path: Path) -> None:
    """A chip says so, and takes it away."""
    path = write_page(tmp_path / "page.html", rows_with(), COLUMNS, size=100, frames=FRAMES)
    page = browser_page(f"{path.as_uri()}#row=17")
    expect(page.locator("#grid-count")).to_have_text("1 of 300 rows")
    assert ids(page) == ["id-017"]
    page.get_by_role("button", name="Remove the filter Row: 17").click()
    expect(page.locator("#grid-count")).to_have_text("300 rows")


def test_a_table_taller_than_a_browser_draws_shows_each_row(browser_page: Opener, tmp_path: Path) -> None:
    """Scrolling is scaled then: its ends are the table's, and keys reach each row."""
    path = write_page(tmp_path / "page.html", rows_with(), COLUMNS, size=100, frames=FRAMES)
    text = path.read_text(encoding="utf-8")
    assert "const TALLEST = 8e6;" in text
    path.write_text(text.replace("const TALLEST = 8e6;", "const TALLEST = 2000;"), encoding="utf-8")
    page = browser_page(f"{path.as_uri()}#rows", bypass_csp=True)
    expect(page.locator("#grid-count")).to_have_text("300 rows")
    grid = page.get_by_role("grid")
    assert grid.evaluate("(box) => box.scrollHeight") < 2_100
    grid.focus()
    page.keyboard.press("End")
    for number in (299, 298, 297):
        last = page.locator(f"#grid-row-{number}")
        expect(last).to_contain_text(f"id-{number}")
        assert is_inside(last, grid)
        page.keyboard.press("ArrowUp")
    grid.evaluate("(box) => { box.scrollTop = 0; }")
    expect(page.locator("#grid-row-0")).to_be_visible()
    assert is_inside(page.locator("#grid-row-0"), grid)


def is_inside(node: Locator, box: Locator) -> bool:
    """Whether an element lies within the box that scrolls it, from top to bottom."""
    inner, outer = node.bounding_box(), box.bounding_box()
    assert inner is not None
    assert outer is not None
    return inner["y"] >= outer["y"] and inner["y"] + inner["height"] <= outer["y"] + outer["height"] + 1


def test_rows_that_come_later_are_searched_and_filtered(browser_page: Opener, tmp_path: Path) -> None:
    """As in a page that is watched: each row is searched once, whenever it comes."""
    columns = [each for each in COLUMNS if each["kind"] != "word"]
    text = write_page(tmp_path / "later.html", rows_with(), columns, size=150, frames=FRAMES).read_text(
        encoding="utf-8"
    )
    blobs = re.findall(r'class="(?:short|text)">([^<]+)<', text)
    path = write_page(tmp_path / "page.html", [], columns, size=100, frames=FRAMES)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("const app = new App(", "const app = window.app = new App("), encoding="utf-8")
    page = browser_page(f"{path.as_uri()}#rows", bypass_csp=True)
    expect(page.locator("#view-rows .empty")).to_have_text("There are no rows yet.")
    add = """async ([short, text]) => {
      await app.store.addChunk(Uint8Array.fromBase64(short), () => Uint8Array.fromBase64(text));
      app.refresh();
      app.update();
    }"""
    page.evaluate(add, [blobs[0], blobs[2]])
    expect(page.locator("#grid-count")).to_have_text("150 rows")
    page.locator("#grid-search").fill("pirate")
    expect(page.locator("#grid-count")).to_have_text("4 of 150 rows")
    page.locator("#grid-search").fill("many requests")
    expect(page.locator("#grid-count")).to_have_text("15 of 150 rows")
    page.evaluate(add, [blobs[1], blobs[3]])
    expect(page.locator("#grid-count")).to_have_text("30 of 300 rows")
    assert ids(page)[0] == "id-009"
    page.locator("#grid-search").fill("")
    expect(page.locator("#grid-count")).to_have_text("300 rows")


HOSTILE = "</script><img src=x onerror=alert(1)>\u202egnp.exe\x00<b>"


def test_hostile_texts_are_shown_as_text(browser_page: Opener, tmp_path: Path) -> None:
    """In cells, words and names of columns; what is unseen is an escape, and long words keep the layout."""
    columns = [
        *COLUMNS,
        column(f"input:{HOSTILE}", "short", "input", title=HOSTILE),
        column("typed:kind", "word", "typed", title="W" * 500),
    ]
    changed = {"response": HOSTILE, "prompt": "x" * 2_000, "custom_id": HOSTILE, "typed:kind": "</style>" * 50}
    page = show(
        browser_page, tmp_path, rows_with(row_0=changed | {f"input:{HOSTILE}": HOSTILE}), columns=columns, width=375
    )
    expect(page.locator("#grid-row-0")).to_contain_text(r"</script><img src=x onerror=alert(1)>\u{202e}gnp.exe\u{0}<b>")
    choose(page, "Columns", "onerror")
    page.keyboard.press("Escape")
    choose(page, "More", "</style>")
    assert search(page, "onerror", 1)
    assert page.locator("#view-rows img, #view-rows b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 375


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_scrolls_in_its_own_box(browser_page: Opener, tmp_path: Path, width: int) -> None:
    """The page itself does not scroll sideways at any width, panels stay on it, narrow screens have fewer columns."""
    page = show(browser_page, tmp_path, rows_with(), width=width)
    assert page.locator("[role=columnheader]").count() == (4 if width <= 600 else 9)
    for summary in page.locator("#view-rows summary").all():
        summary.click()
        expect(page.locator(".grid-filter[open] .grid-panel")).to_be_in_viewport(ratio=0.99)
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".grid-filter[open]").count() == 1


@pytest.mark.parametrize("width", AXE_WIDTHS)
def test_nothing_stands_in_the_way_of_a_screen_reader(browser_page: Opener, tmp_path: Path, width: int) -> None:
    """With a row active, a panel open, filters in use, and without rows; in light and dark."""
    page = show(browser_page, tmp_path, rows_with(), width=width)
    page.get_by_role("grid").focus()
    page.keyboard.press("j")
    assert faults(page) == []
    choose(page, "Status", "failed")
    choose(page, "Scores")
    assert faults(page) == []
    search(page, "xyzzy", 0)
    assert faults(page) == []


def test_the_number_of_rows_is_said(browser_page: Opener, tmp_path: Path) -> None:
    """Once it has settled."""
    page = show(browser_page, tmp_path, rows_with())
    search(page, "id-007", 1)
    expect(page.locator("#live")).to_have_text("1 of 300 rows")


def test_a_selection_is_said(browser_page: Opener, tmp_path: Path) -> None:
    """Where the page has some of the rows alone."""
    selection = {"rows": 300, "of": 9_000, "limit": 300, "seed": 0, "parts": {}, "words": "300 of 9,000 rows are here."}
    page = show(browser_page, tmp_path, rows_with(), meta={"selection": selection})
    expect(page.locator(".grid-selection")).to_have_text("300 of 9,000 rows are here.")


def test_paper_has_the_rows_on_screen(browser_page: Opener, tmp_path: Path) -> None:
    """One after the other, and says so; the place of all others stays off it."""
    page = show(browser_page, tmp_path, rows_with())
    page.emulate_media(media="print")
    expect(page.get_by_text("These are the rows that were on screen.")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollHeight") < 2_500
    boxes = [node.bounding_box() for node in page.locator(".grid-body .grid-row").all()[:3]]
    tops = [box["y"] for box in boxes if box is not None]
    assert tops[0] < tops[1] < tops[2]


def test_the_rows_shown_are_downloaded(browser_page: Opener, tmp_path: Path) -> None:
    """With the columns shown, or all; in the order of the table."""
    page = show(browser_page, tmp_path, rows_with())
    search(page, '"answer 12"', 10)
    page.locator('[data-column="latency_s"]').click()
    choose(page, "Download CSV")
    with page.expect_download() as download:
        page.get_by_role("button", name="The columns shown").click()
    lines = list(csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert lines[0][:3] == ["custom_id", "tone", "status"]
    assert [line[0] for line in lines[1:]] == ids(page)
