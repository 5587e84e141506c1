"""The texts of docs/schedulers.md: whoever tries a recipe takes the very text that a reader copies."""

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs/schedulers.md"
BLOCK = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CELLS = re.compile(r"^\| exit code \|.*?(?=^$)", re.MULTILINE | re.DOTALL)
SECONDS_FOR = {"5min": "1s", "timedelta(minutes=5)": "timedelta(seconds=1)", "delay=300": "delay=1"}
SECONDS_FOR |= {"retry_delay_seconds=300": "retry_delay_seconds=1"}
"""The pauses before a retry that nobody waits for here."""


def recipe(name: str, replaced: Mapping[str, str]) -> str:
    """A file of the page, with this machine's paths in place of the page's, and short pauses before a retry.

    What is to be replaced is there, or the page and its check have grown apart.
    """
    text: str = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))[name]
    for old, new in replaced.items():
        assert old in text, f"{name} does not have {old!r}"
        text = text.replace(old, new)
    for old, new in SECONDS_FOR.items():
        text = text.replace(old, new)
    return text


def for_folders(scheduler: str) -> str:
    """What the page says to write in a scheduler's recipe for a folder for each night."""
    text = PAGE.read_text(encoding="utf-8").partition("## A folder for each night")[2]
    row = re.search(rf"^\| {scheduler} \| `(.*)` \|$", text, re.MULTILINE)
    assert row is not None
    return row[1]


def promised(scheduler: str) -> dict[int, str]:
    """What the page says that a scheduler does after each exit code."""
    found = CELLS.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[0].splitlines()]
    return {int(row[0]): row[head.index(scheduler)] for row in rows}
