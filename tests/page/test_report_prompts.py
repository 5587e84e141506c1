"""Prompts of real runs, rendered again: the requests that the network saw, and reasons where there is none."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from cometbatch.commands import report_images, report_requests
from cometbatch.commands.leaderboard import result_at
from cometbatch.commands.locate import locate
from cometbatch.commands.open_rows import rows_of_run
from cometbatch.commands.report_prompts import NO_INPUT, NO_TARGET, Prompts, prompts_of
from cometbatch.commands.report_requests import RenderedRow
from cometbatch.input.values import JSON_MARK
from cometbatch.reports.page.requests import Frame, Frames
from cometbatch.reports.sources import RunRows, Source
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.run import find
from tests import virtual_time
from tests.images import digest, image
from tests.page.browser import Opener
from tests.page.joining import body_of, hash_of
from tests.test_row_targets import CACHE, MINI
from tests.test_vendor_batch import FILES
from tests.workbench import FORMATS, MODEL, Network, Workbench, carry_out, simulator

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
NOTES = [
    "plain",
    "naïve “quotes” \\ and \t tabs",
    "a\nb",
    "",
    "行 🙂 \u202e\u2028",
    "'; touch x; '",
    "x" * 3_000,
    "{{ parcel }}",
]


class Rendered:
    """All lines of a source rendered again, three at a time."""

    def __init__(self, source: Source, manifest: Manifest | None = None, frames: Frames | None = None) -> None:
        self.frames = Frames() if frames is None else frames
        self.prompts = prompts_of(source, self.frames, manifest)
        self.rows: list[RenderedRow] = []
        self.stored: list[str | None] = []
        for _, table in source.tables(self.prompts.columns or ["request_hash"]):
            for begin in range(0, table.num_rows, 3):
                piece = table.slice(begin, 3)
                self.rows += self.prompts.render(piece)
                self.stored += piece.column("request_hash").to_pylist()

    def frame(self, row: RenderedRow) -> Frame:
        """The frame of a row."""
        assert not isinstance(row, str), row
        return self.frames.items[row[0]] if isinstance(row[0], int) else row[0]

    def bodies(self) -> list[bytes]:
        """The body of each row."""
        return [body_of(self.frame(row), row[1]) for row in self.rows if not isinstance(row, str)]

    def hashes(self) -> list[str | None]:
        """What each row's request is identified by; None for a row that has no prompt, or can't be compared."""
        return [None if isinstance(row, str) else hash_of(self.frame(row), row[1]) for row in self.rows]

    def due(self) -> list[str | None]:
        """What `hashes` is to give; a row that was not sent may be rendered all the same."""
        return [stored or made for stored, made in zip(self.stored, self.hashes(), strict=True)]


def published(bench: Workbench) -> Rendered:
    """The published result alone, as it is sent to somebody: without its input and its run."""
    shutil.rmtree(bench.run_directory)
    return Rendered(result_at(bench.output))


def said_in(bench: Workbench) -> tuple[pa.Table, dict[str, str]]:
    """The result, and what its metadata say."""
    with pq.ParquetFile(bench.output) as file:
        return file.read(), {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}


def sent_bodies(network: Network) -> set[bytes]:
    """What the network saw."""
    return {request.content for request in network.requests if request.method == "POST"}


def write(bench: Workbench, notes: Sequence[Any] = NOTES, **columns: Sequence[Any]) -> None:
    """A table with these notes and columns."""
    ids = [f"{row:04d}" for row in range(len(notes))]
    bench.write_table(pa.table({"parcel": ids, "note": list(notes), **{k: list(v) for k, v in columns.items()}}))


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"prompt": {"system": "About {{ parcel }}.", "user": "{{ note }}|{{ row|tojson }}"}},
        {"prompt": {"system": None, "user": "{{ note }} of {{ parcel|upper }}"}, "params": {"temperature": 0.5}},
        {"response": {"schema": SCHEMA, "mode": "prompt"}},
        {"response": {"schema": SCHEMA}},
    ],
    ids=["plain", "row", "filter", "told", "schema"],
)
def test_each_request_is_the_one_that_was_sent(bench: Workbench, format_name: str, sections: Mapping[str, Any]) -> None:
    """In the four formats: the bodies are those that the network saw, and their hashes those of the rows."""
    write(bench)
    network = simulator()
    carry_out(bench.job(target={"format": format_name}, **sections), network)
    found = published(bench)
    assert found.prompts.why_none is None
    sent = [row for row, stored in zip(found.rows, found.stored, strict=True) if stored]
    assert {body_of(found.frame(row), row[1]) for row in sent if not isinstance(row, str)} == sent_bodies(network)
    assert found.hashes() == found.due()
    assert len(found.frames.items) == 1
    assert found.prompts.notes == []


def test_each_cell_and_sample_has_its_own_request(bench: Workbench) -> None:
    """Of a matrix each line is rendered for its own model, prompt and seed, whatever lines are asked for."""
    write(bench)
    matrix = {
        "model": [MODEL, MINI],
        "way": [
            {"name": "short", "prompt": {"user": "{{ note }}"}},
            {"name": "long", "prompt": {"user": "{{ note }} {{ parcel }}"}},
        ],
        "samples": 2,
    }
    network = simulator()
    carry_out(
        bench.job(matrix=matrix, target={"model": None}, prompt={"user": None}, params={"seed": 7}),
        network,
    )
    found = published(bench)
    assert found.hashes() == found.due()
    assert sent_bodies(network) <= set(found.bodies())
    assert len(found.frames.items) == 4


def test_rows_with_a_model_and_parameters_of_their_own(bench: Workbench) -> None:
    """They have a frame for each combination, and the others the job's own."""
    models = [MODEL, MINI, None, "", CACHE, MINI, None, MODEL]
    write(bench, model=models, heat=[0.0, 0.5, None, 1.0, 0.5, 0.5, None, 0.0])
    settings: dict[str, Any] = {"target": {"model_column": "model"}, "params": {"columns": {"temperature": "heat"}}}
    network = simulator()
    carry_out(bench.job(**settings), network)
    found = published(bench)
    assert found.hashes() == found.due()
    assert sent_bodies(network) <= set(found.bodies())
    assert len(found.frames.items) == 5


