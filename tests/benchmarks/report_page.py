"""How quick a page of 100,000 rows with 55 MB of text is: `python -m tests.benchmarks.report_page [OUT.html]`.

A page is opened anew for each round in a headless Chromium, from the disk. Times are of the page's own clock: from the
start of the navigation to the first rows drawn with their texts, from a key to the frame with the result. Memory is the
heap of scripts, what they hold beside it (texts of the browser, arrays), and what is resident of the renderer.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cometbatch.commands.leaderboard import result_at
from cometbatch.reports.page.chunks import Encoder, StoredPrompt
from cometbatch.reports.page.html import PageWriter
from cometbatch.reports.page.page_columns import Columns
from tests.page import results
from tests.page.browser import Chromium, Visit
from tests.page.make_page import meta_of

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

ROWS: Final = 100_000
BATCH_ROWS: Final = 10_000  # encoded at a time
PROMPT_WORDS: Final = (15, 60)
ANSWER_WORDS: Final = (15, 75)
VOCABULARY: Final = 4_000  # words of 2 to 9 letters, which compress like English
LETTERS: Final = dict(
    zip("etaoinshrdlucmfwypvbgk", (12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1), strict=True)
)
NEEDLE: Final = "Zauberlehrling"  # stands in one answer alone, near the end
ROUNDS: Final = 5
FRAME: Final = {
    "body": ['{"model":"m","messages":[{"role":"user","content":"', 0, '"}]}'],
    "messages": [{"role": "system", "parts": [{"text": "Sort this."}]}, {"role": "user", "parts": [{"slot": 0}]}],
    "url": "https://api.cometapi.com/v1/chat/completions",
    "headers": [],
    "auth": ["authorization", "Bearer ", "COMETAPI_KEY"],
    "format": "chat",
    "model": "m",
    "images": False,
    "hash": "",
}
BARS: Final[Mapping[str, tuple[float, str]]] = {
    "first rows on screen": (1_000, "ms"),
    "search, nothing decompressed": (1_000, "ms"),
    "search of two words": (1_000, "ms"),
    "search again": (1_000, "ms"),
    "sort, slowest column": (100, "ms"),
    "filter": (100, "ms"),
    "heap after loading": (150, "MB"),
    "heap after a search": (150, "MB"),
    "file": (35, "MB"),
}
"""What each figure may be at most, and its unit; figures without a bar are told only."""

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


def words(rng: random.Random) -> list[str]:
    """A vocabulary."""
    return [
        "".join(rng.choices(tuple(LETTERS), tuple(LETTERS.values()), k=rng.randint(2, 9))) for _ in range(VOCABULARY)
    ]


def texts(count: int, length: tuple[int, int], vocabulary: list[str], rng: random.Random) -> list[str]:
    """Some texts of so many words, with frequencies like those of a language."""
    bounds = list(accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))
    found = []
    for _ in range(count):
        sentence = " ".join(rng.choices(vocabulary, cum_weights=bounds, k=rng.randint(*length)))
        found.append(f"{sentence[0].upper()}{sentence[1:]}.")
    return found


def many_rows(folder: Path, rows: int = ROWS) -> Path:
    """A result of so many rows; its layout is that of a real one, of which it repeats the rows with other texts."""
    real = pq.read_table(results.large(folder, 2_000))
    rng = random.Random(7)
    vocabulary = words(rng)
    path = folder / "many.parquet"
    with pq.ParquetWriter(path, real.schema) as writer:
        for begin in range(0, rows, real.num_rows):
            part = real.slice(0, min(real.num_rows, rows - begin))
            made = {
                "ticket": [f"T-{begin + row:06d}" for row in range(part.num_rows)],
                "note": texts(part.num_rows, PROMPT_WORDS, vocabulary, rng),
                "response": texts(part.num_rows, ANSWER_WORDS, vocabulary, rng),
            }
            if begin <= rows - 10 < begin + part.num_rows:
                made["response"][rows - 10 - begin] += f" {NEEDLE}"
            for name, cells in made.items():
                at = part.schema.get_field_index(name)
                part = part.set_column(at, part.schema.field(at), pa.array(cells, part.schema.field(at).type))
            writer.write_table(part)
    return path


def write_page(result: Path, out: Path) -> float:
    """Write the page of a result; seconds of CPU that it took."""
    source = result_at(result)
    begin = time.process_time()
    columns = Columns.of([source], has_prompts=True)
    encoder, count = Encoder(columns), 0
    with PageWriter(out) as page:
        for ordinals, table in source.tables(columns.read(0)):
            prompts = [StoredPrompt([text], 0) for text in table.column("note").to_pylist()]
            count += table.num_rows
            for chunk in encoder.add(0, ordinals, table, prompts):
                page.add(chunk)
        for chunk in encoder.rest():
            page.add(chunk)
        page.finish(meta_of(columns, [count]) | {"frames": [FRAME]})
    return time.process_time() - begin


class Renderer:
    """What a page holds, by the browser's own counting. In the browser's thread."""

    def __init__(self, visit: Visit) -> None:
        self._session: CDPSession = visit.context.new_cdp_session(visit.page)
        assert visit.context.browser is not None
        self._browser: CDPSession = visit.context.browser.new_browser_cdp_session()

    def figures(self, when: str) -> dict[str, float]:
        """MB of the heap of scripts after a collection, of what it holds beside it, and of the renderer's memory."""
        self._session.send("HeapProfiler.collectGarbage")
        usage = self._session.send("Runtime.getHeapUsage")
        beside = usage.get("embedderHeapUsedSize", 0) + usage.get("backingStorageSize", 0)
        processes = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        resident = max(_resident_mb(each["id"]) for each in processes if each["type"] == "renderer")
        return {
            f"heap {when}": usage["usedSize"] / 1e6,
            f"arrays and nodes {when}": beside / 1e6,
            f"renderer's own memory {when}": resident,
        }


def _resident_mb(pid: int) -> float:
    """MB of a process that no file backs."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")) / 1e3


def measured(chromium: Chromium, path: Path) -> dict[str, float]:
    """One round: a page that is opened anew. In the browser's thread."""
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
    found |= renderer.figures("after loading")
    found["search, nothing decompressed"], found["longest frame of a search"] = page.evaluate(SEARCH, [NEEDLE, "1 of"])
    found |= renderer.figures("after a search")
    found["search of two words"] = page.evaluate(SEARCH, [f"{NEEDLE} t-0", "1 of"])[0]
    found["search again"] = page.evaluate(SEARCH, [NEEDLE.upper(), "1 of"])[0]
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


def main() -> None:
    """Measure, and print each figure with its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", help="the page; it is written where it is not there yet")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.out or Path(folder) / "page.html"
        if not path.exists():
            print(f"written in {write_page(many_rows(Path(folder)), path):.2f} s of CPU")  # noqa: T201
        chromium = Chromium()
        chromium.start()
        try:
            rounds = [chromium.run(lambda: measured(chromium, path)) for _ in range(ROUNDS)]
        finally:
            chromium.stop()
        rounds = [each | {"file": path.stat().st_size / 1e6} for each in rounds]
    for name in rounds[0]:
        bar, unit = BARS.get(name, (None, "MB" if "memory" in name or "arrays" in name else "ms"))
        figure = median(each[name] for each in rounds)
        verdict = "" if bar is None else f"{'within' if figure <= bar else 'ABOVE'} {bar:,.0f}"
        print(f"{name:42}{figure:10.1f} {unit}  {verdict}")  # noqa: T201


if __name__ == "__main__":
    main()
