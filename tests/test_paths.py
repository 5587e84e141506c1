"""Where a job's files are: links, places without a name, and marks that another program was to fill in."""

import os
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.errors import JobError, UsageError
from cometbatch.job.paths import mark_in
from tests.workbench import Network, Workbench, carry_out

# -- links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True], ids=["dangling", "to a folder that is there"])
def test_a_link_at_the_output_leads_to_the_result(bench: Workbench, there: bool) -> None:
    """The result is written where the link points, the link stays, and each command finds the run by either name."""
    disk = bench.folder / "disk"
    if there:
        disk.mkdir()
    bench.output.symlink_to("disk/real.parquet")
    assert carry_out(bench.job(), Network()).all_succeeded
    assert bench.output.is_symlink()
    assert (disk / "real.parquet").is_file()
    assert not (disk / "real.parquet").is_symlink()
    assert bench.result().num_rows == 12
    for place in (bench.output, disk / "real.parquet", disk / "_real.parquet.run"):
        assert cometbatch.status(place).summary.finished
        assert cometbatch.verify(place).ok
    again = Network()
    assert not carry_out(bench.job(), again).had_work
    assert not carry_out(bench.job(output={"path": str(disk / "real.parquet")}), again).had_work
    assert again.requests == []


def test_a_link_to_a_folder_holds_a_data_set(bench: Workbench) -> None:
    """The parts are written into the folder that the link leads to, and the link stays."""
    (bench.folder / "disk").mkdir()
    link = bench.folder / "rows"
    link.symlink_to("disk")
    assert carry_out(bench.job(output={"path": f"{link}/"}), Network()).all_succeeded
    assert link.is_symlink()
    assert pq.read_table(link).num_rows == 12
    assert cometbatch.status(link).summary.finished


def test_a_result_that_was_moved_away_and_linked_back_stays_the_run_s(bench: Workbench) -> None:
    """The run is beside the link then: nothing is sent again, and a retry writes where the link leads."""
    carry_out(bench.job(simulator={"faults": {"400": 0.5}}), Network())
    away = bench.folder / "archive.parquet"
    bench.output.rename(away)
    bench.output.symlink_to(away)
    again = Network()
    assert not carry_out(bench.job(), again).had_work
    assert again.requests == []
    before = away.stat().st_ino
    (bench.run_directory / "reopened.json").write_text('{"rounds": 1, "partitions": {}}', encoding="utf-8")
    assert carry_out(bench.job(), Network()).finished  # published again
    assert bench.output.is_symlink()
    assert away.stat().st_ino != before


@pytest.mark.parametrize("target", ["out.parquet", "other.parquet"])
def test_a_loop_of_links_is_refused_in_words(bench: Workbench, target: str) -> None:
    """A loop leads nowhere: the job is refused, and so is the name given to a command."""
    bench.output.symlink_to(target)
    (bench.folder / "other.parquet").unlink(missing_ok=True)
    (bench.folder / "other.parquet").symlink_to("out.parquet")
    with pytest.raises(JobError, match=r"output\.path: can't be used"):
        bench.job()
    with pytest.raises(UsageError, match="can't be used"):
        cometbatch.status(bench.output)


def test_a_link_to_the_input_or_the_job_is_refused(bench: Workbench) -> None:
    """The result overwrites neither, by whatever name."""
    bench.output.symlink_to(bench.input)
    with pytest.raises(JobError, match="the input itself is there"):
        bench.job()
    named = bench.folder / "job.parquet"
    bench.write_job(output={"path": str(named)}).rename(named)
    with pytest.raises(JobError, match="the job file itself is there"):
        cometbatch.load_job(named)