def test_messages_of_a_column_have_a_frame_for_each_shape(bench: Workbench) -> None:
    """Roles, examples and the job's own message; a cell that is no conversation has its reason."""
    turns: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": note}]
        if row % 2
        else [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": note},
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": note}]},
        ]
        for row, note in enumerate(NOTES[:6])
    ]
    cells = [*map(json.dumps, turns), "no conversation"]
    shots = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    (bench.folder / "shots.json").write_text(json.dumps(shots), encoding="utf-8")
    write(bench, ["n"] * 7, talk=cells)
    prompt = {
        "user": None, "system": "The parcel is {{ parcel }}.", "messages_column": "talk",
        "few_shot": str(bench.folder / "shots.json"),
    }  # fmt: skip
    network = simulator()
    carry_out(bench.job(prompt=prompt), network)
    found = published(bench)
    assert found.hashes() == found.due()
    assert found.stored.count(None) == 2
    assert isinstance(found.rows[6], str)
    assert "messages_column" in found.rows[6]
    assert len(found.frames.items) == 2


@pytest.mark.parametrize("name", FILES)
def test_the_bodies_of_a_batch_file_are_those_that_went_out(bench: Workbench, name: str) -> None:
    """Also where a line asks for a stream, or says that it wants none."""
    line, *_ = FILES[name]
    more: list[dict[str, Any]] = [{}, {"stream": True}, {"stream": False}, {}] if name != "gemini" else [{}] * 4
    bench.input = bench.folder / "in.jsonl"
    lines = [json.dumps(line(row, **more[row])) for row in range(4)]
    bench.input.write_text("\n".join(lines), encoding="utf-8")
    job = {
        "input": {"path": str(bench.input)},
        "output": {"path": str(bench.output)},
        "target": {"base_url": "simulator"},
    }
    job["target"] |= {"model": MODEL} if name == "gemini" else {}
    network = simulator()
    carry_out(cometbatch.load_job(job), network)
    found = published(bench)
    assert found.hashes() == found.stored
    assert set(found.bodies()) == sent_bodies(network)


