"""Foreign text on a terminal: nothing of a cell or of a service's message is hidden, or does anything there."""

import json
import os
import subprocess
import unicodedata
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch import cli
from cometbatch.results.terminal import columns, cut, escaped_json, fitting, visible
from tests.test_cli import COMMAND, on_a_terminal
from tests.workbench import Network, Workbench, carry_out

HOSTILE = {
    "an escape sequence": "\x1b[2J\x1b]0;title\x07",
    "its one-byte form": "\x9b2J",
    "a carriage return": "all is well\rwiped",
    "backspaces and a NUL": "a\b\b\x00",
    "a tab and a form feed": "a\tb\x0c",
    "line breaks of other kinds": "a\x0bb\x85c\u2028d\u2029e",
    "direction": "user\u202egnp.exe\u202c\u2066x\u2069\u200f\u061c",
    "no width": "pass\u200bword\u200c\u200d\u2060\ufeff\u00ad",
    "hidden letters": "\U000e0068\U000e0069\U000e0101\u034f\u115f\u3164\uffa0\u17b4\u180e",
    "private use": "\ue000\U0010fffd",
    "too many accents": "z" + "\u0301" * 40,
    "an accent on nothing": "\u0301",
}
HARMLESS = "Größe 日本語 नमस्ते שלום e\u0301 👍🏽 ❤\ufe0f 🇩🇪 \u00a0\u3000…"
NEVER = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")

texts = st.text(max_size=30) | st.text(st.sampled_from("".join(HOSTILE.values()) + HARMLESS + "ab \n"), max_size=30)


def refuse_hidden(shown: str) -> None:
    """Fail where a text could do something on a terminal, or has a character that is not seen."""
    for char in shown.replace("\n", ""):
        assert unicodedata.category(char) not in NEVER, ascii(shown)
        assert not 0x0E0100 <= ord(char) <= 0x0E01EF, ascii(shown)
    assert "\u0301" * 5 not in shown


@given(text=texts)
def test_whatever_the_text_nothing_of_it_is_hidden(text: str) -> None:
    """Control, direction, zero-width and private characters are escapes; what is shown is shown the same again."""
    shown = visible(text)
    refuse_hidden(shown)
    assert visible(shown) == shown
    assert shown.count("\n") == text.count("\n")
    assert "\n" not in visible(text, keep="")


@given(text=texts, room=st.integers(1, 40))
def test_a_text_is_cut_to_the_room_that_there_is(text: str, room: int) -> None:
    """It never takes more columns, and is whole where there is room for it."""
    shown = cut(text, room)
    refuse_hidden(shown)
    assert columns(shown) <= room
    whole = visible(text, keep="")
    assert shown == whole if columns(whole) <= room else shown.endswith("…")


@given(text=texts)
def test_json_means_the_same_with_nothing_hidden(text: str) -> None:
    """A reader of `--json` gets the text as it was, whoever looks at it sees all of it."""
    said = escaped_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(said) == text
    for char in said:
        assert unicodedata.category(char) not in NEVER


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_hostile_is_escaped(text: str) -> None:
    """Each kind by itself; the words around it stay."""
    refuse_hidden(visible(f"before {text} after"))
    assert "\\" in visible(f"before {text} after"[7:])
    assert visible(f"before {text} after").startswith("before ")


def test_what_people_write_stays_as_it_is() -> None:
    """Scripts, accents, emoji and their colours are no threat."""
    assert visible(HARMLESS) == HARMLESS


@pytest.mark.parametrize(
    ("text", "width"),
    [("ab", 2), ("日本", 4), ("e\u0301", 1), ("ｶ", 1), ("👍", 2), ("❤\ufe0f", 2), ("\u3000", 2), ("", 0)],
)
def test_wide_characters_take_two_columns(text: str, width: int) -> None:
    """And accents none."""
    assert columns(text) == width


