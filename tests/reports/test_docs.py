"""What docs/compare.md says of a leaderboard is what it is."""

import re
from pathlib import Path

import msgspec
import pytest

from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.reports import board
from tests.reports.shown import shown

PAGE = (Path(__file__).parent.parent.parent / "docs/compare.md").read_text(encoding="utf-8")
TYPES = [each for each in vars(board).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]


def test_the_leaderboard_shown_is_one(tmp_path: Path) -> None:
    """Line by line, at the usual width."""
    block = re.search(r"<!-- shown: leaderboard -->\n```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert block is not None
    assert block[1] == shown(tmp_path).describe(100)


@pytest.mark.parametrize("kind", [*TYPES, Interval])
def test_each_field_of_the_json_is_documented(kind: type[msgspec.Struct]) -> None:
    """By its name."""
    documented = set(re.findall(r"`(\w+)`", PAGE.partition("## The JSON")[2]))
    assert set(kind.__struct_fields__) <= documented
