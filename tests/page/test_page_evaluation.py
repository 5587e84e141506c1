"""The view of the evaluation, driven in a browser: compare's numbers, pictures that say what they show, answers."""

import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

import cometbatch
from tests.page.accessibility import faults
from tests.page.browser import AXE_WIDTHS, WIDTHS, Opener
from tests.reports.results import NUMERIC, failed, incomplete, right, write, wrong
from tests.test_judging import LONG, OTHER, SHORT, Court

HOSTILE = "</script><img src=x onerror=alert(1)>\u202egnp.exe\x00"
SHOWN_HOSTILE = "</script><img src=x onerror=alert(1)>\\u{202e}gnp.exe\\u{0}"
CONTROLS = "#view-evaluation :is(button, a[href], summary, select, [tabindex='0'])"
SIZES = """nodes => nodes.filter(node => node.checkVisibility()).map(node => {
    const {width, height} = node.getBoundingClientRect();
    return [node.textContent, width, height];
})"""
IS_REACHED = """controls => {
    const node = document.activeElement;
    return node.matches(controls) && getComputedStyle(node).outlineStyle !== "none";
}"""
COLORS = """canvas => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const colors = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) colors.add(data.slice(i, i + 3).join(","));
    return [...colors];
}"""
"""The opaque colours of a canvas."""