def with_images(bench: Workbench, *, fetch: bool = False) -> Network:
    """A run whose rows have an image in a file, at an address, in a message, or as bytes."""
    (bench.folder / "pictures").mkdir()
    for number in range(2):
        (bench.folder / "pictures" / f"cat {number}.png").write_bytes(image(seed=number))
    write(
        bench,
        ["a", "b", "c"],
        picture=["cat 0.png", "cat 1.png", "https://example.test/a.png"],
        raw=[image("jpeg", seed=number) for number in range(3)],
    )
    content = [{"text": "What is {{ note }}?"}, {"image": "{{ picture }}", "detail": "low"}, {"image": "{{ raw }}"}]
    prompt = {
        "user": None, "system": None, "images": {"root": str(bench.folder / "pictures"), "fetch": fetch},
        "messages": [{"role": "system", "content": "s {{ parcel }}"}, {"role": "user", "content": content}],
    }  # fmt: skip
    network = simulator()
    carry_out(bench.job(prompt=prompt), network)
    return network


def test_images_are_there_by_their_digests(bench: Workbench) -> None:
    """A file by its name, too; the body says that it is not whole, and can be compared all the same."""
    with_images(bench)
    found = published(bench)
    assert found.hashes() == found.stored
    assert all(found.frame(row)["images"] for row in found.rows)
    first = found.rows[0]
    assert not isinstance(first, str)
    assert first[1][::2] == (
        "s 0000", "What is a?", "cat 0.png",
        digest(image(seed=0)).removeprefix("sha256:"), digest(image("jpeg", seed=0)).removeprefix("sha256:"),
    )  # fmt: skip
    parts = found.frame(first)["messages"][1]["parts"]
    assert parts == [
        {"slot": 2},
        {"image": 4, "kind": "image/png", "detail": "low"},
        {"image": 8, "digest": True, "kind": "image/jpeg"},
    ]
    assert found.prompts.notes == []


