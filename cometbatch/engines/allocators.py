"""How the process of a run has its memory from the system. Set in the environment before a library is loaded."""

from typing import Final

ALLOCATORS: Final = {
    # Arrow reads this when it is loaded. Python has its memory from the system's allocator, too, so that what one of
    # the two gives back is there for the other: a run takes 25 to 35 MB less, with 100,000 rows as with 10,000.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # The allocator in Polars reads this when it is loaded. It would keep freed memory for ten seconds: `report` and
    # `compare` of 100,000 rows take 20 MB less, and as much processor time as without. A run takes the same of both.
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0",
}
"""Variables and their values, where the user has not set them."""
