"""The index of earlier answers: every row that answered is found by its hash, and a damaged index is never believed."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.results import reuse_index
from cometbatch.results.columns import COLUMNS, REUSED_COLUMNS
from cometbatch.results.reuse_index import Batch, Entry, SourceFile, build, key_of, opened

NAMES = tuple(column.name for column in COLUMNS)
Rows = list[tuple[str | None, str | None, int | None]]
"""Of each row its hash, and the run and ordinal that it names as its origin."""


def hash_of(number: int) -> str:
    """The hash of the request of this number."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def files_of(tables: list[Rows], *, named: bool) -> list[SourceFile]:
    """A file of a run of its own for each table."""
    columns = (*NAMES, *REUSED_COLUMNS) if named else NAMES
    return [SourceFile(f"f{at}", at, "", "", columns, 0, len(table), "") for at, table in enumerate(tables)]


def made(folder: Path, tables: list[Rows], *, named: bool = True, at_once: int = 3) -> reuse_index.Index:
    """An index of these tables, the rows of which are read some at a time."""

    def batches(file: SourceFile) -> Iterator[Batch]:
        table = tables[file.run]
        for start in range(0, len(table), at_once):
            hashes, origins, ordinals = zip(*table[start : start + at_once], strict=True)
            runs = pa.array(origins, pa.string()).dictionary_encode()
            yield Batch(
                pa.array(hashes, pa.string()),
                runs if named else None,
                pa.array(ordinals, pa.int64()) if named else None,
            )

    runs = [f"run{at}" for at in range(len(tables))]
    return build(folder, "sources", runs, files_of(tables, named=named), batches)


def found(index: reuse_index.Index, request_hash: str) -> list[Entry]:
    """The entries of a hash, in their order."""
    key = key_of(request_hash)
    return [entry for _, entry in index.entries(key, *index.positions(key))]


origins = st.tuples(st.sampled_from(["run0", "run1", "gone"]), st.integers(0, 5)) | st.just((None, None))
rows = st.tuples(st.none() | st.integers(0, 9).map(hash_of), origins).map(lambda row: (row[0], *row[1]))


@given(st.lists(st.lists(rows, max_size=12), max_size=3))
@settings(max_examples=40, deadline=None)
def test_each_call_that_paid_is_found_once_for_each_request(
    tmp_path_factory: pytest.TempPathFactory, tables: list[Rows]
) -> None:
    """For each hash: the origins of the rows that have it, in the order of files and rows, each at its first place."""
    index = made(tmp_path_factory.mktemp("index"), tables)
    try:
        for number in range(10):
            due: dict[tuple[str, int], tuple[int, int]] = {}
            for file, table in enumerate(tables):
                for row, (request_hash, run, ordinal) in enumerate(table):
                    if request_hash == hash_of(number):
                        origin = (f"run{file}", row) if run is None or ordinal is None else (run, ordinal)
                        due.setdefault(origin, (file, row))
            entries = found(index, hash_of(number))
            assert [(index.runs[each.run], each.ordinal) for each in entries] == list(due)
            assert [(each.file, each.row) for each in entries] == list(due.values())
    finally:
        index.close()


def test_many_entries_of_many_keys_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where buckets, slots and keys have more entries than are read at a time, each is found all the same."""
    monkeypatch.setattr(reuse_index, "SPILLED_ROWS", 300)
    monkeypatch.setattr(reuse_index, "BUCKET_ROWS", 100)
    monkeypatch.setattr(reuse_index, "SLOT_READ", 8)
    chance = random.Random(5)
    table: Rows = [(hash_of(chance.randrange(500) if at % 2 else 1), None, None) for at in range(4_000)]
    index = made(tmp_path, [table], named=False, at_once=700)
    assert len(index) == 4_000
    for number in range(500):
        due = [row for row, (each, _, _) in enumerate(table) if each == hash_of(number)]
        assert [(each.row, each.ordinal, each.file) for each in found(index, hash_of(number))] == [
            (n, n, 0) for n in due
        ]
    assert found(index, hash_of(501)) == []
    index.close()


@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "gone", "head", "other sources", "swapped"])
def test_a_damaged_or_foreign_index_is_made_again(tmp_path: Path, damage: str) -> None:
    """An index that is not what was written from these sources is not opened: it could hide what was paid for."""
    folder, other = tmp_path / "one", tmp_path / "two"
    folder.mkdir()
    other.mkdir()
    made(folder, [[(hash_of(at), None, None) for at in range(50)]], named=False).close()
    made(other, [[(hash_of(at + 7), None, None) for at in range(50)]], named=False).close()
    whole = opened(folder, "sources")
    assert whole is not None
    whole.close()
    keys, head = folder / "keys", folder / "index.json"
    content = keys.read_bytes()
    match damage:
        case "bit":
            keys.write_bytes(content[:9] + bytes([content[9] ^ 4]) + content[10:])
        case "cut":
            keys.write_bytes(content[:-8])
        case "longer":
            keys.write_bytes(content + content[:8])
        case "gone":
            keys.unlink()
        case "head":
            head.write_bytes(head.read_bytes()[:-3])
        case "swapped":
            keys.write_bytes((other / "keys").read_bytes())
    assert opened(folder, "others" if damage == "other sources" else "sources") is None
