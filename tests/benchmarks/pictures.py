"""The pictures of docs/performance.md, from raw results: CPU for each row beside the rivals', and memory against rows.

    .venv/bin/python -m tests.benchmarks.pictures tests/benchmarks/results/raw.jsonl

Written beside the raw results. Colours are such that can be read on a page of either theme, since a picture on a page
is not told which theme the page has. Both scales of size begin at 0 and are linear.
"""

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from tests.benchmarks.compare import read
from tests.benchmarks.report import Cost, Records
from tests.benchmarks.rivals import COMETBATCH, CONTENDERS

WORDS, LINES, OTHERS, OURS, ALSO_OURS = "#757d87", "#757d8755", "#8c959f", "#2f81f7", "#bf8700"
WIDTH = 800
LEFT, RIGHT = 260, 70  # what the names and the figures of the bars need
BAR, GAP, HEAD, FOOT = 22, 10, 64, 34
PLOT = (70, 64, 700, 250)  # left, top, width, height of the second picture
MOST_MB, STEP_MB, BAR_MB = 250, 50, 200
TITLES = {who.name: who.title for who in CONTENDERS}
PEAKS = (
    ("memory", "run_peak_mb", "while rows are answered", OURS),
    ("memory", "publishing_peak_mb", "while the result is published", ALSO_OURS),
)


def cpu_picture(records: Records) -> str:
    """Bars: CPU for each row, above what a start takes, the leanest at the top."""
    costs = records.costs()
    height = HEAD + len(costs) * (BAR + GAP) + FOOT
    longest_ms = max(cost.above_start_ms for cost in costs)
    bars = (part for place, cost in enumerate(costs) for part in _bar(place, cost, longest_ms))
    said = f"256 in flight, answers after 50 ± 25 ms, {_where(records, 'rivals')}"
    return _svg(height, "CPU for each row, in milliseconds: less is better", said, bars, _note(records))


def _bar(place: int, cost: Cost, longest_ms: float) -> Iterator[str]:
    top = HEAD + place * (BAR + GAP)
    length = cost.above_start_ms / longest_ms * (WIDTH - LEFT - RIGHT)
    is_ours = cost.who == COMETBATCH
    middle = top + BAR / 2 + 5
    yield _text(LEFT - 10, middle, TITLES[cost.who], anchor="end", is_bold=is_ours)
    yield f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" fill="{OURS if is_ours else OTHERS}"/>'
    yield _text(LEFT + length + 8, middle, f"{cost.above_start_ms:.2f}", is_bold=is_ours)


def memory_picture(records: Records) -> str:
    """Lines: peak memory of the process against the rows of the table, the latter on a logarithmic scale."""
    left, top, width, height = PLOT
    lengths = records.rows("memory")
    parts = [*_levels(), *_lengths(lengths)]
    for place, (case, field, title, colour) in enumerate(PEAKS):
        peaks = [records.median(field, case, rows=rows) for rows in lengths]
        points = [(_across(rows, lengths), _up(peak_mb)) for rows, peak_mb in zip(lengths, peaks, strict=True)]
        parts += _curve(points, peaks, colour)
        beside = left + 20 + place * width / 2
        under = top + height + 52
        parts.append(f'<line x1="{beside}" y1="{under - 4}" x2="{beside + 24}" y2="{under - 4}" {_stroke(colour, 3)}/>')
        parts.append(_text(beside + 32, under, title))
    said = f"256 in flight, answers at once, {_where(records, 'memory')}"
    return _svg(top + height + 68, "Peak memory, in MB, against rows of the table", said, parts, "")


def _levels() -> Iterator[str]:
    left, _, width, _ = PLOT
    for level_mb in range(0, MOST_MB + 1, STEP_MB):
        up = _up(level_mb)
        dashes = ' stroke-dasharray="6 4"' if level_mb == BAR_MB else ""
        colour = WORDS if level_mb == BAR_MB else LINES
        yield f'<line x1="{left}" y1="{up:.1f}" x2="{left + width}" y2="{up:.1f}" {_stroke(colour, 1)}{dashes}/>'
        yield _text(left - 10, up + 5, str(level_mb), anchor="end")


def _lengths(lengths: Sequence[int]) -> Iterator[str]:
    _, top, _, height = PLOT
    for rows in lengths:
        yield _text(_across(rows, lengths), top + height + 22, f"{rows:,}", anchor="middle")


def _curve(points: Sequence[tuple[float, float]], peaks: Sequence[float], colour: str) -> Iterator[str]:
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
    yield f'<polyline points="{path}" fill="none" {_stroke(colour, 3)}/>'
    for (across, up), peak_mb in zip(points, peaks, strict=True):
        yield f'<circle cx="{across:.1f}" cy="{up:.1f}" r="5" fill="{colour}"><title>{peak_mb:.0f} MB</title></circle>'


def _across(rows: int, lengths: Sequence[int]) -> float:
    left, _, width, _ = PLOT
    margin = 40
    span = math.log(lengths[-1] / lengths[0]) or 1.0
    return left + margin + math.log(rows / lengths[0]) / span * (width - 2 * margin)


def _up(level_mb: float) -> float:
    _, top, _, height = PLOT
    return top + height - level_mb / MOST_MB * height


def _where(records: Records, case: str) -> str:
    machine = records.machine(case)
    return f"{machine['machine']}, {machine['cores']} cores, Python {machine['python']}, {machine['at'][:10]}"


def _note(records: Records) -> str:
    rows = sorted({cost.rows for cost in records.costs()})
    return (
        f"Medians of runs of {' or '.join(f'{count:,}' for count in rows)} rows that took turns; every answer checked."
    )


def _text(across: float, up: float, words: str, *, anchor: str = "start", is_bold: bool = False, size: int = 14) -> str:
    weight = ' font-weight="bold"' if is_bold else ""
    place = f'x="{across:.1f}" y="{up:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="{WORDS}"{weight}>{escape(words)}</text>'


def _stroke(colour: str, width: int) -> str:
    return f'stroke="{colour}" stroke-width="{width}"'


def _svg(height: float, title: str, said: str, parts: Iterable[str], note: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
    )
    words = (_text(16, 24, title, is_bold=True, size=16), _text(16, 46, said, size=13))
    foot = (_text(16, height - 12, note, size=13),) if note else ()
    return "\n".join((head, *words, *parts, *foot, "</svg>")) + "\n"


def main() -> None:
    """Draw what there are results for."""
    parser = argparse.ArgumentParser(description="The two pictures of docs/performance.md.")
    parser.add_argument("raw", type=Path, help="raw results of the benchmark")
    raw = parser.parse_args().raw
    records = Records(read(raw))
    if records.costs():
        raw.with_name("cpu.svg").write_text(cpu_picture(records), encoding="utf-8")
    if records.rows("memory"):
        raw.with_name("memory.svg").write_text(memory_picture(records), encoding="utf-8")


if __name__ == "__main__":
    main()
