"""Tables of what was measured, and the bars with whether they are met. Medians of the rounds throughout."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from msgspec import Struct

from tests.benchmarks.rivals import COMETBATCH, COMETBATCH_ON_ASYNCIO, CONTENDERS

Record = dict[str, Any]
POSSIBLE_A_S = 10_000  # 2,000 in flight at 200 ms
TITLES = {who.name: who.title for who in CONTENDERS}


class Cost(Struct, frozen=True):
    """What rows cost a contender, in CPU milliseconds for each; `above_start` leaves out what one row alone takes."""

    who: str
    rows: int
    whole_ms: float
    start_s: float
    above_start_ms: float
    rows_a_s: float
    peak_mb: float


class Verdict(Struct, frozen=True):
    """How a bar stands."""

    case: str
    bar: str
    found: str
    is_met: bool


class Records:
    """Records to be asked for medians: of each figure those of the last session that measured it, and no older ones.

    A session begins with the record of its machine. On a machine that is shared, memory is a figure and CPU is none:
    the records of such a session lack `cpu_s`.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._sessions: dict[str, list[list[Record]]] = {}  # of each case; each begins with its machine
        machine: Record = {}
        for record in records:
            if "machine" in record:
                machine = record
            elif (case := record.get("case")) is not None:
                sessions = self._sessions.setdefault(case, [])
                if not sessions or sessions[-1][0] is not machine:
                    sessions.append([machine])
                sessions[-1].append(record)

    def machine(self, case: str) -> Record:
        """On what a case was measured the last time, and when."""
        return self._sessions[case][-1][0]

    def of(self, case: str, who: str = COMETBATCH, *, field: str = "case", **more: int) -> list[Record]:
        """Those of one case and contender that have this field, and with this many rows, or in flight."""
        asked = {"case": case, "who": who, **more}
        for session in reversed(self._sessions.get(case, [])):
            if found := [record for record in session if asked.items() <= record.items() and field in record]:
                return found
        return []

    def median(self, field: str, case: str, who: str = COMETBATCH, **more: int) -> float:
        """The middle one."""
        return median(float(record[field]) for record in self.of(case, who, field=field, **more))

    def rows(self, case: str, who: str = COMETBATCH) -> list[int]:
        """Every length of table that was measured."""
        return sorted({record["rows"] for record in self.of(case, who)})

    def costs(self) -> list[Cost]:
        """Every contender, the leanest first. The floor is an anchor to compare sessions by, and no bar."""
        names = [who.name for who in CONTENDERS if self.of("rivals", who.name)]
        return sorted(map(self._cost, names), key=lambda cost: cost.above_start_ms)

    def _cost(self, who: str) -> Cost:
        (rows,) = self.rows("rivals", who)
        cpu_s = self.median("cpu_s", "rivals", who)
        start_s = self.median("cpu_s", "start-up", who)
        return Cost(
            who=who,
            rows=rows,
            whole_ms=cpu_s / rows * 1000,
            start_s=start_s,
            above_start_ms=(cpu_s - start_s) / (rows - 1) * 1000,
            rows_a_s=rows / self.median("wall_s", "rivals", who),
            peak_mb=self.median("peak_mb", "rivals", who),
        )

    def rate(self, case: str, who: str = COMETBATCH) -> float:
        """Rows a second from the first request to the last answer, as the server saw them."""
        return median(float(record["answered"] / record["busy_s"]) for record in self.of(case, who))


def describe(records: Records) -> str:
    """Every table that there are records for."""
    tables = (
        _costs(records),
        _rates(records),
        _encrypted(records),
        _long_tables(records),
        _resumed(records),
        _limited(records),
        _verdicts(records),
    )
    return "\n".join(filter(None, tables))


def _costs(records: Records) -> str:
    costs = records.costs()
    if not costs:
        return ""
    ours = next((cost.above_start_ms for cost in costs if cost.who == COMETBATCH), None)
    lines = [_cost_line(cost, ours) for cost in costs]
    head = ["256 in flight, 50 +- 25 ms", "rows", "CPU ms a row above the start", "to cometbatch's", "start, CPU s",
            "CPU ms a row, whole process", "rows/s, whole process", "peak MB"]  # fmt: skip
    return _table(head, lines)


