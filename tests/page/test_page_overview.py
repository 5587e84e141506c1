"""The first screen: each number stands on it as it was given, unknown is never 0, and each leads to its rows."""

import itertools
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

import cometbatch
from cometbatch.commands.watch_server import PageServer
from cometbatch.money.exact import format_rounded
from tests.page.accessibility import faults
from tests.page.browser import AXE_WIDTHS, WIDTHS, Opener
from tests.page.overview_meta import (
    HOSTILE,
    SHOWN_HOSTILE,
    WatchedPage,
    everything,
    extremes,
    failure,
    figures,
    meta,
    plain_cost,
    series,
    write_page,
)

CLOCK: dict[str, Any] = {"timezone_id": "UTC", "locale": "en-GB"}
CONTROLS = "#view-overview :is(button, a[href], summary, [role=region])"
SIZES = """nodes => nodes.map(node => {
    const {width, height} = node.getBoundingClientRect();
    return [node.textContent, width, height];
})"""
PAINTED = """canvas => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const colors = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) colors.add(data.slice(i, i + 3).join(","));
    return [...colors];
}"""
"""The opaque colours of a canvas."""


def figure(page: Page, label: str) -> str:
    """The value and the note of a figure, in one line."""
    found = page.locator(".figure").filter(has=page.locator("dt", has_text=re.compile(f"^{re.escape(label)}$")))
    return " ".join(found.locator("dd").inner_text().split())


def cells(rows: Locator) -> list[list[str]]:
    """The texts of a table's cells."""
    return [[" ".join(text.split()) for text in row.locator("th, td").all_inner_texts()] for row in rows.all()]


def open_page(browser_page: Opener, folder: Path, said: dict[str, Any], **settings: Any) -> Page:
    """The page of this, by the clock of UTC."""
    return browser_page(write_page(folder, said), **{**CLOCK, **settings})


def test_what_it_is_stands_first(browser_page: Opener, tmp_path: Path) -> None:
    """Source, state, rows, when and how long; its notes; and which rows the page holds."""
    said = meta(figures(outcomes={"remaining": 50}), words="The page holds some rows.", notes=["A note."])
    page = open_page(browser_page, tmp_path, said)
    first = page.locator(".overview-part").first
    expect(first).to_contain_text("out/answers-0.parquet finished 100,000 of 100,050 rows")
    expect(first).to_contain_text("2026-11-30 18:25:05 to 18:37:07 (12 min 02 s)")
    expect(first).to_contain_text(", cometbatch run job.yaml")
    expect(first).to_contain_text("A note.")
    expect(first).to_contain_text("The page holds some rows.")


def test_each_outcome_has_its_count_and_share(browser_page: Opener, tmp_path: Path) -> None:
    """Shares are of all rows; nearly all is not said to be all, and a few are not said to be none."""
    counts = {"succeeded": 99_990, "incomplete": 9, "failed": 1, "remaining": 100_000}
    page = open_page(browser_page, tmp_path, meta(figures(outcomes=counts)))
    assert figure(page, "Succeeded") == "99,990 50%"
    assert figure(page, "Incomplete") == "9 <0.1%"
    assert figure(page, "Failed") == "1 <0.1%"
    assert figure(page, "Remaining") == "100,000 50%"


def test_outcomes_are_told_apart_without_colour(browser_page: Opener, tmp_path: Path) -> None:
    """In the bar, which shows those that there are, each has a pattern of its own, the same as before its name."""
    page = open_page(browser_page, tmp_path, meta(figures(outcomes={"remaining": 7})))
    patterns = "nodes => nodes.map(node => getComputedStyle(node).backgroundImage.replace(/rgba?[(][^)]*[)]/g, ''))"
    kinds = page.locator(".outcome-bar span").evaluate_all("nodes => nodes.map(node => node.className)")
    assert kinds == ["outcome-succeeded", "outcome-incomplete", "outcome-failed", "outcome-remaining"]
    bar = page.locator(".outcome-bar span").evaluate_all(patterns)
    assert len(set(bar[:3])) == 3
    assert page.locator(".outcome-sign").evaluate_all(patterns)[:4] == bar


