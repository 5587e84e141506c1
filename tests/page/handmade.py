"""A page of rows written by hand, made after the description of the format alone: any cell, also what no run gives.

It shares no code with the package's own encoder, so that the two check one another in the page's reader.
"""

import base64
import gzip
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cometbatch.reports.page.html import meta_text, page_frame

Row = Mapping[str, Any]
NULL = 0xFFFF_FFFF


def column(name: str, kind: str, group: str, *, title: str = "", unit: str = "") -> dict[str, str]:
    """A column as a page's meta describes it."""
    return {"name": name, "title": title or name, "kind": kind, "group": group, "unit": unit}


BASIC = [
    column("ordinal", "number", "call"),
    column("row", "number", "call"),
    column("custom_id", "short", "call"),
    column("status", "word", "outcome"),
    column("response", "text", "text"),
]
"""Columns of a small page."""


def answers(count: int) -> list[dict[str, Any]]:
    """Rows of a small page, each with an answer."""
    return [
        {"ordinal": n, "row": n, "custom_id": f"id-{n}", "status": "succeeded", "response": f"Answer {n}"}
        for n in range(count)
    ]


def described(name: str, rows: int, **more: Any) -> dict[str, Any]:
    """A source as a page's meta describes it; all its rows are in the page. `more`: what is not as usual."""
    return {
        "name": name,
        "run_id": None,
        "command": None,
        "state": "finished",
        "rows": rows,
        "calls": rows,
        "in_page": rows,
        "no_prompts": "There is no job to render prompts by.",
        "notes": [],
        **more,
    }


def write_page(
    path: Path, rows: Sequence[Row], columns: Sequence[Mapping[str, str]] = BASIC, *, size: int = 2_000, **meta: Any
) -> Path:
    """Write a page of these rows. `size`: rows of a chunk; `meta`: what is not as usual in the page's meta.

    A row's `more` is its JSON, its `lengths` are the full lengths of cells that the page has in part.
    """
    whole = {
        "version": 1,
        "program": "cometbatch 0.1.0",
        "made_at": "2026-11-30T19:00:00Z",
        "title": "answers.parquet",
        "watch": None,
        "sources": [described("answers.parquet", len(rows))],
        "selection": {"rows": len(rows), "of": len(rows), "limit": 100_000, "seed": 0, "parts": {}, "words": ""},
        "golds": {},
        "columns": list(columns),
        "frames": [],
        "overview": None,
        "evaluation": None,
    }
    frame = page_frame(meta.get("title", "answers.parquet"))
    words: dict[str, dict[str, int]] = {each["name"]: {} for each in columns}
    chunks = [rows[at : at + size] for at in range(0, len(rows), size)]
    parts = [frame.head, meta_text(whole | meta), frame.middle]
    parts += [_element("short", _short(chunk, columns, words)) for chunk in chunks]
    parts += [_element("text", _text(chunk, columns)) for chunk in chunks]
    path.write_bytes(b"".join([*parts, frame.tail]))
    return path


def _element(kind: str, blob: bytes) -> bytes:
    return b'<script type="text/plain" class="%s">%s</script>\n' % (
        kind.encode(),
        base64.b64encode(gzip.compress(blob)),
    )


def _framed(header: Mapping[str, Any], arrays: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + bytes(-(4 + len(text)) % 8) + arrays


def _length(text: str | None) -> int:
    return NULL if text is None else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _short(rows: Sequence[Row], columns: Sequence[Mapping[str, str]], words: dict[str, dict[str, int]]) -> bytes:
    described: dict[str, Any] = {}
    arrays = b""
    for each in columns:
        name, kind = each["name"], each["kind"]
        cells = [row.get(name) for row in rows]
        if kind == "short":
            described[name] = {"cells": cells}
            continue
        described[name] = {"f64" if kind == "number" else "u32": len(arrays)}
        if kind == "number":
            arrays += struct.pack(f"<{len(cells)}d", *(math.nan if cell is None else cell for cell in cells))
        elif kind == "word":
            known, before = words[name], len(words[name])
            codes = [0 if cell is None else known.setdefault(cell, len(known) + 1) for cell in cells]
            described[name]["words"] = list(known)[before:]
            arrays += struct.pack(f"<{len(codes)}I", *codes)
        else:
            lengths = [row.get("lengths", {}).get(name, _length(row.get(name))) for row in rows]
            arrays += struct.pack(f"<{len(lengths)}I", *lengths)
        arrays += bytes(-len(arrays) % 8)
    return _framed({"rows": len(rows), "columns": described}, arrays)


def _text(rows: Sequence[Row], columns: Sequence[Mapping[str, str]]) -> bytes:
    names = [each["name"] for each in columns if each["kind"] == "text"]
    cells: list[str | None] = [row.get(name) for name in names for row in rows]
    cells += [None if row.get("more") is None else json.dumps(row["more"]) for row in rows]
    lengths = struct.pack(f"<{len(cells)}I", *map(_length, cells))
    texts = "".join(cell for cell in cells if cell is not None)
    return _framed({"rows": len(rows), "cells": [*names, "more"]}, lengths + texts.encode())
