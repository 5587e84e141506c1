"""A Chromium that tests of the page drive, and a record of all that a page says and asks for.

Playwright's interface keeps an event loop running in the thread that uses it, so the browser has a thread of its own,
and a test of the page runs there: other tests of the same process start event loops as ever. What starts a loop itself
(a run of a job) belongs into a fixture, or into `elsewhere`.

A new tab takes five times as long as another page in an open one: its process is new, and has not compiled the page's
program yet. So the tests of a process use the same tabs, one after the other, and each finds its tab as if it were new.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        CDPSession,
        ConsoleMessage,
        Dialog,
        Page,
        Playwright,
        ViewportSize,
    )

T = TypeVar("T")
Theme = Literal["light", "dark"]
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
TIMEOUT_MS = 10_000  # for whatever a test waits for in a page: a hundred times what it takes on an idle machine
INSIDE = ("data:", "blob:", "about:")
"""Schemes of what a page has within itself: nothing leaves it."""
WIDTHS = tuple(int(each) for each in os.environ.get("WIDTHS", "320 1280").split())
"""CSS pixels of the windows in which nothing may scroll sideways; `.ci/weekly page` has more of them."""
AXE_WIDTHS = WIDTHS if "WIDTHS" in os.environ else (1280,)
"""CSS pixels of the windows in which axe-core looks for faults."""
MOST_FREE = 4  # tabs that wait for the next test; each is a process of some 100 MB
FORGET = "() => { try { localStorage.clear(); sessionStorage.clear(); } catch { /* this page has none */ } }"
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


class Tab:
    """A tab of a profile of its own. Tests use it one after the other; each has its own record of it, the `visit`."""

    def __init__(self, browser: "Browser", settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.context: BrowserContext = browser.new_context(accept_downloads=True, reduced_motion="reduce", **settings)
        self.context.set_default_timeout(TIMEOUT_MS)
        self.page: Page = self.context.new_page()
        self.visit = Visit("", self.page, self.context, is_served=False)
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.visit.errors.append(f"script: {error}"))
        self.page.on("dialog", self._note_dialog)
        self.context.on("page", lambda another: self.visit.errors.append(f"a window was opened: {another.url}"))
        self._session: CDPSession = self.context.new_cdp_session(self.page)
        self._session.send("Network.enable")
        self._session.on("Network.requestWillBeSent", lambda event: self.visit.note_request(event["request"]["url"]))
        self._session.on("Network.webSocketCreated", lambda event: self.visit.note_request(event["url"]))

    def _note_console(self, message: "ConsoleMessage") -> None:
        self.visit.note_console(message)

    def _note_dialog(self, dialog: "Dialog") -> None:
        self.visit.note_dialog(dialog)

    def open(self, target: Path | str, *, width: int, height: int, theme: Theme) -> Visit:
        """Open a file or a URL."""
        url = target.resolve().as_uri() if isinstance(target, Path) else target
        size: ViewportSize = {"width": width, "height": height}
        if self.page.viewport_size != size:
            self.page.set_viewport_size(size)
        self.page.emulate_media(media="null", color_scheme=theme, reduced_motion="reduce")
        self.visit = Visit(url.partition("#")[0], self.page, self.context, is_served=url.startswith("http"))
        self.page.goto(url)
        self._session.send("Page.resetNavigationHistory")
        return self.visit

    def leave(self) -> bool:
        """Leave the page, and keep nothing of it; whether the tab is as good as new. The visit notes what it says."""
        if self.page.is_closed():
            return False
        self.page.evaluate(FORGET)
        self.page.mouse.move(-1, -1)
        self.page.goto("about:blank")
        return len(self.context.pages) == 1


class Chromium:
    """A browser in a thread of its own. `run` is how anything is done with it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chromium")
        self._ident: int | None = None
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._group = 0
        self._free: list[Tab] = []

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
        """Open a file or a URL; `settings`: of playwright's `new_context`. In the thread."""
        return self.tab(settings).open(target, width=width, height=height, theme=theme)

    def tab(self, settings: Mapping[str, Any]) -> Tab:
        """A tab that nobody uses. In the thread."""
        assert self._browser is not None
        at = next((at for at, each in enumerate(self._free) if each.settings == settings), None)
        return Tab(self._browser, settings) if at is None else self._free.pop(at)

    def give_back(self, tab: Tab) -> None:
        """Leave the page of a tab, for the next one who wants such a tab. In the thread."""
        if tab.leave():
            self._free.append(tab)
        else:
            tab.context.close()
        if len(self._free) > MOST_FREE:
            self._free.pop(0).context.close()


class Opener:
    """Opens pages for one test. At the test's end each of them has shown no error and has asked for nothing else."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser
        self._tabs: list[Tab] = []

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

        def opened() -> "Page":
            self._tabs.append(self.browser.tab(settings))
            return self._tabs[-1].open(target, width=width, height=height, theme=theme).page

        return self.browser.run(opened)

    def visit(self, page: "Page") -> Visit:
        """What a page has said and asked for so far; a test that wants an error takes it out of the list."""
        self.browser.run(lambda: page.evaluate("0"))  # what has happened before is told before the answer
        return next(each.visit for each in self._tabs if each.page is page)

    def close(self) -> list[Visit]:
        """Close the pages; what each said and asked for."""

        def closed() -> list[Visit]:
            visits = [each.visit for each in self._tabs]
            for each in self._tabs:
                self.browser.give_back(each)
            return visits

        return self.browser.run(closed)


def drawn(page: "Page") -> None:
    """Wait until the page has drawn what it had to draw."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def elsewhere(work: Callable[[], T]) -> T:
    """Do something in another thread, where no event loop runs, and wait for it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