@pytest.mark.parametrize("outcome", ["succeeded", "incomplete", "failed"])
def test_an_outcome_opens_its_rows(browser_page: Opener, tmp_path: Path, outcome: str) -> None:
    """By a click on its count; a count of 0 opens nothing."""
    none = {each: 0 for each in ("succeeded", "incomplete", "failed") if each != outcome}
    page = open_page(browser_page, tmp_path, meta(figures(outcomes=none)))
    buttons = page.locator("button.figure-value")
    expect(buttons).to_have_count(1)
    buttons.click()
    assert page.evaluate("location.hash") == "#rows"


def test_costs_are_exact_and_apart(browser_page: Opener, tmp_path: Path) -> None:
    """Each amount is rounded as the commands round it, bounds upward; the whole ones are in titles and in a table."""
    page = open_page(browser_page, tmp_path, meta(figures()))
    left_out = "12 rows without a known cost; 3 rows with more in use than is priced"
    assert figure(page, "Cost") == f"at least $12.35 {left_out}"
    charges = "for 2 requests and an unknown amount for 1 request without an answer; not in the cost"
    assert figure(page, "Possible extra charge") == f"up to $0.0007 {charges}"
    assert figure(page, "Reused") == "$0.1415 saved 1,200 rows took an answer that was paid for before"
    assert figure(page, "Rejected answers") == "$0.0021 14 answers did not fit; in the cost"
    assert figure(page, "Replaced answers") == "$0.0009 earlier answers of 5 rows; not in the cost"
    assert figure(page, "Judge") == "$0.2500 for scores; not in the cost"
    titles = page.locator(".figures-cost .figure-value").evaluate_all("nodes => nodes.map(node => node.title)")
    amounts = ("12.345678901", "0.000612", "0.14159", "0.00213", "0.0009", "0.25")
    assert titles == [f"${amount} exactly" for amount in amounts]
    page.get_by_text("Exact amounts").click()
    bounds = ("at least ", "up to ", "", "", "", "")
    exact = [line[1] for line in cells(page.locator(".exact-amounts tbody tr"))]
    assert exact == [bound + amount for bound, amount in zip(bounds, amounts, strict=True)]


def test_what_does_not_apply_is_not_there(browser_page: Opener, tmp_path: Path) -> None:
    """A run of plain answers shows what it cost and nothing else."""
    page = open_page(browser_page, tmp_path, meta(figures(cost=plain_cost("0"))))
    assert figure(page, "Cost") == "$0"
    expect(page.locator(".figures-cost .figure")).to_have_count(1)


def test_a_result_alone_tells_amounts_without_requests(browser_page: Opener, tmp_path: Path) -> None:
    """Of how many requests and rows they are is unknown, and not said to be none."""
    alone = {"possible_requests": None, "possible_usd": "0.01", "replaced_rows": None, "replaced_usd": "0.02"}
    page = open_page(browser_page, tmp_path, meta(figures(cost=plain_cost("1.5") | alone)))
    assert figure(page, "Possible extra charge") == "up to $0.0100 without an answer; not in the cost"
    assert figure(page, "Replaced answers") == "$0.0200 earlier answers; not in the cost"


def test_unknown_is_never_nothing(browser_page: Opener, tmp_path: Path) -> None:
    """Cost, tokens, times and remaining rows that nobody knows are said to be unknown."""
    unknown = figures(
        outcomes={"remaining": None},
        cost=plain_cost(None) | {"unpriced": 100_000, "possible_requests": 2, "possible_unknown": 2},
        tokens={"input": None, "output": None, "cache_read": None, "cache_write": None, "reasoning": None},
        time={"first_ms": None, "last_ms": None, "latency_p50_s": None, "latency_p95_s": None},
    )
    page = open_page(browser_page, tmp_path, meta(unknown, over_time=series([1, 2])))
    assert figure(page, "Remaining") == "unknown"
    assert figure(page, "Cost") == "unknown 100,000 rows without a known cost"
    charges = "unknown an unknown amount for 2 requests without an answer; not in the cost"
    assert figure(page, "Possible extra charge") == charges
    for label in ("In", "Out", "First to last answer", "Median latency", "95th percentile"):
        assert figure(page, label) == "unknown"
    expect(page.locator(".charts")).to_contain_text("No cost is known, so there is nothing to draw.")