@pytest.fixture(scope="module")
def evaluated_page(evaluated_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a job with scores."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    cometbatch.report(evaluated_result.parent / "job.yaml", output=path)
    return path


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of six models with hostile names, answers and right answers; 300 questions, two scores."""
    folder = tmp_path_factory.mktemp("hostile")
    chance = random.Random(4)
    names = [HOSTILE, "model-b-with-a-name-that-is-much-longer-than-others-of-its-kind", *("m3", "m4", "m5", "m6")]
    cells = []
    for number, name in enumerate(names):
        usual = {"cost_usd": Decimal("0.00001") * 4**number, "response": HOSTILE, "score_answer": HOSTILE}
        rows = []
        for _ in range(300):
            drawn = chance.random()
            row = (
                failed()
                if drawn < 0.02
                else incomplete()
                if drawn < 0.04
                else (right if drawn < 0.7 else wrong)(**usual)
            )
            rows.append({**row, "length": float(chance.randint(-5, 20)), "length_answer": None, "length_why": None})
        cells.append(({"model": name, "format": "chat"}, [rows]))
    inputs = {"question": [HOSTILE] * 300, "answer": [f"{HOSTILE}{at}" for at in range(300)]}
    scores = (NUMERIC, {"name": "length", "scorer": "python", "gold": ""})
    result = write(folder / "a.parquet", cells, inputs=inputs, scores=scores)
    cometbatch.report(result, output=folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def judged_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The report of a judged run without scores; and what `judge` printed."""
    folder = tmp_path_factory.mktemp("judged")
    court = Court(folder)
    job = court.job(SHORT, LONG, OTHER, judge={"pairwise": {"all": True, "ridge": 0.1}})
    found, _ = court.both(job)
    cometbatch.report(job, output=folder / "report.html")
    return folder / "report.html", found.describe(10_000)


def open_view(browser_page: Opener, path: Path, **settings: Any) -> Page:
    """The view, with all rows read."""
    page = browser_page(f"{path.resolve().as_uri()}#evaluation", **settings)
    expect(page.locator(".answers-cards").first).to_be_visible()
    return page


def texts(cells: Locator) -> list[str]:
    """The texts of these, each in one line."""
    return [" ".join(text.split()) for text in cells.all_inner_texts()]


def table(page: Page, name: str) -> list[list[str]]:
    """The cells of a table by its region's name."""
    rows = page.get_by_role("region", name=name).locator("tr")
    expect(rows.first).to_be_visible()
    return [texts(row.locator("th, td")) for row in rows.all()]


def test_the_leaderboard_is_that_of_compare(browser_page: Opener, evaluated_page: Path, evaluated_result: Path) -> None:
    """The same lines in the same order, the same digits, the baseline marked."""
    printed = cometbatch.compare(evaluated_result.parent / "job.yaml").describe(10_000).splitlines()
    page = open_view(browser_page, evaluated_page)
    head, *rows = table(page, "Leaderboard")
    assert [head[1], head[3], head[4]] == ["Score", "95 %", "SE"]
    for shown, line in zip(rows, printed[2:5], strict=True):
        name, score, interval, answered = re.split(r" {2,}", line)[:4]
        assert (shown[0].removesuffix(" baseline"), shown[1], shown[3], shown[5]) == (name, score, interval, answered)
        for part in (shown[8], shown[9]):
            assert f" {part} each" in line
        assert [shown[10], shown[11]] == line.split()[-2:]
    assert [row[0].endswith("baseline") for row in rows] == [True, False, False]
    expect(page.locator(".evaluation-intro")).to_have_text(f"{printed[0]}.")


def test_a_column_sorts_the_leaderboard(browser_page: Opener, evaluated_page: Path) -> None:
    """A click, or Enter, sorts by a column; again, the other way; the head says so."""
    page = open_view(browser_page, evaluated_page)
    names = page.get_by_role("region", name="Leaderboard").locator("tbody th")
    before = texts(names)
    cost = page.get_by_role("columnheader", name="Cost", exact=True)
    cost.get_by_role("button").click()
    assert cost.get_attribute("aria-sort") == "ascending"
    assert texts(names) == before[::-1]
    expect(cost.get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    assert cost.get_attribute("aria-sort") == "descending"
    assert texts(names) == before


def test_each_picture_says_what_it_shows(browser_page: Opener, evaluated_page: Path) -> None:
    """An image with a sentence, and its numbers as a table behind it."""
    page = open_view(browser_page, evaluated_page)
    plots = page.locator(".interval-plot")
    assert plots.count() == 3
    assert re.fullmatch(
        r"score 0\.\d{3}, 95 % interval 0\.\d{3} to [01]\.\d{3}", plots.first.get_attribute("aria-label") or ""
    )
    expect(page.get_by_role("img", name="2 lines against comet-sim-cache")).to_be_visible()
    expect(page.get_by_role("img", name="On the front, where no other line is both cheaper")).to_be_visible()
    expect(page.get_by_role("img", name="Mean score of each question")).to_be_visible()
    for summary in page.get_by_text("The numbers as a table").all():
        summary.click()
    (head, *rows) = table(page, "Difference from comet-sim-cache: numbers")
    assert head[:4] == ["line", "difference", "p", "Holm p"]
    assert len(rows) == 2
    assert [row[0] for row in table(page, "Score against cost: numbers")[1:]] == [
        "comet-sim-cache", "comet-sim-1", "comet-sim-1-mini"
    ]  # fmt: skip


def test_groups_and_samples_are_below(browser_page: Opener, evaluated_page: Path) -> None:
    """Both are folded, and open with a click."""
    page = open_view(browser_page, evaluated_page)
    page.get_by_text("pass@k and pass^k").click()
    assert table(page, "pass@k and pass^k")[0] == ["line", "pass@1", "pass@2", "pass^2"]
    page.get_by_text("Groups by subject").click()
    assert [row[0] for row in table(page, "Groups by subject")] == [
        "subject", "colours", "order", "(all answers)", "(mean of groups)"
    ]  # fmt: skip


def test_the_map_leads_to_the_rows_of_a_question(browser_page: Opener, evaluated_page: Path) -> None:
    """By a click and by Enter; arrow keys go from question to question, and each is told. The focus comes along."""
    page = open_view(browser_page, evaluated_page)
    box = page.get_by_role("application")
    box.focus()
    page.keyboard.press("ArrowRight")
    readout = page.locator(".heat-readout")
    told = re.match(r"Row (\d+): comet-sim-cache \d\.\d{3}", readout.inner_text())
    assert told is not None
    expect(page.locator("#live")).to_contain_text(told[0])
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"#row={told[1]}$"))
    expect(page.locator(".grid-box")).to_be_focused()
    page.go_back()
    expect(page.locator("#view-evaluation h2")).to_be_focused()
    box.click(position={"x": 200, "y": 30})
    expect(page).to_have_url(re.compile(r"#row=\d+$"))


def test_the_map_is_a_table_too(browser_page: Opener, evaluated_page: Path) -> None:
    """Each question with the score of each cell, in the order that was chosen."""
    page = open_view(browser_page, evaluated_page)
    page.get_by_label("Order of questions").select_option("number")
    page.get_by_text("The scores as a table").click()
    head, *rows = table(page, "Scores of questions")
    assert head == ["question", "answers", "comet-sim-cache", "comet-sim-1", "comet-sim-1-mini"]
    assert [row[0] for row in rows] == [f"row {number}" for number in range(40)]
    assert {cell for row in rows for cell in row[2:]} <= {"0.000", "0.500", "1.000"}
    page.get_by_role("button", name="row 7", exact=True).click()
    expect(page).to_have_url(re.compile("#row=7$"))


