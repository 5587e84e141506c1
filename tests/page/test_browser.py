"""The tests' own browser: what it notices, and that it leaves other tests alone."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from tests.page.browser import Chromium, Opener, elsewhere
from tests.stub_server import wait_until

PAGE = "<!doctype html><meta charset=utf-8><title>{title}</title><p>Text</p>{more}"


def write(folder: Path, more: str = "", title: str = "A page") -> Path:
    """A page with something at its end."""
    path = folder / "page.html"
    path.write_text(PAGE.format(title=title, more=more), encoding="utf-8")
    return path


def test_a_page_is_opened(browser_page: Opener, tmp_path: Path) -> None:
    """With a size and a theme."""
    page = browser_page(write(tmp_path), width=375, height=600, theme="dark")
    assert page.title() == "A page"
    assert page.viewport_size == {"width": 375, "height": 600}
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


@pytest.mark.parametrize(
    ("more", "noticed"),
    [
        ("<script>console.error('oh')</script>", "console: oh"),
        ("<script>throw new Error('oh')</script>", "script: oh"),
        ("<script>alert('oh')</script>", "dialog: oh"),
    ],
)
def test_an_error_is_noticed(browser_page: Opener, tmp_path: Path, more: str, noticed: str) -> None:
    """Of the console, of a script, and a dialog."""
    visit = browser_page.visit(browser_page(write(tmp_path, more)))
    assert visit.errors == [noticed]
    visit.errors.clear()


@pytest.mark.parametrize(
    "more",
    [
        "<img src='http://127.0.0.1:9/x'>",
        "<script>fetch('http://127.0.0.1:9/x').catch(() => 0)</script>",
        "<script>navigator.sendBeacon('http://127.0.0.1:9/x', '')</script>",
        "<link rel=stylesheet href='http://127.0.0.1:9/x'>",
        "<meta http-equiv=content-security-policy content=\"default-src 'none'\"><img src='http://127.0.0.1:9/x'>",
    ],
)
def test_a_request_is_noticed(browser_page: Opener, tmp_path: Path, more: str) -> None:
    """Also one that goes wrong, or that the page's own rules refuse."""
    visit = browser_page.visit(browser_page(write(tmp_path, more)))
    assert visit.requests == ["http://127.0.0.1:9/x"]
    visit.requests.clear()
    visit.errors.clear()


def test_what_a_page_has_within_itself_is_no_request(browser_page: Opener, tmp_path: Path) -> None:
    """Its icon, and a file that it makes."""
    more = "<link rel=icon href='data:,'><script>fetch(URL.createObjectURL(new Blob(['x'])))</script>"
    assert browser_page.visit(browser_page(write(tmp_path, more))).requests == []


LEAVES = """<script>
localStorage.setItem("x", "1"); sessionStorage.setItem("x", "1"); window.x = 1; console.error("oh");
</script>"""
FOUND = """() => [localStorage.length, sessionStorage.length, typeof x, history.length, matchMedia("print").matches,
    document.querySelector("p").matches(":hover"), innerWidth, location.hash]"""


def test_a_tab_is_as_if_it_were_new(chromium: Chromium, tmp_path: Path) -> None:
    """Whatever the test before did in it; and what a page says is said of that page alone."""
    first, second = Opener(chromium), Opener(chromium)

    def leave_traces() -> None:
        page.evaluate("location.hash = 'there'")
        page.emulate_media(media="print")
        page.get_by_text("Text").hover()

    page = first(f"{write(tmp_path, LEAVES).as_uri()}#here", width=500, theme="dark")
    chromium.run(leave_traces)
    assert [each.errors for each in first.close()] == [["console: oh"]]
    assert second(write(tmp_path)) is page
    assert chromium.run(lambda: page.evaluate(FOUND)) == [0, 0, "undefined", 1, False, False, 1280, ""]
    assert [(each.errors, each.requests) for each in second.close()] == [([], [])]


def test_other_tests_may_run_an_event_loop(browser_page: Opener, tmp_path: Path) -> None:
    """In another thread, while a page is open."""
    browser_page(write(tmp_path))
    assert elsewhere(lambda: asyncio.run(asyncio.sleep(0, 4))) == 4


def test_an_event_loop_runs_in_this_process() -> None:
    """In the thread of the tests, whatever ran before."""
    assert asyncio.run(asyncio.sleep(0, 4)) == 4


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_process_is_left(chromium: Chromium) -> None:
    """The browser's, its children's, or those of what drives it."""
    before = descendants()
    browser = Chromium()
    browser.start()
    begun = descendants() - before
    browser.stop()
    assert len(begun) > 2
    wait_until(lambda: not begun & alive().keys(), "each process has ended")


def alive() -> dict[int, int]:
    """The processes that run, each with its parent; what has ended and waits for its parent to look is left out."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found[int(stat.parent.name)] = int(parent)
    return found


def descendants() -> set[int]:
    """The processes below this one."""
    parents, found = alive(), {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