def test_tokens_and_times(browser_page: Opener, tmp_path: Path) -> None:
    """Cached and reasoning tokens beside those that they are part of; latency, and attempts for each row."""
    page = open_page(browser_page, tmp_path, meta(figures()))
    assert figure(page, "In") == "48,123,456 12,000,001 read from cache; 4,321 written to cache"
    assert figure(page, "Out") == "9,123,457 1,500,002 spent on reasoning"
    assert figure(page, "Without counts") == "13 rows not in the sums"
    assert figure(page, "First to last answer") == "12 min 02 s 2026-11-30 18:25:05 to 18:37:07"
    assert figure(page, "Median latency") == "1.23 s"
    assert figure(page, "95th percentile") == "4.56 s"
    assert figure(page, "Attempts per row") == "1.03 103,412 attempts"


AMOUNTS = [
    *(
        f"{digits}e{place}"
        for digits, place in itertools.product(("1", "15", "25", "995", "12345", "99995"), range(-12, 3))
    ),
    *("0", "0.00005", "0.00015", "0.000099995", "1.005", "1.015", "0.99995", "12345678901234567890.125"),
]


def test_amounts_are_rounded_as_the_commands_do(browser_page: Opener, tmp_path: Path) -> None:
    """Of several sources, side by side: cost half to even, a possible charge upward, what was saved downward."""
    texts = [f"{Decimal(each):f}" for each in AMOUNTS]
    bounds = {"possible_requests": 1, "reused_rows": 1}
    sources = [
        figures(cost=plain_cost(each) | bounds | {"possible_usd": each, "reused_saved_usd": each}) for each in texts
    ]
    page = open_page(browser_page, tmp_path, meta(*sources))
    shown = page.locator(".figure-table tbody").nth(1).locator("tr .figure-value").all_inner_texts()
    amounts = [Decimal(each) for each in texts]
    count = len(texts)
    assert shown[:count] == [format_rounded(each) for each in amounts]
    assert shown[count : 2 * count] == [f"up to {format_rounded(each, up=True)}" for each in amounts]
    assert shown[2 * count :] == [f"{format_rounded(each, down=True)} saved" for each in amounts]


