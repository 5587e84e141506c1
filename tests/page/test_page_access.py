"""The page for everyone: each control by keyboard alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import expect

from tests.page.browser import Opener

if TYPE_CHECKING:
    from playwright.sync_api import Page

MOST_TABS: Final = 400  # before the focus has gone round
CONTROLS: Final = """
() => {
  const all = [...document.querySelectorAll("button, a[href], input, select, textarea, summary, [tabindex='0']")];
  const isThere = (node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled && node.tabIndex >= 0;
  // Of radio buttons of one name the focus comes to one; the arrow keys choose among them.
  const isFirst = (node) => node.type !== "radio" || node.checked;
  return all.filter((node) => isThere(node) && isFirst(node) && !node.closest("[inert]")).map(nameOf);
}
"""
NAME_OF: Final = """
() => {
  const known = new Map();
  window.nameOf = (node) => {
    if (!known.has(node)) known.set(node, known.size);
    const words = node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent || node.id;
    return `${known.get(node)} ${node.tagName.toLowerCase()} ${words.trim().slice(0, 40)}`;
  };
}
"""
FOCUSED: Final = """
() => {
  const node = document.activeElement;
  if (!node || node === document.body) return null;
  const marks = [node, node.closest("label"), node.nextElementSibling, node.parentElement].filter(Boolean);
  const isMarked = marks.some((each) => {
    const style = getComputedStyle(each);
    return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  });
  return [nameOf(node), isMarked];
}
"""


def tabbed(page: "Page") -> dict[str, bool]:
    """The controls that Tab comes to, once round, and whether their focus can be seen."""
    found: dict[str, bool] = {}
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None:  # behind the last one the round goes on at the first
            continue
        if focused[0] in found:
            break
        found[focused[0]] = focused[1]
    return found


def shown(page: "Page", address: str, selector: str) -> None:
    """Go to an address of the page."""
    page.evaluate(f"location.hash = '{address}'")
    expect(page.locator(selector)).to_be_visible()


VIEWS: Final = {
    "overview": ("failed", "#view-overview"),
    "rows": ("failed", "#view-rows"),
    "evaluation": ("evaluated", "#view-evaluation"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_tab_comes_to_each_control(browser_page: Opener, failed_page: Path, evaluated_page: Path, view: str) -> None:
    """In one round, and wherever the focus is can be seen."""
    kind, selector = VIEWS[view]
    page = browser_page(failed_page if kind == "failed" else evaluated_page)
    shown(page, f"#{view}", selector)
    page.evaluate(NAME_OF)
    controls: list[str] = page.evaluate(CONTROLS)
    reached = tabbed(page)
    assert len(controls) > 5
    assert [each for each in controls if each not in reached] == []
    assert [each for each, is_marked in reached.items() if not is_marked] == []


def test_rows_are_found_opened_and_left_by_keyboard(browser_page: Opener, failed_page: Path) -> None:
    """Search with /, down and up with j and k, open with Enter, next with j, close with Esc: the focus comes back."""
    page = browser_page(failed_page)
    shown(page, "#rows", "#view-rows")
    page.keyboard.press("/")
    page.keyboard.type("Say 1")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement?.blur()")
    for key in ("j", "j", "k", "Enter"):
        page.keyboard.press(key)
    drawer = page.locator("#drawer")
    expect(drawer).to_be_visible()
    first = page.evaluate("location.hash")
    page.keyboard.press("j")
    expect(drawer).to_be_visible()
    assert page.evaluate("location.hash") != first
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    assert page.evaluate("document.activeElement.closest('#view-rows') !== null")


def test_each_control_of_the_drawer_is_reached(browser_page: Opener, failed_page: Path) -> None:
    """Copying, the next row, closing."""
    page = browser_page(failed_page)
    shown(page, "#call=0.1", "#drawer")
    page.evaluate(NAME_OF)
    controls: list[str] = page.evaluate(CONTROLS)
    reached = tabbed(page)
    assert [each for each in controls if each not in reached] == []
    assert [each for each, is_marked in reached.items() if not is_marked] == []
