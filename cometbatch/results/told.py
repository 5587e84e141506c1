"""What a result's metadata say, read with doubt: a result may come from anybody, and may have been changed since.

Guards: whatever stands there, reading it raises nothing, and gives no number that is none, no amount below nothing, and
no half of a surrogate pair, which no page could hold.
"""

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

_MAX_COUNT: Final = 2**53
_MAX_USD: Final = Decimal(10**15)
_MAX_DECIMALS: Final = 100  # after the point of an amount: a text of 1e-999999999 would fill the memory
_AMOUNT: Final = "_usd"
"""The end of the name of an amount; all else in a bill is a count."""


def told(text: str | None) -> Any:
    """What a text in JSON stands for; None where there is none, or none that can be read."""
    try:
        found = json.loads(text or "null")
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found


def told_bill(text: str | None) -> dict[str, Any]:
    """What a run cost, as its result tells it: amounts as Decimals, counts as whole numbers, and nothing else."""
    found = told(text)
    lawful = ((name, _amount(value) if name.endswith(_AMOUNT) else _count(value)) for name, value in _items(found))
    return {name: value for name, value in lawful if value is not None}


def _items(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def _amount(value: object) -> Decimal | None:
    if type(value) not in (str, int, float):
        return None
    try:
        found = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    is_lawful = found.is_finite() and 0 <= found <= _MAX_USD
    return found if is_lawful and -_MAX_DECIMALS <= int(found.as_tuple().exponent) <= _MAX_DECIMALS else None