def test_several_sources_stand_side_by_side(browser_page: Opener, tmp_path: Path) -> None:
    """A column for each, with the same figures in the same lines; the box scrolls, the page does not."""
    page = open_page(browser_page, tmp_path, everything(6), width=1280)
    box = page.get_by_role("region", name="Figures of each source")
    heads = box.locator(".figure-table > thead th").all_inner_texts()
    assert len(heads) == 6
    assert heads[0] == SHOWN_HOSTILE
    lines = {line[0]: line[1:] for line in cells(box.locator(".figure-table > tbody tr"))}
    assert lines["Succeeded"][0] == "96,412 96.4%"
    assert lines["Cost"][1] != ""
    assert lines["Reused"][1] == "none"
    assert all(len(line) == 6 for label, line in lines.items() if label not in ("Cost", "Tokens", "Time"))
    page.get_by_text("Exact amounts").click()
    exact = cells(page.locator(".exact-amounts tbody tr"))
    assert exact[0] == ["Cost", "at least 12.345678901", *["unknown"] * 5]
    assert exact[1] == ["Possible extra charge", "up to 0.000612", *["none"] * 5]
    assert box.evaluate("node => node.scrollWidth > node.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_what_went_wrong_by_kind(browser_page: Opener, tmp_path: Path) -> None:
    """Count, meaning, example, and what to do next; where there is no example and no command, it says so."""
    failures = [
        failure("rate_limited", 1_800, advice="Wait first."),
        failure("length", 12, "incomplete", example=None, commands=[]),
    ]
    page = open_page(browser_page, tmp_path, meta(figures(), failures=failures))
    first, second = cells(page.locator(".failures tbody tr"))
    meaning, message = "What rate_limited means.", "The message of rate_limited."
    command = "cometbatch run job.yaml --retry rate_limited"
    assert first == ["rate_limited failed", "1,800", meaning, message, f"Wait first. {command} Copy"]
    assert second == ["length incomplete", "12", "What length means.", "none in the page", "Nothing to run."]
    told = [{"file": 0, "rows": 1_700, "command": command}, {"file": 1, "rows": 100, "command": None}]
    page = open_page(
        browser_page, tmp_path, meta(figures(), figures(), failures=[failure("rate_limited", 1_800, commands=told)])
    )
    names = page.evaluate("JSON.parse(document.getElementById('meta').textContent).sources.map(({name}) => name)")
    (line,) = cells(page.locator(".failures tbody tr"))
    own = [f"{name.rsplit('/')[-1]}: {rows} rows" for name, rows in zip(names, ("1,700", "100"), strict=True)]
    assert line[-1] == f"{own[0]} {command} Copy {own[1]} Its job file is not known."


def test_a_kind_opens_its_rows_and_an_example_its_call(browser_page: Opener, tmp_path: Path) -> None:
    """By a click on the count, and on the message."""
    page = open_page(browser_page, tmp_path, meta(figures(), failures=[failure("rate_limited", 1_800)]))
    page.locator(".failures").get_by_role("button", name="1,800: Show these rows: failed, rate_limited").click()
    assert page.evaluate("location.hash") == "#rows"
    page.go_back()
    page.get_by_role("button", name="The message of rate_limited.").click()
    assert page.evaluate("location.hash") == "#call=0.17"


def test_a_command_is_copied_as_it_is(browser_page: Opener, tmp_path: Path) -> None:
    """Also one with signs that the page shows as escapes."""
    command = "cometbatch run 'job \u202e.yaml' --retry rate_limited"
    said = meta(figures(), failures=[failure("rate_limited", 1, commands=[{"file": 0, "rows": 1, "command": command}])])
    page = open_page(browser_page, tmp_path, said, permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator(".command code")).to_have_text("cometbatch run 'job \\u{202e}.yaml' --retry rate_limited")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#live")).to_have_text("The command is copied.")
    assert page.evaluate("navigator.clipboard.readText()") == command


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ({"incomplete": 0, "failed": 0}, "Nothing: every row has a whole answer."),
        ({"succeeded": 0, "incomplete": 0, "failed": 0, "remaining": 9}, "No row has an outcome yet."),
    ],
)
def test_nothing_went_wrong(browser_page: Opener, tmp_path: Path, outcomes: dict[str, int], words: str) -> None:
    """A quiet sentence says so."""
    page = open_page(browser_page, tmp_path, meta(figures(outcomes=outcomes)))
    expect(page.locator(".card", has_text="What went wrong")).to_contain_text(words)
    expect(page.locator(".failures")).to_have_count(0)


def test_without_times_a_sentence_stands_in_place_of_charts(browser_page: Opener, tmp_path: Path) -> None:
    """No empty chart is drawn."""
    page = open_page(browser_page, tmp_path, meta(figures()))
    expect(page.locator("#view-overview")).to_contain_text("No row says when it was answered")
    expect(page.locator("canvas")).to_have_count(0)


def test_each_chart_says_its_gist(browser_page: Opener, tmp_path: Path) -> None:
    """As the text of the picture: peak, mean and total of throughput; the range of latency; the cost."""
    over_time = series([10, 30, 20], 2.0, others=[0, 1, 5], p50_s=[1.0, None, 2.5])
    page = open_page(browser_page, tmp_path, meta(figures(cost=plain_cost("0.06")), over_time=over_time))
    gists = page.locator(".chart-host").evaluate_all("nodes => nodes.map(node => node.getAttribute('aria-label'))")
    assert gists == [
        "66 rows, 6 of them incomplete or failed; 11 rows/s on average, peak 15.5 rows/s at 18:25:07.",
        "Median between 1.00 s and 2.50 s; 95th percentile at most 7.50 s, at 18:25:09.",
        "$0.0600 in all by 18:25:11.",
    ]
    assert (
        page.locator(".chart-host").evaluate_all("nodes => nodes.map(node => node.getAttribute('role'))") == ["img"] * 3
    )


