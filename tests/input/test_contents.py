"""A table that one process of a machine has read whole, read on by another one."""

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cometbatch.errors import InputChangedError
from cometbatch.input.file_set import contents_of, open_input, with_contents
from cometbatch.records import Partition

FIRST = [Partition(0, 0, 2)]


def _write(path: Path, word: str) -> None:
    pq.write_table(pa.table({"word": [word, "same"]}), path)


@pytest.mark.parametrize("name", ["in.parquet", "in"])
def test_a_file_that_changed_since_the_other_process_read_it_is_refused(name: str, tmp_path: Path) -> None:
    """Also where its size is the same, which alone would be taken for the same file."""
    path = tmp_path / name
    files = [path] if path.suffix else [path / "1.parquet", path / "2.parquet"]
    files[0].parent.mkdir(exist_ok=True)
    for each in files:
        _write(each, "first")
    read = open_input(path)
    identity = read.check()
    contents = pickle.loads(pickle.dumps(contents_of(read)))
    before = next(with_contents(open_input(path), contents).tables(identity, FIRST))
    assert before["word"].to_pylist() == ["first", "same"]
    _write(files[0], "other")
    assert next(open_input(path).tables(identity, FIRST))["word"].to_pylist() == ["other", "same"]
    with pytest.raises(InputChangedError):
        next(with_contents(open_input(path), contents).tables(identity, FIRST))
