"""The filtered rows as CSV: what a spreadsheet opens is what was answered, and nothing in it is calculated."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.page.browser import Opener
from tests.page.handmade import BASIC, answers, column, write_page

FRAME = column("frame", "number", "sending")
MOMENT = column("finished_at", "number", "sending", unit="ms")
NUMBER = column("input:n", "number", "input", title="n")
SHORT = column("input:s", "short", "input", title="s")
WORD = column("input:w", "word", "input", title="w")


def saved(page: Page, button: str = "All columns") -> bytes:
    """The file that the menu saves."""
    page.get_by_text("Download CSV").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    assert download.value.suggested_filename == "answers-rows.csv"
    return download.value.path().read_bytes()


def table(data: bytes) -> list[list[str]]:
    """The fields of a CSV, by Python's own reader."""
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))


def column_of(data: bytes, title: str) -> list[str]:
    """The fields of a column."""
    head, *rows = table(data)
    return [row[head.index(title)] for row in rows]


def open_rows(
    browser_page: Opener, folder: Path, rows: Sequence[dict[str, Any]], *more: dict[str, str], size: int = 2_000
) -> Page:
    """A page of these rows, at its table."""
    path = write_page(folder / "page.html", rows, [*BASIC, *more], size=size)
    page = browser_page(path.as_uri() + "#rows", timezone_id="Asia/Tokyo")
    page.get_by_text("Download CSV").wait_for()
    return page


def test_all_columns_in_the_order_of_the_result(browser_page: Opener, tmp_path: Path) -> None:
    """UTF-8 with the mark by which Excel knows it, lines end as RFC 4180 has it, and a word says what happened."""
    page = open_rows(browser_page, tmp_path, answers(3))
    data = saved(page)
    assert data.startswith(b"\xef\xbb\xbfordinal,row,custom_id,status,response\r\n")
    assert data.endswith(b"2,2,id-2,succeeded,Answer 2\r\n")
    assert len(table(data)) == 4
    page.get_by_text("Saved 3 rows with 5 columns as answers-rows.csv.").wait_for(state="attached")


def test_the_columns_shown(browser_page: Opener, tmp_path: Path) -> None:
    """The reader's choice of columns is that of the file."""
    head, *_ = table(saved(open_rows(browser_page, tmp_path, answers(3)), "The columns shown"))
    assert head == ["custom_id", "status", "response"]


def test_the_rows_as_filtered_and_sorted(browser_page: Opener, tmp_path: Path) -> None:
    """Over several chunks; the texts belong to their rows."""
    rows = [{**row, "custom_id": f"id-{(row['ordinal'] * 7) % 50:02d}"} for row in answers(50)]
    page = open_rows(browser_page, tmp_path, rows, size=8)
    page.get_by_role("searchbox").fill('"Answer 1"')
    page.get_by_text("11 of 50 rows").wait_for()
    page.get_by_role("columnheader", name="ID").get_by_role("button").click()
    found = table(saved(page))[1:]
    kept = [row for row in rows if row["response"].startswith("Answer 1")]
    assert [row[2] for row in found] == sorted(row["custom_id"] for row in kept)
    assert all(response == f"Answer {ordinal}" for ordinal, *_, response in found)


def test_no_text_is_a_formula(browser_page: Opener, tmp_path: Path) -> None:
    """A text that a spreadsheet would calculate begins with an apostrophe: answers, short texts, words and titles."""
    signs = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "\uff20SUM(A1)", "=1;=2"]
    rows = [
        {**row, "response": sign, "input:s": sign, "input:w": sign}
        for row, sign in zip(answers(len(signs)), signs, strict=True)
    ]
    named = [column(f"input:{n}", "short", "input", title=sign) for n, sign in enumerate(signs)]
    data = saved(open_rows(browser_page, tmp_path, rows, SHORT, WORD, *named))
    inert = [f"'{sign}" for sign in signs]
    for title in ("response", "s", "w"):
        assert column_of(data, title) == inert
    assert table(data)[0][-len(signs) :] == inert
    assert b'"\'=1;=2"' in data  # in quotes: a spreadsheet that parts lines at semicolons has one cell of it, too