@given(wanted=st.lists(st.integers(0, 100), min_size=1, max_size=8), room=st.integers(1, 120))
def test_cells_share_a_line_and_never_pass_its_end(wanted: list[int], room: int) -> None:
    """Those at the end are left out where there is no room; who wants little has it."""
    sizes = fitting(wanted, room, 8, 2)
    assert 1 <= len(sizes) <= len(wanted)
    assert sum(sizes) + 2 * (len(sizes) - 1) <= room or len(sizes) == 1
    assert all(size <= wish for size, wish in zip(sizes, wanted, strict=False))
    if sum(wanted) + 2 * (len(wanted) - 1) <= room:
        assert sizes == wanted


# -- everywhere ------------------------------------------------------------------------------------------------------


def hostile_service(request: httpx.Request) -> httpx.Response | None:
    """Answers hostile texts; the second row is refused with hostile words."""
    if request.method != "POST":
        return None
    words = "".join(HOSTILE.values())
    if b"0001" in request.content:
        return httpx.Response(400, json={"error": {"message": words, "code": "bad\x1b[0m\u202e"}})
    choice = {"message": {"content": words}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return httpx.Response(200, json={"id": words, "model": words, "choices": [choice], "usage": usage})


@pytest.fixture
def hostile(bench: Workbench) -> Workbench:
    """A finished run of hostile cells, under hostile names of columns, with hostile answers."""
    cells = list(HOSTILE.values())
    table = pa.table({"parcel": [f"{row:04d}" for row in range(len(cells))], "note": cells, "na\x1b[1mme\u202e": cells})
    bench.write_table(table)
    carry_out(bench.job(), Network(answer=hostile_service))
    return bench


def test_nothing_that_is_shown_of_a_run_does_anything(hostile: Workbench) -> None:
    """Every view of it, for people and for programs, and the page of `plan` that shows a request."""
    job = str(hostile.write_job())
    columns_wanted = ["--columns", "note,response,na\x1b[1mme\u202e"]
    views = (
        ["show"],
        ["show", "--full"],
        ["show", "--failed", "--full"],
        ["show", *columns_wanted],
        ["status"],
        ["verify"],
    )
    for each in (*views, ["status", "--json"], ["verify", "--json"], ["show", "--columns", "\x1b[1m"]):
        said = CliRunner().invoke(cli.cli, [*each, job])
        refuse_hidden(said.stdout.replace("\t", ""))
        refuse_hidden(said.stderr + str(said.exception))
    planned = cometbatch.plan(hostile.job(output={"path": str(hostile.folder / "other.parquet")}))
    refuse_hidden(planned.describe())
    assert "\\u202e" in planned.describe() or "\\x1b" in planned.describe() or "\\u001b" in planned.describe()


@pytest.mark.parametrize("arguments", [["show"], ["export", "--to", "csv"], ["export", "--to", "jsonl"]])
def test_on_a_terminal_cells_can_do_nothing(hostile: Workbench, arguments: list[str]) -> None:
    """Lines are cut to its width where they are for people; `export` shows whole cells with escapes there."""
    code, shown = on_a_terminal([*COMMAND, *arguments, str(hostile.output)], 60)
    assert code == 0
    lines = shown.replace("\r\n", "\n")
    refuse_hidden(lines)
    if arguments == ["show"]:
        assert max(columns(line) for line in lines.splitlines() if not line.startswith("Note: ")) < 60
        assert len([line for line in lines.splitlines() if not line.startswith("Note: ")]) == 1 + 10


def test_a_file_gets_the_cells_as_they_are(hostile: Workbench, tmp_path: Path) -> None:
    """What leads elsewhere than to a terminal is data."""
    piped = subprocess.run(
        [*COMMAND, "export", str(hostile.output), "--to", "csv", "--columns", "note"],
        env={**os.environ},
        capture_output=True,
        check=True,
    )
    assert "\x1b[2J" in piped.stdout.decode()
    cometbatch.export(hostile.output, to="csv", columns=["note"], output=tmp_path / "x.csv").save()
    assert (tmp_path / "x.csv").read_bytes() == piped.stdout