# -- places without a name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "//", "/.", "/..", "/../", ".", "..", "../", "~", "~/", "out/..", "x/.", ".parquet", "out/.parquet"]
)
def test_a_place_without_a_name_is_refused(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable before a slash or an ending leaves such paths: they are told before anything is made."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setenv("HOME", str(inside))
    monkeypatch.chdir(inside)
    bench = Workbench(tmp_path)
    bench.write_rows(1)
    with pytest.raises(JobError, match=r"output\.path: (expected|the folder holds)"):
        bench.job(output={"path": path})
    assert list(inside.iterdir()) == []


def test_the_root_is_no_run() -> None:
    """A command that is given the root of the file system says so."""
    for look in (cometbatch.status, cometbatch.verify):
        with pytest.raises(UsageError, match="root of the file system"):
            look("/")


# -- marks of other programs -------------------------------------------------------------------------------------------

MARKED = {
    "$OUT/r.parquet": "$OUT",
    "${OUT_DIR}/r.parquet": "${OUT_DIR}",
    "out/$(date +%F).parquet": "$(date +%F)",
    "out/`date +%F`.parquet": "`date +%F`",
    "out/{{ ds }}/r.parquet": "{{ ds }}",
    "out/{{ds_nodash}}.parquet": "{{ds_nodash}}",
    "out/{% if x %}a.parquet": "{% if x %}",
    "out/{day}.parquet": "{day}",
    "out/{day:%j}.parquet": "{day:%j}",
    "out/%Y-%m-%d.parquet": "%Y",
    "out/r.%s.parquet": "%s",
    "out/%(day)s.parquet": "%(day)s",
    "%TEMP%/r.parquet": "%TEMP%",
    "out/<% day %>.parquet": "<% day %>",
}


@pytest.mark.parametrize("path", MARKED)
def test_a_mark_that_nothing_replaces_is_refused_with_the_way_out(bench: Workbench, path: str) -> None:
    """No folder of that name appears; the message names the mark and the option that takes the path as it should be."""
    with pytest.raises(JobError) as refused:
        bench.job(output={"path": f"{path}"})
    assert repr(MARKED[path]) in str(refused.value)
    assert "--set output.path=" in str(refused.value)
    with pytest.raises(JobError, match=r"input\.path: .*--set input\.path="):
        bench.job(input={"path": path.replace(".parquet", ".csv")})
    assert sorted(bench.folder.iterdir()) == [bench.input]


@pytest.mark.parametrize(
    "path", ["$SOME_DIR/r.parquet", "out/${SOME_DIR}.parquet", "%Y/r.parquet", "`echo x`/r.parquet"]
)
def test_the_way_out_is_one(tmp_path: Path, path: str) -> None:
    """Pasted into a shell, the option that the message gives holds a path without marks."""
    bench = Workbench(tmp_path)
    bench.write_rows(1)
    with pytest.raises(JobError) as refused:
        bench.job(output={"path": path})
    option = str(refused.value).partition("--set ")[2]
    said = subprocess.run(
        ["bash", "-c", f"printf %s {option}"],
        env={**os.environ, "SOME_DIR": "x"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert mark_in(said) is None
    job = cometbatch.load_job(bench.settings(output={"path": path}), [said], base_dir=tmp_path)
    assert re.fullmatch(r".*/(x|out/x|\d{4})(/r)?\.parquet", str(job.output.path))


@pytest.mark.parametrize("path", MARKED)
def test_a_name_that_is_there_is_meant(bench: Workbench, path: str) -> None:
    """A file or folder of just that name, mark included, is taken as it is."""
    end = path.find("/", path.index(MARKED[path]) + len(MARKED[path]))
    if "/" in MARKED[path]:
        pytest.skip("no single name holds this mark")
    place = bench.folder / (path if end < 0 else path[:end])
    place.parent.mkdir(exist_ok=True, parents=True)
    place.mkdir()
    if end >= 0:
        assert bench.job(output={"path": str(bench.folder / path)}).output.path == bench.folder / path
    else:
        place.rmdir()
        source = Path(str(place).replace(".parquet", ".csv"))
        source.write_bytes(bench.input.read_bytes())
        assert bench.job(input={"path": str(source)}).input.path == source


@pytest.mark.parametrize(
    "path",
    [
        "100%sure/r.parquet",
        "100%_x.parquet",
        "50% off.parquet",
        "a%20b.parquet",
        "cost$5.parquet",
        "{3F25-04E0}.parquet",
        "a{1}.parquet",
        "$.parquet",
        "r%.parquet",
    ],
)
def test_ordinary_signs_are_no_marks(bench: Workbench, path: str) -> None:
    """A dollar before a digit, a percentage, an escape of a URL or a GUID is part of a name."""
    assert bench.job(output={"path": str(bench.folder / path)}).output.path == bench.folder / path


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(whitelist_categories=("L", "N"), whitelist_characters=" ._-/,;@#!&'+=~"), max_size=40))
def test_a_path_without_signs_of_templates_has_no_mark(path: str) -> None:
    """Law: letters of any script, digits and the usual signs of file names never look like a mark."""
    assert mark_in(path) is None