def test_numbers_are_numbers(browser_page: Opener, tmp_path: Path) -> None:
    """With all their digits and their sign; one that a float can't hold is its exact text; unknown is empty."""
    values: list[float | None] = [-5, 0.1, 1e21, None, 12345678901234567890]
    rows = [{**row, "input:n": value} for row, value in zip(answers(5), values, strict=True)]
    rows[4]["more"] = {"full": {"input:n": "12345678901234567890.0000000001"}}
    data = saved(open_rows(browser_page, tmp_path, rows, NUMBER))
    assert column_of(data, "n") == ["-5", "0.1", "1e+21", "", "12345678901234567890.0000000001"]


def test_a_moment_is_in_utc(browser_page: Opener, tmp_path: Path) -> None:
    """To the millisecond, wherever the reader is."""
    rows = [{**answers(1)[0], "finished_at": 1_796_065_513_250.0}]
    assert column_of(saved(open_rows(browser_page, tmp_path, rows, MOMENT)), "finished_at") == [
        "2026-11-30T19:05:13.250Z"
    ]


def test_texts_are_as_they_were_answered(browser_page: Opener, tmp_path: Path) -> None:
    """Commas, quotes, line breaks, blanks at the ends, other scripts and marks that reorder; empty is not null."""
    texts = ['a,"b"\r\nc\nd', "  ends  ", "naïve 字 🙂", "x\u202ey", "", None, "</script><b>"]
    rows = [{**row, "response": text} for row, text in zip(answers(len(texts)), texts, strict=True)]
    data = saved(open_rows(browser_page, tmp_path, rows))
    assert column_of(data, "response") == [text or "" for text in texts]
    assert b'id-4,succeeded,""\r\n' in data
    assert b"id-5,succeeded,\r\n" in data


def test_a_cut_text_ends_with_its_mark(browser_page: Opener, tmp_path: Path) -> None:
    """Nobody takes a beginning for the whole."""
    more = {"full": {"input:s": "y" * 2_000}, "lengths": {"input:s": 2_001}}
    row = {**answers(1)[0], "response": "x" * 2_000, "lengths": {"response": 15_321}, "input:s": "y" * 80, "more": more}
    data = saved(open_rows(browser_page, tmp_path, [row | {"frame": 0}], SHORT, FRAME))
    assert "frame" not in table(data)[0]  # a number of the page's own
    assert column_of(data, "response") == ["x" * 2_000 + " [cut here: 2,000 of 15,321 characters]"]
    assert column_of(data, "s") == ["y" * 2_000 + " [cut here: 2,000 of 2,001 characters]"]


def test_no_rows_no_file(browser_page: Opener, tmp_path: Path) -> None:
    """And a word about it."""
    page = open_rows(browser_page, tmp_path, answers(3))
    page.get_by_role("searchbox").fill("nowhere")
    page.get_by_text("0 of 3 rows").wait_for()
    page.get_by_text("Download CSV").click()
    page.get_by_role("button", name="All columns", exact=True).click()
    page.get_by_text("There are no rows to save").wait_for(state="attached")


def test_many_rows(browser_page: Opener, tmp_path: Path) -> None:
    """20,000 rows in an order of their own come out whole, each once."""
    rows = [{**row, "custom_id": f"{(row['ordinal'] * 7_919) % 20_000:05d}"} for row in answers(20_000)]
    page = open_rows(browser_page, tmp_path, rows)
    page.get_by_role("columnheader", name="ID").get_by_role("button").click()
    began = time.monotonic()
    found = table(saved(page))[1:]
    assert time.monotonic() - began < 20
    assert [int(row[2]) for row in found] == list(range(20_000))
    assert all(row[4] == f"Answer {row[0]}" for row in found)
