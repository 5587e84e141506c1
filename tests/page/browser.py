"""A Chromium that tests of the page drive, and a record of all that a page says and asks for.

Playwright's interface keeps an event loop running in the thread that uses it, so the browser has a thread of its own,
and a test of the page runs there: other tests of the same process start event loops as ever. What starts a loop itself
(a run of a job) belongs into a fixture, or into `elsewhere`.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Playwright

T = TypeVar("T")
Theme = Literal["light", "dark"]
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
TIMEOUT_MS = 10_000  # for whatever a test waits for in a page: a hundred times what it takes on an idle machine
INSIDE = ("data:", "blob:", "about:")
"""Schemes of what a page has within itself: nothing leaves it."""
ARGUMENTS = (
    "--no-sandbox",  # which needs rights that a container does not give
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # no name leads anywhere
)


def missing_package() -> str:
    """What to install for the tests of the page; empty where it is there."""
    found = all(importlib.util.find_spec(name) for name in ("playwright", "axe_playwright_python"))
    return "" if found else "playwright is not installed: pip install -e '.[dev]'"


def missing_browser() -> str:
    """How to get a browser; empty where there is one."""
    if os.access(CHROMIUM, os.X_OK):
        return ""
    return f"there is no Chromium at {CHROMIUM}: apt-get install chromium, or say in CHROMIUM where another is"


@dataclass
class Visit:
    """One page that was opened, and what it said and asked for.

    `errors`: of the console and of scripts, and dialogs and windows, which no report opens. `requests`: URLs of all
    requests, also of those that the browser refused, but for the page itself and for what it has within itself.
    """

    url: str
    page: "Page"
    context: "BrowserContext"
    is_served: bool
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def note_request(self, url: str) -> None:
        """Keep a request, unless it is for the page itself; of a served page, for its own origin and path."""
        own = url.startswith(self.url) if self.is_served else url.partition("#")[0] == self.url
        if not own and not url.startswith(INSIDE):
            self.requests.append(url)

    def note_console(self, message: "ConsoleMessage") -> None:
        """Keep an error of the console."""
        if message.type == "error":
            self.errors.append(f"console: {message.text}")

    def note_dialog(self, dialog: "Dialog") -> None:
        """Keep a dialog, and close it."""
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()


class Chromium:
    """A browser in a thread of its own. `run` is how anything is done with it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chromium")
        self._ident: int | None = None
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._group = 0

    def start(self) -> None:
        """Start the browser."""
        self._thread.submit(self._start).result()

    def _start(self) -> None:
        self._ident = threading.get_ident()
        self._playwright = importlib.import_module("playwright.sync_api").sync_playwright().start()
        assert self._playwright is not None
        self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        processes = self._browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        (pid,) = (each["id"] for each in processes if each["type"] == "browser")
        self._group = pid if os.getpgid(pid) == pid else 0

    def stop(self) -> None:
        """End the browser, and whatever is left of its process group."""
        try:
            self._thread.submit(self._stop).result()
        finally:
            self._thread.shutdown()
            if self._group:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._group, signal.SIGKILL)

    def _stop(self) -> None:
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()

    def run(self, work: Callable[[], T]) -> T:
        """Do something in the browser's thread, and wait for it."""
        return work() if threading.get_ident() == self._ident else self._thread.submit(work).result()

    def open(self, target: Path | str, *, width: int, height: int, theme: Theme, **settings: Any) -> Visit:
        """Open a file or a URL in a profile of its own; `settings`: of playwright's `new_context`. In the thread."""
        assert self._browser is not None
        url = target.resolve().as_uri() if isinstance(target, Path) else target
        viewport: Any = {"width": width, "height": height}
        context = self._browser.new_context(
            viewport=viewport, color_scheme=theme, accept_downloads=True, reduced_motion="reduce", **settings
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        visit = Visit(url.partition("#")[0], page, context, is_served=not isinstance(target, Path))
        page.on("console", visit.note_console)
        page.on("pageerror", lambda error: visit.errors.append(f"script: {error}"))
        page.on("dialog", visit.note_dialog)
        context.on("page", lambda another: visit.errors.append(f"a window was opened: {another.url}"))
        network = context.new_cdp_session(page)
        network.send("Network.enable")
        network.on("Network.requestWillBeSent", lambda event: visit.note_request(event["request"]["url"]))
        network.on("Network.webSocketCreated", lambda event: visit.note_request(event["url"]))
        page.goto(url)
        return visit


class Opener:
    """Opens pages for one test. At the test's end each of them has shown no error and has asked for nothing else."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser
        self._visits: list[Visit] = []

    def __call__(
        self,
        target: Path | str,
        *,
        width: int = 1280,
        height: int = 800,
        theme: Theme = "light",
        **settings: Any,
    ) -> "Page":
        """Open a file (a path, or its URL with a hash) or a served page. `settings`: of playwright's `new_context`."""

        def opened() -> Visit:
            return self.browser.open(target, width=width, height=height, theme=theme, **settings)

        self._visits.append(self.browser.run(opened))
        return self._visits[-1].page

    def visit(self, page: "Page") -> Visit:
        """What a page has said and asked for so far; a test that wants an error takes it out of the list."""
        self.browser.run(lambda: page.evaluate("0"))  # what has happened before is told before the answer
        return next(each for each in self._visits if each.page is page)

    def close(self) -> list[Visit]:
        """Close the pages; what each said and asked for."""

        def closed() -> list[Visit]:
            for each in self._visits:
                if not each.page.is_closed():
                    each.page.evaluate("0")
                each.context.close()
            return self._visits

        return self.browser.run(closed)


def elsewhere(work: Callable[[], T]) -> T:
    """Do something in another thread, where no event loop runs, and wait for it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
