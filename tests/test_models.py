"""`models`: the public catalog for people, without a key, kept for an hour, and honest about its age."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.cli import FORMATS as OFFERED
from cometbatch.cli import cli
from cometbatch.money.prices import CatalogEntry
from cometbatch.service import catalog as service_catalog
from cometbatch.service.catalog import Records
from cometbatch.service.model_list import ListedModel, models_in
from cometbatch.simulator.catalog import CATALOG_SHAPES, MODELS, catalog_page
from cometbatch.wire import FORMATS

LISTED = sorted((model.id for model in MODELS if model.listed), key=str.casefold)


class Service(ThreadingHTTPServer):
    """A service that has a catalog and nothing else; counts who asks, and keeps what they sent along."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.body = catalog_page("full")
        self.headers: list[dict[str, str]] = []

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Page(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
        """Say nothing."""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service, a folder for caches, no waits, and a key in the environment that nobody may be sent."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COMETAPI_KEY", "sk-0123456789abcdef")
    monkeypatch.setattr(service_catalog, "CATALOG_WAITS_S", (0, 0))
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def kept(tmp_path: Path) -> Path:
    """The one file that is kept."""
    (path,) = (tmp_path / "cache" / "cometbatch").iterdir()
    return path


def aged(tmp_path: Path, by: timedelta) -> None:
    """Let the kept catalog have been fetched so long ago."""
    found = json.loads(kept(tmp_path).read_text(encoding="utf-8"))
    found["fetched_at"] = (datetime.now(UTC) - by).isoformat()
    kept(tmp_path).write_text(json.dumps(found), encoding="utf-8")


def listed(found: cometbatch.ModelList) -> list[str]:
    """The ids."""
    return [model.entry.id for model in found.models]


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_the_catalog_is_asked_for_once_an_hour_and_never_with_the_key(service: Service, tmp_path: Path) -> None:
    """Within an hour it is the kept one, with its age; after that, and with --refresh, it is asked for again."""
    fresh = cometbatch.models(base_url=service.base_url)
    assert (listed(fresh), fresh.age_s, len(service.headers)) == (LISTED, 0.0, 1)
    assert fresh.describe().endswith("the list was fetched just now")
    assert not [value for headers in service.headers for value in headers.values() if "sk-" in value]
    aged(tmp_path, timedelta(minutes=42))
    again = cometbatch.models(base_url=f"{service.base_url}/v1/")
    assert (again.models, len(service.headers)) == (fresh.models, 1)
    assert again.describe().splitlines()[-1].startswith("the list is 42 min old")
    assert round(again.to_dict()["age_s"] / 60) == 42
    aged(tmp_path, timedelta(minutes=60))
    assert (cometbatch.models(base_url=service.base_url).age_s, len(service.headers)) == (0.0, 2)
    cometbatch.models(base_url=service.base_url, refresh=True)
    assert len(service.headers) == 3


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"base_url": 1}', b"\xff", None, "future", "no zone"])
def test_a_kept_catalog_that_is_of_no_use_is_fetched_again(service: Service, tmp_path: Path, damage: Any) -> None:
    """Cut, foreign, of a clock that was wrong: never an error, and never another service's."""
    cometbatch.models(base_url=service.base_url)
    path = kept(tmp_path)
    if damage is None:
        path.unlink()
        path.mkdir()
    elif damage == "future":
        aged(tmp_path, timedelta(days=-1))
    elif damage == "no zone":
        path.write_text(path.read_text(encoding="utf-8").replace("Z", ""), encoding="utf-8")
    else:
        path.write_bytes(damage)
    assert listed(cometbatch.models(base_url=service.base_url)) == LISTED
    assert len(service.headers) == 2


