"""The lines of files that may be compressed: numbers, places, bounds, and what can't be unpacked."""

import gzip
import pathlib
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import InputError
from cometbatch.input import lines as line_reading
from cometbatch.input.lines import Line, lines
from cometbatch.input.packed import coding_of, unpacked


def zstd(content: bytes) -> bytes:
    """One frame, with Arrow's own level."""
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "zstd": zstd,
    "gzip in pieces": lambda content: b"".join(gzip.compress(content[at : at + 3]) for at in range(0, len(content), 3)),
    "zstd in pieces": lambda content: b"".join(zstd(content[at : at + 3]) for at in range(0, len(content), 3)),
    "gzip with empty pieces": lambda content: gzip.compress(content) + 2 * gzip.compress(b"") + gzip.compress(b""),
    "zstd after a frame without data": lambda content: b"\x5f\x2a\x4d\x18\x02\0\0\0ab" + zstd(content),
}


def read(path: pathlib.Path) -> list[Line]:
    """All lines of a file."""
    with path.open("rb") as raw, unpacked(path, raw) as stream:
        found = list(lines(path, stream))
        assert not raw.closed
    return found


@pytest.mark.parametrize("coding", PACK)
@settings(max_examples=15, deadline=None)
@given(content=st.lists(st.sampled_from([b"\n", b"a", b"\r", b"\0", b"\xff", b"bcdefgh"]), min_size=1).map(b"".join))
@pytest.mark.parametrize("read_size", [3, line_reading.READ_SIZE])
def test_lines_put_together_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, coding: str, read_size: int, content: bytes
) -> None:
    """Law: numbers count from 1, each line lies at its place of the content, however it is compressed and read."""
    path = tmp_path_factory.mktemp("law") / "in"
    path.write_bytes(PACK[coding](content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_reading, "READ_SIZE", read_size)
        found = read(path)
    assert [line.data for line in found] == content.removesuffix(b"\n").split(b"\n")[: len(found)]
    assert b"\n".join(line.data for line in found) in (content, content.removesuffix(b"\n"))
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    assert all(content[line.offset :].startswith(line.data) for line in found)


@pytest.mark.parametrize("coding", ["plain", "gzip", "zstd"])
def test_a_record_above_the_bound_is_refused_with_its_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    """The bound itself is allowed; one byte more is refused, before it is all in memory."""
    monkeypatch.setattr(line_reading, "MAX_RECORD_SIZE", 2 << 20)
    path = tmp_path / "in"
    path.write_bytes(PACK[coding](b"a\n" + b"x" * (2 << 20) + b"\n"))
    assert [len(line.data) for line in read(path)] == [1, 2 << 20]
    path.write_bytes(PACK[coding](b"a\n\n" + b"x" * ((2 << 20) + 1)))
    with pytest.raises(InputError, match=r"in, line 3: this line is longer than 2,097,152 bytes"):
        read(path)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", [*range(5, 60, 6), -1, -4, -9, "a bit", "more"])
def test_what_can_not_be_unpacked_is_refused_by_name(tmp_path: pathlib.Path, coding: str, damage: int | str) -> None:
    """A file that was cut anywhere, has a wrong bit at its end or goes on with something else is no shorter table."""
    content = bytearray(PACK[coding](b"".join(b"%d\n" % (number * number) for number in range(2_000))))
    if isinstance(damage, int):
        del content[damage:]
    elif damage == "more":
        content += b"more"
    else:
        content[-6] ^= 0xFF
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"in: its {coding} data can't be unpacked \(.+\): it is damaged or was cut"):
        read(path)


def test_a_coding_is_told_by_the_first_bytes() -> None:
    """Text, however short, is none; the name decides only of a file that ends within its mark."""
    assert [coding_of("a.csv", head) for head in (b"", b"\x1f", b"\x1f\x8b", b"a,b\n", b"P*M\x17", b"(\xb5/")] == [
        None
    ] * 6
    assert [coding_of("a.csv.gz", head) for head in (b"", b"\x1f", b"\x1f\x8b", b"a,b\n")] == [
        None,
        "gzip",
        "gzip",
        None,
    ]
    heads = (b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"P*M\x18")
    assert [coding_of("a.csv", head) for head in heads] == ["gzip", "zstd", "zstd"]
