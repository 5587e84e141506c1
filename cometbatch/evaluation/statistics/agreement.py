"""How far two judges agree beyond chance."""

from collections.abc import Sequence


def kappa(table: Sequence[Sequence[int]]) -> float | None:
    """Cohen's kappa; `table[i][j]`: cases that the first judge calls i and the second j.

    None where there is nothing to agree on: no case, or both call all cases the same.
    """
    total = sum(map(sum, table))
    if total == 0:
        return None
    rows = [sum(row) for row in table]
    columns = [sum(column) for column in zip(*table, strict=True)]
    chance = sum(row * column for row, column in zip(rows, columns, strict=True))
    if chance == total * total:
        return None
    alike = sum(table[at][at] for at in range(len(table)))
    beyond: float = (alike * total - chance) / (total * total - chance)
    return beyond