@pytest.mark.parametrize("folder", ["file/cache", "cache"])
def test_where_nothing_can_be_kept_the_catalog_is_fetched_all_the_same(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A folder that can't be made, or a relative one, which the specification forbids, costs a request and no more."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", folder if folder == "cache" else str(tmp_path / folder))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    assert listed(cometbatch.models(base_url=service.base_url)) == LISTED
    assert not (tmp_path / "cache").exists()


def test_without_a_network_it_says_so(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence with the address, the reason and what to look at; an hour after the last time nothing is guessed."""
    nobody = "http://127.0.0.1:1"
    with pytest.raises(
        cometbatch.CatalogError, match=f"^{nobody}/api/models: the catalog can't be read .*connect"
    ) as no:
        cometbatch.models(base_url=nobody)
    assert "HTTPS_PROXY" in str(no.value)
    assert no.value.exit_code == 1
    service.body = b"<html>"
    with pytest.raises(cometbatch.CatalogError, match="the reply is not JSON"):
        cometbatch.models(base_url=service.base_url)


@pytest.mark.parametrize("url", ["api.cometapi.com", "ftp://x", "https://me:hunter2@x.example"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """With the option's name, and without a password in the words."""
    with pytest.raises(cometbatch.UsageError, match=r"^--base-url: ") as refused:
        cometbatch.models(base_url=url)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(cometbatch.UsageError, match="--format: telegram is none of chat, "):
        cometbatch.models(format="telegram", base_url="simulator")


# -- what is shown --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", sorted(CATALOG_SHAPES.keys() - {"busy", "pages", "pages-by-p"}))
def test_every_shape_of_the_catalog_is_read(service: Service, shape: str) -> None:
    """Ids and prices of all; formats wherever endpoints are named, as a mapping, a text, or a text in a text."""
    service.body = catalog_page(shape)
    found = cometbatch.models(base_url=service.base_url)
    formats = {model.entry.id: model.formats for model in found.models}
    wanted = None if shape == "endpoints-null" else tuple(FORMATS)
    assert formats["comet-sim-1"] == wanted
    assert bool(found.warnings) == (shape == "short-page")
    chat = cometbatch.models(base_url=service.base_url, format="chat")
    assert ("comet-sim-1" in listed(chat)) == (wanted is not None)
    assert bool(len(chat.warnings) - len(found.warnings)) == (wanted is None)


def test_words_and_formats_choose_among_the_models() -> None:
    """Each word has to be somewhere in id, name or maker, whatever its case; a slip is told by the nearest id."""
    assert listed(cometbatch.models("SIM mini", base_url="simulator")) == ["comet-sim-1-mini"]
    assert len(cometbatch.models("comet simulations", base_url="simulator").models) == len(LISTED)
    assert "comet-sim-image" not in listed(cometbatch.models(format="gemini", base_url="simulator"))
    nothing = cometbatch.models("comet-smi-1", base_url="simulator")
    assert nothing.describe().startswith(
        f"none of the {len(LISTED)} models of the simulator is meant by this; did you mean"
    )


def test_the_table_fits_80_columns_and_json_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    """Prices by token, by request and by second; null is unknown, and never 0."""
    cli.main(["models", "--base-url", "simulator"], standalone_mode=False)
    table = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in table)
    assert [
        line.split() for line in table if line.startswith(("comet-sim-1 ", "comet-sim-flat", "comet-sim-unpriced"))
    ] == [
        ["comet-sim-1", "$0.5", "$1.5", "all"],
        ["comet-sim-flat", "$0.002", "a", "request", "all"],
        ["comet-sim-unpriced", "unknown", "unknown", "all"],
    ]
    cli.main(["models", "--base-url", "simulator", "--json", "--search", "edge"], standalone_mode=False)
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["input_usd"], model["output_usd"], model["per_request_usd"]) == ("0.037", "0.15", None)
    assert (model["context_length"], model["formats"], model["upcoming"]) == (None, [*FORMATS], False)


def test_a_catalog_cannot_reach_the_terminal_behind_its_text(service: Service) -> None:
    """Escapes, directions and zero-width characters of an id are shown as what they are."""
    rows = [{"id": "a\x1b[31m\u202eb\u200b", "model_type": "x\x07", "endpoints": {"a": {"path": "/v1/embeddings"}}}]
    service.body = json.dumps({"data": rows}).encode()
    shown = cometbatch.models(base_url=service.base_url).describe()
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert r"a\x1b[31m\u202eb\u200b" in shown


def test_a_library_user_can_ask_in_a_running_loop() -> None:
    """A notebook has one."""
    import asyncio  # noqa: PLC0415 - for this test alone

    async def asked() -> int:
        return cometbatch.models(base_url="simulator").total

    assert asyncio.run(asked()) == len(LISTED)


def test_a_transport_of_the_callers_own_is_asked(service: Service, tmp_path: Path) -> None:
    """What it answers is not kept: it may be anything."""
    page = httpx.MockTransport(lambda _: httpx.Response(200, content=catalog_page("full")))
    assert listed(cometbatch.models(base_url=service.base_url, http=page)) == LISTED
    assert not (tmp_path / "cache").exists()
    assert service.headers == []


def test_the_command_offers_the_formats_that_there_are() -> None:
    """They are written out where `--help` must not load what a run needs."""
    assert tuple(FORMATS) == OFFERED


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    LEAVES | st.just("/v1/messages"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = "id name provider model_type endpoints context_length max_completion_tokens pricing".split()  # noqa: SIM905
RECORD = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))


@settings(max_examples=80, deadline=None)
@given(records=st.lists(RECORD | JSON, max_size=3))
def test_any_record_is_read_or_passed_over(records: list[Any]) -> None:
    """Law: whatever stands in a record, it is a model with an id or none, and its list can be kept and shown."""
    found = models_in(Records(records, None))
    assert all(isinstance(model, ListedModel) and model.entry.id for model in found)
    models = cometbatch.ModelList("simulator", tuple(found), len(found), datetime.now(UTC))
    assert json.loads(json.dumps(models.to_dict()))
    assert models.describe()


def test_prices_are_exact_through_what_is_kept(service: Service) -> None:
    """A price is the decimal number of the catalog, from the network as from the disk."""
    service.body = b'{"data": [{"id": "m", "pricing": {"input": 0.30000000000000004, "output": 1e-7}}]}'
    for _ in range(2):
        (model,) = cometbatch.models(base_url=service.base_url).models
        assert model.entry == CatalogEntry("m", input=Decimal("0.30000000000000004"), output=Decimal("1E-7"))
    assert len(service.headers) == 1
