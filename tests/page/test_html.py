"""The page's file: nothing in it can become markup or a script, and nothing leaves it."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cometbatch.reports.page import html
from cometbatch.reports.page.chunks import Encoder
from cometbatch.reports.page.html import PageWriter, meta_text, page_frame
from cometbatch.reports.page.page_columns import Columns
from tests.page.make_page import meta_of
from tests.page.memory_results import MemoryResult, result_table
from tests.page.reading import read_page

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 ]]> {{csp}} {{chunks}} {{script}} <img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """What a browser sees: each element that matters here, with its attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self._text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            self.found.append((tag, dict(attrs), ""))
        elif tag in ("script", "style", "title"):
            self._open, self._text = (tag, dict(attrs)), ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if self._open is not None and self._open[0] == tag:
            self.found.append((*self._open, self._text))
            self._open = None

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        """The elements of this name."""
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def written(path: Path, title: str = "out.parquet", **meta: Any) -> Path:
    """A page of a result with a hostile row."""
    source = MemoryResult(result_table(1, {HOSTILE: pa.array([HOSTILE])}, {"response": [HOSTILE]}), title)
    columns = Columns.of([source], has_prompts=False)
    encoder = Encoder(columns)
    with PageWriter(path) as page:
        for ordinals, table in source.tables(columns.read(0)):
            for chunk in encoder.add(0, ordinals, table):
                page.add(chunk)
        for chunk in encoder.rest():
            page.add(chunk)
        page.finish(meta_of(columns, [1]) | meta)
    return path


def test_a_page_holds_its_rows(tmp_path: Path) -> None:
    """What the reader finds in the file is what went in, under the names that the result has."""
    page = read_page(written(tmp_path / "page.html", HOSTILE))
    assert page.meta["title"] == HOSTILE
    assert page.meta["sources"][0]["name"] == HOSTILE
    (row,) = page.rows
    assert row.texts["response"] is not None
    assert row.texts["response"].text == HOSTILE
    assert HOSTILE in {each["title"] for each in page.meta["columns"]}


def test_data_never_becomes_an_element(tmp_path: Path) -> None:
    """A browser sees the same elements as in a page of harmless names."""
    pages = [
        Elements(written(tmp_path / "page.html", title).read_text(encoding="utf-8")) for title in ("harmless", HOSTILE)
    ]
    kinds = [[(tag, sorted(attributes)) for tag, attributes, _ in page.found] for page in pages]
    assert kinds[0] == kinds[1]
    ((_, title),) = pages[1].of("title")
    assert title == HOSTILE


def test_the_policy_allows_the_page_s_own_program_alone(tmp_path: Path) -> None:
    """Its hashes are those of the texts that the page has; nothing may be loaded, sent, or framed."""
    page = Elements(written(tmp_path / "page.html").read_text(encoding="utf-8"))
    (policy,) = (each["content"] for each, _ in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    programs = [text for attributes, text in page.of("script") if not attributes]
    styles = [text for _, text in page.of("style")]

    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert len(programs) == len(styles) == 1
    assert policy == (
        f"default-src 'none'; script-src '{digest(programs[0])}'; style-src '{digest(styles[0])}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; connect-src 'none'"
    )
    assert {attributes.get("type") for attributes, _ in page.of("script") if attributes} == {
        "application/json",
        "text/plain",
    }
    assert "'unsafe" not in policy


def test_only_a_watched_page_may_ask_its_own_server() -> None:
    """And nobody else."""
    assert "connect-src 'self'" in page_frame("t", is_watched=True).head.decode()
    assert "connect-src 'none'" in page_frame("t").head.decode()


def test_the_same_input_makes_the_same_file(tmp_path: Path) -> None:
    """The clock is given in, and nothing else changes."""
    assert written(tmp_path / "one.html").read_bytes() == written(tmp_path / "two.html").read_bytes()


def test_a_page_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """An earlier page stays, and no file beside it."""
    path = tmp_path / "page.html"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="now"), PageWriter(path):
        raise ValueError("now")
    assert path.read_text() == "earlier"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_meta_is_json_without_a_sign_of_markup() -> None:
    """Neither can it end its element, nor break a line of a script."""
    text = meta_text({"a": "<\u2028\u2029>"})
    assert text == b'{"a":"\\u003c\\u2028\\u2029>"}'


ASSETS = Path(str(html.ASSETS))
FILES = sorted(path for path in ASSETS.rglob("*") if path.suffix in (".js", ".css"))


def test_every_asset_is_in_the_page() -> None:
    """No file of the program is forgotten, and none is named that is not there."""
    assert {path.relative_to(ASSETS).as_posix() for path in FILES} == {*html.SCRIPTS, *html.STYLES}
    assert (ASSETS / "vendor/uPlot.LICENSE").read_text().startswith("The MIT License")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_asset_can_stand_in_a_page(path: Path) -> None:
    """It ends no element, has the line ends that a hash is made over, and loads nothing."""
    text = path.read_bytes().decode()
    assert "\r" not in text
    assert "\0" not in text
    assert not re.search(r"</(script|style)|<!--|<script", text, re.IGNORECASE)
    if path.parent == ASSETS:
        assert not re.search(
            r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|import\()", text
        ), "text goes into text nodes"


def test_each_name_of_the_program_is_there_once_and_used() -> None:
    """The files share one scope: a second function of a name would take the place of the first."""
    text = "\n".join((ASSETS / name).read_text() for name in html.SCRIPTS if not name.startswith("vendor"))
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if len(re.findall(rf"\b{name}\b", text)) == 1] == []


def test_dark_is_the_same_by_the_system_and_by_the_switch() -> None:
    """A media query and an attribute can't share their colours, so they stand there twice."""
    text = (ASSETS / "page.css").read_text()
    by_system, by_switch = (
        text.partition(f"{rule} {{")[2].partition("}")[0].split()
        for rule in (':root:not([data-theme="light"])', ':root[data-theme="dark"]')
    )
    assert by_system == by_switch != []