def test_the_numbers_of_a_chart_are_a_table(browser_page: Opener, tmp_path: Path) -> None:
    """Below it, closed at first; each step has its line."""
    over_time = series([10, 30], 2.0, others=[0, 1], p50_s=[1.0, None])
    page = open_page(browser_page, tmp_path, meta(figures(cost=plain_cost("0.04")), over_time=over_time))
    tables = []
    for summary in page.get_by_text("The numbers as a table").all():
        summary.click()
    for chart in page.locator(".chart").all():
        expect(chart.locator("tbody tr")).to_have_count(2)
        tables.append(cells(chart.locator("tbody tr")))
    first, second = "2026-11-30 18:25:05", "2026-11-30 18:25:07"
    assert tables[0] == [[first, "10", "0", "5 rows/s"], [second, "30", "1", "15.5 rows/s"]]
    assert tables[1] == [[first, "1.00 s", "3.00 s"], [second, "none", "none"]]
    assert tables[2] == [[second, "$0.0100"], ["2026-11-30 18:25:09", "$0.0400"]]


def wait_for_color(page: Page, color: str) -> None:
    """Wait until the first chart is drawn with this colour; while its view opens there is none for a frame."""
    drawn = f"""color => {{
        const canvas = document.querySelector(".chart canvas");
        return canvas !== null && ({PAINTED})(canvas).includes(color);
    }}"""
    page.wait_for_function(drawn, arg=color)


def test_charts_take_the_colours_of_the_theme(browser_page: Opener, tmp_path: Path) -> None:
    """They are drawn again when the reader switches, and for paper."""
    page = open_page(browser_page, tmp_path, meta(figures(), over_time=series([10, 30, 20], others=[1, 0, 9])))
    light, dark = "35,85,196", "143,178,255"  # --c1
    wait_for_color(page, light)
    page.emulate_media(color_scheme="dark")
    wait_for_color(page, dark)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert light in page.locator(".chart canvas").first.evaluate(PAINTED)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert dark in page.locator(".chart canvas").first.evaluate(PAINTED)
    assert page.evaluate("document.documentElement.dataset.theme ?? null") is None


def test_charts_follow_the_width(browser_page: Opener, tmp_path: Path) -> None:
    """They are drawn again when their box becomes wider or narrower."""
    page = open_page(browser_page, tmp_path, meta(figures(), over_time=series([10, 30, 20])), width=1280)
    host = page.locator(".chart-host").first
    for width in (375, 2560, 320):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(
            "host => host.querySelector('.uplot').offsetWidth === Math.floor(host.clientWidth)",
            arg=host.element_handle(),
        )


AXIS_TEXTS = """() => {
  window.drawn = [];
  const fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    window.drawn.push(text);
    return fill.call(this, text, ...rest);
  };
}"""  # keeps what a canvas writes


def test_a_chart_names_several_moments(browser_page: Opener, tmp_path: Path) -> None:
    """Four minutes in a third of a window of 1,280 pixels: each minute has its name."""
    page = open_page(browser_page, tmp_path, meta(figures(), over_time=series([20] * 240)), width=1280)
    expect(page.locator(".chart canvas")).to_have_count(3)
    page.evaluate(AXIS_TEXTS)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => window.drawn.filter((text) => text === '18:27').length === 3")
    assert {"18:26", "18:28", "18:29"} <= set(page.evaluate("window.drawn"))


def test_charts_are_drawn_when_they_are_first_seen(browser_page: Opener, tmp_path: Path) -> None:
    """Of a page that was opened at another view, and whose theme was changed there."""
    path = write_page(tmp_path, meta(figures(), over_time=series([10, 30, 20])))
    page = browser_page(f"{path.as_uri()}#rows", **CLOCK)
    page.locator("#navigation").get_by_role("link", name="Overview").click()
    expect(page.locator(".chart canvas")).to_have_count(3)
    page.locator("#navigation").get_by_role("link", name="Rows").click()
    page.emulate_media(color_scheme="dark")
    page.locator("#navigation").get_by_role("link", name="Overview").click()
    wait_for_color(page, "143,178,255")


