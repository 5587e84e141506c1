"""How the run goes, on standard error: one line that is redrawn, or a line a minute where that is no terminal.

Never the reason that a run fails.
"""

import functools
import importlib.util
import math
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NoReturn, TextIO, TypeAlias

from tqdm import tqdm

from cometbatch.commands.observers import Observers
from cometbatch.money.exact import EXACT, format_rounded
from cometbatch.records import Outcome, Tally
from cometbatch.results.columns import answered_in
from cometbatch.results.terminal import visible

Bar: TypeAlias = "tqdm[NoReturn]"  # it counts; it iterates over nothing

DRAWN_EVERY_S = 0.2  # seconds between two drawings while outcomes come; more often is no use to an eye
FIRST_LINE_S = 10.0  # seconds from the start to the first line where there is no terminal; shorter runs print none
LINE_EVERY_S = 60.0  # seconds between two later lines; they come at whole minutes from the start
SAMPLE_EVERY_S = 1.0  # seconds between two samples of the row count
SAMPLES = 300  # the rate is that of the later half of them: at most the last 2.5 minutes
NOTEBOOK_COLUMNS = 120  # what most notebooks have room for beside the bar
USUAL_TERMINAL = (80, 24)  # columns and lines, for terminals that do not know their size
SEPARATOR, ASCII_SEPARATOR = " · ", " | "
LEAVES_FIRST = ("workers", "rate", "in_flight", "waiting", "time", "cost", "incomplete", "failed")
"""The pieces of the line in the order in which they leave it where the terminal is too narrow for all."""


_shown: "weakref.WeakSet[Progress]" = weakref.WeakSet()  # who shows something now, in this process


class _Line(tqdm):  # type: ignore[type-arg] # the stub is generic, the class is not
    """A bar that lets go of tqdm's lock also where drawing fails: another thread that draws would wait for ever."""

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:  # noqa: ARG002 - tqdm's own
        """Draw it. Raises what the stream raises."""
        with self.get_lock():  # type: ignore[no-untyped-call] # the stub has no types here
            super().refresh(nolock=True)


