"""What axe-core finds in an open page, in light and in dark."""

from typing import TYPE_CHECKING, Any, Final

from axe_playwright_python.sync_playwright import Axe

from tests.page.browser import drawn

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.page.browser import Theme

COLOURS: Final = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
"""The rules about colours: all that a theme can break, since the elements of the page are the same in both."""
LIKE_THOSE_ABOVE: Final = "tbody tr:nth-child(n + 8)"
"""Lines of long tables, which are made as the ones above them are; with all of them axe takes ten times as long."""


def faults(page: "Page", part: str | None = None) -> list[str]:
    """Theme, rule and first element of each fault, serious or not, of the page as it is. `part`: in this element alone.

    In the light theme by all rules, in the dark one by those about colours. The page is light afterwards.
    """
    found = _faults(page, "light", part, {})
    page.emulate_media(color_scheme="dark")
    drawn(page)
    found += _faults(page, "dark", part, COLOURS)
    page.emulate_media(color_scheme="light")
    return found


def _faults(page: "Page", theme: "Theme", part: str | None, rules: dict[str, Any]) -> list[str]:
    context = {"include": [[part or "html"]], "exclude": [[LIKE_THOSE_ABOVE]]}
    found = Axe().run(page, context=context, options={"resultTypes": ["violations"], **rules}).response
    if rules:
        assert found["passes"] or found["violations"], "no rule was tried"
    return [f"{theme}: {each['id']}: {each['nodes'][0]['html'][:200]}" for each in found["violations"]]
