"""How quick a page of 100,000 rows with 55 MB of text is: `python -m tests.benchmarks.report_page [--folder FOLDER]`.

The page is that of `report_writing`, whose `--folder` is taken where it is there. It is opened anew for each round in a
headless Chromium, from the disk. Times are of the page's own clock: from the start of the navigation to the first rows
drawn with their texts, from a key to the frame with the result. Memory is the heap of scripts, what they hold beside it
(texts of the browser, arrays), and what is resident of the renderer.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.benchmarks.report_writing import ROWS, make_result, write_page
from tests.page.browser import Chromium, Visit

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

NEEDLE_WORDS: Final = 5
ROUNDS: Final = 5
BARS: Final[Mapping[str, float]] = {
    "first rows on screen": 1_000,
    "search, nothing decompressed": 1_000,
    "search of two words": 1_000,
    "search again": 1_000,
    "sort, slowest column": 100,
    "filter": 100,
    "heap after loading": 150,
    "heap after a search": 150,
}
"""What each figure may be at most: milliseconds, MB of heap. Figures without a bar are told only."""

FIRST_ROWS: Final = """
(() => {
  const look = () => {
    const cells = [...document.querySelectorAll(".grid-body .grid-row:first-child .grid-cell")];
    if (cells.length && cells.every((cell) => cell.textContent !== "…")) {
      const seen = new MessageChannel();  // a frame is drawn between its callbacks and the next message
      seen.port1.onmessage = () => { window.firstRows = performance.now(); };
      seen.port2.postMessage(null);
    } else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
"""Notes when the first row is on screen with its texts."""
WHEN: Final = """
async () => {
  while (window.firstRows === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
  return window.firstRows;
}
"""
"""When the first rows were on screen."""
ALL_ROWS: Final = """
async (expected) => {
  while (document.getElementById("grid-count").textContent !== expected) await new Promise(requestAnimationFrame);
  return performance.now();
}
"""
"""When all rows are there."""
SEARCH: Final = """
async ([query, expected]) => {
  const field = document.getElementById("grid-search"), count = document.getElementById("grid-count");
  const begin = performance.now();
  field.value = query;
  field.dispatchEvent(new Event("input"));
  let longest = 0, last = begin;
  for (;;) {
    await new Promise(requestAnimationFrame);
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
    if (document.querySelector(".grid-progress").hidden && count.textContent.startsWith(expected)) break;
    if (last - begin > 20000) throw new Error(`nothing found: ${count.textContent}`);
  }
  return [last - begin, longest];
}
"""
"""Milliseconds from a key to the frame with the result, and the longest time between two frames."""
CLICK: Final = """
async (selector) => {
  const begin = performance.now();
  document.querySelector(selector).click();
  const worked = performance.now() - begin;
  await new Promise(requestAnimationFrame);
  return [worked, performance.now() - begin];
}
"""
"""Milliseconds of work after a click, and to the next frame."""


def needle(result: Path) -> tuple[str, str]:
    """Words of one of the last answers, as a phrase, and how the count of the rows with it begins."""
    table = pq.read_table(result, columns=["body", "response"])
    answer = next(text for text in reversed(table.column("response").to_pylist()) if text)
    phrase = " ".join(answer.split()[:NEEDLE_WORDS])
    found = [pc.match_substring(column, phrase, ignore_case=True).fill_null(False) for column in table.columns]
    return f'"{phrase}"', f"{pc.sum(pc.or_(*found)).as_py():,} of"


class Renderer:
    """What a page holds, by the browser's own counting. In the browser's thread."""

    def __init__(self, visit: Visit) -> None:
        self._session: CDPSession = visit.context.new_cdp_session(visit.page)
        assert visit.context.browser is not None
        self._browser: CDPSession = visit.context.browser.new_browser_cdp_session()

    def _pid(self) -> int:
        """Of the renderer: the largest, where the browser keeps an empty one in reserve."""
        processes = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        pids: list[int] = [each["id"] for each in processes if each["type"] == "renderer"]
        return max(pids, key=_resident_mb)

    def cpu_ms(self) -> float:
        """Milliseconds of CPU that the renderer has taken, all threads, in steps of some 10."""
        fields = Path(f"/proc/{self._pid()}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK")

    def figures(self, when: str) -> dict[str, float]:
        """MB of the heap of scripts after a collection, of what it holds beside it, and of the renderer's memory."""
        self._session.send("HeapProfiler.collectGarbage")
        usage = self._session.send("Runtime.getHeapUsage")
        beside = usage.get("embedderHeapUsedSize", 0) + usage.get("backingStorageSize", 0)
        return {
            f"heap {when}": usage["usedSize"] / 1e6,
            f"arrays and nodes {when}": beside / 1e6,
            f"renderer's own memory {when}": _resident_mb(self._pid()),
        }


def _resident_mb(pid: int) -> float:
    """MB of a process that no file backs."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")) / 1e3


def measured(chromium: Chromium, path: Path, query: str, expected: str) -> dict[str, float]:
    """One round, a page opened anew. `expected`: how the count of found rows begins. In the browser's thread."""
    visit = chromium.open("about:blank", width=1280, height=800, theme="light")
    page = visit.page
    page.add_init_script(FIRST_ROWS)
    page.goto(f"{path.resolve().as_uri()}#rows", wait_until="commit")
    found = {
        "first rows on screen": page.evaluate(WHEN),
        "all rows there": page.evaluate(ALL_ROWS, f"{ROWS:,} rows"),
    }
    found["document parsed"] = page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    renderer = Renderer(visit)
    found["CPU of loading"] = renderer.cpu_ms()
    found |= renderer.figures("after loading")
    before = renderer.cpu_ms()
    found["search, nothing decompressed"], found["longest frame of a search"] = page.evaluate(SEARCH, [query, expected])
    found["CPU of that search"] = renderer.cpu_ms() - before
    found |= renderer.figures("after a search")
    found["search of two words"] = page.evaluate(SEARCH, [f"{query} t-0", expected])[0]
    found["search again"] = page.evaluate(SEARCH, [query.upper(), expected])[0]
    page.evaluate(SEARCH, ["", f"{ROWS:,} rows"])
    found |= _sorts(page)
    page.click(".grid-filter summary:has-text('Status')")
    page.wait_for_selector(".grid-panel input")
    found["filter"] = page.evaluate(CLICK, ".grid-filter[open] .grid-panel input")[1]
    visit.context.close()
    return found


def _sorts(page: "Page") -> dict[str, float]:
    """Each column, both ways."""
    columns = page.evaluate("[...document.querySelectorAll('.grid-sort')].map((button) => button.dataset.column)")
    took = {}
    for name in columns:
        selector = f'.grid-sort[data-column="{name}"]'
        took[name] = max(page.evaluate(CLICK, selector)[1] for _ in range(2))
        page.evaluate(CLICK, selector)
    slowest = max(took, key=lambda name: took[name])
    return {"sort, slowest column": took[slowest], **{f"sort by {name}": each for name, each in took.items()}}


def measure(folder: Path) -> bool:
    """Print each figure with its bar, and whether all are within theirs."""
    result, path = folder / "out.parquet", folder / "report.html"
    if not result.exists():
        make_result(folder)
    write_page(Path(sys.executable), result, path)
    query, expected = needle(result)
    chromium = Chromium()
    chromium.start()
    try:
        rounds = [chromium.run(lambda: measured(chromium, path, query, expected)) for _ in range(ROUNDS)]
    finally:
        chromium.stop()
    is_within = True
    for name in rounds[0]:
        figure = median(each[name] for each in rounds)
        bar = BARS.get(name)
        is_within = is_within and (bar is None or figure <= bar)
        verdict = "" if bar is None else f"{'within' if figure <= bar else 'ABOVE'} the bar of {bar:g}"
        unit = "MB" if any(word in name for word in ("heap", "memory", "arrays")) else "ms"
        print(f"{name:42}{figure:10.1f} {unit}  {verdict}")  # noqa: T201
    return is_within


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not measure(given.folder or Path(temporary)))


if __name__ == "__main__":
    main()