def test_images_that_cannot_be_read_stand_by_their_names(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their folder is gone, or there are too many; then a request can't be compared, and that is said."""
    with_images(bench)
    monkeypatch.setattr(report_images.PageImages.__init__, "__kwdefaults__", {"max_read_bytes": 1})
    bounded = Rendered(result_at(bench.output))
    assert bounded.hashes() == [bounded.stored[0], None, bounded.stored[2]]
    monkeypatch.undo()
    shutil.rmtree(bench.folder / "pictures")
    found = published(bench)
    assert found.hashes() == [None, None, found.stored[2]]
    assert b"cat 0.png" in found.bodies()[0]
    (note,) = found.prompts.notes
    assert note.startswith("2 image files were not read below ")


def again(job: cometbatch.Job, network: Network, words: str) -> None:
    """A run with these rows asked again."""
    virtual_time.run(cometbatch.run_async(job, retry=words, progress=False, http=network))


def test_rows_that_were_asked_again_in_another_way(bench: Workbench) -> None:
    """Each has the request of the target that it was asked of last."""
    bench.write_rows(12)
    carry_out(bench.job(), simulator("length:0.4"))
    again(bench.job(params={"max_output_tokens": 500}), simulator(), "length")
    before = Rendered(result_at(bench.output))
    assert len(before.frames.items) == 2
    assert before.hashes() == before.stored
    table, told = said_in(bench)
    del told["cometbatch.targets"]
    pq.write_table(table.replace_schema_metadata(told), bench.output)
    without = Rendered(result_at(bench.output))
    assert {row for row in without.rows if isinstance(row, str)} == {NO_TARGET}
    manifest = found_run(bench).manifest
    assert Rendered(result_at(bench.output), manifest).hashes() == before.stored


def found_run(bench: Workbench) -> Any:
    """The run of the result."""
    located = locate(bench.run_directory)
    run = find(located.directory, located.result)
    assert run is not None
    return run


def unfinished(bench: Workbench) -> tuple[RunRows, Manifest]:
    """The rows so far of a run that has stopped."""
    located = locate(bench.run_directory)
    run = found_run(bench)
    return RunRows("out", rows_of_run(run, located)), run.manifest


def test_an_unfinished_run_is_rendered_from_its_input(bench: Workbench) -> None:
    """And where the input is gone, only its rows without a part have no prompt, which is said."""
    bench.write_rows(12)
    job = bench.job(output={"partition_rows": 4})
    virtual_time.run(cometbatch.run_async(job, limit=6, progress=False, http=simulator()))
    source, manifest = unfinished(bench)
    found = Rendered(source, manifest)
    assert found.hashes() == found.stored
    assert len(found.rows) == 6
    bench.input.unlink()
    source, manifest = unfinished(bench)
    gone = Rendered(source, manifest)
    assert gone.hashes() == [*found.stored[:4], None, None]
    assert gone.rows[4:] == [NO_INPUT, NO_INPUT]
    late = RunRows("out", msgspec.structs.replace(source.rows, lacks_input=False))  # it went while a page was watched
    assert Rendered(late, manifest).rows[4:] == [NO_INPUT, NO_INPUT]


def test_a_data_set_with_slices_or_without(bench: Workbench) -> None:
    """Its files say all that is needed."""
    bench.write_rows(9)
    output = {"path": f"{bench.folder}/out/", "partition_rows": 4}
    carry_out(bench.job(output=output), simulator())
    found = Rendered(result_at(bench.folder / "out"))
    assert found.hashes() == found.stored
    output = {"path": f"{bench.folder}/slices/"}
    carry_out(bench.job(output=output, target={"model": None}, matrix={"model": [MODEL, MINI]}), simulator())
    found = Rendered(result_at(bench.folder / "slices"))
    assert found.hashes() == found.stored
    assert len(found.stored) == 18


def test_columns_of_the_input_keep_their_names_and_meanings(bench: Workbench) -> None:
    """Under a prefix, with ids of one's own under the output's name, and with cells that are JSON."""
    field = pa.field("data", pa.string(), metadata=JSON_MARK)
    schema = pa.schema([pa.field("note", pa.string()), field, pa.field("custom_id", pa.string())])
    bench.write_table(pa.table([["a", "b"], ['{"x": [1, 2]}', '{"x": []}'], ["r1", "r2"]], schema=schema))
    prompt = {"system": None, "user": "{{ data.x|length }} {{ row|tojson }}"}
    carry_out(bench.job(input={"id": "custom_id"}, prompt=prompt), simulator())
    found = published(bench)
    assert found.hashes() == found.stored


def test_the_name_of_the_token_cap_is_that_of_the_session(bench: Workbench) -> None:
    """A job may name it otherwise by now; the hash of a row tells."""
    bench.write_rows(3)
    carry_out(bench.job(params={"max_tokens_field": "max_tokens"}), simulator())
    table, said = said_in(bench)
    job = json.loads(said["cometbatch.job"])
    job["params"]["max_tokens_field"] = "auto"
    pq.write_table(table.replace_schema_metadata(said | {"cometbatch.job": json.dumps(job)}), bench.output)
    found = published(bench)
    assert found.hashes() == found.stored
    assert b'"max_tokens":64' in found.bodies()[0]


def test_a_row_that_cannot_be_rendered_has_its_reason(bench: Workbench) -> None:
    """The others have their prompts."""
    write(bench, ["1", "no number", "3"])
    carry_out(bench.job(prompt={"system": None, "user": "{{ 1 // (note|int) }} {{ note }}"}), simulator())
    found = published(bench)
    assert [isinstance(row, str) for row in found.rows] == [False, True, False]
    assert "ZeroDivisionError" in str(found.rows[1])


def test_a_source_without_a_usable_job_says_why(bench: Workbench) -> None:
    """It has no job, one of another version, one that needs a column which is gone, or rules of another version."""
    bench.write_rows(2)
    carry_out(bench.job(), simulator())
    (table, said), manifest = said_in(bench), found_run(bench).manifest
    whys = list(reasons(bench, table, said))
    assert whys[0] == "The prompts can't be rendered again: the result does not say by which job it was made."
    assert whys[1].startswith("The prompts can't be rendered again: this describes no job")
    assert whys[2].startswith("The prompts can't be rendered again: prompt message 2 (user)")
    pq.write_table(table.replace_schema_metadata(said), bench.output)
    other = msgspec.structs.replace(manifest, fingerprint=manifest.fingerprint | {"prompt.rendering": 1})
    rules = Rendered(result_at(bench.output), other)
    assert rules.prompts.why_none is not None
    assert rules.rows == [rules.prompts.why_none] * 2
    elsewhere = msgspec.structs.replace(other, run_id="0" * 32)
    assert Rendered(result_at(bench.output), elsewhere).hashes() == table.column("request_hash").to_pylist()


def reasons(bench: Workbench, table: pa.Table, said: Mapping[str, str]) -> Iterator[str]:
    """Why there are no prompts: without a job, with another's, without a column."""
    job = json.loads(said["cometbatch.job"]) | {"messages": 5}
    without_job = {key: value for key, value in said.items() if key != "cometbatch.job"}
    for each in (
        table.replace_schema_metadata(without_job),
        table.replace_schema_metadata({**said, "cometbatch.job": json.dumps(job)}),
        table.drop_columns(["note"]).replace_schema_metadata(said),
    ):
        pq.write_table(each, bench.output)
        found = Rendered(result_at(bench.output))
        assert found.rows == [found.prompts.why_none] * 2
        yield str(found.prompts.why_none)


def test_prompts_that_are_not_those_that_were_sent_are_told(bench: Workbench) -> None:
    """A note says so, beside what the page finds of each row."""
    bench.write_rows(2)
    carry_out(bench.job(), simulator())
    table, said = said_in(bench)
    at = table.schema.get_field_index("request_hash")
    other = table.set_column(at, "request_hash", pa.array(["0" * 64] * 2))
    pq.write_table(other.replace_schema_metadata(said), bench.output)
    (note,) = published(bench).prompts.notes
    assert note.startswith("The prompts were rendered again, and those that were compared are not")


def test_shapes_beyond_those_that_a_page_lists_stay_with_their_rows(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And beyond those that are made at all, rows have a reason in the place of a prompt."""
    cells = [json.dumps([{"role": "user", "content": "a"}] * number) for number in range(1, 7)]
    write(bench, ["n"] * 6, talk=cells)
    carry_out(bench.job(prompt={"user": None, "system": None, "messages_column": "talk"}), simulator())
    found = Rendered(result_at(bench.output), frames=Frames(most=2))
    assert found.hashes() == found.stored
    assert [isinstance(row[0], int) for row in found.rows] == [True, True, False, False, False, False]
    monkeypatch.setattr(report_requests, "MAX_MADE", 3)
    few = published(bench)
    assert few.rows[3:] == [report_requests.TOO_MANY_SHAPES] * 3


def test_a_page_of_no_prompts_is_no_error() -> None:
    """A source of which nothing can be rendered gives its reason for each line."""
    none = Prompts("There is a reason.")
    assert none.render(pa.table({"a": [1, 2]})) == ["There is a reason."] * 2
    assert none.notes == []


@pytest.fixture(scope="session")
def told_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run with several prompts, one of which is long."""
    bench = Workbench(tmp_path_factory.mktemp("told"))
    write(bench)
    carry_out(bench.job(), simulator())
    cometbatch.report(bench.output, output=bench.folder / "report.html")
    return bench.folder / "report.html"


def test_the_drawer_tells_whether_a_prompt_is_the_one_that_was_sent(browser_page: Opener, told_report: Path) -> None:
    """As the file is opened from a disk: what was sent, and a prompt that the page has only the beginning of."""
    page = browser_page(told_report.as_uri() + "#call=0.5")
    page.get_by_text("Rendered again; it is the request that was sent.").wait_for()
    page.get_by_text("'; touch x; '").first.wait_for()
    page = browser_page(told_report.as_uri() + "#call=0.6")
    page.get_by_text("so its request can't be made here.").first.wait_for()
