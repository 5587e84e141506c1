"""Tables of a caller: in as polars, pandas or Arrow, back as the same with answers, and resumable like files."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import cometbatch
from cometbatch.commands.tables import kind_of
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour
from tests.workbench import MODEL, Network

AT_ONCE = cometbatch.Behaviour(latency_s=(0.0, 0.0))
FRAME = pl.DataFrame({"name": ["a", "b", "c"], "weight": [1.5, None, 2.0], "note": ["x", "über", "z\n1"]})
TABLES: dict[str, Any] = {
    "polars": FRAME,
    "pandas": FRAME.to_pandas().set_index(pd.Index([5, 5, 9])),
    "arrow": FRAME.to_arrow(),
}


def asked(table: Any, out: Path, network: Network | None = None, **sections: Any) -> Any:
    """The table with a simulator's answers."""
    return cometbatch.map(
        table,
        prompt="Weigh {{ note }}",
        model=MODEL,
        out=out,
        id="name",
        http=network or Network(create_app(AT_ONCE)),
        progress=False,
        target={"base_url": "simulator"},
        params={"max_output_tokens": 20},
        **sections,
    )


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_comes_back_as_its_own_kind_with_the_answers_behind_its_columns(kind: str, tmp_path: Path) -> None:
    """Same rows, same order, its own columns as they were."""
    table = TABLES[kind]
    back = asked(table, tmp_path / "out.parquet")
    assert kind_of(back) == kind
    rows = cometbatch.status(tmp_path / "out.parquet").summary.to_polars()
    found = pl.DataFrame(back) if kind == "arrow" else back if kind == "polars" else pl.from_pandas(back)
    assert found["name"].to_list() == ["a", "b", "c"]
    assert found["response"].to_list() == rows["response"].to_list()
    assert found["cost_usd"].to_list() == rows["cost_usd"].to_list()
    if kind == "pandas":
        assert back.index.tolist() == [5, 5, 9]
        pd.testing.assert_frame_equal(back[table.columns], table)
        assert str(back["input_tokens"].dtype) == "Int64"


def test_a_table_finds_its_run_again(tmp_path: Path) -> None:
    """The same call sends nothing; another table is refused, and leaves the run and its rows as they are."""
    network = Network(create_app(AT_ONCE))
    asked(FRAME, tmp_path / "out.parquet", network)
    sent = network.posts
    asked(FRAME, tmp_path / "out.parquet", network)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(cometbatch.DriftError):
        asked(FRAME.head(2), tmp_path / "out.parquet", network)
    assert network.posts == sent
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert cometbatch.verify(tmp_path / "out.parquet").ok


def test_sections_that_are_no_mapping_are_arguments_too(tmp_path: Path) -> None:
    """`dedupe=True, reuse=True`; where a mapping is needed, its absence is said in words."""
    network = Network(create_app(AT_ONCE))
    twice = pl.concat([FRAME.select(name=pl.col("name").cast(pl.String) + suffix, note="note") for suffix in "ab"])
    back = asked(twice, tmp_path / "out.parquet", network, dedupe=True, reuse=True)
    assert back["reused_ordinal"].null_count() == network.posts < back.height
    with pytest.raises(cometbatch.UsageError, match="input: expected a mapping, found str"):
        asked(FRAME, tmp_path / "other.parquet", network, input="notes.csv")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.List(pl.String)], ids=str)
def test_a_table_is_the_same_however_it_is_divided_in_memory(kind: Any, tmp_path: Path) -> None:
    """A reader with several threads may give other chunks each time: still no second run."""
    whole = pl.DataFrame({"name": [f"{row}" for row in range(90)], "note": pl.Series(["long " * 99] * 90)})
    whole = whole.with_columns(other=pl.concat_list("note") if kind == pl.List else pl.col("note").cast(kind))
    asked(whole, tmp_path / "out.parquet")
    divided = pl.concat([whole[:7], whole[7:50], whole[50:]], rechunk=False)
    network = Network(create_app(AT_ONCE))
    asked(divided, tmp_path / "out.parquet", network)
    assert (divided.n_chunks(), network.posts) == (3, 0)


