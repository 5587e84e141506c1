"""How the run goes, on one line of standard error; silent where that is no terminal. Never why a run fails."""

import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NoReturn, TextIO, TypeAlias

from tqdm import tqdm

from cometbatch.money.exact import EXACT
from cometbatch.records import Answered, Outcome, Tally
from cometbatch.results.columns import answered_in

Bar: TypeAlias = "tqdm[NoReturn]"  # it counts; it iterates over nothing

# What a person asks first comes first, since a narrow terminal cuts the line; what is left over is the bar.
LINE = "{percentage:3.0f}% {n_fmt}/{total_fmt}{postfix}, {remaining} left, {rate_fmt} {bar}"
DRAWN_EVERY_S = 0.1
USUAL_TERMINAL = (80, 24)  # columns and lines, for terminals that do not know their size


class Progress:
    """Counts what is recorded and shows it: rows, rate, in flight, how rows ended, tokens, cost so far, time left.

    `done` is what earlier sessions recorded. `on` forces the line on or off; by default it follows the terminal.
    """

    def __init__(self, rows: int, done: Tally, *, on: bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._ok, self._incomplete, self._failed = done.succeeded, done.incomplete, done.failed
        self._tokens = done.input_tokens + done.output_tokens
        self._cost: Decimal = done.cost_usd
        self._unpriced = done.unpriced
        self._in_flight = 0
        self._undrawn = 0
        self._next_draw = 0.0
        self.retries = 0
        self.pushbacks = 0
        shown = self._stream.isatty() if on is None else on
        self._bar: Bar = tqdm(disable=True)
        if shown:
            self._draw(lambda: self._show(rows, done.calls))

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        """Count outcomes, and show it if the last time that it was shown is long enough ago for an eye."""
        if self._bar.disable:
            return
        self._in_flight = in_flight
        self._undrawn += len(outcomes)
        answered = answered_in(outcomes)
        succeeded = sum([outcome.status == "succeeded" for outcome in answered])
        self._ok += succeeded
        self._incomplete += len(answered) - succeeded
        self._failed += len(outcomes) - len(answered)
        self._add(answered)
        if (now := time.monotonic()) >= self._next_draw:
            self._next_draw = now + DRAWN_EVERY_S
            self._update()

    def _update(self) -> None:
        self._bar.set_postfix_str(self._words(), refresh=False)
        undrawn, self._undrawn = self._undrawn, 0
        self._draw(lambda: self._bar.update(undrawn))

    def retried(self) -> None:
        """Count one more attempt."""
        self.retries += 1

    def pushed_back(self, wait_s: float) -> None:
        """Say that everyone waits because the service pushes back; 0 s: it is only asked more slowly."""
        self.pushbacks += 1
        if not wait_s:
            return
        self._bar.set_postfix_str(f"waiting {wait_s:.1f} s for the service, {self._words()}", refresh=False)
        self._draw(self._bar.refresh)

    def waiting(self, reason: str) -> None:
        """Say what keeps the next request back, in a few words; "" where nothing does."""
        if reason and not self._bar.disable:
            self._bar.set_postfix_str(f"waiting for {reason}, {self._words()}", refresh=False)
            self._draw(self._bar.refresh)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._draw(self._bar.clear)
        self._draw(lambda: print(line, file=self._stream, flush=True))
        self._draw(self._bar.refresh)

    def close(self) -> None:
        """Draw the last state and leave it standing."""
        self._in_flight = 0
        self._update()
        self._draw(self._bar.refresh)
        self._draw(self._bar.close)

    def _show(self, rows: int, done: int) -> None:
        self._bar = tqdm(
            total=rows,
            initial=done,
            unit="row",
            file=self._stream,
            bar_format=LINE,
            **_shape(self._stream),
            mininterval=0.2,
            smoothing=0.1,
            postfix=self._words(),
        )

    def _draw(self, draw: Callable[[], object]) -> None:
        """A terminal that is gone ends the line, not the run."""
        try:
            draw()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._bar.disable = True

    def _add(self, answered: Sequence[Answered]) -> None:
        usages = [outcome.completion.usage for outcome in answered]
        self._tokens += sum([(usage.input_tokens or 0) + (usage.output_tokens or 0) for usage in usages])
        costs = [outcome.cost_usd for outcome in answered]
        known = [cost for cost in costs if cost is not None]
        self._unpriced += len(costs) - len(known)
        self._cost = functools.reduce(EXACT.add, known, self._cost)

    def _words(self) -> str:
        return (
            f"{self._ok} ok/{self._incomplete} incomplete/{self._failed} failed, "
            f"{self._tokens:,} tokens, {self._bill()}, {self._in_flight} in flight"
        )

    def _bill(self) -> str:
        if self._unpriced and not self._cost:
            return "cost unknown"
        return f"${self._cost:.4f}" + (f" and {self._unpriced:,} rows unpriced" if self._unpriced else "")


def _shape(stream: TextIO) -> dict[str, Any]:
    """How long the line may be: as the terminal is, also when it changes, if it tells."""
    try:
        is_known = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        is_known = False
    return {"dynamic_ncols": True} if is_known else dict(zip(("ncols", "nrows"), USUAL_TERMINAL, strict=True))
