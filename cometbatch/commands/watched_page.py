"""The page of `report --watch`: what it holds by now, for the threads that serve it, and who has fetched all of it.

Law: a page that was fetched once, and then whatever it had not, holds what the page as it is now holds. Where that
can't be (rows that it has were reset, say), it is of another generation, and reloads itself.
"""

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from cometbatch.commands.watch_server import NOT_FOUND, NOTHING_ALLOWED, Answer
from cometbatch.reports.page.chunks import Chunk
from cometbatch.reports.page.html import chunk_element, meta_text, page_frame

EVERY_MS: Final = 1_000  # milliseconds after which a page asks for more
SELDOM_MS: Final = 10_000  # the same while it is not answered: a machine that slept, a tunnel that was cut
ANSWER_BYTES: Final = 4 << 20  # of chunks in one answer; a larger chunk comes alone
OPEN_S: Final = 90.0  # seconds for which a page that asked is taken to be open: in a hidden tab it asks once a minute
UNSEEN_S: Final = 600.0  # seconds after the end for which a page that nobody has opened is still served
PAGES: Final = 100  # that are remembered
NO_GENERATION: Final = 0
"""No page is of this one: whoever is told of it reloads."""
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_NO_FRAMES: Final = "; frame-ancestors 'none'"


class WatchedPage:
    """What is served. One thread changes it, and any number read it. `clock`: seconds, for who is still there."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._frame = page_frame(title, is_watched=True)
        self._clock = clock
        self._lock = threading.Lock()
        self._generation = NO_GENERATION
        self._version = 0
        self._meta: Mapping[str, Any] = {}
        self._chunks: list[Chunk] = []
        self._ended_at: float | None = None
        self._was_opened = False
        self._pages: dict[str, tuple[float, bool]] = {}  # when each asked last, and whether it has all there will be

    def begin(self, meta: Mapping[str, Any]) -> None:
        """Another page: those that are open are to reload."""
        with self._lock:
            self._generation += 1
            self._chunks = []
            self._set(meta)

    def add(self, chunks: Sequence[Chunk], meta: Mapping[str, Any], *, is_ended: bool) -> None:
        """More chunks, and what the page says by now. `is_ended`: nothing more will come."""
        with self._lock:
            self._chunks.extend(chunks)
            if is_ended and self._ended_at is None:
                self._ended_at = self._clock()
            self._set(meta)

    def _set(self, meta: Mapping[str, Any]) -> None:
        self._version += 1
        self._meta = meta

    @property
    def is_done(self) -> bool:
        """Whether nobody needs it any more: it has ended, and each page that is open has all of it."""
        now = self._clock()
        with self._lock:
            if self._ended_at is None:
                return False
            if not self._was_opened:
                return now - self._ended_at > UNSEEN_S
            return all(is_whole for asked, is_whole in self._pages.values() if now - asked < OPEN_S)

    def page(self) -> Answer:
        """The page as it is now."""
        with self._lock:
            watch = {
                "every_ms": EVERY_MS,
                "seldom_ms": SELDOM_MS,
                "generation": self._generation,
                "version": self._version,
            }
            meta, chunks = {**self._meta, "watch": watch}, list(self._chunks)
        frame = self._frame
        elements = [chunk_element(kind, getattr(chunk, kind)) for kind in ("short", "text") for chunk in chunks]
        body = b"".join([frame.head, meta_text(meta), frame.middle, *elements, frame.tail])
        return Answer(body, _HTML, frame.policy + _NO_FRAMES)

    def data(self, query: Mapping[str, str]) -> Answer:
        """What a page does not have yet.

        `from`: how many chunks it has; `of`: its generation; `meta`: the version of what it says; `page`: its name;
        `left`: it is closed, or reloads. The answer has `generation` and `version` as they are now; `chunks`, each
        `{"short", "text"}` in base64; `meta`, null where it is the same; `more`: there are further chunks; `ended`:
        the page has all there will be. To a page of another generation it has `generation` alone.
        """
        try:
            begin, generation, version = (int(query[name]) for name in ("from", "of", "meta"))
        except (KeyError, ValueError):
            return NOT_FOUND
        with self._lock:
            self._pages.pop(query.get("page", ""), None)
            if "left" in query or generation != self._generation or not 0 <= begin <= len(self._chunks):
                return _answer({"generation": NO_GENERATION})
            said = {"generation": self._generation, "version": self._version}
            chunks = _first(self._chunks[begin:])
            is_more = begin + len(chunks) < len(self._chunks)
            meta = None if version == self._version else self._meta
            is_whole = self._ended_at is not None and not is_more
            self._note(query.get("page", ""), is_whole=is_whole)
        texts = [{"short": _text(each.short), "text": _text(each.text)} for each in chunks]
        return _answer({**said, "chunks": texts, "meta": meta, "more": is_more, "ended": is_whole})

    def _note(self, name: str, *, is_whole: bool) -> None:
        self._was_opened = True
        if len(self._pages) >= PAGES:
            del self._pages[next(iter(self._pages))]
        self._pages[name] = (self._clock(), is_whole)


def _first(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The first of them that fit into one answer; one in any case."""
    found: list[Chunk] = []
    size = 0
    for chunk in chunks:
        size += len(chunk.short) + len(chunk.text)
        if found and size > ANSWER_BYTES:
            break
        found.append(chunk)
    return found


def _text(blob: bytes) -> str:
    return b64encode(blob).decode("ascii")


def _answer(said: Mapping[str, Any]) -> Answer:
    return Answer(msgspec.json.encode(said), _JSON, NOTHING_ALLOWED)
