"""The page's file: head, meta, chunks, program. The policy in its head allows that program and nothing else.

In this order (`assets/page.html`): the head with policy, title and one `<style>`; the nodes that are always there; meta
in `<script type="application/json" id="meta">`; the short blobs of all chunks, then their text blobs in the same order,
each in `<script type="text/plain" class="short">` or `class="text"`; one `<script>` with the program. Watched pages get
further chunks from their server (`commands.watched_page`).

Guards: nothing that comes from data can end the element that it stands in. Meta is JSON without `<`, chunks are base64.
"""

import base64
import contextlib
import functools
import hashlib
import html
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec
from msgspec import Struct

from cometbatch.reports.page.chunks import Chunk
from cometbatch.store import local

ASSETS: Final = files("cometbatch.reports.page") / "assets"
SCRIPTS: Final = (
    "vendor/uPlot.iife.min.js", "dom.js", "store.js", "request.js", "csv.js", "filters.js", "table.js", "rows.js",
    "drawer.js", "charts.js", "overview.js", "board.js", "heat.js", "answers.js", "evaluation.js", "watch.js",
    "main.js",
)  # fmt: skip
"""The page's program: these files in this order, in one scope."""
STYLES: Final = (
    "vendor/uPlot.min.css", "page.css", "grid.css", "drawer.css", "overview.css", "evaluation.css",
)  # fmt: skip
_PLACEHOLDER: Final = re.compile(r"\{\{(csp|title|style|script)\}\}")
_ESCAPED: Final = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ENDS_ELEMENT: Final = re.compile(r"</(?:script|style)|<!--|<script", re.IGNORECASE)
_COPY_BYTES: Final = 1 << 20  # of the chunks, at a time
_MARK: Final = b'<meta name="generator" content="cometbatch report">'
"""Stands in the asset page.html, so that a page is known from any other file."""
_MARK_BYTES: Final = 1_000  # of a page, from its beginning, among which its mark is
_MAX_BITS: Final = 63  # of a whole number, as JSON is written here
_MAX_FLOAT_BITS: Final = 1_000  # a little less than the largest float has


class PageFrame(Struct, frozen=True):
    """What stands before the meta, between it and the chunks, and after them, in UTF-8. `policy`: that of its head."""

    head: bytes
    middle: bytes
    tail: bytes
    policy: str


def page_frame(title: str, *, is_watched: bool = False) -> PageFrame:
    """The page around its data. `is_watched`: whether the page may ask its own server for more."""
    style, script = _texts(STYLES), _program()
    connect = "'self'" if is_watched else "'none'"
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        f"base-uri 'none'; form-action 'none'; connect-src {connect}"
    )
    put = {"csp": policy, "title": html.escape(title), "style": style, "script": script}
    head, _, rest = _read("page.html").partition("{{meta}}")
    parts = (head, *rest.split("{{chunks}}"))
    before, middle, after = (_PLACEHOLDER.sub(lambda found: put[found[1]], part).encode() for part in parts)
    return PageFrame(before, middle, after, policy)


def meta_text(meta: Mapping[str, Any]) -> bytes:
    """A page's meta, as its element holds it."""
    try:
        text = msgspec.json.encode(meta).decode()
    except (UnicodeEncodeError, OverflowError):
        text = msgspec.json.encode(_writable(meta)).decode()
    for sign, escaped in _ESCAPED.items():
        text = text.replace(sign, escaped)
    return text.encode()


def _writable(value: Any) -> Any:
    """The same with U+FFFD for halves of surrogate pairs, and floats for whole numbers of more than 64 bits."""
    if isinstance(value, Mapping):
        return {_writable(key): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return float(value) if value.bit_length() < _MAX_FLOAT_BITS else None
    return value


def chunk_element(kind: str, blob: bytes) -> bytes:
    """The element that holds a blob of a chunk. `kind`: "short" or "text"."""
    return b'<script type="text/plain" class="%s">%s</script>\n' % (kind.encode(), base64.b64encode(blob))


class PageWriter:
    """Writes a page as its rows come. Its chunks wait in files without a name beside it, so that memory stays flat.

    `path`: of the page, which is written aside and renamed once it is whole. Raises `OSError` where the folder can't
    be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as opened:
            self._short: IO[bytes] = opened.enter_context(tempfile.TemporaryFile(dir=path.parent))
            self._text: IO[bytes] = opened.enter_context(tempfile.TemporaryFile(dir=path.parent))
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def add(self, chunk: Chunk) -> None:
        """The next chunk."""
        self._short.write(chunk_element("short", chunk.short))
        self._text.write(chunk_element("text", chunk.text))

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write the page of these chunks. Raises `CheckpointError` when the disk won't take it."""
        frame = page_frame(meta["title"])

        def write(file: IO[bytes]) -> None:
            file.write(frame.head)
            file.write(meta_text(meta))
            file.write(frame.middle)
            for held in (self._short, self._text):
                held.seek(0)
                shutil.copyfileobj(held, file, _COPY_BYTES)
            file.write(frame.tail)

        local.write_aside(self._path, write)


def is_page(path: Path) -> bool:
    """Whether a file is a page that this program wrote."""
    try:
        with path.open("rb") as file:
            return _MARK in file.read(_MARK_BYTES)
    except OSError:
        return False


def _read(name: str) -> str:
    return ASSETS.joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _texts(names: tuple[str, ...]) -> str:
    """These assets, one after the other. None may end the element that it stands in."""
    text = "".join(f"{_read(name).rstrip()}\n" for name in names)
    found = _ENDS_ELEMENT.search(text)
    if found is not None:
        raise AssertionError(f"an asset of the page has {found[0]!r}, which a page can't hold")
    return text


def _program() -> str:
    return f'(() => {{\n"use strict";\n{_texts(SCRIPTS)}}})();\n'


def _digest(text: str) -> str:
    """As a policy names the element with exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
