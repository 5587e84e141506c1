"""Fixtures of the page's tests: a browser, pages in it, and results to show.

Where there is no Chromium, tests that open a page are skipped; where playwright is missing, the files that need it are.
A test that opens a page runs in the browser's thread (see `browser`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cometbatch
from tests.page import results
from tests.page.browser import Chromium, Opener, missing_browser, missing_package


class _NeedsPackage(pytest.Module):
    """A file of tests that can't be imported here."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(missing_package(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip a file of this folder that imports what is not installed."""
    if missing_package() and "playwright" in module_path.read_text(encoding="utf-8"):
        return _NeedsPackage.from_parent(parent, path=module_path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that opens pages in the browser's thread."""
    opener = pyfuncitem.funcargs.get("browser_page")
    if not isinstance(opener, Opener):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    opener.browser.run(lambda: pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this process."""
    if words := missing_package() or missing_browser():
        pytest.skip(words)
    browser = Chromium()
    try:
        browser.start()
        yield browser
    finally:
        browser.stop()


@pytest.fixture
def browser_page(chromium: Chromium) -> Iterator[Opener]:
    """Opens a page: `browser_page(path, width=375, theme="dark")` gives playwright's `Page`.

    Each page opened so must end without an error of its own, and without a request but for itself.
    """
    opener = Opener(chromium)
    try:
        yield opener
    finally:
        visits = opener.close()
    for each in visits:
        assert not each.errors, each.url
        assert not each.requests, each.url


@pytest.fixture(scope="session")
def large_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of 2,000 rows, most of them answered; its job is `job.yaml` beside it."""
    return results.large(tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="session")
def failed_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of 120 rows with failures of several kinds and answers that were cut; its job is beside it."""
    return results.failed(tmp_path_factory.mktemp("failed"))


@pytest.fixture(scope="session")
def evaluated_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of three models, two samples and 40 questions with scores; its job is beside it."""
    return results.evaluated(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def large_page(large_result: Path) -> Path:
    """The page of the large result."""
    return _page(large_result.parent)


@pytest.fixture(scope="session")
def failed_page(failed_result: Path) -> Path:
    """The page of the result with failures."""
    return _page(failed_result.parent)


@pytest.fixture(scope="session")
def evaluated_page(evaluated_result: Path) -> Path:
    """The page of the result with scores."""
    return _page(evaluated_result.parent)


def _page(folder: Path) -> Path:
    """The page of the job in a folder, as its name there calls it."""
    with contextlib.chdir(folder):
        cometbatch.report("job.yaml", output="report.html")
    return folder / "report.html"
