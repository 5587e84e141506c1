"""The CPU that telemetry takes in the run's own thread, for each row.

    python -m tests.benchmarks.telemetry [--rows 1000000]

Tells the same outcomes to a listener that does nothing and to the telemetry, in turn and side by side, and says the
difference: what the telemetry's own code takes. Outcomes come in turns of several sizes, as runs of several speeds have
them; one in a thousand has failed. Ends with 1 above the bar.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, cast

from cometbatch.commands.observers import Listener, Observers
from cometbatch.commands.telemetry import Telemetry
from cometbatch.records import Answered, Completion, Failed, Failure, Outcome, Usage
from cometbatch.telemetry.attributes import Asked
from cometbatch.telemetry.counts import Counts
from cometbatch.telemetry.spans import RowSpans

BAR_US: Final = 1.0  # microseconds a row
DISTINCT: Final = 20_000  # outcomes, which are told again and again
TURNS: Final = (1, 8, 64, 256)  # outcomes at once; a run with 64 in flight has some 8
ROUNDS: Final = 3  # of which the fastest counts, as the machine does other things, too
EXPORT_EVERY_ROWS: Final = 75_000  # 15 s at 5,000 rows a second
ASKED: Final = Asked(("chat",), ("vendor-model-4.5",), "api.example.com", 443)


class Deaf(Listener):
    """Hears nothing, and costs what every listener costs."""

    reads_tally = False


def outcomes(chance: random.Random) -> list[Outcome]:
    """Rows as a service answers them."""
    start = datetime(2026, 9, 1, tzinfo=UTC)
    return [_outcome(chance, row, start + timedelta(milliseconds=row / 5)) for row in range(DISTINCT)]


def _outcome(chance: random.Random, row: int, moment: datetime) -> Outcome:
    latency_s, request_hash = round(chance.lognormvariate(0, 1), 3), f"{row:064x}"
    if chance.random() < 0.001:
        return Failed(row, None, 5, latency_s, moment, request_hash, Failure("server_error", "", 500))
    usage = Usage(chance.randrange(20, 4_000), chance.randrange(1, 600), chance.choice((None, 0, 1_024)), None, 0)
    completion = Completion("text", "stop", usage, f"id-{row}", "".join(("vendor-model-4.5", "-2026")))
    cost = Decimal(chance.randrange(10**6)) / 10**9
    return Answered(row, "succeeded", None, 1, latency_s, moment, request_hash, 200, f"req-{row}", completion, cost)


def telemetry() -> Telemetry:
    """As it is once a run has begun, but without the thread that sends."""
    made = Telemetry()
    made._counts, made._spans = Counts(ASKED), RowSpans(ASKED)
    made._delivery = cast("Any", object())
    return made


def cpu_us(listener: Listener, turns: Sequence[Sequence[Outcome]], rows: int) -> float:
    """Microseconds a row of this thread's CPU."""
    observers, done, exported = Observers([listener]), 0, 0
    began = time.thread_time()
    while done < rows:
        for turn in turns:
            observers.recorded(turn, 64)
            done += len(turn)
        if isinstance(listener, Telemetry) and done - exported >= EXPORT_EVERY_ROWS:
            exported = done
            listener._batch()
    return (time.thread_time() - began) / done * 1e6


def main() -> int:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    made, worst = outcomes(random.Random(1)), 0.0
    for size in TURNS:
        turns = [made[at : at + size] for at in range(0, len(made), size)]
        rounds = [(cpu_us(Deaf(), turns, rows), cpu_us(telemetry(), turns, rows)) for _ in range(ROUNDS)]
        without, with_it = (min(each) for each in zip(*rounds, strict=True))
        worst = max(worst, with_it - without)
        sys.stdout.write(
            f"turns of {size:3}: {with_it - without:.2f} us a row ({with_it:.2f} with, {without:.2f} without)\n"
        )
    sys.stdout.write(f"bar: {BAR_US} us a row: {'met' if worst <= BAR_US else 'NOT MET'}\n")
    return int(worst > BAR_US)


if __name__ == "__main__":
    sys.exit(main())
