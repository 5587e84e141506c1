"""What a run takes: rows an hour and dollars of machine, from the measured figures; docs/performance.md shows it.

    .venv/bin/python -m tests.benchmarks.model

Rows a second are the requests in flight divided by the seconds that an answer takes, and at most what one core can
do. The machine is paid for as long as the run lasts. What the service charges, and its own limits, come on top.
"""

import sys

CPU_MS = 0.20  # a row, whole process, on the machine of docs/performance.md: more than any case at full speed took
MACHINE_USD = 0.05  # an hour of one core with 1 GiB of memory, about what cloud providers ask for
ROWS = (1_000, 1_000_000, 100_000_000)
LATENCIES_S = (1, 10, 60)
IN_FLIGHT = (256, 2_000)
HOUR_S = 3_600
DAY_H = 24


def rows_per_s(in_flight: int, latency_s: float) -> float:
    """How many rows a second, on one core."""
    return min(in_flight / latency_s, 1_000 / CPU_MS)


def markdown() -> str:
    """The table for docs/performance.md."""
    heads = ["answers take", "in flight", "rows an hour", *(f"{rows:,} rows" for rows in ROWS)]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for latency_s in LATENCIES_S:
        for in_flight in IN_FLIGHT:
            speed = rows_per_s(in_flight, latency_s)
            cells = [f"{latency_s} s", f"{in_flight:,}", f"{speed * HOUR_S:,.0f}"]
            lines.append(f"| {' | '.join([*cells, *(_run(rows, speed, latency_s) for rows in ROWS)])} |")
    return "\n".join(lines) + "\n"


def _run(rows: int, speed: float, latency_s: float) -> str:
    seconds = max(rows / speed, latency_s)
    cost_usd = seconds / HOUR_S * MACHINE_USD
    return f"{_span(seconds)}, " + (f"${cost_usd:,.2f}" if cost_usd >= 0.01 else "below $0.01")


def _span(seconds: float) -> str:
    if seconds < HOUR_S / 10:
        return f"{seconds:.0f} s"
    hours = seconds / HOUR_S
    return f"{hours:.1f} h" if hours < 2 * DAY_H else f"{hours / DAY_H:.1f} days"


if __name__ == "__main__":
    sys.stdout.write(markdown())