def test_a_stream_of_arrow_s_is_read_once(tmp_path: Path) -> None:
    """A reader, which has no rows left after one read, comes back as a table."""
    back = asked(FRAME.to_arrow().to_reader(max_chunksize=2), tmp_path / "out.parquet")
    assert (back.num_rows, back["name"].to_pylist()) == (3, ["a", "b", "c"])


def test_only_the_run_s_own_table_is_kept(tmp_path: Path) -> None:
    """A run that begins anew over another table leaves no copy of the first."""
    for table in (FRAME, FRAME.head(2)):
        job = {
            "input": {"id": "name"},
            "output": {"path": str(tmp_path / "out.parquet")},
            "target": {"base_url": "simulator", "format": "chat", "model": MODEL},
            "prompt": {"user": "{{ note }}"},
        }
        cometbatch.run(job, input=table, fresh=True, progress=False, http=Network(create_app(AT_ONCE)))
    (kept,) = tmp_path.glob("*.input-*.parquet")
    assert pl.read_parquet(kept).equals(FRAME.head(2))


WITH_COLUMNS = {"response": {"schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}}


@pytest.mark.parametrize("sections", [{}, WITH_COLUMNS], ids=["text", "schema"])
def test_a_table_without_rows_comes_back_with_all_columns(sections: dict[str, Any], tmp_path: Path) -> None:
    """Whoever goes on with the frame finds the columns that it always has, those of answers included."""
    whole = asked(FRAME, tmp_path / "a.parquet", **sections)
    empty = asked(FRAME.head(0), tmp_path / "b.parquet", **sections)
    assert (empty.height, empty.schema) == (0, whole.schema)
    assert cometbatch.status(tmp_path / "b.parquet").summary.to_polars().columns == whole.columns


NO_TABLES: list[tuple[object, str]] = [
    ([1, 2], "found list"),
    (None, "found NoneType"),
    (FRAME.lazy(), "collect"),
    (pd.DataFrame({1: ["a"], "note": ["b"]}), "no text"),
    (pd.DataFrame({"note": ["a", 1]}), "can't be used"),
    (FRAME.with_columns(inside=pl.Series([object()] * 3, dtype=pl.Object)), "holds Python objects"),
]


@pytest.mark.parametrize(
    ("table", "words"), NO_TABLES, ids=["list", "none", "lazy", "number as name", "mixed", "objects"]
)
def test_what_is_no_table_is_refused_in_words(table: object, words: str, tmp_path: Path) -> None:
    """Nothing is sent and no file is left."""
    with pytest.raises(cometbatch.UsageError, match=words):
        asked(table, tmp_path / "out" / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_a_table_leaves_nothing(tmp_path: Path) -> None:
    """It counts and prices the rows, and writes no file."""
    job = cometbatch.load_job(
        {
            "input": {"path": "anything.csv"},
            "output": {"path": str(tmp_path / "out.parquet")},
            "target": {"base_url": "simulator", "format": "chat", "model": MODEL},
            "prompt": {"user": "{{ note }}"},
        }
    )
    planned = cometbatch.plan(job, input=FRAME, http=Network(create_app(AT_ONCE)))
    assert (planned.rows, planned.unrenderable) == (3, 0)
    assert list(tmp_path.iterdir()) == []


# -- in a notebook ---------------------------------------------------------------------------------------------------


def job_over(folder: Path) -> dict[str, Any]:
    """A job in which one request is in flight at a time."""
    (folder / "in.csv").write_text("note\n" + "".join(f"n{row}\n" for row in range(40)), encoding="utf-8")
    return {
        "input": {"path": str(folder / "in.csv")},
        "output": {"path": str(folder / "out.parquet")},
        "target": {"base_url": "simulator", "format": "chat", "model": MODEL},
        "prompt": {"user": "{{ note }}"},
        "limits": {"concurrency": 1, "adaptive": False},
    }


def test_run_works_where_an_event_loop_is_running(tmp_path: Path) -> None:
    """A notebook's cell calls it like a script does."""

    async def cell() -> cometbatch.RunSummary:
        return cometbatch.run(job_over(tmp_path), http=Network(create_app(AT_ONCE)), progress=False)

    assert asyncio.run(cell()).succeeded == 40


def test_a_stop_button_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """A KeyboardInterrupt in the caller who waits is the run's first Ctrl-C: resumable, and nothing is paid again."""

    def stop_at_the_fifth(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST" and network.posts == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return None

    network = Network(create_app(AT_ONCE), answer=stop_at_the_fifth)

    async def cell() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel has it
        with pytest.raises(cometbatch.InterruptedRunError) as raised:
            cometbatch.run(job_over(tmp_path), http=network, progress=False)
        assert raised.value.summary.succeeded == network.posts

    asyncio.run(cell())
    assert network.posts < 40
    done = cometbatch.run(job_over(tmp_path), http=network, progress=False)
    assert (done.succeeded, network.posts, done.resent) == (40, 40, 0)


HOSTILE = "</pre><script>alert(1)</script><a href='https://x.example'>x</a><img src=x onerror=alert(1)>"


def test_what_a_notebook_shows_holds_no_link_and_no_script_of_a_cell(tmp_path: Path) -> None:
    """Plan, status and summary show requests and messages; each sign of HTML in them is escaped."""
    (tmp_path / "in.csv").write_text(f"note\n{json.dumps(HOSTILE)}\n", encoding="utf-8")
    job = cometbatch.load_job({**job_over(tmp_path), "input": {"path": str(tmp_path / "in.csv")}})
    (tmp_path / "in.csv").write_text(f'note\n"{HOSTILE}"\n', encoding="utf-8")
    planned = cometbatch.plan(job, http=Network(create_app(AT_ONCE)))
    summary = cometbatch.run(job, http=Network(create_app(AT_ONCE)), progress=False)
    assert "alert(1)" in planned._repr_html_()
    for shown in (planned, summary, cometbatch.status(job)):
        page = shown._repr_html_().removeprefix("<pre").removesuffix("</pre>").partition(">")[2]
        assert "<" not in page
        assert str(shown) == shown.describe()


def test_rows_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """`iter_rows` gives each row once, in order, as the frame has it."""
    summary = cometbatch.run(job_over(tmp_path), http=Network(create_app(AT_ONCE)), progress=False)
    rows = list(summary.iter_rows())
    assert [row["note"] for row in rows] == [f"n{row}" for row in range(40)]
    assert pl.DataFrame(rows)["response"].to_list() == summary.to_polars()["response"].to_list()
    assert pa.table(summary.to_polars()).num_rows == 40


def test_each_command_takes_a_job_as_a_mapping(tmp_path: Path) -> None:
    """As `run` and `plan` do: the same run is found by the mapping that began it, and by the job made of it."""
    (tmp_path / "in.csv").write_text("id,body\n1,a\n2,b\n")
    job = {
        "input": {"path": str(tmp_path / "in.csv"), "id": "id"},
        "output": {"path": str(tmp_path / "out.parquet")},
        "target": {"base_url": "simulator", "format": "chat", "model": MODEL},
        "prompt": {"user": "{{ body }}"},
    }
    cometbatch.run(job, progress=False, http=Network(create_app(Behaviour(latency_s=(0.0, 0.0)))))
    for each in (job, cometbatch.load_job(job)):
        assert cometbatch.status(each).summary.succeeded == 2
        assert cometbatch.verify(each).ok
        assert len(list(cometbatch.show(each).lines())) >= 2
        assert sum(len(lines) for lines in cometbatch.export(each, to="jsonl").lines()) == 2
    with pytest.raises(cometbatch.UsageError, match="has not begun"):
        cometbatch.status({**job, "output": {"path": str(tmp_path / "other.parquet")}})
