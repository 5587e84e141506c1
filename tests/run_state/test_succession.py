"""An update takes the place of a run by moves, of which any may be the last before a kill: it goes forward alone."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cometbatch.errors import CheckpointError
from cometbatch.run_state import succession
from cometbatch.run_state.directory import RunDirectory
from tests.workbench import files

OLD, NEW = "old-run", "new-run"
FOLDERS = 2  # that are made first: moving has begun then
MOVES = FOLDERS + 6 + 6  # a run has six names, and so has its update
AFTER = 5  # steps that tidy up


class Killed(BaseException):
    """A kill -9, as far as the disk can tell."""


def written(folder: Path, run_id: str, *more: str) -> None:
    """What a run leaves in its folder, each file with the run's id in it."""
    for name in ("sessions/1.json", "journal/00000.1.jsonl", "parts/00000.part", "in_flight.1", *more, "manifest.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"run_id": "{run_id}", "name": "{name}"}}', encoding="utf-8")


def published(result: Path, run_id: str) -> None:
    """A result file that names its run."""
    pq.write_table(pa.table({"n": [1]}).replace_schema_metadata({"cometbatch.run_id": run_id}), result)


def content(folder: Path) -> dict[str, str]:
    """Every file of a run directory but its lock."""
    return {name: text.decode() for name, (text, _) in files(folder).items() if name != "lock"}


class Place:
    """A result with its run directory: a finished run, and an update of it."""

    def __init__(self, folder: Path, *, result: str = NEW) -> None:
        self.result = folder / "out.parquet"
        self.home = RunDirectory(folder / "_out.parquet.run")
        written(self.home.path, OLD, "reopened.json")
        written(self.home.path / "next", NEW, "in_flight.2")
        (self.home.path / "lock").touch()
        published(self.result, result)
        self.old = content(self.home.path)
        self.new = {name.removeprefix("next/"): text for name, text in self.old.items() if name.startswith("next/")}
        self.old = {name: text for name, text in self.old.items() if not name.startswith("next/")}

    def settle(self) -> None:
        succession.settle(RunDirectory(self.home.path), self.result)

    def reads(self, *, run_id: str) -> None:
        """Whoever looks at the run finds this one, and all of it."""
        seen = succession.looked_at(RunDirectory(self.home.path))
        assert f'"run_id": "{run_id}"'.encode() in (seen.read_manifest() or b"")
        assert seen.parts.path(0).read_text(encoding="utf-8").count(run_id) == 1
        assert [file.session for file in seen.journals.all()] == [1]
        assert seen.newest_number() == (2 if run_id == NEW else 1)
        assert [run_id in path.read_text(encoding="utf-8") for path in seen.marks_since(0)] == (
            [True, True] if run_id == NEW else [True]
        )

    def is_settled(self) -> None:
        earlier = {f"earlier/{OLD}/{name}": text for name, text in self.old.items()}
        assert content(self.home.path) == self.new | earlier
        assert not (self.home.path / "next").exists()


@pytest.mark.parametrize("is_result_there", [True, False], ids=["with its result", "whose result was moved away"])
@pytest.mark.parametrize("moves", range(MOVES + AFTER))
def test_a_kill_after_any_move_is_gone_forward_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, *, is_result_there: bool
) -> None:
    """Whatever was moved by then, who looks finds the new run whole, and the next process moves the rest."""
    place = Place(tmp_path)
    left = iter(range(moves))

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return step(*arguments, **options)

        return taken

    with monkeypatch.context() as patch:
        for name in ("replace", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with contextlib.suppress(Killed):
            place.settle()
    assert len(list((place.home.path / "earlier").rglob("manifest.json"))) == (moves >= FOLDERS + 6)
    assert (place.home.path / "next/manifest.json").exists() == (moves < MOVES)
    place.reads(run_id=NEW)
    if not is_result_there and moves >= FOLDERS:
        place.result.unlink()
    place.settle()
    place.is_settled()
    place.reads(run_id=NEW)
    before = files(tmp_path)
    place.settle()
    assert files(tmp_path) == before


@pytest.mark.parametrize("result", [OLD, "another-run"])
def test_nothing_moves_before_the_new_result_stands(tmp_path: Path, result: str) -> None:
    """The rename of the result decides, and nothing else does; commands look at the update."""
    place = Place(tmp_path, result=result)
    before = files(tmp_path)
    place.settle()
    assert files(tmp_path) == before
    place.reads(run_id=NEW)


def test_an_update_without_its_manifest_holds_nothing(tmp_path: Path) -> None:
    """Nothing was sent before it: commands look at the run that stands, and the next process removes the rest."""
    place = Place(tmp_path)
    (place.home.path / "next/manifest.json").unlink()
    place.reads(run_id=OLD)
    place.settle()
    assert content(place.home.path) == place.old
    assert not (place.home.path / "next").exists()


def test_what_is_not_ours_is_not_removed(tmp_path: Path) -> None:
    """A file that a person put into the folder of an update that holds nothing stays."""
    place = Place(tmp_path)
    (place.home.path / "next/manifest.json").unlink()
    (place.home.path / "next/parts/notes.txt").write_text("mine", encoding="utf-8")
    place.settle()
    assert content(place.home.path) == place.old | {"next/parts/notes.txt": "mine"}


def test_an_update_that_is_given_up_is_kept_whole(tmp_path: Path) -> None:
    """One rename moves it to the earlier runs, and the run that stood there stands again."""
    place = Place(tmp_path, result=OLD)
    succession.give_up(place.home)
    assert content(place.home.path) == place.old | {f"earlier/{NEW}/{name}": text for name, text in place.new.items()}
    place.reads(run_id=OLD)
    assert [each.path.name for each in succession.earlier_runs(place.home)] == [NEW]


def test_a_file_of_another_run_is_never_overwritten(tmp_path: Path) -> None:
    """A run directory whose manifest a person removed has files where those of the update would go: refused by name."""
    place = Place(tmp_path)
    (place.home.path / "manifest.json").unlink()
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=r"in_flight\.1: this stands where .*next/in_flight\.1 goes"):
        place.settle()
    assert files(tmp_path) == before


def test_a_fresh_start_forgets_the_run_and_its_update_and_keeps_earlier_ones(tmp_path: Path) -> None:
    """`--fresh` deletes what it says; the runs before it are removed by their own option."""
    place = Place(tmp_path)
    place.settle()
    written(place.home.path / "next", "third-run")
    succession.clear(place.home)
    assert content(place.home.path) == {f"earlier/{OLD}/{name}": text for name, text in place.old.items()}
    size = sum(map(len, place.old.values()))
    assert succession.forget_earlier(place.home) == (1, size)
    assert content(place.home.path) == {}
    assert succession.forget_earlier(place.home) == (0, 0)
