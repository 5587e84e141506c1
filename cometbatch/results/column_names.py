"""Names of output columns beside those of the input: which of them clash, and the prefix that tells them apart."""

import itertools
from collections.abc import Iterable, Sequence

from cometbatch.results.columns import COLUMNS, Column


def clashes(input_columns: Iterable[str], prefix: str, columns: Sequence[Column] = COLUMNS) -> list[str]:
    """The output columns that the input has already, under this prefix."""
    taken = set(input_columns)
    return [name for column in columns if (name := prefix + column.name) in taken]


def case_clashes(
    input_columns: Iterable[str], prefix: str, columns: Sequence[Column] = COLUMNS
) -> list[tuple[str, str]]:
    """Columns of the input, each with the output column from which it differs by case alone: (theirs, ours)."""
    ours = {(prefix + column.name).casefold(): prefix + column.name for column in columns}
    pairs = [(name, ours.get(name.casefold())) for name in input_columns]
    return [(theirs, own) for theirs, own in pairs if own is not None and own != theirs]


def working_prefix(input_columns: Sequence[str]) -> str:
    """A prefix that no column of the input begins with, whatever its case."""
    taken = tuple(name.casefold() for name in input_columns)
    prefixes = (f"out{number or ''}_" for number in itertools.chain([0], itertools.count(2)))
    return next(prefix for prefix in prefixes if not any(name.startswith(prefix) for name in taken))