SHAPES = {
    "one step": series([7], 0.125),
    "one row": series([1], 0.125, p50_s=[0.002]),
    "only failures": series([0, 0, 0], others=[1, 2, 3], p50_s=[1.0, 2.0, 3.0]),
    "gaps": series([5, 0, 0, 5, 0, 5], p50_s=[1.0, None, None, 2.0, None, 3.0]),
    "no latency": series([5, 5], p50_s=[None, None]) | {"p50_s": [None, None], "p95_s": [None, None]},
    "one second": series([1, 2, 3, 4, 5, 6, 7, 8], 0.125),
    "hours": series([900] * 200, 128.0),
    "days": series([5000] * 240, 8192.0),
    "costs nothing": series([5, 5]) | {"cost_usd": [0.0, 0.0]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_charts_of_any_shape(browser_page: Opener, tmp_path: Path, shape: str) -> None:
    """One point, one second, gaps, hours and days are drawn: something is painted, and nothing fails."""
    page = open_page(browser_page, tmp_path, meta(figures(), over_time=SHAPES[shape]), width=375)
    charts = page.locator(".chart canvas")
    expect(charts).to_have_count(2 if shape == "no latency" else 3)
    for canvas in charts.all():
        assert len(canvas.evaluate(PAINTED)) > 1


def test_the_pointer_reads_values_out(browser_page: Opener, tmp_path: Path) -> None:
    """Over a step, the legend shows the values of that step."""
    over_time = series([10, 40], 2.0, others=[0, 6])
    page = open_page(browser_page, tmp_path, meta(figures(), over_time=over_time))
    chart = page.locator(".chart").first
    chart.locator(".u-over").scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 10)
    expect(chart.locator(".chart-value")).to_have_text(["20 rows/s", "3 rows/s"])
    expect(chart.locator(".chart-moment")).to_have_text("18:25:08")
    page.mouse.move(0, 0)
    expect(chart.locator(".chart-value")).to_have_text(["", ""])


def test_rows_that_stand_out_are_links(browser_page: Opener, tmp_path: Path) -> None:
    """Value and name of each; the link opens its call."""
    page = open_page(browser_page, tmp_path, meta(figures(), standing_out=extremes("ticket")))
    lists = [
        [" ".join(each.split()) for each in found.locator("li").all_inner_texts()]
        for found in page.locator(".extremes ol").all()
    ]
    assert [found[0] for found in lists] == ["ticket 0 42.5 s", "ticket 0 $0.0124", "ticket 0 4,096"]
    page.get_by_role("link", name="ticket 1").first.click()
    assert page.evaluate("location.hash") == "#call=0.6"


def test_hostile_texts_are_texts(browser_page: Opener, tmp_path: Path) -> None:
    """Markup is shown as it is, marks that nobody sees as escapes; none of them becomes an element."""
    page = open_page(browser_page, tmp_path, everything(2))
    expect(page.locator("#view-overview")).to_contain_text(SHOWN_HOSTILE)
    expect(page.locator("img")).to_have_count(0)
    texts = page.locator("#view-overview").inner_text()
    assert HOSTILE not in texts
    assert "\u202e" not in page.locator("#view-overview").evaluate("node => node.outerHTML")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("sources", [1, 3])
def test_the_page_never_scrolls_sideways(browser_page: Opener, tmp_path: Path, width: int, sources: int) -> None:
    """However narrow or wide the window is; what is wider scrolls in its own box."""
    page = open_page(browser_page, tmp_path, everything(sources), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", AXE_WIDTHS)
@pytest.mark.parametrize("sources", [1, 3])
def test_axe_finds_nothing(browser_page: Opener, tmp_path: Path, width: int, sources: int) -> None:
    """No fault of accessibility, with the numbers opened, in light and dark."""
    page = open_page(browser_page, tmp_path, everything(sources), width=width)
    for summary in page.get_by_text("The numbers as a table").all():
        summary.click()
    assert faults(page, "#view-overview") == []


def test_everything_is_reached_by_keyboard(browser_page: Opener, tmp_path: Path) -> None:
    """Tab comes to each button, link, summary and scrolling box of the first screen, and shows where it is."""
    page = open_page(browser_page, tmp_path, everything(3))
    wanted = page.locator(CONTROLS).filter(visible=True).count()
    reached = set()
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        place = page.evaluate(f"[...document.querySelectorAll({CONTROLS!r})].indexOf(document.activeElement)")
        if place >= 0:
            reached.add(place)
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert len(reached) == wanted


def test_controls_are_large_enough(browser_page: Opener, tmp_path: Path) -> None:
    """At least 24 pixels in both directions."""
    page = open_page(browser_page, tmp_path, everything(3), width=375)
    sizes = page.locator("#view-overview :is(button, summary, a[href])").evaluate_all(SIZES)
    assert [each for each in sizes if min(each[1:]) < 24] == []


def test_it_prints(browser_page: Opener, tmp_path: Path) -> None:
    """On paper nothing is wider than the page, and all sources are there."""
    page = open_page(browser_page, tmp_path, everything(1), width=1280, theme="dark")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 690, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_new_figures_leave_the_reader_in_peace(browser_page: Opener) -> None:
    """While a run goes on: focus, an opened table and its scrolled lines stay when the figures become others."""
    before = everything()
    watched = WatchedPage(before)
    with PageServer(watched) as server:
        page = browser_page(server.url, **CLOCK)
        page.locator(".chart summary").first.click()
        numbers = page.get_by_role("region", name="Throughput: numbers")
        numbers.evaluate("node => { node.scrollTop = 200; }")
        page.locator(".failures .example").first.focus()
        after = everything()
        after["overview"]["sources"][0]["outcomes"]["succeeded"] += 1
        after["overview"]["failures"][0]["rows"] += 1
        after["overview"]["series"]["succeeded"][-1] += 1
        watched.say(after)
        expect(page.locator(".failures .link-button").first).to_have_text("1,801")
        assert figure(page, "Succeeded") == "96,413 96.4%"
        expect(page.locator(".failures .example").first).to_be_focused()
        assert numbers.evaluate("node => node.scrollTop") == 200
        assert page.locator(".chart canvas").count() == 3
        page.close()


@pytest.fixture(scope="module")
def failed_page(failed_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run with failures of several kinds."""
    path = tmp_path_factory.mktemp("overview") / "report.html"
    cometbatch.report(failed_result, output=path)
    return path


def test_a_real_run_shows_what_status_says(browser_page: Opener, failed_page: Path, failed_result: Path) -> None:
    """Outcomes, tokens, cost and possible charges are those that the command tells."""
    page = browser_page(failed_page, **CLOCK)
    told = cometbatch.status(failed_result).to_dict()
    for label in ("succeeded", "incomplete", "failed"):
        assert figure(page, label.capitalize()).split()[0] == str(told[label])
    assert figure(page, "In").split()[0] == str(told["usage"]["input_tokens"])
    assert figure(page, "Cost").startswith(f"at least {format_rounded(Decimal(told['cost_usd']))} ")
    charge = format_rounded(Decimal(told["thrown_cost_usd"]), up=True)
    assert figure(page, "Possible extra charge").startswith(f"up to {charge} for {told['thrown']} requests")
    kinds = {line[0].split()[0]: int(line[1]) for line in cells(page.locator(".failures tbody tr"))}
    assert kinds == told["failures"] | told["incompletes"]


def test_each_count_leads_to_as_many_rows(browser_page: Opener, failed_page: Path) -> None:
    """Of each outcome, and of each kind of failure: the rows that the table shows then are as many."""
    page = browser_page(failed_page, **CLOCK)
    links = page.locator("button.figure-value, .failures .link-button")
    for at, count in enumerate(links.all_inner_texts()):
        links.nth(at).click()
        expect(page.locator("#grid-count")).to_have_text(f"{count} of 120 rows")
        page.locator("#navigation").get_by_role("link", name="Overview").click()


def test_examples_and_rows_that_stand_out_open_the_drawer(browser_page: Opener, failed_page: Path) -> None:
    """Each of them is in the page."""
    page = browser_page(failed_page, **CLOCK)
    first = page.locator(".extremes a").first
    name = first.inner_text()
    first.click()
    expect(page.locator("#drawer")).to_contain_text(name)
    page.keyboard.press("Escape")
    message = page.locator(".failures .example").first
    words = message.inner_text()
    message.click()
    expect(page.locator("#drawer")).to_contain_text(words)