class Progress:
    """Counts what is recorded and shows it: rows, time left, rate, cost, requests in flight, rows that fell short.

    `name`: of the run, which is told where several are shown. `done` is what earlier sessions recorded. `on` forces the
    redrawn line on, or both kinds of line off. By default it follows the terminal: where there is none (a log file, a
    scheduler), a line is printed at 10 s and each minute. `observers` are told each line that is said, too.
    """

    def __init__(
        self,
        rows: int,
        done: Tally,
        *,
        on: bool | None = None,
        stream: TextIO | None = None,
        name: str = "",
        observers: Observers | None = None,
    ) -> None:
        self._observers = observers or Observers()
        self._stream = sys.stderr if stream is None else stream
        self._separator = SEPARATOR if _can_say(self._stream, SEPARATOR) else ASCII_SEPARATOR
        self._name = name
        _shown.add(self)
        self._rows, self._done = rows, done.calls
        self._incomplete, self._failed = done.incomplete, done.failed
        self._cost: Decimal = done.cost_usd
        self._unpriced, self._excluding = done.unpriced, done.excluding
        self._before = done
        self._in_flight = 0
        self._waiting_for = ""
        self.workers = ""
        """How many processes send, in a few words; "" where this one sends everything."""
        self._room = USUAL_TERMINAL[0]
        self._started = time.monotonic()
        self._samples = deque([(self._started, self._done)], maxlen=SAMPLES)
        self._next_draw = 0.0
        self._next_line = math.inf  # where there is no terminal: when a line is due, by the monotonic clock
        self.retries = 0
        self.pushbacks = 0
        self._is_warned_of_cap = False
        self._bar: Bar = tqdm(disable=True)
        self._is_notebook = on is not False and stream is None and _is_notebook()
        if self._is_notebook or (self._stream.isatty() if on is None else on):
            self._draw(self._show)
        elif on is None:
            self._next_line = self._started + FIRST_LINE_S

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:
        """Count outcomes, and show it if the last time that it was shown is long enough ago for an eye."""
        if not self._is_shown:
            return
        self._in_flight = in_flight
        answered = answered_in(outcomes)
        self._done += len(outcomes)
        self._incomplete += sum([outcome.status == "incomplete" for outcome in answered])
        self._failed += len(outcomes) - len(answered)
        costs = [outcome.cost_usd for outcome in answered]
        known = [cost for cost in costs if cost is not None]
        self._unpriced += len(costs) - len(known)
        self._excluding += sum(
            outcome.cost_usd is not None and outcome.completion.cost_excludes is not None for outcome in answered
        )
        self._cost = functools.reduce(EXACT.add, known, self._cost)
        if time.monotonic() >= self._next_draw:
            self._update()

    def counted(self, recorded: Tally, in_flight: int) -> None:
        """The same by sums: a tally of all that was recorded since the line began."""
        before, self._in_flight = self._before, in_flight
        if not self._is_shown or self._done == before.calls + recorded.calls:
            return
        self._done = before.calls + recorded.calls
        self._incomplete, self._failed = before.incomplete + recorded.incomplete, before.failed + recorded.failed
        self._cost = EXACT.add(before.cost_usd, recorded.cost_usd)
        self._unpriced, self._excluding = before.unpriced + recorded.unpriced, before.excluding + recorded.excluding
        if time.monotonic() >= self._next_draw:
            self._update()

    def redraw(self, in_flight: int, waiting_for: str) -> None:
        """Show the line, also where nothing was recorded. `waiting_for`: what holds back the next request, or ""."""
        if not self._is_shown:
            return
        self._in_flight, self._waiting_for = in_flight, waiting_for
        self._update()

    def retried(self) -> None:
        """Count one more attempt."""
        self.retries += 1

    def asked_to_slow_down(self, wait_s: float) -> None:
        """Count that the service asks to slow down. `wait_s`: seconds that all rows wait; 0: the rate falls instead."""
        self.pushbacks += 1
        if wait_s and self._is_shown:
            self._waiting_for = f"service asks to wait {math.ceil(wait_s)} s"
            self._update()

    def say(self, line: str) -> None:
        """Print a line above the bar, and above those of other runs, unless a log takes it."""
        self._observers.noted(line)
        self._print(line)

    def warn(self, words: str) -> None:
        """Tell whoever pays something that he should know."""
        self._observers.warned(words)
        self._print(f"Warning: {words}")

    def _print(self, line: str) -> None:
        if self._observers.take_words:
            return

        def draw() -> None:
            with tqdm.external_write_mode(file=self._stream):
                print(self._whose + visible(line), file=self._stream, flush=True)

        self._draw(draw)

    def warn_of_cap(self, words: str) -> None:
        """Say once that the service does not keep the token cap; "" is nothing to say."""
        if words and not self._is_warned_of_cap:
            self._is_warned_of_cap = True
            self.warn(words)

    def close(self) -> None:
        """Draw the last state and leave it standing."""
        _shown.discard(self)
        self._in_flight, self._waiting_for, self.workers = 0, "", ""
        if not self._bar.disable:
            self._update()
        self._draw(self._bar.close)

    @property
    def _whose(self) -> str:
        """The beginning of each line where several runs are shown."""
        return f"{visible(self._name)}: " if self._name and any(each is not self for each in tuple(_shown)) else ""

    @property
    def _is_shown(self) -> bool:
        """Whether anything of it is shown, now or later."""
        return not self._bar.disable or self._next_line < math.inf

    def _show(self) -> None:
        if self._is_notebook:
            from tqdm.notebook import tqdm_notebook  # noqa: PLC0415 - a second, and there in a notebook alone

            self._bar = tqdm_notebook(total=self._rows, bar_format="{bar} {desc}", initial=self._done)
            self._room = NOTEBOOK_COLUMNS
            self._update()
            return
        self._bar = _Line(total=self._rows, file=self._stream, bar_format="{desc}", **_shape(self._stream))
        self._room = self._columns()
        self._update()

    def _update(self) -> None:
        now = time.monotonic()
        self._next_draw = now + DRAWN_EVERY_S
        if now - self._samples[-1][0] >= SAMPLE_EVERY_S:
            self._samples.append((now, self._done))
            self._room = self._columns()
        if not self._bar.disable:
            self._bar.n = self._done  # a notebook's bar is drawn by it
            self._draw(lambda: self._bar.set_description_str(self._line(now)))
        elif now >= self._next_line:
            self._next_line = self._started + LINE_EVERY_S * ((now - self._started) // LINE_EVERY_S + 1)
            line = self._separator.join(filter(None, self._pieces(now).values())).lstrip()
            self._draw(lambda: print(line, file=self._stream, flush=True))

    def _draw(self, draw: Callable[[], object]) -> None:
        """A terminal that is gone ends the line, not the run."""
        try:
            draw()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._bar.disable, self._next_line = True, math.inf

    def _line(self, now: float) -> str:
        """The pieces that there is room for."""
        pieces = self._pieces(now)
        leaving = iter(LEAVES_FIRST)
        while len(line := self._separator.join(filter(None, pieces.values()))) > self._room:
            if (name := next(leaving, None)) is None:
                return line[: self._room]
            pieces.pop(name)
        return line

    def _columns(self) -> int:
        """The terminal's width as it is now. The last column stays free: some terminals begin a new line there."""
        if self._is_notebook:
            return NOTEBOOK_COLUMNS
        return max(0, (self._bar.format_dict["ncols"] or USUAL_TERMINAL[0]) - 1)

    def _pieces(self, now: float) -> dict[str, str]:
        """The line's pieces by name, in their order; "" where there is nothing to tell."""
        then, done_then = self._samples[(len(self._samples) - 1) // 2]
        rate = (self._done - done_then) / (now - then) if now > then else 0.0
        left = self._rows - self._done
        share = 100 * self._done // self._rows if self._rows else 100
        return {
            "rows": f"{self._whose}{share:3d}% {self._done:,}/{self._rows:,}",
            "time": f"{_clock(left / rate)} left" if rate and left else f"{_clock(now - self._started)} elapsed",
            "rate": _rate(rate),
            "cost": self._bill(),
            "in_flight": f"{self._in_flight:,} in flight",
            "workers": self.workers,
            "incomplete": f"{self._incomplete:,} incomplete" if self._incomplete else "",
            "failed": f"{self._failed:,} failed" if self._failed else "",
            "waiting": f"waiting: {self._waiting_for}" if self._waiting_for else "",
        }

    def _bill(self) -> str:
        if self._unpriced and not self._cost:
            return "cost unknown"
        bound = "at least " if self._excluding else ""
        return f"{bound}{format_rounded(self._cost)}" + (f" ({self._unpriced:,} unpriced)" if self._unpriced else "")


def _clock(seconds: float) -> str:
    """Minutes and seconds, as 0:04; hours before them where there are some."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:,}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _rate(rate: float) -> str:
    """Rows a second, or a minute where there are few."""
    if rate and rate < 0.1:  # noqa: PLR2004 - what one decimal can show
        return f"{60 * rate:.1f}/min"
    return f"{rate:,.0f}/s" if rate >= 10 or not rate else f"{rate:.1f}/s"  # noqa: PLR2004 - two digits are enough


def _is_notebook() -> bool:
    """Whether this is a notebook that can show tqdm's own widget."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel") and importlib.util.find_spec("ipywidgets") is not None


def _can_say(stream: TextIO, text: str) -> bool:
    """Whether the terminal's encoding has these characters."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _shape(stream: TextIO) -> dict[str, Any]:
    """How long the line may be: as the terminal is, also when it changes, if it tells."""
    try:
        is_known = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        is_known = False
    return {"dynamic_ncols": True} if is_known else dict(zip(("ncols", "nrows"), USUAL_TERMINAL, strict=True))