def _cost_line(cost: Cost, ours: float | None) -> list[str]:
    ratio = "-" if ours is None else f"{cost.above_start_ms / ours:.2f}"
    whole = (f"{cost.start_s:.2f}", f"{cost.whole_ms:.3f}", f"{cost.rows_a_s:,.0f}", f"{cost.peak_mb:.0f}")
    return [TITLES[cost.who], f"{cost.rows:,}", f"{cost.above_start_ms:.3f}", ratio, *whole]


def _rates(records: Records) -> str:
    lines = [
        _rate_line(records, case, title, who)
        for case, title in (("many", "2,000 in flight, 200 +- 100 ms"), ("at-once", "256 in flight, 0 ms"))
        for who in (COMETBATCH, "floor")
        if records.of(case, who)
    ]
    head = ["on one core", "who", "rows", "rows/s", "CPU ms a row, whole process", "the server's share of its core"]
    return _table(head, lines)


def _rate_line(records: Records, case: str, title: str, who: str) -> list[str]:
    rows = records.rows(case, who)[-1]
    each_ms = records.median("cpu_s", case, who) / rows * 1000
    server = records.median("stub_cpu_s", case, who) / records.median("busy_s", case, who)
    return [title, TITLES[who], f"{rows:,}", f"{records.rate(case, who):,.0f}", f"{each_ms:.3f}", f"{server:.0%}"]


def _encrypted(records: Records) -> str:
    lines = [
        _encrypted_line(records, case, title, in_flight)
        for in_flight in sorted({record["in_flight"] for record in records.of("tls")})
        for case, title in (("no tls", "without"), ("tls", "with"))
    ]
    return _table(["in flight", "TLS", "rows", "CPU ms a row, whole process", "peak MB"], lines)


def _encrypted_line(records: Records, case: str, title: str, in_flight: int) -> list[str]:
    (rows,) = records.rows(case)
    cpu_s, peak_mb = (records.median(field, case, in_flight=in_flight) for field in ("cpu_s", "peak_mb"))
    return [f"{in_flight:,}", title, f"{rows:,}", f"{cpu_s / rows * 1000:.3f}", f"{peak_mb:.0f}"]


def _long_tables(records: Records) -> str:
    lines = [_length_line(records, rows) for rows in records.rows("memory")]
    head = ["rows", "peak MB before publishing", "while publishing", "whole process", "publishing by itself",
            "publishing, CPU us a row"]  # fmt: skip
    return _table(head, lines)


def _length_line(records: Records, rows: int) -> list[str]:
    fields = ("run_peak_mb", "publishing_peak_mb", "peak_mb")
    peaks = [records.median(field, "memory", rows=rows) for field in fields]
    peaks.append(records.median("peak_mb", "publishing", rows=rows))
    return [f"{rows:,}", *(f"{peak:.0f}" for peak in peaks), f"{publishing_us(records, rows):.1f}"]


def publishing_us(records: Records, rows: int) -> float:
    """CPU of publishing, a row, above that of the same command where there is nothing to do."""
    publishing, nothing = (records.median("cpu_s", case, rows=rows) for case in ("publishing", "nothing to do"))
    return (publishing - nothing) / rows * 1e6


def _resumed(records: Records) -> str:
    lines = [
        _small_line(records, case, rows)
        for case in ("fresh start", "resume", "help", "plan")
        for rows in records.rows(case)
    ]
    return _table(["to the first request, or to the end", "rows", "CPU s", "peak MB"], lines)


def _small_line(records: Records, case: str, rows: int) -> list[str]:
    cpu_s, peak_mb = (records.median(field, case, rows=rows) for field in ("cpu_s", "peak_mb"))
    return [case, f"{rows:,}", f"{cpu_s:.2f}", f"{peak_mb:.0f}"]


def _limited(records: Records) -> str:
    lines = [_limit_line(records, who) for who in (COMETBATCH, COMETBATCH_ON_ASYNCIO) if records.of("limit on", who)]
    return _table(["limit of 1,000 requests/s", "rows/s", "rows/s without", "CPU above, share of a core"], lines)


def _limit_line(records: Records, who: str) -> list[str]:
    rates = [f"{records.rate(case, who):,.0f}" for case in ("limit on", "limit off")]
    return [who, *rates, f"{limit_share(records, who):.1%}"]


def limit_share(records: Records, who: str) -> float:
    """CPU that the limit takes, at 1,000 rows a second, as a share of a core."""
    (rows,) = records.rows("limit on", who)
    limited, free = (records.median("cpu_s", case, who) for case in ("limit on", "limit off"))
    return (limited - free) / rows * 1000


