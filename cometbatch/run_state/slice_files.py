"""The files of a data set that holds one for each slice: their names, which of them are there, which are of now.

A name begins with the number of the cell in the job's order and that of the sample, so that names sort as the result
does, and a sample or a cell that is added at the end leaves the others their names. Labels follow, for people.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cometbatch.results.slices import Label, ResultSlice, text_of
from cometbatch.store import local

SLICE_FILE: Final = re.compile(r"[0-9]{5,9}-[0-9]{5,9}(?:-[A-Za-z0-9._+-]{1,100})?\.parquet")
LABEL_CHARACTERS: Final = 100  # of all labels together, in a name
_OTHERS: Final = re.compile(r"[^A-Za-z0-9._+-]+")


def slice_names(slices: Sequence[ResultSlice]) -> list[str]:
    """The names of the files of these slices, in their order."""
    cells: dict[str, int] = {}
    found = []
    for each in slices:
        cell = cells.setdefault(each.cell_words, len(cells))
        words = _words(each.labels)
        found.append(f"{cell:05d}-{each.sample:05d}{f'-{words}' if words else ''}.parquet")
    return found


def cell_name(number: int, labels: Mapping[str, Label]) -> str:
    """The name of a file about a cell, without its ending."""
    words = _words(labels)
    return f"{number:05d}-{words}" if words else f"{number:05d}"


def _words(labels: Mapping[str, Label]) -> str:
    return "-".join(_OTHERS.sub("_", text_of(label)) for label in labels.values())[:LABEL_CHARACTERS]


def slice_files(folder: Path) -> list[Path]:
    """The files of slices in a folder, in order. Raises `CheckpointError` where it can't be read."""
    names = [name for name in local.entries(folder) if SLICE_FILE.fullmatch(name)]
    return [folder / name for name in sorted(names, key=order_of)]


def order_of(name: str) -> tuple[int, int, str]:
    """What the name of a slice's file is sorted by."""
    cell, sample = name.removesuffix(".parquet").split("-")[:2]
    return int(cell), int(sample), name