def test_answers_stand_side_by_side(browser_page: Opener, evaluated_page: Path) -> None:
    """The question, the right answer, and of each cell its samples with score and text; keys go on and back."""
    page = open_view(browser_page, evaluated_page)
    cards = page.locator(".answers-card")
    assert cards.count() == 3
    assert cards.first.locator(".answers-sample").count() == 2
    expect(page.locator(".answers-question strong")).to_have_text(re.compile(r"Row \d+"))
    expect(page.get_by_role("group", name="Prompt")).to_contain_text("Which of these is the")
    expect(page.locator(".answers-gold")).to_have_text(re.compile("^Gold: [A-D0-3]"))
    expect(cards.first).to_contain_text("ANSWER:")
    place = page.locator(".answers-place")
    first = page.locator(".answers-question strong").inner_text()
    page.keyboard.press("n")
    expect(place).to_have_text(re.compile("^2 of "))
    expect(page.locator(".answers-question strong")).not_to_have_text(first)
    page.keyboard.press("p")
    expect(page.locator(".answers-question strong")).to_have_text(first)
    cards.first.get_by_role("button", name="Open").first.click()
    expect(page).to_have_url(re.compile(r"#call=0\.\d+$"))


def test_a_place_among_choices_is_told_as_the_choice(browser_page: Opener, tmp_path: Path) -> None:
    """A gold of 2 says little beside a found B: its text stands there, beside the answers and in the panel."""
    cells = [({"model": "m1"}, [[right(), wrong()]]), ({"model": "m2"}, [[wrong(), wrong()]])]
    inputs: dict[str, list[Any]] = {"answer": [2, 1], "choices": [["red", "green", "blue"]] * 2}
    index = {
        "name": "score",
        "scorer": "choice",
        "gold": "answer",
        "form": "index",
        "choices": {"columns": ["choices"]},
    }
    path = write(tmp_path / "a.parquet", cells, scores=(index,), inputs=inputs)
    cometbatch.report(path, output=tmp_path / "report.html")
    page = open_view(browser_page, tmp_path / "report.html")
    expect(page.locator(".answers-gold")).to_have_text("Gold: 2 (the choice blue)")
    page.goto(f"{(tmp_path / 'report.html').as_uri()}#call=0.0")
    expect(page.locator(".score-pair > div").last).to_have_text("Gold2 (the choice blue)")


def test_one_cell_right_the_other_wrong(browser_page: Opener, evaluated_page: Path) -> None:
    """The choice leaves the questions on which the first cell is right, the second wrong; both come first."""
    page = open_view(browser_page, evaluated_page)
    page.get_by_label("Right").select_option(label="comet-sim-cache")
    page.get_by_label("Wrong").select_option(label="comet-sim-1-mini")
    place = page.locator(".answers-place")
    expect(place).to_have_text(re.compile("^1 of "))
    for _ in range(int(place.inner_text().split()[-1])):
        badges = page.locator(".answers-card h4")
        expect(badges.first).to_contain_text("comet-sim-cache")
        assert float(badges.nth(0).inner_text().split()[-1]) >= 0.5
        assert float(badges.nth(1).inner_text().split()[-1]) < 0.5
        page.get_by_role("button", name="Next").click()
        page.wait_for_timeout(0)


def test_scores_keep_their_colours_where_the_system_chooses_them(browser_page: Opener, evaluated_page: Path) -> None:
    """With forced colours (a contrast theme) a map in one colour would say nothing."""
    page = browser_page(f"{evaluated_page.as_uri()}#evaluation", forced_colors="active")
    coloured = """(canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const found = new Set();
      for (let i = 0; i < data.length; i += 4) {
        const pixel = data.slice(i, i + 3);
        if (data[i + 3] === 255 && Math.max(...pixel) - Math.min(...pixel) > 40) found.add(pixel.join());
      }
      return found.size;
    }"""
    assert page.locator(".heat-canvas").evaluate(coloured) > 2
    assert "gradient" in page.locator(".heat-scale").evaluate("(bar) => getComputedStyle(bar).backgroundImage")


def test_hostile_labels_and_answers_are_text(browser_page: Opener, hostile_page: Path) -> None:
    """Names, right answers, found answers and texts: shown as they are, what hides is an escape, nothing runs."""
    page = open_view(browser_page, hostile_page)
    assert SHOWN_HOSTILE in texts(page.locator(".board-table tbody th"))
    assert page.locator("#view-evaluation img").count() == 0
    expect(page.locator(".answers-gold")).to_contain_text(SHOWN_HOSTILE)
    assert SHOWN_HOSTILE in page.locator(".answers-card pre").first.inner_text()
    page.get_by_text("remarks on failed rows").click()
    for summary in page.locator("#view-evaluation summary", has_text="as a table").all():
        summary.click()
    assert page.locator("#view-evaluation img").count() == 0
    assert page.locator("#view-evaluation").inner_text().count("\u202e") == 0


