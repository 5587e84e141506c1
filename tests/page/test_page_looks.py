"""What the page looks like: first screen, rows, drawer and leaderboard, in light and dark, on screens of each width.

`SCREENSHOTS=folder` keeps the pictures there; `WIDTHS="320 768"` are other widths than 375 and 1,280 pixels.
`README_IMAGES=1` writes the two pictures of the README.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import expect

import cometbatch
from tests.page.browser import Opener, Theme, drawn

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS: Final = [int(each) for each in os.environ.get("WIDTHS", "375 1280").split()]
THEMES: Final[tuple[Theme, ...]] = ("light", "dark")
HEIGHTS: Final = {320: 640, 375: 812, 768: 1_024, 1_280: 800, 2_560: 1_440}
USUAL_HEIGHT: Final = 900
FACTOR: Final = 3  # a picture that is not blank has at least this multiple of the bytes of an empty screen
ROOT: Final = Path(__file__).parent.parent.parent
IMAGES: Final = ROOT / "docs" / "images"
REAL: Final = {
    "input": {"path": str(ROOT / "sample_data" / "tickets.csv"), "id": "ticket_id"},
    "output": {"path": "tickets.parquet"},
    "target": {"base_url": "simulator", "format": "chat", "model": "comet-sim-1"},
    "prompt": {
        "system": "You sort support tickets. Answer in one word.",
        "user": "Subject: {{ subject }}\n\n{{ body }}",
    },
    "params": {"max_output_tokens": 64, "temperature": 0},
    "limits": {"concurrency": 16},
    "retry": {"max_attempts": 3, "max_wait_s": 1},
    "simulator": {
        "seed": 5,
        "latency_s": [0.2, 0.9],
        "rps": 24,
        "faults": {"429": 0.02, "503": 0.3, "reset": 0.1, "400": 0.03, "length": 0.05, "content-filter": 0.02},
    },
}
"""The job of the README's picture: it runs in real time, so that its times fit each other."""
README: Final = {
    ("first-screen", "light", 1_280): "report.png",
    ("leaderboard", "dark", 1_280): "report-evaluation.png",
}


def pictured(page: "Page", name: str, theme: Theme, folder: Path) -> bytes:
    """A picture of the screen as it is, in a theme; kept."""
    page.emulate_media(color_scheme=theme)
    drawn(page)
    size = page.viewport_size
    assert size is not None
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], "the page scrolls sideways"
    picture = page.screenshot(path=folder / f"{name}-{theme}-{size['width']}.png")
    kept = README.get((name, theme, size["width"]))
    if kept is not None and "README_IMAGES" in os.environ:
        IMAGES.mkdir(parents=True, exist_ok=True)
        (IMAGES / kept).write_bytes(picture)
    return picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go."""
    path = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def shown_page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with failures; for the README that of a job of its own."""
    if "README_IMAGES" not in os.environ:
        page: Path = request.getfixturevalue("failed_page")
        return page
    with contextlib.chdir(tmp_path_factory.mktemp("real")):
        Path("tickets.yaml").write_text(json.dumps(REAL), encoding="utf-8")  # JSON is YAML
        cometbatch.run("tickets.yaml", progress=False)
        return cometbatch.report("tickets.yaml").path.resolve()


@pytest.mark.parametrize("width", WIDTHS)
def test_each_view_fits_its_screen(
    browser_page: Opener, shown_page: Path, evaluated_page: Path, folder: Path, width: int
) -> None:
    """It is not blank, dark is not light, and nothing but the table scrolls sideways."""
    height = HEIGHTS.get(width, USUAL_HEIGHT)
    blank = browser_page("about:blank", width=width, height=height).screenshot()
    page = browser_page(shown_page, width=width, height=height)
    views = [("first-screen", page, "#overview", "#view-overview"), ("rows", page, "#rows", "#view-rows")]
    views.append(("drawer", page, "#call=0.0", "#drawer"))
    scored = browser_page(evaluated_page, width=width, height=height)
    views.append(("leaderboard", scored, "#evaluation", "#view-evaluation"))
    for name, shown, address, selector in views:
        shown.evaluate(f"location.hash = '{address}'")
        expect(shown.locator(selector)).to_be_visible()
        light, dark = (pictured(shown, name, theme, folder) for theme in THEMES)
        assert min(len(light), len(dark)) > FACTOR * len(blank), name
        assert light != dark, name