# -- the bars ----------------------------------------------------------------------------------------------------------


def verdicts(records: Records) -> list[Verdict]:
    """Every bar that was measured."""
    return [verdict for judge in JUDGES for verdict in judge(records)]


def _verdicts(records: Records) -> str:
    lines = [[found.case, found.bar, found.found, "yes" if found.is_met else "NO"] for found in verdicts(records)]
    return _table(["case", "bar", "measured", "met"], lines)


def _against_others(records: Records) -> Iterable[Verdict]:
    cost = {cost.who: cost.above_start_ms for cost in records.costs()}
    if COMETBATCH not in cost:
        return
    rivals = [cost[who.name] for who in CONTENDERS if who.is_rival and who.name in cost]
    others = (
        ("AsyncOpenAI, semaphore, tqdm", cost.get("openai_semaphore"), 25),
        ("the leanest resumable rival", min(rivals, default=None), 12),
        ("a bare aiohttp script", cost.get("bare_aiohttp"), 3),
    )
    for title, theirs, times in others:
        if theirs is not None:
            ratio = theirs / cost[COMETBATCH]
            yield Verdict(f"CPU a row, {title}", f"{times} times less", f"{ratio:.1f} times less", ratio >= times)


def _at_speed(records: Records) -> Iterable[Verdict]:
    if records.of("many"):
        share = records.rate("many") / POSSIBLE_A_S
        yield Verdict("2,000 in flight, 200 +- 100 ms", ">= 55 % of 10,000 rows/s", f"{share:.0%}", share >= 0.55)
    if records.of("at-once"):
        rate = records.rate("at-once")
        yield Verdict("256 in flight, 0 ms", ">= 8,000 rows/s", f"{rate:,.0f} rows/s", rate >= 8000)


def _in_memory(records: Records) -> Iterable[Verdict]:
    lengths = records.rows("memory")
    if not lengths:
        return
    fields = [("memory", "run_peak_mb"), ("memory", "publishing_peak_mb"), ("publishing", "peak_mb")]
    for case, field in fields:
        peaks = [records.median(field, case, rows=rows) for rows in lengths]
        title = f"{field.removesuffix('_mb').replace('_', ' ')}, {case}, {lengths[0]:,} to {lengths[-1]:,} rows"
        found = f"{min(peaks):.0f} to {max(peaks):.0f} MB"
        is_met = max(peaks) <= 200 and max(peaks) - min(peaks) <= 30
        yield Verdict(title, "<= 200 MB, within 30 MB", found, is_met)
    us = publishing_us(records, lengths[-1])
    yield Verdict(f"publishing {lengths[-1]:,} rows", "<= 10 us a row", f"{us:.1f} us", us <= 10)


def _resumes(records: Records) -> Iterable[Verdict]:
    for rows in records.rows("resume"):
        cpu_s = records.median("cpu_s", "resume", rows=rows)
        more_mb = records.median("peak_mb", "resume", rows=rows) - records.median("peak_mb", "fresh start", rows=rows)
        title = f"resume with {rows:,} rows done"
        yield Verdict(title, "<= 2 s CPU to the first request", f"{cpu_s:.2f} s", cpu_s <= 2)
        yield Verdict(title, "+ 20 MB at most", f"{more_mb:+.0f} MB", more_mb <= 20)


def _limits(records: Records) -> Iterable[Verdict]:
    for who, loop in ((COMETBATCH, "uvloop"), (COMETBATCH_ON_ASYNCIO, "asyncio")):
        if records.of("limit on", who):
            share = limit_share(records, who)
            yield Verdict(f"limit of 1,000/s, {loop}", "<= 5 % of a core", f"{share:.1%}", share <= 0.05)


def _starts(records: Records) -> Iterable[Verdict]:
    for case, most_s in (("help", 0.25), ("plan", 1.0)):
        if records.of(case):
            cpu_s = records.median("cpu_s", case)
            yield Verdict(case, f"<= {most_s} s CPU", f"{cpu_s:.2f} s", cpu_s <= most_s)


JUDGES: tuple[Callable[[Records], Iterable[Verdict]], ...] = (
    _against_others, _at_speed, _in_memory, _resumes, _limits, _starts
)  # fmt: skip


def _table(head: list[str], lines: list[list[str]]) -> str:
    """A table that is Markdown, and can be read as it is; nothing where it has no lines."""
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    rows = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in (head, rule, *lines))
    return "\n".join(rows) + "\n"