def test_each_score_has_its_board(browser_page: Opener, hostile_page: Path) -> None:
    """The choice of the score changes all parts, also where scores are not from 0 to 1."""
    page = open_view(browser_page, hostile_page)
    page.get_by_label("Score", exact=True).select_option(label="length")
    expect(page.locator(".evaluation-intro")).to_have_text(re.compile("^length: 300 questions"))
    expect(page.get_by_label("Higher")).to_be_visible()
    expect(page.locator(".heat-legend")).to_contain_text("-5.000")
    assert "A point costs" in table(page, "Leaderboard")[0]


def test_what_does_not_fit_is_a_sentence(browser_page: Opener, tmp_path: Path) -> None:
    """Results of other questions have no leaderboard; the page says why."""
    paths = [
        write(tmp_path / f"{name}.parquet", [({"model": "m"}, [[right()]])], inputs={"question": [name]})
        for name in ("a", "b")
    ]
    cometbatch.report(paths, output=tmp_path / "report.html")
    page = browser_page(f"{(tmp_path / 'report.html').as_uri()}#evaluation")
    expect(page.locator("#view-evaluation .notice")).to_contain_text("these are not the same questions")


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_each_width(browser_page: Opener, hostile_page: Path, width: int) -> None:
    """The page is never scrolled sideways, and each control is large enough to be touched."""
    page = open_view(browser_page, hostile_page, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for words, wide, high in page.locator(CONTROLS).evaluate_all(SIZES):
        assert min(wide, high) >= 24, words


@pytest.mark.parametrize("width", AXE_WIDTHS)
def test_axe_finds_nothing(browser_page: Opener, hostile_page: Path, width: int) -> None:
    """No fault of accessibility, with all tables opened, in light and dark."""
    page = open_view(browser_page, hostile_page, width=width)
    for summary in page.locator("#view-evaluation summary").all():
        summary.click()
    assert faults(page, "#view-evaluation") == []


def test_everything_is_reached_by_keyboard(browser_page: Opener, evaluated_page: Path) -> None:
    """Tab comes to each control of the view, and shows where it is."""
    page = open_view(browser_page, evaluated_page)
    wanted = page.locator(CONTROLS).filter(visible=True).count()
    page.locator("#view-evaluation h2").focus()
    reached = 0
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached += page.evaluate(IS_REACHED, CONTROLS)
    assert reached == wanted


def test_colours_follow_the_theme(browser_page: Opener, evaluated_page: Path) -> None:
    """The map is drawn anew when the reader switches between light and dark."""
    page = open_view(browser_page, evaluated_page)
    canvas = page.locator(".heat-canvas")
    light = set(canvas.evaluate(COLORS))
    page.get_by_title("Dark").locator("input").check(force=True)
    page.wait_for_function("before => before !== document.querySelector('.heat-canvas').toDataURL()", arg="")
    dark = set(canvas.evaluate(COLORS))
    assert len(dark - light) >= 2


@pytest.mark.parametrize("question", ["spread", "ease", "number"])
def test_the_map_has_each_question(browser_page: Opener, hostile_page: Path, question: str) -> None:
    """A click far down the map leads to a question, in each order; the box is scrolled, not the page."""
    page = open_view(browser_page, hostile_page, width=375)
    page.get_by_label("Order of questions").select_option(question)
    box = page.get_by_role("application")
    box.focus()
    page.keyboard.press("End")
    assert box.evaluate("node => node.scrollTop") > 0
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#row=\d+$"))


def test_verdicts_of_a_judge_are_those_of_the_command(browser_page: Opener, judged_page: tuple[Path, str]) -> None:
    """The same tables with the same digits, also where the job has no score."""
    path, printed = judged_page
    page = browser_page(f"{path.as_uri()}#evaluation")
    pairs = table(page, "Verdicts of the judge, 1")
    strengths = table(page, "Verdicts of the judge, 2")
    assert len(pairs) == len(strengths) == 4
    lines = [re.split(r" {2,}", line) for line in printed.splitlines()]
    assert all(row in lines for row in (*pairs, *strengths))
    cost = next(each for each in printed.splitlines() if each.startswith("judge "))
    expect(page.locator("#view-evaluation")).to_contain_text(cost)
    page.set_viewport_size({"width": 690, "height": 900})  # A4 between its margins
    page.emulate_media(media="print")
    width = "node => node.getBoundingClientRect().right"
    card = page.locator("#view-evaluation .card").filter(has=page.locator(".words-table"))
    assert page.locator(".words-table").first.evaluate(width) <= card.first.evaluate(width)
    expect(page.locator("#view-evaluation .notice")).to_have_count(0)
