"""What a seed decides: the table, what the user sets, and for each session its kind, its owners and what goes wrong."""

import random
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from tests.workers.simulated.net import NetFaults
from tests.workers.simulated.plain import Settings
from tests.workers.simulated.service import Faults

What: TypeAlias = Literal["kill", "stop", "suspend", "cut", "trigger"]
Whom: TypeAlias = Literal["owner", "driver", "coordinator"]
OPERATIONS = (
    *("", "write", "mark", "sync", "message", "create", "rename", "unlink"),
    *("send", "send", "send", "link", "link", "link", "link"),
)

POWER_CUTS = 0.15  # share of lives with one


class Mishap(Struct, frozen=True):
    """What happens to a process of a session, `at_s` after its beginning. `owner`: which of those that are there then.

    kill: SIGKILL. stop: SIGSTOP, for `for_s` seconds, then SIGCONT. suspend: of the machine, clocks of the process
    included. cut: nothing passes between it and the coordinator. trigger: kill or stop (`for_s` above 0) right before
    its `number`-th operation of a kind from then on.
    """

    what: What
    whom: Whom
    at_s: float
    owner: int = 0
    for_s: float = 0.0
    operation: str = ""
    number: int = 1


class SessionPlan(Struct, frozen=True):
    """One session. `owners`: 0 is one process without owners.

    `in_cluster`: the coordinator has a process of its own, messages may be lost, and nobody tells the owners of their
    driver's death.
    """

    owners: int
    in_cluster: bool
    service: Faults
    net: NetFaults
    mishaps: tuple[Mishap, ...]


class Plan(Struct, frozen=True):
    """One life. `sync_s`, `stall`, `step`: how slow the disk is.

    `power_cut`: the number of a session, from 0, and how many seconds after its beginning the machine's power fails.
    """

    seed: int
    rows: int
    partition_rows: int
    queues: int
    settings: Settings
    sessions: tuple[SessionPlan, ...]
    sync_s: float
    stall: float
    step: float
    drift: float
    power_cut: tuple[int, float] | None = None


def plan_of(seed: int) -> Plan:
    """The life that a seed stands for."""
    chance = random.Random(f"plan {seed}")
    queues = chance.choice((1, 1, 1, 2))
    settings = Settings(
        concurrency=chance.choice((2, 3, 4, 8, 16)),
        requests_per_minute=chance.choice((None, None, 240.0, 600.0, 1500.0, 6000.0)),
        tokens_per_minute=chance.choice((None, None, None, 600_000.0)),
        adaptive=chance.random() < 0.3,
        max_cost_usd=Decimal(str(round(chance.uniform(0.02, 0.2), 3))) if chance.random() < 0.35 else None,
    )
    rows = chance.randint(16, 44) // queues
    plan = Plan(
        seed=seed,
        rows=rows,
        partition_rows=chance.randint(4, 8),
        queues=queues,
        settings=settings,
        sessions=tuple(_session(chance, number, settings.concurrency) for number in range(chance.randint(1, 3))),
        sync_s=chance.choice((0.001, 0.004, 0.03)),
        stall=chance.choice((0.0, 0.0, 0.05)),
        step=chance.choice((0.0, 0.2, 1.0)),
        drift=chance.choice((0.0, 0.001, 0.01)),
    )
    power = random.Random(f"power {seed}")
    if power.random() > POWER_CUTS:
        return plan
    when = power.choice((power.uniform(0, 0.5), power.uniform(0, 2), power.uniform(0, 6)))
    return msgspec.structs.replace(plan, power_cut=(power.randrange(len(plan.sessions)), when))


def _session(chance: random.Random, number: int, most: int) -> SessionPlan:
    """`most`: owners, since each needs a request that it may have in flight."""
    owners = min(most, chance.choice((2, 2, 3, 4))) if number == 0 or chance.random() < 0.7 else 0
    in_cluster = owners > 0 and chance.random() < 0.5
    is_quiet = chance.random() < 0.2
    mishaps = 0 if is_quiet else chance.choice((1, 1, 2, 2, 3, 5))
    return SessionPlan(
        owners=owners,
        in_cluster=in_cluster,
        service=_service(chance),
        net=_net(chance) if in_cluster and not is_quiet else NetFaults(),
        mishaps=tuple(_mishap(chance, owners, in_cluster) for _ in range(mishaps)),
    )


def _service(chance: random.Random) -> Faults:
    usual = Faults(latency_s=chance.choice(((0.02, 0.2), (0.1, 0.5), (0.5, 2.0))))
    faults: tuple[dict[str, float | int | None], ...] = (
        {},
        {},
        {"refuses": 0.1},
        {"refuses": 0.05, "retry_after_s": chance.choice((0.5, 2.0))},
        {"fails": 0.1},
        {"loses": 0.1},
        {"per_s": chance.choice((5.0, 15.0)), "retry_after_s": chance.choice((None, 1.0))},
        {"stops_at": chance.randint(1, 40)},
    )
    return msgspec.structs.replace(usual, **chance.choice(faults))


def _net(chance: random.Random) -> NetFaults:
    return chance.choice((NetFaults(), NetFaults(lost=0.03, late=0.03, twice=0.03), NetFaults(late=0.1, twice=0.1)))


def _mishap(chance: random.Random, owners: int, in_cluster: bool) -> Mishap:
    whom: Whom = "driver"
    if owners and chance.random() < 0.65:
        whom = "owner"
    elif in_cluster and chance.random() < 0.5:
        whom = "coordinator"
    kinds: tuple[What, ...] = ("kill", "stop", "suspend", "trigger", "trigger", "trigger", "trigger", "trigger")
    if whom == "owner" and in_cluster:
        kinds = (*kinds, "cut", "cut")
    elif whom == "driver":
        kinds = (*kinds, "kill", "kill", "kill")
    what = chance.choice(kinds)
    if whom == "coordinator" and what == "trigger":
        what = "kill"
    operation = chance.choice(OPERATIONS) if what == "trigger" else ""
    is_long = operation in {"link", "send"}  # there a long stop is what the fence is for
    pause_s = chance.uniform(1.5, 9.0) if is_long and chance.random() < 0.7 else _pause_s(chance)
    return Mishap(
        what,
        whom,
        at_s=chance.choice((chance.uniform(0, 0.4), chance.uniform(0, 1.5), chance.uniform(0, 5))),
        owner=chance.randrange(4),
        for_s=0.0 if what == "kill" or (what == "trigger" and chance.random() < 0.3) else pause_s,
        operation=operation,
        number=chance.choice((1, chance.randint(1, 3 if operation == "link" else 6), chance.randint(1, 20))),
    )


def _pause_s(chance: random.Random) -> float:
    return chance.choice((chance.uniform(0.1, 1.0), chance.uniform(0.8, 2.5), chance.uniform(2, 12), 40.0))
