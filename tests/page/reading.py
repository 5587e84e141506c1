"""The reading half of a page: what its program reads of chunks, in Python."""

import base64
import gzip
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NULL, ELSEWHERE = 0xFFFF_FFFF, 0xFFFF_FFFE
ELEMENT = re.compile(rb'<script type="text/plain" class="(short|text)">([A-Za-z0-9+/=]*)</script>')
META = re.compile(rb'<script type="application/json" id="meta">([^<]*)</script>')


@dataclass(frozen=True)
class Cell:
    """A text as the page has it. `text`: what is stored of it. `length`: of the whole text, in UTF-16 units."""

    text: str
    length: int


@dataclass(frozen=True)
class Row:
    """A row of a page. `short`: number, word or short text by column, and the length of a text. `texts`: by column."""

    short: Mapping[str, float | str | None]
    texts: Mapping[str, Cell | None]
    more: Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """A page's meta, and all of its rows."""

    meta: Mapping[str, Any]
    rows: Sequence[Row]


def read_page(path: Path) -> Page:
    """A page's file."""
    html = path.read_bytes()
    (said,) = META.findall(html)
    meta = json.loads(said)
    blobs: dict[bytes, list[bytes]] = {b"short": [], b"text": []}
    kinds = []
    for kind, text in ELEMENT.findall(html):
        kinds.append(kind)
        blobs[kind].append(base64.b64decode(text, validate=True))
    assert kinds == [b"short"] * len(blobs[b"short"]) + [b"text"] * len(blobs[b"text"])
    return Page(meta, read_chunks(meta["columns"], zip(blobs[b"short"], blobs[b"text"], strict=True)))


def read_chunks(columns: Sequence[Mapping[str, str]], chunks: Iterable[tuple[bytes, bytes]]) -> list[Row]:
    """The rows of chunks, which come in order."""
    kinds = {column["name"]: column["kind"] for column in columns}
    words: dict[str, list[str | None]] = {name: [None] for name, kind in kinds.items() if kind == "word"}
    rows: list[Row] = []
    for short, text in chunks:
        found = _short(short, kinds, words)
        for cells, (texts, more) in zip(found, _texts(text, found), strict=True):
            rows.append(Row(cells, {name: texts.get(name) for name, kind in kinds.items() if kind == "text"}, more))
    return rows


def _opened(blob: bytes) -> tuple[dict[str, Any], bytes]:
    data = gzip.decompress(blob)
    (size,) = struct.unpack_from("<I", data)
    begin = (4 + size + 7) // 8 * 8
    assert not any(data[4 + size : begin])
    return json.loads(data[4 : 4 + size]), data[begin:]


def _short(
    blob: bytes, kinds: Mapping[str, str], words: Mapping[str, list[str | None]]
) -> list[dict[str, float | str | None]]:
    header, arrays = _opened(blob)
    count = header["rows"]
    assert set(header["columns"]) <= set(kinds)
    found: dict[str, Sequence[float | str | None]] = {name: [None] * count for name in kinds}
    for name, kept in header["columns"].items():
        kind = kinds[name]
        if kind == "short":
            assert len(kept["cells"]) == count
            found[name] = kept["cells"]
        elif kind == "number":
            assert kept["f64"] % 8 == 0
            numbers = struct.unpack_from(f"<{count}d", arrays, kept["f64"])
            found[name] = [None if math.isnan(number) else number for number in numbers]
        else:
            assert kept["u32"] % 4 == 0
            codes = struct.unpack_from(f"<{count}I", arrays, kept["u32"])
            if kind == "word":
                words[name].extend(kept["words"])
                found[name] = [words[name][code] for code in codes]
            else:
                assert "words" not in kept
                found[name] = [None if code == NULL else code for code in codes]
    return [{name: cells[row] for name, cells in found.items()} for row in range(count)]


def _texts(
    blob: bytes, short: Sequence[Mapping[str, Any]]
) -> Iterable[tuple[dict[str, Cell | None], Mapping[str, Any]]]:
    header, arrays = _opened(blob)
    names, count = header["cells"], header["rows"]
    assert count == len(short)
    assert names[-1] == "more"
    lengths = struct.unpack_from(f"<{count * len(names)}I", arrays)
    text = arrays[4 * len(lengths) :].decode().encode("utf-16-le")  # two bytes for each unit
    at = 0
    rows: list[dict[str, str | None]] = [{} for _ in range(count)]
    for place, name in enumerate(names):
        for row, length in enumerate(lengths[place * count : (place + 1) * count]):
            size = 0 if length in (NULL, ELSEWHERE) else 2 * length
            rows[row][name] = None if length == NULL else text[at : at + size].decode("utf-16-le")
            at += size
    assert at == len(text)
    for row, cells in enumerate(rows):
        elsewhere = [name for place, name in enumerate(names) if lengths[place * count + row] == ELSEWHERE]
        more = json.loads(cells.pop("more") or "{}")
        assert sorted(elsewhere) == sorted(more.get("from", {}))
        for name, (start, length) in more.get("from", {}).items():
            prompt = (cells["prompt"] or "").encode("utf-16-le")
            assert 2 * (start + length) <= len(prompt)
            cells[name] = prompt[2 * start : 2 * (start + length)].decode("utf-16-le")
        yield {name: _cell(each, short[row][name]) for name, each in cells.items()}, more


def _cell(text: str | None, length: Any) -> Cell | None:
    assert (text is None) == (length is None)
    return None if text is None else Cell(text, int(length))
