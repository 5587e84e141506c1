"""What a coordinator is told once, when it begins."""

from decimal import Decimal

from msgspec import Struct


class Settings(Struct, frozen=True):
    """One session of a run with several owners. Limits and money are the whole run's.

    `owners`: how many of them there are meant to be at a time. `concurrency`: requests in flight, of all owners
    together; with `adaptive`, a ceiling. `queues`: how many models the run asks. `requests_per_minute`,
    `tokens_per_minute`: None is no limit. `budget_usd`: the cap in US dollars, None where there is none; `spent_usd`:
    what counts towards it from earlier sessions.
    """

    owners: int
    concurrency: int
    queues: int = 1
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    adaptive: bool = False
    budget_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
